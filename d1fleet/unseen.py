"""Sub-makes on this machine that the coordinator was not asked about: called by a path of their own, with
another PATH, or under fakeroot.

Nothing of make's tells of them, and to watch every process start would take root. So the tree of processes is
looked at now and then: what runs for less than that may pass unnoticed, and may, for it is of no weight.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .interpose import MARKER
from .server import process

_NAMES = ("make", "gmake")

_NOT_EXECUTED = 0x40
"""PF_FORKNOEXEC in the flags of proc(5): a child that is still a copy of its parent."""

MOST = 1000
"""Calls that are told apart; a guess at what anybody would read."""


@dataclass(frozen=True)
class Call:
    """A sub-make that passed us by."""

    words: str
    folder: str
    why: str


class Unseen:
    """Looks for them below this process.

    Args:
        shim_dir: our folder in PATH.
        level: MAKELEVEL of the build's top makes; empty is 0.
    """

    def __init__(self, shim_dir: Path, level: str) -> None:
        self._shim_dir = os.fsencode(shim_dir)
        self._level = int(level) if level.isdigit() else 0
        self._counted: set[int] = set()
        self.calls: list[Call] = []
        """All of them, in the order in which they were noticed."""

    def look(self, spare: Collection[int]) -> list[Call]:
        """Those that were not there the last time. `spare`: processes that are looked at by others, with all
        below them.
        """
        there = set(process.descendants(os.getpid(), spare))
        self._counted &= there
        found: list[Call] = []
        for pid in sorted(there - self._counted):
            call = self._judge(pid) if len(self.calls) + len(found) < MOST else None
            if call is not None:
                self._counted.add(pid)
                found.append(call)
        self.calls += found
        return found

    def _judge(self, pid: int) -> Call | None:
        try:
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")) not in _NAMES or not _executed(pid):
                return None
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
            environ = dict(
                entry.partition(b"=")[::2] for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            )
            folder = os.readlink(f"/proc/{pid}/cwd")
        except OSError:  # it has ended, or became another user's
            return None
        level = environ.get(b"MAKELEVEL", b"0")
        if not argv or not level.isdigit() or int(level) <= self._level:
            return None
        above = os.path.dirname(argv[0])
        if environ.get(b"FAKEROOTKEY"):
            why = "it was under fakeroot"
        elif environ.get(b"LD_PRELOAD"):
            why = "LD_PRELOAD was set"
        elif above and not os.path.exists(os.path.join(above, os.fsencode(MARKER))):
            why = "it was called by a path"
        elif self._shim_dir not in environ.get(b"PATH", b"").split(b":"):
            why = "PATH was set anew"
        else:
            return None
        return Call(" ".join(map(os.fsdecode, argv)), folder, why)


def _executed(pid: int) -> bool:
    """Is it a program of its own, and no copy of its parent that will be one in a moment?"""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return not int(file.read().rpartition(b")")[2].split()[6]) & _NOT_EXECUTED
