"""The table that people read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from .stats import Row

HEAD = ("what", "median", "of rounds", "ratio", "target", "verdict")
DOUBTFUL = "?"
"""Behind a verdict whose figures were taken on a busy machine."""


def lines(sections: Sequence[tuple[str, Sequence[Row]]]) -> list[str]:
    """Sections with their titles as columns of equal width; a row's text is never cut."""
    cells = [astuple(row) for _, rows in sections for row in rows]
    plain = [line for line in [HEAD, *cells] if line[-1] != "FAILED"]
    widths = [max(len(line[column]) for line in plain) for column in range(len(HEAD))]

    def show(line: Sequence[str]) -> str:
        return "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()

    shown = [show(HEAD), "  ".join("-" * width for width in widths)]
    for title, rows in sections:
        shown.append(title)
        shown += [show(astuple(row)) for row in rows]
    return shown


def doubt(rows: Sequence[Row]) -> None:
    """Mark verdicts that a busy machine makes worthless."""
    for each in rows:
        if each.verdict in ("reached", "MISSED"):
            each.verdict += DOUBTFUL
