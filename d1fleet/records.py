"""The records that are kept without being asked for: of the last builds of each tree, in the user's state
folder.

    $XDG_STATE_HOME/d1fleet/records/TREE-TIME-PID.jsonl

TREE stands for the folder of the build, TIME is UTC and sorts as text. They hold command lines, so folder and
files are the user's alone. Bounds are kept when a build begins: what goes, oldest first, is the records
beyond the last few of this tree, then what is too much altogether.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from .runtime import state_folder, tree_name

MOST_BYTES = 256 << 20
"""Of all records together; a guess at what nobody misses."""

MOST_FILES = 1000
"""Of all trees together."""

_SUFFIX = ".jsonl"


def begin(folder: bytes, most: int) -> tuple[TextIO, str]:
    """A new file for the record of a build in `folder`, and its name; `most` of its tree stay, this one too.

    Raises:
        RuntimeFolderError: the folder for records cannot be used.
        OSError: the file cannot be made.
    """
    records = state_folder("records")
    _make_room(records, tree_name(folder), most - 1)
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f".{nanoseconds:09}"
    path = records / f"{tree_name(folder)}-{stamp}-{os.getpid()}{_SUFFIX}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(fd, "w", encoding="utf-8"), str(path)


def of_tree(folder: bytes) -> list[Path]:
    """Records of builds in `folder`, or, where there are none, in the nearest folder above that has some;
    newest first.

    Raises:
        RuntimeFolderError: the folder for records is not this user's alone.
    """
    every = _all(state_folder("records", make=False))
    place = os.path.realpath(folder)
    while True:
        found = [path for path in every if path.name.startswith(tree_name(place) + "-")]
        if found or place == os.path.dirname(place):
            return found[::-1]
        place = os.path.dirname(place)


def _all(records: Path) -> list[Path]:
    """All records, those of one tree oldest first."""
    try:
        return sorted(path for path in records.iterdir() if path.suffix == _SUFFIX)
    except FileNotFoundError:
        return []


def _make_room(records: Path, tree: str, most: int) -> None:
    every = _all(records)
    ours = [path for path in every if path.name.startswith(tree + "-")]
    gone = set(ours[: max(0, len(ours) - most)])
    left = sorted((path for path in every if path not in gone), key=lambda path: path.name.split("-", 1)[1])
    sizes = [_size(path) for path in left]
    total = sum(sizes)
    for number, (path, size) in enumerate(zip(left, sizes, strict=True)):
        if total <= MOST_BYTES and len(left) - number < MOST_FILES:
            break
        gone.add(path)
        total -= size
    _remove(sorted(gone))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # another build removes, too
            path.unlink()
