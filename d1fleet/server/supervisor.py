"""One supervisor runs one attempt at a time: a small process that every process of the attempt stays below.

It is a subreaper, so what an attempt leaves behind becomes its child and nobody else's. It is used again
for the next attempt, so no Python has to be forked for each job. It ends its tree when the server dies.

Both speak in whole messages (SOCK_SEQPACKET). Commands from the server: one byte, a u32, and for a start the
job, or a memfd with it, and the descriptors. Reports to the server: one byte and a u32.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import marshal
import math
import os
import resource
import select
import signal
import socket
import struct
import time
from collections import deque
from typing import Any, Callable

from ..loop import Loop
from . import process

START, START_IN_FILE, TO_GROUP, KILL, PAUSE, CONTINUE, LEASE = b"S", b"F", b"G", b"K", b"P", b"C", b"L"
FAILED, ENDED, EMPTY, UNKILLABLE = b"f", b"e", b"0", b"u"

_WORD = struct.Struct("!cI")
_LEFT = 1 << 31
"""Set in the status of ENDED when processes of the attempt still run."""

_INLINE_BYTES = 16 << 10
"""Jobs up to this size travel in the socket; longer ones in a memfd."""

_TERM_GRACE_S = 1.0
"""Time between SIGTERM and SIGKILL when the server has died: make deletes half-written targets meanwhile."""

_MAKE_FIRST_S = 0.05
"""A make hears of SIGTERM so much before what its recipes have started (a guess). It passes it on to its
recipes itself, waits for them, and deletes what they had half written. One that had ended before make began
to wait would be "wait: No child processes" to it, and the half-written target would stay.
"""

_FROZEN_S = 1.0
"""So much later than the lease ended, only what was frozen itself acts (a guess)."""

_DEFAULT_SIGNALS: list[int] = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class Supervisor:
    """The server's handle on one supervisor process.

    Args:
        loop: the server's loop.
        on_report: called with a report's byte and its value.
        on_death: called once when the supervisor process is gone.
    """

    def __init__(
        self,
        loop: Loop,
        on_report: Callable[[Supervisor, bytes, int], None],
        on_death: Callable[[Supervisor], None],
    ) -> None:
        self._loop = loop
        self._on_report = on_report
        self._on_death = on_death
        self._until = 0
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _child(theirs, server)
        theirs.close()
        self._socket: socket.socket | None = ours
        ours.setblocking(False)
        loop.on_read(ours.fileno(), self._readable)

    def start(self, job: tuple[Any, ...], fds: list[int]) -> None:
        """Start a make: `job` is what `_Child.start` unpacks, `fds` are stdin, stdout, stderr and token
        pipes.
        """
        blob = marshal.dumps(job)
        if len(blob) <= _INLINE_BYTES:
            self._send(_WORD.pack(START, 0) + blob, fds)
            return
        memory = os.memfd_create("d1fleet-job", os.MFD_CLOEXEC)
        try:
            os.write(memory, blob)
            self._send(_WORD.pack(START_IN_FILE, len(blob)), [memory, *fds])
        finally:
            os.close(memory)

    def command(self, verb: bytes, value: int = 0) -> None:
        """Send another command."""
        self._send(_WORD.pack(verb, value), [])

    def keep_until(self, when: float) -> None:
        """The lease lasts until `when` (seconds of the loop): with nothing newer, it ends its tree then."""
        tenths = min(math.ceil(when * 10), 0xFFFFFFFF)
        if tenths != self._until:  # asked before each job, and new once a heartbeat
            self._until = tenths
            self.command(LEASE, tenths)

    def _send(self, word: bytes, fds: list[int]) -> None:
        if self._socket is None:
            return
        if self._unsent:
            self._unsent.append((word, [os.dup(fd) for fd in fds]))
            return
        try:
            self._write(word, fds)
        except BlockingIOError:  # it is stopped, or very busy
            self._unsent.append((word, [os.dup(fd) for fd in fds]))
            self._loop.on_write(self._socket.fileno(), self._writable)

    def _write(self, word: bytes, fds: list[int]) -> None:
        if self._socket is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if fds:
                    socket.send_fds(self._socket, [word], fds)
                else:
                    self._socket.send(word)

    def _writable(self) -> None:
        while self._unsent and self._socket is not None:
            word, fds = self._unsent[0]
            try:
                self._write(word, fds)
            except BlockingIOError:
                return
            self._unsent.popleft()
            for fd in fds:
                os.close(fd)
        if self._socket is not None:
            self._loop.on_write(self._socket.fileno(), None)

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_WORD.size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.close()
            self._on_death(self)
            return
        self._on_report(self, *_WORD.unpack(data))

    def close(self) -> None:
        """Let go of the process: it ends its tree and itself."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
            for _, fds in self._unsent:
                for fd in fds:
                    os.close(fd)
            self._unsent.clear()


