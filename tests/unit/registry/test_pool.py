"""What there is at this moment."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from d1fleet.registry.documents import OldClient, document
from d1fleet.registry.model import Host, Project, State, may_be_peer
from d1fleet.registry.pool import Pool, Timing

TIMING = Timing()
PROJECTS = [Project("engine", ("192.0.2.0/24",)), Project("tools", ("192.0.2.0/24", "198.51.100.0/24"))]


def host(number: int, **values: Any) -> Host:
    given = {
        "id": f"{number:032x}",
        "name": f"h{number}",
        "projects": ("engine",),
        "address": f"192.0.2.{number}",
        "toolchain": {"cc": "gcc"},
        "joined_at": float(number),
        **values,
    }
    return Host(**given)


def pool(*hosts: Host, now_s: float = 100.0) -> Pool:
    return Pool(PROJECTS, hosts, TIMING, now_s)


def peers(found: Pool, project: str = "engine") -> list[str]:
    return list(found.document(project).peers)


def test_silence_makes_a_host_suspect_and_then_gone() -> None:
    found = pool(host(1))
    one = host(1)
    assert found.state(one, 100.0) is State.UP
    assert found.state(one, 100.0 + TIMING.suspect_after_s - 0.1) is State.UP
    assert found.state(one, 100.0 + TIMING.suspect_after_s) is State.SUSPECT
    assert found.state(one, 100.0 + TIMING.gone_after_s) is State.GONE


def test_one_lost_beat_removes_nobody() -> None:
    """The beat after the lost one comes, at the latest, two beats and their jitter after the last."""
    found = pool(host(1), host(2))
    late_s = 100.0 + 2 * TIMING.beat_s * (1 + TIMING.jitter)
    assert found.expire(late_s) == ([], set())
    assert peers(found) == ["h1", "h2"]


def test_who_is_gone_is_told_once_and_no_peer_any_more() -> None:
    found = pool(host(1), host(2))
    found.live[host(1).id].heard_s = 139.0
    gone, projects = found.expire(140.0)
    assert [each.name for each in gone] == ["h2"]
    assert projects == {"engine"}
    assert peers(found) == ["h1"]
    assert found.expire(141.0) == ([], set())


def test_after_a_restart_hosts_have_time_to_come_but_not_those_that_were_gone() -> None:
    found = pool(host(1), host(2, gone=True), host(3, left=True), now_s=5000.0)
    assert peers(found) == ["h1"]
    assert found.state(found.hosts[host(2).id], 5000.0) is State.GONE
    assert found.state(found.hosts[host(3).id], 5000.0) is State.LEFT


def test_states_by_word_of_an_operator_count_before_silence() -> None:
    found = pool(host(1, expunged=True), host(2, cloned=True), host(3, drained=True))
    assert [found.state(each, 100.0) for each in found.hosts.values()] == [
        State.EXPUNGED,
        State.CLONED,
        State.DRAINED,
    ]
    assert peers(found) == []
    assert json.loads(found.document("engine").text)["members"] == ["192.0.2.3"]


def test_a_document_is_worked_out_only_when_something_in_it_may_have_changed() -> None:
    found = pool(host(1), host(2), host(3, projects=("tools",)))
    for _ in range(3):
        found.document("engine")
        assert found.put_host(replace(found.hosts[host(1).id], owner="bob", seen_at=3.0), 101.0) == set()
    found.document("tools")
    assert found.worked_out == 2
    assert found.put_host(replace(found.hosts[host(1).id], slots=9), 101.0) == {"engine"}
    found.document("engine")
    found.document("tools")
    assert found.worked_out == 3


def test_a_host_that_moves_changes_both_projects() -> None:
    found = pool(host(1), host(2))
    assert found.put_host(host(1, projects=("tools",)), 100.0) == {"engine", "tools"}
    assert (peers(found), peers(found, "tools")) == (["h2"], ["h1"])
    assert [each.name for each in found.members("engine")] == ["h2"]


def test_who_is_dropped_is_known_no_more() -> None:
    found = pool(host(1), host(2))
    assert found.drop_host(host(1)) == {"engine"}
    assert found.named("h1") is None
    assert peers(found) == ["h2"]


def test_old_clients_go_when_they_are_not_heard_of() -> None:
    found = pool(host(1))
    client = OldClient("engine", "192.0.2.77", 8, "bob", "0.0.6", "h", 100.0)
    assert found.put_old_client(client) == {"engine"}
    assert found.put_old_client(replace(client, heard_s=101.0)) == set()
    assert found.expire(101.0 + TIMING.old_clients_s - 0.1)[1] == {"engine"}, "h1, which is silent by then"
    assert found.old_clients("engine") != []
    assert found.expire(101.0 + TIMING.old_clients_s)[1] == {"engine"}
    assert found.old_clients("engine") == []


_NUMBERS = st.integers(1, 6)
_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "projects": st.sampled_from([("engine",), ("tools",), ("engine", "tools"), ()]),
        "address": st.sampled_from(
            ["", "127.0.0.1", "192.0.2.1", "192.0.2.250", "198.51.100.7", "203.0.113.1"]
        ),
        "slots": st.integers(1, 64),
        "serving": st.booleans(),
        "drained": st.booleans(),
        "expunged": st.booleans(),
        "cloned": st.booleans(),
        "left": st.booleans(),
        "toolchain": st.sampled_from([{}, {"cc": "gcc"}, {"cc": "clang"}]),
    },
)
_EVENTS = st.one_of(
    st.tuples(st.just("put"), _NUMBERS, _CHANGES),
    st.tuples(st.just("drop"), _NUMBERS, st.none()),
    st.tuples(st.just("hear"), _NUMBERS, st.none()),
    st.tuples(st.just("pass"), st.integers(1, 50), st.none()),
    st.tuples(st.just("ask"), st.sampled_from([1, 2]), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_EVENTS, max_size=40))
def test_whatever_happens_what_is_handed_out_is_what_there_is(events: list[tuple[str, int, Any]]) -> None:
    found = pool()
    now_s = 100.0
    for what, number, values in events:
        known = found.hosts.get(host(number).id)
        if what == "put":
            found.put_host(replace(known or host(number), **values), now_s)
        elif what == "drop" and known:
            found.drop_host(known)
        elif what == "hear" and known:
            found.live[known.id].heard_s = now_s
            found.put_host(replace(known, gone=False), now_s)
        elif what == "pass":
            now_s += number
            found.expire(now_s)
        elif what == "ask":
            found.document(PROJECTS[number - 1].name)
        for project in PROJECTS:
            _check(found, project, now_s)


def _check(found: Pool, project: Project, now_s: float) -> None:
    told = found.document(project.name)
    members = json.loads(told.text)["members"]
    for each in found.hosts.values():
        outcast = each.expunged or each.cloned or each.left or each.gone or project.name not in each.projects
        assert not (outcast and each.name in told.peers)
        if each.name in told.peers:
            assert found.state(each, now_s) in (State.UP, State.SUSPECT)
    assert all(may_be_peer_of(project, address) for address in members)
    # What is kept is what would be worked out now.
    hosts = [each for each in found.members(project.name) if not each.expunged and not each.cloned]
    alive = frozenset(each.id for each in hosts if not each.left and not each.gone)
    assert document(project, hosts, alive).text == told.text


def may_be_peer_of(project: Project, text: str) -> bool:
    import ipaddress

    return may_be_peer(ipaddress.ip_address(text), project.networks)
