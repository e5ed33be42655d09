"""What a store does, on either kind of database."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from d1fleet.registry import postgres as postgres_module
from d1fleet.registry import store as store_module
from d1fleet.registry.checks import LONGEST_TEXT
from d1fleet.registry.contents import Snapshot
from d1fleet.registry.model import AuditEntry, Host, Operator, Project, Record
from d1fleet.registry.schema import key
from d1fleet.registry.store import Store, StoreError, StoreGoneError
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
    entry,
    host,
    same,
    stored,
)


def test_a_new_database_is_empty_and_says_when_it_was_made(place: Place) -> None:
    before = time.time()
    with Store(place.url) as store:
        first = store.snapshot()
        assert store.is_there()
        assert store.audit(10) == []
    assert first.records == ()
    assert before <= first.made_at <= time.time()
    assert stored(place) == first


def test_what_was_put_is_read_again(place: Place) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        held = store.snapshot()
    read = stored(place)
    assert same(held, *EVERYTHING)
    assert same(read, *EVERYTHING)
    assert read.hosts == (CEDAR, BIRCH, ALDER)  # as they joined
    assert read.hosts[2].projects == ("tools", "engine")  # as it joined them
    assert read.made_at == held.made_at


def test_a_record_takes_the_place_of_the_one_with_its_key(place: Place) -> None:
    changed = replace(ALDER, projects=("engine",), slots=1, toolchain={}, host_keys=(), serving=True, note="")
    wider = replace(TOOLS, ranges=("198.51.0.0/16",))
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        store.apply([changed, wider, replace(KEY, note="none"), replace(OPERATOR, kind="viewer")])
        store.apply([replace(changed, projects=("engine", "tools"))])
    read = stored(place)
    assert replace(changed, projects=("engine", "tools")) in read.hosts
    assert wider in read.projects
    assert (read.keys[0].note, read.operators[0].kind) == ("none", "viewer")
    assert len(read.records) == len(EVERYTHING)


def test_of_two_with_one_key_the_last_one_counts(place: Place) -> None:
    with Store(place.url) as store:
        store.apply([ENGINE, CEDAR, replace(CEDAR, slots=7)])
        assert store.snapshot().hosts == (replace(CEDAR, slots=7),)
    assert stored(place).hosts == (replace(CEDAR, slots=7),)


def test_what_was_deleted_is_gone(place: Place) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        store.apply(deletes=[BIRCH, TOKEN, OPERATOR, KEY, host(7)])
        assert same(store.snapshot(), ALDER, CEDAR, ENGINE, TOOLS)
    assert same(stored(place), ALDER, CEDAR, ENGINE, TOOLS)


def test_a_project_goes_with_its_tokens_when_its_hosts_leave_it(place: Place) -> None:
    without = [replace(ALDER, projects=("tools",)), replace(CEDAR, projects=())]
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        store.apply(without, deletes=[TOKEN, ENGINE])
    assert same(stored(place), *without, BIRCH, TOOLS, OPERATOR, KEY)


def test_a_name_is_free_when_its_host_goes(place: Place) -> None:
    other = replace(CEDAR, id="f" * 32)
    with Store(place.url) as store:
        store.apply([ENGINE, CEDAR])
        store.apply([other], deletes=[CEDAR])
    assert stored(place).hosts == (other,)


@pytest.mark.parametrize(
    ("puts", "deletes"),
    [
        pytest.param([], [ENGINE], id="a project with hosts"),
        pytest.param([host(1, "engine"), host(2, "nowhere")], [], id="no such project"),
        pytest.param([host(1, "engine"), replace(CEDAR, id="f" * 32)], [], id="a name that is taken"),
        pytest.param([replace(TOKEN, project="nowhere")], [], id="a token for nothing"),
    ],
)
def test_what_does_not_fit_is_refused_as_a_whole(
    place: Place, puts: list[Record], deletes: list[Record]
) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING, audit=[entry(1)])
        before = store.snapshot()
        with pytest.raises(StoreError, match="refuses a row") as caught:
            store.apply(puts, deletes, [entry(2)])
        assert not isinstance(caught.value, StoreGoneError)
        assert caught.value.mend
        assert store.snapshot() == before
        assert store.audit(10) == [entry(1)]
        store.apply([host(3)], audit=[entry(3)])
    assert same(stored(place), *EVERYTHING, host(3))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (replace(CEDAR, id="short"), "hosts, short: id: it has to be 32 hex digits"),
        (replace(CEDAR, slots=0), f"hosts, {CEDAR.id}: slots: it has to be a whole number from 1"),
        (replace(CEDAR, slots=True), f"hosts, {CEDAR.id}: slots: it has to be a whole number"),
        (replace(CEDAR, address="192.0.2.11 "), "address: .* is no address"),
        (replace(CEDAR, seen_at=float("nan")), "seen_at: it has to be seconds since the epoch"),
        (replace(CEDAR, projects=("engine", "engine")), "projects: at most 64, each once"),
        (replace(CEDAR, toolchain={"cc": "\x00"}), "toolchain: .* control characters"),
        (replace(TOKEN, digest="x"), f"tokens, {TOKEN.id}: digest"),
        (replace(TOKEN, note="\ud800"), "note: at most 1000 characters"),
        (replace(KEY, id=""), r"keys, \(no key\): id"),
        (replace(OPERATOR, password_hash=""), "operators, ada: password_hash: it is empty"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(place: Place, record: Record, words: str) -> None:
    with Store(place.url) as store:
        store.apply([ENGINE])
        with pytest.raises(StoreError, match=words):
            store.apply([CEDAR, record], audit=[entry(1)])
        assert store.audit(1) == []
    assert same(stored(place), ENGINE)


def test_a_record_is_not_put_and_deleted_at_once(place: Place) -> None:
    with (
        Store(place.url) as store,
        pytest.raises(StoreError, match=f"hosts, {BIRCH.id}: it is put and deleted"),
    ):
        store.apply([BIRCH], [BIRCH])


def test_texts_for_people_are_cut(place: Place) -> None:
    with Store(place.url) as store:
        store.apply([replace(BIRCH, note="x\n" * LONGEST_TEXT)], audit=[entry(1, detail="\x00" + "y" * 5000)])
        note, detail = store.snapshot().hosts[0].note, store.audit(1)[0].detail
        assert stored_note(store) == note
    assert (len(note), note[:4], note[-3:]) == (LONGEST_TEXT, "x?x?", "...")
    assert (len(detail), detail[:2]) == (LONGEST_TEXT, "?y")
    assert stored(place).hosts[0].note == note


def stored_note(store: Store) -> str:
    return store.look()[0].hosts[0].note


def test_the_audit_log_has_the_newest_first(place: Place) -> None:
    with Store(place.url) as store:
        store.apply(audit=[entry(1), entry(2)])
        store.apply([BIRCH], audit=[entry(3)])
        assert store.audit(2) == [entry(3), entry(2)]
        assert store.audit(0) == store.audit(-1) == []
    with Store(place.url) as store:
        assert store.audit(100) == [entry(3), entry(2), entry(1)]


def test_the_audit_log_does_not_grow_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEEP_AUDIT", 20)
    monkeypatch.setattr(store_module, "TRIM_EACH", 10)
    lengths = []
    with Store(place.url) as store:
        for number in range(60):
            store.apply(audit=[entry(number)])
            lengths.append(len(store.audit(1000)))
        assert max(lengths) == 29
        assert lengths[-1] == 20
        store.apply(audit=[entry(number) for number in range(60, 69)])
    with Store(place.url) as store:
        assert store.audit(1000) == [entry(number) for number in range(68, 48, -1)]


def test_another_one_is_turned_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "LOCK_WAIT_S", 0.2)
    other = Store(place.url)
    with Store(place.url) as store:
        with pytest.raises(StoreError, match="is in use by another") as caught:
            other.open()
        assert "stop that one first" in caught.value.mend
        store.apply([BIRCH])
    assert other.open().hosts == (BIRCH,)
    other.close()


def test_another_process_is_turned_away_until_it_is_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, time\n"
        "from d1fleet.registry.store import Store\n"
        "Store(sys.argv[1]).open()\n"
        "print('open', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, place.url], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            with monkeypatch.context() as quick:
                quick.setattr(postgres_module, "LOCK_WAIT_S", 0.2)
                with pytest.raises(StoreError, match="is in use by another") as caught:
                    Store(place.url).open()
            assert place.kind != "sqlite" or f"process, {child.pid}" in caught.value.message
        finally:
            child.kill()
        child.wait()
        assert stored(place).records == ()


def test_a_store_is_opened_once_and_closed_as_often_as_one_likes(place: Place) -> None:
    store = Store(place.url)
    assert not store.is_there()
    for refused in (lambda: store.apply([BIRCH]), lambda: store.audit(1), lambda: store.rewrite(Snapshot())):
        with pytest.raises(StoreError, match="is not open"):
            refused()
    store.close()
    store.open()
    with pytest.raises(StoreError, match="is open already"):
        store.open()
    store.apply([BIRCH])
    store.close()
    store.close()
    assert store.open().hosts == (BIRCH,)
    store.close()


def test_it_may_be_used_from_any_thread(place: Place) -> None:
    store = Store(place.url)
    store.open()
    threads = [threading.Thread(target=store.apply, args=([host(number)],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert same(stored(place), *map(host, range(8)))


def test_rewriting_leaves_exactly_what_is_given(place: Place) -> None:
    given = Snapshot((TOOLS,), (replace(BIRCH, projects=("tools",)),), made_at=1234.5)
    with Store(place.url) as store:
        store.apply(EVERYTHING, audit=[entry(1)])
        store.rewrite(given, [entry(2)])
        assert store.snapshot() == given
        assert store.audit(9) == [entry(2), entry(1)]
        store.apply([host(1, "tools")])
    read = stored(place)
    assert same(read, *given.records, host(1, "tools"))
    assert read.made_at == 1234.5


def test_nothing_is_rewritten_with_what_does_not_fit(place: Place) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING)
        with pytest.raises(StoreError, match=f"hosts, {CEDAR.id}: there is no project engine"):
            store.rewrite(Snapshot((TOOLS,), (CEDAR,)))
        store.apply([host(1)])
    assert same(stored(place), *EVERYTHING, host(1))


def test_one_may_look_while_another_has_it(place: Place) -> None:
    looker = Store(place.url)
    with Store(place.url) as store:
        store.apply(EVERYTHING, audit=[entry(1), entry(2)])
        assert looker.look() == (store_order(store.snapshot()), [entry(2), entry(1)])
        store.apply([host(1)])
        assert host(1) in looker.look()[0].hosts
        assert store.is_there()
        store.apply([host(2)])
    assert len(looker.look()[0].hosts) == 5
    assert same(stored(place), *EVERYTHING, host(1), host(2))


def store_order(snapshot: Snapshot) -> Snapshot:
    """As they are read."""
    return replace(
        snapshot,
        projects=tuple(sorted(snapshot.projects, key=key)),
        hosts=tuple(sorted(snapshot.hosts, key=lambda each: each.joined_at)),
    )


def test_looking_makes_and_changes_nothing(place: Place) -> None:
    with pytest.raises(StoreError, match=r"there is no database|has revision \(none\)"):
        Store(place.url).look()
    assert stored(place).records == ()


def test_looking_at_another_schema_is_refused(place: Place) -> None:
    stored(place)
    place.sql("DELETE FROM d1fleet_version")
    with pytest.raises(StoreError, match=r"has revision \(none\) of its schema"):
        Store(place.url).look()


EDITS = [
    ("projects", "ranges", "engine", '["192.0.2.1/24"]'),
    ("projects", "ranges", "engine", "[1]"),
    ("projects", "ranges", "engine", "[" * 100_000),
    ("projects", "options", "engine", '{"lzo": true}'),
    ("projects", "transport", "engine", "pigeon"),
    ("projects", "toolchain_mismatch", "engine", "perhaps"),
    ("hosts", "name", ALDER.id, "Alder"),
    ("hosts", "name", ALDER.id, "x" * 101),
    ("hosts", "owner", ALDER.id, "ada\n"),
    ("hosts", "address", ALDER.id, "192.0.2.011"),
    ("hosts", "fixed_address", ALDER.id, "fe80::1%eth0"),
    ("hosts", "slots", ALDER.id, 4097),
    ("hosts", "port", ALDER.id, 0),
    ("hosts", "ssh_port", ALDER.id, -1),
    ("hosts", "version", ALDER.id, "latest"),
    ("hosts", "system", ALDER.id, "x" * 65),
    ("hosts", "machine", ALDER.id, "0"),
    ("hosts", "host_keys", ALDER.id, "ssh-ed25519 AAAA"),
    ("hosts", "host_keys", ALDER.id, '["not a key"]'),
    ("hosts", "toolchain", ALDER.id, '["gcc"]'),
    ("hosts", "toolchain", ALDER.id, '{"cc": 12}'),
    ("hosts", "generation", ALDER.id, 0),
    ("hosts", "session", ALDER.id, "5E" * 16),
    ("hosts", "joined_at", ALDER.id, float("inf")),
    ("hosts", "seen_at", ALDER.id, -1.0),
    ("hosts", "note", ALDER.id, "x" * (LONGEST_TEXT + 1)),
    ("tokens", "digest", TOKEN.id, ""),
    ("tokens", "note", TOKEN.id, "\u202e"),
    ("operators", "kind", "ada", "root"),
    ("operators", "password_hash", "ada", ""),
    ("operators", "created_at", "ada", 1e300),
    ("keys", "digest", KEY.id, "0" * 63),
    ("keys", "kind", KEY.id, ""),
    ("marks", "value", "made_at", "yesterday"),
    ("marks", "value", "made_at", "nan"),
]


def test_a_row_that_was_edited_into_nonsense_is_named(place: Place) -> None:
    store = Store(place.url)
    with store:
        store.apply(EVERYTHING)
    for table, column, row, value in EDITS:
        by = "name" if table in ("projects", "operators", "marks") else "id"
        before = place.sql(f"SELECT {column} FROM {table} WHERE {by} = %s", [row])[0][0]
        place.sql(f"UPDATE {table} SET {column} = %s WHERE {by} = %s", [value, row])
        with pytest.raises(StoreError, match=f": {table}, {row}: ") as caught:
            store.open()
        assert table == "marks" or f": {column}: " in caught.value.message
        assert "restore a backup" in caught.value.mend
        with pytest.raises(StoreError, match=f": {table}, {row}: "):
            store.look()
        place.sql(f"UPDATE {table} SET {column} = %s WHERE {by} = %s", [before, row])
    assert same(stored(place), *EVERYTHING)


def test_an_entry_of_the_audit_log_that_was_edited_is_named(place: Place) -> None:
    with Store(place.url) as store:
        store.apply(audit=[entry(1), entry(2)])
        place.sql("UPDATE audit SET who = 'ada\t' WHERE id = 1")
        with pytest.raises(StoreError, match="audit, 1: who: "):
            store.audit(2)
        assert store.audit(1) == [entry(2)]


def test_a_membership_in_nothing_is_found(place: Place) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING)
    if place.kind == "sqlite":  # its shell does not look after foreign keys unless it is told to
        place.sql("UPDATE memberships SET project = 'nowhere' WHERE host_id = %s", [CEDAR.id])
        with pytest.raises(StoreError, match=r"memberships, row .*: what it names in projects is not there"):
            stored(place)
    else:
        place.sql("ALTER TABLE memberships DROP CONSTRAINT fk_memberships_project")
        place.sql("UPDATE memberships SET project = 'nowhere' WHERE host_id = %s", [CEDAR.id])
        with pytest.raises(StoreError, match=f"hosts, {CEDAR.id}: there is no project nowhere"):
            stored(place)
        place.sql("ALTER TABLE memberships DROP CONSTRAINT fk_memberships_host_id")
        place.sql("UPDATE memberships SET host_id = 'nobody' WHERE host_id = %s", [CEDAR.id])
        with pytest.raises(StoreError, match="memberships, nobody: there is no such host"):
            stored(place)


@pytest.mark.parametrize("revision", ["9999", "x\x1b[31m"])
def test_a_database_of_a_newer_program_is_refused(place: Place, revision: str) -> None:
    with Store(place.url) as store:
        store.apply(EVERYTHING)
    place.sql("UPDATE d1fleet_version SET version_num = %s", [revision])
    with pytest.raises(StoreError, match=r"has revision .* this d1fleet knows 0001") as caught:
        stored(place)
    assert "a newer d1fleet has made it" in caught.value.mend
    assert "\x1b" not in caught.value.message
    place.sql("UPDATE d1fleet_version SET version_num = '0001'")
    assert same(stored(place), *EVERYTHING)


def test_tables_of_somebody_else_are_left_alone(place: Place) -> None:
    place.sql("CREATE TABLE hosts (name TEXT)")
    place.sql("INSERT INTO hosts VALUES ('theirs')")
    with pytest.raises(StoreError, match="has tables that are not the registry's own: hosts"):
        stored(place)
    assert place.sql("SELECT * FROM hosts") == [("theirs",)]


def test_random_changes_come_to_the_same(place: Place) -> None:
    """Against dictionaries."""
    dice = random.Random(20)
    names = ["engine", "tools", "docs"]
    records: dict[tuple[type[Record], str], Record] = {}
    entries: list[AuditEntry] = []

    def some() -> Record:
        projects = [record.name for record in records.values() if isinstance(record, Project)]
        number = dice.randrange(6)
        choices: list[Record] = [
            Project(dice.choice(names), (f"192.0.{number}.0/24",), old_clients=dice.random() < 0.5),
            host(number, *dice.sample(projects, dice.randint(0, len(projects))), slots=dice.randint(1, 64)),
            Operator(f"op-{number}", "hash", dice.choice(["viewer", "operator"])),
        ]
        return dice.choice(choices)

    store = Store(place.url)
    store.open()
    for number in range(150):
        puts = {(type(each), key(each)): each for each in (some() for _ in range(dice.randint(0, 3)))}
        doomed = dice.sample(sorted(records, key=str), min(len(records), dice.randint(0, 2)))
        deletes = {what: records[what] for what in doomed if what not in puts}
        after = {**{what: each for what, each in records.items() if what not in deletes}, **puts}
        fits = all(
            (Project, name) in after
            for each in after.values()
            if isinstance(each, Host)
            for name in each.projects
        )
        if fits:
            store.apply(list(puts.values()), list(deletes.values()), [entry(number)])
            records = after
            entries.append(entry(number))
        else:
            with pytest.raises(StoreError):
                store.apply(list(puts.values()), list(deletes.values()), [entry(number)])
        if dice.random() < 0.05:
            store.rewrite(store.snapshot())
        if dice.random() < 0.05:
            store.close()
            store.open()
        assert same(store.snapshot(), *records.values())
    store.close()
    assert len(entries) > 50
    assert same(stored(place), *records.values())
    assert Store(place.url).look()[1] == entries[::-1]
