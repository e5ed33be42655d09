"""Runs the scheduler of real builds on builds that do not happen. Pure: the time is made up, too.

What is simulated: jobs on a host share its CPUs fairly with each other and with what others run there; each
goes as fast as the host's speed says. What is not: the network, file servers, memory, hosts that fail, and
makes that use further slots.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .machines import COST, HostState, Machine, Method
from .placement import JobState, Scheduler
from .traces import Trace, critical_path_s, noisy

_REPORT_S = 10.0
"""d1make's servers say that often how loaded they are."""

_AVERAGE_S = 60.0
"""Over this time the kernel's first load average forgets."""


@dataclass(frozen=True)
class SimulatedHost:
    """A machine of a simulated fleet."""

    slots: int
    cpus: int
    speed: float = 1.0
    others_cpus: float = 0.0

    def rate(self, used: int) -> float:
        """How fast each of `used` recipes runs there, 1 being a host of speed 1 that is a job's own."""
        return self.speed * min(1.0, self.cpus / (used + self.others_cpus))

    @property
    def capacity(self) -> float:
        """Work per second that it can do at most."""
        return self.slots * self.rate(self.slots)


@dataclass(frozen=True)
class Knowledge:
    """What history is taken to know. None: nothing at all."""

    durations: float | None = 0.2
    """Spread of expected durations around the real ones (lognormal)."""
    speeds: float | None = 0.05
    """Spread of learned speeds around the real ones."""
    share: float = 1.0
    """Share of jobs that history knows."""


@dataclass(frozen=True)
class Outcome:
    """A simulated build."""

    makespan_s: float
    bound_s: float
    """It cannot end sooner: all hosts at work all the time, or the critical path on the fastest."""
    jobs: int
    hosts: int
    slots: int
    utilisation: float
    """Share of slots that were in use, over the whole build."""

    @property
    def ratio(self) -> float:
        return self.makespan_s / self.bound_s if self.bound_s else 1.0

    def as_json(self) -> dict[str, Any]:
        return {
            "makespan_s": round(self.makespan_s, 3),
            "bound_s": round(self.bound_s, 3),
            "ratio": round(self.ratio, 4),
            "utilisation": round(self.utilisation, 4),
            "jobs": self.jobs,
            "hosts": self.hosts,
            "slots": self.slots,
        }


def mixed_fleet(
    count: int,
    seed: int,
    spread: float = 0.4,
    loaded: float = 0.5,
    sizes: Sequence[int] = (2, 4, 4, 8, 8, 16),
) -> list[SimulatedHost]:
    """Hosts of different sizes and speeds.

    Args:
        spread: of their speeds (lognormal, cut at a third and at three times).
        loaded: share of them on which others work, with up to as many processes as there are CPUs.
        sizes: CPUs that a host may have.
    """
    draw = random.Random(f"fleet {seed}")
    hosts = []
    for _ in range(count):
        cpus = draw.choice(sizes)
        speed = min(max(draw.lognormvariate(0.0, spread), 1 / 3), 3.0) if spread else 1.0
        others = draw.uniform(0, cpus) if draw.random() < loaded else 0.0
        hosts.append(SimulatedHost(cpus, cpus, speed, others))
    return hosts


def bound_s(trace: Trace, fleet: Sequence[SimulatedHost]) -> float:
    """A time that no placement can go below."""
    capacity = sum(host.capacity for host in fleet)
    fastest = max(host.rate(1) for host in fleet)
    return max(sum(job.work_s for job in trace) / capacity, critical_path_s(trace) / max(fastest, 1.0))


def simulate(
    trace: Trace,
    fleet: Sequence[SimulatedHost],
    method: Method = COST,
    knowledge: Knowledge | None = None,
    look_ahead: int | None = None,
    seed: int = 0,
) -> Outcome:
    """Run a build.

    Args:
        knowledge: of history; None takes the usual.
        look_ahead: jobs that make asks for beyond the fleet's slots; None means all that are ready.
    """
    return _Simulation(trace, fleet, method, knowledge or Knowledge(), look_ahead, seed).run()


@dataclass(eq=False, slots=True)
class _Running:
    """A host at work. All its jobs go at one pace, so one number says how far all are."""

    what: SimulatedHost
    state: HostState
    done_s: float = 0.0
    """Work that each slot in use has done since the start."""
    at_s: float = 0.0
    """When that was so."""
    ends: list[tuple[float, int]] = field(default_factory=list)
    """(done_s at which it ends, number) of jobs."""
    plan: int = 0
    """Counts changes: an end that was foreseen before one is void."""
    average: float = 0.0
    """The kernel's load average, as of the last report."""


