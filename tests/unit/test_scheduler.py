"""The scheduler: who is next, who gets it, who rather waits; and what holds whatever happens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet import placement
from d1fleet.machines import COST, D1MAKE, ROUND_ROBIN, HostState, Machine, Method
from d1fleet.placement import Scheduler, Verdict, weight_on
from d1fleet.waiting import JobState

TREE = frozenset(["tree"])


class Fleet:
    """A scheduler, its hosts by name, and jobs by number; time stands still until it is moved."""

    def __init__(self, *machines: Machine, method: Method = COST, max_jobs: int | None = None) -> None:
        self.scheduler = Scheduler(method)
        self.now = 0.0
        self.jobs: list[JobState] = []
        self.hosts = [
            HostState(f"h{order}", machine, order, max_jobs=max_jobs, groups=TREE)
            for order, machine in enumerate(machines)
        ]
        for host in self.hosts:
            self.scheduler.join(host, self.now)

    def ask(self, expected_s: float | None = None, **more: object) -> JobState:
        job = JobState(len(self.jobs), self.now, group="tree", expected_s=expected_s, wide=False)
        for name, value in more.items():
            setattr(job, name, value)
        self.jobs.append(job)
        self.scheduler.ask(job)
        return job

    def dispatch(self) -> list[tuple[int, str | None]]:
        return [
            (verdict.job.number, verdict.host.name if verdict.host else None)
            for verdict in self.scheduler.dispatch(self.now)
        ]

    def run(self, job: JobState, seconds: float) -> None:
        """The job ends after so many seconds."""
        self.now += seconds
        self.scheduler.ended(job, self.now, seconds)


# -- where -----------------------------------------------------------------------------------------


def _refused(scheduler: Scheduler, job: JobState, now: float) -> None:
    """Its host would not start it: it asks again, for another."""
    assert job.host is not None
    job.refused |= {job.host.name}
    scheduler.ended(job, now)
    scheduler.ask(job)


def test_the_faster_host() -> None:
    fleet = Fleet(Machine(4, cpus=4), Machine(4, cpus=4, speed=2.0))
    fleet.ask(1.0)
    assert fleet.dispatch() == [(0, "h1")]


def test_a_fast_host_that_others_use_is_a_slow_one() -> None:
    fleet = Fleet(Machine(4, cpus=4), Machine(4, cpus=4, speed=2.0))
    fleet.scheduler.loaded(fleet.hosts[1].machine, others_cpus=12.0)
    fleet.ask(1.0)
    assert fleet.dispatch() == [(0, "h0")]


def test_load_of_others_takes_no_slot() -> None:
    fleet = Fleet(Machine(1))
    fleet.scheduler.loaded(fleet.hosts[0].machine, others_cpus=50.0)
    fleet.ask()
    assert fleet.dispatch() == [(0, "h0")]


def test_a_host_that_is_short_of_memory_comes_last() -> None:
    fleet = Fleet(Machine(4, cpus=4), Machine(4, cpus=4, speed=0.5))
    fleet.scheduler.loaded(fleet.hosts[0].machine, 0.0, available_bytes=600 << 20)
    for _ in range(3):
        fleet.ask()
    # The third would find less than is usual: the first two were given since the host spoke.
    assert fleet.dispatch() == [(0, "h0"), (1, "h0"), (2, "h1")]
    fleet.scheduler.loaded(fleet.hosts[0].machine, 0.0, available_bytes=8 << 30)
    fleet.ask()
    assert fleet.dispatch() == [(3, "h0")]


def test_a_job_that_needs_much_memory_goes_where_it_is() -> None:
    fleet = Fleet(Machine(4, cpus=4), Machine(4, cpus=4, speed=0.5))
    fleet.scheduler.loaded(fleet.hosts[0].machine, 0.0, available_bytes=1 << 30)
    fleet.ask(memory_bytes=4 << 30)
    assert fleet.dispatch() == [(0, "h1")]


def test_wide_jobs_spread_where_narrow_ones_take_the_fastest() -> None:
    for wide, hosts in ((True, {"h0", "h1"}), (False, {"h0"})):
        fleet = Fleet(Machine(4, cpus=4, speed=1.2), Machine(4, cpus=4))
        for _ in range(3):
            fleet.ask(wide=wide)
        assert {host for _, host in fleet.dispatch()} == hosts


def test_ties_go_to_the_host_that_ran_it_last() -> None:
    fleet = Fleet(Machine(4), Machine(4), Machine(4))
    fleet.ask(last="h2")
    (verdict,) = fleet.scheduler.dispatch(0.0)
    assert verdict.host is fleet.hosts[2]
    assert verdict.reason == placement.LAST_HOST


def test_the_same_job_again_in_one_build_goes_to_its_host() -> None:
    fleet = Fleet(Machine(4), Machine(4), Machine(4))
    first = fleet.ask(key="a")
    assert fleet.dispatch() == [(0, "h0")]
    fleet.run(first, 1.0)
    fleet.ask(key="b")
    fleet.ask(key="a")
    assert fleet.dispatch() == [(1, "h1"), (2, "h0")]


def test_the_last_host_is_no_reason_against_a_better_one() -> None:
    fleet = Fleet(Machine(4, speed=0.5), Machine(4))
    fleet.ask(last="h0")
    assert fleet.dispatch() == [(0, "h1")]


def test_only_hosts_that_see_the_tree() -> None:
    fleet = Fleet(Machine(4, speed=5.0), Machine(4))
    fleet.scheduler.leave(fleet.hosts[0])
    fleet.hosts[0].groups = frozenset(["other"])
    fleet.scheduler.join(fleet.hosts[0], 0.0)
    fleet.ask()
    assert fleet.dispatch() == [(0, "h1")]


def test_a_host_that_refused_is_not_asked_again() -> None:
    fleet = Fleet(Machine(4, speed=5.0), Machine(4))
    job = fleet.ask()
    assert fleet.dispatch() == [(0, "h0")]
    _refused(fleet.scheduler, job, 0.0)
    assert fleet.hosts[0].machine.used == 0
    assert fleet.dispatch() == [(0, "h1")]
    _refused(fleet.scheduler, job, 0.0)
    (verdict,) = fleet.scheduler.dispatch(0.0)
    assert (verdict.host, verdict.reason) == (None, placement.NEVER)
    assert fleet.scheduler.waiting == 0


def test_a_hard_limit_counts_jobs_not_slots() -> None:
    fleet = Fleet(Machine(4), max_jobs=2)
    for _ in range(3):
        fleet.ask()
    assert fleet.dispatch() == [(0, "h0"), (1, "h0")]
    fleet.run(fleet.jobs[0], 1.0)
    assert fleet.dispatch() == [(2, "h0")]


def test_candidates_are_the_best_few_with_their_seconds() -> None:
    fleet = Fleet(*(Machine(4, cpus=4, speed=speed) for speed in (0.5, 4.0, 1.0, 0.25, 2.0)))
    fleet.ask(8.0)
    (verdict,) = fleet.scheduler.dispatch(0.0)
    assert verdict.candidates == (("h1", 2.0), ("h4", 4.0), ("h2", 8.0), ("h0", 16.0))


def test_d1makes_formula() -> None:
    fleet = Fleet(Machine(9), Machine(9), method=D1MAKE)
    fleet.scheduler.loaded(fleet.hosts[0].machine, 0.0, load_1min=1.0)
    for _ in range(3):
        fleet.ask()
    # 3 against 0; 3 against 1 + 4; 1 + 3 + 4 against 1 + 4.
    assert fleet.dispatch() == [(0, "h1"), (1, "h0"), (2, "h1")]
    fleet.scheduler.loaded(fleet.hosts[1].machine, 0.0)
    fleet.ask()
    assert fleet.dispatch() == [(3, "h1")]


def test_round_robin() -> None:
    fleet = Fleet(Machine(9, speed=9.0), Machine(1), Machine(9), method=ROUND_ROBIN)
    for _ in range(6):
        fleet.ask()
    assert [host for _, host in fleet.dispatch()] == ["h0", "h1", "h2", "h0", "h2", "h0"]


# -- who is next -----------------------------------------------------------------------------------


def test_the_longest_expected_first() -> None:
    fleet = Fleet(Machine(1))
    for seconds in (1.0, 9.0, 3.0):
        fleet.ask(seconds)
    order = []
    for _ in range(3):
        ((number, _),) = fleet.dispatch()
        order.append(number)
        fleet.run(fleet.jobs[number], 1.0)
    assert order == [1, 2, 0]


def test_a_waiting_job_grows_older_than_longer_ones() -> None:
    fleet = Fleet(Machine(1))
    running = fleet.ask(5.0)
    fleet.dispatch()
    short = fleet.ask(0.2)
    for _ in range(100):
        fleet.ask(5.0)
        fleet.run(running, 5.0)
        ((number, _),) = fleet.dispatch()
        if number == short.number:
            break
        running = fleet.jobs[number]
    assert short.host is not None
    assert fleet.now <= 60.0


def test_a_job_of_which_nothing_is_known_stands_among_the_long_ones() -> None:
    fleet = Fleet(Machine(1))
    fleet.ask()
    for seconds in (1.0,) * 18 + (4.0, 20.0):
        fleet.ask(seconds)
    order = []
    for _ in range(4):
        ((number, _),) = fleet.dispatch()
        order.append(number)
        fleet.scheduler.ended(fleet.jobs[number], fleet.now)
    assert order[:1] == [20]
    assert 0 in order[1:3]


def test_jobs_with_the_same_goal_are_alike() -> None:
    fleet = Fleet(Machine(1))
    for _ in range(12):
        job = fleet.ask(goal="c++")
        fleet.dispatch()
        fleet.run(job, 3.0)
    assert fleet.ask(goal="c++").guess_s == pytest.approx(3.0, rel=0.1)
    assert fleet.ask(goal="c").guess_s is None


# -- rather later on a fast host -------------------------------------------------------------------


def _fast_and_slow(expected_s: float | None) -> Fleet:
    """The fast host's only slot is taken for another second, the slow one is free; one job waits."""
    fleet = Fleet(Machine(1, speed=4.0), Machine(1, speed=0.5))
    fleet.ask(4.0)
    assert fleet.dispatch() == [(0, "h0")]
    fleet.ask(expected_s)
    return fleet


