"""A command on a host as a `base.Channel`, over paramiko's transport.

Threads of one connection: paramiko's own decrypts and hands what came to the loop; one of ours writes, since
a peer that does not read blocks a writer for as long as it likes. What certainly finds room in the socket is
sent by the loop's thread itself, which never waits for either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import paramiko
from paramiko.buffered_pipe import BufferedPipe
from paramiko.packet import Packetizer

from ..loop import Loop, Timer
from .pipes import StderrTail
from .sshterms import printable

FLUSH_S = 0.2
"""What close() leaves the writer for the last bytes; then the connection is cut."""

END_GRACE_S = 0.5
"""Between the end of stdout and the end of the channel: the exit status comes there."""

_ACK_BYTES = 128 << 10
"""Bytes taken before the window is opened again by as much; the window is 2 MiB."""

_PACKET = 32 << 10
_READ_AHEAD = 64 << 10


class _Packetizer(Packetizer):
    def start_handshake(self, timeout: float) -> None:
        """No timer: our deadline does, and its thread would hold up the end of the whole process."""


class _Socket(socket.socket):
    """Reads ahead: paramiko asks for the length and the body of each packet by themselves, and each asking
    costs two system calls and the GIL.
    """

    _held = memoryview(b"")

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if not self._held:
            self._held = memoryview(super().recv(max(size, _READ_AHEAD), flags))
        data, self._held = self._held[:size], self._held[size:]
        return bytes(data)


class Link:
    """A socket, what feeds it, and paramiko's transport over it: given back as one, in bounded time."""

    def __init__(
        self, sock: socket.socket, proxy: subprocess.Popen[bytes] | None, words: IO[bytes] | None
    ) -> None:
        self.sock = sock = _Socket(sock.family, sock.type, sock.proto, sock.detach())
        self._proxy = proxy
        self._words = words
        try:
            self.transport = paramiko.Transport(sock, packetizer_class=_Packetizer)
        except BaseException:
            self._release()
            raise

    def proxy_words(self) -> str:
        """The last that a ProxyCommand has said on stderr."""
        if self._words is None:
            return ""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - 300))
        said = printable(self._words.read().decode("utf-8", "replace"))
        return f"its proxy said: {said}" if said else ""

    def wake(self) -> None:
        """End the connection for whoever waits in recv() or send() on it: closing would not wake them."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End it now, whatever the peer does: within about a second, mostly at once."""
        self.wake()
        self.transport.close()
        if self.transport.ident is not None:
            self.transport.join(1.0)
        self._release()

    def _release(self) -> None:
        self.sock.close()
        if self._words is not None:
            self._words.close()
        if self._proxy is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._proxy.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._proxy.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._proxy.wait(0.3)
                return


if TYPE_CHECKING:
    _Buffer = BufferedPipe[bytes]
else:
    _Buffer = BufferedPipe


