"""What recipes stamped, and what that says about a build. Pure but for reading the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """A recipe that ran, or still runs, or was killed.

    Attributes:
        key: unique on this machine.
        parent: the traced recipe below which its make runs; "" for none.
        parent_pid: its make's.
        level: its make's; 0 is the top make.
        needs: its target's prerequisites, as far as the line had room.
        start_s, end_s: CLOCK_BOOTTIME; the end is None where it stamped none.
        cpu_s: what it and its children used.
    """

    key: str
    parent: str
    host: str
    pid: int
    parent_pid: int
    level: int
    folder: str
    target: str
    command: str
    needs: tuple[str, ...]
    start_s: float
    end_s: float | None = None
    status: int | None = None
    cpu_s: float | None = None

    @property
    def make(self) -> tuple[str, str, int]:
        """Whose recipe it is: the recipe that called that make, its host, and its pid there."""
        return self.parent, self.host, self.parent_pid

    @property
    def length_s(self) -> float:
        """How long it ran; 0 where it stamped no end."""
        return 0.0 if self.end_s is None else self.end_s - self.start_s


Chosen = Callable[[Ran], bool]


def read(path: Path) -> list[Ran]:
    """The recipes of a log in the order of their starts; none where there is no log.

    Raises:
        ValueError: a line makes no sense, or an end has no start.
    """
    return parse(path.read_text(errors="surrogateescape").splitlines()) if path.exists() else []


def parse(lines: Iterable[str]) -> list[Ran]:
    """As `read`."""
    found: dict[str, Ran] = {}
    for line in lines:
        sign, key, *rest = line.split("\t")
        if sign == "+":
            if key in found:
                raise ValueError(f"{key} starts twice")
            parent, host, pid, parent_pid, level, start, folder, target, command, needs = rest
            found[key] = Ran(
                key,
                "" if parent == "-" else parent,
                host,
                int(pid),
                int(parent_pid),
                int(level),
                folder,
                target,
                command,
                tuple(needs.split()),
                int(start) / 1e9,
            )
        elif sign == "-" and key in found and found[key].end_s is None:
            end, status, cpu = rest
            found[key] = replace(found[key], end_s=int(end) / 1e9, status=int(status), cpu_s=int(cpu) / 1e9)
        else:
            raise ValueError(f"an end without a start: {line!r}")
    return sorted(found.values(), key=lambda ran: ran.start_s)


def steps(spans: Iterable[tuple[float, float]]) -> list[tuple[float, int]]:
    """How many of the spans hold at once: (from when, how many), in time order, ending with 0.

    A span that ends where another begins is over then.
    """
    changes: dict[float, int] = {}
    for start, end in spans:
        changes[start] = changes.get(start, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    now, found = 0, []
    for when in sorted(changes):
        now += changes[when]
        found.append((when, now))
    return found


def at_once(trace: Sequence[Ran], chosen: Chosen = lambda _: True) -> list[tuple[float, int]]:
    """How many recipes ran at once, as `steps`.

    One without an end was killed, nobody knows when: it counts for nothing.
    """
    return steps((ran.start_s, ran.end_s) for ran in trace if ran.end_s is not None and chosen(ran))


def most_at_once(trace: Sequence[Ran], chosen: Chosen = lambda _: True) -> int:
    """The most of the chosen recipes that ran at the same time."""
    return max((number for _, number in at_once(trace, chosen)), default=0)


def makespan_s(trace: Sequence[Ran]) -> float:
    """From the first start to the last end."""
    if not trace:
        return 0.0
    return max(ran.end_s or ran.start_s for ran in trace) - min(ran.start_s for ran in trace)


@dataclass(frozen=True)
class Utilisation:
    """How well slots were used.

    Attributes:
        contended_s: how long enough recipes were ready or running to fill all slots.
        busy_share: slots in use then, of all slots; 1.0 where that was never so.
        over_all_share: the same for the whole makespan.
    """

    contended_s: float
    busy_share: float
    over_all_share: float


def utilisation(
    trace: Sequence[Ran],
    before: Mapping[str, frozenset[str]],
    hosts: int,
    slots: int,
    from_s: float = 0.0,
) -> Utilisation:
    """Of a build whose structure is known.

    Args:
        before: by target, the targets that have to end before it may start (`plan.order`). A recipe is ready
            from their end on, whoever has asked for it by then; one without any from the first start.
        slots: of each host. Recipes of one make cannot fill more than these, however many are ready.
        from_s: when the hosts were there: what is ready before has no slots to fill.

    Raises:
        ValueError: the trace has other targets, or one twice.
    """
    by_name = {ran.target: ran for ran in trace}
    if len(by_name) != len(trace) or not by_name.keys() <= before.keys():
        raise ValueError("the trace is of another build")
    first_s = min((ran.start_s for ran in trace), default=0.0)
    wanted: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for ran in trace:
        ends = [by_name[name].end_s for name in before[ran.target] if name in by_name]
        # One that was killed does not tell when it ended: what follows it is ready from its own start.
        ready_s = max((ran.start_s if end is None else end for end in ends), default=first_s)
        span = (min(ready_s, ran.start_s), ran.start_s if ran.end_s is None else ran.end_s)
        wanted.setdefault(ran.make, []).append(span)
    total = hosts * slots
    contended_s = used_s = 0.0
    for start, end, ready, running in _together(_capped(wanted.values(), slots), at_once(trace)):
        start = max(start, from_s)
        if ready >= total and start < end:
            contended_s += end - start
            used_s += min(running, total) * (end - start)
    whole_s = makespan_s(trace)
    work_s = sum(ran.length_s for ran in trace)
    return Utilisation(
        contended_s,
        used_s / (total * contended_s) if contended_s else 1.0,
        work_s / (total * whole_s) if whole_s else 1.0,
    )


def _capped(spans: Iterable[Sequence[tuple[float, float]]], most: int) -> list[tuple[float, int]]:
    """As `steps`, for all lists of spans together; each counts at most so much."""
    changes: dict[float, int] = {}
    for each in spans:
        was = 0
        for when, number in steps(each):
            changes[when] = changes.get(when, 0) + min(number, most) - was
            was = min(number, most)
    total, found = 0, []
    for when in sorted(changes):
        total += changes[when]
        found.append((when, total))
    return found


def _together(
    one: Sequence[tuple[float, int]], other: Sequence[tuple[float, int]]
) -> Iterable[tuple[float, float, int, int]]:
    """Both step functions over their common pieces: start, end, value of one, value of the other."""
    times = sorted({when for when, _ in (*one, *other)})
    values = [dict(one), dict(other)]
    now = [0, 0]
    for start, end in pairwise(times):
        now = [values[which].get(start, now[which]) for which in (0, 1)]
        yield start, end, now[0], now[1]
