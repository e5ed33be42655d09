"""Databases of older schemas, and revisions that go wrong half way.

Dumps of all schemas there were are in tests/data/registry, as `.dump` of sqlite3 and pg_dump make them.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from d1fleet.registry import migrations, sqliteopen
from d1fleet.registry.schema import metadata
from d1fleet.registry.store import Store, StoreError
from tests.unit.registry.places import EVERYTHING, Place, SqlitePlace, entry, fill, host, names, same, stored

DATA = Path(__file__).parents[2] / "data" / "registry"

Revise = Callable[[str, str, str], None]

RECREATE = """
    with op.batch_alter_table("hosts") as batch:  # a new table takes its place, with SQLite
        batch.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="grey"))
        batch.alter_column("note", existing_type=sa.Text, nullable=True)
    op.execute("UPDATE hosts SET colour = 'green', slots = slots + 1")
    op.create_table("extra", sa.Column("name", sa.Text))
"""

FAULTS = {
    "error": (RECREATE + "    raise RuntimeError('half way')\n", "half way"),
    "statement": (RECREATE + "    op.execute('INSERT INTO nowhere VALUES (1)')\n", "nowhere"),
    "row": (RECREATE + "    op.execute('UPDATE hosts SET slots = 0')\n", "slots: it has to be"),
    "reference": (
        "    op.create_table('extra', sa.Column('host', sa.Text, sa.ForeignKey('hosts.id')))\n"
        "    op.execute(\"INSERT INTO extra VALUES ('nobody')\")\n",
        "(what it names in hosts is not there|violates foreign key)",
    ),
    "lost": (
        RECREATE + "    op.execute('DELETE FROM marks')\n    op.drop_table('marks')\n    1 / 0\n",
        "division",
    ),
}


def load(place: Place, revision: str) -> None:
    """Have a database of a former schema there."""
    ending = "" if place.kind == "sqlite" else f".{place.kind}"
    place.script((DATA / f"schema_{revision}{ending}.sql").read_text())


@pytest.fixture
def revise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Revise:
    """Adds a revision to what the program knows: number, the one before, what it does."""
    folder = tmp_path / "revisions 100%s"
    shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "FOLDER", folder)

    def add(number: str, before: str, body: str) -> None:
        (folder / "versions" / f"v{number}.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n\n"
            f"revision = {number!r}\ndown_revision = {before!r}\n\n\ndef upgrade():\n{body}\n"
        )

    return add


def forget(number: str) -> None:
    """Be the program that does not know a revision yet."""
    (migrations.FOLDER / "versions" / f"v{number}.py").unlink()


def test_the_revisions_come_to_the_tables_that_are_used(place: Place) -> None:
    with Store(place.url) as store:
        connection = store._session._connection
        assert connection is not None
        with connection.begin():
            options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("revision", ["0001"])
def test_a_database_of_a_former_schema_is_used(place: Place, revision: str) -> None:
    load(place, revision)
    with Store(place.url) as store:
        read = store.snapshot()
        assert same(read, *EVERYTHING)
        assert read.made_at == 1_700_000_000.5
        assert store.audit(9) == [entry(2), entry(1)]
        store.apply([host(1)], audit=[entry(3)])
    assert same(stored(place), *EVERYTHING, host(1))


def test_there_is_a_dump_of_every_schema_there_was() -> None:
    versions = sorted(path.stem.removeprefix("v") for path in (migrations.FOLDER / "versions").glob("v*.py"))
    for kind in ("", ".postgresql"):
        assert sorted(path.name for path in DATA.glob(f"schema_????{kind}.sql")) == [
            f"schema_{version}{kind}.sql" for version in versions
        ]


def test_rows_are_kept(place: Place, revise: Revise) -> None:
    load(place, "0001")
    revise("0002", "0001", RECREATE)
    with Store(place.url) as store:
        read = store.snapshot()
        assert [each.slots for each in read.hosts] == [2, 2, 9]
        assert [each.projects for each in read.hosts] == [("engine",), (), ("tools", "engine")]
        assert (len(read.records), len(store.audit(9))) == (len(EVERYTHING), 2)
        store.apply([host(1, "tools")])
    assert place.sql("SELECT DISTINCT colour FROM hosts ORDER BY colour") == [("green",), ("grey",)]
    assert len(stored(place).hosts) == 4
    # The host's memberships still go with it.
    with Store(place.url) as store:
        store.apply(deletes=[host(1)])
    assert place.sql("SELECT count(*) FROM memberships") == [(3,)]
    forget("0002")
    with pytest.raises(StoreError, match="has revision 0002 of its schema; this d1fleet knows 0001"):
        stored(place)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_revision_that_fails_leaves_everything_as_it_was(place: Place, revise: Revise, fault: str) -> None:
    body, words = FAULTS[fault]
    load(place, "0001")
    if isinstance(place, SqlitePlace):
        stored(place)  # from now on it has a write-ahead log
        before = dump(place)
    revise("0002", "0001", RECREATE.replace("extra", "first").replace("colour", "shade"))
    revise("0003", "0002", body)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=rf"from revision 0001 .* to 0003, and is as it was: .*{words}"
        ) as caught:
            stored(place)
        assert "go on with the d1fleet that you had before" in caught.value.mend
    if isinstance(place, SqlitePlace):
        assert dump(place) == before
        assert names(place.path.parent) - {"revisions 100%s"} == {"registry.db", "registry.db.lock"}
    else:
        assert place.sql("SELECT to_regclass('extra'), to_regclass('first')") == [(None, None)]
    forget("0003")
    forget("0002")
    with Store(place.url) as store:
        assert same(store.snapshot(), *EVERYTHING)
        store.apply([host(1)])
    revise("0002", "0001", RECREATE)
    assert len(stored(place).hosts) == 4


def dump(place: SqlitePlace) -> list[str]:
    with contextlib.closing(sqlite3.connect(place.path)) as connection:
        # The mark of the one that opened it last.
        return [line for line in connection.iterdump() if "'writer'" not in line]


def test_the_file_as_it_was_before_is_kept(sqlite_place: SqlitePlace, revise: Revise) -> None:
    load(sqlite_place, "0001")
    revise("0002", "0001", RECREATE)
    stored(sqlite_place)
    kept = SqlitePlace(sqlite_place.path.with_name("registry.db.rev-0001"))
    assert kept.path.stat().st_mode & 0o777 == 0o600
    forget("0002")
    assert same(stored(kept), *EVERYTHING)


def test_what_is_in_the_log_is_taken_along(sqlite_place: SqlitePlace, revise: Revise) -> None:
    """As after a crash, when the last changes are not in the file itself yet."""
    crashed = SqlitePlace(sqlite_place.path.with_name("crashed.db"))
    with Store(sqlite_place.url) as store:
        store.apply(EVERYTHING)
        for end in ("", "-wal"):
            shutil.copyfile(f"{sqlite_place.path}{end}", f"{crashed.path}{end}")
    revise("0002", "0001", RECREATE)
    assert len(stored(crashed).hosts) == 3


def test_nothing_is_migrated_under_the_eyes_of_another_program(
    sqlite_place: SqlitePlace, revise: Revise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would write into the old file were lost."""
    monkeypatch.setattr(sqliteopen, "BUSY_S", 0.05)
    with Store(sqlite_place.url) as store:
        store.apply(EVERYTHING)
    revise("0002", "0001", RECREATE)
    with contextlib.closing(sqlite3.connect(sqlite_place.path)) as other:
        other.execute("SELECT count(*) FROM hosts").fetchall()
        with pytest.raises(StoreError, match="and is as it was: database is locked"):
            stored(sqlite_place)
    assert len(stored(sqlite_place).hosts) == 3


def test_a_disk_that_is_too_small_for_two(small_disk: Path, revise: Revise) -> None:
    place = SqlitePlace(small_disk / "registry.db")
    with Store(place.url) as store:
        store.apply(EVERYTHING)
    revise("0002", "0001", RECREATE)
    filler = fill(small_disk, 100 << 10)
    with pytest.raises(StoreError, match=r"and is as it was: .*(full|[Nn]o space)"):
        stored(place)
    assert names(small_disk) == {"filler", "registry.db", "registry.db.lock"}
    filler.unlink()
    assert len(stored(place).hosts) == 3
