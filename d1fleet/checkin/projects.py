"""What a host is told of a project: who compiles in it, and who may connect. Checked when it is read. Pure.

The same reader serves the agent, for what a registry answers, and the root helper, for what the agent asks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .. import hostsfile
from ..hostsfile import HostsFileError, Peer
from . import strictjson, values
from .strictjson import BadDocumentError

_PEER = ("name", "address", "slots", "port", "options", "transport", "ssh_port", "host_keys")


@dataclass(frozen=True)
class Entry:
    """A host that compiles for others.

    Attributes:
        peer: as it stands in hosts files.
        port: of its compile server; over SSH that listens to nobody else.
        ssh_port, host_keys: of its sshd, where it is reached over SSH.
    """

    peer: Peer
    port: int
    ssh_port: int
    host_keys: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """As it was read."""
        return {
            "name": self.peer.name,
            "address": self.peer.address,
            "slots": self.peer.slots,
            "port": self.port,
            "options": list(self.peer.options),
            "transport": "ssh" if self.peer.ssh else "tcp",
            "ssh_port": self.ssh_port,
            "host_keys": list(self.host_keys),
        }


@dataclass(frozen=True)
class Project:
    """What members of a project know of each other.

    Attributes:
        entries: in the order in which they joined; the host itself is one of them.
        members: addresses from which its compile servers are spoken to.
        left_out: why hosts that are members are no peers.
    """

    entries: tuple[Entry, ...] = ()
    members: tuple[values.Address, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_over_ssh(self) -> bool:
        """Do its members reach each other by a login?"""
        return any(entry.peer.ssh for entry in self.entries)

    def document(self) -> dict[str, object]:
        """As it was read."""
        return {
            "peers": [entry.document() for entry in self.entries],
            "members": [str(each) for each in self.members],
            "left_out": dict(self.left_out),
        }


def read(found: Mapping[str, object], where: str, networks: Iterable[values.Network]) -> Project:
    """A project, from the members `peers`, `members` and `left_out` of an object.

    Args:
        networks: in which all addresses have to be.

    Raises:
        BadDocumentError: a value is wrong, or an address in none of the networks.
    """
    allowed = tuple(networks)
    entries = [
        _entry(each, f"{where}: a peer", allowed)
        for each in strictjson.items(found["peers"], f"{where}: peers", values.MOST_PEERS)
    ]
    _refuse_doubles(entries, where)
    members = values.addresses(found["members"], f"{where}: members", values.MOST_MEMBERS)
    for each in members:
        _check_address(each, f"{where}: members", allowed)
    # The agent adds peers that it cannot use.
    left_out = strictjson.mapping(found["left_out"], f"{where}: left_out", 2 * values.MOST_PEERS)
    for name, reason in left_out.items():
        strictjson.text(name, f"{where}: left_out", 128, values.PEER_NAME)
        strictjson.text(reason, f"{where}: left_out of {name}", values.LONGEST_REASON)
    return Project(tuple(entries), tuple(members), dict(left_out))


def _entry(value: object, where: str, allowed: tuple[values.Network, ...]) -> Entry:
    found = strictjson.members(value, where, _PEER)
    name = strictjson.text(found["name"], f"{where}: name", 128, values.PEER_NAME)
    where = f"{where}, {name}"
    address = values.address(found["address"], f"{where}: address")
    _check_address(address, where, allowed)
    port = strictjson.whole(found["port"], f"{where}: port", 1, 65535)
    ssh = strictjson.one_of(found["transport"], f"{where}: transport", ("tcp", "ssh")) == "ssh"
    options = strictjson.items(found["options"], f"{where}: options", 8)
    keys = strictjson.items(found["host_keys"], f"{where}: host_keys", values.MOST_HOST_KEYS)
    try:
        peer = Peer(
            name,
            str(address),
            strictjson.whole(found["slots"], f"{where}: slots", 1, hostsfile.MOST_SLOTS),
            hostsfile.PORT if ssh else port,
            tuple(strictjson.text(each, f"{where}: options", 20) for each in options),
            ssh,
        )
    except HostsFileError as error:
        raise BadDocumentError(f"{where}: {strictjson.plain(str(error))}") from None
    return Entry(
        peer,
        port,
        strictjson.whole(found["ssh_port"], f"{where}: ssh_port", 1, 65535),
        tuple(values.host_key(each, f"{where}: host_keys") for each in keys),
    )


def _check_address(address: values.Address, where: str, allowed: tuple[values.Network, ...]) -> None:
    if not values.may_be_peer(address, allowed):
        listed = ", ".join(map(str, allowed)) or "none"
        raise BadDocumentError(f"{where}: {address} is in no network from which peers come ({listed})")


def _refuse_doubles(entries: Iterable[Entry], where: str) -> None:
    names: set[str] = set()
    for entry in entries:
        if entry.peer.name in names:
            raise BadDocumentError(f"{where}: {entry.peer.name} is there twice")
        names.add(entry.peer.name)
