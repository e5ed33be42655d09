"""GNU make's command line, read as make reads it.

Follows main.c of make 4.2 to 4.4 (`switches`, `decode_switches`) and getopt_long(3): options may follow
goals, short ones can be bundled, long ones abbreviated. Everything is bytes; pure.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class _Takes(enum.Enum):
    NOTHING = 0
    VALUE = 1  # the rest of the word, else the next word
    ATTACHED = 2  # the rest of the word, or nothing
    NUMBER = 3  # as ATTACHED, but the next word too when it is all digits
    FLOAT = 4  # as ATTACHED, but the next word too when it begins like a number


_SHORT: dict[bytes, _Takes] = {
    **dict.fromkeys((b"%c" % c for c in b"bBdehikLmnpqrRsStvw"), _Takes.NOTHING),
    **dict.fromkeys((b"%c" % c for c in b"CEfIoW"), _Takes.VALUE),
    b"j": _Takes.NUMBER,
    b"l": _Takes.FLOAT,
    b"O": _Takes.ATTACHED,
}

# Long name -> letter, or the name itself where there is no letter.
_LONG: dict[bytes, bytes] = {
    b"always-make": b"B", b"environment-overrides": b"e", b"eval": b"E", b"help": b"h",
    b"ignore-errors": b"i", b"keep-going": b"k", b"check-symlink-times": b"L",
    b"just-print": b"n", b"dry-run": b"n", b"recon": b"n", b"print-data-base": b"p", b"question": b"q",
    b"no-builtin-rules": b"r", b"no-builtin-variables": b"R", b"silent": b"s", b"quiet": b"s",
    b"no-keep-going": b"S", b"stop": b"S", b"touch": b"t", b"version": b"v", b"print-directory": b"w",
    b"directory": b"C", b"file": b"f", b"makefile": b"f", b"include-dir": b"I", b"jobs": b"j",
    b"load-average": b"l", b"max-load": b"l", b"old-file": b"o", b"assume-old": b"o",
    b"output-sync": b"O", b"what-if": b"W", b"new-file": b"W", b"assume-new": b"W",
    **{name: name for name in (
        b"debug", b"trace", b"no-print-directory", b"warn-undefined-variables", b"no-silent", b"shuffle",
        b"temp-stdin", b"jobserver-auth", b"jobserver-fds", b"jobserver-style", b"sync-mutex")},
}  # fmt: skip

_TAKES: dict[bytes, _Takes] = {
    **_SHORT,
    **dict.fromkeys(
        (b"trace", b"no-print-directory", b"warn-undefined-variables", b"no-silent"), _Takes.NOTHING
    ),
    **dict.fromkeys((b"debug", b"shuffle"), _Takes.ATTACHED),
    **dict.fromkeys(
        (b"temp-stdin", b"jobserver-auth", b"jobserver-fds", b"jobserver-style", b"sync-mutex"), _Takes.VALUE
    ),
}

_ASSIGNMENT = re.compile(rb"[^ \t#=:]*[ \t]*(?::{1,3}|[+?!])?=")
_CLOSING = {b"(": b")", b"{": b"}"}


def is_long_option(name: bytes) -> bool:
    """Does make know this, or take it for the beginning of one that it knows? Without the dashes."""
    return any(known.startswith(name) for known in _LONG)


class Option(NamedTuple):
    """One option as make reads it. `name` is its letter, or its long name where it has no letter."""

    name: bytes
    value: bytes | None
    first: int
    """Index of the word it stands in."""
    offset: int
    """Where in that word its letter stands; 0 for a long option."""
    last: int
    """Index of the last word it takes."""


@dataclass(frozen=True)
class Arguments:
    """make's arguments, told apart as make does: options anywhere, goals and variables in order."""

    options: tuple[Option, ...]
    goals: tuple[bytes, ...]
    variables: tuple[bytes, ...]
    end: int | None
    """Index of the `--` that ends the options."""

    def values(self, *names: bytes) -> list[bytes | None]:
        """What options of these names were given, in order; None for one given without a value."""
        return [option.value for option in self.options if option.name in names]

    @property
    def jobs_are_sound(self) -> bool:
        """Is each -j one that make takes?"""
        return all(value is None or (value.isdigit() and int(value) > 0) for value in self.values(b"j"))

    @functools.cached_property
    def jobs(self) -> int | None:
        """The last -j: None is none, 0 is -j without a number."""
        jobs = None
        for value in self.values(b"j"):
            if value is None:
                jobs = 0
            elif value.isdigit() and int(value):
                jobs = int(value)
        return jobs


