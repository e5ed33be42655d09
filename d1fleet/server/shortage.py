"""Was there no memory, or no room on the disk, while a sub-make ran? Then its recipes were killed, or failed,
in the middle of a write; make has left that there, as it deletes half-written targets only when it is
interrupted itself.
"""

from __future__ import annotations

import os

MEMORY, ROOM = "memory", "room"

_LITTLE_ROOM = 64 << 20
"""Bytes (a guess): compilers remove what they could not write, so that a disk that was full is so no more."""


def kills() -> int:
    """How many processes the kernel has killed on this machine because memory was short, since it is up."""
    try:
        with open("/proc/vmstat") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def shortage(kills_before: int, folder: bytes) -> str:
    """What was short; empty when nothing was."""
    if kills() != kills_before:
        return MEMORY
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    # Some file systems do not count: they say 0 of 0.
    return ROOM if found.f_blocks and found.f_bavail * found.f_frsize < _LITTLE_ROOM else ""
