"""A store in a file: who may read it, and what happens when the file or its disk goes wrong."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet.registry import sqliteopen
from d1fleet.registry.model import AuditEntry, Record
from d1fleet.registry.store import Store, StoreError, StoreGoneError, url_of_file
from tests.unit.registry.places import (
    ALDER,
    BIRCH,
    CEDAR,
    ENGINE,
    EVERYTHING,
    SqlitePlace,
    entry,
    fill,
    host,
    names,
    same,
    stored,
)


@pytest.fixture
def store(sqlite_place: SqlitePlace) -> Iterator[Store]:
    """With everything in it."""
    with Store(sqlite_place.url) as opened:
        opened.apply(EVERYTHING, audit=[entry(1)])
        yield opened


def test_nobody_else_may_read_it(sqlite_place: SqlitePlace) -> None:
    folder = sqlite_place.path.parent
    old = os.umask(0)
    try:
        with Store(sqlite_place.url) as store:
            store.apply([BIRCH])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(old)
    assert modes == {f"registry.db{end}": 0o600 for end in ("", "-wal", "-shm", ".lock")}
    assert names(folder) == {"registry.db", "registry.db.lock"}


def test_what_others_may_read_is_closed_to_them(sqlite_place: SqlitePlace) -> None:
    stored(sqlite_place)
    sqlite_place.path.chmod(0o644)
    with Store(sqlite_place.url):
        assert all(path.stat().st_mode & 0o077 == 0 for path in sqlite_place.path.parent.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with Store(url_of_file(folder / "registry.db")) as store:
        store.apply([BIRCH])
        assert {path.stat().st_uid for path in folder.iterdir()} == {65534}
        assert len(names(folder)) == 4


def test_a_commit_is_on_the_disk_before_it_is_acknowledged(store: Store) -> None:
    connection = store._session._connection
    assert connection is not None
    with connection.begin():
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL


@pytest.mark.parametrize("name", ["a b%20c?d#e.db", "\N{LATIN SMALL LETTER A WITH DIAERESIS}'\".db"])
def test_any_name_of_a_file_will_do(tmp_path: Path, name: str) -> None:
    place = SqlitePlace(tmp_path / name)
    with Store(place.url) as store:
        store.apply([BIRCH])
    assert place.path.exists()
    assert stored(place).hosts == (BIRCH,)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "registry.db"
    link.symlink_to("real/file.db")
    with Store(url_of_file(link)) as store:
        store.apply([BIRCH])
        (tmp_path / "real/file.db").unlink()
        store.rewrite(store.snapshot())
    assert link.is_symlink()
    assert stored(SqlitePlace(tmp_path / "real/file.db")).hosts == (BIRCH,)


def _delete(path: Path) -> None:
    path.unlink()


def _delete_all(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()


def _delete_log(path: Path) -> None:
    path.with_name("registry.db-wal").unlink()


def _replace(path: Path) -> None:
    other = SqlitePlace(path.with_name("other.db"))
    with Store(other.url) as store:
        store.apply([host(99)])
    other.path.replace(path)


def _move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _empty(path: Path) -> None:
    os.truncate(path, 0)


LOSSES = [_delete, _delete_all, _delete_log, _replace, _move, _empty]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_file_that_goes_is_noticed_and_made_anew(
    sqlite_place: SqlitePlace, store: Store, lose: Callable[[Path], None]
) -> None:
    assert store.is_there()
    lose(sqlite_place.path)
    assert not store.is_there()
    with pytest.raises(StoreGoneError, match=r"registry\.db (was|cannot)"):
        store.apply([host(1)], audit=[entry(2)])
    with pytest.raises(StoreGoneError):
        store.audit(1)
    assert not store.is_there()
    before = store.snapshot()
    assert same(before, *EVERYTHING)
    store.rewrite(before, [entry(3)])
    assert store.is_there()
    store.apply([host(1)], audit=[entry(4)])
    assert store.audit(9) == [entry(4), entry(3)]
    with pytest.raises(StoreError, match="in use by another"):
        stored(sqlite_place)
    store.close()
    read = stored(sqlite_place)
    assert same(read, *EVERYTHING, host(1))
    assert read.made_at == before.made_at


def test_another_file_that_was_put_there_is_kept(sqlite_place: SqlitePlace, store: Store) -> None:
    _replace(sqlite_place.path)
    store.rewrite(store.snapshot())
    assert stored(SqlitePlace(sqlite_place.path.with_name("registry.db.aside"))).hosts == (host(99),)


def test_a_file_that_goes_during_a_change_takes_it_with_it(sqlite_place: SqlitePlace, store: Store) -> None:
    class Deleting(list[AuditEntry]):
        """Deletes the file when the transaction comes to it."""

        def __iter__(self) -> Iterator[AuditEntry]:
            sqlite_place.path.unlink()
            return super().__iter__()

    with pytest.raises(StoreGoneError, match="was deleted"):
        store.apply([host(1)], audit=Deleting([entry(2)]))
    assert same(store.snapshot(), *EVERYTHING)
    store.rewrite(store.snapshot())
    store.close()
    assert same(stored(sqlite_place), *EVERYTHING)


def test_a_folder_that_goes_is_waited_for(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "data" / "registry.db")
    place.path.parent.mkdir()
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        place.path.parent.rename(tmp_path / "elsewhere")
        for _ in range(2):
            assert not store.is_there()
            with pytest.raises(StoreError, match="there is no folder"):
                store.rewrite(store.snapshot())
            with pytest.raises(StoreGoneError, match="was deleted"):
                store.apply([host(1)])
        place.path.parent.mkdir()
        store.rewrite(store.snapshot())
        store.apply([host(1)])
    assert same(stored(place), *EVERYTHING, host(1))


def test_what_is_left_of_a_former_log_is_not_read(sqlite_place: SqlitePlace) -> None:
    """A file was deleted, its log was not; a new one must not get what stands there."""
    folder = sqlite_place.path.parent
    with Store(sqlite_place.url) as store:
        store.apply(EVERYTHING)
        log = (folder / "registry.db-wal").read_bytes()
    sqlite_place.path.unlink()
    (folder / "registry.db-wal").write_bytes(log)
    assert stored(sqlite_place).records == ()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"no database" + data[11:], id="header"),
        pytest.param(lambda data: data[:4096] + bytes(len(data) - 4096), id="pages"),
        pytest.param(lambda data: data[:5000], id="cut"),
        pytest.param(lambda data: b"[registry]\n", id="text"),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(
    sqlite_place: SqlitePlace, damage: Callable[[bytes], bytes]
) -> None:
    with Store(sqlite_place.url) as store:
        store.apply(EVERYTHING)
    data = damage(sqlite_place.path.read_bytes())
    sqlite_place.path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged") as caught:
        stored(sqlite_place)
    assert "restore a backup" in caught.value.mend
    assert sqlite_place.path.read_bytes() == data
    with pytest.raises(StoreError, match="is damaged"):
        Store(sqlite_place.url).look()


def test_damage_is_found_where_nobody_reads_at_the_start(sqlite_place: SqlitePlace) -> None:
    """In an index that only later changes are looked up in."""
    with Store(sqlite_place.url) as store:
        store.apply(EVERYTHING)
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_hosts_2'"
    ((page,),) = sqlite_place.sql(query)
    with sqlite_place.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(StoreError, match="is damaged"):
        stored(sqlite_place)


def test_a_file_that_is_damaged_while_it_is_open_is_made_anew(
    sqlite_place: SqlitePlace, store: Store
) -> None:
    for number in range(50):
        store.apply([host(number)])
    sqlite_place.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    with sqlite_place.path.open("r+b") as file:
        file.write(bytes(os.path.getsize(sqlite_place.path)))
    with pytest.raises(StoreGoneError, match="is damaged"):
        store.apply([host(100)])
    assert not store.is_there()
    store.rewrite(store.snapshot())
    assert store.is_there()
    store.close()
    assert same(stored(sqlite_place), *EVERYTHING, *map(host, range(50)))
    assert sqlite_place.path.with_name("registry.db.aside").exists()


def test_a_database_of_something_else_is_refused(sqlite_place: SqlitePlace) -> None:
    sqlite_place.sql("CREATE TABLE songs (title TEXT)")
    data = sqlite_place.path.read_bytes()
    with pytest.raises(StoreError, match="is a database of SQLite, but not the registry's"):
        stored(sqlite_place)
    assert sqlite_place.path.read_bytes() == data


def test_there_must_be_a_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*/none") as caught:
        Store(url_of_file(tmp_path / "none" / "registry.db")).open()
    assert "mkdir -m 700" in caught.value.mend
    with pytest.raises(StoreError, match="is no file"):
        Store(url_of_file(tmp_path)).open()


EDITS: list[tuple[str, object]] = [
    ("slots", "many"),
    ("slots", 8.5),
    ("slots", 1 << 62),
    ("drained", 7),
    ("drained", "yes"),
    ("drained", b"\x01"),
    ("seen_at", "today"),
    ("owner", b"\xff"),
    ("note", sqlite3.Binary(b"note")),
    ("toolchain", b"{}"),
    ("toolchain", "CAST(x'7b22ff223a22227d' AS TEXT)"),
    ("owner", "CAST(x'61ff' AS TEXT)"),
]
"""What only SQLite takes: a value of any type in any column; text that is no UTF-8."""


def test_a_value_of_another_type_is_named(sqlite_place: SqlitePlace) -> None:
    with Store(sqlite_place.url) as store:
        store.apply(EVERYTHING)
    for column, value in EDITS:
        (before,) = sqlite_place.sql(f"SELECT {column} FROM hosts WHERE id = %s", [ALDER.id])[0]
        if isinstance(value, str) and value.startswith("CAST"):
            sqlite_place.sql(f"UPDATE hosts SET {column} = {value} WHERE id = %s", [ALDER.id])
        else:
            sqlite_place.sql(f"UPDATE hosts SET {column} = %s WHERE id = %s", [value, ALDER.id])
        with pytest.raises(StoreError, match=f"hosts, {ALDER.id}: {column}: "):
            stored(sqlite_place)
        sqlite_place.sql(f"UPDATE hosts SET {column} = %s WHERE id = %s", [before, ALDER.id])
    assert same(stored(sqlite_place), *EVERYTHING)


def test_what_another_program_has_locked_is_waited_for(
    sqlite_place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqliteopen, "BUSY_S", 0.05)
    with (
        Store(sqlite_place.url) as store,
        contextlib.closing(sqlite3.connect(sqlite_place.path, isolation_level=None)) as other,
    ):
        store.apply([BIRCH])
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another program") as caught:
            store.apply([host(1)])
        assert "fuser" in caught.value.mend
        assert store.is_there()
        other.execute("ROLLBACK")
        store.apply([host(2)])
    assert same(stored(sqlite_place), BIRCH, host(2))


def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    place = SqlitePlace(small_disk / "registry.db")
    acknowledged: list[Record] = [ENGINE, CEDAR]
    with Store(place.url) as store:
        store.apply(acknowledged)
        filler = fill(small_disk, 64 << 10)
        faults = 0
        for number in range(200):
            try:
                store.apply([host(number)], audit=[entry(number)])
            except StoreError as error:
                faults += 1
                assert "has no space left" in error.message
                assert "free some space" in error.mend
                assert not isinstance(error, StoreGoneError)
            else:
                acknowledged.append(host(number))
            assert same(store.snapshot(), *acknowledged)
            if faults == 3:
                break
        assert faults == 3
        assert len(acknowledged) > 3
        assert store.is_there()
        assert same(store.look()[0], *acknowledged)
        filler.unlink()
        store.apply([BIRCH], audit=[entry(1000)])
        assert len(store.audit(1000)) == len(acknowledged) - 2 + 1
    assert same(stored(place), *acknowledged, BIRCH)


def test_what_was_acknowledged_on_a_full_disk_is_there_after_a_start_on_it(small_disk: Path) -> None:
    place = SqlitePlace(small_disk / "registry.db")
    with Store(place.url) as store:
        store.apply([ENGINE, CEDAR])
        filler = fill(small_disk)
        with pytest.raises(StoreError):
            for number in range(2000):
                store.apply([host(number)])
        before = store.snapshot()
    filler.unlink()  # to close it has made some room
    filler = fill(small_disk)
    with pytest.raises(StoreError, match=r"no space|cannot be"):
        Store(place.url).open()
    filler.unlink()
    assert same(stored(place), *before.records)


def test_nothing_half_made_is_left_on_a_full_disk(small_disk: Path) -> None:
    place = SqlitePlace(small_disk / "registry.db")
    filler = fill(small_disk, 16 << 10)
    with pytest.raises(StoreError, match=r"no space left|cannot be opened"):
        Store(place.url).open()
    assert names(small_disk) == {"filler", "registry.db.lock"}
    filler.unlink()
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        filler = fill(small_disk)
        place.path.unlink()
        fill(small_disk)
        with pytest.raises(StoreError):
            store.rewrite(store.snapshot())
        assert not store.is_there()
        filler.unlink()
        store.rewrite(store.snapshot())
        assert store.is_there()
    assert same(stored(place), *EVERYTHING)


def test_a_disk_that_can_only_be_read(small_disk: Path) -> None:
    place = SqlitePlace(small_disk / "registry.db")
    with Store(place.url) as store:
        store.apply(EVERYTHING)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match=r"can only be read|Read-only file system|cannot be") as caught:
        Store(place.url).open()
    assert caught.value.mend
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert same(stored(place), *EVERYTHING)


CHILD = """
import resource, sys
from d1fleet.registry.store import Store, StoreError
from tests.unit.registry.places import entry, host
url, first, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store(url)
store.open()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("open", flush=True)
try:
    for number in range(first, first + 100_000):
        store.apply([host(number), host(number + 500_000)], audit=[entry(number), entry(number)])
        print(number, flush=True)
