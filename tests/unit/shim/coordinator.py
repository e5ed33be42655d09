"""A coordinator for tests: it takes requests apart byte by byte and answers what the test says."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 30.0


def receive_exactly(sock: socket.socket, size: int, fds: list[int]) -> bytes:
    parts = []
    while size:
        part, more, _, _ = socket.recv_fds(sock, size, 10)
        if not part:
            raise EOFError("the shim hung up in mid-request")
        parts.append(part)
        fds.extend(more)
        size -= len(part)
    return b"".join(parts)


@dataclass
class Request:
    """One sub-make as the shim described it; `call` is still open for the answer."""

    call: socket.socket
    flags: int
    umask: int
    ignored: set[int]
    limits: dict[int, int]
    argv: list[bytes]
    cwd: bytes
    env: list[bytes]
    fds: list[int]

    def answer(self, verb: bytes, value: int = 0) -> None:
        self.call.sendall(verb + value.to_bytes(4, "big"))

    def next_signal(self) -> int:
        return receive_exactly(self.call, 1, self.fds)[0]

    def close(self) -> None:
        self.call.close()
        for fd in self.fds:
            os.close(fd)


def _parse(call: socket.socket) -> Request:
    fds: list[int] = []
    (length,) = struct.unpack(">I", receive_exactly(call, 4, fds))
    body = receive_exactly(call, length, fds)
    magic, flags, umask, ignored, count = struct.unpack_from(">4sIIQI", body)
    assert magic == b"D1S1"
    at = 24
    limits = dict(struct.unpack_from(">IQ", body, at + 12 * i) for i in range(count))
    at += 12 * count
    argc, *sizes = struct.unpack_from(">IIII", body, at)
    at += 16
    assert at + sum(sizes) == length
    blocks = []
    for size in sizes:
        blocks.append(body[at : at + size])
        at += size
    argv, cwd, env = blocks
    assert argv.endswith(b"\0") and env.endswith(b"\0")
    assert argv.count(b"\0") == argc
    return Request(
        call,
        flags,
        umask,
        {n for n in range(1, 65) if ignored >> (n - 1) & 1},
        limits,
        argv[:-1].split(b"\0"),
        cwd,
        env[:-1].split(b"\0"),
        fds,
    )


class Coordinator:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._listener.settimeout(TIMEOUT_S)

    def accept(self) -> socket.socket:
        call, _ = self._listener.accept()
        call.settimeout(TIMEOUT_S)
        return call

    @contextmanager
    def request(self, call: socket.socket | None = None) -> Iterator[Request]:
        """The next request, or the one that comes over `call`, which it closes."""
        call = call or self.accept()
        try:
            request = _parse(call)
        except BaseException:
            call.close()
            raise
        try:
            yield request
        finally:
            request.close()

    def was_asked(self) -> bool:
        """Whether a connection waits that nobody has accepted."""
        self._listener.settimeout(0)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        finally:
            self._listener.settimeout(TIMEOUT_S)
        return True

    def close(self) -> None:
        self._listener.close()
