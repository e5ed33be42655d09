"""Hosts whose compilers have disagreed with this machine's: kept out of builds for a while.

A file that does not compile there and compiles here has its own reason (an .incbin, a plugin), or the host is
not what it says: other headers, a full disk, broken memory; then it may as well compile wrongly without an
error. One file proves nothing, and one that several hosts could not compile speaks for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import RuntimeFolderError
from .runtime import state_folder

FOR_S = 24 * 3600.0
"""How long a file counts, by the wall clock, for it outlives a boot: a day (a guess)."""

MANY = 3
"""So many files that no other host has got wrong, and a host is left out (a guess)."""

_MOST_FILES = 100
"""That are kept of a host."""


def path(make: bool = True) -> Path:
    """Where it is kept, for this user; removing it lets all hosts in again."""
    return state_folder("distcc", make=make) / "disagreed.json"


def left_out(now: Callable[[], float] = time.time) -> dict[str, list[str]]:
    """Hosts that are left out now, with the files that speak against them."""
    kept = _load(now())
    hosts_of = Counter(file for files in kept.values() for file in files)
    against = {host: sorted(file for file in files if hosts_of[file] == 1) for host, files in kept.items()}
    return {host: files for host, files in against.items() if len(files) >= MANY}


def add(disagreed: Mapping[str, Sequence[str]], now: Callable[[], float] = time.time) -> None:
    """Remember files that hosts have got wrong, by host. Where that cannot be kept, it is forgotten."""
    kept = _load(now())
    for host, files in disagreed.items():
        newest = {**kept.get(host, {}), **dict.fromkeys(files, now())}
        kept[host] = dict(list(newest.items())[-_MOST_FILES:])
    with contextlib.suppress(OSError, RuntimeFolderError):
        where = path()
        new = where.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(kept, indent=1) + "\n")
        new.replace(where)


def _load(now: float) -> dict[str, dict[str, float]]:
    """What is kept, and still counts. A file that makes no sense keeps nobody out."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(path(make=False).read_text())
        return {
            str(host): {file: float(at) for file, at in files.items() if now - FOR_S < float(at) <= now}
            for host, files in found.items()
        }
    except (OSError, RuntimeFolderError, TypeError, ValueError, AttributeError):
        return {}
