"""One output stream of an attempt: a pipe, read as far as the coordinator's credit goes."""

from __future__ import annotations

import os
from typing import Callable

from ..locks import try_lock, unlock
from ..loop import Loop
from ..protocol import OUTPUT_CHUNK, STREAM_CREDIT
from ..streams import unread

_RETRY_S = 0.005


class OutputPipe:
    """Reads the make's end of a pipe and sends what comes.

    Args:
        send: called with bytes, and whether they end a whole number of make's output groups.
        busy: is so much waiting for the connection that nothing should be read?
    """

    def __init__(self, loop: Loop, send: Callable[[bytes, bool], None], busy: Callable[[], bool]) -> None:
        self._loop = loop
        self._send = send
        self._busy = busy
        read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        self._fd: int | None = read_fd
        os.set_blocking(read_fd, False)
        self._credit = STREAM_CREDIT
        self._lock: int | None = None
        self._checking = False
        self._ended: Callable[[], None] | None = None
        loop.on_read(read_fd, self._readable)

    def started(self, lock: int | None) -> None:
        """The make has its end of the pipe now.

        Args:
            lock: with output sync, the descriptor that makes on this host lock while they write a group:
                whoever holds this lock and finds the pipe empty is between two groups. The caller closes it.
        """
        self._lock = lock
        self._close_write()

    def _close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def _readable(self) -> None:
        """Send what is there, as credit and the connection allow."""
        if self._fd is None:
            return
        while self._credit > 0 and not self._busy():
            between = self._lock is not None and try_lock(self._lock)
            try:
                data = os.read(self._fd, min(self._credit, OUTPUT_CHUNK))
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            # Nobody writes, and nothing is left: these bytes end a whole number of groups.
            ends = between and not unread(self._fd)
            if between and self._lock is not None:
                unlock(self._lock)
            if data is None:
                if self._ended is not None:
                    self.close()
                return
            if not data:
                self.close()
                return
            self._credit -= len(data)
            self._send(data, ends)
            if self._lock is not None and not ends and not self._checking:
                self._checking = True
                self._loop.call_later(_RETRY_S, self._group_end)
            if len(data) < OUTPUT_CHUNK and self._ended is None:
                return
        self._loop.on_read(self._fd, None)

    def _group_end(self) -> None:
        """Say that the group under way has ended, as soon as nobody writes and nothing is left."""
        self._checking = False
        if self._fd is None or self._lock is None:
            return
        between = try_lock(self._lock)
        ends = between and not unread(self._fd)
        if between:
            unlock(self._lock)
        if ends:
            self._send(b"", True)
        else:
            self._checking = True
            self._loop.call_later(_RETRY_S, self._group_end)

    def credit(self, amount: int) -> None:
        """The coordinator has taken `amount` bytes."""
        self._credit += amount
        self.resume()

    def resume(self) -> None:
        """Go on after a lack of credit or a busy connection."""
        if self._fd is not None:
            if self._ended is not None:
                self._readable()
            else:
                self._loop.on_read(self._fd, self._readable)

    def finish(self, ended: Callable[[], None]) -> None:
        """The make has exited: send what is in the pipe, then call `ended`; not at the pipe's end,
        which a process that was left running may hold open for ever."""
        self._ended = ended
        if self._fd is None:
            ended()
        else:
            self._readable()

    def close(self) -> None:
        """Nobody reads this stream any more: its writers get EPIPE."""
        if self._fd is None:
            return
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = None
        self._close_write()
        self._lock = None
        if self._ended is not None:
            self._ended()
