"""What a simulated build consists of: jobs made up, or taken from the record of a real build. Pure."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import makeflags
from .errors import UsageError


@dataclass(frozen=True)
class TraceJob:
    """A job of a simulated build."""

    work_s: float
    """How long it runs on a host of speed 1 that is its own."""
    after: tuple[int, ...] = ()
    """Numbers of the jobs (counted from 0, smaller than its own) that have to end before it is asked for."""
    delay_s: float = 0.0
    """Time from then, or from the start of the build, until it is asked for."""
    weight: int = 1
    key: str = ""
    goal: str = ""


Trace = Sequence[TraceJob]


def critical_path_s(trace: Trace) -> float:
    """The longest chain of jobs, delays included, on hosts of speed 1."""
    ends: list[float] = []
    for job in trace:
        ends.append(max((ends[number] for number in job.after), default=0.0) + job.delay_s + job.work_s)
    return max(ends, default=0.0)


# -- made up -------------------------------------------------------------------------------------------


def _uniform(count: int, draw: random.Random) -> list[TraceJob]:
    """All about equally long."""
    return [TraceJob(draw.uniform(1.5, 2.5)) for _ in range(count)]


def _heavy_tailed(count: int, draw: random.Random) -> list[TraceJob]:
    """Lognormal: half last less than a second, one in a hundred more than ten."""
    return [TraceJob(min(draw.lognormvariate(0.0, 1.0), 15.0)) for _ in range(count)]


def _bimodal(count: int, draw: random.Random) -> list[TraceJob]:
    """C and C++: one in five lasts ten times as long."""
    return [
        TraceJob(draw.uniform(4, 6), goal="c++") if draw.random() < 0.2 else TraceJob(draw.uniform(0.4, 0.6))
        for _ in range(count)
    ]


def _bursts(count: int, draw: random.Random) -> list[TraceJob]:
    """Asked for in ten bursts, each while the one before still runs."""
    return [
        TraceJob(draw.uniform(0.5, 4.0), delay_s=2.5 * (number * 10 // max(count, 1)))
        for number in range(count)
    ]


def _layers(count: int, draw: random.Random) -> list[TraceJob]:
    """Five layers: each job needs two of the layer below."""
    width = max(1, count // 5)
    jobs = []
    for number in range(count):
        layer = number // width
        below = range((layer - 1) * width, layer * width)
        after = tuple({draw.choice(below), draw.choice(below)}) if layer else ()
        jobs.append(TraceJob(draw.uniform(0.5, 3.5), after))
    return jobs


def _tiny_and_huge(count: int, draw: random.Random) -> list[TraceJob]:
    """Nearly all are tiny, one in a hundred is twenty times as long and more."""
    return [
        TraceJob(draw.uniform(2, 3)) if draw.random() < 0.01 else TraceJob(draw.uniform(0.05, 0.15))
        for _ in range(count)
    ]


FAMILIES: Mapping[str, Callable[[int, random.Random], list[TraceJob]]] = {
    "uniform": _uniform,
    "heavy-tailed": _heavy_tailed,
    "bimodal": _bimodal,
    "bursts": _bursts,
    "layers": _layers,
    "tiny-and-huge": _tiny_and_huge,
}


def made_up(family: str, count: int, seed: int) -> list[TraceJob]:
    """`count` jobs of a family; the same for the same seed.

    Raises:
        UsageError: there is no such family.
    """
    if family not in FAMILIES:
        raise UsageError(f"there is no family of builds called {family}", f"known: {', '.join(FAMILIES)}")
    return FAMILIES[family](count, random.Random(f"{family} {seed}"))


# -- recorded ------------------------------------------------------------------------------------------

LEAST_WORK_S = 0.001
"""Nothing lasts shorter: clocks and starts are no better known."""


def recorded(
    events: Iterable[Mapping[str, Any]], speeds: Mapping[str, float] | None = None
) -> list[TraceJob]:
    """The jobs of a recorded build that ran on hosts.

    A record does not say what a job had waited for. It is taken that the last job that ended before it was
    asked for let make ask for it, the time between them being make's own; a job that was asked for before any
    had ended belongs to the start of the build. Jobs that ran on the coordinator's machine are part of that
    time; those that were asked from hosts are part of the job that asked.

    Args:
        events: objects of the record, in its order.
        speeds: of the hosts in the record, as far as they are known; others count as 1.

    Raises:
        UsageError: an event lacks what a record of ours has.
    """
    jobs = []
    for event in events:
        try:
            if event["event"] == "job" and event["host"] and not event.get("parent") and event["ran_s"]:
                began_s = float(event["placed_s"]) + float(event["waited_s"] or 0.0)
                ran_s = float(event["ran_s"])
                jobs.append((float(event["asked_s"]), began_s + ran_s, ran_s, event))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"this is no record of a build: {error!r} in {str(event)[:80]}",
                "give a file that d1fleet build --record has written",
            ) from error
    jobs.sort(key=lambda job: job[0])
    start_s = jobs[0][0] if jobs else 0.0
    by_end = sorted(range(len(jobs)), key=lambda number: jobs[number][1])
    trace: list[TraceJob] = []
    passed = 0
    for number, (asked_s, _, ran_s, event) in enumerate(jobs):
        # Only one that was asked for earlier can have let make ask: else the order would go in a circle.
        while passed < len(by_end) and jobs[by_end[passed]][1] <= asked_s:
            passed += 1
        before = by_end[passed - 1] if passed and by_end[passed - 1] < number else None
        since_s = start_s if before is None else jobs[before][1]
        work_s = max(ran_s * (speeds or {}).get(event["host"], 1.0), LEAST_WORK_S)
        words = [str(word) for word in event.get("argv", ())]
        key = "\0".join([str(event.get("dir", "")), *words])
        goals = makeflags.argv_goals([os.fsencode(word) for word in words])
        goal = os.fsdecode(goals[0]) if goals else ""
        after = () if before is None else (before,)
        trace.append(TraceJob(work_s, after, asked_s - since_s, key=key, goal=goal))
    return trace


def noisy(seconds: float, spread: float, draw: random.Random) -> float:
    """An estimate of a duration: right in the median, off by a factor of exp(spread) as a rule."""
    return seconds * math.exp(draw.gauss(0.0, spread))
