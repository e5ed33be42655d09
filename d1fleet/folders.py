"""Folders of ours: which ones to use, and whether they are safe to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import RuntimeFolderError

SYSTEM_SLOTS = "/run/d1fleet/slots"
"""Made by the role of the server (tmpfiles.d): owned by root, and sticky, so that all users share it."""


def slots_directory(
    environ: Mapping[str, str] = os.environ,
    uid: int | None = None,
    system: str = SYSTEM_SLOTS,
    run_user: str = "/run/user",
    temporary: str = "/tmp",
) -> str:
    """The folder of this host's slots: the one that all users share, else this user's own, made if need be.

    Raises:
        RuntimeFolderError: this user's own is another's, or can be written by others, or cannot be made.
    """
    if _is_shared(system):
        return system
    base = runtime_base(environ, uid, run_user, temporary)
    return own_folder(os.path.join(base, "slots"), uid)


def runtime_base(
    environ: Mapping[str, str] = os.environ,
    uid: int | None = None,
    run_user: str = "/run/user",
    temporary: str = "/tmp",
) -> str:
    """This user's folder for what lasts as long as the machine is up, made if need be.

    Raises:
        RuntimeFolderError: it is another's, or can be written by others, or cannot be made.
    """
    uid = os.geteuid() if uid is None else uid
    for base in (environ.get("XDG_RUNTIME_DIR", ""), os.path.join(run_user, str(uid))):
        # After su(1) the variable is still the other user's: then it says nothing about us.
        if os.path.isabs(base) and folder_fault(base, uid) is None:
            return own_folder(os.path.join(base, "d1fleet"), uid)
    return own_folder(os.path.join(temporary, f"d1fleet-{uid}"), uid)


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


def locked_folder(kind: str, remove: Callable[[str], None]) -> tuple[str, int]:
    """A new folder of this user alone for one process, and a descriptor whose lock says that it lives.

    Args:
        kind: name of the folder that all of a kind lie in.
        remove: removes one whose process was killed.

    Raises:
        RuntimeFolderError: it would not be ours alone, or cannot be made.
    """
    above = own_folder(os.path.join(runtime_base(), kind))
    try:
        guard = _guard(above)
        try:
            _remove_stale(above, remove)
            folder = tempfile.mkdtemp(prefix="b", dir=above)
            lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            os.close(guard)
    except OSError as error:
        raise RuntimeFolderError(
            f"no folder can be made in {above}: {error.strerror}", "free some space there"
        ) from error
    return folder, lock


def living_folders(kind: str, remove: Callable[[str], None]) -> list[str]:
    """Folders of that kind whose processes live, or that `remove` has left; those of killed ones are removed.

    Raises:
        OSError: they cannot be looked at.
    """
    above = os.path.join(runtime_base(), kind)
    guard = _guard(above)
    try:
        return _remove_stale(above, remove)
    finally:
        os.close(guard)


def _guard(above: str) -> int:
    """A descriptor that lets one at a time make and remove folders in there."""
    guard = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(guard, fcntl.LOCK_EX)
    return guard


def _remove_stale(above: str, remove: Callable[[str], None]) -> list[str]:
    """Remove what killed processes have left: their locks are free, or they had none yet. The rest lives."""
    living = []
    for name in os.listdir(above):
        with contextlib.suppress(OSError):
            folder = os.path.join(above, name)
            lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
                if os.path.lexists(folder):
                    living.append(folder)
            except BlockingIOError:
                living.append(folder)
            finally:
                os.close(lock)
    return living


def own_folder(path: str, uid: int | None = None) -> str:
    """The folder `path`, made if need be, and this user's alone. Its parent must be safe already.

    Raises:
        RuntimeFolderError: it is another's, or can be written by others, or cannot be made.
    """
    uid = os.geteuid() if uid is None else uid
    with contextlib.suppress(FileExistsError):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise
        except OSError as error:
            raise RuntimeFolderError(
                f"{path} cannot be made: {error.strerror}", "look at its parent"
            ) from error
    fault = folder_fault(path, uid)
    if fault is not None:
        raise RuntimeFolderError(f"{path} {fault}", f"find out who made it, then remove it: rm -r {path}")
    return path


def _is_shared(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    closed = not found.st_mode & 0o022 or bool(found.st_mode & stat.S_ISVTX)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and closed and os.access(path, os.W_OK | os.X_OK)


def folder_fault(path: str, uid: int) -> str | None:
    """Why a folder is not this user's alone; None when it is."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return error.strerror or "cannot be looked at"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != uid:
        return f"belongs to uid {found.st_uid}, not to {uid}"
    if found.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None
