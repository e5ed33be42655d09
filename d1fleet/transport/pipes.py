"""A process of ours on this machine as a `base.Channel`: its stdin and stdout are pipes."""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from ..errors import ToolError
from ..loop import Loop
from ..stream import FdStream

STDERR_LINES = 20
"""Lines of a process's stderr that are kept for people."""


class StderrTail:
    """The last lines that came over a stderr."""

    def __init__(self) -> None:
        self._lines: collections.deque[bytes] = collections.deque(maxlen=STDERR_LINES)
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take more of it."""
        # ssh ends its own lines by both, as if for a terminal in raw mode.
        *lines, self._partial = (self._partial + data.replace(b"\r", b"")).split(b"\n")
        self._partial = self._partial[-4096:]
        self._lines.extend(line[-4096:] for line in lines)

    def text(self) -> str:
        """What was kept, without control characters: it came from a host."""
        text = b"\n".join([*self._lines, self._partial]).decode("utf-8", "replace").strip()
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


started_pids: set[int] = set()
"""Processes of channels that may not be waited for yet: their ends are their channels' business."""


def start(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process for a channel, in a session of its own: the terminal's signals are not for it.

    Args:
        environ: None for ours.

    Raises:
        ToolError: it cannot be started.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,
            restore_signals=True,
        )
    except OSError as error:
        raise ToolError(f"{argv[0]} cannot be started on this machine: {error.strerror}") from error
    started_pids.add(process.pid)
    return process


class PipeChannel:
    """A process and its pipes: `base.Channel`.

    Args:
        process: of `start`.
        stderr: what has been read of its stderr already.
    """

    transport: str = "pipes"
    reason: str = ""

    def __init__(self, process: subprocess.Popen[bytes], stderr: StderrTail | None = None) -> None:
        self._process = process
        self._stream: FdStream | None = None
        self._loop: Loop | None = None
        self._stderr = stderr or StderrTail()
        assert process.stdin and process.stdout and process.stderr
        self._stdin, self._stdout, self._err = process.stdin, process.stdout, process.stderr
        os.set_blocking(self._err.fileno(), False)

    def start(self, loop: Loop, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._stream = FdStream(
            loop, os.dup(self._stdout.fileno()), os.dup(self._stdin.fileno()), on_data, on_end
        )
        self._stdin.close()
        self._stdout.close()
        loop.on_read(self._err.fileno(), self._read_stderr)

    def _read_stderr(self) -> None:
        if self._err.closed:
            return
        try:
            data = os.read(self._err.fileno(), 4096)
        except BlockingIOError:
            return
        if data:
            self._stderr.feed(data)
        elif self._loop is not None:
            self._loop.forget(self._err.fileno())
            self._err.close()

    def send(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.send(data)

    @property
    def backlog(self) -> int:
        return self._stream.backlog if self._stream is not None else 0

    def diagnosis(self) -> str:
        self._read_stderr()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        status = self._process.returncode
        words = (
            "" if status is None else f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        )
        return "; ".join(part for part in (words, self._words()) if part)

    def _words(self) -> str:
        """What it has said on stderr, for people."""
        return self._stderr.text()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if not self._err.closed:
            if self._loop is not None:
                self._loop.forget(self._err.fileno())
            self._err.close()
        for file in (self._stdin, self._stdout):
            file.close()
        self._leave()

    def _leave(self) -> None:
        """It sees the end of its stdin; wait for it, without waiting."""
        # A server ends what it runs and then itself; it needs a moment for that, and nobody waits.
        if self._loop is not None:
            self._loop.call_later(0.0 if self._ended() else 0.1, self._reap)

    def _reap(self) -> None:
        if not self._ended() and self._loop is not None:
            self._loop.call_later(1.0, self._reap)

    def _ended(self) -> bool:
        """Has it ended? Then its status has been taken, and its number may be another's."""
        if self._process.poll() is None:
            return False
        started_pids.discard(self._process.pid)
        return True
