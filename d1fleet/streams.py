"""The standard streams of a shim, at the coordinator: written and read without blocking, and without
changing them for the processes that share them.

O_NONBLOCK belongs to an open file, not to a descriptor: set here, it would be set on make's own stdout. So
pipes and terminals are opened anew through /proc; what cannot be is written in portions that do not block.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import select
import socket
import stat
import struct
import termios
from collections.abc import Callable
from typing import Any

from .locks import try_lock, unlock
from .loop import Loop
from .protocol import STDIN_AHEAD

_LOCK_RETRY_S = 0.002
_PEEK = STDIN_AHEAD
_SPLICE_F_NONBLOCK = 2


def _reopen(fd: int, flags: int) -> int | None:
    """A description of our own for a pipe or a terminal; None where the system refuses one."""
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


class Sink:
    """An output stream of a shim.

    Args:
        fd: our copy of the shim's descriptor; the caller closes it after `close`.
        on_written: called with the number of bytes that have gone out.
        on_broken: called once when nobody reads it any more, or it cannot be written.
        lock_fd: with output sync, what make locks while it writes a group; None without.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        on_written: Callable[[int], None],
        on_broken: Callable[[], None],
        lock_fd: int | None = None,
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._on_written = on_written
        self._on_broken = on_broken
        self._lock_fd = lock_fd
        self._locked = False
        self._queue: list[tuple[bytes, bool]] = []
        self._at = 0
        self._busy = False
        self._retrying = False
        self.broken = False
        self.failed = 0
        """errno of a write that did not work; EPIPE when nobody reads any more."""
        self.on_empty: Callable[[], None] | None = None
        """Called once when all has been written."""
        mode = os.fstat(fd).st_mode
        self._own: int | None = None
        self._socket: socket.socket | None = None
        self._patient = False
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)):
            self._own = _reopen(fd, os.O_WRONLY)
            self._patient = self._own is None
        elif stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))

    @property
    def empty(self) -> bool:
        return not self._queue

    def write(self, data: bytes, group_end: bool = True) -> None:
        """Write in order; `group_end` says that make's output lock may be given back behind it."""
        if self.broken:
            return
        if data or self._locked or self._queue:
            self._queue.append((data, group_end))
            if not self._busy:
                self._flush()

    def _portion(self, data: memoryview) -> int:
        """Write what goes without blocking; returns how much. Raises BlockingIOError for nothing."""
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._own is not None:
            return os.write(self._own, data)
        if self._patient:
            if not poll_now(self._fd, select.POLLOUT) & select.POLLOUT:
                raise BlockingIOError
            return os.write(self._fd, data[: select.PIPE_BUF])
        return os.write(self._fd, data)

    def _flush(self) -> None:
        if self._busy:
            self._busy = False
            self._loop.on_write(self._watched(), None)
        while self._queue:
            data, group_end = self._queue[0]
            if self._lock_fd is not None and not self._locked:
                if not try_lock(self._lock_fd):
                    if not self._retrying:
                        self._retrying = True
                        self._loop.call_later(_LOCK_RETRY_S, self._retry)
                    return
                self._locked = True
            try:
                while self._at < len(data):
                    sent = self._portion(memoryview(data)[self._at :])
                    self._at += sent
                    self._on_written(sent)
            except BlockingIOError:
                self._busy = True
                self._loop.on_write(self._watched(), self._flush)
                return
            except OSError as error:
                self.failed = error.errno or errno.EIO
                self._break()
                return
            self._queue.pop(0)
            self._at = 0
            if group_end:
                self._unlock()
        if self.on_empty is not None:
            done, self.on_empty = self.on_empty, None
            done()

    def _retry(self) -> None:
        self._retrying = False
        if not self._busy and self._queue:
            self._flush()

    def _watched(self) -> int:
        if self._socket is not None:
            return self._socket.fileno()
        return self._fd if self._own is None else self._own

    def _unlock(self) -> None:
        if self._locked and self._lock_fd is not None:
            self._locked = False
            unlock(self._lock_fd)

    def discard(self) -> None:
        """Forget what is not written, and take no more."""
        if not self.broken:
            if self._busy:
                self._busy = False
                self._loop.on_write(self._watched(), None)
            self._break()

    def _break(self) -> None:
        self.broken = True
        self._queue.clear()
        self._unlock()
        self._on_broken()
        if self.on_empty is not None:
            done, self.on_empty = self.on_empty, None
            done()

    def close(self) -> None:
        """Give our own descriptors back."""
        self._queue.clear()
        self._unlock()
        self._loop.forget(self._watched())
        self._busy = False
        if self._own is not None:
            os.close(self._own)
            self._own = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.broken = True