except StoreError as error:
    print(error.message, flush=True)
"""


def child(place: SqlitePlace, first: int, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, place.url, str(first), str(limit)], stdout=subprocess.PIPE, text=True
    )


def test_a_limit_on_the_size_of_files(sqlite_place: SqlitePlace) -> None:
    with child(sqlite_place, 0, 300_000) as process:
        assert process.stdout is not None
        first, *numbers, said = process.stdout.read().split("\n")[:-1]
    assert first == "open"
    assert len(numbers) > 10
    assert "registry.db cannot be read or written: " in said
    read = stored(sqlite_place)
    assert {f"host-{number}" for number in numbers} <= {each.name for each in read.hosts}
    assert len(read.hosts) == 2 * len(numbers)


def test_nothing_acknowledged_is_lost_when_it_is_killed(sqlite_place: SqlitePlace) -> None:
    """At whatever moment: it goes on while it is killed, and nobody waits for one."""
    acknowledged: set[int] = set()
    for lines in (0, 1, 2, 3, 5, 8, 40, 90):
        first = max(acknowledged, default=-1) + 1000
        with child(sqlite_place, first) as process:
            assert process.stdout is not None
            if lines:
                assert process.stdout.readline() == "open\n"
            for _ in range(lines):
                acknowledged.add(int(process.stdout.readline()))
            process.kill()
            rest = process.stdout.read().split("\n")[:-1]
            acknowledged |= {int(line) for line in rest if line != "open"}
        with Store(sqlite_place.url) as store:
            there = {int(each.id, 16) for each in store.snapshot().hosts}
            entries = [int(each.at) for each in store.audit(100_000)]
        assert {number for each in acknowledged for number in (each, each + 500_000)} <= there
        # All of a change, or nothing: of each there are two hosts, and two entries.
        firsts = {number for number in there if number < 500_000}
        assert there == firsts | {number + 500_000 for number in firsts}
        assert sorted(entries) == sorted([*firsts, *firsts])
        assert len(firsts - acknowledged) <= 8  # one for each time
    assert len(acknowledged) > 100


def test_a_database_comes_to_be_whole_or_not_at_all(
    sqlite_place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_rename(new: str, path: str) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", no_rename)
        with pytest.raises(StoreError, match="Input/output error"):
            Store(sqlite_place.url).open()
    assert names(sqlite_place.path.parent) == {"registry.db.lock"}
    sqlite_place.path.with_name("registry.db.new").write_bytes(b"left by one that was killed")
    stored(sqlite_place)
    assert names(sqlite_place.path.parent) == {"registry.db", "registry.db.lock"}
