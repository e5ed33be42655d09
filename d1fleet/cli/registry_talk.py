"""What the commands that speak to the registry have in common: which one, and how answers are shown."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import re
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..words import plain

if TYPE_CHECKING:
    from ..registryclient import Registry

DATA = "/var/lib/d1fleet-registry"
"""Where role `registry` keeps a registry's data."""

SOCKET = "admin.sock"

_STYLES = {
    "up": "green",
    "suspect": "yellow",
    "drained": "cyan",
    "gone": "dim",
    "left": "dim",
    "expunged": "red",
    "cloned": "bold red",
    "ok": "green",
    "degraded": "red",
}
"""Of a host's or the registry's state, on terminals."""

_NUMBER = re.compile(r"(\d+(\.\d+)?)?")

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


class Talk:
    """One command's talk with the registry."""

    def __init__(self, registry: Registry, as_json: bool) -> None:
        self.registry = registry
        self.as_json = as_json

    def show(self, answer: Any, lines: Callable[[], Any]) -> None:
        """Print an answer as it is for programs, or have `lines` print it for people."""
        if self.as_json:
            click.echo(json.dumps(answer, indent=1))
        else:
            with _unshaped(self.registry):
                lines()


def speaks(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that speaks to the registry: gets a Talk as its first argument."""

    @functools.wraps(function)
    def command(
        *words: Any,
        url: str | None,
        data: str | None,
        key_file: str | None,
        certificate: str | None,
        pin: str | None,
        as_json: bool,
        **given: Any,
    ) -> Any:
        registry = registry_of(url, data, key_file, certificate, pin)
        return function(Talk(registry, as_json), *words, **given)

    for option in reversed(
        (
            click.option(
                "--registry",
                "url",
                metavar="URL",
                envvar="D1FLEET_REGISTRY",
                help="https://HOST[:PORT], with a key. Default: the socket of the one on this machine.",
            ),
            click.option(
                "--key-file",
                metavar="FILE",
                envvar="D1FLEET_REGISTRY_KEY_FILE",
                help="Holds the API key for --registry (`key create` makes one).",
            ),
            click.option(
                "--certificate",
                metavar="FILE",
                envvar="D1FLEET_REGISTRY_CERTIFICATE",
                help="The registry's own, or that of the authority that has signed it.",
            ),
            click.option(
                "--pin",
                metavar="sha256:HEX",
                envvar="D1FLEET_REGISTRY_PIN",
                help="Digest of its certificate, in place of that.",
            ),
            click.option(
                "--data",
                metavar="FOLDER",
                envvar="D1FLEET_REGISTRY_DATA",
                help=f"Its data on this machine, where its socket is ({DATA}, or your own).",
            ),
            click.option("--json", "as_json", is_flag=True, help="The same for programs."),
        )
    ):
        command = option(command)
    return command


def registry_of(
    url: str | None, data: str | None, key_file: str | None, certificate: str | None, pin: str | None
) -> Registry:
    """The registry that is meant.

    Raises:
        UsageError: it cannot be told, or nothing says who we are.
    """
    from ..errors import UsageError
    from ..registryclient import Registry, read_key
    from ..registryplace import Place, read_place

    if not url:
        return Registry(Place(socket=os.path.join(os.path.abspath(data or _usual_folder()), SOCKET)))
    place = read_place(url, certificate or "", pin or "")
    if place.socket:
        return Registry(place)
    if not key_file:
        raise UsageError(
            f"no key is named for {place}",
            "--key-file FILE, or D1FLEET_REGISTRY_KEY_FILE; `d1fleet registry key create` there makes one",
        )
    if os.path.exists(key_file) and os.stat(key_file).st_mode & stat.S_IRWXO:
        raise UsageError(f"everybody on this machine may read {key_file}", f"chmod o= {key_file}")
    return Registry(place, read_key(key_file))


def _usual_folder() -> str:
    """Where `d1fleet registry serve` of this user has its data, else that of the system's."""
    if os.geteuid() != 0:
        base = os.environ.get("XDG_DATA_HOME", "")
        own = os.path.join(
            base if os.path.isabs(base) else os.path.expanduser("~/.local/share"), "d1fleet-registry"
        )
        if os.path.exists(os.path.join(own, SOCKET)):
            return own
    return DATA


@contextlib.contextmanager
def _unshaped(registry: Registry) -> Iterator[None]:
    """Inside, an answer that is no such thing as it should be is the registry's fault, not a traceback."""
    from ..errors import RegistryError

    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise RegistryError(
            f"{registry.place} answers something else than was asked for ({error!r:.100})",
            "look which version it has: d1fleet registry status",
        ) from error


def segment(name: str) -> str:
    """A name as a part of a path."""
    return urllib.parse.quote(name, safe="")


def listed(answer: Any, name: str) -> list[dict[str, Any]]:
    """The entries of a list, also where it is a member of that name."""
    found = answer[name] if isinstance(answer, dict) else answer
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TypeError(f"no list of {name}")
    return found


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Print rows below columns; words of `empty` where there are none.

    Whatever stands in them, a terminal is not played with.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [[each if isinstance(each, Text) else Text(plain(str(each))) for each in row] for row in rows]
    if not shown:
        click.echo(empty)
        return
    terminal = sys.stdout.isatty()
    found = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_header=any(columns)
    )
    for number, column in enumerate(columns):
        right = all(_NUMBER.fullmatch(row[number].plain) for row in shown)
        found.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=not terminal)
    for row in shown:
        found.add_row(*row)
    # A pipe has no width.
    console = Console(width=None if terminal else 10_000, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(found)
    for line in captured.get().splitlines():
        click.echo(line.rstrip().encode("utf-8", "replace"))


def fields(pairs: Mapping[str, Any]) -> None:
    """Print what is said of one thing, a line each; what is empty is left out."""
    kept = {name: value for name, value in pairs.items() if str(value) not in ("", "[]", "None")}
    table(("", ""), [(name, value) for name, value in kept.items()], "")


def state(word: str) -> Any:
    """A state, in its colour."""
    from rich.text import Text

    return Text(plain(word), style=_STYLES.get(word, ""))


def ago(seconds: float | None) -> str:
    """How long ago, for people."""
    if seconds is None:
        return ""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(at: float) -> str:
    """Seconds since the epoch as a local time; "" for 0, which is never."""
    if not at:
        return ""
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def said(text: str) -> None:
    """Print what was done."""
    click.echo(plain(text).encode("utf-8", "replace"))