def test_a_slow_host_stays_idle_where_a_fast_one_ends_the_job_sooner() -> None:
    fleet = _fast_and_slow(4.0)
    assert fleet.dispatch() == []
    assert fleet.jobs[1].waited_for == placement.FASTER_SOON
    fleet.run(fleet.jobs[0], 1.0)
    assert fleet.dispatch() == [(1, "h0")]


def test_a_short_job_does_not_wait_for_a_long_one() -> None:
    assert _fast_and_slow(0.1).dispatch() == [(1, "h1")]


def test_a_wide_job_does_not_wait_for_one_slot_of_a_fast_host() -> None:
    fleet = Fleet(Machine(1, speed=4.0), Machine(16, cpus=16, speed=0.5))
    fleet.ask(4.0)
    assert fleet.dispatch() == [(0, "h0")]
    fleet.ask(4.0, wide=True)
    assert fleet.dispatch() == [(1, "h1")]


def test_a_job_of_which_nothing_is_known_does_not_wait() -> None:
    assert _fast_and_slow(None).dispatch() == [(1, "h1")]


def test_no_host_is_idle_while_more_is_to_come() -> None:
    fleet = _fast_and_slow(4.0)
    fleet.scheduler.more_to_come = True
    assert fleet.dispatch() == [(1, "h1")]


