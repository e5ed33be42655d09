"""`python -m bench`: all measurements in one run, and a table of what was reached."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.support.sshd import missing_reason

from . import connect, enrolment, idle, jobs, machine, output, placement, sessions, start, stats, table, trees
from .builds import BuildFailedError
from .stage import Stage
from .stats import Row

MEASUREMENTS: dict[str, tuple[str, Callable[[Stage], list[Row]]]] = {
    "jobs": ("Empty sub-makes: local make, ssh -S, d1fleet over pipes and to 3 loopback hosts", jobs.measure),
    "connect": ("Connecting to loopback hosts", connect.measure),
    "start": ("Start, cached inventory, one host", start.measure),
    "sessions": ("200 jobs at once on one host, MaxSessions 1", sessions.measure),
    "output": ("200 MB of output from a job", output.measure),
    "server": ("A server on a host", idle.measure),
    "placement": ("A decision of the scheduler, 1,000 hosts", placement.measure),
    "enrolment": ("Enrolling 20 container hosts, beside Ansible's own work", enrolment.measure),
}
TREES = {f"tree-{name}": name for name in trees.NAMES}
for _name, _tree in TREES.items():
    MEASUREMENTS[_name] = (f"{_tree} on 8 hosts of 0.2 CPU", partial(trees.measure_tree, name=_tree))

NOT_ASKED_FOR = ("enrolment", *TREES)
"""They need root and podman, and minutes each."""

BUSY_WORDS = "this machine is busy: the figures below are not good, take them again when it is not"


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _measure(name: str, stage: Stage, busy_from_start: bool) -> list[Row]:
    """The rows of one measurement; marked when somebody else used the machine just before or after it."""
    measure = MEASUREMENTS[name][1]
    look_s = 0.2 if stage.quick else 2.0
    others = machine.busy_share(look_s)
    say(f"{name} ...")
    began = time.monotonic()
    try:
        rows = measure(stage)
    except (BuildFailedError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return [stats.failed(name, f"{type(error).__name__}: {error}")]
    others = max(others, machine.busy_share(look_s))
    say(f"{name} took {time.monotonic() - began:.0f} s; others used {others:.0%} of the CPUs around it")
    if busy_from_start or stage.quick or others > machine.BUSY_SHARE:
        table.doubt(rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a measurement failed. A target that is missed is no failure of ours."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to measure: {' '.join(MEASUREMENTS)} (default: all but {' '.join(NOT_ASKED_FOR)})",
    )
    parser.add_argument("--quick", action="store_true", help="tiny counts, only to see that all of it works")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"there is no measurement {' '.join(unknown)}; there are: {' '.join(MEASUREMENTS)}")
    missing = missing_reason()
    if missing:
        say(
            f"{missing}: nothing can be measured here; as root: apt-get install openssh-server openssh-client"
        )
        return 1
    print(machine.describe())
    busy = machine.load_is_high()
    if chosen.quick:
        print(f"WARNING: --quick: the figures mean nothing ({table.DOUBTFUL} behind a verdict)")
    elif busy:
        print(f"WARNING: {BUSY_WORDS} ({table.DOUBTFUL} behind a verdict)", flush=True)
    sections = []
    with tempfile.TemporaryDirectory(prefix="d1fleet-bench-") as scratch:
        stage = Stage(Path(scratch), chosen.quick)
        for name in chosen.names or [name for name in MEASUREMENTS if name not in NOT_ASKED_FOR]:
            sections.append((MEASUREMENTS[name][0], _measure(name, stage, busy)))
    rows = [row for _, rows in sections for row in rows]
    if not busy and not chosen.quick and any(row.verdict.endswith(table.DOUBTFUL) for row in rows):
        print(f"WARNING: {BUSY_WORDS}; it became so meanwhile ({table.DOUBTFUL} behind a verdict)")
    print("\n".join(table.lines(sections)))
    return 1 if any(row.verdict == "FAILED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
