"""Reads files that others may have put there: no link is followed, and nothing but a plain file is opened."""

from __future__ import annotations

import errno
import os
import stat


def read(path: str, most_bytes: int, dir_fd: int | None = None) -> tuple[bytes, os.stat_result]:
    """A file's content, at most so many bytes of it, and what it is.

    Raises:
        OSError: it is not there, or no plain file.
    """
    # A fifo would hold us up, were it waited for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", path)
        data = bytearray()
        while len(data) < most_bytes and (piece := os.read(fd, min(1 << 20, most_bytes - len(data)))):
            data += piece
        return bytes(data), found
    finally:
        os.close(fd)
