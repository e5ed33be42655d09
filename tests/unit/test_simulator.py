"""The simulator: right where the answer is known; and with it, how good placement is."""

from __future__ import annotations

import functools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.machines import COST, METHODS
from d1fleet.simulator import Knowledge, Outcome, SimulatedHost, bound_s, mixed_fleet, simulate
from d1fleet.traces import FAMILIES, TraceJob, made_up

EXACT = Knowledge(durations=0.0, speeds=0.0)
NOTHING = Knowledge(durations=None, speeds=None)


# -- the simulator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "fleet", "makespan_s"),
    [
        ([TraceJob(2.0)] * 4, [SimulatedHost(2, 2)], 4.0),
        ([TraceJob(2.0)] * 4, [SimulatedHost(2, 2, speed=2.0)], 2.0),
        ([TraceJob(2.0)], [SimulatedHost(1, 1, others_cpus=1.0)], 4.0),
        ([TraceJob(2.0)] * 4, [SimulatedHost(4, 2)], 4.0),
        ([TraceJob(3.0), TraceJob(1.0)], [SimulatedHost(2, 1)], 4.0),
        ([TraceJob(1.0, delay_s=5.0)], [SimulatedHost(1, 1)], 6.0),
        ([TraceJob(1.0), TraceJob(1.0, after=(0,), delay_s=0.5)], [SimulatedHost(9, 9)], 2.5),
        ([TraceJob(4.0, weight=2), TraceJob(1.0)], [SimulatedHost(2, 2)], 3.0),
        ([], [SimulatedHost(1, 1)], 0.0),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_what_can_be_reckoned_by_hand(
    trace: list[TraceJob], fleet: list[SimulatedHost], makespan_s: float, method: str
) -> None:
    assert simulate(trace, fleet, METHODS[method], EXACT).makespan_s == pytest.approx(makespan_s)


def test_utilisation() -> None:
    outcome = simulate([TraceJob(2.0), TraceJob(1.0)], [SimulatedHost(2, 2)], COST, EXACT)
    assert outcome.utilisation == pytest.approx(0.75)
    assert outcome.ratio == pytest.approx(1.0)


def test_make_asks_for_no_more_than_it_may() -> None:
    """The long one comes last, where all are known at once it is the first."""
    trace = [TraceJob(1.0)] * 4 + [TraceJob(4.0)]
    fleet = [SimulatedHost(2, 2)]
    assert simulate(trace, fleet, COST, EXACT).makespan_s == pytest.approx(4.0)
    assert simulate(trace, fleet, COST, EXACT, look_ahead=0).makespan_s == pytest.approx(6.0)


HOSTS = st.builds(
    SimulatedHost,
    slots=st.integers(1, 4),
    cpus=st.integers(1, 4),
    speed=st.sampled_from([0.2, 1.0, 3.0]),
    others_cpus=st.sampled_from([0.0, 0.5, 8.0]),
)


@st.composite
def traces(draw: st.DrawFn) -> list[TraceJob]:
    jobs: list[TraceJob] = []
    for number in range(draw(st.integers(0, 25))):
        after = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else ()
        work_s, delay_s = draw(st.sampled_from([0.001, 0.5, 7.0])), draw(st.sampled_from([0.0, 0.0, 2.0]))
        jobs.append(TraceJob(work_s, tuple(after), delay_s, goal=draw(st.sampled_from("ab"))))
    return jobs


@given(
    trace=traces(),
    fleet=st.lists(HOSTS, min_size=1, max_size=4),
    method=st.sampled_from(list(METHODS)),
    knowledge=st.sampled_from([EXACT, NOTHING, Knowledge(2.0, 1.0, 0.5)]),
    look_ahead=st.none() | st.integers(0, 3),
)
def test_all_builds_end_and_none_before_it_can(
    trace: list[TraceJob],
    fleet: list[SimulatedHost],
    method: str,
    knowledge: Knowledge,
    look_ahead: int | None,
) -> None:
    """However wrong what is taken to be known."""
    outcome = simulate(trace, fleet, METHODS[method], knowledge, look_ahead)
    assert outcome.makespan_s >= outcome.bound_s * (1 - 1e-9)
    assert outcome.jobs == len(trace)
    assert simulate(trace, fleet, METHODS[method], knowledge, look_ahead) == outcome


def test_the_bound() -> None:
    fleet = [SimulatedHost(2, 2, speed=2.0), SimulatedHost(2, 2, others_cpus=2.0)]
    assert bound_s([TraceJob(10.0)] * 4, fleet) == pytest.approx(8.0)
    assert bound_s([TraceJob(10.0), TraceJob(10.0, after=(0,))], fleet) == pytest.approx(10.0)


# -- how good placement is -------------------------------------------------------------------------------


SIZES = (1, 2, 4)
JOBS_A_SLOT = 20


@functools.cache
def _outcome(family: str, hosts: int, seed: int, method: str, known: bool) -> Outcome:
    fleet = mixed_fleet(hosts, seed, sizes=SIZES)
    trace = made_up(family, JOBS_A_SLOT * sum(host.slots for host in fleet), seed)
    knowledge = Knowledge() if known else NOTHING
    return simulate(trace, fleet, METHODS[method], knowledge, seed=seed)


def _near_the_bound(family: str, hosts: int, seed: int) -> None:
    ours = _outcome(family, hosts, seed, "cost", True)
    assert ours.ratio <= 1.10
    for other in ("d1make", "round-robin"):
        assert ours.makespan_s <= 1.03 * _outcome(family, hosts, seed, other, True).makespan_s


def _better_on_the_whole(hosts: int, seeds: range) -> None:
    traces = [(family, seed) for family in FAMILIES for seed in seeds]
    for other in ("d1make", "round-robin"):
        against = [
            _outcome(family, hosts, seed, "cost", True).makespan_s
            / _outcome(family, hosts, seed, other, True).makespan_s
            for family, seed in traces
        ]
        assert sum(ratio <= 1.0 for ratio in against) >= 0.9 * len(against)
        assert statistics.geometric_mean(against) < 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_near_the_bound_small(family: str) -> None:
    _near_the_bound(family, hosts=60, seed=0)


def test_better_than_others_small() -> None:
    _better_on_the_whole(hosts=60, seeds=range(1))


GRID = range(3)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", GRID)
@pytest.mark.parametrize("family", FAMILIES)
def test_near_the_bound_with_a_thousand_hosts(family: str, seed: int) -> None:
    _near_the_bound(family, hosts=1000, seed=seed)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_better_than_others_with_a_thousand_hosts() -> None:
    _better_on_the_whole(hosts=1000, seeds=GRID)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_first_build_is_no_worse_on_the_whole() -> None:
    """Nothing is known of jobs or hosts: much is chance then, so that only means can be compared."""
    for other in ("d1make", "round-robin"):
        against = [
            _outcome(family, 200, seed, "cost", False).makespan_s
            / _outcome(family, 200, seed, other, True).makespan_s
            for family in FAMILIES
            for seed in range(5)
        ]
        assert statistics.geometric_mean(against) < 1.0
