"""Databases of either kind as tests of the store see them from outside, and records to put there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from d1fleet.registry.contents import Snapshot
from d1fleet.registry.model import AuditEntry, Host, Key, Operator, Project, Record, Token
from d1fleet.registry.store import Store, url_of_file
from tests.support.postgres import PostgresCluster

ENGINE = Project("engine", ("192.0.2.0/24", "2001:db8::/64"), ("lzo", "cpp"), "ssh", "ignore", True, 1.5)
TOOLS = Project("tools", ("198.51.100.0/24",))
ALDER = Host(
    "a" * 32,
    "alder.example",
    ("tools", "engine"),
    owner="ada",
    address="192.0.2.11",
    fixed_address="2001:db8::1",
    slots=8,
    port=3633,
    ssh_port=2222,
    serving=False,
    version="0.1.0",
    system="Debian GNU/Linux 12",
    machine="0a" * 32,
    host_keys=("ssh-ed25519 " + "A" * 44, "ssh-rsa " + "B" * 60 + "=="),
    toolchain={"cc": "gcc 12.2.0", "as": "2.40 \N{LATIN SMALL LETTER E WITH ACUTE}\"'"},
    generation=3,
    session="5e" * 16,
    joined_at=1_700_000_000.25,
    seen_at=1_700_000_001.125,
    drained=True,
    left=True,
    note="its address 192.0.2.11 is in none of the ranges",
)
BIRCH = Host("b" * 32, "birch", (), expunged=True, cloned=True, gone=True, joined_at=2.0)
CEDAR = Host("c" * 32, "cedar", ("engine",), joined_at=1.0)
TOKEN = Token("0123abcd", "engine", "d1" * 32, "for Ada's own", 3.0, 4.0)
OPERATOR = Operator("ada", "$argon2id$v=19$m=64,t=1,p=4$c2FsdA$aGFzaA", "operator", 5.0)
KEY = Key("89abcdef", "e2" * 32, "viewer", "dashboard", 6.0)
EVERYTHING: tuple[Record, ...] = (TOKEN, ALDER, BIRCH, CEDAR, KEY, OPERATOR, ENGINE, TOOLS)
"""In no useful order."""


def entry(number: int, **values: Any) -> AuditEntry:
    return replace(
        AuditEntry(float(number), "operator:ada", "drain", f"host-{number}", "192.0.2.99"), **values
    )


def host(number: int, *projects: str, **values: Any) -> Host:
    return Host(f"{number:032x}", f"host-{number}", projects, joined_at=float(number), **values)


def same(snapshot: Snapshot, *records: Record) -> bool:
    """Does it hold exactly these?"""
    return len(snapshot.records) == len(records) and all(record in snapshot.records for record in records)


class Place(Protocol):
    """Where a store has its database."""

    kind: str

    @property
    def url(self) -> str: ...

    def sql(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Do something by the hand of somebody else; placeholders are %s."""

    def script(self, text: str) -> None:
        """Do many things."""


def stored(place: Place) -> Snapshot:
    """What a store reads that is opened there now."""
    with Store(place.url) as store:
        return store.snapshot()


class SqlitePlace:
    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return url_of_file(self.path)

    def sql(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement.replace("%s", "?"), values).fetchall()

    def script(self, text: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executescript(text)


class PostgresPlace:
    kind = "postgresql"

    def __init__(self, cluster: PostgresCluster) -> None:
        self.cluster = cluster
        self.name = cluster.new_database()

    @property
    def url(self) -> str:
        return self.cluster.url(self.name)

    def sql(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        return self.cluster.sql(statement, values or None, self.name)

    def script(self, text: str) -> None:
        self.cluster.sql(text, None, self.name)

    def close(self) -> None:
        self.cluster.drop_database(self.name)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def fill(folder: Path, free_bytes: int = 0) -> Path:
    """Use up a disk, but for so much."""
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(0, path.stat().st_size - free_bytes))
    return path
