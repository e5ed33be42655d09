"""One setting's value, from a text or from YAML. Pure: each reader takes the value and where it stands."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import sshargs
from .errors import UsageError
from .hostspec import MOST_SLOTS, parse_hosts
from .model import Host
from .rules import BadRule, Rule


@dataclass(frozen=True)
class Source:
    """Who said it."""

    name: str
    folder: Path
    """What relative paths are relative to."""

    def __str__(self) -> str:
        return self.name

    def fault(self, value: Any, wanted: str) -> UsageError:
        """The error that `value` is not what is `wanted` there."""
        return UsageError(f"{self.name} is {value!r}", f"it has to be {wanted}")


def hosts(value: Any, source: Source) -> tuple[Host, ...]:
    """Hosts by hostspec's grammar, in one text or a list."""
    return parse_hosts(value if isinstance(value, str) else words(value, source), source.name)


def text(value: Any, source: Source) -> str:
    """Any text that can be in an environment."""
    if isinstance(value, str) and "\0" not in value:
        return value
    raise source.fault(value, "a text")


def word(value: Any, source: Source) -> str:
    """A text that is not empty."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise source.fault(value, "a name")


def words(value: Any, source: Source) -> tuple[str, ...]:
    """A list of texts; one text is a list of one."""
    found = [value] if isinstance(value, str) else value
    if isinstance(found, Sequence) and all(isinstance(each, str) and "\0" not in each for each in found):
        return tuple(found)
    raise source.fault(value, "a list of texts")


def path(value: Any, source: Source) -> str:
    """A path, made absolute."""
    return os.path.normpath(source.folder / os.path.expanduser(word(value, source)))


def paths(value: Any, source: Source) -> tuple[str, ...]:
    """A list of paths, made absolute; at least one."""
    found = tuple(path(each, source) for each in words(value, source))
    if not found:
        raise source.fault(value, "a path, or a list of paths")
    return found


def folders(value: Any, source: Source) -> tuple[str, ...]:
    """A list of folders that are there, made absolute."""
    found = paths(value, source)
    for each in found:
        if not os.path.isdir(each):
            raise source.fault(each, "a folder that is there")
    return found


def readable_file(value: Any, source: Source) -> str:
    """A file that is there and can be read, made absolute."""
    found = path(value, source)
    if not os.path.isfile(found) or not os.access(found, os.R_OK):
        raise source.fault(found, "a file that is there and can be read")
    return found


def arguments(value: Any, source: Source) -> tuple[str, ...]:
    """A list of arguments, or a text that is split as a shell would."""
    if not isinstance(value, str):
        return words(value, source)
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise source.fault(value, f"written as for a shell ({error})") from error


def ssh_options(value: Any, source: Source) -> tuple[str, ...]:
    """Options of ssh that say how to connect, as an argument list."""
    found = arguments(value, source)
    try:
        sshargs.parse(found)
    except sshargs.BadOption as error:
        if not error.letter:
            raise UsageError(
                f"{source}: {error.word!r} is no option of ssh", "only options may stand there, no host"
            ) from error
        if error.lacks_value:
            raise UsageError(f"{source}: {error} lacks its value", "give the value after it") from error
        allowed = " ".join(f"-{each}" for each in sorted(sshargs.WITH_VALUE + sshargs.ALONE))
        raise UsageError(f"{source}: {error} of ssh cannot be used here", f"these can: {allowed}") from error
    return found


def number(least: int, most: int) -> Callable[[Any, Source], int]:
    """A reader of a whole number."""

    def read(value: Any, source: Source) -> int:
        digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
        found = int(value) if digits else value
        if isinstance(found, int) and not isinstance(found, bool) and least <= found <= most:
            return found
        raise source.fault(value, f"a whole number from {least} to {most}")

    return read


count = number(1, MOST_SLOTS)
"""A whole number of slots."""


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def flag(value: Any, source: Source) -> bool:
    """True or false; in a text as YAML writes them, or 1 and 0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise source.fault(value, "true or false")


def seconds(least: float, most: float) -> Callable[[Any, Source], float]:
    """A reader of a time."""

    def read(value: Any, source: Source) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if least <= number <= most:
            return number
        raise source.fault(value, f"a time of {least:g} to {most:g} seconds")

    return read


def rules(value: Any, source: Source) -> tuple[str, ...]:
    """A list of rules that can be read."""
    found = words(value, source)
    for each in found:
        try:
            Rule.parse(each)
        except BadRule as error:
            raise UsageError(
                f"{source}: {each!r} is no rule", f"{error}, as in `goal=install-*` or `!folder=docs`"
            ) from error
    return found


def one_of(known: Sequence[str]) -> Callable[[Any, Source], str]:
    """A reader of one of some words."""

    def read(value: Any, source: Source) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise source.fault(value, f"one of {', '.join(known)}")

    return read
