"""Builds of one configured tree at one path, one after the other, and what each of them made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PRODUCTS = (b"\x7fELF", b"!<arch>\n", b"!<thin>\n")
"""How objects, shared libraries and programs begin, and archives."""


@dataclass(frozen=True)
class Products:
    """What a build made or changed: relative path to digest, or to a link's target."""

    files: Mapping[str, str]
    binaries: frozenset[str]
    """Objects, archives, libraries, programs."""


@dataclass(frozen=True)
class Site:
    """A path where a configured tree is built again and again; its pristine copy keeps every time stamp.

    Attributes:
        pristine: the configured tree; it is moved here before the first build.
        path: where it is built, and where it was configured.
    """

    path: Path
    pristine: Path

    @classmethod
    def at(cls, path: Path) -> Site:
        """Take the configured tree at `path` as pristine."""
        site = cls(path, path.with_name(f"{path.name}.pristine"))
        path.rename(site.pristine)
        return site

    def restore(self) -> None:
        """Put the configured tree in place of what was built."""
        if self.path.exists():
            shutil.rmtree(self.path)
        # Links, hard links and times, nanoseconds included.
        subprocess.run(["cp", "-a", str(self.pristine), str(self.path)], check=True)

    def build(self, commands: Sequence[Sequence[str]], log: Path) -> Products:
        """Build from the configured state; both streams go to `log`.

        Raises:
            BuildFailed: a command did not end with 0.
        """
        self.restore()
        with log.open("wb") as out:
            for command in commands:
                done = subprocess.run(
                    command, cwd=self.path, stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
                if done.returncode:
                    last = log.read_text(errors="replace").splitlines()[-25:]
                    raise BuildFailed("\n".join([f"{command} ended with {done.returncode}:", *last]))
        return self.products()

    def products(self) -> Products:
        """What differs at the path from the configured tree."""
        before, after = _state(self.pristine), _state(self.path)
        made = sorted(name for name, state in after.items() if before.get(name) != state)
        digests = {name: _digest(self.path / name) for name in made}
        binaries = frozenset(name for name in made if _is_binary(self.path / name))
        return Products(digests, binaries)


class BuildFailed(RuntimeError):
    """A build did not end well; the text has its last lines."""


def differences(left: Products, right: Products) -> dict[str, str]:
    """What differs, by path, in words."""
    found = {}
    for name in sorted(left.files.keys() | right.files.keys()):
        one, other = left.files.get(name), right.files.get(name)
        if one != other:
            found[name] = "missing" if other is None else "only there" if one is None else "other content"
    return found


def _state(tree: Path) -> dict[str, tuple[int, int]]:
    state = {}
    for folder, _, names in os.walk(tree):
        # Folders that are links are names of folders to os.walk: what they lead to is seen at its own place.
        for name in names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            state[os.path.relpath(path, tree)] = (info.st_mtime_ns, info.st_size)
    return state


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_binary(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8).startswith(_PRODUCTS)
