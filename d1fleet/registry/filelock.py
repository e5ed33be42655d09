"""A lock that says which process has a file."""

from __future__ import annotations

import contextlib
import fcntl
import os

from .storeerrors import StoreError
from .storefiles import give_to_owner


class FileLock:
    """flock(2) on a file of its own, which stays: it ends with the process, however that ends.

    Args:
        path: of the lock.
        what: is locked, for messages.
    """

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what
        self._fd = -1

    def take(self) -> None:
        """Have it, if need be anew, where its file was deleted.

        Raises:
            StoreError: another process has it.
            OSError: its file cannot be made.
        """
        while not self._is_ours():
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                if not isinstance(error, BlockingIOError):
                    raise
                raise StoreError(
                    f"the database {self._what} is in use by another process"
                    + (f", {holder}" if holder.isdigit() else ""),
                    "only one registry may have it: stop that one first",
                ) from error
            self.let_go()
            self._fd = fd
            give_to_owner(fd, self._path)
            with contextlib.suppress(OSError):  # for people only, and the disk may be full
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_ours(self) -> bool:
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except FileNotFoundError:
            return False
