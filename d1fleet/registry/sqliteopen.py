"""Connections to a file of SQLite, as the registry wants them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine, event

from .checks import UnfitError
from .storeerrors import StoreError, StoreGoneError

BUSY_S = 5.0
"""So long we wait for somebody who looks at the database with another program (a guess)."""

LARGEST_JOURNAL_BYTES = 16 << 20
"""To this the write-ahead log is cut back once all of it is in the database."""


def raw(path: str) -> sqlite3.Connection:
    """Connect to a file that is there."""
    opened = sqlite3.connect(
        f"file:{quote(path)}?mode=rw",
        uri=True,
        timeout=BUSY_S,
        # Begin transactions when we say so, and for what changes the schema, too.
        isolation_level=None,
        # Whose turn it is, is the store's business.
        check_same_thread=False,
    )
    # What is no UTF-8 is found by our own checks, which can say where it is.
    opened.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return opened


def connected(path: str, writes: bool = True, keys: bool = True, lasting: bool = False) -> Connection:
    """Connect by way of SQLAlchemy.

    Args:
        writes: every transaction is begun as one that writes, so that it waits for others at once.
        keys: foreign keys are looked after.
        lasting: for the store's own writing: with a write-ahead log.
    """

    def connect() -> sqlite3.Connection:
        opened = raw(path)
        try:
            opened.execute("PRAGMA synchronous=FULL")
            opened.execute(f"PRAGMA foreign_keys={'ON' if keys else 'OFF'}")
            opened.execute(f"PRAGMA journal_size_limit={LARGEST_JOURNAL_BYTES}")
            if lasting and (mode := opened.execute("PRAGMA journal_mode=WAL").fetchone()[0]) != "wal":
                raise StoreError(
                    f"the file system of {path} cannot hold a write-ahead log (SQLite is left with {mode})",
                    "put the database on a disk of this machine, not on a network's",
                )
        except BaseException:
            opened.close()
            raise
        return opened

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine.connect()


@contextlib.contextmanager
def closing(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    finally:
        connection.close()


def check_whole(connection: Connection, path: str) -> None:
    """Raises:
    StoreGoneError: it is damaged.
    UnfitError: a row refers to another that is not there.
    """
    with connection.begin():
        found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar())
        if found != "ok":
            raise StoreGoneError(
                f"the database {path} is damaged: {' '.join(found.split())[:200]}",
                "move it away and restore a backup: d1fleet registry restore",
            )
        for table, row, other, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            raise UnfitError(str(table), f"row {row}", f"what it names in {other} is not there")