def decode_end(value: int) -> tuple[int, bool]:
    """Wait status, and whether processes of the attempt still run, of an ENDED report."""
    return value & ~_LEFT, bool(value & _LEFT)


def _child(sock: socket.socket, server: int) -> None:
    """The supervisor process: never returns."""
    try:
        keep = os.dup2(sock.detach(), 3, inheritable=False)
        os.closerange(4, 1 << 16)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        _Child(socket.socket(fileno=keep), server).serve()
    finally:
        os._exit(0)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """A command and its descriptors, which no make inherits beside those that are meant for it.

    socket.recv_fds takes flags and does not use them (Python 3.9 to 3.12).
    """
    message, ancillary, _, _ = sock.recvmsg(
        _WORD.size + _INLINE_BYTES, socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


class _Child:
    """The supervisor's own side: serves commands, starts makes, reaps what comes."""

    def __init__(self, sock: socket.socket, server: int) -> None:
        self._socket = sock
        self._make = 0
        self._ended = False
        self._left = False
        """Something of the make that has ended still runs."""
        self._name = ""
        """Of the make, as ps shows it."""
        self._until = 0.0
        """When to end everything, also if the server says nothing (it may be stopped); 0 for never."""
        self._rest_at = 0.0
        """When the rest of the make's processes hears of a SIGTERM that the make has had; 0 for never."""
        self._saved_limits: dict[int, tuple[int, int]] = {}
        self._own_limits: tuple[tuple[int, int], ...] = ()
        """Limits of a job that are this process's own already: nothing to set."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = wake_read
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)  # the server's death: the socket ends too
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        process.become_subreaper()
        process.die_with_parent(signal.SIGTERM)
        self._server = server
        self._orphaned = os.getppid() != server

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._orphaned:
            soonest = min((when for when in (self._until, self._rest_at) if when), default=0.0)
            timeout_ms = max(0.0, soonest - Loop.now()) * 1000 + 1 if soonest else None
            for fd, _ in poll.poll(timeout_ms):
                if fd == self._wake:
                    signals = os.read(self._wake, 4096)
                    self._reap()
                    if signal.SIGTERM in signals:
                        self._orphaned = True
                elif not self._command():
                    self._orphaned = True
            self._terminate_rest()
            if self._until and Loop.now() >= self._until:
                if process.children(os.getpid()):
                    process.kill_descendants()
                    # Or it would keep its slots. One that was frozen with us has something to note.
                    if Loop.now() < self._until + _FROZEN_S and process.state(self._server) == "T":
                        process.send(self._server, signal.SIGKILL)
                    return
                self._until = 0.0
        self._end_everything()

    def _report(self, verb: bytes, value: int = 0) -> None:
        try:
            self._socket.send(_WORD.pack(verb, value))
        except OSError:
            self._orphaned = True

    def _command(self) -> bool:
        try:
            return self._serve_command()
        except ConnectionResetError:
            return False

    def _serve_command(self) -> bool:
        message, fds = _receive(self._socket)
        if not message:
            return False
        verb, value = _WORD.unpack_from(message)
        if verb == START:
            self._start(message[_WORD.size :], fds)
        elif verb == START_IN_FILE:
            blob = os.pread(fds[0], value, 0)
            os.close(fds[0])
            self._start(blob, fds[1:])
        elif verb == TO_GROUP and self._make and not self._ended:
            if value == signal.SIGTERM:
                self._terminate()
            else:
                with contextlib.suppress(OSError):
                    os.killpg(self._make, value)
        elif verb == KILL:
            left = process.kill_descendants(reaped=self._reaped)
            self._left = self._left and bool(left)  # said once
            self._report(UNKILLABLE, len(left)) if left else self._report(EMPTY)
        elif verb == LEASE:
            self._until = value / 10
        elif verb in (PAUSE, CONTINUE):
            number = signal.SIGSTOP if verb == PAUSE else signal.SIGCONT
            process.send_to_all(lambda: process.descendants(os.getpid()), number)
        return True

    def _terminate(self) -> None:
        """SIGTERM to the make, and to the rest of its processes when it has had time to tell its recipes."""
        process.send(self._make, signal.SIGTERM)
        self._rest_at = Loop.now() + _MAKE_FIRST_S

    def _terminate_rest(self) -> None:
        if not self._rest_at or Loop.now() < self._rest_at:
            return
        self._rest_at = 0.0
        for pid in process.no_recipes(os.getpid(), {self._name, "make", "gmake"}):
            if pid != self._make and process.group(pid) == self._make:
                process.send(pid, signal.SIGTERM)

    def _start(self, blob: bytes, given: list[int]) -> None:
        """Start the make that `blob` describes.

        Its contents: path, argv, environment, folder, umask, limits, ignored signals, descriptor targets.
        """
        path, argv, environment, folder, umask, limits, ignored, targets = marshal.loads(blob)
        # Above the make's own, so that none is overwritten before use; no higher, for its limit may be low.
        floor = max(targets, default=2) + 1
        high: list[int] = []
        saved: dict[int, Any] = {}
        try:
            actions: list[tuple[int, ...]] = []
            for fd, target in zip(given, targets):
                if fd in targets:
                    fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)
                    high.append(fd)
                actions.append((os.POSIX_SPAWN_DUP2, fd, target))
            for target in (0, 1, 2):
                if target not in targets:
                    actions.append((os.POSIX_SPAWN_CLOSE, target))
            os.chdir(folder)
            os.umask(umask)
            self._limit(limits)
            default: list[int] = list(_DEFAULT_SIGNALS)
            if ignored:
                for number in _DEFAULT_SIGNALS:
                    if ignored >> (number - 1) & 1 and number != signal.SIGCHLD:
                        saved[number] = signal.signal(number, signal.SIG_IGN)
                default = [each for each in _DEFAULT_SIGNALS if each not in saved]
            self._ended = False
            self._rest_at = 0.0
            self._name = os.path.basename(os.fsdecode(path))[: process.LONGEST_NAME]
            self._make = os.posix_spawn(
                path, argv, environment, file_actions=actions, setsid=True, setsigdef=default, setsigmask=()
            )
        except (OSError, ValueError) as error:
            self._report(FAILED, getattr(error, "errno", None) or errno.EINVAL)
        finally:
            for number, handler in saved.items():
                signal.signal(number, handler)
            self._restore_limits()
            for fd in given + high:
                os.close(fd)
            os.chdir("/")  # hold no file system busy

    def _limit(self, limits: tuple[tuple[int, int], ...]) -> None:
        """Soft limits for the next make, as far as this host's hard ones allow."""
        if limits == self._own_limits:
            return
        for number, soft in limits:
            with contextlib.suppress(
                ValueError, OSError, OverflowError
            ):  # a limit that this kernel does not know
                now, hard = resource.getrlimit(number)
                if soft >= 1 << 63:
                    soft = resource.RLIM_INFINITY
                if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
                    soft = hard
                if soft != now:
                    resource.setrlimit(number, (soft, hard))
                    self._saved_limits[number] = (now, hard)
        if not self._saved_limits:
            self._own_limits = limits

    def _restore_limits(self) -> None:
        for number, values in self._saved_limits.items():
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(number, values)
        self._saved_limits.clear()

    def _reap(self) -> None:
        status: int | None = None
        left = False
        try:
            while True:
                pid, found = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    left = True
                    break
                if pid == self._make:
                    status = found
        except ChildProcessError:
            pass
        if status is not None:
            self._make_ended(status, left)
        elif self._left and not left:
            self._left = False
            self._report(EMPTY)

    def _make_ended(self, status: int, left: bool) -> None:
        self._ended = True
        self._left = left
        self._report(ENDED, status | (_LEFT if left else 0))

    def _reaped(self, pid: int, status: int) -> None:
        if pid == self._make and not self._ended:
            self._make_ended(status, False)

    def _end_everything(self) -> None:
        """The server is gone: SIGTERM, so that make can delete half-written targets, then SIGKILL."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())
        if self._make and not self._ended:
            for number in (1, 2):
                # Somebody must read what make says before it deletes a target: it would die of SIGPIPE there.
                with contextlib.suppress(OSError):
                    os.open(f"/proc/{self._make}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._terminate()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._make, signal.SIGCONT)
        deadline = time.monotonic() + _TERM_GRACE_S
        while process.children(os.getpid()) and time.monotonic() < deadline:
            self._reap()
            self._terminate_rest()
            time.sleep(0.01)
        process.kill_descendants(limit_s=60.0)
