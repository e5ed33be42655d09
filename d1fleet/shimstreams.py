"""The standard streams of one shim, and the messages that they are made of."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from . import protocol
from .errors import ProtocolError
from .loop import Loop
from .makeflags import Flags
from .protocol import STDERR, STDIN, STDOUT
from .shims import ShimRequest
from .streams import Sink, Source

_CREDIT_STEP = protocol.STREAM_CREDIT // 4
"""Bytes written after which the sender gets credit for as many more."""


def grouped(flags: Flags) -> bool:
    """Does make write whole groups under a lock (-Oline, -Otarget)?"""
    return flags.output_sync in (b"line", b"target")


class ShimStreams:
    """Writes what comes for a shim, and gives what its standard input holds.

    Args:
        request: brought the descriptors; closed by its owner, after `close`.
        flags: the MAKEFLAGS of its make.
        send: takes Data and Close for standard input, and Credit and Close for output.
    """

    def __init__(
        self,
        loop: Loop,
        request: ShimRequest,
        flags: Flags,
        attempt: int,
        send: Callable[[protocol.Message], None],
    ) -> None:
        self._loop = loop
        self._request = request
        self._flags = flags
        self._attempt = attempt
        self._send = send
        self._grouped = grouped(flags)
        self._sinks: dict[int, Sink] = {}
        self._unsent_credit = {STDOUT: 0, STDERR: 0}
        self._ahead = {STDOUT: 0, STDERR: 0}
        """Bytes that came and are not written yet."""
        self._source: Source | None = None
        self._lock_fd: int | None = None
        self._mute = False

    def start(self) -> None:
        """Begin to give standard input, if there is one to be given."""
        self._source = Source(
            self._loop,
            self._request.fds[0],
            lambda data: self._send(protocol.Data(self._attempt, STDIN, False, data)),
            lambda: self._send(protocol.Close(self._attempt, STDIN)),
        )
        self._source.start()

    def output(self, message: protocol.Data) -> None:
        """Write what the make wrote.

        Raises:
            ProtocolError: the sender had no credit for it.
        """
        number = message.stream
        if number not in (STDOUT, STDERR):
            return
        self._ahead[number] += len(message.data)
        if self._ahead[number] > protocol.STREAM_CREDIT:
            raise ProtocolError(f"{self._ahead[number]} bytes of output came without credit")
        sink = self._sinks.get(number) or self._open_sink(number)
        if sink is not None:
            sink.write(message.data, message.group_end or not self._grouped)

    def _open_sink(self, number: int) -> Sink | None:
        fd = self._request.fds.get(number)
        if fd is None or self._mute:
            return None

        def written(amount: int) -> None:
            self._ahead[number] -= amount
            self._unsent_credit[number] += amount
            if self._unsent_credit[number] >= _CREDIT_STEP:
                self._send(protocol.Credit(self._attempt, number, self._unsent_credit[number]))
                self._unsent_credit[number] = 0

        def broken() -> None:
            self._send(protocol.Close(self._attempt, number))

        sink = Sink(self._loop, fd, written, broken, self._output_lock() if self._grouped else None)
        self._sinks[number] = sink
        return sink

    def _output_lock(self) -> int | None:
        """What make locks while it writes a group: a file of its own (4.4), or its stdout (4.3)."""
        if self._lock_fd is None:
            mutex = self._flags.sync_mutex
            if mutex and mutex.startswith(b"fnm:"):
                with contextlib.suppress(OSError):
                    self._lock_fd = os.open(mutex[4:], os.O_RDWR | os.O_CLOEXEC)
            elif 1 in self._request.fds:
                self._lock_fd = os.dup(self._request.fds[1])
        return self._lock_fd

    @property
    def failed(self) -> int:
        """errno why output did not get where it should, 0 when it did. That nobody reads it any more is
        make's business: it, or its recipe, has got EPIPE.
        """
        return next((sink.failed for sink in self._sinks.values() if sink.failed not in (0, errno.EPIPE)), 0)

    def stdin_used(self, amount: int) -> None:
        """The job has read `amount` bytes more."""
        if self._source is not None:
            self._source.used(amount)

    def when_written(self, done: Callable[[], None]) -> None:
        """Call `done` once all output has gone out."""
        waiting = [sink for sink in self._sinks.values() if not sink.empty]
        if not waiting:
            done()
            return
        left = len(waiting)

        def one() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done()

        for sink in waiting:
            sink.on_empty = one

    def mute(self) -> None:
        """Nobody waits for further output: none is opened for it."""
        self._mute = True

    def discard(self) -> None:
        """Nobody shall wait any longer for output to be taken."""
        for sink in list(self._sinks.values()):
            sink.discard()

    def close(self) -> None:
        """Give our own descriptors back: before the shim has its answer, for the make above waits for them.
        Harmless the second time.
        """
        if self._source is not None:
            self._source.close()
            self._source = None
        for sink in self._sinks.values():
            sink.close()
        self._sinks.clear()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
