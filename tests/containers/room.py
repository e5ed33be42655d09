"""Whether the kernel has room for more hosts: past this limit systemd starts, and its services do not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.containers.errors import NoRoom

INOTIFY_OF_A_HOST = 5
"""inotify(7) instances of one systemd and its D-Bus, counted on Debian 12 and 13."""

_LIMIT = "fs.inotify.max_user_instances"


def check_room(count: int) -> None:
    """Refuse hosts that would not come up.

    Raises:
        NoRoom: all of root's processes may not watch so many; the text says what to do.
    """
    limit, used = int(Path("/proc/sys", _LIMIT.replace(".", "/")).read_text()), _used()
    if used + count * INOTIFY_OF_A_HOST > limit:
        raise NoRoom(
            f"no room for {count} hosts: {_LIMIT} is {limit}, {used} are used, a host needs "
            f"{INOTIFY_OF_A_HOST}; mend: sysctl -w {_LIMIT}={max(1024, 2 * limit)}"
        )


def _used() -> int:
    """How many descriptors of inotify there are; those of containers are root's too."""
    used = 0
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for descriptor in folder.iterdir():
                with contextlib.suppress(OSError):
                    used += os.readlink(descriptor) == "anon_inode:inotify"
    return used
