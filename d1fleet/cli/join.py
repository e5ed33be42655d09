"""`d1fleet join` and `d1fleet leave`: this machine as a host of a registry, by one command."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..words import counted, say
from .join_asked import USUAL_NICE, notes_of, place_of, token_of, trusted

if TYPE_CHECKING:
    from ..membership import Places, Standing
    from ..registryclient import Registry
    from ..registryplace import Place

_TOKEN = "D1FLEET_JOIN_TOKEN"
_SETTLE_S = 45.0
"""A new host's first report that its compile server answers comes within a beat (15 s); and two more."""

_LOOK_S = 3.0


@click.command(
    short_help="Have this machine compile for a project's others, and they for it.",
    epilog="Run it as root. What is not given is asked for on a terminal. A host that has joined joins a "
    "further project by the same command with that one's token; without a token it is brought in line again. "
    "`d1fleet leave` undoes it. docs/registry.md says what is done to the host.",
)
@click.argument("url", required=False, metavar="[URL]", envvar="D1FLEET_REGISTRY")
@click.option(
    "--token",
    metavar="d1j_...",
    envvar=_TOKEN,
    help="Join token: says which project. D1FLEET_JOIN_TOKEN or --token-file keep it out of histories.",
)
@click.option("--token-file", metavar="FILE", help="Holds the token; - for standard input.")
@click.option(
    "--pin", metavar="sha256:HEX", help="Digest of the registry's certificate, as the panel shows it."
)
@click.option("--certificate", metavar="FILE", help="The registry's certificate, in place of that.")
@click.option("--name", metavar="NAME", help="By which others know this host (its own name).")
@click.option("--owner", metavar="NAME", help="Whose it is, for people (who has called sudo).")
@click.option(
    "--nice",
    type=click.IntRange(0, 19),
    help=f"Nice value of what is compiled here for others ({USUAL_NICE}).",
)
@click.option("--slots", type=click.IntRange(1, 4096), help="Compilations at once (its CPUs).")
@click.option(
    "--cross",
    multiple=True,
    metavar="PATH",
    help="A cross-compiler, or a folder of them, that has to be the same on all hosts.",
)
@click.option(
    "--networks",
    multiple=True,
    metavar="NETWORK",
    help="Peers are let in from there alone (the project's ranges).",
)
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--verbose", is_flag=True, help="Show each step, not only what changes.")
@click.option("--check", is_flag=True, help="Say what would be done; change nothing.")
@click.pass_context
def join(
    context: click.Context,
    /,
    url: str | None,
    token: str | None,
    token_file: str | None,
    pin: str | None,
    certificate: str | None,
    yes: bool,
    verbose: bool,
    check: bool,
    **said: Any,
) -> None:
    """Join a project of the registry at URL, and set this machine up for it.

    The panel and `d1fleet registry token create` show the command, with URL, token and pin.
    """
    if context.get_parameter_source("token") is click.core.ParameterSource.COMMANDLINE and token:
        _start_without(token)
    # What we start need not know it.
    os.environ.pop(_TOKEN, None)
    from .. import membership
    from ..errors import UsageError
    from ..registryclient import Registry

    places = membership.Places()
    _need_root("join")
    membership.find_ansible()
    there = membership.here(places)
    ask = sys.stdin.isatty() and not yes and not check
    token = token_of(token, token_file)
    place = place_of(url, certificate, pin, there, ask)
    if not token and not there.joined and not check:
        if not ask:
            raise UsageError(
                "no join token is given",
                "--token, --token-file or D1FLEET_JOIN_TOKEN; `d1fleet registry token create` makes one",
            )
        token = click.prompt("Join token (d1j_...)", hide_input=True, err=True).strip()
    notes = notes_of(there, said, ask)
    with trusted(place, there, ask) as file:
        client = Registry(_trusting(place, file))
        client.health()
        before = None
        if there.joined:
            before = membership.standing(Registry(client.place, there.credential))
            notes["name"] = _same_name(notes, said, before)
        _say_what(place, notes, before, token)
        if check:
            say("nothing was changed")
            return
        if ask and not click.confirm("Go on?", default=True, err=True):
            raise click.Abort
        if token:
            membership.join(places, client.place, file, notes["name"], token, _settings(notes))
        _set_up(places, client.place, file, notes, verbose)
        # Its credential may be another one by now.
        _tell(Registry(client.place, membership.here(places).credential))


def _start_without(token: str) -> None:
    """Everybody on this machine may read the words of a command; not so its environment."""
    words = list(sys.orig_argv)
    found = [at for at, word in enumerate(words) if word in (token, f"--token={token}")]
    if len(found) != 1:
        return
    at = found[0]
    del words[at - (words[at] == token) : at + 1]
    os.environ[_TOKEN] = token
    os.execv(sys.executable, words)


def _need_root(verb: str) -> None:
    from ..errors import UsageError

    if os.geteuid() != 0:
        raise UsageError("packages, services and files of root are changed", f"sudo d1fleet {verb} ...")


def _trusting(place: Place, certificate: str) -> Place:
    from dataclasses import replace

    return replace(place, certificate=certificate, pin="")


