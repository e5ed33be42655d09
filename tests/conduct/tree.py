"""Trees of files: planted from a row, and looked at afterwards."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping

from .rows import File

Entry = tuple[str, int, bytes]
"""Kind, mode, and contents or a link's target."""

Snapshot = dict[bytes, Entry]
"""What stands below a tree, by its path there."""


def plant(root: bytes, tree: Mapping[bytes, File]) -> None:
    """Make a fresh tree at `root`, whatever was there; modes are as the row says, not as the umask."""
    shutil.rmtree(root, ignore_errors=True)
    os.mkdir(root, 0o755)
    for path, entry in tree.items():
        target = os.path.join(root, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if entry.link is not None:
            os.symlink(entry.link, target)
        elif entry.fifo:
            os.mkfifo(target)
        elif entry.folder:
            os.mkdir(target)
        else:
            with open(target, "wb") as file:
                file.write(entry.content)
            os.chmod(target, entry.mode)
    _age(root, tree)


def _age(root: bytes, tree: Mapping[bytes, File]) -> None:
    """All files alike old: what make finds out of date must not hang on the order of planting."""
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            os.utime(os.path.join(folder, name), (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    os.utime(root, (1_000_000_000, 1_000_000_000))


def snapshot(root: bytes) -> Snapshot:
    """What is below `root`."""
    found: Snapshot = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            mode = stat.S_IMODE(info.st_mode)
            if stat.S_ISLNK(info.st_mode):
                entry = ("link", 0, os.readlink(path))
            elif stat.S_ISDIR(info.st_mode):
                entry = ("folder", mode, b"")
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    entry = ("file", mode, file.read())
            else:
                entry = ("other", mode, b"")
            found[os.path.relpath(path, root)] = entry
    return found
