"""What ansible-inventory answered before, so that a build need not wait a third of a second for it.

An entry's name is a digest of all that the answer depends on: paths, sizes and times of the files, Ansible's
version and settings. What programs and plugins answer is never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from . import __version__
from .errors import RuntimeFolderError
from .fleet import Inventory
from .folders import cache_folder
from .hostvars import VARIABLES

_MOST_FILES = 5000
"""An inventory of more files is not remembered: to look at them all would take as long as to read them."""

_MOST_ENTRIES = 50
"""Entries of the cache; the oldest go first."""

_USUAL_CONFIGS = ("~/.ansible.cfg", "/etc/ansible/ansible.cfg")

_PLUGIN = re.compile(rb"(?:^|[{,])\s*[\"']?plugin[\"']?\s*:", re.MULTILINE)

REGISTRY_SUFFIXES = (".d1fleet.yml", ".d1fleet.yaml")
"""Of files that name a registry (plugins/inventory/registry.py)."""

Stamps = tuple[tuple[str, int, int, int], ...]
"""Path, time, size and inode of files."""


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """All files that inventories are made of, with variables beside them."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not path.is_dir():
            yield path
        for top in [path] if path.is_dir() else [path.parent / "group_vars", path.parent / "host_vars"]:
            for folder, folders, names in os.walk(top, followlinks=True):
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((status.st_dev, status.st_ino))
                yield from (Path(folder, name) for name in names)


def registry_files(paths: Sequence[Path]) -> list[Path]:
    """Those files of inventories that name a registry; what cannot be looked at has none."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += (file for file in _files(paths) if file.name.endswith(REGISTRY_SUFFIXES))
    return found


def entry_key(paths: Sequence[Path], config: str | None) -> str | None:
    """What names the answer in the cache; None when it must not be remembered.

    Args:
        config: the ansible.cfg to be used; None lets Ansible find the user's.
    """
    try:
        files: list[tuple[str, int, int]] = []
        for file in _files(paths):
            status = file.stat()
            if len(files) >= _MOST_FILES or _is_program(file, status.st_mode):
                return None
            files.append((str(file), status.st_mtime_ns, status.st_size))
        configs = [config, *map(os.path.expanduser, _USUAL_CONFIGS)]
        for name in filter(None, configs):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name)
                files.append((name, status.st_mtime_ns, status.st_size))
        version = metadata.version("ansible-core")
    except (OSError, metadata.PackageNotFoundError):
        return None
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("ANSIBLE_"))
    # What is kept of an answer depends on what was read of it at the time.
    everything = [__version__, VARIABLES, version, list(map(str, paths)), config, settings, sorted(files)]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def stamps(paths: Sequence[str | Path], config: str | None) -> Stamps:
    """What changes when a file of the inventory does, comes or goes; contents are not read."""
    found = []
    names = [config, *_USUAL_CONFIGS]
    with contextlib.suppress(OSError):
        names += map(str, _files([Path(path) for path in paths]))
    for name in filter(None, names):
        with contextlib.suppress(OSError):
            status = os.stat(os.path.expanduser(name))
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))


def _is_program(file: Path, mode: int) -> bool:
    if mode & 0o111 or file.name.endswith(REGISTRY_SUFFIXES):
        return True
    if file.suffix in (".yml", ".yaml"):
        with open(file, "rb") as content:
            return _PLUGIN.search(content.read()) is not None
    return False


def remembered(key: str) -> Inventory | None:
    """The answer of that name; None when there is none that is whole."""
    # An entry that is missing, cut off or of another shape is made anew.
    with contextlib.suppress(OSError, ValueError, RuntimeFolderError):
        entry = json.loads((cache_folder("inventory") / f"{key}.json").read_text("utf-8"))
        return Inventory.of(entry)
    return None


def remember(key: str, inventory: Inventory) -> None:
    """Keep an answer, mode 0600."""
    # Without a cache the next build takes a third of a second longer; that is no reason to stop this one.
    with contextlib.suppress(OSError, RuntimeFolderError):
        folder = cache_folder("inventory")
        number, name = tempfile.mkstemp(prefix=".new-", dir=folder)  # 0600
        try:
            with open(number, "w", encoding="utf-8") as file:
                json.dump(inventory.to_json(), file)
            os.replace(name, folder / f"{key}.json")
        except OSError:
            os.unlink(name)
            raise
        entries = sorted(folder.glob("*.json"), key=lambda entry: entry.stat().st_mtime_ns)
        for entry in entries[:-_MOST_ENTRIES]:
            entry.unlink(missing_ok=True)
