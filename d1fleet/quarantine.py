"""Hosts whose compilers have disagreed with this machine's: kept out of later builds for a while.

A file that does not compile there and compiles here means that the host is not what it says: other headers, a
full disk, broken memory. It may as well compile wrongly without an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .runtime import state_folder

FOR_S = 24 * 3600.0
"""How long a host is left out: until somebody has looked after it, a day at most (a guess)."""


@dataclass(frozen=True)
class Entry:
    """Why a host is left out, and until when by the wall clock (it outlives a boot)."""

    file: str
    until: float


def path() -> Path:
    """Where they are kept, for this user; removing it lets all hosts in again."""
    return state_folder("distcc") / "quarantine.json"


def load(now: Callable[[], float] = time.time) -> dict[str, Entry]:
    """Hosts that are left out now, by name. A file that makes no sense keeps nobody out."""
    try:
        found = {name: Entry(str(entry["file"]), float(entry["until"])) for name, entry in _kept().items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}
    return {name: entry for name, entry in found.items() if now() < entry.until <= now() + FOR_S}


def add(disagreed: Mapping[str, str], now: Callable[[], float] = time.time) -> None:
    """Leave hosts out, by name with a file that they have got wrong."""
    every = load(now) | {name: Entry(file, now() + FOR_S) for name, file in disagreed.items()}
    where = path()
    new = where.with_suffix(".new")
    new.write_text(json.dumps({name: asdict(entry) for name, entry in every.items()}, indent=1) + "\n")
    new.replace(where)


def _kept() -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = json.loads(path().read_text())
        return found
    except (OSError, ValueError):
        return {}
