"""What may never be in a build: checked from its recipes' stamps and d1fleet's record. Pure.

Only plain recipes stamp in made-up trees: one that waits for a sub-make is not running.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.trees.trace import Ran, at_once

Extra = Sequence[tuple[float, int]]
"""From when on how many recipes more than slots a host may run; in time order."""


def credits_of(record: Sequence[Mapping[str, Any]]) -> dict[str, Extra]:
    """The credits outstanding on each host, from the record.

    An event `credit` has `host`, `at_s` (CLOCK_BOOTTIME, as all times in a record) and `outstanding`: how
    many recipes there wait from then on for jobs that were placed elsewhere. A record without such events
    allows none.
    """
    found: dict[str, list[tuple[float, int]]] = {}
    for entry in record:
        if entry["event"] == "credit":
            found.setdefault(entry["host"], []).append((entry["at_s"], entry["outstanding"]))
    return {host: sorted(extra) for host, extra in found.items()}


def violations(
    trace: Sequence[Ran], slots: Mapping[str, int], jobs: int, extra: Mapping[str, Extra] | None = None
) -> list[str]:
    """Recipes that should not have started when they did: one line each; none in a good build.

    A host may be beyond slots and credits for a while when credits end and what they allowed still runs, but
    nothing starts there meanwhile: so the starts are what is checked, and `debt_s` tells how long that was.

    Args:
        slots: of each host by the name that it stamps with; the coordinator's machine is one.
        jobs: N of -jN.
        extra: of `credits_of`.
    """
    strangers = {ran.host for ran in trace} - slots.keys()
    found = [f"recipes ran on {host}, which is no host of this build" for host in sorted(strangers)]
    found += _beyond("the fleet", trace, jobs, ())
    for host, count in slots.items():
        there = [ran for ran in trace if ran.host == host]
        found += _beyond(host, there, count, (extra or {}).get(host, ()))
    return found


def _beyond(who: str, trace: Sequence[Ran], limit: int, extra: Extra) -> list[str]:
    running = at_once(trace)
    found = []
    for ran in trace:
        # One that was killed is in no count of what runs: nobody knows until when.
        number = _value(running, ran.start_s) + (ran.end_s is None)
        allowed = limit + _value(extra, ran.start_s)
        if number > allowed:
            found.append(f"{who}: {ran.target} is number {number} of {allowed} at {ran.start_s:.4f} s")
    return found


def debt_s(trace: Sequence[Ran], slots: Mapping[str, int], extra: Mapping[str, Extra]) -> dict[str, float]:
    """How long each host ran more recipes than its slots and the credits that were outstanding."""
    found = {}
    for host, count in slots.items():
        running = at_once(trace, lambda ran, host=host: ran.host == host)  # type: ignore[misc]
        there = extra.get(host, ())
        times = sorted({when for when, _ in (*running, *there)})
        found[host] = sum(
            end - start
            for start, end in pairwise(times)
            if _value(running, start) > count + _value(there, start)
        )
    return found


def _value(levels: Sequence[tuple[float, int]], when: float) -> int:
    """What a step function in time order is at a moment; 0 before its first step."""
    number = bisect_right(levels, when, key=lambda level: level[0])
    return levels[number - 1][1] if number else 0
