"""What `d1fleet chaos` has seen, for people and for programs. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from .chaos import Outcome, Peace
from .words import counted, plain

_WIDEST = 44
_HEADS = ("fault", "host", "hit in the middle of", "build", "again after", "took", "what was made")


def line(outcome: Outcome) -> str:
    """One run, while the next ones are still to come."""
    if outcome.skipped:
        return f"{outcome.fault.name}: not done: {outcome.skipped}"
    return f"{outcome.fault.name}: {outcome.wrong or 'as by plain make'} ({outcome.took_s:.0f} s)"


def text(peace: Peace, outcomes: Sequence[Outcome], seed: int) -> Iterator[str]:
    """A table, and what it comes to."""
    done = [outcome for outcome in outcomes if not outcome.skipped]
    rows = [_HEADS, *map(_row, done)] if done else []
    widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADS) if rows else 0)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if done:
        yield "(build: how it ended; `2, then 0`: it failed, and was started again)"
        yield ""
    for outcome in done:
        if outcome.wrong:
            yield f"{outcome.fault.name}: {outcome.wrong}"
    for outcome in outcomes:
        if outcome.skipped:
            yield f"not done: {outcome.fault.name} ({outcome.fault.what}): {outcome.skipped}"
    if peace.apart:
        shown = ", ".join(map(plain, peace.apart[:5])) + (" ..." if len(peace.apart) > 5 else "")
        yield (
            f"not compared: {counted(len(peace.apart), 'file')} that d1fleet makes otherwise than plain make"
            f" also without a fault: {shown}"
        )
    good = sum(not outcome.wrong for outcome in done)
    yield (
        f"{good} of {counted(len(done), 'run')} ended as with plain make: equal in all"
        f" {counted(len(peace.clean) - len(peace.apart), 'file')} of the tree ({peace.made} made by make)."
        f" Without a fault the build took {peace.took_s:.1f} s; --seed {seed} does the same again"
    )


def _row(outcome: Outcome) -> tuple[str, ...]:
    again = "" if outcome.again_s is None else f"{outcome.again_s:.1f} s"
    more = f", {counted(len(outcome.more), 'temporary file')} left" if outcome.more else ""
    made = f"equal{more}" if not outcome.wrong else "NOT as by make"
    exits = ", then ".join(map(str, outcome.exits)) or "no end"
    return (
        outcome.fault.name, _short(outcome.host, 16), _short(_recipe(outcome.recipe)), exits, again,
        f"{outcome.took_s:.1f} s", made,
    )  # fmt: skip


def _recipe(words: str) -> str:
    """The program, and what it writes where that can be told: compilers have long command lines."""
    parts = words.split()
    if not parts:
        return ""
    program = os.path.basename(parts[0])
    if "-o" in parts[:-1]:
        return f"{program} -o {parts[parts.index('-o') + 1]}"
    return " ".join([program, *parts[1:]])


def _short(cell: str, widest: int = _WIDEST) -> str:
    return cell if len(cell) <= widest else cell[: widest - 3] + "..."


def as_json(peace: Peace, outcomes: Sequence[Outcome], seed: int) -> str:
    """The same as one JSON object."""
    runs: list[dict[str, Any]] = [
        {
            "fault": outcome.fault.name,
            "host": outcome.host,
            "recipe": outcome.recipe,
            "folder": outcome.folder,
            "exits": outcome.exits,
            "again_s": outcome.again_s,
            "took_s": round(outcome.took_s, 3),
            "differs": outcome.differs,
            "more": outcome.more,
            "wrong": outcome.wrong,
            "skipped": outcome.skipped,
        }
        for outcome in outcomes
    ]
    return json.dumps(
        {
            "seed": seed,
            "files": len(peace.clean),
            "not_compared": peace.apart,
            "peace_s": peace.took_s,
            "runs": runs,
        }
    )
