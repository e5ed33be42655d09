"""Copies of a tree that may be broken, and what differs between what was made in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import journal
from .errors import TreeError
from .trust import FILE

FOLDER = ".d1fleet-chaos"

_NOT_COPIED = (FOLDER, ".d1fleet-lost", ".d1fleet-journal", ".d1fleet-late", FILE)
"""The settings of the tree are found in the folder above a copy, where they are trusted."""

_OURS = ".d1fleet"
_HISTORY = (".git", ".hg", ".svn")


class Copies:
    """The folder below a tree in which it is built, always at one place: artefacts have paths in them.

    Raises:
        TreeError: it cannot be made.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self.folder = tree / FOLDER
        self.copy = self.folder / "tree"
        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n")
        except OSError as error:
            raise TreeError(
                f"{self.folder} cannot be made: {error.strerror}",
                "chaos needs room in the tree for a copy of it",
            ) from error

    def renew(self) -> None:
        """A fresh copy.

        Raises:
            TreeError: it cannot be made.
        """
        self._forget()
        try:
            self.copy.mkdir()
            names = sorted(name for name in os.listdir(self._tree) if name not in _NOT_COPIED)
            paths = [str(self._tree / name) for name in names]
            argv = ["cp", "-a", "--reflink=auto", "-t", str(self.copy), "--", *paths]
            done = subprocess.run(argv, capture_output=True, text=True, check=False) if names else None
        except OSError as error:
            raise TreeError(f"{self.copy} cannot be made: {error}", "look at that folder") from error
        if done is not None and done.returncode:
            said = done.stderr.strip().partition("\n")[0]
            raise TreeError(f"{self._tree} cannot be copied: {said}", "see whether there is room")

    def _forget(self) -> None:
        """With what d1fleet itself would remember of builds in it."""
        shutil.rmtree(self.copy, ignore_errors=True)
        journal.forget(os.fsencode(os.path.realpath(self.copy)))

    def remove(self) -> None:
        """Remove the copy, and all that is beside it."""
        self._forget()
        shutil.rmtree(self.folder, ignore_errors=True)


def artefacts(tree: Path) -> dict[str, str]:
    """Every file of a tree that is not ours, nor version control's, by its path from there, with its kind,
    mode, and content.
    """
    return dict(_artefacts(tree))


def _artefacts(tree: Path) -> Iterator[tuple[str, str]]:
    for place, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if not name.startswith(_OURS) and name not in _HISTORY]
        for name in [*names, *folders]:
            path = os.path.join(place, name)
            status = os.lstat(path)
            mode = status.st_mode
            if name.startswith(_OURS) or stat.S_ISDIR(mode):
                continue
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                content = ""
            yield os.path.relpath(path, tree), f"{mode:o} {content}"


def differences(clean: dict[str, str], other: dict[str, str]) -> list[str]:
    """Paths of what is missing, or another."""
    return sorted(path for path, what in clean.items() if other.get(path) != what)
