"""The lines of a journal: makes that are at work on hosts, or may have left something half written. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .protocol import SHIM_PLACE

LATE = b".d1fleet-late"
"""Folder in a tree: each file in it is a journal of what a host may have written there after its lease."""

_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A make at work on a host.

    Attributes:
        attempt: of the sub-make that it is, or is part of.
        since_ns: what changed before, by the tree's clock, it has not written.
        changed: variables of its environment that makefiles or recipes have set. What the user had there is
            not kept: that may be secret.
    """

    attempt: int
    host: str
    since_ns: int
    folder: bytes
    argv: Sequence[bytes]
    changed: Mapping[bytes, bytes]
    over: bool = False
    """It has ended for certain, and may have torn something."""


def changed(block: bytes, start: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Of an environment (NAME=value, NUL behind each): what is not as it was when the build began, and not
    ours.
    """
    found = dict(item.partition(b"=")[::2] for item in block.split(b"\0") if item)
    shims = (SHIM_PLACE, found.get(b"D1FLEET_SHIM", SHIM_PLACE))
    if b"PATH" in found:
        found[b"PATH"] = b":".join(each for each in found[b"PATH"].split(b":") if each not in shims)
    return {
        name: value
        for name, value in found.items()
        if start.get(name) != value and not name.startswith(b"D1FLEET_")
    }


def head(lease_s: float, grace_s: float) -> bytes:
    """The first line."""
    return _line({"format": _FORMAT, "lease_s": lease_s, "grace_s": grace_s})


def began(entry: Entry) -> bytes:
    """It is about to be sent to its host."""
    return _line(
        {
            "began": entry.attempt,
            "host": entry.host,
            "since_ns": entry.since_ns,
            "folder": os.fsdecode(entry.folder),
            "argv": [os.fsdecode(word) for word in entry.argv],
            "changed": {os.fsdecode(name): os.fsdecode(value) for name, value in entry.changed.items()},
        }
    )


def over(attempt: int) -> bytes:
    """Nothing of it writes any more, but it may have torn something."""
    return _line({"over": attempt})


def ended(attempt: int) -> bytes:
    """Nothing of it writes any more, and what it may have torn is put away."""
    return _line({"ended": attempt})


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def parse(data: bytes) -> tuple[float, float, list[Entry]]:
    """Lease and grace (seconds) of a journal, and what has not ended in it.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    whole, _, _ = data.rpartition(b"\n")  # behind it is what a build that was killed had half written
    if not whole:
        return 0.0, 0.0, []
    first, *lines = map(json.loads, whole.split(b"\n"))
    if first["format"] != _FORMAT:
        raise ValueError(f"format {first['format']}")
    entries: dict[int, list[Entry]] = {}
    for line in lines:
        if "ended" in line:
            entries.pop(int(line["ended"]), None)
            continue
        if "over" in line:
            attempt = int(line["over"])
            entries[attempt] = [replace(entry, over=True) for entry in entries[attempt]]
            continue
        entry = Entry(
            attempt=int(line["began"]),
            host=str(line["host"]),
            since_ns=int(line["since_ns"]),
            folder=os.fsencode(line["folder"]),
            argv=[os.fsencode(word) for word in line["argv"]],
            changed={os.fsencode(name): os.fsencode(value) for name, value in line["changed"].items()},
        )
        entries.setdefault(entry.attempt, []).append(entry)
    return (
        float(first["lease_s"]),
        float(first["grace_s"]),
        [each for found in entries.values() for each in found],
    )
