"""What a server that was killed has left: with its supervisors killed too, its jobs go on below init."""

from __future__ import annotations

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
    ours = {pid: process.session(pid) for pid in process.own() if process.started(pid)}
    sessions = {session for pid, session in ours.items() if mark in process.environment(pid)} - {
        0,
        os.getsid(0),
    }
    left = [pid for pid, session in ours.items() if session in sessions]
    if kill:
        for pid in left:
            process.send(pid, signal.SIGKILL)
    return not left
