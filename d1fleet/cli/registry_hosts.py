"""`d1fleet registry host` and `known-hosts`."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import click

from .registry_talk import Talk, ago, fields, listed, moment, said, segment, speaks, state, table

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,98}[a-z0-9])?", re.ASCII)
_KEY = re.compile(r"[a-z0-9@.-]{3,64} [A-Za-z0-9+/]{16,1500}={0,2}", re.ASCII)

_NOT_TRUSTED = ("expunged", "cloned")


@click.group(short_help="Hosts: list, show, drain, undrain, expunge, readmit, forget, change.")
def host() -> None:
    """Hosts that have joined."""


@host.command("list")
@click.option("--project", metavar="NAME", help="Those of one project.")
@speaks
def list_hosts(talk: Talk, project: str | None) -> None:
    """List hosts."""
    query = {"project": project} if project else {}
    answer = talk.registry.get("/admin/hosts", **query)
    talk.show(answer, lambda: hosts_table(listed(answer, "hosts"), project))


def hosts_table(hosts: list[dict[str, Any]], project: str | None = None) -> None:
    """Print hosts, a line each."""
    rows = [
        (
            each["name"],
            state(each["state"]),
            each["address"],
            each["slots"],
            "" if each["jobs"] is None else each["jobs"],
            "" if each["load_1min"] is None else f"{each['load_1min']:.1f}",
            *([] if project else [" ".join(each["projects"])]),
            each["owner"],
            each["version"],
            ago(each["last_contact_s"]),
            _trouble(each, project),
        )
        for each in hosts
    ]
    columns = [
        "host",
        "state",
        "address",
        "slots",
        "jobs",
        "load",
        "projects",
        "owner",
        "version",
        "heard",
        "",
    ]
    if project:
        columns.remove("projects")
    table(columns, rows, "there are no hosts; d1fleet registry token create PROJECT, then d1fleet join there")


def _trouble(found: dict[str, Any], project: str | None = None) -> str:
    """Why peers do not get it, or what went wrong there last."""
    notes = found["notes"]
    if project:
        return str(notes.get(project) or found["error"])
    return "; ".join(f"{name}: {why}" for name, why in notes.items()) or str(found["error"])


@host.command("show")
@click.argument("name")
@speaks
def show_host(talk: Talk, name: str) -> None:
    """Show host NAME."""
    found = talk.registry.get(f"/admin/hosts/{segment(name)}")
    talk.show(found, lambda: _describe(found))


def _describe(found: dict[str, Any]) -> None:
    fixed = " (fixed)" if found["fixed_address"] else ""
    fields(
        {
            "host": found["name"],
            "state": state(found["state"]),
            "projects": " ".join(found["projects"]),
            "address": f"{found['address'] or 'none'}{fixed}",
            "port": found["port"],
            "slots": found["slots"],
            "jobs": found["jobs"],
            "load": found["load_1min"],
            "busy with others' work": _cpus(found["load_others_cpus"]),
            "memory": _share(found["memory_available_bytes"], found["memory_bytes"]),
            "disk": "" if found["disk_free_bytes"] is None else f"{_gib(found['disk_free_bytes'])} free",
            "owner": found["owner"],
            "system": found["system"],
            "version": found["version"],
            "toolchain": found["fingerprint"],
            "joined": moment(found["joined_at"]),
            "last heard of": f"{ago(found['last_contact_s'])} ago",
            "compile server": "" if found["serving"] else "does not answer",
            **{f"left out of {name}": why for name, why in found["notes"].items()},
            "last error": found["error"],
            "id": found["id"],
        }
    )


def _cpus(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} CPUs"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"


def _share(available_bytes: int | None, all_bytes: int | None) -> str:
    if available_bytes is None or not all_bytes:
        return ""
    return f"{_gib(available_bytes)} of {_gib(all_bytes)} available"


_DONE = {
    "drain": "compiles for nobody until it is undrained; it may go on to send work to others",
    "undrain": "compiles for its peers again",
    "expunge": "is thrown out: its peers turn it away until it is re-admitted",
    "readmit": "is let in again at its next check-in, with the SSH host keys that it has then",
    "forget": "is forgotten, and its credential void; with a token it may join again",
}

_HELP = {
    "drain": "Have host NAME compile for nobody; it may go on to send work to others.",
    "undrain": "Let host NAME compile for its peers again.",
    "expunge": "Throw host NAME out, until it is re-admitted.",
    "readmit": "Take host NAME back that was thrown out, cloned or installed anew.",
    "forget": "Have no host NAME any more; its credential is void.",
}


def _command(verb: str) -> None:
    @host.command(verb, help=_HELP[verb])
    @click.argument("name")
    @speaks
    def command(talk: Talk, name: str) -> None:
        answer = talk.registry.post(f"/admin/hosts/{segment(name)}/{verb}")
        talk.show(answer, lambda: said(f"host {name} {_DONE[verb]}"))


for _verb in _DONE:
    _command(_verb)


@host.command("change")
@click.argument("name")
@click.option(
    "--project",
    "projects",
    multiple=True,
    metavar="NAME",
    help="All its projects from now on; again for each.",
)
@click.option(
    "--address", metavar="ADDRESS", help="By which peers reach it from now on; seen, for as it is seen."
)
@speaks
def change_host(talk: Talk, name: str, projects: tuple[str, ...], address: str | None) -> None:
    """Change the projects of host NAME, or its address."""
    from ..errors import UsageError

    body: dict[str, Any] = {"projects": list(projects)} if projects else {}
    if address is not None:
        body["address"] = "" if address == "seen" else address
    if not body:
        raise UsageError("nothing is to be changed", "--project NAME, or --address ADDRESS")
    answer = talk.registry.patch(f"/admin/hosts/{segment(name)}", body)
    talk.show(answer, lambda: _describe(answer))


@click.command("known-hosts", short_help="Print the hosts' SSH host keys, for ssh's known_hosts.")
@speaks
def known_hosts(talk: Talk) -> None:
    """Print the SSH host keys with which hosts have joined, as lines of known_hosts.

    As for `ssh -o UserKnownHostsFile=FILE`, or /etc/ssh/ssh_known_hosts of those who build.
    """
    answer = talk.registry.get("/admin/inventory")

    def lines() -> None:
        for line in known_hosts_lines(answer["hosts"]):
            click.echo(line)

    talk.show(answer["hosts"], lines)


def known_hosts_lines(hosts: dict[str, Any]) -> list[str]:
    """sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

    Raises:
        ValueError: a name, an address or a key could mean something else there.
    """
    lines = []
    for name, found in hosts.items():
        if found["state"] in _NOT_TRUSTED:
            continue
        if not _HOST.fullmatch(name):
            raise ValueError(f"no name of a host: {name!r:.40}")
        addresses = [_address(found["address"])] if found["address"] else []
        port = int(found.get("ssh_port", 22))
        names = ",".join(each if port == 22 else f"[{each}]:{port}" for each in [name, *addresses])
        for key in found["host_keys"]:
            if not _KEY.fullmatch(key):
                raise ValueError(f"no key of a host: {key!r:.40}")
            lines.append(f"{names} {key}")
    return lines


def _address(text: str) -> str:
    address = str(ipaddress.ip_address(text))
    if "%" in address:  # a zone may be any text
        raise ValueError(f"no address that others could use: {text!r:.40}")
    return address
