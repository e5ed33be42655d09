"""The other side of the shims: who asks, for what, and with which open files.

The layout of a request stands in shim/shim.c; all integers are big-endian.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import ProtocolError, RuntimeFolderError
from .loop import Loop
from .protocol import MAX_PAYLOAD, Ask, unpack_block
from .streams import Source

_MAGIC = b"D1S1"
_FIXED = struct.Struct("!4sIIQI")
_LIMIT = struct.Struct("!IQ")
_BLOCKS = struct.Struct("!IIII")
_REPLY = struct.Struct("!cI")

_SAME, _FD0, _FD1, _FD2, _JOBSERVER = 1, 2, 4, 8, 16

_FULL_S = 0.05
"""How long nobody is let in when there is no descriptor left."""

LOCAL, EXIT, SIGNAL, INFRASTRUCTURE = b"L", b"X", b"S", b"I"


@dataclass
class ShimRequest:
    """What a recipe asked for where it said `make`."""

    argv: bytes
    folder: bytes
    environment: bytes
    umask: int
    ignored: int
    limits: list[int]
    same: bool
    """stdout and stderr are one open file."""
    fds: dict[int, int] = field(default_factory=dict)
    """Our copies of its standard streams, by their number there."""
    jobserver: tuple[int, int] | None = None
    """Our copies of make's jobserver pipe, read and write end."""

    @property
    def arguments(self) -> list[bytes]:
        return unpack_block(self.argv)

    def ask(self) -> Ask:
        """The request without its descriptors."""
        return Ask(
            umask=self.umask,
            ignored=self.ignored,
            limits=self.limits,
            streams=sum(1 << number for number in self.fds),
            same=self.same,
            stdin=0 in self.fds and Source.forwards(self.fds[0]),
            jobserver=self.jobserver is not None,
            folder=self.folder,
            argv=self.argv,
            environment=self.environment,
        )

    def close(self) -> None:
        """Close all descriptors that came with the request."""
        for fd in [*self.fds.values(), *(self.jobserver or ())]:
            os.close(fd)
        self.fds = {}
        self.jobserver = None


def parse_request(body: bytes, fds: list[int]) -> ShimRequest:
    """The request in `body`, which `fds` came with.

    Raises:
        ProtocolError: it is malformed, or the descriptors do not fit it.
    """
    try:
        magic, flags, umask, ignored, count = _FIXED.unpack_from(body)
        if magic != _MAGIC or count > 64:
            raise ProtocolError("a shim of another version asked")
        at = _FIXED.size
        limits = list(struct.unpack_from("!" + count * "IQ", body, at))
        at += count * _LIMIT.size
        argc, argv_size, folder_size, environment_size = _BLOCKS.unpack_from(body, at)
    except struct.error as error:
        raise ProtocolError("a shim's request is cut off") from error
    at += _BLOCKS.size
    argv = body[at : at + argv_size]
    at += argv_size
    folder = body[at : at + folder_size]
    at += folder_size
    environment = body[at : at + environment_size]
    if at + environment_size != len(body) or argv.count(b"\0") != argc or not argc:
        raise ProtocolError("a shim's request is cut off")
    if argv[-1:] != b"\0" or (environment and environment[-1:] != b"\0") or b"\0" in folder or umask > 0o777:
        raise ProtocolError("a shim's request is malformed")
    numbers = [number for number, bit in enumerate((_FD0, _FD1, _FD2)) if flags & bit]
    if len(fds) != len(numbers) + (2 if flags & _JOBSERVER else 0):
        raise ProtocolError("a shim's descriptors got lost")
    request = ShimRequest(argv, folder, environment, umask, ignored, limits, bool(flags & _SAME))
    request.fds = {number: fds[index] for index, number in enumerate(numbers)}
    if flags & _JOBSERVER:
        request.jobserver = (fds[-2], fds[-1])
    return request


class ShimConnection:
    """One shim, from its request to our reply.

    Args:
        on_request: called with the request once it is complete.
        on_signal: called with each signal that the shim passes on.
        on_gone: called once when the shim has gone before our reply (killed, most of the time).
        complain: told why a request cannot be taken up.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        pid: int,
        on_request: Callable[[ShimConnection, ShimRequest], None],
        on_signal: Callable[[int], None],
        on_gone: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self.pid = pid
        self.on_signal = on_signal
        self.on_gone = on_gone
        self._loop = loop
        self._socket = sock
        self._on_request = on_request
        self._complain = complain
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._asked = False
        self._closed = False
        sock.setblocking(False)
        loop.on_read(sock.fileno(), self.readable)

    def readable(self) -> None:
        """Take what the shim has sent."""
        if self._closed:
            return
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                1 << 16, socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._fds += received
        if not data:
            gone = self.on_gone
            self.close()
            gone()
            return
        if self._asked:
            for number in data:
                self.on_signal(number)
            return
        self._buffer += data
        if len(self._buffer) < 4:
            return
        size = int.from_bytes(self._buffer[:4], "big")
        if size > MAX_PAYLOAD or flags & socket.MSG_CTRUNC:
            reason = "too many open files (ulimit -n)" if flags & socket.MSG_CTRUNC else "it is too long"
            self._complain(f"a sub-make cannot be taken up: {reason}")
            self.reply(INFRASTRUCTURE, ProtocolError.exit_code)
            return
        if len(self._buffer) >= 4 + size:
            self._asked = True
            body, fds = bytes(self._buffer[4 : 4 + size]), self._fds
            signals = bytes(self._buffer[4 + size :])
            self._buffer.clear()
            self._fds = []
            try:
                request = parse_request(body, fds)
            except ProtocolError:
                for fd in fds:
                    os.close(fd)
                self.reply(INFRASTRUCTURE, ProtocolError.exit_code)
                return
            self._on_request(self, request)
            for number in signals:
                self.on_signal(number)

    def reply(self, verb: bytes, value: int = 0) -> None:
        """Tell the shim how it ends, and let go of it."""
        if not self._closed:
            with contextlib.suppress(OSError):
                self._socket.send(_REPLY.pack(verb, value))
            self.close()

    def close(self) -> None:
        """Let go without a word."""
        if not self._closed:
            self._closed = True
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            for fd in self._fds:
                os.close(fd)
            self._fds = []


class ShimListener:
    """The socket that shims connect to; only this user's processes are heard."""

    def __init__(self, loop: Loop, path: str, on_connection: Callable[[socket.socket, int], None]) -> None:
        self._loop = loop
        self._path = path
        self._on_connection = on_connection
        self._paused = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(path)
        except OSError as error:
            self._socket.close()
            raise RuntimeFolderError(
                f"the socket {path} cannot be made: {error}",
                "set XDG_RUNTIME_DIR to a short path that you own",
            ) from error
        self._socket.listen(1024)
        loop.on_read(self._socket.fileno(), self._accept)

    def pause(self, on: bool) -> None:
        """Leave shims waiting at the door: each one inside costs us descriptors."""
        if on != self._paused:
            self._paused = on
            self._loop.on_read(self._socket.fileno(), None if on else self._accept)

    def _accept(self) -> None:
        for _ in range(32):
            if self._paused:
                return
            try:
                sock, _ = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self.pause(True)
                    self._loop.call_later(_FULL_S, lambda: self.pause(False))
                return
            pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid():
                sock.close()
                continue
            self._on_connection(sock, pid)

    def close(self) -> None:
        """Hear no more shims."""
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
