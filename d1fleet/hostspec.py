"""Hosts named on a command line: `[user@]host[:port][/slots]`, by blanks or commas. Pure.

An IPv6 address stands in brackets. `localhost` is reached by SSH like any other host; `:` is this machine,
over pipes, as with GNU parallel.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

from .errors import UsageError
from .model import Host

HERE = ":"

MOST_SLOTS = 4096
"""More is a slip of the finger (a guess)."""

_WORD = re.compile(
    r"(?:(?P<user>[^\s/\[\]]+)@)?(?:\[(?P<six>[^\[\]\s]*)\]|(?P<host>[^@:/\[\]\s]+))"
    r"(?::(?P<port>[^:\s]*))?",
)
_MEND = "write hosts as [user@]host[:port][/slots], IPv6 addresses in brackets, `:` for this machine"


def parse_hosts(text: str | Sequence[str], where: str) -> tuple[Host, ...]:
    """Hosts from one text, or from several; port 22 and the like are left to ssh's configuration.

    Args:
        where: what the text came from, for messages.

    Raises:
        UsageError: no host, one that cannot be read, or one twice.
    """
    parts = [text] if isinstance(text, str) else text
    hosts = [_parse(word, where) for part in parts for word in re.split(r"[\s,]+", part) if word]
    if not hosts:
        raise UsageError(f"{where} names no host", "name hosts, or leave it out")
    names = [host.name.lower() for host in hosts]
    twice = list(dict.fromkeys(host.name for host in hosts if names.count(host.name.lower()) > 1))
    if twice:
        raise UsageError(
            f"{where} names {', '.join(twice)} twice", "name each host once; slots stand after a slash"
        )
    return tuple(hosts)


def _parse(word: str, where: str) -> Host:
    def fault(what: str) -> UsageError:
        return UsageError(f"{where}: {word!r} {what}", _MEND)

    name, slash, number = word.partition("/")
    slots = _number(number, MOST_SLOTS, fault, "slots") if slash else None
    if name == HERE:
        # Plain make would run at the nice value of the shell.
        return Host(name=HERE, transport="local", nice=0, slots=slots)
    found = _WORD.fullmatch(name)
    if found is None or not word.isprintable():
        raise fault("is no host")
    user, six, host = found["user"], found["six"], found["host"]
    if six is not None:
        try:
            host = str(ipaddress.IPv6Address(six))
        except ValueError as error:
            raise fault("has no IPv6 address in its brackets") from error
    if host.startswith("-") or (user or "").startswith("-"):
        raise fault("looks like an option of ssh")
    port = found["port"]
    return Host(
        name=name,
        address=None if name == host else host,
        user=user,
        port=None if port is None else _number(port, 65535, fault, "digits for a port"),
        slots=slots,
    )


def _number(text: str, most: int, fault: Callable[[str], UsageError], what: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most:
        return int(text)
    raise fault(f"has {what} that are no whole number from 1 to {most}")