class _Inbox(_Buffer):
    """In place of a channel's buffer: paramiko's thread hands each message over as it is.

    Its own buffer moves its whole content at every recv(), and wakes a reader through a pipe.
    """

    def __init__(self, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        super().__init__()
        self._take = take
        self._ended = ended

    def feed(self, data: bytes) -> None:
        self._take(data)

    def close(self) -> None:
        self._ended()

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """So that recv(), called for as many bytes as the loop has taken, opens the window by them."""
        return bytes(nbytes)


class ParamikoChannel:
    """A command on a host: `base.Channel`."""

    transport = "paramiko"
    reason = ""

    def __init__(self, link: Link, session: paramiko.Channel) -> None:
        self._link = link
        self._session = session
        # paramiko notifies it when the window opens and when the channel ends; guards all that follows.
        self._changed = session.out_buffer_cv
        self._arrived: list[bytes] = []
        self._announced = False
        self._outgoing: deque[memoryview] = deque()
        self._backlog = 0
        self._sending = False
        """Some thread is handing a message to paramiko: others come behind it."""
        self._socket_bytes = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._taken = 0
        self._to_ack = 0
        self._stopping = False
        self._closed = False
        self._over = False
        self._stderr = StderrTail()
        self._loop: Loop | None = None
        self._grace: Timer | None = None
        self._on_data: Callable[[bytes], None] = lambda data: None
        self._on_end: Callable[[], None] = lambda: None
        session.in_buffer = _Inbox(self._arrive, self._finishing)
        session.in_stderr_buffer = _Inbox(self._complain, lambda: None)
        self._writer = threading.Thread(target=self._write, name="ssh writer", daemon=True)

    def begin(self) -> None:
        """The command has been started: writes may begin."""
        self._writer.start()

    # In paramiko's thread.

    def _arrive(self, data: bytes) -> None:
        with self._changed:
            self._arrived.append(data)
            loop = None if self._announced else self._loop
            self._announced = self._announced or loop is not None
        if loop is not None:
            loop.post(self._deliver)

    def _complain(self, data: bytes) -> None:
        with self._changed:
            self._stderr.feed(data)
            self._count_taken(len(data))

    def _finishing(self) -> None:
        # Stdout has ended, or all has; paramiko holds the channel's lock here.
        loop = self._loop
        if loop is not None:
            loop.post(self._finish)

    # In the loop's thread.

    def start(self, loop: Loop, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_data, self._on_end = on_data, on_end
        with self._changed:
            self._loop = loop
            self._announced = True
            over = self._session.closed or bool(self._session.eof_received)
        loop.post(self._deliver)
        if over:
            loop.post(self._finish)

    def _deliver(self) -> None:
        with self._changed:
            self._announced = False
            parts, self._arrived = self._arrived, []
            size = sum(map(len, parts))
            self._count_taken(size)
        if size and not self._closed:
            self._on_data(parts[0] if len(parts) == 1 else b"".join(parts))

    def _count_taken(self, size: int) -> None:
        """With the lock held."""
        self._taken += size
        if self._taken >= _ACK_BYTES:
            self._to_ack, self._taken = self._to_ack + self._taken, 0
            self._changed.notify_all()

    def _finish(self) -> None:
        if self._closed or self._over:
            return
        if not self._session.closed and self._loop is not None:
            if self._grace is None:
                self._grace = self._loop.call_later(END_GRACE_S, self._end)
            return
        self._end()

    def _end(self) -> None:
        self._deliver()
        if self._closed or self._over:
            return
        self._over = True
        if self._grace is not None:
            self._grace.cancel()
        self._on_end()

    def send(self, data: bytes) -> None:
        if not data or self._closed:
            return
        with self._changed:
            if self._session.closed:
                return
            if not self._goes_at_once(len(data)):
                self._outgoing.append(memoryview(data))
                self._backlog += len(data)
                self._changed.notify_all()
                return
            self._sending = True
        # The reading side reports the end.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._session.send(data)
        with self._changed:
            self._sending = False
            if self._to_ack:
                self._changed.notify_all()

    def _goes_at_once(self, size: int) -> bool:
        """Can a message be sent without waiting for anybody? It saves the way through the other thread."""
        session = self._session
        if self._outgoing or self._sending or self._stopping or self._to_ack:
            return False
        if size > min(_PACKET, session.out_window_size, session.out_max_packet_size - 64):
            return False
        if not self._link.transport.clear_to_send.is_set():
            return False  # keys are being exchanged
        waiting = struct.unpack("i", fcntl.ioctl(self._link.sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        return int(waiting) + size <= self._socket_bytes // 4

    @property
    def backlog(self) -> int:
        with self._changed:
            return self._backlog

    def diagnosis(self) -> str:
        session, transport = self._session, self._link.transport
        with self._changed:
            words = self._stderr.text()
        status = ""
        if session.exit_status_ready():
            if session.exit_status >= 0:
                status = f"exit status {session.exit_status}"
            elif session.closed and not transport.is_active() and not self._closed:
                status = "the connection broke"
            elif session.closed and not self._closed:
                status = "killed by a signal"  # paramiko does not pass on which
        return "; ".join(part for part in (status, words) if part)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._grace is not None:
            self._grace.cancel()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._writer.join(FLUSH_S)
        self._link.cut()
        self._writer.join(1.0)
        with self._changed:
            self._forget_outgoing()

    # In the writer's thread.

    def _write(self) -> None:
        session = self._session
        try:
            while True:
                with self._changed:
                    while self._sending or not self._has_work():
                        self._changed.wait()
                    if session.closed or (self._stopping and not self._outgoing):
                        break
                    ack, self._to_ack = self._to_ack, 0
                    data = self._next_packet()
                    self._sending = bool(data)
                if ack:
                    session.recv(ack)
                while data:
                    sent = session.send(data)
                    data = data[sent:]
                    with self._changed:
                        self._backlog -= sent
                    if not sent:
                        return
                with self._changed:
                    self._sending = False
            session.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass
        finally:
            with self._changed:
                self._forget_outgoing()

    def _has_work(self) -> bool:
        if self._session.closed or self._to_ack:
            return True
        return self._session.out_window_size > 0 if self._outgoing else self._stopping

    def _next_packet(self) -> bytes:
        """As much as one message carries and the window takes: then no send waits, and acks go between."""
        room = min(_PACKET, self._session.out_max_packet_size - 64, self._session.out_window_size)
        parts: list[memoryview] = []
        while room > 0 and self._outgoing:
            part = self._outgoing.popleft()
            if len(part) > room:
                self._outgoing.appendleft(part[room:])
                part = part[:room]
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def _forget_outgoing(self) -> None:
        self._outgoing.clear()
        self._backlog = 0
