"""What distcc's log says of a build: where each compilation ran, what fell back, and who was wrong. Pure.

With DISTCC_LOG set, distcc writes about 600 bytes a compilation. The wording is that of distcc 3.4; lines
that are not known are passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HERE = "localhost"

MEANINGS: Mapping[int, str] = {
    100: "an error of distcc's own",
    101: "wrong arguments",
    102: "a host could not be reached, or the connection to it failed",
    103: "distcc crashed",
    104: "out of memory",
    105: "a host specification that distcc does not understand",
    106: "input or output failed: a disk is full, or a host has closed the connection",
    107: "a file was cut short",
    108: "a host sent what is not distcc's protocol: another service listens at its port",
    109: "the compiler is distcc itself: the host's PATH has the masquerade in front",
    110: "the compiler is not there, or not in the host's masquerade folder",
    111: "recursion: distcc called itself",
    112: "the host could not drop root's rights",
    113: "access denied: this machine is no member there, or the compiler is not allowed",
    114: "somebody else uses what is needed",
    115: "no such file",
    116: "no host could be used, and falling back is off (--strict)",
    117: "the host's server is of another version",
    118: "a time limit was reached",
    119: "GSS-API failed",
    120: "the arguments could not be made local",
}
"""distcc's exit codes, as its exitcode.h has them, in words."""

NO_ANSWER = "it gave no answer: it does not let this machine in, or has not that compiler; its log tells"
"""For what distcc says in five questions."""

_LINE = re.compile(r"distcc\[(\d+)\] (?:\(\w+\) )?(.*)")
_STARTED = re.compile(r"exec on (\S+): ")
_DONE = re.compile(r"(?:ERROR: )?compile .* on (\S+) (completed ok|failed)")
_NOBODY = "Warning: failed to distribute, running locally instead"
_RETRIED = re.compile(r"Warning: remote compilation of '(.*)' failed, retrying locally")
_EXIT = re.compile(r"exit: code (\d+);")
_ERROR = re.compile(r"ERROR: (.*)")
_DISTRIBUTABLE = re.compile(r"compile from .* to ")
"""What distcc says of a command that it would send away, before it looks for a host."""

_NO_COMPILATION = re.compile(r"called for link|compiler apparently called not for compile")

CUT = 4000
"""Characters of a command line that surely stand in the log: a line of it ends at 4088."""


@dataclass
class Told:
    """A build, as its log tells it.

    Attributes:
        undistributable: what ran on this machine, since nothing else can: links, tests of configure.
        kept: those of them, as command lines, that went well and that distcc has not called links. Words are
            parted by blanks, and have double quotes around them where they hold some; see also CUT.
        here: compilations on this machine, which has slots as well.
        remote: compilations by host, as the hosts file names it: address with port, slots and options.
        fell_back: what a host did not do, and this machine did, by host; "" where all were out of order.
        reasons: the last error of each host that failed.
        disagreed: by host, files that failed there and compiled here.
        codes: how often distcc ended with one of its own codes.
    """

    undistributable: int = 0
    kept: list[str] = field(default_factory=list)
    here: int = 0
    remote: Counter[str] = field(default_factory=Counter)
    fell_back: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    disagreed: dict[str, list[str]] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)


@dataclass
class _Client:
    """One distcc: what it has said so far.

    Attributes:
        tried: the host that it has tried last; None for none, "" where none was left to try.
        retried: the file that the host's compiler has refused.
        distributable: it would send this command away.
        compiles: it has not said that the command compiles nothing.
        command: what it has started here.
    """

    tried: str | None = None
    error: str = ""
    retried: str | None = None
    fell_back: bool = False
    distributable: bool = False
    compiles: bool = True
    command: str = ""


def read(lines: Iterable[str]) -> Told:
    """The log of one build."""
    told = Told()
    clients: dict[str, _Client] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        client = clients.setdefault(match[1], _Client())
        _note(told, client, match[2])
        if _EXIT.match(match[2]):
            del clients[match[1]]  # its pid will be another's
    return told


def _note(told: Told, client: _Client, words: str) -> None:
    if started := _STARTED.match(words):
        _start(told, client, started[1], words[started.end() :])
    elif done := _DONE.match(words):
        _done(told, client, done[1], done[2])
    elif retried := _RETRIED.match(words):
        client.retried = retried[1]
    elif _DISTRIBUTABLE.match(words):
        client.distributable = True
    elif _NO_COMPILATION.match(words):
        client.compiles = False
    elif words == _NOBODY:
        client.tried = client.tried or ""
    elif code := _EXIT.match(words):
        if int(code[1]) in MEANINGS:
            told.codes[int(code[1])] += 1
    elif error := _ERROR.match(words):
        client.error = NO_ANSWER if "provided no answer" in error[1] else error[1]


def _start(told: Told, client: _Client, host: str, command: str) -> None:
    """Not all ways to fall back have a line of their own: a second start is what they have in common."""
    client.command = command
    if host != HERE:
        client.tried = host
    elif client.tried is not None and client.retried is None:
        client.fell_back = True
        told.fell_back[client.tried] += 1
        if client.error:
            told.reasons[client.tried] = client.error


def _done(told: Told, client: _Client, host: str, how: str) -> None:
    if host != HERE:
        # What a compiler has said no to has been compiled, too.
        told.remote[host] += 1
    elif client.retried is not None:
        if how != "failed" and client.tried is not None:
            told.disagreed.setdefault(client.tried, []).append(client.retried)
    elif client.fell_back:
        pass
    elif client.distributable:
        told.here += 1
    else:
        told.undistributable += 1
        if client.compiles and how != "failed":
            told.kept.append(client.command)
