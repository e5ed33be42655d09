"""What may never be in a build: checked from its recipes' stamps and d1fleet's record. Pure.

Only plain recipes stamp in made-up trees: one that waits for a sub-make is not running.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.trees.trace import Ran, at_once, steps

Extra = Sequence[tuple[float, int]]
"""From when on how many recipes more than slots a host may run; in time order."""


def credits_of(record: Sequence[Mapping[str, Any]]) -> dict[str, Extra]:
    """How many recipes more than slots each host may have, at most, from the record of a build.

    A job that a host asked for (`asked_from`) and that ran on another one lends its slot there from when it
    was placed until it ended. Then its recipe goes on, and what was started meanwhile by the lent slot still
    runs: that is debt, and it lasts until the last job ends that was placed on the host meanwhile.

    Where the record has events `credit` it says so itself, and these count alone: `host`, `at_s`
    (CLOCK_BOOTTIME, as all times in a record) and `outstanding`, credits and debt together, from then on.
    """
    told = [entry for entry in record if entry["event"] == "credit"]
    found: dict[str, list[tuple[float, int]]] = {}
    for entry in told:
        found.setdefault(entry["host"], []).append((entry["at_s"], entry["outstanding"]))
    if told:
        return {host: sorted(extra) for host, extra in found.items()}
    jobs = [entry for entry in record if entry["event"] == "job" and entry["host"]]
    lent: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        host = job.get("asked_from")
        if not host or job["host"] == host or job["local_reason"]:
            continue
        end_s = _end_s(job)
        above = _above(job, jobs)
        owed = [
            _end_s(other)
            for other in jobs
            if other["host"] == host and other["placed_s"] < end_s and other["job"] not in above
        ]
        lent.setdefault(host, []).append((job["placed_s"], max([end_s, *owed])))
    return {host: steps(spans) for host, spans in lent.items()}


def _end_s(job: Mapping[str, Any]) -> float:
    return float(job["placed_s"] + (job["waited_s"] or 0) + (job["ran_s"] or 0))


def _above(job: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> set[int]:
    """The numbers of the jobs that called it, directly or not."""
    parents = {each["job"]: each.get("parent") for each in jobs}
    found: set[int] = set()
    parent = job.get("parent")
    while parent is not None and parent not in found:
        found.add(parent)
        parent = parents.get(parent)
    return found


def violations(
    trace: Sequence[Ran],
    slots: Mapping[str, int],
    jobs: int,
    extra: Mapping[str, Extra] | None = None,
    together: Sequence[Collection[str]] = (),
) -> list[str]:
    """Recipes that should not have started when they did: one line each; none in a good build.

    A host may be beyond slots and credits for a while when credits end and what they allowed still runs, but
    nothing starts there meanwhile: so the starts are what is checked, and `debt_s` tells how long that was.

    Args:
        slots: of each host by the name that it stamps with; the coordinator's machine is one.
        jobs: N of -jN.
        extra: of `credits_of`.
        together: names of makes that one recipe has in its background at the same time, recipe by recipe. It
            has one right, or one token, for all of them, and each of them runs a recipe by that: under plain
            make, too. So as many of them as run anything count as one.
    """
    strangers = {ran.host for ran in trace} - slots.keys()
    found = [f"recipes ran on {host}, which is no host of this build" for host in sorted(strangers)]
    found += _beyond("the fleet", trace, jobs, (), together)
    for host, count in slots.items():
        there = [ran for ran in trace if ran.host == host]
        found += _beyond(host, there, count, (extra or {}).get(host, ()), together)
    return found


def _beyond(
    who: str, trace: Sequence[Ran], limit: int, extra: Extra, together: Sequence[Collection[str]]
) -> list[str]:
    running = at_once(trace)
    found = []
    for ran in trace:
        # One that was killed is in no count of what runs: nobody knows until when.
        number = _value(running, ran.start_s) + (ran.end_s is None)
        allowed = limit + _value(extra, ran.start_s)
        if number > allowed and together:
            allowed += _share_one(trace, ran.start_s, together)
        if number > allowed:
            found.append(f"{who}: {ran.target} is number {number} of {allowed} at {ran.start_s:.4f} s")
    return found


def _share_one(trace: Sequence[Ran], when_s: float, together: Sequence[Collection[str]]) -> int:
    """How many makes run by a right that another one uses as well."""
    running = {
        ran.target.rpartition("-")[0]
        for ran in trace
        if ran.start_s <= when_s and (ran.end_s is None or when_s < ran.end_s)
    }
    found = 0
    for group in together:
        active = [name for name in group if any(f"{make}.".startswith(f"{name}.") for make in running)]
        found += max(0, len(active) - 1)
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
