"""Which host runs a job. Pure: what is known of the hosts goes in, a host and the reasons come out.

A host is asked for no more than its machine's slots, and for no more jobs than its hard limit. Among those
that have room, the one that would finish the job first is taken: the one with the least work for each CPU,
others' load counted like our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN_CANDIDATES = 4
"""How many candidates a decision keeps for `why`."""


@dataclass
class Machine:
    """One real machine, whatever names it has in the inventory.

    Invariant: used = weights of the jobs there + further tokens that their makes have, over all its names.
    """

    slots: int
    used: int = 0
    others_cpus: float = 0.0
    """CPUs that others use there (1.0 = one CPU busy)."""
    cpus: int = 1

    @property
    def free(self) -> int:
        return self.slots - self.used


@dataclass
class HostState:
    """A host that could take jobs."""

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


@dataclass(frozen=True)
class Decision:
    """Where a job goes.

    `host` None with `never` False means: none has room now. `never` means that no host ever will.
    """

    host: HostState | None
    never: bool
    candidates: tuple[tuple[str, float], ...] = field(default=())
    """The best few hosts and their costs, cheapest first."""


def weight_on(machine: Machine, weight: int) -> int:
    """Slots that a job of `weight` takes there: a -jN of its own counts as min(N, slots)."""
    return max(1, min(weight, machine.slots))


def cost(host: HostState, weight: int) -> float:
    """Work for each CPU on the host once it has this job too; 1.0 is a machine that is just full."""
    machine = host.machine
    room = max(machine.slots, 1)
    return (
        machine.used + weight_on(machine, weight) + machine.others_cpus * room / max(machine.cpus, 1)
    ) / room


def has_room(host: HostState, weight: int) -> bool:
    """Can the host take the job now?"""
    if not host.up or (host.max_jobs is not None and host.jobs >= host.max_jobs):
        return False
    return host.machine.free >= weight_on(host.machine, weight)


def choose(hosts: Iterable[HostState], weight: int = 1, last: str | None = None) -> Decision:
    """The host for a job.

    Args:
        hosts: all that the build knows, also those that cannot take work now.
        weight: slots that the job wants.
        last: name of the host that ran this job last time: it has its files in memory.
    """
    up = [host for host in hosts if host.up]
    if not up:
        return Decision(None, never=True)
    room = [host for host in up if has_room(host, weight)]
    ranked = sorted(
        ((cost(host, weight), host.name != last, host.jobs, host.given, host.order, host) for host in room),
        key=lambda entry: entry[:5],
    )
    candidates = tuple((entry[5].name, round(entry[0], 3)) for entry in ranked[:SHOWN_CANDIDATES])
    return Decision(ranked[0][5] if ranked else None, never=False, candidates=candidates)
