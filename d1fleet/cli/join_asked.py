"""What `d1fleet join` is told: by options, by what was said before, or by who sits at the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..words import say

if TYPE_CHECKING:
    from ..membership import Membership
    from ..registryplace import Place

USUAL_NICE = 10

_COMPILER = re.compile(r".+-(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(-[0-9.]+)?")
"""Cross-compilers, in a folder of them."""


def token_of(token: str | None, file: str | None) -> str:
    from ..errors import UsageError

    if not file:
        return (token or "").strip()
    if token:
        raise UsageError("--token and --token-file are both given", "leave one of them out")
    if file == "-":
        return sys.stdin.readline(1000).strip()
    try:
        with open(file, encoding="ascii", errors="replace") as opened:
            return opened.read(1000).strip()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "see `ls -l` of it") from error


def place_of(
    url: str | None, certificate: str | None, pin: str | None, there: Membership, ask: bool
) -> Place:
    """Raises:
    UsageError: none is named, or this host is another one's.
    """
    from ..errors import UsageError
    from ..registryplace import EXAMPLE, read_place

    if not url and not there.registry:
        if not ask:
            raise UsageError("no registry is named", f"d1fleet join {EXAMPLE}")
        url = click.prompt("Registry (https://HOST:33333)", err=True).strip()
    certificate = os.path.abspath(certificate) if certificate else ""
    if not certificate and not pin and (not url or url == there.registry):
        certificate = there.certificate
    place = read_place(url or there.registry, certificate, pin or "")
    if place.socket:
        raise UsageError(f"{place} is for operators", f"name the registry by its URL: {EXAMPLE}")
    if there.joined and str(place) != there.registry:
        raise UsageError(
            f"this host has joined another registry: {there.registry}",
            "d1fleet leave, and then join this one",
        )
    return place


@contextlib.contextmanager
def trusted(place: Place, there: Membership, ask: bool) -> Iterator[str]:
    """A file with the certificate that alone is trusted; "" where authorities vouch for it.

    Raises:
        RegistryError: the registry is away, or another one answers.
    """
    from .. import registrytls
    from ..errors import RegistryError
    from ..registryclient import ANSWER_S, Registry, unreachable

    if not place.tls or place.certificate:
        yield place.certificate
        return
    try:
        Registry(place).health()
        vouched = not place.pin
    except RegistryError:
        if place.pin or not ask:
            raise
        vouched = False
    if vouched:
        yield ""
        return
    end = time.monotonic() + ANSWER_S
    try:
        found = registrytls.fetch(place, lambda: max(0.1, end - time.monotonic()))
    except OSError as error:
        raise unreachable(place, error) from error
    shown = registrytls.pin_of(found)
    if place.pin and shown != place.pin:
        raise RegistryError(f"{place} shows another certificate than the one that is pinned: {shown}")
    if not place.pin:
        say(f"nobody whom this machine trusts vouches for {place}; its certificate is\n  {shown}")
        if not click.confirm("Is that what the panel, or `d1fleet registry certificate`, shows?", err=True):
            raise click.Abort
    with tempfile.NamedTemporaryFile("w", prefix="d1fleet-registry-", suffix=".pem") as file:
        file.write(registrytls.as_pem(found))
        file.flush()
        yield file.name


def notes_of(there: Membership, said: Mapping[str, Any], ask: bool) -> dict[str, Any]:
    """All that this host is set up by: what is said, else what was said before, else answers, else defaults.

    Raises:
        UsageError: a value cannot be used.
    """
    before = dict(there.notes or {})
    found: dict[str, Any] = {
        "name": said["name"] or before.get("name") or socket.gethostname().lower(),
        "owner": said["owner"] if said["owner"] is not None else before.get("owner", _caller()),
        "nice": said["nice"] if said["nice"] is not None else before.get("nice"),
        "slots": said["slots"] if said["slots"] is not None else before.get("slots"),
        "tools": _tools(said["cross"]) or before.get("tools"),
        "networks": list(said["networks"]) or before.get("networks") or [],
    }
    if found["nice"] is None:
        words = "Nice value of what is compiled here for others"
        found["nice"] = (
            click.prompt(words, default=USUAL_NICE, type=click.IntRange(0, 19), err=True)
            if ask
            else USUAL_NICE
        )
    if found["tools"] is None:
        words = "Paths of cross-compilers, by blanks"
        told = click.prompt(words, default="", show_default=False, err=True) if ask else ""
        found["tools"] = _tools(told.split()) or []
    _check(found)
    return found


def _caller() -> str:
    """Who has called sudo, or has logged in."""
    for name in ("SUDO_USER", "LOGNAME", "USER"):
        if os.environ.get(name):
            return os.environ[name]
    return ""


def _check(found: dict[str, Any]) -> None:
    from ..checkin import values
    from ..checkin.strictjson import BadDocumentError
    from ..errors import UsageError

    try:
        values.host_name(found["name"], "--name")
        if not values.OWNER.fullmatch(found["owner"]):
            if found["owner"] != _caller():
                raise BadDocumentError("--owner is no name of plain letters and digits")
            found["owner"] = ""
        values.networks(found["networks"], "--networks", values.MOST_NETWORKS)
    except BadDocumentError as error:
        raise UsageError(str(error), "give another one") from error


def _tools(paths: Sequence[str]) -> list[str] | None:
    """Absolute paths of cross-compilers; None where no path is named.

    Raises:
        UsageError: a path is none, or there are too many.
    """
    from ..errors import UsageError
    from ..server.toolchain import MOST_TOOLS, TOOL_NAME

    found: dict[str, None] = {}
    for path in map(Path, paths):
        if not path.is_absolute():
            raise UsageError(f"--cross {path} is no absolute path", "give the whole one")
        every = sorted(path.iterdir()) if path.is_dir() else [path]
        programs = [each for each in every if each == path or _COMPILER.fullmatch(each.name)]
        programs = [each for each in programs if each.is_file() and os.access(each, os.X_OK)]
        if not programs:
            raise UsageError(
                f"--cross {path}: there is no compiler",
                "name a program, or a folder with TARGET-gcc and so on",
            )
        found |= dict.fromkeys(map(str, programs))
    for name in found:
        if not TOOL_NAME.match(name):
            raise UsageError(
                f"--cross {name} has letters that a tool's name may not have", "rename it, or link to it"
            )
    if len(found) > MOST_TOOLS:
        raise UsageError(
            f"--cross: {len(found)} compilers are too many (at most {MOST_TOOLS})",
            "name those that builds use",
        )
    return list(found) or None
