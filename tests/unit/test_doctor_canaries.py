"""Who compiles on whom, and when."""

from __future__ import annotations

from collections import Counter

import pytest

from d1fleet.doctor_canaries import CLIENT_AT_ONCE, Pair, Plan, compilers, pairs
from d1fleet.hostsfile import Peer
from tests.support.patients import NAMES, change, project


def test_each_member_with_each_other() -> None:
    found = {(pair.client, pair.peer.name) for pair in pairs(project())}
    assert found == {(one, other) for one in NAMES for other in NAMES if one != other}


def test_who_has_told_nothing_is_not_tried() -> None:
    case = project()
    case.hosts[1].facts = None
    change(case, "cedar", versions={"distcc": ""})
    assert [(pair.client, pair.peer.name) for pair in pairs(case)] == [("alder", "cedar")]


def test_compilers_are_those_of_the_project() -> None:
    case = project()
    change(
        case,
        "alder",
        toolchain={"tools": ("/opt/x/bin/arm-gcc", "nasm")},
        distcc={"masquerade": ("arm-gcc",)},
    )
    assert compilers(case.hosts[0]) == ["cc", "c++", "arm-gcc"]
    change(case, "alder", toolchain={"parts": {"cc": "x", "c++": "none"}, "tools": ()})
    assert compilers(case.hosts[0]) == ["cc"]


def _many(count: int, slots: int) -> list[Pair]:
    names = [f"h{number}" for number in range(count)]
    return [
        Pair(one, Peer(other, f"192.0.2.{index + 1}", slots))
        for one in names
        for index, other in enumerate(names)
        if one != other
    ]


@pytest.mark.parametrize(("count", "slots"), [(2, 1), (3, 2), (12, 1), (12, 4)])
def test_no_server_has_more_at_once_than_slots_and_all_are_done(count: int, slots: int) -> None:
    plan = Plan(_many(count, slots))
    running: list[Pair] = []
    done: list[Pair] = []
    while not plan.done:
        running += plan.start()
        assert running
        assert max(Counter(pair.peer.name for pair in running).values()) <= slots
        assert max(Counter(pair.client for pair in running).values()) <= CLIENT_AT_ONCE
        ended = running.pop(0)
        done.append(ended)
        plan.ended(ended, too_late=False)
    assert sorted(map(str, done)) == sorted(map(str, _many(count, slots)))
    assert plan.given_up == []


def test_a_server_that_lets_wait_is_asked_no_more() -> None:
    plan = Plan(_many(4, 1))
    first = plan.start()[0]
    plan.ended(first, too_late=True)
    assert {pair.peer.name for pair in plan.given_up} == {first.peer.name}
    assert len(plan.given_up) == 2
    assert first.peer.name not in {pair.peer.name for pair in plan.start()}


def test_stop() -> None:
    plan = Plan(_many(3, 1))
    begun = plan.start()
    plan.stop()
    assert plan.start() == []
    for pair in begun:
        plan.ended(pair, too_late=False)
    assert plan.done and len(plan.given_up) == 6 - len(begun)
