"""The clock by which files of a tree have their times: that of its file server, which need not be ours."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time

_NO_SUCH_FILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS)
"""What a file system says that knows no files without a name: NFS, FUSE; EISDIR is an old kernel's."""

_AGAIN_S = 0.05
"""How long a time is good where each costs a file with a name: an older one is safe, if less exact."""


class TreeClock:
    """Tells that time, and leaves nothing in the tree.

    Args:
        folder: somewhere in the tree.
    """

    def __init__(self, folder: bytes) -> None:
        self._folder = folder
        self._named = False
        self._last_ns = 0
        self._asked = float("-inf")

    def now_ns(self) -> int:
        """Nanoseconds: what is written from now on is not older.

        Raises:
            OSError: no file can be made there.
        """
        if not self._named:
            try:
                return self._time_of(os.O_TMPFILE | os.O_WRONLY, self._folder)
            except OSError as error:
                if error.errno not in _NO_SUCH_FILE:
                    raise
                self._named = True
        now = time.monotonic()
        if now - self._asked > _AGAIN_S:
            path = os.path.join(self._folder, b".d1fleet-" + secrets.token_hex(8).encode())
            try:
                self._last_ns = self._time_of(os.O_CREAT | os.O_EXCL | os.O_WRONLY, path)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            self._asked = now
        return self._last_ns

    @staticmethod
    def _time_of(flags: int, path: bytes) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
