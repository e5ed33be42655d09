"""Gives tokens of the build's jobserver to makes on hosts, as far as their machines have slots."""

from __future__ import annotations

from collections.abc import Iterable

from . import protocol
from .job import Job, Phase
from .loop import Loop
from .placement import Machine, Scheduler

PROBE_S = 0.1
"""When a make could use a token, all slots of its machine have been taken for so long, and hosts are idle,
one more recipe is started there: it may be a sub-make. If it was one, the next follows at once. A guess.
"""

UNPROVEN_S = 0.4
"""A make that has called no sub-make yet gets its first probe so long after it could have used one, and each
further one after twice the time: most makes never call any, and a probe that starts a plain recipe keeps a
token from those that do. A guess: a few probes of others.
"""


class TokenDesk:
    """Serves the makes of all jobs on hosts.

    A make gets a token when the build's jobserver has one and its machine has a slot. Jobs that wait to
    be placed come first: a new sub-make runs a recipe by right, a token only adds one. Then come the makes
    with the fewest jobs above them: what they start next is a whole part of the tree, more often than not,
    and what of that is found late keeps everybody waiting at the end.

    Args:
        placing: knows how many jobs wait for a host, and the slots of machines.
    """

    def __init__(self, loop: Loop, placing: Scheduler) -> None:
        self._loop = loop
        self._probe_at: dict[Machine, float] = {}
        """When the next probe may be given."""
        self._looked_after: set[Machine] = set()
        """Machines for which a timer runs until then."""
        self._probes: list[float] = []
        """When probes were given that have not been seen to lead anywhere."""
        self._waited_for: set[Job] = set()
        """Jobs for which a timer runs until they may have a probe."""
        self._placing = placing
        self._wanting: dict[Machine, dict[Job, None]] = {}
        """Jobs whose makes could use a token that their machine had no slot for."""

    def want(self, job: Job) -> None:
        """The job's make could use another token. It says so once for each that it gets; what it says more
        often is passed over.
        """
        if not job.wants:
            job.wants = True
            self._serve(job)

    def _serve(self, job: Job) -> None:
        host = job.link.placement if job.link is not None else None
        source = job.token_source
        if host is None or source is None or job.phase is not Phase.RUNNING:
            return
        machine = host.machine
        has_slot = self._placing.may_offer(machine)
        if self._placing.waiting or not (has_slot or (self._is_due(job) and self._may_probe(machine))):
            self._wanting.setdefault(machine, {})[job] = None
        elif source.take():
            job.wants = False
            job.tokens += 1
            job.tokens_from = source
            self._placing.use(machine, 1)
            if not has_slot:
                now = self._loop.now()
                self._probe_at[machine] = now + PROBE_S
                self._probes.append(now)
                job.probe_pause_s = 2 * (job.probe_pause_s or 0.0)
                job.probe_at = now + job.probe_pause_s
            job.send(protocol.Offer(job.attempt, 1, probe=not has_slot))
        else:
            source.wait(lambda: self._serve(job), job.depth)

    def _is_due(self, job: Job) -> bool:
        """Is it the job's time for a probe?"""
        now = self._loop.now()
        if job.probe_pause_s is None:
            job.probe_pause_s = UNPROVEN_S
            job.probe_at = now + UNPROVEN_S
        if now < job.probe_at and job not in self._waited_for:
            self._waited_for.add(job)
            self._loop.call_at(job.probe_at, lambda: self._wait_is_over(job))
        return now >= job.probe_at

    def _wait_is_over(self, job: Job) -> None:
        self._waited_for.discard(job)
        self.serve()

    def called(self, job: Job) -> None:
        """The job's make has called a sub-make: where one is may be more."""
        job.probe_pause_s = job.probe_at = 0.0

    def _may_probe(self, machine: Machine) -> bool:
        """Never more probes at once than others are idle: what one more finds would have to stay."""
        if machine.free != 0 or machine.kept_for is not None:
            return False
        now = self._loop.now()
        at = self._probe_at.setdefault(machine, now + PROBE_S)
        if now < at:
            if machine not in self._looked_after and self._placing.room_beside(machine):
                self._looked_after.add(machine)
                self._loop.call_at(at, lambda: self._look(machine))
            return False
        self._probes = [given for given in self._probes if now - given < PROBE_S]
        return len(self._probes) < self._placing.room_beside(machine)

    def _look(self, machine: Machine) -> None:
        self._looked_after.discard(machine)
        self.serve()

    def went(self, machine: Machine) -> None:
        """A sub-make called there has gone elsewhere: where one is there may be more."""
        self._probe_at[machine] = 0.0
        del self._probes[:1]

    def returned(self, job: Job, count: int) -> None:
        """Tokens come back from the job's host."""
        count = min(count, job.tokens)
        job.tokens -= count
        job.recalls = max(0, job.recalls - count)
        if job.link is not None and job.link.placement is not None:
            self._placing.use(job.link.placement.machine, -count)
        self.credited(job, min(job.credit, job.state.taken + job.tokens))
        if count and job.tokens_from is not None:
            job.tokens_from.give(count)

    def credited(self, job: Job, count: int) -> bool:
        """`count` of the job's slots are free: its recipes wait for jobs elsewhere. They may all want them
        back at once: then the machine bears more than it has slots, and takes nothing until that is over.

        Returns: whether that is news.
        """
        count = min(count, job.state.taken + job.tokens)
        if count == job.credit or job.link is None or job.link.placement is None:
            return False
        self._placing.use(job.link.placement.machine, job.credit - count)
        job.credit = count
        return True

    def wants_on(self, machine: Machine) -> bool:
        """Could a make on the machine use a token for which it has no slot?"""
        return machine in self._wanting

    def ended(self, job: Job) -> None:
        """The job's make is gone: all that it had is free."""
        self.credited(job, 0)
        self.returned(job, job.tokens)
        job.wants = False
        if job.link is not None and job.link.placement is not None:
            self._forget(job, job.link.placement.machine)

    def _forget(self, job: Job, machine: Machine) -> None:
        jobs = self._wanting.get(machine, {})
        jobs.pop(job, None)
        if not jobs:
            self._wanting.pop(machine, None)

    def serve(self) -> None:
        """Slots or tokens have become free: try again for those that wait."""
        placing = self._placing
        if placing.waiting:
            return
        machines = [each for each in self._wanting if placing.may_offer(each) or self._may_probe(each)]
        jobs = [(job, machine) for machine in machines for job in self._wanting[machine]]
        for job, machine in sorted(jobs, key=lambda entry: entry[0].depth):
            self._forget(job, machine)
            self._serve(job)

    def recall_for_waiting(self, running: Iterable[Job]) -> None:
        """Jobs wait while makes have tokens beyond their first recipe: ask back as many as jobs wait."""
        jobs = sorted(running, key=lambda job: job.recalls - job.tokens)
        missing = self._placing.waiting - sum(job.recalls for job in jobs)
        for job in jobs:
            if missing <= 0 or job.tokens <= job.recalls:
                return
            job.recalls += 1
            missing -= 1
            job.send(protocol.Recall(job.attempt, 1))
