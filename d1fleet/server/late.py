"""A note in the tree of what this host may have written there after its lease: when it was frozen, others may
have made the same since. Who can write the one can write the other, and whoever builds there next finds it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace

from .. import entries
from ..entries import Entry

_SLACK_S = 1.0
"""For what clocks, and times of files, are coarse by."""


def note(tree: bytes, makes: Sequence[Entry], late_s: float) -> None:
    """Leave it.

    Args:
        makes: what was at work; `since_ns` is filled in here.
        late_s: how long ago the lease ended.

    Raises:
        OSError: it cannot be written.
    """
    place = os.path.join(tree, entries.LATE)
    with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Under a name that nobody reads, until it is whole.
        name = secrets.token_hex(8)
        fd = os.open(f".{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        with open(fd, "wb") as file:
            since_ns = os.fstat(fd).st_mtime_ns - int((late_s + _SLACK_S) * 1e9)
            lines = [entries.began(replace(each, since_ns=since_ns)) for each in makes]
            lines += [entries.over(number) for number in sorted({each.attempt for each in makes})]
            file.write(entries.head(0.0, 0.0) + b"".join(lines))
        os.rename(f".{name}", name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
