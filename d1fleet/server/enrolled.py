"""What enrolment has left on this host: which toolchain each project has, the same on all of its hosts, and
which one this host had.

RECORD  {"version": 1, "projects": {"NAME": {"parts": {"cc": "..."}, "tools": ["aarch64-linux-gnu-gcc"]}}}
FACT    {"toolchain": {"parts": {"cc": "..."}}}
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import toolchain

RECORD = "/etc/d1fleet/toolchain.json"
FACT = "/etc/ansible/facts.d/d1fleet.fact"
OWNER = 0
"""Uid that alone may write it: what stands there lets a host take part in builds."""

VERSION = 1

_LONGEST = 1 << 20
"""Bytes: hundreds of projects."""


@dataclass(frozen=True)
class Enrolled:
    """One project on this host; empty parts when it is not enrolled for it."""

    parts: dict[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    """Looked at beside those of every project."""
    fault: str = ""
    """Why the record is not believed."""


def enrolled(project: str, path: str | None = None, owner: int | None = None) -> Enrolled:
    """What is recorded of a project; a record that cannot be believed is a fault, none at all is not.

    Args:
        path, owner: None for RECORD and OWNER.
    """
    if not project:
        return Enrolled()
    path = RECORD if path is None else path
    try:
        data = _read(path, OWNER if owner is None else owner)
        return _of(project, data)
    except (FileNotFoundError, NotADirectoryError):
        return Enrolled()
    except OSError as error:
        return Enrolled(fault=f"{path} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return Enrolled(fault=f"{path}: {error}")


def as_enrolled(found: Mapping[str, str], path: str | None = None, owner: int | None = None) -> bool:
    """Does this host compile with what it had when the record was written? False where that is not known.

    Args:
        found: what there is now.
        path, owner: None for FACT and OWNER.
    """
    try:
        fact: Any = json.loads(_read(FACT if path is None else path, OWNER if owner is None else owner))
        parts = fact["toolchain"]["parts"]
        return bool(found) and all(parts.get(name) == text for name, text in found.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _read(path: str, owner: int) -> bytes:
    # A fifo would hold us up, and a link may lead to what somebody else can write.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_uid != owner:
            raise ValueError(f"it belongs to uid {found.st_uid}, not to {owner}")
        if found.st_mode & 0o022:
            raise ValueError(f"it can be written by others (mode {stat.S_IMODE(found.st_mode):04o})")
        if found.st_size > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} bytes")
        return os.read(fd, _LONGEST)
    finally:
        os.close(fd)


def _of(project: str, data: bytes) -> Enrolled:
    try:
        record: Any = json.loads(data)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("projects"), dict):
        raise ValueError("it has no projects")
    if record.get("version") != VERSION:
        raise ValueError(f"it is not of version {VERSION}")
    if project not in record["projects"]:
        return Enrolled()
    found = record["projects"][project]
    if not isinstance(found, dict) or "parts" not in found:
        raise ValueError("the project has no parts in it")
    if found["parts"] == {}:
        return Enrolled()  # none of its hosts could be reached when this one was enrolled
    tools = found.get("tools", [])
    if not isinstance(tools, list) or len(tools) > toolchain.MOST_TOOLS:
        raise ValueError(f"the project's tools are no list of at most {toolchain.MOST_TOOLS}")
    if not all(isinstance(tool, str) and toolchain.TOOL_NAME.match(tool) for tool in tools):
        raise ValueError("a tool of the project is neither a name nor an absolute path")
    fault = toolchain.parts_fault(found["parts"])
    if fault:
        raise ValueError(fault)
    return Enrolled(dict(found["parts"]), tuple(tools))