class Source:
    """A shim's standard input, read ahead without taking anything away from those who share it.

    In `while read x; do make $$x; done < list` the loop and each make share one file: what the make does not
    read is the loop's. So a pipe is looked into by tee(2), a file by pread(2), and only what the job has
    really read is taken.

    Args:
        fd: our copy of the shim's descriptor; the caller closes it after `close`.
        on_data: called with bytes for the job.
        on_end: called once at the end of the input.
    """

    def __init__(
        self, loop: Loop, fd: int, on_data: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._on_data = on_data
        self._on_end = on_end
        self._ahead = 0
        """Bytes given to the job that it has not been seen to read."""
        self._ended = False
        self._closed = False
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self._own: int | None = None
        self._socket: socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            self._own = self._socket.fileno()
        elif not self._regular:
            self._own = _reopen(fd, os.O_RDONLY)

    @staticmethod
    def forwards(fd: int) -> bool:
        """Is this an input that a job on a host can be given? A terminal and /dev/null are not, nor is one at
        its end: make gives all children but one a pipe that nobody writes to.
        """
        mode = os.fstat(fd).st_mode
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            return False
        if stat.S_ISREG(mode):
            return os.lseek(fd, 0, os.SEEK_CUR) < os.fstat(fd).st_size
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(fd)) as sock:
                return sock.type == socket.SOCK_STREAM
        return stat.S_ISFIFO(mode) and poll_now(fd) != select.POLLHUP

    def start(self) -> None:
        """Begin to give."""
        if self._regular:
            self._give_file()
        elif self._own is None:
            self._end()
        else:
            self._loop.on_read(self._own, self._give_pipe)

    def used(self, amount: int) -> None:
        """The job has read `amount` bytes: take them, and give more."""
        amount = min(amount, self._ahead)
        self._ahead -= amount
        if self._closed:
            return
        if self._regular:
            os.lseek(self._fd, amount, os.SEEK_CUR)
            if not self._ended:
                self._give_file()
            return
        if self._own is None:
            return
        while amount:
            try:
                data = self._take(amount)
            except OSError:
                break
            if not data:
                break
            amount -= len(data)
        if not self._ahead and not self._ended:
            self._loop.on_read(self._own, self._give_pipe)

    def _take(self, amount: int) -> bytes:
        if self._socket is not None:
            return self._socket.recv(amount, socket.MSG_DONTWAIT)
        return os.read(self._own, amount) if self._own is not None else b""

    def _give_socket(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_PEEK, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._loop.on_read(sock.fileno(), self._give_pipe)
            return
        except OSError:
            data = b""
        if data:
            self._ahead = len(data)
            self._on_data(data)
        else:
            self._end()

    def _give_file(self) -> None:
        room = _PEEK - self._ahead
        if room <= 0:
            return
        try:
            data = os.pread(self._fd, room, os.lseek(self._fd, 0, os.SEEK_CUR) + self._ahead)
        except OSError:
            data = b""
        if data:
            self._ahead += len(data)
            self._on_data(data)
        else:
            self._end()

    def _give_pipe(self) -> None:
        if self._own is None:
            return
        self._loop.on_read(self._own, None)
        if self._socket is not None:
            self._give_socket(self._socket)
            return
        hung_up = bool(poll_now(self._own) & select.POLLHUP)
        data = peek(self._own)
        if data is None:
            if hung_up:
                self._end()
            else:
                self._loop.on_read(self._own, self._give_pipe)
            return
        self._ahead = len(data)
        self._on_data(data)
        if hung_up and unread(self._own) == self._ahead:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()

    def close(self) -> None:
        """What the job has not read stays where it is."""
        self._closed = True
        if self._own is not None:
            self._loop.forget(self._own)
            if self._socket is not None:
                self._socket.close()
            else:
                os.close(self._own)
            self._own = None


@functools.cache
def _tee() -> Any:
    """tee(2), which the standard library lacks."""
    tee = ctypes.CDLL(None, use_errno=True).tee
    tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
    tee.restype = ctypes.c_ssize_t
    return tee


def poll_now(fd: int, events: int = select.POLLIN) -> int:
    """Which of these events, or errors and hang-ups, `fd` has right now."""
    poll = select.poll()
    poll.register(fd, events)
    found = poll.poll(0)
    return found[0][1] if found else 0


def unread(fd: int) -> int:
    """Bytes that lie in a pipe or fifo."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])


def peek(fd: int) -> bytes | None:
    """What a pipe holds, without taking it (tee(2)); None when it holds nothing."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        count = _tee()(fd, write, _PEEK, _SPLICE_F_NONBLOCK)
        if count <= 0:
            return None
        data = b""
        with contextlib.suppress(BlockingIOError):
            while len(data) < count:
                data += os.read(read, count - len(data))
        return data
    finally:
        os.close(read)
        os.close(write)
