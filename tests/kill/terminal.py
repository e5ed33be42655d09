"""A terminal for a program under test: pty(7)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
import time
from types import TracebackType


class Terminal:
    """A pseudo terminal; what is written to it is kept in `text` as far as it was read."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        self.text = ""

    def become_controlling(self) -> None:
        """In the child, after setsid: this is its terminal, and it is the foreground."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def press(self, keys: str) -> None:
        """Type; `^C` is "\\x03", `^Z` is "\\x1a"."""
        os.write(self._master, keys.encode())

    def wait_for(self, *texts: str, limit_s: float = 20.0) -> str:
        """Read until one of `texts` has come since the last time; what stands before it is taken away.

        Raises:
            TimeoutError: none came; with what did.
        """
        deadline = time.monotonic() + limit_s
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        while True:
            for text in texts:
                if text in self.text:
                    self.text = self.text.partition(text)[2]
                    return text
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"no {texts} on the terminal, but: {self.text!r}")
            with contextlib.suppress(BlockingIOError):
                self.text += os.read(self._master, 65536).decode(errors="replace")

    @property
    def foreground(self) -> int:
        """The process group that keys' signals go to."""
        return os.tcgetpgrp(self._master)

    def hang_up(self) -> None:
        """What happens when its window is closed."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        self.hang_up()
        os.close(self.slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
