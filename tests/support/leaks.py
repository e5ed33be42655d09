"""What a test may not leave behind: processes, threads, open files."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import time
from dataclasses import dataclass

import psutil

SETTLE_S = 5.0
"""How long something that is already ending may take to be gone."""

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of what our children leave behind, so that daemons are seen too: prctl(2)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


@dataclass(frozen=True)
class Holdings:
    """What this process has at one moment."""

    processes: frozenset[psutil.Process]
    threads: frozenset[threading.Thread]
    files: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> Holdings:
        me = psutil.Process()
        return cls(frozenset(me.children(recursive=True)), frozenset(threading.enumerate()), _open_files())

    def left_since(self, settle_s: float = SETTLE_S) -> list[str]:
        """One line for each thing that is new and does not go away; processes are killed then."""
        gc.collect()
        deadline = time.monotonic() + settle_s
        processes = list(set(psutil.Process().children(recursive=True)) - self.processes)
        alive = psutil.wait_procs([p for p in processes if not _is_dead(p)], timeout=settle_s)[1]
        lines = [f"process {process.pid}: {_command(process)}" for process in alive if not _is_dead(process)]
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=settle_s)
        _reap(processes)
        for thread in set(threading.enumerate()) - self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                lines.append(f"thread {thread.name}")
        lines += [f"open file {number}: {target}" for number, target in sorted(_open_files() - self.files)]
        return lines


def still_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not (orphans wait for us)."""
    try:
        return not _is_dead(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _is_dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _reap(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.NoSuchProcess:
        return "(gone meanwhile)"


def _open_files() -> frozenset[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return frozenset(found)
