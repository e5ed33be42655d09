"""One option's value, from YAML or the command line. Each reader takes the value, its key and where it
stands, and raises UsageError.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import UsageError
from .limits import Limits

LOG_LEVELS = ("debug", "info", "warning", "error")


class Source:
    """Where a value stands."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.folder = Path.cwd() if file is None else file.parent

    def fault(self, key: str, wanted: str) -> UsageError:
        where = f"--{key.replace('_', '-')}" if self.file is None else f"{self.file}: {key}"
        return UsageError(f"{where} cannot be used", f"it has to be {wanted}")


Reader = Callable[[Any, str, Source], Any]


def address(value: Any, key: str, source: Source) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise source.fault(key, "an address of this machine, such as 192.0.2.1, or :: for all") from None


def address_or_none(value: Any, key: str, source: Source) -> str:
    return "" if value == "" else address(value, key, source)


def networks(value: Any, key: str, source: Source) -> tuple[str, ...]:
    every = [value] if isinstance(value, str) else value
    try:
        if not isinstance(every, list | tuple) or not all(isinstance(each, str) for each in every):
            raise ValueError
        return tuple(str(ipaddress.ip_network(each)) for each in every)
    except ValueError:
        raise source.fault(key, "a list of addresses or networks, such as [192.0.2.1]") from None


def number(least: float, most: float, kind: type = int) -> Reader:
    words = "a whole number" if kind is int else "a number"

    def read_it(value: Any, key: str, source: Source) -> Any:
        fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            raise source.fault(key, f"{words} from {least:g} to {most:g}")
        return kind(value)

    return read_it


def path(value: Any, key: str, source: Source) -> Path:
    text = str(value) if isinstance(value, str | Path) else ""
    if not text or "\0" in text:
        raise source.fault(key, "a path")
    return Path(os.path.normpath(source.folder / os.path.expanduser(text)))


def database(value: Any, key: str, source: Source) -> str:
    if value != "" and not (
        isinstance(value, str)
        and re.match(r"(sqlite|postgresql(\+psycopg)?)://", value)
        and value.isprintable()
    ):
        # The value is not repeated: it may hold a password.
        raise source.fault(key, "a URL: sqlite:////FILE or postgresql+psycopg://USER@HOST/NAME")
    return str(value)


def url(value: Any, key: str, source: Source) -> str:
    if value == "":
        return ""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        try:
            found = urlsplit(value)
            right = found.scheme in ("http", "https") and found.hostname and (found.port or 1)
        except ValueError:
            right = False
        if right and not found.query and not found.fragment and found.path in ("", "/") and "@" not in value:
            return value.rstrip("/")
    raise source.fault(key, "such as https://registry.example:33333, without a path")


def level(value: Any, key: str, source: Source) -> str:
    if value not in LOG_LEVELS:
        raise source.fault(key, f"one of {', '.join(LOG_LEVELS)}")
    return str(value)


def limits(value: Any, key: str, source: Source) -> Limits:
    known = {each.name: type(each.default) for each in dataclasses.fields(Limits)}
    if not isinstance(value, dict):
        raise source.fault(key, f"a mapping with some of {', '.join(known)}")
    for name in value:
        if name not in known:
            raise source.fault(f"{key}.{plain(str(name))}", f"one of {', '.join(known)}")
    return Limits(
        **{name: number(1, 1e9, known[name])(each, f"{key}.{name}", source) for name, each in value.items()}
    )


def plain(text: str) -> str:
    """What somebody wrote, fit for a message."""
    return "".join(each if each.isprintable() else "?" for each in text[:80])
