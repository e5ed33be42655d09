"""A store on a server, and what happens when the server or the way to it goes wrong."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from d1fleet.registry import postgres as postgres_module
from d1fleet.registry.store import Snapshot, Store, StoreError, StoreGoneError
from tests.support.postgres import LOCKED_USER, PostgresCluster, missing_reason
from tests.support.wire import Wire
from tests.unit.registry.places import (
    BIRCH,
    CEDAR,
    ENGINE,
    EVERYTHING,
    PostgresPlace,
    entry,
    host,
    same,
    stored,
)
from tests.unit.registry.test_sqlitefile import CHILD

PASSWORD = "s3cret/w@rd"
PASSWORD_IN_URL = "s3cret%2Fw%40rd"


@pytest.fixture
def store(postgres_place: PostgresPlace) -> Iterator[Store]:
    """With everything in it."""
    with Store(postgres_place.url) as opened:
        opened.apply(EVERYTHING, audit=[entry(1)])
        yield opened


@pytest.fixture
def own_cluster() -> Iterator[PostgresCluster]:
    """A server that a test may stop."""
    if missing_reason():
        pytest.skip(missing_reason())
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture
def wire(postgres_place: PostgresPlace) -> Iterator[Wire]:
    folder = Path(tempfile.mkdtemp(prefix="d1wire-", dir="/tmp"))
    try:
        socket = ".s.PGSQL.5432"
        with Wire(folder / socket, postgres_place.cluster.folder / socket) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def wired(postgres_place: PostgresPlace, wire: Wire) -> Iterator[Store]:
    """A store behind a wire, with everything in it."""
    with Store(postgres_place.cluster.url(postgres_place.name, folder=wire.folder)) as opened:
        opened.apply(EVERYTHING, audit=[entry(1)])
        yield opened


def test_who_closes_it_does_not_leave_it_locked(
    postgres_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to wait until the server has noticed."""
    ended: list[Connection] = []
    store = Store(postgres_place.url)
    store.open()
    with monkeypatch.context() as slow:
        slow.setattr(Connection, "close", lambda connection: ended.append(connection))
        store.close()
    monkeypatch.setattr(postgres_module, "LOCK_WAIT_S", 0.2)
    try:
        stored(postgres_place)
    finally:
        ended[0].close()


def test_a_session_that_was_ended_is_begun_anew(postgres_place: PostgresPlace, store: Store) -> None:
    for number in range(3):
        assert postgres_place.cluster.end_sessions(postgres_place.name) == 1
        store.apply([host(number)], audit=[entry(number + 2)])
    assert postgres_place.cluster.end_sessions(postgres_place.name) == 1
    assert store.audit(2) == [entry(4), entry(3)]
    assert postgres_place.cluster.end_sessions(postgres_place.name) == 1
    assert store.is_there()
    store.close()
    assert same(stored(postgres_place), *EVERYTHING, *map(host, range(3)))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_away_is_waited_for(own_cluster: PostgresCluster, mode: str) -> None:
    place = PostgresPlace(own_cluster)
    with Store(place.url) as store:
        store.apply(EVERYTHING, audit=[entry(1)])
        own_cluster.sql("CHECKPOINT")  # it does not wait for the disk otherwise
        own_cluster.stop(mode)
        for _ in range(2):
            for refused in (lambda: store.apply([host(1)]), lambda: store.audit(1), store.is_there):
                with pytest.raises(StoreError, match="cannot be reached") as caught:
                    refused()
                assert not isinstance(caught.value, StoreGoneError)
                assert "psql" in caught.value.mend
        own_cluster.start()
        assert store.is_there()
        store.apply([host(2)], audit=[entry(2)])
        assert store.audit(9) == [entry(2), entry(1)]
    assert same(stored(place), *EVERYTHING, host(2))


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("passes_on", [False, True])
@pytest.mark.parametrize("at", [b"COMMIT", b"INSERT INTO audit"])
def test_a_connection_that_is_lost_is_found_again(
    postgres_place: PostgresPlace, wire: Wire, wired: Store, at: bytes, passes_on: bool, holds: bool
) -> None:
    """Whether what was under way was committed or not: in the end it is, once."""
    wire.passes_on, wire.holds = passes_on, holds
    wire.lose_at = at
    wired.apply([host(1)], [BIRCH], [entry(2)])
    assert wire.lost == 1
    assert wired.audit(9) == [entry(2), entry(1)]
    wired.apply([host(2)], audit=[entry(3)])
    wired.close()
    kept = [record for record in EVERYTHING if record is not BIRCH]
    assert same(stored(postgres_place), *kept, host(1), host(2))


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("passes_on", [False, True])
def test_what_was_refused_is_not_there_though_it_was_committed(
    postgres_place: PostgresPlace, wire: Wire, wired: Store, passes_on: bool, holds: bool
) -> None:
    wire.passes_on, wire.holds = passes_on, holds
    wire.lose_at, wire.refuses = b"COMMIT", True
    with pytest.raises(StoreError, match="cannot be reached"):
        wired.apply([host(1)], [BIRCH], [entry(2)])
    assert same(wired.snapshot(), *EVERYTHING)
    assert (host(1) in Store(postgres_place.url).look()[0].hosts) == passes_on
    wire.refuses = False
    wired.apply([host(2)], audit=[entry(3)])
    assert wired.audit(9) == [entry(3), entry(1)]
    wired.close()
    assert same(stored(postgres_place), *EVERYTHING, host(2))


