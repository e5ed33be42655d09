"""What may stand in the fields of documents, as registry and check-in agree on it. Pure.

The registry has the same limits (registry/model.py), which a test compares; it cannot be imported here, since
hosts have Python 3.9 and the standard library alone.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable
from typing import Union

from .strictjson import BadDocumentError, items, plain, text

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

PROJECT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
RESERVED = frozenset(["all", "ungrouped", "projects", "localhost"])
HOST_NAME = re.compile(
    r"(?=.{1,100}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII
)
PEER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
"""Of clients of dyndistcc, the registry makes names of their addresses."""
OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@+-]{0,62}[A-Za-z0-9.])?", re.ASCII)
SYSTEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ()./_+-]{0,63}", re.ASCII)
HOST_KEY = re.compile(r"[a-z0-9@.-]{3,64} [A-Za-z0-9+/]{16,1500}={0,2}", re.ASCII)
CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]{16,8192}", re.ASCII)
"""It stands in a header of HTTP."""
JOIN_TOKEN = re.compile(r"d1j_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", re.ASCII)
REVISION = re.compile(r"[!-~]{1,128}", re.ASCII)
ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

WIDEST = {4: 8, 6: 32}
"""Shortest prefix of a network, by the version of IP: shorter ones are the Internet."""

MOST_NETWORKS = 64
MOST_RANGES = 32
MOST_PROJECTS = 64
MOST_PEERS = 5000
"""Of one project."""
MOST_MEMBERS = 20_000
"""Addresses that one project's hosts may come from."""
MOST_ADDRESSES = 16
MOST_HOST_KEYS = 8
LONGEST_REASON = 2000
LONGEST_ERROR = 400


def project_name(value: object, where: str) -> str:
    """Raises:
    BadDocumentError: it cannot be the name of a project, which is one of a file.
    """
    found = text(value, where, 63, PROJECT_NAME)
    if found.lower() in RESERVED:
        raise BadDocumentError(f"{where} is {found}, which is no name of a project")
    return found


def host_name(value: object, where: str) -> str:
    """Raises:
    BadDocumentError: it is no name of a host that has joined.
    """
    found = text(value, where, 100, HOST_NAME)
    if found in RESERVED:
        raise BadDocumentError(f"{where} is {found}, which is no name of a host")
    return found


def address(value: object, where: str) -> Address:
    """An address that is written as ipaddress writes it.

    Raises:
        BadDocumentError: it is none, or means something on one host alone.
    """
    written = text(value, where, 64)
    try:
        found = ipaddress.ip_address(written)
    except ValueError:
        raise BadDocumentError(f"{where} is {plain(written)!r}, which is no address") from None
    if str(found) != written or "%" in written:
        raise BadDocumentError(f"{where} is {plain(written)!r}, which is not written as addresses are")
    return found


def addresses(value: object, where: str, most: int) -> list[Address]:
    """Raises:
    BadDocumentError: they are no addresses.
    """
    return [address(each, where) for each in items(value, where, most)]


def networks(value: object, where: str, most: int) -> list[Network]:
    """Networks in which peers can reach each other.

    Raises:
        BadDocumentError: they are none, or open to the world.
    """
    found: list[Network] = []
    for each in items(value, where, most):
        written = text(each, where, 64)
        try:
            network = ipaddress.ip_network(written)
        except ValueError:
            raise BadDocumentError(f"{where} has {plain(written)!r}, which is no network") from None
        if network.prefixlen < WIDEST[network.version] or "%" in written:
            raise BadDocumentError(f"{where} has {plain(written)}, which is open to the world")
        if network.is_loopback or network.is_multicast or network.is_link_local:
            raise BadDocumentError(f"{where} has {plain(written)}, in which no peers reach each other")
        found.append(network)
    return found


def may_be_peer(found: Address, allowed: Iterable[Network]) -> bool:
    """Do peers reach a host by it, in these networks? Never by one that is their own loopback."""
    if found.is_loopback or found.is_unspecified or found.is_multicast or found.is_link_local:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return False
    return any(found in network for network in allowed if network.version == found.version)


def host_key(value: object, where: str) -> str:
    """A public key as OpenSSH writes it, without a comment; its two words are of one kind.

    Raises:
        BadDocumentError: it is none.
    """
    found = text(value, where, 1600, HOST_KEY)
    kind, _, encoded = found.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    size = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + size] != kind.encode() or "cert" in kind or len(blob) <= 4 + size:
        raise BadDocumentError(f"{where} is no public key")
    return found
