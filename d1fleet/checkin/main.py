"""The program on a host: `agent`, `apply`, `join` and `leave`.

What a verb does not need is not imported: the root helper has nothing to do with networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import socket
import sys
from collections.abc import Sequence
from typing import TypeVar

from .. import __version__
from ..errors import D1fleetError, RuntimeFolderError, UsageError
from .journal import ERROR, log
from .places import AgentPlaces, HelperPlaces

_LONGEST_TOKEN = 1000

_P = TypeVar("_P", AgentPlaces, HelperPlaces)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="d1fleet-checkin", description="Checks in at a d1fleet registry.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"d1fleet-checkin {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    found = verbs.add_parser("agent", help="check in until told to end", allow_abbrev=False)
    _add(found, AgentPlaces)
    found = verbs.add_parser(
        "apply", help="the root helper: one request on standard input", allow_abbrev=False
    )
    _add(found, HelperPlaces)
    found = verbs.add_parser("join", help="become a member of a project", allow_abbrev=False)
    _add(found, AgentPlaces)
    found.add_argument("--name", help="by which others are to know this host; default: its own")
    found.add_argument("--token-file", required=True, help="file with the join token; - for standard input")
    found = verbs.add_parser("leave", help="say goodbye", allow_abbrev=False)
    _add(found, AgentPlaces)
    found.add_argument("--for-good", action="store_true", help="be forgotten, and forget the credential")
    return parser


def _add(parser: argparse.ArgumentParser, places: type[AgentPlaces] | type[HelperPlaces]) -> None:
    for field in dataclasses.fields(places):
        parser.add_argument(
            f"--{field.name}", default=field.default, metavar="PATH", help="default: %(default)s"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status: 0, or an error's own."""
    try:
        given = _parser().parse_args(arguments)
    except SystemExit as end:
        return UsageError.exit_code if end.code else 0
    try:
        return _do(given)
    except D1fleetError as error:
        return _fail(given.verb, error)
    except OSError as error:
        return _fail(given.verb, RuntimeFolderError(f"{error.filename or 'the state'}: {error.strerror}"))


def _do(given: argparse.Namespace) -> int:
    if given.verb == "apply":
        from . import apply

        return apply.run(_chosen(HelperPlaces, given))
    if given.verb == "agent":
        from . import agent

        return agent.run(_chosen(AgentPlaces, given))
    from . import config, joining, state

    settings, kept = config.load(given.config), state.State(given.state)
    if given.verb == "join":
        name = given.name or socket.gethostname().lower()
        print(json.dumps(joining.join(settings, kept, name, _token(given.token_file))))
    else:
        joining.leave(settings, kept, for_good=given.for_good)
    return 0


def _chosen(places: type[_P], given: argparse.Namespace) -> _P:
    return places(**{field.name: getattr(given, field.name) for field in dataclasses.fields(places)})


def _token(path: str) -> str:
    """Raises:
    UsageError: the file cannot be read.
    """
    if path == "-":
        return sys.stdin.read(_LONGEST_TOKEN).strip()
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(_LONGEST_TOKEN).strip()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "see `ls -l` of it") from error


def _fail(verb: str, error: D1fleetError) -> int:
    if verb in ("agent", "apply"):
        log(ERROR, f"{error.message}. {error.mend}" if error.mend else error.message)
    else:
        print(f"d1fleet: {error}", file=sys.stderr)
    return error.exit_code
