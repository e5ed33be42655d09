"""Backups: what is written is read again, of either kind of database into the other; nothing else is."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from d1fleet.registry import backup as backup_module
from d1fleet.registry.backup import Backup, BackupError, read_backup, restore, write_backup
from d1fleet.registry.contents import Snapshot
from d1fleet.registry.store import Store, StoreError
from tests.support.postgres import PostgresCluster, missing_reason
from tests.unit.registry.places import (
    ALDER,
    BIRCH,
    CEDAR,
    ENGINE,
    EVERYTHING,
    KEY,
    OPERATOR,
    TOKEN,
    TOOLS,
    Place,
    PostgresPlace,
    SqlitePlace,
    entry,
    fill,
    host,
    same,
    stored,
)

SECRET = bytes(range(32))
SNAPSHOT = Snapshot((ENGINE, TOOLS), (CEDAR, BIRCH, ALDER), (TOKEN,), (OPERATOR,), (KEY,), 1234.5)
AUDIT = (entry(2, detail='"\\ \N{SNOWMAN}'), entry(1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backup.json"


@pytest.fixture
def document(path: Path) -> dict[str, Any]:
    """What stands in a backup of everything."""
    write_backup(SNAPSHOT, SECRET, path, AUDIT)
    return dict(json.loads(path.read_text()))


def test_what_is_written_is_read_again(path: Path) -> None:
    before = time.time()
    write_backup(SNAPSHOT, SECRET, path, AUDIT)
    read = read_backup(path)
    assert read == Backup(SNAPSHOT, SECRET, AUDIT, read.made_at)
    assert before <= read.made_at <= time.time()


def test_nobody_else_may_read_it_and_nothing_shows_its_secret(path: Path) -> None:
    path.touch(0o644)
    old = os.umask(0)
    try:
        write_backup(SNAPSHOT, SECRET, path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["backup.json"]
    assert repr(read_backup(path)) == "<Backup of 8 records>"


def test_of_a_store_that_is_open_into_either_kind_of_database(
    place: Place, postgres: PostgresCluster | None, tmp_path: Path, path: Path
) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING, audit=[entry(number) for number in range(20)])
        write_backup(store, SECRET, path)
    with contextlib.ExitStack() as stack:
        others: list[Place] = [SqlitePlace(tmp_path / "other.db")]
        if postgres is not None:
            others.append(stack.enter_context(contextlib.closing(PostgresPlace(postgres))))
        for other in others:
            before = time.time()
            assert restore(other.url, path).secret == SECRET
            with Store(other.url) as store:
                assert same(store.snapshot(), *EVERYTHING)
                assert before <= store.snapshot().made_at <= time.time()  # hosts that joined later come back
                assert store.audit(100) == [entry(number) for number in reversed(range(20))]
                store.apply([host(1)], audit=[entry(20)])
                assert store.audit(1) == [entry(20)]
    if postgres is None:
        pytest.skip(missing_reason())


def test_of_a_database_that_a_registry_has(place: Place, path: Path) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING, audit=[entry(1), entry(2)])
        write_backup(Store(place.url), SECRET, path)
        store.apply([host(1)])
    read = read_backup(path)
    assert same(read.snapshot, *EVERYTHING)
    assert read.audit == (entry(2), entry(1))


def test_what_a_database_holds_is_not_overwritten_unless_one_says_so(place: Place, path: Path) -> None:
    write_backup(SNAPSHOT, SECRET, path, AUDIT)
    with Store(place.url) as store:
        store.apply([TOOLS, host(1, "tools")], audit=[entry(7)])
    with pytest.raises(BackupError, match="has 1 projects and 1 hosts already"):
        restore(place.url, path)
    assert same(stored(place), TOOLS, host(1, "tools"))
    restore(place.url, path, overwrite=True)
    with Store(place.url) as store:
        assert same(store.snapshot(), *EVERYTHING)
        assert store.audit(9) == list(AUDIT)


def test_nothing_is_restored_under_a_registry_that_runs(sqlite_place: SqlitePlace, path: Path) -> None:
    write_backup(SNAPSHOT, SECRET, path)
    with Store(sqlite_place.url), pytest.raises(StoreError, match="in use by another"):
        restore(sqlite_place.url, path, overwrite=True)


def test_nothing_is_touched_when_the_backup_is_none(sqlite_place: SqlitePlace, path: Path) -> None:
    path.write_text("{}")
    with pytest.raises(BackupError, match="no backup of a registry"):
        restore(sqlite_place.url, path)
    assert not sqlite_place.path.exists()


def test_a_backup_is_whole_or_not_there(small_disk: Path) -> None:
    path = small_disk / "backup.json"
    write_backup(SNAPSHOT, SECRET, path, AUDIT)
    before = path.read_bytes()
    filler = fill(small_disk)
    with pytest.raises(BackupError, match="cannot be written: No space left on device") as caught:
        write_backup(SNAPSHOT, SECRET, path, [entry(number) for number in range(1000)])
    assert caught.value.mend
    assert path.read_bytes() == before
    filler.unlink()
    assert os.listdir(small_disk) == ["backup.json"]


def test_a_secret_that_is_none_is_not_written(path: Path) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        write_backup(SNAPSHOT, b"short", path)
    assert not path.exists()


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="cannot be read: No such file"):
        read_backup(tmp_path / "none.json")
    with pytest.raises(BackupError, match="cannot be written: No such file"):
        write_backup(SNAPSHOT, SECRET, tmp_path / "none" / "backup.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is no JSON, at line 1"),
        (b"SQLite format 3\x00", "it is no JSON, at line 1"),
        (b"[]", "it is no backup of a registry"),
        (b'{"format": "\xff"}', "it is no UTF-8, at byte 12"),
        (b"[" * 100_000, "it is no JSON that could be a backup"),
        (b"[" + b"1" * 5000 + b"]", "it is no JSON that could be a backup"),
        (b'{"made_at": NaN}', "NaN is no number"),
        (b'{"version": 1, "version": 1}', "version is there twice"),
        (b'{"format": "d1fleet registry backup", "version": 2}', "has version 2, this d1fleet knows 1"),
        (b'{"format": "d1fleet registry backup", "version": "\\u001b"}', r"has version \?, this"),
        (b'{"format": "d1fleet registry backup", "version": 1}', "audit is missing"),
    ],
)
def test_texts_that_are_no_backup(path: Path, text: bytes, words: str) -> None:
    path.write_bytes(text)
    with pytest.raises(BackupError, match=f"the backup {path} cannot be used: .*{words}"):
        read_backup(path)


def test_it_is_not_read_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_module, "LARGEST_BYTES", 10)
    path.write_text(" " * 11)
    with pytest.raises(BackupError, match="it is too large"):
        read_backup(path)


Spoil = Callable[[dict[str, Any]], object]

SPOILS: list[tuple[Spoil, str]] = [
    (lambda d: d.pop("hosts"), "hosts is missing"),
    (lambda d: d.update(more=1), "more is nothing that belongs there"),
    (lambda d: d.update(secret="AAAA"), "secret: it has 3 bytes instead of 32"),
    (lambda d: d.update(secret="?"), "secret: it is no base64"),
    (lambda d: d.update(secret=None), "secret: it is no base64"),
    (lambda d: d.update(made_at="now"), "made_at: it has to be seconds"),
    (lambda d: d.update(made_at=10**400), "made_at: it has to be seconds"),
    (lambda d: d.update(database_made_at=-1), "database_made_at: it has to be seconds"),
    (lambda d: d.update(database_made_at=True), "database_made_at: it has to be seconds"),
    (lambda d: d.update(hosts={}), "hosts: it has to be a list"),
    (lambda d: d["hosts"].insert(1, 7), "hosts, entry 2: it has to be a mapping"),
    (lambda d: d["hosts"][0].pop("slots"), r"hosts, entry 1 \(cedar\): slots: it is missing"),
    (
        lambda d: d["hosts"][0].update(colour="red"),
        r"hosts, entry 1 \(cedar\): colour: there is no such field",
    ),
    (lambda d: d["hosts"][2].update(slots="8"), r"hosts, entry 3 \(alder.example\): slots: .* whole number"),
    (lambda d: d["hosts"][2].update(slots=True), "slots: it has to be a whole number"),
    (lambda d: d["hosts"][2].update(slots=10**30), "slots: it has to be a whole number from 1"),
    (lambda d: d["hosts"][2].update(drained=1), "drained: it has to be true or false"),
    (lambda d: d["hosts"][2].update(joined_at="1"), "joined_at: it has to be a number"),
    (lambda d: d["hosts"][2].update(joined_at=1e12), "joined_at: it has to be seconds"),
    (lambda d: d["hosts"][2].update(projects="engine"), "projects: it has to be a list of texts"),
    (lambda d: d["hosts"][2].update(projects=[["engine"]]), "projects: it has to be a list of texts"),
    (lambda d: d["hosts"][2].update(toolchain=[]), "toolchain: it has to be a mapping"),
    (lambda d: d["hosts"][2].update(toolchain={"cc": None}), "toolchain: a part"),
    (lambda d: d["hosts"][2].update(host_keys=["key"]), "host_keys: it has to be public keys"),
    (lambda d: d["hosts"][2].update(name=None), "hosts, entry 3 .*: name: it has to be a text"),
    (lambda d: d["hosts"][2].update(name="\ud800"), "name: it has to be a host's name|name: at most"),
    (lambda d: d["hosts"][2].update(id=CEDAR.id), f"hosts, {CEDAR.id}: it is there twice"),
    (lambda d: d["hosts"][2].update(name="cedar"), "hosts, cedar: it is there twice"),
    (lambda d: d["hosts"][2].update(projects=["nowhere"]), f"hosts, {ALDER.id}: there is no project nowhere"),
    (lambda d: d["projects"].pop(), "there is no project tools"),
    (
        lambda d: d["projects"][0].update(ranges=["0.0.0.0/0"]),
        r"projects, entry 1 \(engine\): ranges: .* open",
    ),
    (lambda d: d["projects"][0].update(ranges=[1]), "ranges: it has to be a list of texts"),
    (lambda d: d["projects"][0].update(old_clients="no"), "old_clients: it has to be true or false"),
    (lambda d: d["tokens"][0].update(project="nowhere"), f"tokens, {TOKEN.id}: there is no project nowhere"),
    (lambda d: d["tokens"][0].update(digest="x"), r"tokens, entry 1 \(0123abcd\): digest: .* 64 hex digits"),
    (lambda d: d["operators"].append(d["operators"][0]), "operators, ada: it is there twice"),
    (
        lambda d: d["operators"][0].update(kind="root"),
        r"operators, entry 1 \(ada\): kind: it has to be one of",
    ),
    (lambda d: d["keys"][0].update(id="x"), r"keys, entry 1 \(x\): id: it has to be 8 hex digits"),
    (lambda d: d["audit"][1].update(who="a\nb"), "audit, entry 2: who: at most"),
    (lambda d: d["audit"][0].update(at=None), "audit, entry 1: at: it has to be a number"),
]


def test_what_cannot_be_meant_is_named(path: Path, document: dict[str, Any]) -> None:
    for spoil, words in SPOILS:
        spoilt = copy.deepcopy(document)
        spoil(spoilt)
        path.write_text(json.dumps(spoilt))
        with pytest.raises(BackupError, match=f"the backup {path} cannot be used: .*({words})") as caught:
            read_backup(path)
        assert caught.value.mend
        assert "\n" not in caught.value.message


def test_whatever_is_spoilt_is_told_of_or_does_not_matter(path: Path, document: dict[str, Any]) -> None:
    """Random values in random places; whatever is taken can be stored."""
    dice = random.Random(5)
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        10**20,
        "",
        "x",
        "\x00",
        "engine",
        "192.0.2.7",
        [],
        ["x"],
        {},
        {"x": "y"},
    ]
    taken = 0
    for _ in range(600):
        spoilt = copy.deepcopy(document)
        at: Any = spoilt
        while isinstance(at, dict | list) and at:
            where = dice.choice(sorted(at)) if isinstance(at, dict) else dice.randrange(len(at))
            if isinstance(at[where], dict | list) and at[where] and dice.random() < 0.9:
                at = at[where]
                continue
            at[where] = dice.choice(values)
            break
        path.write_text(json.dumps(spoilt))
        try:
            read = read_backup(path)
        except BackupError:
            continue
        taken += 1
        write_backup(read.snapshot, read.secret, path, read.audit)
        assert read_backup(path).snapshot == read.snapshot
    assert 20 < taken < 550


def test_what_the_last_version_of_the_format_wrote_is_read() -> None:
    """The file is never changed: backups are kept for long."""
    read = read_backup(Path(__file__).parents[2] / "data" / "registry" / "backup_1.json")
    assert same(read.snapshot, *EVERYTHING)
    assert (read.secret, read.audit, read.snapshot.made_at) == (SECRET, AUDIT, 1234.5)
    assert read.snapshot.hosts == (CEDAR, BIRCH, replace(ALDER))
