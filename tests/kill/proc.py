"""Processes seen from outside, by /proc alone: proc(5)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def state(pid: int) -> str:
    """Its state's letter (R, S, T, Z ...); X when there is no such process."""
    return (_stat(pid) or ["X"])[0]


def parent(pid: int) -> int:
    """Its parent; 0 when there is no such process."""
    return int((_stat(pid) or ["X", "0"])[1])


def _stat(pid: int) -> list[str]:
    # The name may hold blanks and parentheses: what follows the last one counts.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def runs(pid: int) -> bool:
    """Is it there, and not only waiting to be reaped?"""
    return state(pid) not in "XZ"


def awaits(pid: int, number: int) -> bool:
    """Has a signal been sent to the process that it has not taken yet?"""
    lines = _read(pid, "status").decode(errors="replace").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def words(pid: int) -> list[str]:
    """Its command line."""
    return _read(pid, "cmdline").decode(errors="replace").split("\0")[:-1]


def children(pid: int) -> list[int]:
    """Its children, of all its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def below(pids: Iterable[int]) -> list[int]:
    """All processes below these, parents before children."""
    found: list[int] = []
    level = list(pids)
    while level:
        level = [child for each in level for child in children(each)]
        found += level
    return found


def freeze(pid: int) -> list[int]:
    """Stop a process and all below it, from above: nobody starts another one meanwhile. Returns them."""
    found: list[int] = []
    level = [pid]
    while level:
        stopped = []
        for each in level:
            with contextlib.suppress(ProcessLookupError):  # a recipe's `sleep` comes and goes
                os.kill(each, signal.SIGSTOP)
                stopped.append(each)
        found += stopped
        level = [child for each in stopped for child in children(each)]
    return found


def above(pid: int) -> list[int]:
    """Its parent, that one's parent, and so on."""
    found = []
    while (pid := parent(pid)) > 1:
        found.append(pid)
    return found


def marked(mark: str) -> list[int]:
    """Every process but this one with `mark` in its command line, its environment or its folder's name."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        pid = int(name)
        held = [_read(pid, "cmdline"), _read(pid, "environ")]
        with contextlib.suppress(OSError):
            held.append(os.fsencode(os.readlink(f"/proc/{pid}/cwd")))
        if any(mark.encode() in text for text in held) and runs(pid):
            found.append(pid)
    return found


def describe(pid: int) -> str:
    """A line for a test's report."""
    return f"{pid} (below {parent(pid)}, {state(pid)}): {' '.join(words(pid))[:160]}"


def wait_until_gone(find: Callable[[], Iterable[int]], limit_s: float) -> list[int]:
    """Wait until `find` finds nothing any more; returns what is left after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while left := [pid for pid in find() if runs(pid)]:
        if not _wait_for_ends(left, deadline - time.monotonic()):
            return left
    return []


def _wait_for_ends(pids: list[int], limit_s: float) -> bool:
    """Wait for the end of all of these; False when time is up before."""
    deadline = time.monotonic() + limit_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        finally:
            os.close(handle)
    return True


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
