"""JSON from somebody who is not trusted: bounded, and read member by member. Pure.

Every function of here either returns what it was asked for or says which value is wrong. A value that nobody
asked for is wrong, too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any

DEEPEST = 12
"""Our documents have half of that."""

MOST_CONTAINERS = 1 << 19
"""Objects and arrays: each takes 64 bytes of memory here, and two bytes of what was sent."""

LONGEST_NUMBER = 24
"""Digits; an integer of a million would take a minute to read."""


class BadDocumentError(ValueError):
    """A document is not what it has to be; says where, and what is wrong."""


def read(data: bytes, most_bytes: int) -> object:
    """A document.

    Raises:
        BadDocumentError: it is no JSON, or too large, or too deep, or a member comes twice.
    """
    if len(data) > most_bytes:
        raise BadDocumentError(f"it has more than {most_bytes} bytes")
    if data.count(b"{") + data.count(b"[") > MOST_CONTAINERS:
        raise BadDocumentError("it has too many parts")
    try:
        found: object = json.loads(
            data.decode("utf-8"),
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except BadDocumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise BadDocumentError(f"it is no JSON: {plain(str(error))}") from None
    _check_depth(found)
    return found


def _check_depth(document: object) -> None:
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise BadDocumentError("it is too deep")
        inside: Collection[Any] = ()
        if isinstance(value, dict):
            inside = value.values()
        elif isinstance(value, list):
            inside = value
        waiting.extend((each, depth + 1) for each in inside if isinstance(each, (dict, list)))


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise BadDocumentError("a number is too long")
    return int(text)


def _real(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise BadDocumentError("a number is too long")
    return float(text)


def _constant(text: str) -> float:
    raise BadDocumentError(f"{text} is no number")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadDocumentError("a member comes twice")
    return found


def plain(text: str, longest: int = 120) -> str:
    """As much of a text as may stand in a message of ours."""
    return "".join(each if each.isprintable() and each.isascii() else "?" for each in text[:longest])


def members(
    value: object, where: str, needed: Collection[str], others: Collection[str] = ()
) -> dict[str, Any]:
    """An object with these members.

    Args:
        where: how a message calls it.
        others: members that it may have.

    Raises:
        BadDocumentError: it is none, lacks one, or has another.
    """
    found = mapping(value, where, MOST_CONTAINERS)
    if lacking := [name for name in needed if name not in found]:
        raise BadDocumentError(f"{where} has no {lacking[0]}")
    for name in found:
        if name not in needed and name not in others:
            raise BadDocumentError(f"{where} has a member {plain(name)!r}, which nobody knows")
    return found


def mapping(value: object, where: str, most: int) -> dict[str, Any]:
    """An object of at most so many members of any name.

    Raises:
        BadDocumentError: it is none, or larger.
    """
    if not isinstance(value, dict):
        raise BadDocumentError(f"{where} is no object")
    if len(value) > most:
        raise BadDocumentError(f"{where} has more than {most} members")
    return value


def items(value: object, where: str, most: int) -> list[Any]:
    """An array of at most so many items.

    Raises:
        BadDocumentError: it is none, or longer.
    """
    if not isinstance(value, list):
        raise BadDocumentError(f"{where} is no array")
    if len(value) > most:
        raise BadDocumentError(f"{where} has more than {most} items")
    return value


def text(value: object, where: str, longest: int, pattern: re.Pattern[str] | None = None) -> str:
    """A text without control characters.

    Args:
        pattern: what the whole of it has to be.

    Raises:
        BadDocumentError: it is none.
    """
    if not isinstance(value, str):
        raise BadDocumentError(f"{where} is no text")
    if len(value) > longest:
        raise BadDocumentError(f"{where} has more than {longest} characters")
    if not value.isprintable() or (pattern is not None and pattern.fullmatch(value) is None):
        raise BadDocumentError(f"{where} is {plain(value)!r}, which cannot be meant")
    return value


def one_of(value: object, where: str, choices: Collection[str]) -> str:
    """One of some words.

    Raises:
        BadDocumentError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise BadDocumentError(f"{where} is none of {', '.join(choices)}")
    return value


def whole(value: object, where: str, least: int, most: int) -> int:
    """A whole number.

    Raises:
        BadDocumentError: it is none of that range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadDocumentError(f"{where} is no whole number from {least} to {most}")
    return value


def real(value: object, where: str, least: float, most: float) -> float:
    """A number.

    Raises:
        BadDocumentError: it is none of that range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadDocumentError(f"{where} is no number")
    if not math.isfinite(value) or not least <= value <= most:
        raise BadDocumentError(f"{where} is not from {least:g} to {most:g}")
    return float(value)


def flag(value: object, where: str) -> bool:
    """Yes or no.

    Raises:
        BadDocumentError: it is neither.
    """
    if not isinstance(value, bool):
        raise BadDocumentError(f"{where} is neither true nor false")
    return value