def test_rewriting_after_a_loss(postgres_place: PostgresPlace, wire: Wire, wired: Store) -> None:
    made_at = wired.snapshot().made_at
    wire.lose_at, wire.once_heard, wire.refuses = b"COMMIT", b"INSERT INTO audit", True
    with pytest.raises(StoreError, match="cannot be reached"):
        wired.rewrite(Snapshot(made_at=5.0), [entry(2)])
    assert Store(postgres_place.url).look() == (Snapshot(made_at=5.0), [entry(2), entry(1)])
    wire.refuses = False
    wired.apply([host(1)])
    assert wired.audit(9) == [entry(1)]
    wired.close()
    read = stored(postgres_place)
    assert same(read, *EVERYTHING, host(1))
    assert read.made_at == made_at


def test_who_was_away_while_another_had_it_must_not_go_on(
    postgres_place: PostgresPlace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "LOCK_WAIT_S", 0.2)
    postgres_place.cluster.end_sessions(postgres_place.name)
    with Store(postgres_place.url) as other:
        other.apply([host(7)])
        with pytest.raises(StoreError, match="is in use by another registry"):
            store.apply([host(1)])
    for refused in (lambda: store.apply([host(1)]), lambda: store.rewrite(store.snapshot()), store.is_there):
        with pytest.raises(StoreError, match="another registry has used") as caught:
            refused()
        assert not isinstance(caught.value, StoreGoneError)
    assert same(stored(postgres_place), *EVERYTHING, host(7))


def test_who_has_lost_its_tables_does_not_take_those_of_another(
    postgres_place: PostgresPlace, store: Store
) -> None:
    postgres_place.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert not store.is_there()
    postgres_place.cluster.end_sessions(postgres_place.name)
    with Store(postgres_place.url) as other:
        other.apply([host(7)])
    with pytest.raises(StoreError, match="another registry has used"):
        store.rewrite(store.snapshot())
    assert same(stored(postgres_place), host(7))


