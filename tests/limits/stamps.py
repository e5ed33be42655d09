"""What recipes stamp into one file when they start and end, and what that proves.

Every line is one write to a file that is open for appending, so that the order of lines is the order in time,
whichever process wrote them; the times in them are there to be checked against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """\
#!/bin/sh
# stamp.sh NAME: what a recipe does in the tests of limits.
read up rest </proc/uptime
echo "+ $up ${{STAMP_BUILD:-build}} ${{STAMP_HOST:-here}} $1 ${{MAKELEVEL:-0}}" >>{log}
{hold}
read up rest </proc/uptime
echo "- $up ${{STAMP_BUILD:-build}} ${{STAMP_HOST:-here}} $1 ${{MAKELEVEL:-0}}" >>{log}
"""

CLOCK_STEP_S = 0.02
"""/proc/uptime goes in steps of 10 ms, and a process can be put aside between reading it and writing."""

_PUT_ASIDE_S = 5.0


@dataclass(frozen=True)
class Stamp:
    """A recipe's start or end.

    Attributes:
        step: 1 at the start, -1 at the end.
        up_s: the machine's time since it was started, CLOCK_BOOTTIME.
        host: by the host's own setup; `here` where no host's server started it.
        level: make's MAKELEVEL.
    """

    step: int
    up_s: float
    build: str
    host: str
    name: str
    level: int


Choice = Callable[[Stamp], bool]


class Stamps:
    """All stamps of a test, in their order.

    Raises:
        ValueError: a recipe has ended that never started, or the times do not fit the order.
    """

    def __init__(self, log: Path) -> None:
        self.all = [_parse(line) for line in log.read_text().splitlines()] if log.exists() else []
        open_now: Counter[str] = Counter()
        latest = 0.0
        for stamp in self.all:
            open_now[stamp.build + " " + stamp.name] += stamp.step
            if open_now[stamp.build + " " + stamp.name] not in (0, 1):
                raise ValueError(f"{stamp} has no counterpart")
            if stamp.up_s < latest - CLOCK_STEP_S - _PUT_ASIDE_S:
                raise ValueError(f"{stamp} comes {latest - stamp.up_s:.2f} s too late")
            latest = max(latest, stamp.up_s)

    def started(self, chosen: Choice = lambda _: True) -> list[Stamp]:
        """The recipes that have started."""
        return [stamp for stamp in self.all if stamp.step == 1 and chosen(stamp)]

    def running(self) -> int:
        """How many run at the end of the file."""
        return sum(stamp.step for stamp in self.all)

    def most_at_once(self, chosen: Choice = lambda _: True) -> int:
        """The most of the chosen recipes that ever ran at the same time."""
        now = most = 0
        for stamp in self.all:
            if chosen(stamp):
                now += stamp.step
                most = max(most, now)
        return most

    def hosts(self) -> set[str]:
        return {stamp.host for stamp in self.all}


def _parse(line: str) -> Stamp:
    sign, up, build, host, name, level = line.split()
    return Stamp({"+": 1, "-": -1}[sign], float(up), build, host, name, int(level))