def arguments(argv: Sequence[bytes]) -> Arguments:
    """Read make's argv; argv[0], the program, is not looked at."""
    return _arguments(tuple(argv))


@functools.lru_cache(maxsize=16)  # several questions are asked of each argv, one after the other
def _arguments(argv: tuple[bytes, ...]) -> Arguments:
    return scan(argv, start=1)


def without_jobs(argv: Sequence[bytes]) -> list[bytes]:
    """argv without any -j."""
    words = list(argv)
    options = arguments(argv).options
    for option in reversed(options):
        if option.name == b"j":
            kept = words[option.first][: option.offset] if option.offset > 1 else b""
            if not kept and any(each.name == b"l" and each.last == option.first - 1 for each in options):
                kept = b"-"  # make ignores it; a -l without a number would take what follows for its own
            words[option.first : option.last + 1] = [kept] if kept else []
    return words


def scan(words: Sequence[bytes], start: int = 0) -> Arguments:
    """Read words from `start` on as options, goals and variables; indices count from the first word."""
    options: list[Option] = []
    rest: list[bytes] = []
    end = None
    at = start
    while at < len(words):
        word = words[at]
        if word == b"--":
            end = at
            rest += words[at + 1 :]
            break
        if word.startswith(b"--"):
            at = _scan_long(words, at, options)
        elif word.startswith(b"-") and word != b"-":
            at = _scan_bundle(words, at, options)
        else:
            rest.append(word)
        at += 1
    told_apart: tuple[list[bytes], list[bytes]] = ([], [])
    for word in rest:
        if word not in (b"", b"-"):
            told_apart[_is_assignment(word)].append(word)
    return Arguments(tuple(options), tuple(told_apart[0]), tuple(told_apart[1]), end)


def _scan_long(words: Sequence[bytes], at: int, options: list[Option]) -> int:
    """Read the long option at `at`; returns the index of the last word it takes."""
    given, equals, attached = words[at][2:].partition(b"=")
    if given in _LONG:
        names = {_LONG[given]}
    else:
        names = {name for long, name in _LONG.items() if long.startswith(given)}
    if len(names) != 1:
        return at  # unknown or ambiguous: make ends with its usage
    (name,) = names
    takes = _TAKES[name]
    if takes is _Takes.NOTHING and equals:
        return at
    value, last = _value(takes, attached if equals else None, words, at)
    options.append(Option(name, value, at, 0, last))
    return last


def _scan_bundle(words: Sequence[bytes], at: int, options: list[Option]) -> int:
    """Read the bundle of short options at `at`; returns the index of the last word it takes."""
    word = words[at]
    for offset in range(1, len(word)):
        name = word[offset : offset + 1]
        takes = _SHORT.get(name)
        if takes is None:
            continue
        if takes is _Takes.NOTHING:
            options.append(Option(name, None, at, offset, at))
            continue
        value, last = _value(takes, word[offset + 1 :] or None, words, at)
        options.append(Option(name, value, at, offset, last))
        return last
    return at


def _value(
    takes: _Takes, attached: bytes | None, words: Sequence[bytes], at: int
) -> tuple[bytes | None, int]:
    if attached is not None or at + 1 == len(words):
        return attached, at
    following = words[at + 1]
    detached = (
        takes is _Takes.VALUE
        # make takes an empty word for digits.
        or (takes is _Takes.NUMBER and re.fullmatch(rb"[0-9]*", following) is not None)
        or (takes is _Takes.FLOAT and re.match(rb"[0-9.]", following) is not None)
    )
    return (following, at + 1) if detached else (None, at)


def _is_assignment(word: bytes) -> bool:
    """As make's parse_variable_definition: any of its operators, none of them within a variable reference."""
    plain, at = bytearray(), 0
    while at < len(word):
        dollar = word.find(b"$", at)
        if dollar < 0:
            break
        plain += word[at:dollar] + b"$"
        opening = word[dollar + 1 : dollar + 2]
        at = dollar + 2
        if opening in _CLOSING:
            depth = 1
            while at < len(word) and depth:
                depth += {opening: 1, _CLOSING[opening]: -1}.get(word[at : at + 1], 0)
                at += 1
    plain += word[at:]
    return _ASSIGNMENT.match(bytes(plain).lstrip()) is not None
