"""Folders of ours on the coordinator's machine: sockets of builds, and caches."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import RuntimeFolderError
from .folders import own_folder, runtime_base
from .tree import forget_noted

_LONGEST_SOCKET_PATH = 100
"""A socket's path may have 107 bytes."""

PROOFS = "proofs"
"""Names of files that the coordinator has put into trees."""

_locks: list[int] = []


def build_folder() -> Path:
    """A new folder for one build, mode 0700; those of builds that were killed are removed.

    Raises:
        RuntimeFolderError: it would not be ours alone, or cannot be made.
    """
    builds = Path(own_folder(os.path.join(runtime_base(), "builds")))
    try:
        with _locked(builds):
            _remove_stale(builds)
            folder = Path(tempfile.mkdtemp(prefix="b", dir=builds))
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise RuntimeFolderError(
            f"no folder can be made in {builds}: {error.strerror}", "free some space there"
        ) from error
    _locks.append(lock)  # held until this process ends, however it ends
    if len(str(folder / "socket")) > _LONGEST_SOCKET_PATH:
        raise RuntimeFolderError(
            f"{folder} is too long a path for a socket", "set XDG_RUNTIME_DIR to a shorter one"
        )
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time makes and removes folders in there."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove_stale(builds: Path) -> None:
    """Remove what killed builds have left: their locks are free, or they had none yet."""
    for folder in builds.iterdir():
        with contextlib.suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_build_folder(folder)
            finally:
                os.close(lock)


def remove_build_folder(folder: Path) -> None:
    """Remove a build's folder, and what its coordinator has left elsewhere."""
    forget_noted(folder / PROOFS)
    shutil.rmtree(folder, ignore_errors=True)


def cache_folder(name: str) -> Path:
    """A folder in the user's cache, mode 0700.

    Raises:
        RuntimeFolderError: it would not be ours alone, or cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    try:
        if not os.environ.get("XDG_CACHE_HOME") and not os.path.isdir(os.path.expanduser("~")):
            raise FileNotFoundError(errno.ENOENT, "there is no home folder")
        os.makedirs(base, 0o700, exist_ok=True)
    except OSError as error:
        raise RuntimeFolderError(
            f"{base} cannot be made: {error.strerror}", "set XDG_CACHE_HOME to a folder of yours"
        ) from error
    return Path(own_folder(os.path.join(own_folder(os.path.join(base, "d1fleet")), name)))