def _same_name(notes: Mapping[str, Any], said: Mapping[str, Any], before: Standing) -> str:
    from ..errors import UsageError

    if said["name"] and said["name"] != before.name:
        raise UsageError(
            f"this host has joined as {before.name}", "d1fleet leave, and then join by another name"
        )
    return before.name


def _say_what(place: Place, notes: Mapping[str, Any], before: Standing | None, token: str) -> None:
    slots = f"{notes['slots']} slots" if notes["slots"] else "as many slots as it has CPUs"
    whose = f", {notes['owner']}'s" if notes["owner"] else ""
    if token or before is None:
        further = f", beside {', '.join(before.projects)}" if before is not None and before.projects else ""
        say(f"{notes['name']}{whose} joins the project of this token at {place}{further}:")
    else:
        say(f"{notes['name']}{whose} is brought in line with what it joined at {place}:")
    lines = [
        "packages: compilers, make, distcc, nftables; services: distcc's, its packet filter, the check-in",
        f"others compile here in {slots}, at nice value {notes['nice']}, from"
        f" {' '.join(notes['networks']) or 'the networks of its projects'} alone",
        "/etc/distcc/hosts and /etc/d1fleet/hosts/ name the others from now on",
    ]
    if notes["tools"]:
        lines.append(f"cross-compilers have to be the same everywhere: {' '.join(notes['tools'])}")
    say("\n".join(f"  - {line}" for line in lines))
    say("d1fleet leave undoes it")


def _settings(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Of the check-in's configuration, what this host reports when it joins."""
    found: dict[str, Any] = {"owner": notes["owner"], "tools": notes["tools"] or []}
    if notes["slots"]:
        found["slots"] = notes["slots"]
    return found


def _set_up(places: Places, place: Place, certificate: str, notes: dict[str, Any], verbose: bool) -> None:
    """Run the roles."""
    from .. import membership
    from ..registryclient import Registry

    now = membership.standing(Registry(place, membership.here(places).credential))
    notes["name"] = now.name
    membership.keep_notes(places, {"registry": str(place), **notes})
    variables: dict[str, Any] = {
        "d1fleet_registry": str(place),
        "d1fleet_registry_certificate": Path(certificate).read_text("ascii") if certificate else "",
        "d1fleet_distcc_networks": notes["networks"] or now.ranges,
        "d1fleet_owner": notes["owner"],
        "d1fleet_nice": notes["nice"],
        "d1fleet_toolchain_tools": notes["tools"] or [],
    }
    if notes["slots"]:
        variables["d1fleet_slots"] = notes["slots"]
    hosts = membership.inventory(now.name, tuple(now.projects), variables)
    membership.play("join", hosts, quiet=not verbose)


def _tell(registry: Registry) -> None:
    """Wait until peers get this host, and say which they are.

    Raises:
        HostError: they do not get it.
    """
    from .. import membership
    from ..errors import HostError

    end = time.monotonic() + _SETTLE_S
    now = membership.standing(registry)
    while (now.message or now.state != "up") and time.monotonic() < end:
        time.sleep(_LOOK_S)
        now = membership.standing(registry)
    for project, (_, peers) in now.projects.items():
        others = f"{counted(len(peers), 'other host')}: {', '.join(peers)}" if peers else "no other host yet"
        say(f"{now.name} is in project {project}, with {others}")
    if now.message or now.state != "up":
        raise HostError(
            f"the registry does not give it to others: {now.message or now.state}",
            f"d1fleet registry host show {now.name} tells more there; here: journalctl -u d1fleet-checkin",
        )
    say("distcc compiles on them: d1fleet run -- make -j{slots}")


@click.command(
    short_help="Undo `d1fleet join`.",
    epilog="Run it as root. Packages stay unless --purge is given.",
)
@click.option("--purge", is_flag=True, help="Packages that came with it go, too.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--check", is_flag=True, help="Say what would be done; change nothing.")
def leave(purge: bool, yes: bool, check: bool) -> None:
    """Say goodbye to the registry for good, and have this machine as it was before it joined."""
    from .. import membership
    from ..errors import UsageError

    _need_root("leave")
    there = membership.here(membership.Places())
    if there.notes is None:
        if there.projects:
            raise UsageError(
                "this host was enrolled by an inventory, not by d1fleet join",
                "where that is: ansible-playbook playbooks/retire.yml -e d1fleet_retire=HOST",
            )
        raise UsageError("this host has not joined a registry", "there is nothing to undo")
    name = str(there.notes.get("name") or socket.gethostname().lower())
    say(f"{name} leaves {there.registry or 'its registry'} for good, and becomes what it was before")
    if sys.stdin.isatty() and not yes and not check and not click.confirm("Go on?", default=True, err=True):
        raise click.Abort
    arguments = [*(["--check"] if check else []), *(["-e", "d1fleet_purge=true"] if purge else [])]
    hosts = membership.inventory(name, there.projects or ("left",), {})
    membership.play("leave", hosts, *arguments)
    if check:
        say("nothing was changed")
