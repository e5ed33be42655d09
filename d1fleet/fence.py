"""The site's own way to make sure that a host that cannot be asked does nothing any more: `fence`."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

from . import words
from .loop import Loop
from .model import Host

LIMIT_S = 60.0
"""For switching a machine off (a guess)."""


def fence(loop: Loop, command: str, host: Host, done: Callable[[str], None]) -> None:
    """Run the command in a thread of its own (`run_about`, D1FLEET_FENCE).

    Args:
        done: called in the loop, with why the host may still be at work, empty when the command says that
            it is not.
    """

    def run() -> None:
        reason = run_about(host, command, "D1FLEET_FENCE")
        loop.post(lambda: done(reason))

    threading.Thread(target=run, name=f"fence {host.name}", daemon=True).start()


def run_about(host: Host, command: str, prefix: str) -> str:
    """Run a command of the site's about a host, as a shell takes it; our environment with PREFIX_HOST and
    PREFIX_ADDRESS in it. Returns why that failed, empty when it ended with 0.
    """
    names = {f"{prefix}_HOST": host.name, f"{prefix}_ADDRESS": host.address or host.name}
    try:
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**os.environ, **names},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {LIMIT_S:.0f} s"
    except OSError as error:
        return f"it cannot be run: {error.strerror}"
    if ended.returncode == 0:
        return ""
    said = words.plain(ended.stdout.decode(errors="replace").strip().rpartition("\n")[2])
    return f"exit status {ended.returncode}" + (f": {said}" if said else "")
