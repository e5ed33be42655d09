"""Runs a row's command once, with a plain make or with d1fleet, and keeps all that can be seen of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shlex
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .rows import PROGRAM, Row
from .tree import Snapshot, plant, snapshot

LIMIT_S = 40.0
"""For one run; a guess, for a machine that is busy."""

DRAIN_S = 10.0
"""Between the program's end and the end of its output."""


class Stuck(Exception):
    """A run did not come to its end."""


@dataclass(frozen=True)
class Result:
    """What a run did."""

    exit: int
    out: bytes
    err: bytes
    files: Snapshot
    held: bool
    """Its output was still open some time after its end."""


Program = Callable[[int], Sequence[str]]
"""The words before make's arguments, for the n-th place in a row where the program under test stands."""


def perform(row: Row, root: bytes, program: Program, environment: Mapping[bytes, bytes]) -> Result:
    """Plant the row's tree at `root`, run its command there, and look at what came of it.

    Raises:
        Stuck: it takes too long.
    """
    plant(root, row.tree)
    run = _Run(row, root)
    try:
        run.start(_command(row, program), {**environment, **row.env})
        try:
            run.watch()
        except BaseException:
            run.kill()
            raise
        return run.result()
    finally:
        run.close()


def _command(row: Row, program: Program) -> list[bytes]:
    if row.run is not None:
        return [*map(os.fsencode, program(0)), *row.run]
    first, *parts = (row.script or b"").split(PROGRAM.encode())
    script = first + b"".join(
        os.fsencode(shlex.join(program(number))) + part for number, part in enumerate(parts)
    )
    return [b"/bin/sh", b"-c", script]


class _Run:
    """One process, its streams, and what is done to it."""

    def __init__(self, row: Row, root: bytes) -> None:
        self._row = row
        self._root = root
        self._fds: set[int] = set()
        self._out = bytearray()
        self._err = bytearray()
        self._open: dict[int, bytearray] = {}
        self._poll = select.poll()
        self._master = -1
        self._fifo = -1
        self._feed = -1
        self._unfed = memoryview(row.stdin or b"")
        self._held = False

    def _keep(self, fd: int) -> int:
        self._fds.add(fd)
        return fd

    def _shut(self, fd: int) -> None:
        self._fds.discard(fd)
        os.close(fd)

    def close(self) -> None:
        """Give all descriptors back."""
        for fd in list(self._fds):
            self._shut(fd)

    def _pipe(self, buffer: bytearray) -> int:
        """Both ends; returns the one for the child."""
        read, write = (self._keep(fd) for fd in os.pipe2(os.O_CLOEXEC))
        self._watch_output(read, buffer)
        return write

    def _watch_output(self, fd: int, buffer: bytearray) -> None:
        self._open[fd] = buffer
        self._poll.register(fd, select.POLLIN)

    def start(self, argv: Sequence[bytes], environment: Mapping[bytes, bytes]) -> None:
        row = self._row
        slave = -1
        if row.terminal:
            self._master, slave = (self._keep(fd) for fd in pty.openpty())
            _no_translation(slave)
        if row.terminal == "all":
            self._watch_output(self._master, self._out)
            stdin = out = err = slave
        else:
            out = self._pipe(self._out)
            err = out if row.merged else self._pipe(self._err)
            stdin = slave if row.terminal else self._stdin()
        if row.strike is not None:
            path = os.path.join(self._root, row.strike.fifo)
            # O_RDWR: there is no hang-up, and nobody who opens it to write has to wait for us.
            self._fifo = self._keep(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            self._poll.register(self._fifo, select.POLLIN)
        self._process = subprocess.Popen(
            argv,
            cwd=self._root,
            env=dict(environment),
            stdin=stdin,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=_with_terminal if row.terminal else _as_from_a_shell,
        )
        for fd in {stdin, out, err}:
            self._shut(fd)
        self._pidfd = self._keep(os.pidfd_open(self._process.pid))
        self._poll.register(self._pidfd, select.POLLIN)

    def _stdin(self) -> int:
        if self._row.stdin is None:
            return self._keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        read, self._feed = (self._keep(fd) for fd in os.pipe2(os.O_CLOEXEC))
        os.set_blocking(self._feed, False)
        self._poll.register(self._feed, select.POLLOUT)
        return read

    def watch(self) -> None:
        """Read, feed and strike until the process has ended and its streams too."""
        deadline = time.monotonic() + LIMIT_S
        alive = True
        while alive or self._open:
            left = deadline - time.monotonic()
            if left <= 0:
                if alive:
                    raise Stuck(f"not at its end after {LIMIT_S:.0f} s; so far:\n{self._so_far()}")
                self._held = True
                return
            for fd, _ in self._poll.poll(left * 1000):
                if fd == self._pidfd:
                    alive = False
                    self._poll.unregister(fd)
                    self._process.wait()
                    deadline = time.monotonic() + DRAIN_S
                elif fd == self._fifo:
                    self._poll.unregister(fd)
                    self._strike()
                elif fd == self._feed:
                    self._give()
                else:
                    self._read(fd)
            if not alive and self._feed >= 0:
                self._end_feed()

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except OSError:  # a terminal nobody has open any more
            data = b""
        self._open[fd] += data
        if not data:
            self._poll.unregister(fd)
            del self._open[fd]

    def _give(self) -> None:
        try:
            sent = os.write(self._feed, self._unfed[: 1 << 16])
        except BrokenPipeError:
            self._end_feed()
            return
        self._unfed = self._unfed[sent:]
        if not self._unfed:
            self._end_feed()

    def _end_feed(self) -> None:
        self._poll.unregister(self._feed)
        self._shut(self._feed)
        self._feed = -1

    def _strike(self) -> None:
        strike = self._row.strike
        if strike is None:
            return
        if strike.signal:
            os.killpg(self._process.pid, signal.Signals["SIG" + strike.signal])
        if strike.keys:
            os.write(self._master, strike.keys)

    def kill(self) -> None:
        """End what was started; orphans come to the test's own process, which ends them."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def _so_far(self) -> str:
        return f"stdout {bytes(self._out[-2000:])!r}\nstderr {bytes(self._err[-2000:])!r}"

    def result(self) -> Result:
        return Result(
            self._process.returncode, bytes(self._out), bytes(self._err), snapshot(self._root), self._held
        )


def _as_from_a_shell() -> None:
    """Signals as a login shell's commands have them, even if these tests run in some script's background."""
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)


def _with_terminal() -> None:
    _as_from_a_shell()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _no_translation(fd: int) -> None:
    """A terminal that passes output on as it is, and does not echo."""
    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
