"""Processes seen from outside, by /proc: their trees, CPU time and memory (proc(5))."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d1fleet.server.process import children, descendants

__all__ = ["Memory", "children", "command_name", "cpu_seconds", "descendants", "memory", "servers_below"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Of one or several processes, in bytes."""

    rss: int = 0
    pss: int = 0
    """What it shares counted in parts: adds up over processes."""
    peak: int = 0
    """Highest resident size since its start."""

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.peak + other.peak)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that these processes have used themselves; a difference of two readings is exact as long as no
    thread of theirs has ended in between.
    """
    return sum(_cpu_of(pid) for pid in pids)


def _cpu_of(pid: int) -> float:
    total_ns = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            # In ns, where stat has ticks of 10 ms; needs CONFIG_SCHED_INFO.
            with contextlib.suppress(ProcessLookupError):
                total_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        return total_ns / 1e9
    except FileNotFoundError:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) * _TICK_S


def memory(pids: Iterable[int]) -> Memory:
    """What these processes have in memory now, taken together."""
    total = Memory()
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        total += Memory(_kib("Rss", rollup), _kib("Pss", rollup), _kib("VmHWM", status))
    return total


def _kib(field: str, text: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def command_name(pid: int) -> str:
    """The name of its program; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def servers_below(roots: Iterable[int]) -> list[int]:
    """The commands of logins below these sshd's: d1make servers, when nobody else has logged in."""
    found = []
    for root in roots:
        for session in descendants(root):
            if command_name(session).startswith("sshd"):
                found += [pid for pid in children(session) if not command_name(pid).startswith("sshd")]
    return found