def test_a_wait_that_was_in_vain_ends() -> None:
    """The job on the fast host takes for ever."""
    fleet = _fast_and_slow(4.0)
    fleet.ask(4.0)
    assert fleet.dispatch() == []
    look = fleet.scheduler.next_look_s
    assert look is not None and 0.0 < look < 8.0
    fleet.now = look
    assert len(fleet.dispatch()) == 1
    # The second one has learned from the first.
    fleet.scheduler.use(fleet.hosts[1].machine, -1)
    assert len(fleet.dispatch()) == 1


# -- the start, hosts that come and go -------------------------------------------------------------


def test_the_first_host_does_not_get_all_of_the_first_jobs() -> None:
    fleet = Fleet(Machine(4))
    fleet.scheduler.others_may_come = True
    for _ in range(3):
        fleet.ask()
    assert fleet.dispatch() == [(0, "h0")]
    assert fleet.scheduler.next_look_s == placement.SPREAD_S
    fleet.now = 0.1
    fleet.scheduler.join(HostState("h1", Machine(4), 1, groups=TREE), fleet.now)
    assert fleet.dispatch() == [(1, "h1")]
    fleet.now = placement.SPREAD_S
    assert fleet.dispatch() == [(2, "h0")]
    assert fleet.scheduler.next_look_s is None


