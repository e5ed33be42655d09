"""A byte stream over a pair of descriptors, served by the loop: reads are pushed, writes never block."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from .loop import Loop

_READ_SIZE = 64 << 10


class FdStream:
    """Pipes, or the two ends of a socket, as one stream.

    Args:
        loop: serves the descriptors.
        read_fd, write_fd: may be the same; both become non-blocking and are closed with the stream.
        on_data: called with bytes as they come.
        on_end: called once when the peer has closed its side, or the stream broke; our side stays open
            until `close`.
    """

    def __init__(
        self,
        loop: Loop,
        read_fd: int,
        write_fd: int,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._read_fd: int | None = read_fd
        self._write_fd: int | None = write_fd
        self._on_data = on_data
        self._on_end = on_end
        self._queue: deque[memoryview] = deque()
        self.backlog = 0
        """Bytes accepted by `send` that the kernel has not taken yet."""
        self.on_drain: Callable[[], None] | None = None
        """Called whenever the backlog has become 0 again."""
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        loop.on_read(read_fd, self._readable)

    def _readable(self) -> None:
        if self._read_fd is None:
            return
        try:
            data = os.read(self._read_fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_data(data)
        else:
            self._close_read()
            self._on_end()

    def _close_read(self) -> None:
        """The peer says nothing more; it may still listen."""
        fd, self._read_fd = self._read_fd, None
        if fd is not None:
            self._loop.on_read(fd, None)
            if fd != self._write_fd:
                os.close(fd)

    def send(self, data: bytes) -> None:
        """Write, now or as soon as the peer takes it."""
        if self._write_fd is None:
            return
        if not self._queue:
            try:
                sent = os.write(self._write_fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the reading side will report the end
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.on_write(self._write_fd, self._writable)
        self._queue.append(memoryview(data))
        self.backlog += len(data)

    def _writable(self) -> None:
        if self._write_fd is None:
            return
        while self._queue:
            part = self._queue[0]
            try:
                sent = os.write(self._write_fd, part)
            except BlockingIOError:
                return
            except OSError:
                self._queue.clear()
                self.backlog = 0
                break
            self.backlog -= sent
            if sent < len(part):
                self._queue[0] = part[sent:]
                return
            self._queue.popleft()
        self._loop.on_write(self._write_fd, None)
        if self.on_drain is not None:
            self.on_drain()

    def close(self) -> None:
        """Close both directions; what was not sent is lost."""
        for fd in {self._read_fd, self._write_fd}:
            if fd is not None:
                self._loop.forget(fd)
                os.close(fd)
        self._read_fd = self._write_fd = None
        self._queue.clear()
        self.backlog = 0
