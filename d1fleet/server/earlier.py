"""What a server that was killed has left: with its supervisors killed too, its jobs go on below init."""

from __future__ import annotations

import contextlib
import os
import signal

from . import process


def end_jobs(socket: str, kill: bool) -> bool:
    """Is nothing left of what jobs of a dead server run? If `kill`, SIGKILL to what is.

    Args:
        socket: path of that server's socket for shims, which is in the environment of its jobs. What has
            emptied its environment is found by its session, as each make was started in one of its own.
    """
    mark = b"D1FLEET_SOCKET=" + os.fsencode(socket)
    ours = _own_processes()
    sessions = {session for pid, session in ours.items() if mark in _environment(pid)}
    left = [pid for pid, session in ours.items() if session in sessions]
    if kill:
        for pid in left:
            process.send(pid, signal.SIGKILL)
    return not left


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
