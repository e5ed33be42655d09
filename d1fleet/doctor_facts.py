"""What hosts answer a doctor, with types: whatever a host sends, what is read here has them, and has bounds.

server/probe.py and server/canary.py say what it means. Pure.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from .errors import ProtocolError

LONGEST_TEXT = 1 << 16
MOST_ITEMS = 1000
_INT_LIMIT = 1 << 63
_FLOAT_LIMIT = 1e15

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    uid: int
    gid: int
    user: str
    group: str
    home: str
    home_usable: bool
    hostname: str
    machine: str
    addresses: tuple[str, ...]
    cpus: int
    nice: int
    """Of a login's processes."""
    nice_of_all: int
    """Of process 1."""


@dataclass(frozen=True)
class Versions:
    python: str
    make: str
    """First line of what it says; empty where there is none."""
    distcc: str


@dataclass(frozen=True)
class Server:
    from_installed: bool
    """It was started from the folder that the role fills."""
    is_installed: bool
    """This version lies there, usable or not."""
    versions: int
    launcher: bool


@dataclass(frozen=True)
class Slots:
    folder: str
    shared: bool
    made_at_boot: bool


@dataclass(frozen=True)
class Drained:
    on: bool
    reason: str
    everybody: bool


@dataclass(frozen=True)
class Memory:
    available_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class SshdSetting:
    keyword: str
    """In small letters."""
    value: str
    path: str
    line: int


@dataclass(frozen=True)
class Sshd:
    settings: tuple[SshdSetting, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class TimeServices:
    installed: tuple[str, ...]
    running: tuple[str, ...]


@dataclass(frozen=True)
class Toolchain:
    parts: Mapping[str, str]
    places: Mapping[str, str]
    record: Mapping[str, str]
    record_fault: str
    as_enrolled: bool
    tools: tuple[str, ...]


@dataclass(frozen=True)
class Mount:
    point: str
    type: str
    source: str
    options: str


@dataclass(frozen=True)
class Disk:
    what: str
    path: str
    free_bytes: int
    total_bytes: int
    free_files: int
    total_files: int
    """0 where the file system does not count them."""


@dataclass(frozen=True)
class Tree:
    difference: str
    """Why it is not the coordinator's; empty when it is."""
    mount: Mount
    write_fault: str
    clock_s: float | None
    """The host's clock, less the time stamp that a file got just then."""
    disk: Disk | None = None


@dataclass(frozen=True)
class Backoff:
    path: str
    age_s: float


@dataclass(frozen=True)
class Distcc:
    file: str
    """The project's hosts file, whether it is there or not; empty where there is no project."""
    text: str
    file_fault: str
    default: str
    """What /etc/distcc/hosts holds."""
    own_file: str
    """A hosts file of the user's own, which distcc takes instead; empty where there is none."""
    backoff: tuple[Backoff, ...]
    masquerade: tuple[str, ...]
    units: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Facts:
    """One host; a section that is None is in `missing`, with the reason."""

    identity: Identity | None = None
    versions: Versions | None = None
    server: Server | None = None
    slots: Slots | None = None
    drain: Drained | None = None
    memory: Memory | None = None
    sshd: Sshd | None = None
    time: TimeServices | None = None
    toolchain: Toolchain | None = None
    distcc: Distcc | None = None
    disk: tuple[Disk, ...] | None = None
    trees: tuple[Tree | None, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fresh:
    """How late changes of a tree are seen; None: not in time."""

    made_s: float | None
    grown_s: float | None


@dataclass(frozen=True)
class Try:
    compiler: str
    status: int
    seconds: float
    said: str
    log: str
    same: bool | None


@dataclass(frozen=True)
class Canary:
    connect: str
    tries: tuple[Try, ...]
    around: str


@dataclass(frozen=True)
class Log:
    readable: bool
    lines: tuple[str, ...]


def read(kind: type[T], answer: bytes) -> T:
    """An answer as one of the classes above.

    Raises:
        ProtocolError: it is no JSON, or a field is missing, unknown, of another type, or out of bounds.
    """
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"what the host tells of itself is no JSON: {error}") from error
    return typing.cast(T, _read(kind, value, kind.__name__))


def _read(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _object(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # X | None
        return None if value is None else _read(arguments[0], value, where)
    if origin is tuple:
        _expect(isinstance(value, list) and len(value) <= MOST_ITEMS, where)
        return tuple(_read(arguments[0], each, f"{where}[]") for each in value)
    if origin is not None:  # Mapping
        _expect(isinstance(value, dict) and len(value) <= MOST_ITEMS, where)
        return {
            _read(str, name, where): _read(arguments[1], each, f"{where}{{}}") for name, each in value.items()
        }
    if kind is float:
        _expect(type(value) in (int, float) and math.isfinite(value) and abs(value) < _FLOAT_LIMIT, where)
        return float(value)
    _expect(type(value) is kind, where)
    _expect(kind is not int or abs(value) < _INT_LIMIT, where)
    _expect(kind is not str or len(value) <= LONGEST_TEXT, where)
    return value


def _object(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where)
    hints = typing.get_type_hints(kind)
    needed = {
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    }
    _expect(needed <= value.keys() <= hints.keys(), where)
    return kind(**{name: _read(hints[name], each, f"{where}.{name}") for name, each in value.items()})


def _expect(good: bool, where: str) -> None:
    if not good:
        raise ProtocolError(f"what the host tells of itself makes no sense: {where}")
