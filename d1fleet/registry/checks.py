"""Whether a record can be meant. Pure.

The same checks stand before what is stored, and behind what is read from a database or a backup: so whatever
was stored can be read again.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ..checkin import values
from ..hostsfile import MOST_SLOTS
from ..server.toolchain import parts_fault
from . import model
from .model import AuditEntry, FieldError, Host, Key, Operator, Project, Record, Token

ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
SHORT_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)

LONGEST_TEXT = 1000
"""Characters of a note, a hash or a detail: more is no text for people (a guess)."""

LATEST = 253402300800.0
"""Seconds since the epoch of the year 10000: later than that is a slip."""

MOST_GENERATION = 1 << 53
"""The largest whole number that JSON is sure to keep."""

R = TypeVar("R", Project, Host, Token, Operator, Key, AuditEntry)


class UnfitError(Exception):
    """An entry that cannot be meant, or does not fit to the others.

    Args:
        table: its kind, as the tables and the lists in a backup are called.
        key: its own, or where it stands.
        fault: what is wrong.
    """

    def __init__(self, table: str, key: str, fault: str) -> None:
        super().__init__(f"{table}, {model.plain(key) or '(no key)'}: {fault}")


def make(kind: type[R], values: Mapping[str, object]) -> R:
    """A record of a kind, from its fields.

    Args:
        values: exactly its fields; lists may stand for tuples.

    Raises:
        FieldError: one is missing, unknown, of another type, or has a value that cannot be meant.
    """
    hints = _hints(kind)
    for name in values:
        if name not in hints:
            raise FieldError(model.plain(name), f"there is no such field; there are {', '.join(hints)}")
    typed = {}
    for name, hint in hints.items():
        if name not in values:
            raise FieldError(name, "it is missing")
        typed[name] = _typed(name, values[name], hint)
    made = cast(Any, kind)(**typed)
    check(made)
    return cast(R, made)


def check(record: Record | AuditEntry) -> None:
    """Raises:
    FieldError: a field has a value that cannot be meant.
    """
    for name, hint in _hints(type(record)).items():
        value = _typed(name, getattr(record, name), hint)
        if isinstance(value, str):
            _text(name, value)
    if isinstance(record, Host):
        _check_host(record)
    if isinstance(record, Project | Operator | Key):
        record.__post_init__()
    if isinstance(record, Token | Key):
        _matches("id", record.id, SHORT_ID, "8 hex digits")
        _matches("digest", record.digest, DIGEST, "64 hex digits")
    if isinstance(record, Token):
        model.check_project_name(record.project)
    if isinstance(record, Operator) and not record.password_hash:
        raise FieldError("password_hash", "it is empty")


def fitting(text: str) -> str:
    """A text for people, as it may be stored: one line, and not endless."""
    clean = "".join(each if each.isprintable() else "?" for each in text[: LONGEST_TEXT + 1])
    return clean if len(clean) <= LONGEST_TEXT else clean[: LONGEST_TEXT - 3] + "..."


def _check_host(host: Host) -> None:
    """What is not known yet is empty."""
    _matches("id", host.id, ID, "32 hex digits")
    model.check_host_name(host.name)
    if len(host.projects) > model.MOST_PROJECTS or len(set(host.projects)) != len(host.projects):
        raise FieldError("projects", f"at most {model.MOST_PROJECTS}, each once")
    for project in host.projects:
        model.check_project_name(project)
    for name in ("address", "fixed_address"):
        if text := getattr(host, name):
            model.read_address(name, text)
    model.check_number("slots", host.slots, 1, MOST_SLOTS)
    model.check_number("port", host.port, 1, 65535)
    model.check_number("ssh_port", host.ssh_port, 1, 65535)
    for name, (pattern, words) in _TEXTS.items():
        if text := getattr(host, name):
            _matches(name, text, pattern, words)
    if len(host.host_keys) > model.MOST_HOST_KEYS:
        raise FieldError("host_keys", f"there are more than {model.MOST_HOST_KEYS}")
    for each in host.host_keys:
        _matches("host_keys", each, values.HOST_KEY, "public keys as ssh writes them, without a comment")
    if fault := parts_fault(host.toolchain):
        raise FieldError("toolchain", fault)
    model.check_number("generation", host.generation, 1, MOST_GENERATION)


_TEXTS = {
    "owner": (values.OWNER, "a name of plain letters and digits, at most 64 characters"),
    "version": (model.VERSION, "a version such as 0.1.0"),
    "system": (values.SYSTEM, "the name of a distribution, at most 64 characters"),
    "machine": (model.MACHINE, "64 hex digits"),
    "session": (model.SESSION, "32 hex digits"),
}


def _hints(kind: type[object]) -> dict[str, object]:
    """The types of a record's fields."""
    if kind not in _KNOWN_HINTS:
        _KNOWN_HINTS[kind] = typing.get_type_hints(kind)
    return _KNOWN_HINTS[kind]


_KNOWN_HINTS: dict[type[object], dict[str, object]] = {}


def _typed(name: str, value: object, hint: object) -> object:
    """The value, as the field's type has it."""
    if hint is str and isinstance(value, str):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= LATEST or math.isnan(value):
            raise FieldError(name, f"it has to be seconds since the epoch, at most {LATEST:.0f}")
        return float(value)
    if hint == tuple[str, ...] and isinstance(value, list | tuple):
        if all(isinstance(each, str) for each in value):
            return tuple(value)
    elif hint == dict[str, str] and isinstance(value, dict):
        return dict(value)  # `parts_fault` looks at what is in it
    raise FieldError(name, f"it has to be {_WORDS[hint]}")


_WORDS: dict[object, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple[str, ...]: "a list of texts",
    dict[str, str]: "a mapping of texts",
}


def _text(name: str, text: str) -> None:
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise FieldError(name, f"at most {LONGEST_TEXT} characters, none of which is a control character")


def _matches(name: str, text: str, pattern: re.Pattern[str], words: str) -> None:
    if pattern.fullmatch(text) is None:
        raise FieldError(name, f"it has to be {words}")
