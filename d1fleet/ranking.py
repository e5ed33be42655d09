"""Hosts with room, the best first, without sorting them for each job. Pure.

A heap a number of free slots. A host that changes is noted again; its old notes are known by their version,
and are dropped when they come up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .machines import HostState, Key

_Note = tuple[Key, int, int, HostState]
"""(key, order, version, host)"""

_MANY = 32
"""Free slots above which hosts share a heap: few jobs ask for so many."""

_WHOLE = 1 << 30
"""The heap of machines that are entirely free: what asks for more than they have gets them whole."""

_TIDY = 64
"""Old notes are cleared out of a heap when it has grown by this many, and doubled."""


class Ranking:
    """The hosts that one kind of job may go to."""

    def __init__(self) -> None:
        self._heaps: dict[int, list[_Note]] = {}
        self._tidy_at: dict[int, int] = {}

    def note(self, host: HostState, key: Key) -> None:
        """A host has changed, and has room: `host.version` is new."""
        machine = host.machine
        number = _WHOLE if machine.used <= 0 else min(machine.free, _MANY)
        heap = self._heaps.get(number)
        if heap is None:
            heap = self._heaps[number] = []
            self._tidy_at[number] = _TIDY
        heapq.heappush(heap, (key, host.order, host.version, host))
        if len(heap) > self._tidy_at[number]:
            heap[:] = [note for note in heap if note[3].version == note[2]]
            heapq.heapify(heap)
            self._tidy_at[number] = 2 * len(heap) + _TIDY

    def best(
        self, weight: int, count: int = 1, fits: Callable[[HostState], bool] | None = None
    ) -> list[HostState]:
        """The best `count` hosts that have room for a job of `weight` slots.

        Args:
            fits: says no to hosts that this very job cannot go to.
        """
        tops: list[tuple[_Note, int]] = []
        for number in self._heaps:
            if number >= weight or number == _MANY:
                note = self._top(number)
                if note is not None:
                    tops.append((note, number))
        heapq.heapify(tops)
        found: list[HostState] = []
        taken: list[tuple[_Note, int]] = []
        while tops:
            note, number = tops[0]
            host = note[3]
            if host.machine.free >= min(weight, host.machine.slots) and (fits is None or fits(host)):
                found.append(host)
                if len(found) == count:
                    break
            heapq.heappop(self._heaps[number])
            taken.append((note, number))
            following = self._top(number)
            if following is None:
                heapq.heappop(tops)
            else:
                heapq.heapreplace(tops, (following, number))
        for note, number in taken:
            heapq.heappush(self._heaps[number], note)
        return found

    def _top(self, number: int) -> _Note | None:
        heap = self._heaps[number]
        while heap and heap[0][3].version != heap[0][2]:
            heapq.heappop(heap)
        return heap[0] if heap else None
