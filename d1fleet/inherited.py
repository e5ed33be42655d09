"""What Python hides of how we were started: closed standard streams, and the environment as it was."""

from __future__ import annotations

import os
import signal
import sys

closed_streams: tuple[int, ...] = ()
"""Standard streams that were closed when we began; make gets them closed again."""


def fill_closed_streams() -> None:
    """Put /dev/null where a standard stream is closed: else our next file would get its number."""
    global closed_streams
    found = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            found.append(fd)
    closed_streams = tuple(found)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (for as long as we run)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def default_child_signal() -> None:
    """Have SIGCHLD again where our parent ignored it: waiting for a child would find none."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def forget_coerced_locale() -> None:
    """Take LC_CTYPE out where Python has set it by itself (PEP 538): compilers and sort would heed it."""
    if "LC_CTYPE" in os.environ:
        with open("/proc/self/environ", "rb") as file:
            if not any(item.startswith(b"LC_CTYPE=") for item in file.read().split(b"\0")):
                del os.environ["LC_CTYPE"]
