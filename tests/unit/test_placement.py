"""Which host takes a job: never more than there is room for, the least loaded first, equal ones in turn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.placement import (
    SHOWN_CANDIDATES,
    Decision,
    HostState,
    Machine,
    choose,
    cost,
    has_room,
    weight_on,
)


def _hosts(*machines: Machine, max_jobs: int | None = None) -> list[HostState]:
    return [
        HostState(f"h{order}", machine, order, max_jobs=max_jobs) for order, machine in enumerate(machines)
    ]


def _give(host: HostState, weight: int = 1) -> int:
    """What the coordinator does with a decision; returns the slots taken."""
    taken = weight_on(host.machine, weight)
    host.machine.used += taken
    host.jobs += 1
    host.given += 1
    return taken


def _chosen(decision: Decision) -> str | None:
    return decision.host.name if decision.host is not None else None


def test_no_hosts_at_all_is_never() -> None:
    assert choose([]) == Decision(None, never=True)


def test_no_host_that_is_up_is_never() -> None:
    (host,) = _hosts(Machine(slots=4))
    host.up = False
    assert choose([host]).never


def test_full_hosts_are_a_wait() -> None:
    assert choose(_hosts(Machine(slots=1, used=1))) == Decision(None, never=False)


def test_the_less_loaded_host() -> None:
    assert _chosen(choose(_hosts(Machine(slots=4, used=2), Machine(slots=4, used=1)))) == "h1"


def test_the_larger_host() -> None:
    assert _chosen(choose(_hosts(Machine(slots=2, cpus=2), Machine(slots=8, cpus=8)))) == "h1"


def test_load_of_others_counts_like_ours() -> None:
    busy = Machine(slots=4, cpus=4, others_cpus=3.0)
    assert _chosen(choose(_hosts(busy, Machine(slots=4, cpus=4, used=2)))) == "h1"


def test_load_of_others_takes_no_slot() -> None:
    """It says where to go first, not that there is no room."""
    assert _chosen(choose(_hosts(Machine(slots=1, cpus=1, others_cpus=50.0)))) == "h0"


def test_ties_go_to_the_last_host() -> None:
    hosts = _hosts(Machine(slots=4), Machine(slots=4), Machine(slots=4))
    assert _chosen(choose(hosts, last="h2")) == "h2"


def test_the_last_host_is_no_reason_against_a_better_one() -> None:
    hosts = _hosts(Machine(slots=4, used=3), Machine(slots=4))
    assert _chosen(choose(hosts, last="h0")) == "h1"


def test_equal_hosts_are_taken_in_their_order() -> None:
    assert _chosen(choose(reversed(_hosts(Machine(slots=4), Machine(slots=4))))) == "h0"


def test_jobs_spread_over_the_names_of_one_machine() -> None:
    machine = Machine(slots=100)
    hosts = _hosts(machine, machine, machine)
    given = Counter[str]()
    for _ in range(30):
        host = choose(hosts).host
        assert host is not None
        _give(host)
        given[host.name] += 1
    assert set(given.values()) == {10}


def test_jobs_that_end_at_once_spread_too() -> None:
    hosts = _hosts(Machine(slots=4), Machine(slots=4), Machine(slots=4))
    given = Counter[str]()
    for _ in range(30):
        host = choose(hosts).host
        assert host is not None
        taken = _give(host)
        host.machine.used -= taken
        host.jobs -= 1
        given[host.name] += 1
    assert set(given.values()) == {10}


def test_hosts_fill_by_their_size() -> None:
    hosts = _hosts(Machine(slots=2, cpus=2), Machine(slots=6, cpus=6))
    for _ in range(4):
        host = choose(hosts).host
        assert host is not None
        _give(host)
    assert [host.jobs for host in hosts] == [1, 3]


@pytest.mark.parametrize(
    ("slots", "weight", "taken"), [(4, 1, 1), (4, 3, 3), (4, 99, 4), (4, 0, 1), (1, 8, 1)]
)
def test_weight_is_bounded_by_the_machine(slots: int, weight: int, taken: int) -> None:
    assert weight_on(Machine(slots=slots), weight) == taken


def test_a_heavy_job_waits_for_enough_slots() -> None:
    hosts = _hosts(Machine(slots=4, used=2))
    assert choose(hosts, weight=3).host is None
    assert not choose(hosts, weight=3).never
    assert _chosen(choose(hosts, weight=2)) == "h0"


def test_reasons_are_kept_cheapest_first() -> None:
    hosts = _hosts(*(Machine(slots=8, used=used) for used in (5, 1, 3, 0, 2, 7)))
    candidates = choose(hosts).candidates
    assert candidates == (("h3", 0.125), ("h1", 0.25), ("h4", 0.375), ("h2", 0.5))
    assert len(candidates) == SHOWN_CANDIDATES


MACHINES = st.lists(
    st.builds(
        Machine,
        slots=st.integers(1, 5),
        cpus=st.integers(1, 8),
        others_cpus=st.floats(0, 20, allow_nan=False),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def fleets(draw: st.DrawFn) -> list[HostState]:
    """Machines, each with one to three names; some of those down, some with a hard limit."""
    hosts: list[HostState] = []
    for machine in draw(MACHINES):
        for _ in range(draw(st.integers(1, 3))):
            limit = draw(st.none() | st.integers(1, 3))
            up = draw(st.booleans() | st.just(True))
            hosts.append(HostState(f"h{len(hosts)}", machine, len(hosts), max_jobs=limit, up=up))
    return hosts


STEPS = st.lists(st.tuples(st.sampled_from(["place", "end"]), st.integers(0, 7)), max_size=60)


@given(hosts=fleets(), steps=STEPS)
def test_never_beyond_slots_and_hard_limits(hosts: list[HostState], steps: list[tuple[str, int]]) -> None:
    """Whatever is placed and ends in whatever order; what has room is used."""
    running: list[tuple[HostState, int]] = []
    for kind, weight in steps:
        if kind == "end":
            if running:
                host, taken = running.pop(weight % len(running))
                host.machine.used -= taken
                host.jobs -= 1
            continue
        decision = choose(hosts, weight)
        assert decision.never == (not any(host.up for host in hosts))
        fit = [host for host in hosts if has_room(host, weight)]
        if decision.host is None:
            assert not fit
            continue
        assert decision.host.up
        assert cost(decision.host, weight) == min(cost(host, weight) for host in fit)
        running.append((decision.host, _give(decision.host, weight)))
        for host in hosts:
            assert 0 <= host.machine.used <= host.machine.slots
            assert host.max_jobs is None or host.jobs <= host.max_jobs


@given(
    hosts=fleets(), weight=st.integers(1, 5), last=st.sampled_from(["h0", "h1", "h9", None]), data=st.data()
)
def test_the_order_of_the_list_does_not_matter(
    hosts: list[HostState], weight: int, last: str | None, data: st.DataObject
) -> None:
    other = data.draw(st.permutations(hosts))
    assert choose(hosts, weight, last) == choose(other, weight, last)
