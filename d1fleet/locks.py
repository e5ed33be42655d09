"""make's output lock: a POSIX lock over the whole of a file, taken here as an open-file lock.

Open-file locks conflict with make's own, and are not dropped when some other descriptor of the same file
is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

_F_OFD_SETLK = 37  # Linux; the fcntl module of Python 3.9 does not know it
_FLOCK = "hhqqi4x"


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def try_lock(fd: int) -> bool:
    """Take the lock if nobody has it; a file that cannot be locked counts as taken by us, as make does it."""
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def unlock(fd: int) -> None:
    """Give the lock back."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, _F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))
