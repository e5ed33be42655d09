"""Word to systemd and its journal: sd_notify(3), and lines with a priority as sd-daemon(3) has it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6


def log(priority: int, text: str) -> None:
    """One line on stderr; nothing in it plays with whoever reads it."""
    line = "".join(each if each.isprintable() else " " for each in text)[:2000]
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"<{priority}>{line}\n")
        sys.stderr.flush()


class Notifier:
    """Tells systemd how we are; nobody, where it did not start us."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self.watchdog_s = 0.0
        """We are killed when nothing is heard of us for so long; 0: we are not."""
        with contextlib.suppress(ValueError):
            if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
                self.watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
        self._status = ""

    def tell(self, *words: str) -> None:
        """Assignments such as READY=1."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.setblocking(False)
                told.sendto("\n".join(words).encode("utf-8", "replace"), self._address)

    def status(self, text: str) -> None:
        """What `systemctl status` shows; said when it is another."""
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")