class _Simulation:
    def __init__(
        self,
        trace: Trace,
        fleet: Sequence[SimulatedHost],
        method: Method,
        knowledge: Knowledge,
        look_ahead: int | None,
        seed: int,
    ) -> None:
        self._trace = trace
        self._method = method
        self._scheduler = Scheduler(method, shown=1)
        self._draw = random.Random(f"simulation {seed}")
        self._knowledge = knowledge
        self._now = 0.0
        self._events: list[tuple[float, int, str, Any]] = []
        self._sequence = 0
        self._slots = sum(host.slots for host in fleet)
        self._most = math.inf if look_ahead is None else self._slots + look_ahead
        self._ready: list[int] = []
        """Jobs that make may ask for, in its order: a heap."""
        self._inside = 0
        self._left = len(trace)
        self._busy_s = 0.0
        self._jobs: dict[int, JobState] = {}
        self._missing = [len(job.after) for job in trace]
        self._next: list[list[int]] = [[] for _ in trace]
        for number, job in enumerate(trace):
            for before in job.after:
                self._next[before].append(number)
        self._fleet = [self._host(number, what) for number, what in enumerate(fleet)]
        self._look_at: float | None = None

    def _host(self, number: int, what: SimulatedHost) -> _Running:
        spread = self._knowledge.speeds
        speed = 1.0 if spread is None else noisy(what.speed, spread, self._draw)
        sureness = 1.0 if spread is None else 20.0
        machine = Machine(what.slots, cpus=what.cpus, speed=speed, sureness=sureness)
        state = HostState(f"h{number}", machine, number, groups=frozenset([None]))
        self._scheduler.join(state, 0.0)
        self._scheduler.loaded(machine, what.others_cpus, load_1min=what.others_cpus)
        return _Running(what, state, average=what.others_cpus)

    def run(self) -> Outcome:
        running = {host.state: host for host in self._fleet}
        for number, job in enumerate(self._trace):
            if not job.after:
                self._at(job.delay_s, "ready", number)
        if self._method.name == "d1make":
            self._at(_REPORT_S, "report", None)
        while self._left and self._events:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] <= self._now:
                _, _, kind, what = heapq.heappop(self._events)
                getattr(self, f"_on_{kind}")(what)
            while self._ready and self._inside < self._most:
                self._ask(heapq.heappop(self._ready))
            self._scheduler.more_to_come = bool(self._ready)
            for verdict in self._scheduler.dispatch(self._now):
                if verdict.host is not None:
                    self._start(running[verdict.host], verdict.job)
            look_at = self._scheduler.next_look_s
            if look_at is not None and look_at != self._look_at:
                self._look_at = look_at
                self._at(max(look_at, self._now), "look", None)
        assert not self._left, "jobs wait for what never comes"
        fleet = [host.what for host in self._fleet]
        used = self._busy_s / (self._slots * self._now) if self._now else 1.0
        return Outcome(
            self._now, bound_s(self._trace, fleet), len(self._trace), len(fleet), self._slots, used
        )

    def _at(self, time_s: float, kind: str, what: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time_s, self._sequence, kind, what))

    # -- events ---------------------------------------------------------------------------------------

    def _on_ready(self, number: int) -> None:
        heapq.heappush(self._ready, number)

    def _on_look(self, _: None) -> None:
        """Only time has passed."""

    def _on_report(self, _: None) -> None:
        keep = math.exp(-_REPORT_S / _AVERAGE_S)
        for host in self._fleet:
            load = host.state.machine.used + host.what.others_cpus
            host.average = keep * host.average + (1 - keep) * load
            self._scheduler.loaded(host.state.machine, host.what.others_cpus, load_1min=host.average)
        self._at(self._now + _REPORT_S, "report", None)

    def _on_end(self, what: tuple[_Running, int]) -> None:
        host, plan = what
        if host.plan != plan:
            return
        self._go_on(host)
        done_s, number = heapq.heappop(host.ends)
        host.done_s = max(host.done_s, done_s)
        job = self._jobs.pop(number)
        self._busy_s += (self._now - job.placed_at) * job.taken
        self._scheduler.ended(job, self._now, self._now - job.placed_at)
        self._foresee(host)
        self._left -= 1
        self._inside -= 1
        for following in self._next[number]:
            self._missing[following] -= 1
            if not self._missing[following]:
                self._at(self._now + self._trace[following].delay_s, "ready", following)

    # -- jobs -----------------------------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        job = self._trace[number]
        known = self._knowledge.durations is not None and self._draw.random() < self._knowledge.share
        expected = noisy(job.work_s, self._knowledge.durations or 0.0, self._draw) if known else None
        state = JobState(
            number,
            self._now,
            weight=job.weight,
            key=job.key or None,
            goal=job.goal,
            expected_s=expected,
            wide=False,
        )
        self._jobs[number] = state
        self._inside += 1
        self._scheduler.ask(state)

    def _start(self, host: _Running, job: JobState) -> None:
        self._go_on(host, before=job.taken)
        work_s = self._trace[job.number].work_s / job.taken
        heapq.heappush(host.ends, (host.done_s + work_s, job.number))
        self._foresee(host)

    def _go_on(self, host: _Running, before: int = 0) -> None:
        """Account for what the host has done until now; `before` slots were not used in that time yet."""
        used = host.state.machine.used - before
        if used > 0:
            host.done_s += (self._now - host.at_s) * host.what.rate(used)
        host.at_s = self._now

    def _foresee(self, host: _Running) -> None:
        host.plan += 1
        if host.ends:
            rate = host.what.rate(host.state.machine.used)
            wait_s = max(0.0, (host.ends[0][0] - host.done_s) / rate)
            self._at(self._now + wait_s, "end", (host, host.plan))
