"""Programs of the system's that are asked something."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

LIMIT_S = 4.0
"""For an answer; a guess: they take some ms."""

_LONGEST = 1 << 16


def run(argv: Sequence[str], limit_s: float = LIMIT_S, environ: Mapping[str, str] | None = None) -> str:
    """What a program prints, on both streams; empty where it cannot be run, or does not end."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
            env={**(os.environ if environ is None else environ), "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout[:_LONGEST].decode("utf-8", "replace")


def unit_states(units: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
    """Properties of units, as systemd tells everybody; empty where it does not run."""
    said = run(["systemctl", "show", "--no-pager", "-p", ",".join(("Id", *properties)), "--", *units])
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in said.strip().split("\n\n")
    ]
    # In the order of the question: an alias has another name.
    return dict(zip(units, blocks)) if len(blocks) == len(units) else {}
