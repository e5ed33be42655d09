"""Tokens for makes on hosts: where there are slots, where nobody waits; and probes."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from d1fleet import protocol
from d1fleet.job import Phase
from d1fleet.jobserver import TokenPool
from d1fleet.placement import HostState, JobState, Machine, Scheduler
from d1fleet.tokendesk import PROBE_S, UNPROVEN_S, TokenDesk

TREE = frozenset(["tree"])


class _Job(SimpleNamespace):
    """As much of a job as the desk looks at."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


class Fleet:
    """A desk, and jobs that it serves; time stands still until it is moved."""

    def __init__(self, *slots: int, tokens: int = 8) -> None:
        self.time = 0.0
        self.due: list[tuple[float, Any]] = []
        self.placing = Scheduler()
        self.pool = TokenPool(tokens)
        self.idle = 0
        loop: Any = SimpleNamespace(
            now=lambda: self.time, call_at=lambda at, call: self.due.append((at, call))
        )
        self.placing.room_beside = lambda machine: self.idle  # type: ignore[method-assign]
        self.desk = TokenDesk(loop, self.placing)
        self.hosts = [
            HostState(f"h{order}", Machine(count, cpus=count), order, groups=TREE)
            for order, count in enumerate(slots)
        ]
        for host in self.hosts:
            self.placing.join(host, 0.0)
        self.said: list[protocol.Message] = []

    def job(self, host: int = 0, depth: int = 0, *, unproven: bool = False) -> Any:
        """A job that runs on a host, and has called a sub-make, or not yet."""
        state = JobState(len(self.said) + 1, self.time, group="tree", taken=1)
        self.placing.use(self.hosts[host].machine, 1)
        return _Job(
            link=SimpleNamespace(placement=self.hosts[host]),
            token_source=self.pool,
            tokens_from=None,
            wants=False,
            phase=Phase.RUNNING,
            attempt=2,
            depth=depth,
            state=state,
            tokens=0,
            credit=0,
            recalls=0,
            probe_pause_s=None if unproven else 0.0,
            probe_at=0.0,
            send=self.said.append,
        )

    @property
    def offers(self) -> list[bool]:
        """Which of the tokens that were offered were probes."""
        return [each.probe for each in self.said if isinstance(each, protocol.Offer)]

    def passes(self, seconds: float) -> None:
        self.time += seconds
        due, self.due = self.due, []
        for at, call in due:
            if at <= self.time:
                call()
            else:
                self.due.append((at, call))


def test_a_token_where_there_is_a_slot() -> None:
    fleet = Fleet(2)
    job = fleet.job()
    fleet.desk.want(job)
    assert fleet.offers == [False]
    assert (job.tokens, fleet.hosts[0].machine.used) == (1, 2)


def test_jobs_that_wait_for_a_host_come_first() -> None:
    fleet = Fleet(2)
    job = fleet.job()
    waiting = JobState(9, 0.0, group="other")
    fleet.placing.ask(waiting)
    fleet.desk.want(job)
    assert fleet.offers == [] and fleet.desk.wants_on(fleet.hosts[0].machine)
    fleet.placing.withdraw(waiting)
    fleet.desk.serve()
    assert fleet.offers == [False] and not fleet.desk.wants_on(fleet.hosts[0].machine)


def test_a_make_waits_for_a_token_in_line() -> None:
    fleet = Fleet(4, tokens=1)
    first, second = fleet.job(), fleet.job()
    fleet.desk.want(first)
    fleet.desk.want(second)
    assert (first.tokens, second.tokens) == (1, 0)
    fleet.desk.returned(first, 1)
    assert (first.tokens, second.tokens) == (0, 1)


def test_no_more_comes_back_than_it_has() -> None:
    fleet = Fleet(4, tokens=2)
    job = fleet.job()
    fleet.desk.want(job)
    fleet.desk.returned(job, 5)
    assert (job.tokens, fleet.hosts[0].machine.used) == (0, 1)
    assert [fleet.pool.take() for _ in range(3)] == [True, True, False]


