"""What a recursive build has to do, and how fast that could be done. Pure.

A build is a make; a make has steps (targets with their recipes); a step works itself, and may call makes.
What is assumed of a fleet: a make's own recipes run on one host, with its slots; a make that is called may
run on any host; a step that waits for one holds no slot; hosts are alike; sending work costs nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count


@dataclass(frozen=True)
class Step:
    """A target and its recipe.

    Attributes:
        own_s: what the recipe does before it calls any make; for one that calls makes their own start too.
        after: numbers of the same make's steps that have to be done before; smaller than its own.
        calls: makes that it calls: one group after the other, those of a group side by side.
    """

    name: str
    own_s: float
    after: frozenset[int] = frozenset()
    calls: tuple[tuple[Make, ...], ...] = ()


@dataclass(frozen=True)
class Make:
    """One make and its steps, in an order that keeps `Step.after`."""

    name: str
    steps: tuple[Step, ...]


def makes(make: Make) -> Iterator[Make]:
    """It, and all below it."""
    yield make
    for step in make.steps:
        for group in step.calls:
            for each in group:
                yield from makes(each)


def together(make: Make) -> list[frozenset[str]]:
    """The names of those that one recipe calls side by side, recipe by recipe."""
    groups = [group for each in makes(make) for step in each.steps for group in step.calls]
    return [frozenset(each.name for each in group) for group in groups if len(group) > 1]


def work_s(make: Make) -> float:
    """The time of all recipes together."""
    return sum(step.own_s for each in makes(make) for step in each.steps)


def longest_s(make: Make, slots: float = float("inf")) -> float:
    """The critical path: no fleet is faster, however many hosts of so many slots it has.

    With a finite number of slots a make also takes as long as one host needs for its own plain recipes.
    """
    ends: list[float] = []
    for step in make.steps:
        start = max((ends[number] for number in step.after), default=0.0)
        ends.append(start + _length_s(step, slots))
    own_s = sum(step.own_s for step in make.steps if not step.calls)
    return max([own_s / slots, *ends])


def _length_s(step: Step, slots: float) -> float:
    groups = (max((longest_s(each, slots) for each in group), default=0.0) for group in step.calls)
    return step.own_s + sum(groups)


def bound_s(make: Make, hosts: int, slots: int) -> float:
    """No schedule on such a fleet is shorter."""
    return max(work_s(make) / (hosts * slots), longest_s(make, slots))


def scaled(make: Make, factor: float) -> Make:
    """The same with all times multiplied."""
    steps = (
        replace(
            step,
            own_s=step.own_s * factor,
            calls=tuple(tuple(scaled(each, factor) for each in group) for group in step.calls),
        )
        for step in make.steps
    )
    return Make(make.name, tuple(steps))


def order(make: Make) -> dict[str, frozenset[str]]:
    """For each plain recipe by name: the plain recipes that have to end before it may start.

    Only the last ones are named: what these wait for themselves is not.
    """
    found: dict[str, frozenset[str]] = {}
    _order(make, frozenset(), found)
    return found


def _order(make: Make, before: frozenset[str], found: dict[str, frozenset[str]]) -> frozenset[str]:
    last: list[frozenset[str]] = []
    for step in make.steps:
        now = frozenset[str]().union(*(last[number] for number in step.after)) or before
        if not step.calls:
            found[step.name] = now
            now = frozenset([step.name])
        for group in step.calls:
            now = frozenset[str]().union(*(_order(each, now, found) for each in group)) or now
        last.append(now)
    waited_for = {number for step in make.steps for number in step.after}
    return frozenset[str]().union(*(ends for number, ends in enumerate(last) if number not in waited_for))


def schedule_s(make: Make, hosts: int, slots: int) -> float:
    """How long a good schedule takes: list scheduling, the longest way to the end first.

    It is one that could be had, not the best there is: between `bound_s` and this lies the best.
    """
    return _Schedule(hosts, slots).run(make)


@dataclass
class _Call:
    """A make under way on a host.

    Attributes:
        rest_s: the critical path from its end to the end of all.
        tails_s: of each step: from its start to the make's end.
        done: called when all of its steps are.
    """

    make: Make
    rest_s: float
    done: Callable[[], None]
    host: int
    waits: list[int]
    tails_s: list[float]
    left: int


class _Schedule:
    def __init__(self, hosts: int, slots: int) -> None:
        self._slots = slots
        self._free = [slots] * hosts
        # Ready steps of makes that run on a host; makes that no host has taken yet.
        self._ready: list[list[tuple[float, int, _Call, int]]] = [[] for _ in range(hosts)]
        self._makes: list[tuple[float, int, Make, float, Callable[[], None]]] = []
        self._running: list[tuple[float, int, _Call, int]] = []
        self._ticket = count()
        self._now = 0.0

    def run(self, make: Make) -> float:
        self._offer(make, 0.0, lambda: None)
        self._fill()
        while self._running:
            self._now, _, call, number = heapq.heappop(self._running)
            self._free[call.host] += 1
            self._next_group(call, number, 0)
            self._fill()
        return self._now

    def _offer(self, make: Make, rest_s: float, done: Callable[[], None]) -> None:
        urgency = -longest_s(make, self._slots) - rest_s
        heapq.heappush(self._makes, (urgency, next(self._ticket), make, rest_s, done))

    def _fill(self) -> None:
        """Start whatever can start now."""
        while True:
            for host, ready in enumerate(self._ready):
                while ready and self._free[host]:
                    _, ticket, call, number = heapq.heappop(ready)
                    self._free[host] -= 1
                    end = self._now + call.make.steps[number].own_s
                    heapq.heappush(self._running, (end, ticket, call, number))
            host = max(range(len(self._free)), key=self._free.__getitem__)
            if not self._makes or not self._free[host]:
                return
            _, _, make, rest_s, done = heapq.heappop(self._makes)
            self._take(make, rest_s, done, host)

    def _take(self, make: Make, rest_s: float, done: Callable[[], None], host: int) -> None:
        tails = [0.0] * len(make.steps)
        for number in range(len(make.steps) - 1, -1, -1):
            tails[number] += _length_s(make.steps[number], self._slots)
            for earlier in make.steps[number].after:
                tails[earlier] = max(tails[earlier], tails[number])
        waits = [len(step.after) for step in make.steps]
        call = _Call(make, rest_s, done, host, waits, tails, len(make.steps))
        if not make.steps:
            done()
        for number, waiting in enumerate(waits):
            if not waiting:
                self._make_ready(call, number)

    def _make_ready(self, call: _Call, number: int) -> None:
        urgency = -call.tails_s[number] - call.rest_s
        heapq.heappush(self._ready[call.host], (urgency, next(self._ticket), call, number))

    def _next_group(self, call: _Call, number: int, group: int) -> None:
        step = call.make.steps[number]
        if group == len(step.calls):
            self._end(call, number)
            return
        left = len(step.calls[group])
        rest_s = call.rest_s + call.tails_s[number] - _length_s(step, self._slots)
        rest_s += _length_s(Step("", 0.0, calls=step.calls[group + 1 :]), self._slots)

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._next_group(call, number, group + 1)

        for each in step.calls[group]:
            self._offer(each, rest_s, one_done)

    def _end(self, call: _Call, number: int) -> None:
        for later, step in enumerate(call.make.steps):
            if number in step.after:
                call.waits[later] -= 1
                if not call.waits[later]:
                    self._make_ready(call, later)
        call.left -= 1
        if not call.left:
            call.done()


def figures(make: Make, hosts: int, slots: int) -> Mapping[str, float]:
    """Work, critical path, and the bounds of makespan and speed-up (against one slot), for a table."""
    work, bound, schedule = work_s(make), bound_s(make, hosts, slots), schedule_s(make, hosts, slots)
    return {
        "makes": float(sum(1 for _ in makes(make))),
        "recipes": float(sum(len(each.steps) for each in makes(make))),
        "work_s": work,
        "longest_s": longest_s(make),
        "bound_s": bound,
        "schedule_s": schedule,
        "speed_up_bound": work / bound if bound else 1.0,
        "speed_up_schedule": work / schedule if schedule else 1.0,
    }
