"""Where the tokens of a build come from: its own pool, or the jobserver of a make that is not ours.

What a make on a host uses beyond its one recipe is taken there and given back there. So -jN stays what it
is, whoever runs the recipes. A make that has a jobserver of its own (by a -j that a makefile sets, or in a
build below another make) waits at its end until nobody holds the writing end any more: a client must be
closed before its job's end is reported.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable
from typing import Protocol

from .loop import Loop


class TokenSource(Protocol):
    """Where a job's further tokens come from."""

    def take(self) -> bool:
        """Take a token if there is one."""

    def wait(self, callback: Callable[[], None], rank: int = 0) -> None:
        """Call back, once, when it may be worth trying again; those with a lower `rank` first."""

    def give(self, count: int) -> None:
        """Give `count` tokens back."""

    def close(self) -> None:
        """Give everything back."""


class TokenPool:
    """The tokens of a build: all of its makes, on all machines, have theirs from here.

    Args:
        tokens: how many there are beside the one that the top make has by right; None for any number, where
            slots alone bound it (`make -j`).
    """

    def __init__(self, tokens: int | None) -> None:
        self._tokens = tokens
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        """A heap of rank, number, and whom to call."""
        self._number = 0

    @property
    def short(self) -> bool:
        """Does anybody wait for a token?"""
        return bool(self._waiting)

    def take(self) -> bool:
        if self._tokens is None:
            return True
        if self._tokens == 0:
            return False
        self._tokens -= 1
        return True

    def wait(self, callback: Callable[[], None], rank: int = 0) -> None:
        if self._tokens is None:
            callback()
        else:
            self._number += 1
            heapq.heappush(self._waiting, (rank, self._number, callback))

    def give(self, count: int) -> None:
        if self._tokens is None:
            return
        self._tokens += count
        # Those in the queue now: who cannot have what came back may join it again.
        for _ in range(len(self._waiting)):
            if self._tokens == 0 or not self._waiting:
                return
            heapq.heappop(self._waiting)[2]()

    def close(self) -> None:
        pass


class JobserverClient:
    """A jobserver of pipe style (4.2 to 4.4) or fifo style (4.4).

    Args:
        loop: watches the reading end while we wait.
        read_path, write_path: the ends, to be opened anew: O_NONBLOCK must not reach make's own.
    """

    def __init__(self, loop: Loop, read_path: str, write_path: str) -> None:
        self._loop = loop
        self._tokens: list[bytes] = []
        self._waiting: list[Callable[[], None]] = []
        """A sub-make's job and those that it calls on hosts share one jobserver."""
        self._read = os.open(read_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._write = os.open(write_path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(self._read)
            raise

    @classmethod
    def of_pipe(cls, loop: Loop, read_fd: int, write_fd: int) -> JobserverClient:
        """The client for the two descriptors of a pipe."""
        return cls(loop, f"/proc/self/fd/{read_fd}", f"/proc/self/fd/{write_fd}")

    def take(self) -> bool:
        try:
            token = os.read(self._read, 1)
        except OSError:
            return False
        if token:
            self._tokens.append(token)
        return bool(token)

    def wait(self, callback: Callable[[], None], rank: int = 0) -> None:
        if self._read < 0:
            return
        self._waiting.append(callback)
        self._loop.on_read(self._read, self._ready)

    def _ready(self) -> None:
        self._loop.on_read(self._read, None)
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def give(self, count: int) -> None:
        for _ in range(min(count, len(self._tokens))):
            with contextlib.suppress(OSError):
                os.write(self._write, self._tokens.pop())

    def close(self) -> None:
        self.give(len(self._tokens))
        self._loop.forget(self._read)
        os.close(self._read)
        os.close(self._write)
        self._read = self._write = -1  # one of its jobs may go on a little longer
        self._waiting.clear()