def test_without_hosts_there_is_hope_or_none() -> None:
    fleet = Fleet()
    fleet.scheduler.others_may_come = True
    job = fleet.ask()
    assert fleet.dispatch() == []
    assert job.waited_for == placement.FULL
    fleet.scheduler.others_may_come = False
    assert fleet.dispatch() == [(0, None)]


def test_a_drained_host_gets_no_more_and_can_return() -> None:
    fleet = Fleet(Machine(2))
    job = fleet.ask()
    fleet.dispatch()
    fleet.scheduler.leave(fleet.hosts[0])
    fleet.scheduler.others_may_come = True
    fleet.ask()
    assert fleet.dispatch() == []
    fleet.run(job, 1.0)
    assert fleet.dispatch() == []
    fleet.scheduler.join(fleet.hosts[0], fleet.now)
    assert fleet.dispatch() == [(1, "h0")]


def test_a_host_that_returns_is_not_taken_for_its_former_self() -> None:
    """What was noted of the former one lies in heaps still, and is equal in all that they go by."""
    machine = Machine(2)
    fleet = Fleet(machine)
    fleet.ask()
    fleet.dispatch()
    fleet.scheduler.leave(fleet.hosts[0])
    machine.used = 0
    for _ in range(3):
        fleet.scheduler.join(HostState("h0", machine, 0, groups=TREE), fleet.now)
    fleet.ask()
    assert fleet.dispatch() == [(1, "h0")]


def test_a_host_that_was_lost_returns_as_another_object() -> None:
    machine = Machine(1)
    fleet = Fleet(machine)
    job = fleet.ask()
    fleet.dispatch()
    fleet.scheduler.leave(fleet.hosts[0])
    fleet.scheduler.join(HostState("h0", machine, 0, groups=TREE), fleet.now)
    fleet.ask()
    assert fleet.dispatch() == []
    fleet.scheduler.ended(job, fleet.now)
    assert fleet.dispatch() == [(1, "h0")]
    assert fleet.hosts[0].jobs == 0


# -- jobs that need several slots ------------------------------------------------------------------


def test_smaller_jobs_pass_by_for_a_while_only() -> None:
    fleet = Fleet(Machine(2, cpus=2), Machine(4, used=3))
    fleet.scheduler.leave(fleet.hosts[1])
    running = [fleet.ask(), fleet.ask()]
    fleet.dispatch()
    large = fleet.ask(weight=2)
    fleet.now = 1.0
    fleet.ask()
    fleet.scheduler.ended(running[0], fleet.now)
    assert fleet.dispatch() == [(3, "h0")]
    fleet.now = placement.PASSED_BY_S + 0.1
    fleet.dispatch()
    assert fleet.scheduler.kept == [fleet.hosts[0].machine]
    fleet.scheduler.ended(running[1], fleet.now)
    fleet.ask()
    assert not fleet.scheduler.may_offer(fleet.hosts[0].machine)
    assert fleet.dispatch() == []
    # Other machines are not kept.
    fleet.scheduler.join(fleet.hosts[1], fleet.now)
    fleet.scheduler.ended(fleet.jobs[3], fleet.now)
    assert fleet.dispatch() == [(2, "h0"), (4, "h1")]
    assert large.taken == 2
    assert not fleet.scheduler.kept


def test_room_is_kept_no_longer_than_it_is_wanted() -> None:
    for end in ("withdraw", "leave"):
        fleet = Fleet(Machine(2, cpus=2))
        running = [fleet.ask(), fleet.ask()]
        fleet.dispatch()
        large = fleet.ask(weight=2)
        fleet.now = 3.0
        fleet.dispatch()
        assert fleet.scheduler.kept
        if end == "withdraw":
            fleet.scheduler.withdraw(large)
        else:
            fleet.scheduler.leave(fleet.hosts[0])
        assert not fleet.scheduler.kept
        assert fleet.hosts[0].machine.kept_for is None
        assert running[0].host is not None


