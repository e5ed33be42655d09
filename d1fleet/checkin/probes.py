"""Which peers answer, for the time in which no registry says so."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Sequence

from ..loop import Loop, Timer
from .view import Target

AT_ONCE = 64
LIMIT_S = 2.0
"""As `d1fleet run` has it, before each build."""

STRIKES = 2
"""So many silences one after the other, and a peer is dropped: one may be a lost packet."""

EACH_BEATS = 2
"""Beats from one round to the next: a peer is gone from files some 75 s after it and the registry went."""


class Strikes:
    """How often each compile server has not answered, one time after the other. Pure."""

    def __init__(self) -> None:
        self._counts: dict[Target, int] = {}

    @property
    def silent(self) -> frozenset[Target]:
        """Those that are dropped."""
        return frozenset(target for target, count in self._counts.items() if count >= STRIKES)

    def note(self, answered: dict[Target, bool]) -> bool:
        """A round is over; returns whether others are dropped now. Who was not asked is forgotten."""
        before = self.silent
        self._counts = {
            target: 0 if good else min(self._counts.get(target, 0) + 1, STRIKES)
            for target, good in answered.items()
        }
        return self.silent != before

    def clear(self) -> bool:
        """The registry is back; returns whether anybody was dropped."""
        before = self.silent
        self._counts = {}
        return bool(before)


class Round:
    """Connects to each server once and hangs up; `done` is called with who has answered.

    Args:
        at_once, limit_s: connections under way, and seconds for each.
    """

    def __init__(
        self,
        loop: Loop,
        targets: Sequence[Target],
        done: Callable[[dict[Target, bool]], None],
        at_once: int = AT_ONCE,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._loop = loop
        self._done = done
        self._limit_s = limit_s
        self._waiting = list(targets)
        self._under_way: dict[Target, tuple[socket.socket, Timer]] = {}
        self._found: dict[Target, bool] = {}
        self._closed = False
        self._start_some(range(at_once))
        self._finish()

    def _start_some(self, places: Iterable[int]) -> None:
        for _ in places:
            if self._waiting:
                self._start(self._waiting.pop())

    def _start(self, target: Target) -> None:
        sock: socket.socket | None = None
        try:
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            code = sock.connect_ex(target)
        except OSError as error:
            code = error.errno or errno.EIO
        if code != errno.EINPROGRESS or sock is None:
            if sock is not None:
                sock.close()
            self._found[target] = code == 0
            # By way of the loop: a network that is down would have us call ourselves for each peer.
            self._loop.call_later(0.0, self._next)
            return
        timer = self._loop.call_later(self._limit_s, lambda: self._end(target, good=False))
        self._under_way[target] = (sock, timer)
        self._loop.on_write(sock.fileno(), lambda: self._end(target, good=None))

    def _end(self, target: Target, good: bool | None) -> None:
        sock, timer = self._under_way.pop(target)
        timer.cancel()
        if good is None:
            good = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        self._loop.forget(sock.fileno())
        sock.close()
        self._found[target] = good
        self._next()

    def _next(self) -> None:
        if not self._closed:
            self._start_some(range(1))
            self._finish()

    def _finish(self) -> None:
        if not self._closed and not self._waiting and not self._under_way:
            self._closed = True
            self._loop.call_later(0.0, lambda: self._done(self._found))

    def close(self) -> None:
        """Give up; `done` is not called any more."""
        self._closed = True
        self._done = _ignore
        for sock, timer in self._under_way.values():
            timer.cancel()
            with contextlib.suppress(OSError):
                self._loop.forget(sock.fileno())
            sock.close()
        self._under_way.clear()


def _ignore(_found: dict[Target, bool]) -> None:
    pass
