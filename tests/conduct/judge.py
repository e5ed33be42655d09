"""Is what d1fleet did what plain make did, and was it done where the row says?"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rows import Row
from .running import Result
from .tree import Entry, Snapshot

OURS = b"d1fleet: "

_PER_RUN = re.compile(rb"(?<=fifo:)/[^\s\]]+|(?<=fnm:)/[^\s\]]+")
"""The names of make 4.4's jobserver and output lock: others in every run."""

_SHOWN_LINES = 30
_SHOWN_WIDTH = 300


@dataclass(frozen=True)
class Job:
    """One sub-make, as d1fleet's record has it."""

    argv: Sequence[str]
    host: str | None
    reason: str | None
    infrastructure: str

    def __str__(self) -> str:
        where = self.host or f"here ({self.reason})"
        words = " ".join(self.argv)
        words = words if len(words) <= 100 else words[:97] + "..."
        return f"{words} on {where} {self.infrastructure}".rstrip()


def read_record(path: Path) -> list[Job]:
    """The jobs in a record."""
    jobs = []
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        entry: dict[str, Any] = json.loads(line)
        if entry.get("event") == "job":
            jobs.append(
                Job(entry["argv"], entry["host"], entry["local_reason"], entry["infrastructure"] or "")
            )
    return jobs


def check_plain(row: Row, plain: Result) -> list[str]:
    """What is wrong with the row itself: plain make does not do what it is there to show."""
    faults = []
    if plain.exit != row.exit:
        faults.append(f"plain make ends with {plain.exit}, the row says {row.exit}: {plain.err[-500:]!r}")
    for text in row.shows:
        if text not in plain.out + plain.err:
            faults.append(f"plain make does not show {text!r}: {(plain.out + plain.err)[-1000:]!r}")
    if plain.held:
        faults.append("plain make's output is held open by something that it left running")
    return faults


_SHIMS = re.compile(rb"[^\s:'=]*/shim/bin-\w+:")
"""Our folder in the PATH of jobs (docs/differences.md)."""


def compare(row: Row, plain: Result, other: Result) -> list[str]:
    """Differences between two runs, as far as the row does not leave them free."""
    faults = []
    if plain.exit != other.exit:
        faults.append(f"exit: {plain.exit} under plain make, {other.exit} here")
    if other.held and not plain.held:
        faults.append("its output was still open after its end")
    for name, ours, theirs in (("stdout", plain.out, other.out), ("stderr", plain.err, other.err)):
        expected, found = _lines(row, ours), _lines(row, theirs)
        if expected != found:
            faults.append(f"{name} differs:\n" + _difference(expected, found))
    return faults + _files(plain.files, other.files)


def check_places(row: Row, jobs: Sequence[Job]) -> list[str]:
    """Whether servers ran what they had to, and nothing that must stay."""
    there = [job for job in jobs if job.host is not None and not job.infrastructure]
    here = [job for job in jobs if job.host is None]
    lost = [job for job in jobs if job.infrastructure]
    faults = []
    if len(there) < row.dispatch or (not row.dispatch and there):
        faults.append(f"{len(there)} sub-makes ran on a server, the row says {row.dispatch}")
    if len(here) != row.stays:
        faults.append(f"{len(here)} sub-makes stayed here, the row says {row.stays}")
    if lost:
        faults.append(f"{len(lost)} sub-makes were lost")
    if faults:
        faults.append("sub-makes:\n" + "\n".join(f"  {job}" for job in jobs))
    return faults


def _lines(row: Row, data: bytes) -> list[bytes]:
    lines = _SHIMS.sub(b"", _PER_RUN.sub(b"NAME", data)).splitlines(keepends=True)
    if row.ours:
        lines = [line for line in lines if not line.startswith(OURS)]
    if row.drop is not None:
        lines = [line for line in lines if not re.search(row.drop, line)]
    return sorted(lines) if row.unordered else lines


def _difference(expected: Sequence[bytes], found: Sequence[bytes]) -> str:
    plain, other = ([repr(line)[1:] for line in lines] for lines in (expected, found))
    lines = list(difflib.unified_diff(plain, other, "plain make", "here", lineterm=""))
    return "\n".join("  " + line[:_SHOWN_WIDTH] for line in lines[:_SHOWN_LINES])


def _same_but_for_names(a: Entry | None, b: Entry | None) -> bool:
    if a is None or b is None or a[:2] != b[:2]:
        return False
    return _PER_RUN.sub(b"NAME", a[2]) == _PER_RUN.sub(b"NAME", b[2])


def _files(plain: Snapshot, other: Snapshot) -> list[str]:
    faults = []
    for path in sorted(plain.keys() | other.keys()):
        expected, found = plain.get(path), other.get(path)
        if expected == found or _same_but_for_names(expected, found):
            continue
        if found is None:
            faults.append(f"file {path!r}: missing")
        elif expected is None:
            faults.append(f"file {path!r}: not there under plain make: {found[2][:200]!r}")
        elif expected[:2] != found[:2]:
            faults.append(f"file {path!r}: {expected[0]} {expected[1]:o}, here {found[0]} {found[1]:o}")
        else:
            faults.append(f"file {path!r}: {expected[2][:300]!r}, here {found[2][:300]!r}")
    return faults