def test_a_job_that_wants_more_than_any_machine_has_gets_one_whole() -> None:
    fleet = Fleet(Machine(2), Machine(4))
    fleet.scheduler.use(fleet.hosts[1].machine, 1)
    job = fleet.ask(weight=1 << 16)
    assert fleet.dispatch() == [(0, "h0")]
    assert job.taken == 2


# -- jobs asked from hosts -------------------------------------------------------------------------


def _nested(
    expected_s: float | None, used: int, *machines: Machine, excluded: Sequence[str] = ()
) -> tuple[Verdict, Fleet]:
    fleet = Fleet(Machine(2, cpus=2), *machines)
    fleet.scheduler.use(fleet.hosts[0].machine, used)
    job = JobState(0, 0.0, group="tree", expected_s=expected_s, wide=False)
    return fleet.scheduler.stay_or_go(job, fleet.hosts[0], 0.0, excluded), fleet


@pytest.mark.parametrize(
    ("expected_s", "used", "speed", "goes", "reason"),
    [
        (0.005, 2, 9.0, False, placement.TINY),
        (0.05, 1, 9.0, False, placement.TINY),
        (0.05, 2, 9.0, True, placement.FULL_HERE),
        (5.0, 1, 1.0, False, placement.ROOM_HERE),
        (5.0, 1, 2.0, True, placement.SOONER_THERE),
        (5.0, 1, 1.05, False, placement.ROOM_HERE),
        (None, 1, 9.0, False, placement.ROOM_HERE),
        (5.0, 2, 1.0, True, placement.FULL_HERE),
        (None, 2, 1.0, True, placement.FULL_HERE),
        (5.0, 2, 0.2, False, placement.SOONER_HERE),
    ],
)
def test_stay_or_go(expected_s: float | None, used: int, speed: float, goes: bool, reason: str) -> None:
    verdict, fleet = _nested(expected_s, used, Machine(2, cpus=2, speed=speed))
    assert (verdict.host is not None, verdict.reason) == (goes, reason)
    assert fleet.hosts[1].machine.used == (1 if goes else 0)
    assert fleet.hosts[0].machine.used == used


@pytest.mark.parametrize(
    ("expected_s", "reason"),
    [(None, placement.NOT_WANTED), (0.3, placement.NOT_WANTED), (5.0, placement.SOONER_THERE)],
)
def test_a_slot_that_nobody_wants_is_not_left_for_nothing(expected_s: float | None, reason: str) -> None:
    fleet = Fleet(Machine(2, cpus=2), Machine(2, cpus=2, speed=1.3))
    fleet.scheduler.use(fleet.hosts[0].machine, 2)
    job = JobState(0, 0.0, group="tree", expected_s=expected_s, wide=False)
    verdict = fleet.scheduler.stay_or_go(job, fleet.hosts[0], 0.0, slot_wanted=False)
    assert verdict.reason == reason
    assert (verdict.host is not None) == (reason == placement.SOONER_THERE)


@pytest.mark.parametrize(("used", "kept"), [(0, True), (2, True), (3, False)])
def test_a_job_of_its_own_where_it_stays(used: int, kept: bool) -> None:
    """But not on a machine in debt: it would have to wait for a slot."""
    fleet = Fleet(Machine(2, cpus=2))
    fleet.scheduler.use(fleet.hosts[0].machine, used)
    job = JobState(0, 0.0, group="tree", expected_s=5.0)
    verdict = fleet.scheduler.stay_or_go(job, fleet.hosts[0], 0.0, apart=True)
    assert (verdict.host, verdict.reason) == (fleet.hosts[0] if kept else None, placement.NO_ROOM)
    assert fleet.hosts[0].machine.used == used + kept


def test_a_short_job_is_never_one_of_its_own() -> None:
    fleet = Fleet(Machine(2, cpus=2), Machine(2))
    job = JobState(0, 0.0, group="tree", expected_s=0.05)
    assert fleet.scheduler.stay_or_go(job, fleet.hosts[0], 0.0, apart=True).host is None


