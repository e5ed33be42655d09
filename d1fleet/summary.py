"""The last words of a build: where its sub-makes ran."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import words as ours
from .unseen import Call
from .words import counted

if TYPE_CHECKING:
    from .coordinator import Coordinator


SHOWN_UNSEEN = 5
"""Calls that are named one by one."""


def show_summary(
    wanted: bool | None, coordinator: Coordinator, unseen: Sequence[Call] = (), is_make: bool = True
) -> None:
    """Print tables when they were asked for, else a line when something did not go as wished, or a person
    looks on.

    Args:
        unseen: sub-makes that ran here without asking.
        is_make: it was a build of make's, not of any program.
    """
    if wanted:
        ours.say("\n".join([*_jobs(coordinator, is_make, unseen), *_hosts(coordinator), *_unseen(unseen)]))
        return
    counts = coordinator.counts
    words = []
    if counts.fallback:
        words.append(
            f"{counted(counts.fallback, 'sub-make')} ran on this machine because no host could take part"
        )
    if counts.lost:
        words.append(
            f"{counted(counts.lost, 'sub-make')} lost by infrastructure: start the build again to go on"
        )
    if counts.again:
        words.append(f"{counted(counts.again, 'lost sub-make')} done again")
    if counts.without_host:
        words.append(f"{counted(counts.without_host, 'sub-make')} had no host (--strict)")
    if coordinator.hosts.outlived:
        words.append(
            f"{counted(coordinator.hosts.outlived, 'process', 'processes')} that outlived sub-makes ended"
        )
    if counts.cut_short and not coordinator.interrupted:
        words.append(f"{counted(counts.cut_short, 'sub-make')} still ran when make had ended, and was ended")
    done = sum(counts.by_host.values())
    if wanted is None and sys.stderr.isatty() and done:
        where = ", ".join(
            f"{name} {count}"
            + (f" ({counts.failed_by_host[name]} failed)" if counts.failed_by_host[name] else "")
            for name, count in counts.by_host.most_common()
        )
        words.append(f"{counted(done, 'sub-make')}: {where}")
    if wanted is None and sys.stderr.isatty() and unseen:
        words.append(
            f"{counted(len(unseen), 'sub-make')} ran here without asking d1fleet (--summary has them)"
        )
    if words:
        ours.say("; ".join(words))


def _jobs(coordinator: Coordinator, is_make: bool, unseen: Sequence[Call]) -> list[str]:
    """Which sub-make ran where."""
    counts = coordinator.counts
    if not counts.jobs and not is_make:
        return ["no sub-make came to d1fleet; makes that the program starts itself run on this machine", ""]
    if not counts.jobs and unseen:
        return []
    if not counts.jobs:
        return ["there were no sub-makes: one flat makefile has none to spread", ""]
    rows = [("sub-make", "folder", "host", "seconds", "")]
    for job in counts.jobs:
        seconds = f"{job.seconds:.2f}" if job.seconds is not None else ""
        rows.append((job.command, job.folder, job.host or "this machine", seconds, job.remark))
    lines = _table(rows)
    more = sum(sum(each.values()) for each in (counts.by_host, counts.here, counts.stayed)) - len(counts.jobs)
    return [*lines, *([f"... and {more} more; --record FILE has all"] if more > 0 else []), ""]


def _hosts(coordinator: Coordinator) -> list[str]:
    """How many ran on each host, and what became of it."""
    counts = coordinator.counts
    rows = [("host", "sub-makes", "failed", "stayed", "state")]
    for name, state in coordinator.hosts.states:
        ran, failed, stayed = counts.by_host[name], counts.failed_by_host[name], counts.stayed[name]
        rows.append((name, str(ran), str(failed), str(stayed), state))
    rows += [("this machine", str(count), "", "", reason) for reason, count in counts.here.most_common()]
    same = [
        f"{', '.join(names[:-1])} and {names[-1]} are one machine: they share its slots, and nothing moves"
        " between them"
        for names in coordinator.hosts.same_machines
    ]
    return [*_table(rows), *same]


def _unseen(calls: Sequence[Call]) -> list[str]:
    """What d1fleet was not asked about."""
    if not calls:
        return []
    lines = [f"{call.words} (in {call.folder}): {call.why}" for call in calls[:SHOWN_UNSEEN]]
    more = len(calls) - len(lines)
    return [
        "",
        f"{counted(len(calls), 'sub-make')} at least ran on this machine without asking d1fleet:",
        *map(ours.plain, lines),
        *([f"... and {more} more"] if more > 0 else []),
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
