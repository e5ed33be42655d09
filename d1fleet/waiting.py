"""Jobs that wait for a host: which one is next. Pure.

The longest expected goes first: a long one that begins last keeps everybody waiting for the end of the build.
A job that waits grows older: what was asked much later does not pass it by, however long it takes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machines import HostState

_HEAD_START = 10.0
"""Seconds of waiting that a second of expected run time stands for: 1 s passes by what was asked up to 10 s
before. A guess: long builds are full of jobs of some seconds, and nobody waits for ten times the longest.
"""

_STEP = math.log(1.5)
"""Jobs whose expected run times differ by less than half are in one bin: estimates are no better."""

_SHORTEST_S = 0.01
"""All below are equally short."""


@dataclass(eq=False, slots=True)
class JobState:
    """A job, as far as placement has to know it."""

    number: int
    """Counts the jobs of the build."""
    asked_at: float
    """Seconds on the clock that all calls use."""
    weight: int = 1
    """Slots that it wants; a machine with fewer is enough when it is wholly free."""
    group: Hashable = None
    """Hosts that have this in their `groups` may take it: the tree that its folder is in."""
    key: Hashable = None
    """The same for the same command in the same folder; None: nothing is known of it."""
    goal: str = ""
    """What it makes: jobs with the same goal are taken to be alike when nothing better is known."""
    expected_s: float | None = None
    """Its run time on a host of speed 1, from history; None: it has none."""
    memory_bytes: int | None = None
    """The most that it needed, from history."""
    last: str | None = None
    """Name of the host that ran it last time: it has its files in memory."""
    wide: bool = True
    """Can it use more slots than it asks for? True for a make with a jobserver."""
    refused: frozenset[str] = frozenset()
    """Names of hosts that would not start it."""

    guess_s: float | None = None
    """expected_s, or else what jobs with its goal took in this build."""
    host: HostState | None = None
    """Where it runs."""
    taken: int = 0
    """Slots that it takes there, its further tokens not counted."""
    placed_at: float = 0.0
    pace: float = 1.0
    """What its host's pace was when it was placed."""
    ends_at: float | None = None
    """When it will end if all goes as expected."""
    patient_until: float | None = None
    """Until then it rather waits for a fast host than to go to a slow one."""
    waited_for: str = ""
    """The last reason why it could not be placed; empty: it never had to wait."""
    line: Line | None = None
    """Where it waits."""
    bin: int = 0
    """And in which part of it."""

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind can go to the same hosts."""
        return (self.group, self.weight, self.wide, self.refused)


@dataclass(eq=False, slots=True)
class _Bin:
    """Jobs of about the same expected run time."""

    heap: list[tuple[float, int, JobState]] = field(default_factory=list)
    count: int = 0


_UNKNOWN = 1 << 30
"""The bin of jobs that nothing is known of."""


def _bin_of(seconds: float | None) -> int:
    return _UNKNOWN if seconds is None else round(math.log(max(seconds, _SHORTEST_S)) / _STEP)


class Line:
    """Jobs of one kind.

    Args:
        longest_first: else in the order in which they were asked.
    """

    def __init__(self, job: JobState, longest_first: bool) -> None:
        self.group, self.weight, self.wide, self.refused = job.group, job.weight, job.wide, job.refused
        self.unknown_s = 0.0
        """Jobs of which nothing is known stand where those of this run time do. The caller sets it."""
        self.count = 0
        self._longest_first = longest_first
        self._bins: dict[int, _Bin] = {}
        self._order: list[int] = []
        """Numbers of bins, the longest jobs first."""

    def add(self, job: JobState) -> None:
        seconds = job.guess_s if self._longest_first else None
        number = _bin_of(seconds)
        bin = self._bins.get(number)
        if bin is None:
            bin = self._bins[number] = _Bin()
            self._order = sorted(self._bins.keys() - {_UNKNOWN}, reverse=True)
        heapq.heappush(bin.heap, (job.asked_at - _HEAD_START * (seconds or 0.0), job.number, job))
        bin.count += 1
        self.count += 1
        job.line, job.bin = self, number

    def remove(self, job: JobState) -> None:
        """A job of this line waits no longer."""
        # It stays in its heap until it comes up there.
        self._bins[job.bin].count -= 1
        self.count -= 1
        job.line = None

    def reconsider(self, goal: str, seconds: float) -> None:
        """Now it is known how long jobs with this goal take."""
        bin = self._bins.get(_UNKNOWN)
        if bin is None or not self._longest_first:
            return
        alike = [
            job for _, _, job in bin.heap if job.goal == goal and job.line is self and job.bin == _UNKNOWN
        ]
        for job in alike:
            self.remove(job)
            job.guess_s = seconds
            self.add(job)
        if alike:
            bin.heap[:] = [entry for entry in bin.heap if entry[2].line is self and entry[2].bin == _UNKNOWN]
            heapq.heapify(bin.heap)

    def head(self) -> tuple[float, int, JobState] | None:
        """(rank, number, job) of the first one; a lower rank is earlier."""
        return min((head[:3] for head in self._heads()), default=None)

    def next(self, pressure: float, now: float, more_to_come: bool) -> JobState | None:
        """The job for a slow host; None when all rather wait for faster ones.

        Args:
            pressure: a job of s seconds rather waits while no more than pressure * s jobs are as long as it
                or longer. 0 means that waiting helps nobody.
            more_to_come: the host would be missed: if all rather wait, the shortest goes.
        """
        if pressure <= 0.0:
            first = self.head()
            return first[2] if first is not None else None
        ahead = 0
        shortest = None
        for _, _, job, bin in self._heads():
            ahead += bin.count
            # The last one of the bin is as good as the first: they are equally long.
            if job.guess_s is None or ahead > pressure * job.guess_s:
                return job
            if job.patient_until is not None and now >= job.patient_until:
                return job
            shortest = job
        return shortest if more_to_come else None

    def heads(self) -> Iterator[JobState]:
        """The first job of each bin."""
        for _, _, job, _ in self._heads():
            yield job

    def _heads(self) -> Iterator[tuple[float, int, JobState, _Bin]]:
        """(rank, number, job, its bin), the longest first."""
        order = self._order
        head_start = 0.0
        if _UNKNOWN in self._bins:
            unknown = _bin_of(self.unknown_s)
            place = sum(number > unknown for number in order)
            order = [*order[:place], _UNKNOWN, *order[place:]]
            head_start = _HEAD_START * self.unknown_s
        for number in order:
            bin = self._bins[number]
            heap = bin.heap
            while heap and (heap[0][2].line is not self or heap[0][2].bin != number):
                heapq.heappop(heap)
            if heap:
                rank, job_number, job = heap[0]
                yield rank - (head_start if number == _UNKNOWN else 0.0), job_number, job, bin

    def jobs(self) -> Iterator[JobState]:
        """All of them, in no order."""
        for number, bin in self._bins.items():
            yield from (job for _, _, job in bin.heap if job.line is self and job.bin == number)
