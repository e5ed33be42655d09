"""Machines and their names: what they bear, and what a job would cost on each. Pure.

Three ways to put hosts in order stand side by side: ours, d1make's, and taking turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

SLOWEST, FASTEST = 0.1, 10.0
"""Speeds that are believed; what was measured beyond is a fault of the measurement, not of the machine."""

CLASS_WIDTH = 1.05
"""Costs within 5 % of each other are equal: speeds and loads are not known better than that."""

USUAL_MEMORY_BYTES = 256 << 20
"""What a job of which nothing is known needs (a guess: one C++ compiler)."""

SHORT_OF_MEMORY = 4.0
"""How much longer a job takes where memory does not suffice (a guess: to swap is worse than to wait)."""

_SPEED_MEMORY = 40.0
"""Observations after which old ones fade: a machine that was slow for a while recovers."""

_OUTLIER = math.log(3)
"""An observation that is farther off counts as this far off."""


@dataclass(eq=False, slots=True)
class Machine:
    """One real machine, whatever names it has in the inventory.

    Invariant: used = weights of the jobs there + further tokens that their makes have - credits, over all its
    names. There can be debt: credits are taken back when jobs elsewhere end; then used exceeds slots for a
    while.
    """

    slots: int
    used: int = 0
    others_cpus: float = 0.0
    """CPUs that others use there (1.0 = one CPU busy)."""
    cpus: int = 1
    speed: float = 1.0
    """How much faster than the fleet's mean it runs a job when nobody disturbs."""
    sureness: float = 1.0
    """What the speed stands on: a number of observations."""
    available_bytes: int | None = None
    """Memory that was free when the host last spoke of it; None: it has not said."""
    pledged_bytes: int = 0
    """Memory for jobs given since then, which that figure cannot know."""
    load_1min: float = 0.0
    """The kernel's load average, for d1make's formula."""
    started: int = 0
    """Jobs given since the host last spoke of its load, for d1make's formula."""
    names: list[HostState] = field(default_factory=list)
    kept_for: object = None
    """The job that waits for several slots here; meanwhile nobody else is given any."""

    @property
    def free(self) -> int:
        return self.slots - self.used

    @property
    def usable(self) -> float:
        """Jobs' worth of CPUs that our jobs get when all slots are used, times speed."""
        return self.slots / self.full_pace

    @property
    def full_pace(self) -> float:
        """Seconds that a second's worth of work takes when all slots are used."""
        return self._contention(self.slots) / self.speed

    def pace_now(self, more: int) -> float:
        """Seconds that a second's worth of work takes while `more` slots are used beyond those used now."""
        return self._contention(self.used + more) / self.speed

    def pace(self, more: int, wide: bool) -> float:
        """Seconds that a second's worth of work is going to take here.

        Args:
            more: slots used beyond those used now.
            wide: the job can use more slots than its own: then what counts is how much of the machine is left
                to it, and 0.25 means that it would have four slots. Else the machine is taken to fill up.
        """
        pace = self.crowd(more) / self.speed if wide else self.full_pace
        return pace * SHORT_OF_MEMORY if self.short_of(USUAL_MEMORY_BYTES) else pace

    def crowd(self, more: int) -> float:
        """Work for each CPU; 1.0 is a machine that is just full. Others' load counts like ours."""
        return (max(self.used, 0) + more) / max(self.slots, 1) + self.others_cpus / max(self.cpus, 1)

    def _contention(self, used: int) -> float:
        """How many jobs share a CPU, others' counted; at least 1: a second CPU helps no single recipe."""
        return max(1.0, (max(used, 0) + self.others_cpus) / max(self.cpus, 1))

    def short_of(self, need_bytes: int) -> bool:
        """Would a job that needs this much find too little memory?"""
        return self.available_bytes is not None and self.available_bytes - self.pledged_bytes < need_bytes

    def learn(self, ratio: float, trust: float) -> None:
        """Correct the speed by what a job showed.

        Args:
            ratio: how long it was expected to take here at speed 1, over how long it took.
            trust: weight of the observation; 1 for an expectation from history.
        """
        now = math.log(self.speed)
        off = min(max(math.log(ratio) - now, -_OUTLIER), _OUTLIER)
        self.sureness = min(self.sureness + trust, _SPEED_MEMORY)
        self.speed = min(max(math.exp(now + off * trust / self.sureness), SLOWEST), FASTEST)


@dataclass(eq=False, slots=True)
class HostState:
    """A host that could take jobs: one name of a machine."""

    name: str
    machine: Machine
    order: int
    """Its place in the inventory: settles ties, so that equal input gives equal output."""
    max_jobs: int | None = None
    jobs: int = 0
    """Jobs of ours there."""
    given: int = 0
    """Jobs given to it so far: spreads jobs over names that are equal in all else."""
    up: bool = True
    """False while it connects, drains, or is lost."""
    groups: frozenset[Hashable] = frozenset()
    """Kinds of jobs that it may take: the trees that it sees."""
    turn: int = 0
    """When it was given its last job, counted in jobs of the build."""
    version: int = 0
    """Counts changes, so that what was noted before one is known to be old."""

    @property
    def takes_more(self) -> bool:
        """May it be given a job at all, were there slots?"""
        return self.up and (self.max_jobs is None or self.jobs < self.max_jobs)


Key = tuple[float, ...]
"""Orders hosts: the least is the best. Its first number is all that matters; the others settle ties."""


def cost_class(cost: float) -> int:
    """The class of costs that count as equal to this one."""
    return round(math.log(cost) / _LOG_WIDTH)


_LOG_WIDTH = math.log(CLASS_WIDTH)


def by_cost(host: HostState, wide: bool) -> Key:
    """Where the job would end first; among equals the emptier, then the one that was given fewer."""
    machine = host.machine
    fewest = (host.jobs, host.given, host.order)
    return (cost_class(machine.pace(1, wide)), machine.crowd(1), *fewest)


def by_d1make(host: HostState, wide: bool) -> Key:
    """d1make's formula: jobs there, load averages, and four for each job started since they were measured.

    d1make adds the averages over 1, 5 and 15 minutes; hosts report the first, which stands for all three.
    """
    machine = host.machine
    return (host.jobs + 3 * machine.load_1min + 4 * machine.started, host.order)


def by_turns(host: HostState, wide: bool) -> Key:
    """Round robin."""
    return (host.turn, host.order)


@dataclass(frozen=True)
class Method:
    """A way to place jobs."""

    name: str
    key: Callable[[HostState, bool], Key]
    foresees: bool
    """Goes by expected run times: the longest first, and rather later on a fast host than on a slow one."""


COST = Method("cost", by_cost, True)
D1MAKE = Method("d1make", by_d1make, False)
ROUND_ROBIN = Method("round-robin", by_turns, False)
METHODS = {method.name: method for method in (COST, D1MAKE, ROUND_ROBIN)}