def test_a_table_that_another_session_has_locked(
    postgres_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_SESSION", ("SET lock_timeout = '100ms'",))
    with Store(postgres_place.url) as store:
        store.apply([ENGINE])
        with contextlib.closing(postgres_place.cluster.connect(postgres_place.name)) as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE hosts")
            with pytest.raises(StoreError, match="is locked by another session"):
                store.apply([host(1)])
            other.execute("ROLLBACK")
        store.apply([host(2)])
    assert same(stored(postgres_place), ENGINE, host(2))


def test_a_server_that_takes_too_long(postgres_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "_SESSION", ("SET statement_timeout = '100ms'",))
    with Store(postgres_place.url) as store:
        store.apply([ENGINE])
        with contextlib.closing(postgres_place.cluster.connect(postgres_place.name)) as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE hosts")
            with pytest.raises(StoreError, match="takes too long"):
                store.apply([host(1)])
            other.execute("ROLLBACK")
        store.apply([host(2)])


def test_how_its_sessions_are(postgres_place: PostgresPlace) -> None:
    """What is acknowledged is on the disk, however the server is set up; nothing is waited for for ever."""
    postgres_place.sql(f"ALTER DATABASE {postgres_place.name} SET synchronous_commit = off")
    with Store(postgres_place.url) as store:
        connection = store._session._connection
        assert connection is not None
        with connection.begin():
            found = {
                name: connection.exec_driver_sql(f"SHOW {name}").scalar()
                for name in ("synchronous_commit", "lock_timeout", "statement_timeout", "application_name")
            }
    assert found == {
        "synchronous_commit": "on",
        "lock_timeout": "5s",
        "statement_timeout": "30s",
        "application_name": "d1fleet registry",
    }


def test_tables_that_were_dropped_are_made_anew(postgres_place: PostgresPlace, store: Store) -> None:
    postgres_place.script("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert not store.is_there()
    with pytest.raises(StoreGoneError, match="has lost its tables"):
        store.apply([host(1)])
    store.rewrite(store.snapshot(), [entry(2)])
    assert store.is_there()
    assert store.audit(9) == [entry(2)]
    store.apply([host(2)])
    store.close()
    assert same(stored(postgres_place), *EVERYTHING, host(2))


def test_one_table_that_was_dropped_is_told_of(postgres_place: PostgresPlace, store: Store) -> None:
    postgres_place.sql("DROP TABLE memberships")
    with pytest.raises(StoreGoneError, match="has lost its tables"):
        store.apply([CEDAR])
    assert not store.is_there()
    for refused in (lambda: store.rewrite(store.snapshot()), Store(postgres_place.url).look):
        with pytest.raises(StoreError, match="has lost its tables memberships"):
            refused()


def test_other_tables_in_the_database_do_not_matter(postgres_place: PostgresPlace) -> None:
    postgres_place.script("CREATE TABLE songs (title text); INSERT INTO songs VALUES ('Daisy Bell')")
    with Store(postgres_place.url) as store:
        store.apply([BIRCH])
    assert same(stored(postgres_place), BIRCH)
    assert postgres_place.sql("SELECT * FROM songs") == [("Daisy Bell",)]


def test_two_registries_in_schemas_of_their_own(postgres_place: PostgresPlace) -> None:
    postgres_place.script("CREATE SCHEMA one; CREATE SCHEMA two")
    one, two = (f"{postgres_place.url}&options=-csearch_path%3D{name}" for name in ("one", "two"))
    with Store(one) as first, Store(two) as second:
        first.apply([BIRCH])
        second.apply([host(1)])
    with Store(one) as first, Store(two) as second:
        assert first.snapshot().hosts == (BIRCH,)
        assert second.snapshot().hosts == (host(1),)


def test_a_database_that_knows_no_characters(postgres_place: PostgresPlace) -> None:
    name = f"{postgres_place.name}_ascii"
    cluster = postgres_place.cluster
    cluster.sql(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        for _ in range(2):
            with Store(cluster.url(name)) as store:
                store.apply(EVERYTHING)
                assert same(store.snapshot(), *EVERYTHING)
    finally:
        cluster.drop_database(name)


def test_a_server_that_can_only_be_read(postgres_place: PostgresPlace) -> None:
    with Store(postgres_place.url) as store:
        store.apply(EVERYTHING)
    postgres_place.sql(f"ALTER DATABASE {postgres_place.name} SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="can only be read") as caught:
        stored(postgres_place)
    assert "primary" in caught.value.mend
    assert same(Store(postgres_place.url).look()[0], *EVERYTHING)


def test_a_user_who_may_not_make_tables(postgres_place: PostgresPlace) -> None:
    postgres_place.script("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StoreError, match="may not be used by this user") as caught:
            Store(postgres_place.cluster.url(postgres_place.name, "guest")).open()
        assert "GRANT" in caught.value.mend
    finally:
        postgres_place.script("DROP ROLE guest")


def test_a_database_that_is_not_there(postgres_place: PostgresPlace) -> None:
    with pytest.raises(StoreError, match='database "nowhere" does not exist'):
        Store(postgres_place.cluster.url("nowhere")).open()


@pytest.fixture
def locked_user(postgres_place: PostgresPlace) -> Iterator[str]:
    postgres_place.script(f"CREATE ROLE {LOCKED_USER} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    yield LOCKED_USER
    postgres_place.script(f"DROP OWNED BY {LOCKED_USER} CASCADE; DROP ROLE {LOCKED_USER}")


def test_a_password_is_used_and_never_shown(
    postgres_place: PostgresPlace, locked_user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    cluster = postgres_place.cluster
    url = cluster.url(postgres_place.name, locked_user, PASSWORD_IN_URL)
    shown = []
    with Store(url) as store:
        store.apply([BIRCH])
        shown.append(repr(store))
        with pytest.raises(StoreError) as caught:
            store.apply([host(1, "nowhere")])
        shown.append("".join(traceback.format_exception(caught.value)))
        with pytest.raises(StoreError) as caught:
            Store(url).open()
        shown.append("".join(traceback.format_exception(caught.value)))
    elsewhere = cluster.url("nowhere", locked_user, PASSWORD_IN_URL)
    wrong = cluster.url(postgres_place.name, locked_user, PASSWORD_IN_URL + "x")
    odd = cluster.url(postgres_place.name, locked_user)
    odd += f"&password={PASSWORD_IN_URL}&nonsense={PASSWORD_IN_URL}"
    for each in (elsewhere, wrong, odd):
        with pytest.raises(StoreError) as caught:
            Store(each).open()
        shown += ["".join(traceback.format_exception(caught.value)), repr(Store(each))]
    assert "password authentication failed" in shown[5]
    for text in [*shown, caplog.text]:
        assert PASSWORD not in text
        assert PASSWORD_IN_URL not in text
    assert f"postgresql://{locked_user}@/{postgres_place.name}" in shown[0]


def test_nothing_acknowledged_is_lost_when_it_is_killed(postgres_place: PostgresPlace) -> None:
    acknowledged: set[int] = set()
    for lines in (1, 2, 5, 30):
        first = max(acknowledged, default=-1) + 1000
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, postgres_place.url, str(first), "0"],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            for _ in range(lines):
                acknowledged.add(int(process.stdout.readline()))
            process.kill()
            acknowledged |= {int(line) for line in process.stdout.read().split("\n")[:-1]}
        with Store(postgres_place.url) as store:
            there = {int(each.id, 16) for each in store.snapshot().hosts}
            entries = [int(each.at) for each in store.audit(100_000)]
        firsts = {number for number in there if number < 500_000}
        assert acknowledged <= firsts
        assert there == firsts | {number + 500_000 for number in firsts}
        assert sorted(entries) == sorted([*firsts, *firsts])
        assert len(firsts - acknowledged) <= 4
