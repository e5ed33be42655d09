"""What we say ourselves: on stderr, each line behind our name, so that it is never taken for make's."""

from __future__ import annotations

import sys

LONGEST = 1000
"""Characters kept of a text that came from elsewhere."""


def say(text: str) -> None:
    """Print lines of ours; whatever is in them, a terminal is not played with."""
    sys.stderr.write("".join(f"d1fleet: {plain(line)}\n" for line in text.splitlines()))
    sys.stderr.flush()


def plain(text: str) -> str:
    """Text from a host or a makefile for a line of ours: nothing that plays with a terminal, not too long."""
    return "".join(c if c.isprintable() else "?" for c in text)[:LONGEST]
