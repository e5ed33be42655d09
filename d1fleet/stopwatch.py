"""How long processes run that are not our children: makes that shims have become."""

from __future__ import annotations

import os
from collections.abc import Callable

from .loop import Loop

_MOST = 1000
"""Processes that are watched at once; those beyond are passed over."""


class Stopwatch:
    """Watches processes end, each by a descriptor of its own (pidfd_open(2), Linux 5.3).

    Where that cannot be had nothing is measured: nobody depends on it.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fds: set[int] = set()

    def start(self, pid: int, done: Callable[[float], None]) -> None:
        """Call `done` with the seconds from now until the process ends. It must be there now."""
        if len(self._fds) >= _MOST:
            return
        try:
            fd = os.pidfd_open(pid)
        except (OSError, AttributeError):
            return
        began = self._loop.now()
        self._fds.add(fd)

        def ended() -> None:
            self._stop(fd)
            done(self._loop.now() - began)

        self._loop.on_read(fd, ended)

    def _stop(self, fd: int) -> None:
        self._fds.discard(fd)
        self._loop.forget(fd)
        os.close(fd)

    def close(self) -> None:
        """Watch nothing any more."""
        for fd in list(self._fds):
            self._stop(fd)
