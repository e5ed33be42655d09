"""What a server that was killed has left: with its supervisors killed too, its jobs go on below init."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from . import process

_ALONE_S = 1.5
"""They have this long to end of themselves: where supervisors live, makes delete half-written targets now."""

_LIMIT_S = 2.0
"""After that; a process in uninterruptible sleep cannot be killed."""


def end_jobs(socket: str) -> bool:
    """End what jobs of a dead server still run; True when nothing is left.

    Args:
        socket: path of that server's socket for shims, which is in the environment of its jobs. What has
            emptied its environment is found by its session, as each make was started in one of its own.
    """
    mark = b"D1FLEET_SOCKET=" + os.fsencode(socket)
    sessions: set[int] = set()
    kill_at = time.monotonic() + _ALONE_S
    while True:
        ours = _own_processes()
        sessions |= {session for pid, session in ours.items() if mark in _environment(pid)}
        left = [pid for pid, session in ours.items() if session in sessions]
        late_s = time.monotonic() - kill_at
        if not left or late_s > _LIMIT_S:
            return not left
        if late_s > 0:
            for pid in left:
                process.send(pid, signal.SIGKILL)
        time.sleep(0.01)


def _own_processes() -> dict[int, int]:
    """Processes of this user that have not ended, with their sessions; without those of our own."""
    found = {}
    own = os.getsid(0)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == os.geteuid() and process.state(int(name)) not in ("", "Z"):
                found[int(name)] = os.getsid(int(name))
    return {pid: session for pid, session in found.items() if session != own}


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []
