"""A small event loop: descriptors, timers, and a way in for other threads.

Used by the coordinator and by the d1make server alike, so it needs the standard library alone and
starts in no time. asyncio would do the same at three times the price for each event (a handle, a
context and a queue entry for each), and imports ssl and subprocess on every host.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from typing import Callable

Callback = Callable[[], None]


class Timer:
    """A callback that is due once; `cancel` forgets it."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run."""
        self.callback = None


class Loop:
    """Runs callbacks for readable and writable descriptors and for timers, one at a time.

    Time is CLOCK_BOOTTIME: it goes on while a machine sleeps, so a lease cannot outlive a suspend.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._posted: deque[Callback] = deque()
        self._running = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if hasattr(os, "eventfd") else -1
        self._wake_write = self._wake_fd
        if self._wake_fd < 0:  # Python 3.9
            self._wake_fd, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.on_read(self._wake_fd, self._drain_wake)

    @staticmethod
    def now() -> float:
        """Seconds on CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _update(self, fd: int, was: bool) -> None:
        mask = (select.EPOLLIN if fd in self._readers else 0) | (
            select.EPOLLOUT if fd in self._writers else 0
        )
        if was and mask:
            self._epoll.modify(fd, mask)
        elif mask:
            self._epoll.register(fd, mask)
        elif was:
            # A descriptor closed before it was forgotten has left the epoll set by itself.
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def on_read(self, fd: int, callback: Callback | None) -> None:
        """Call back whenever `fd` is readable, at its end, or broken; None stops that."""
        was = fd in self._readers or fd in self._writers
        if callback is None:
            self._readers.pop(fd, None)
        else:
            known = fd in self._readers
            self._readers[fd] = callback
            if known:
                return
        self._update(fd, was)

    def on_write(self, fd: int, callback: Callback | None) -> None:
        """Call back whenever `fd` is writable or broken; None stops that."""
        was = fd in self._readers or fd in self._writers
        if callback is None:
            if self._writers.pop(fd, None) is None:
                return
        else:
            known = fd in self._writers
            self._writers[fd] = callback
            if known:
                return
        self._update(fd, was)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; call it before closing."""
        was = fd in self._readers or fd in self._writers
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)
        self._update(fd, was)

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Run `callback` at `when` (seconds of `now`)."""
        timer = Timer(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        """Run `callback` in `delay_s` seconds."""
        return self.call_at(self.now() + delay_s, callback)

    def post(self, callback: Callback) -> None:
        """Run `callback` in the loop soon; the one method that other threads may use."""
        self._posted.append(callback)
        with contextlib.suppress(BlockingIOError, OSError):  # full, or closed: nothing to wake
            os.write(self._wake_write, b"\1\0\0\0\0\0\0\0")

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_fd, 4096)

    def stop(self) -> None:
        """Let `run` return after the callback at work."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            self.run_once()

    def run_once(self, limit_s: float = 3600.0) -> None:
        """Wait for the next events, at most `limit_s` seconds, and serve them."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        timeout = limit_s
        if self._posted:
            timeout = 0.0
        elif self._timers:
            timeout = min(limit_s, max(0.0, self._timers[0][0] - self.now()))
        events = self._epoll.poll(timeout)
        # Timers first: after a freeze the lease has to be looked at before anything else is served.
        if self._timers:
            now = self.now()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.callback is not None:
                    callback, timer.callback = timer.callback, None
                    callback()
        for fd, mask in events:
            if mask & ~select.EPOLLOUT:
                reader = self._readers.get(fd)
                if reader is not None:
                    reader()
                elif fd in self._writers:
                    self._writers[fd]()
                    continue
            if mask & select.EPOLLOUT:
                writer = self._writers.get(fd)
                if writer is not None:
                    writer()
        for _ in range(len(self._posted)):
            self._posted.popleft()()

    def close(self) -> None:
        """Give the loop's own descriptors back."""
        self._epoll.close()
        os.close(self._wake_fd)
        if self._wake_write != self._wake_fd:
            os.close(self._wake_write)