def test_tokens_come_back_when_the_job_above_has_ended_before() -> None:
    """Its make was killed, and its job is over; the one that it had called runs on for a moment."""
    fleet = Fleet(4, tokens=1)
    job = fleet.job()
    fleet.desk.want(job)
    job.token_source = None
    fleet.desk.ended(job)
    assert fleet.pool.take()


@pytest.mark.parametrize("said", [0, 1, 2, 99])
def test_credit_is_never_more_than_it_holds(said: int) -> None:
    fleet = Fleet(4)
    job = fleet.job()
    fleet.desk.want(job)
    machine = fleet.hosts[0].machine
    fleet.desk.credited(job, said)
    assert job.credit == min(said, 2)
    assert machine.used == 2 - job.credit
    fleet.desk.returned(job, 1)
    assert job.credit == min(said, 1)
    assert machine.used == 1 - job.credit
    fleet.desk.ended(job)
    assert machine.used == 1  # its own slot is the scheduler's to give back


def test_nothing_is_offered_in_debt() -> None:
    fleet = Fleet(1)
    job, other = fleet.job(), fleet.job()
    fleet.idle = 1
    fleet.desk.want(job)
    fleet.passes(10 * PROBE_S)
    assert fleet.offers == []
    fleet.desk.credited(other, 1)
    fleet.desk.serve()
    fleet.passes(PROBE_S)
    assert fleet.offers == [True]


# -- probes ------------------------------------------------------------------------------------------


def test_no_probe_where_no_other_machine_is_idle() -> None:
    fleet = Fleet(1)
    fleet.desk.want(fleet.job())
    fleet.passes(10 * PROBE_S)
    fleet.desk.serve()
    assert fleet.offers == []


def test_never_two_probes_on_a_machine() -> None:
    fleet = Fleet(2)
    jobs = [fleet.job(), fleet.job()]
    fleet.idle = 1
    for job in jobs:
        fleet.desk.want(job)
    assert fleet.offers == []
    for _ in range(10):
        fleet.passes(PROBE_S)
        fleet.desk.serve()
    assert fleet.offers == [True]
    assert fleet.hosts[0].machine.used == 3


def test_each_machine_may_have_one() -> None:
    fleet = Fleet(1, 1)
    fleet.idle = 2
    for host in (0, 1):
        fleet.desk.want(fleet.job(host))
    fleet.passes(PROBE_S)
    assert fleet.offers == [True, True]


def test_no_more_probes_than_others_have_room() -> None:
    fleet = Fleet(1, 1, 1)
    fleet.idle = 1
    jobs = [fleet.job(host) for host in range(3)]
    for job in jobs:
        fleet.desk.want(job)
    fleet.passes(PROBE_S)
    assert fleet.offers == [True]
    fleet.desk.went(fleet.hosts[0].machine)  # it has led to a sub-make; that one's host counts as full now
    fleet.desk.serve()
    assert fleet.offers == [True, True]
    fleet.passes(PROBE_S)  # the second one has led nowhere
    fleet.desk.serve()
    assert sum(job.tokens for job in jobs) == 3


@pytest.mark.parametrize("tokens", [0, 1])
def test_the_make_nearest_to_the_root_comes_first(tokens: int) -> None:
    """In the line for a slot, and in the line for a token."""
    fleet = Fleet(2, tokens=tokens)
    fleet.hosts[0].machine.used = 2
    jobs = [fleet.job(depth=depth) for depth in (2, 0, 1)]
    fleet.hosts[0].machine.used = 2 if tokens else 1
    for job in jobs:
        fleet.desk.want(job)
    assert fleet.offers == []
    if tokens:
        fleet.placing.use(fleet.hosts[0].machine, -1)
        fleet.desk.serve()
    else:
        fleet.pool.give(1)
    assert [job.tokens for job in jobs] == [0, 1, 0]


