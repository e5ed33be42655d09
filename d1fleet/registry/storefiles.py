"""Files of databases: each with what SQLite keeps beside it, and readable for its owner alone."""

from __future__ import annotations

import contextlib
import os

COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database: they belong to one file, and spoil another one."""


def create(path: str) -> None:
    """An empty file that nobody else may read, as nobody may what SQLite makes beside it."""
    remove(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        give_to_owner(fd, path)
    finally:
        os.close(fd)


def give_to_owner(fd: int, path: str) -> None:
    """What root makes, to restore a backup, has to be usable for the user whose folder it is in."""
    if os.geteuid() == 0:
        folder = os.stat(os.path.dirname(path))
        os.fchown(fd, folder.st_uid, folder.st_gid)


def remove(path: str) -> None:
    """Remove a database, if there is one, that nobody has open."""
    for end in ("", *COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)


def protect(path: str) -> None:
    """Others may not read what is ours: it has the digests of passwords."""
    if os.stat(path).st_mode & 0o077:
        os.chmod(path, 0o600)


def sync(path: str) -> None:
    """Have a file, or the names in a folder, on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