def test_what_is_known_of_short_jobs_can_turn_out_to_be_wrong() -> None:
    scheduler, machine = Scheduler(), Machine(2)
    assert scheduler.better_here(JobState(0, 0.0, expected_s=0.001), machine, False)
    scheduler.believes_short = False
    assert not scheduler.better_here(JobState(1, 0.0, expected_s=0.001), machine, False)


@pytest.mark.parametrize(
    ("expected_s", "used", "wanted", "better"),
    [
        (None, 0, False, False),
        (0.2, 0, False, False),
        (0.05, 0, True, True),
        (0.05, 2, True, False),
        (0.05, 2, False, True),
        (0.005, 2, True, True),
    ],
)
def test_a_short_job_of_the_builds_own_make_runs_here(
    expected_s: float | None, used: int, wanted: bool, better: bool
) -> None:
    job = JobState(0, 0.0, expected_s=expected_s)
    assert Scheduler().better_here(job, Machine(2, used=used), wanted) == better


def test_a_run_that_found_all_made_says_nothing_of_its_host() -> None:
    fleet = Fleet(Machine(1))
    machine = fleet.hosts[0].machine
    for ran_s, faster in ((0.02, False), (1.0, True)):
        job = JobState(0, 0.0, group="tree", expected_s=2.0, wide=False)
        fleet.scheduler.ask(job)
        fleet.scheduler.dispatch(0.0)
        assert job.host is fleet.hosts[0]
        fleet.scheduler.ended(job, ran_s, ran_s)
        assert (machine.speed > 1.0) == faster


def test_a_nested_job_stays_where_all_others_are_full_or_excluded() -> None:
    for machine, excluded in ((Machine(1, used=1), []), (Machine(1), ["h1"])):
        verdict, _ = _nested(5.0, 2, machine, excluded=excluded)
        assert (verdict.host, verdict.reason) == (None, placement.NO_ROOM)


def test_a_nested_job_does_not_go_to_another_name_of_its_machine() -> None:
    machine = Machine(4, cpus=4)
    fleet = Fleet(machine, machine)
    fleet.scheduler.use(machine, 3)
    verdict = fleet.scheduler.stay_or_go(JobState(0, 0.0, group="tree"), fleet.hosts[0], 0.0)
    assert (verdict.host, verdict.reason, verdict.candidates) == (None, placement.NO_ROOM, ())


# -- credit and debt -------------------------------------------------------------------------------


def test_nothing_is_given_in_debt() -> None:
    fleet = Fleet(Machine(2, cpus=2))
    machine = fleet.hosts[0].machine
    first, _ = fleet.ask(), fleet.ask()
    fleet.dispatch()
    fleet.scheduler.use(machine, -1)  # a recipe waits for a job elsewhere
    fleet.ask()
    assert len(fleet.dispatch()) == 1
    fleet.scheduler.use(machine, 1)  # that job has ended
    assert machine.free == -1
    fleet.ask()
    assert fleet.dispatch() == []
    assert not fleet.scheduler.may_offer(machine)
    fleet.scheduler.ended(first, 0.0)
    assert fleet.dispatch() == []
    fleet.scheduler.use(machine, -1)
    assert len(fleet.dispatch()) == 1


# -- speeds ----------------------------------------------------------------------------------------


def test_speed_is_learned_from_known_jobs() -> None:
    fleet = Fleet(Machine(1), Machine(1))
    fleet.scheduler.more_to_come = True
    for _ in range(30):
        jobs = [fleet.ask(1.0), fleet.ask(1.0)]
        placed = dict(fleet.dispatch())
        for job in jobs:
            seconds = {"h0": 0.5, "h1": 2.0}[placed[job.number] or ""]
            fleet.scheduler.ended(job, fleet.now, seconds)
    assert fleet.hosts[0].machine.speed == pytest.approx(2.0, rel=0.2)
    assert fleet.hosts[1].machine.speed == pytest.approx(0.5, rel=0.2)


