"""What builds of whole trees took: kept until the next run, and shown as one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

STATE = Path(__file__).parents[2] / ".cache" / "trees.json"


@dataclass(frozen=True)
class Figures:
    """Of one tree on one fleet.

    Attributes:
        fleet: its hosts in words.
        plain_s: plain make, serial, on one of them.
        first_s, second_s: d1fleet; the second with the first one's history. 0 where there was none.
        bound: the speed-up that the tree allows at most on this fleet; schedule: one that could be had. Both
            from a recipe trace of plain make on one host; 0 where there is none.
        contended_s: how long a traced build had enough recipes ready to fill all slots, once hosts were up.
        busy_share: slots busy then; 1 where that was never so.
        cpu_share: processor time that hosts used, of what they had, over the last build.
        jobs: how many sub-makes were dispatched.
    """

    tree: str
    fleet: str
    plain_s: float
    first_s: float
    second_s: float = 0.0
    bound: float = 0.0
    schedule: float = 0.0
    contended_s: float = 0.0
    busy_share: float = 1.0
    cpu_share: float = 0.0
    jobs: int = 0


def keep(figures: Figures, path: Path = STATE) -> None:
    """Add to what is kept, in place of the same tree's on the same fleet."""
    others = [each for each in kept(path) if (each.tree, each.fleet) != (figures.tree, figures.fleet)]
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps([asdict(each) for each in [*others, figures]], indent=1) + "\n")
    new.replace(path)


def kept(path: Path = STATE) -> list[Figures]:
    """What is kept; nothing where it makes no sense."""
    try:
        return [Figures(**each) for each in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


HEAD = (
    "tree", "fleet", "plain s", "d1fleet s", "ratio", "2nd s", "speed-up", "bound", "of bound", "schedule",
    "contended s", "busy", "CPU", "jobs",
)  # fmt: skip


def table(figures: Sequence[Figures]) -> str:
    """One line each. `ratio` is d1fleet's first build to plain make's; `speed-up` is the last one's."""
    lines = [HEAD, *map(_cells, figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(each: Figures) -> tuple[str, ...]:
    last_s = each.second_s or each.first_s
    speed_up = each.plain_s / last_s

    def shown(value: float, form: str = ".2f") -> str:
        return format(value, form) if value else "-"

    return (
        each.tree,
        each.fleet,
        shown(each.plain_s, ".1f"),
        shown(each.first_s, ".1f"),
        shown(each.first_s / each.plain_s),
        shown(each.second_s, ".1f"),
        shown(speed_up),
        shown(each.bound),
        shown(speed_up / each.bound if each.bound else 0.0, ".0%"),
        shown(each.schedule),
        shown(each.contended_s, ".1f"),
        f"{each.busy_share:.0%}" if each.contended_s else "-",
        shown(each.cpu_share, ".0%"),
        str(each.jobs),
    )
