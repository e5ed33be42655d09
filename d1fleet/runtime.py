"""Folders of ours on the coordinator's machine: one for each build, with its socket, and what is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from .errors import RuntimeFolderError
from .folders import locked_folder, own_folder
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
    name, lock = locked_folder("builds", lambda stale: remove_build_folder(Path(stale)))
    folder = Path(name)
    _locks.append(lock)  # held until this process ends, however it ends
    if len(str(folder / "socket")) > _LONGEST_SOCKET_PATH:
        raise RuntimeFolderError(
            f"{folder} is too long a path for a socket", "set XDG_RUNTIME_DIR to a shorter one"
        )
    return folder


def remove_build_folder(folder: Path) -> None:
    """Remove a build's folder, and what its coordinator has left elsewhere."""
    forget_noted(folder / PROOFS)
    shutil.rmtree(folder, ignore_errors=True)


def state_folder(name: str = "", make: bool = True) -> Path:
    """A folder in the user's state folder, mode 0700, or that of all that is ours.

    Args:
        make: make it if need be; else it may not be there.

    Raises:
        RuntimeFolderError: it would not be ours alone, or cannot be made.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    base = base if os.path.isabs(base) else os.path.expanduser("~/.local/state")
    folder = os.path.join(base, "d1fleet")
    if make:
        try:
            os.makedirs(base, 0o700, exist_ok=True)
        except OSError as error:
            raise RuntimeFolderError(
                f"{base} cannot be made: {error.strerror}", "set XDG_STATE_HOME"
            ) from error
    for path in (folder, os.path.join(folder, name)):
        if make or os.path.lexists(path):
            own_folder(path)
    return Path(folder, name)


def tree_name(folder: bytes) -> str:
    """What stands for a tree in names of files that are kept elsewhere."""
    return hashlib.sha256(folder).hexdigest()[:16]
