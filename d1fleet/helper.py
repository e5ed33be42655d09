"""A module of ours that runs in a process of its own and answers once, on its standard output.

For what the coordinator must not do itself: it would hold leases up, or change what its threads share.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from .loop import Loop
from .transport import pipes


def start_module(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a module of this package; `pipes.started_pids` has the process until somebody discards it.

    Raises:
        ToolError: it cannot be started.
    """
    # -P: not from the build's folder, where anything may lie.
    argv = [sys.executable, "-P", "-m", module, *arguments]
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
    return pipes.start(argv, {**os.environ, "PYTHONPATH": path})


class Helper:
    """One such process.

    Args:
        module: of this package, as `python -m` takes it.
        done: called with all that it has written when it has ended. Not after `close`.
        question: what it reads on its standard input.

    Raises:
        ToolError: it cannot be started.
    """

    def __init__(
        self,
        loop: Loop,
        module: str,
        arguments: Sequence[str],
        done: Callable[[bytes], None],
        question: bytes = b"",
    ) -> None:
        self._loop = loop
        self._done = done
        self._question = memoryview(question)
        self.process = start_module(module, *arguments)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.process.stderr.close()
        self._in, self._out = self.process.stdin, self.process.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._data = bytearray()
        loop.on_read(self._out.fileno(), self._readable)
        loop.on_write(self._in.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            sent = os.write(self._in.fileno(), self._question[: 1 << 16]) if self._question else 0
        except BlockingIOError:
            return
        except BrokenPipeError:
            sent = len(self._question)
        self._question = self._question[sent:]
        if not self._question:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if not self._in.closed:
            self._loop.forget(self._in.fileno())
            self._in.close()

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._out.fileno(), 1 << 16)
            self._data += data
            if not data:
                self.close()
                self._done(bytes(self._data))

    def close(self) -> None:
        """End it, with what it has started."""
        if self._out.closed:
            return
        self._close_stdin()
        self._loop.forget(self._out.fileno())
        self._out.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        pipes.started_pids.discard(self.process.pid)