def test_the_end_says_what_the_job_would_take_elsewhere() -> None:
    fleet = Fleet(Machine(1, speed=2.0, sureness=1e9))
    job = fleet.ask(3.0)
    fleet.dispatch()
    assert fleet.scheduler.ended(job, 1.5, 1.5) == pytest.approx(3.0)
    assert fleet.scheduler.ended(job, 1.5, 1.5) is None  # it ends once


# -- whatever happens ------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Machines with one to three names each, some with a hard limit, all methods."""
    fleet = Fleet(method=draw(st.sampled_from([COST, D1MAKE, ROUND_ROBIN])))
    machines = st.builds(
        Machine,
        slots=st.integers(1, 5),
        cpus=st.integers(1, 8),
        others_cpus=st.floats(0, 20),
        speed=st.sampled_from([0.25, 1.0, 1.0, 3.0]),
    )
    for machine in draw(st.lists(machines, min_size=1, max_size=4)):
        for _ in range(draw(st.integers(1, 3))):
            host = HostState(
                f"h{len(fleet.hosts)}",
                machine,
                len(fleet.hosts),
                max_jobs=draw(st.none() | st.integers(1, 3)),
                groups=draw(st.sampled_from([TREE, TREE, frozenset(["tree", "lib"]), frozenset(["lib"])])),
            )
            fleet.hosts.append(host)
            fleet.scheduler.join(host, 0.0)
    return fleet


STEP = st.tuples(
    st.sampled_from(
        [
            *("ask", "ask", "ask", "end", "end", "refuse", "withdraw", "leave", "join", "load", "wait"),
            *("token", "back", "credit", "debit", "nested"),
        ]
    ),
    st.integers(0, 7),
    st.sampled_from([None, 0.01, 0.5, 3.0, 60.0]),
)


@given(fleet=fleets(), steps=st.lists(STEP, min_size=25, max_size=60))
def test_accounts_are_right_whatever_happens(
    fleet: Fleet, steps: list[tuple[str, int, float | None]]
) -> None:
    """Never beyond slots and credits, nor hard limits; no job is lost or placed twice."""
    scheduler = fleet.scheduler
    running: list[JobState] = []
    over: set[int] = set()
    tokens = {host.machine: 0 for host in fleet.hosts}
    credits = {host.machine: 0 for host in fleet.hosts}
    for what, number, seconds in steps:
        host = fleet.hosts[number % len(fleet.hosts)]
        job = running[number % len(running)] if running else None
        if what == "ask":
            fleet.ask(seconds, weight=number % 4 + 1, group="lib" if number == 7 else "tree")
        elif what == "end" and job is not None:
            running.remove(job)
            over.add(job.number)
            scheduler.ended(job, fleet.now, seconds)
        elif what == "refuse" and job is not None:
            running.remove(job)
            _refused(scheduler, job, fleet.now)
        elif what == "withdraw":
            waiting = sorted(scheduler.waiting_jobs(), key=lambda job: job.number)
            if waiting:
                over.add(waiting[number % len(waiting)].number)
                scheduler.withdraw(waiting[number % len(waiting)])
        elif what == "leave":
            scheduler.leave(host)
        elif what == "join":
            scheduler.join(host, fleet.now)
        elif what == "load":
            scheduler.loaded(host.machine, float(number), number << 28)
        elif what == "token" and scheduler.may_offer(host.machine):
            tokens[host.machine] += 1
            scheduler.use(host.machine, 1)
        elif what == "back" and tokens[host.machine]:
            tokens[host.machine] -= 1
            scheduler.use(host.machine, -1)
        elif what == "credit" and credits[host.machine] < host.machine.used:
            credits[host.machine] += 1
            scheduler.use(host.machine, -1)
        elif what == "debit" and credits[host.machine]:
            credits[host.machine] -= 1
            scheduler.use(host.machine, 1)
        elif what == "wait":
            fleet.now += number
        elif what == "nested":
            job = JobState(1000 + len(fleet.jobs), fleet.now, group="tree", expected_s=seconds)
            fleet.jobs.append(job)
            apart = number % 2 == 0
            may_stay_apart = apart and host.machine.free >= 0 and host.takes_more
            verdict = scheduler.stay_or_go(job, host, fleet.now, apart=apart)
            if verdict.host is not None:
                assert verdict.host.machine is not host.machine or may_stay_apart
                running.append(job)
            else:
                over.add(job.number)
        free_before = {machine: machine.free for machine in tokens}
        for verdict in scheduler.dispatch(fleet.now):
            job = verdict.job
            assert job not in running and job.number not in over and job.line is None
            if verdict.host is None:
                assert verdict.reason == placement.NEVER
                over.add(job.number)
                continue
            assert verdict.host.up and job.group in verdict.host.groups
            assert verdict.host.name not in job.refused
            assert (
                job.taken == weight_on(verdict.host.machine, job.weight) <= free_before[verdict.host.machine]
            )
            free_before[verdict.host.machine] -= job.taken
            running.append(job)
        for machine in tokens:
            taken = sum(job.taken for job in running if job.host and job.host.machine is machine)
            assert machine.used == taken + tokens[machine] - credits[machine]
            assert taken + tokens[machine] <= machine.slots + credits[machine] or machine.free < 0
        room = {
            machine: machine.free if any(map(scheduler.has_room, machine.names)) else 0 for machine in tokens
        }
        for machine in tokens:
            assert scheduler.room_beside(machine) == sum(room.values()) - room[machine]
        for host in fleet.hosts:
            assert host.jobs == sum(job.host is host for job in running)
            assert host.max_jobs is None or host.jobs <= host.max_jobs
        waiting = list(scheduler.waiting_jobs())
        assert len(waiting) == scheduler.waiting == len({job.number for job in waiting})
        assert len(fleet.jobs) == len(waiting) + len(running) + len(over)


