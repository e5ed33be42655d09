"""This host's toolchain, looked at by a process of its own, at a low priority.

Not by a thread: while one of low priority waits for a CPU it may hold Python's lock, and beats would be late.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..loop import Loop, Timer
from ..server import toolchain
from . import strictjson
from .strictjson import BadDocumentError

ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
"""Where the compile server finds compilers, on all hosts alike."""

EACH_S = 300.0
"""Between two looks: files may change by other hands than a package manager's."""

AGAIN_S = 60.0
"""After a look that was not sure: the host is busy."""

LONGEST_S = 180.0
"""For a look; it may wait long for a CPU (a guess)."""

NICE = 5
"""Nobody notices it. At the lowest priority, on a busy host, compilers would not answer in time."""

_MOST_BYTES = 1 << 18

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    " from d1fleet.checkin.compilers import main; main(sys.argv[1:])"
)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The folder, or the archive, that this package lies in."""


def argv(cache: str, tools: Sequence[str], nice: int) -> list[str]:
    """The command that prints what `read` reads.

    Args:
        cache: a folder of this user's to remember the answer in, or "".
    """
    return [sys.executable, "-ISE", "-c", _START, _ROOT, str(nice), cache, *tools]


def main(words: Sequence[str]) -> None:
    """What that command runs."""
    # A unit may forbid it.
    with contextlib.suppress(OSError):
        os.nice(int(words[0]))
    parts, sure = toolchain.examine(words[2:], ENVIRON, words[1] or None)
    json.dump({"parts": parts, "sure": sure}, sys.stdout)


def read(data: bytes) -> dict[str, str]:
    """The parts, from what the command has printed; empty when it was not sure, or has failed."""
    try:
        found = strictjson.members(strictjson.read(data, _MOST_BYTES), "it", ("parts", "sure"))
    except BadDocumentError:
        return {}
    parts: Any = found["parts"]
    return parts if found["sure"] is True and not toolchain.parts_fault(parts) else {}


def look(cache: str, tools: Sequence[str]) -> dict[str, str]:
    """The parts, for who waits for them; empty when they cannot be known."""
    try:
        done = subprocess.run(
            argv(cache, tools, 0),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=LONGEST_S,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return read(done.stdout)


class Look:
    """A look that is under way; `done` is called once, with what `read` returns."""

    def __init__(
        self, loop: Loop, cache: str, tools: Sequence[str], done: Callable[[dict[str, str]], None]
    ) -> None:
        """Raises:
        OSError: no process can be started.
        """
        self._loop = loop
        self._done = done
        self._data = bytearray()
        self._process = subprocess.Popen(
            argv(cache, tools, NICE),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdout
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._timer: Timer = loop.call_later(LONGEST_S, self._end)
        loop.on_read(self._fd, self._readable)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, 1 << 16)
            self._data += data
            if not data or len(self._data) > _MOST_BYTES:
                self._end()

    def _end(self) -> None:
        self.close()
        self._done(read(bytes(self._data)))

    def close(self) -> None:
        """End it; `done` is not called any more."""
        assert self._process.stdout
        if self._process.stdout.closed:
            return
        self._timer.cancel()
        self._loop.forget(self._fd)
        self._process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