def test_after_a_probe_that_was_a_plain_recipe_it_takes_a_while() -> None:
    fleet = Fleet(1)
    job = fleet.job()
    fleet.idle = 1
    fleet.desk.want(job)
    fleet.passes(PROBE_S)
    fleet.desk.returned(job, 1)
    fleet.desk.want(job)
    assert fleet.offers == [True]
    fleet.passes(0.9 * PROBE_S)
    assert fleet.offers == [True]
    fleet.passes(0.2 * PROBE_S)
    assert fleet.offers == [True, True]


def test_after_a_probe_that_went_elsewhere_the_next_follows() -> None:
    fleet = Fleet(1)
    job = fleet.job()
    fleet.idle = 1
    fleet.desk.want(job)
    fleet.passes(PROBE_S)
    for probes in (2, 3, 4):
        fleet.desk.went(fleet.hosts[0].machine)
        fleet.desk.credited(job, job.credit + 1)
        fleet.desk.want(job)
        assert fleet.offers == probes * [True]


def test_a_make_that_has_called_nothing_waits_longer_each_time() -> None:
    fleet = Fleet(1)
    job = fleet.job(unproven=True)
    fleet.idle = 1
    given: list[float] = []
    fleet.desk.want(job)
    for _ in range(400):
        fleet.passes(PROBE_S / 5)
        if len(fleet.offers) > len(given):
            given.append(fleet.time)
            fleet.desk.returned(job, 1)
            fleet.desk.want(job)
    waits = [later - earlier for earlier, later in pairwise([0.0, *given])]
    assert waits == [pytest.approx(UNPROVEN_S * 2**number, abs=2 * PROBE_S) for number in range(len(waits))]
    assert len(waits) == 4
    fleet.desk.called(job)
    fleet.passes(PROBE_S)
    fleet.desk.serve()
    assert len(fleet.offers) == 5


def test_one_that_calls_sub_makes_is_not_kept_waiting_by_one_that_does_not() -> None:
    fleet = Fleet(1, 1)
    fleet.idle = 1
    leaf, wide = fleet.job(0, unproven=True), fleet.job(1)
    fleet.desk.want(leaf)
    fleet.passes(PROBE_S)
    assert fleet.offers == []
    fleet.desk.want(wide)
    fleet.passes(PROBE_S)
    assert (leaf.tokens, wide.tokens) == (0, 1)


def test_no_probe_where_room_is_kept_for_a_job() -> None:
    fleet = Fleet(1)
    fleet.idle = 1
    fleet.hosts[0].machine.kept_for = object()
    fleet.desk.want(fleet.job())
    fleet.passes(2 * PROBE_S)
    assert fleet.offers == []


# -- recalls -----------------------------------------------------------------------------------------


def test_as_many_are_asked_back_as_jobs_wait() -> None:
    fleet = Fleet(8)
    jobs = [fleet.job(), fleet.job()]
    for job, count in zip(jobs, (3, 1), strict=True):
        for _ in range(count):
            fleet.desk.want(job)
    for number in range(2):
        fleet.placing.ask(JobState(90 + number, 0.0, group="other"))
    for _ in range(3):
        fleet.desk.recall_for_waiting(jobs)
    assert sum(isinstance(each, protocol.Recall) for each in fleet.said) == 2
    assert sum(job.recalls for job in jobs) == 2
    assert jobs[0].recalls >= 1


def test_however_often_it_is_looked_one_timer_waits_for_the_next_probe() -> None:
    fleet = Fleet(1)
    fleet.idle = 1
    for _ in range(3):
        fleet.desk.want(fleet.job())
        fleet.hosts[0].machine.used = 1
    for _ in range(50):
        fleet.desk.serve()
    assert len(fleet.due) == 1
    fleet.passes(PROBE_S)
    assert fleet.offers == [True]