@given(
    speeds=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=6),
    asked=st.lists(st.sampled_from([None, 0.1, 1.0, 10.0]), max_size=20),
    data=st.data(),
)
def test_equal_input_gives_equal_output_in_any_order(
    speeds: list[float], asked: list[float | None], data: st.DataObject
) -> None:
    """Hosts may join in any order, and jobs be asked in any order at one moment."""

    def placed(hosts: Sequence[int], jobs: Sequence[int]) -> list[tuple[int, str | None]]:
        scheduler = Scheduler()
        for order in hosts:
            machine = Machine(2, cpus=2, speed=speeds[order])
            scheduler.join(HostState(f"h{order}", machine, order, groups=TREE), 0.0)
        for number in jobs:
            scheduler.ask(JobState(number, 0.0, group="tree", expected_s=asked[number], wide=False))
        return [(v.job.number, v.host.name if v.host else None) for v in scheduler.dispatch(0.0)]

    hosts = data.draw(st.permutations(range(len(speeds))))
    jobs = data.draw(st.permutations(range(len(asked))))
    assert placed(hosts, jobs) == placed(range(len(speeds)), range(len(asked)))


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([None, 0.01, 0.5, 3.0, 60.0]), st.integers(1, 4)), min_size=1, max_size=30
    ),
    speeds=st.lists(st.sampled_from([0.2, 1.0, 5.0]), min_size=1, max_size=4),
    factor=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_all_jobs_end_however_wrong_the_estimates_are(
    steps: list[tuple[float | None, int]], speeds: list[float], factor: float
) -> None:
    """Each is asked for in its turn; who looks again when the scheduler says so gets all of them placed."""
    fleet = Fleet(*(Machine(2, cpus=2, speed=speed) for speed in speeds))
    ends: list[tuple[float, JobState]] = []
    asked = list(steps)
    for _ in range(1000):
        if asked:
            seconds, weight = asked.pop()
            fleet.ask(seconds, weight=weight)
        for verdict in fleet.scheduler.dispatch(fleet.now):
            assert verdict.host is not None
            ends.append((fleet.now + (verdict.job.expected_s or 1.0) * factor, verdict.job))
        times = [end for end, _ in ends]
        if fleet.scheduler.next_look_s is not None:
            times.append(fleet.scheduler.next_look_s)
        if not times:
            assert not fleet.scheduler.waiting, "who waits, waits for something"
            if not asked:
                break
            continue
        fleet.now = max(fleet.now, min(times))
        for end, job in [entry for entry in ends if entry[0] <= fleet.now]:
            ends.remove((end, job))
            fleet.scheduler.ended(job, fleet.now, fleet.now - job.placed_at)
    assert not ends and not asked and not fleet.scheduler.waiting
