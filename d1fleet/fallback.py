"""Sub-makes on this machine that no host can take: as many at once as it has slots.

One below another does not count: the upper one only waits for it, and must not wait for its slot as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .job import Job
from .loop import Loop


class Fallback:
    """Starts jobs here, and sees them end.

    Args:
        slots: how many at once.
        most_waiting: how many may wait for a slot: each costs us a descriptor. Further ones do not wait.
        start: tells the shim of a job to run the real make.
    """

    def __init__(self, loop: Loop, slots: int, most_waiting: int, start: Callable[[Job], None]) -> None:
        self._loop = loop
        self._slots = slots
        self._most_waiting = most_waiting
        self._start = start
        self._waiting: dict[Job, int] = {}
        """Jobs, oldest first -> process id of the shim that asked."""
        self._running: dict[int, int] = {}
        """Process id of each make that holds a slot -> descriptor that tells of its end."""

    def add(self, job: Job, pid: int) -> None:
        """Run the job here, where process `pid` asked for it, now or when there is a slot."""
        job.asker.close()  # the shim has its files still; our copies are of no use any more
        if len(self._waiting) >= self._most_waiting or _is_below(pid, self._running):
            self._start(job)
            return
        self._waiting[job] = pid
        self._run()

    def remove(self, job: Job) -> bool:
        """Forget a job that waits; False when it does not."""
        return self._waiting.pop(job, None) is not None

    def clear(self) -> list[Job]:
        """Forget all that wait, and return them."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def _run(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            job = next(iter(self._waiting))
            pid = self._waiting.pop(job)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:  # it has gone meanwhile
                self._start(job)
                continue
            self._running[pid] = pidfd
            self._loop.on_read(pidfd, lambda pid=pid: self._ended(pid))  # type: ignore[misc]
            self._start(job)

    def _ended(self, pid: int) -> None:
        pidfd = self._running.pop(pid)
        self._loop.forget(pidfd)
        os.close(pidfd)
        self._run()


def _is_below(pid: int, makes: dict[int, int]) -> bool:
    """Is one of the makes an ancestor of the process?"""
    while pid > 1 and makes:
        if pid in makes:
            return True
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False
