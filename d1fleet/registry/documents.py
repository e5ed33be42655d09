"""What members of a project are told of each other: one document, the same for all of them. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..server.toolchain import differences
from .model import Host, Project, may_be_peer

_SHOWN = 1
"""Differences of a toolchain in one reason; one is mostly followed by others."""


@dataclass(frozen=True)
class OldClient:
    """A client of dyndistcc that has checked in; nothing proves who it is.

    Attributes:
        heard_s: when, monotonic.
    """

    project: str
    address: str
    slots: int
    owner: str
    version: str
    hash: str
    heard_s: float

    @property
    def name(self) -> str:
        """In hosts files, for people."""
        return "old-client-" + self.address.replace(":", "-")


@dataclass(frozen=True)
class Document:
    """What is handed out.

    Attributes:
        revision: the same for equal contents.
        text: JSON, made once for all who ask.
        peers: names of the hosts in it that compile.
    """

    revision: str
    text: bytes
    peers: tuple[str, ...]
    left_out: dict[str, str]


def reference(hosts: Iterable[Host]) -> dict[str, str]:
    """A project's toolchain: what most of its hosts have; where as many have one as another, what the first
    of them to join has. Hosts that are away have a vote, too: else it would change with who is there.
    """
    known = sorted((host for host in hosts if host.toolchain), key=lambda host: (host.joined_at, host.id))
    votes = Counter(_canonical(host.toolchain) for host in known)
    if not votes:
        return {}
    most = max(votes.values())
    return next(host.toolchain for host in known if votes[_canonical(host.toolchain)] == most)


def document(
    project: Project,
    hosts: Sequence[Host],
    alive: frozenset[str],
    old_clients: Sequence[OldClient] = (),
) -> Document:
    """What the hosts of a project are told.

    Args:
        hosts: all of the project that an operator has not thrown out, in the order in which they joined.
        alive: ids of those that peers may use or hear from.
    """
    wanted = reference(hosts)
    peers: list[dict[str, Any]] = []
    members: set[str] = set()
    left_out: dict[str, str] = {}
    for host in hosts:
        if host.id not in alive:
            continue
        if why := _unreachable(project, host):
            left_out[host.name] = why
            continue
        if project.transport == "tcp":
            members.add(host.address)
        why = _unfit(project, host, wanted)
        if why:
            left_out[host.name] = why
        else:
            peers.append(_peer(project, host))
    for client in old_clients:
        members.add(client.address)
        if project.toolchain_mismatch == "ignore":
            peers.append(_old_peer(client))
        else:
            left_out[client.name] = "an old client: nothing is known of its compilers"
    contents = {
        "ranges": list(project.ranges),
        "options": list(project.options),
        "peers": peers,
        "members": [str(each) for each in sorted(map(ipaddress.ip_address, members), key=_by_version)],
        "left_out": left_out,
    }
    revision = hashlib.sha256(_canonical(contents).encode()).hexdigest()[:16]
    text = json.dumps({"revision": revision, **contents}, separators=(",", ":")).encode()
    return Document(revision, text, tuple(peer["name"] for peer in peers), left_out)


def _by_version(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[int, int]:
    return address.version, int(address)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _unreachable(project: Project, host: Host) -> str:
    if not host.address:
        return host.note or "no address is known by which peers could reach it"
    if not may_be_peer(ipaddress.ip_address(host.address), project.networks):
        return f"its address {host.address} is in none of the ranges of {project.name}"
    return ""


def _unfit(project: Project, host: Host, wanted: dict[str, str]) -> str:
    # First what keeps it from sending work, too: its own compilers would not make the same of it.
    if project.toolchain_mismatch != "ignore":
        if not host.toolchain:
            return "nothing is known of its compilers"
        if found := differences(wanted, host.toolchain):
            return "; ".join(found[:_SHOWN])
    if host.drained:
        return "drained by an operator"
    return "" if host.serving else "its compile server does not answer"


def _peer(project: Project, host: Host) -> dict[str, Any]:
    ssh = project.transport == "ssh"
    return {
        "name": host.name,
        "address": host.address,
        "slots": host.slots,
        "port": host.port,
        "options": list(project.options),
        "transport": project.transport,
        "ssh_port": host.ssh_port,
        "host_keys": list(host.host_keys) if ssh else [],
    }


def _old_peer(client: OldClient) -> dict[str, Any]:
    return {
        "name": client.name,
        "address": client.address,
        "slots": client.slots,
        "port": 3632,
        # What it was built with is not known; without options any distccd understands us.
        "options": [],
        "transport": "tcp",
        "ssh_port": 22,
        "host_keys": [],
    }
