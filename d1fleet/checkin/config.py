"""The configuration of the check-in, /etc/d1fleet/checkin.json: written by root, read by both programs.

    {"registry": "https://192.0.2.1:33333",     http:// for loopback addresses alone
     "certificate": PATH or "",                 of the registry's own certificate: that one alone is trusted
     "networks": ["192.0.2.0/24"],              peers are in these, or there are none
     "slots": NUMBER or null,                   null: as many as this host has usable CPUs
     "port": 3632, "ssh_port": 22,              of its compile server, and of its sshd
     "tools": [TOOL, ...],                      further compilers, by name or path
     "default_project": PROJECT or "",          whose hosts distcc uses by itself; "" for the only one
     "owner": TEXT, "host_keys": PATTERN}       of this host's public keys

Members beside the first three may be missing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import hostsfile
from ..errors import UsageError
from ..server import toolchain
from . import plainfile, strictjson, values
from .strictjson import BadDocumentError

HOST_KEYS = "/etc/ssh/ssh_host_*_key.pub"
MOST_BYTES = 1 << 16

_NEEDED = ("registry", "certificate", "networks")
_OTHERS = ("slots", "port", "ssh_port", "tools", "default_project", "owner", "host_keys")


@dataclass(frozen=True)
class Registry:
    """Where the registry is.

    Attributes:
        host: name or address; an IPv6 address without brackets.
        tls: without it, an address of loopback.
    """

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True)
class Configuration:
    """What the file says; see above."""

    registry: Registry
    certificate: str
    networks: tuple[values.Network, ...]
    slots: int | None = None
    port: int = hostsfile.PORT
    ssh_port: int = 22
    tools: tuple[str, ...] = ()
    default_project: str = ""
    owner: str = ""
    host_keys: str = HOST_KEYS


def parse(data: bytes) -> Configuration:
    """Read what the file holds.

    Raises:
        BadDocumentError: a value cannot be used.
    """
    found = strictjson.members(strictjson.read(data, MOST_BYTES), "it", _NEEDED, _OTHERS)
    given = {name: found[name] for name in _OTHERS if name in found}
    certificate = strictjson.text(found["certificate"], "certificate", 4000)
    if certificate and not os.path.isabs(certificate):
        raise BadDocumentError("certificate is no absolute path")
    return Configuration(
        registry(found["registry"]),
        certificate,
        tuple(values.networks(found["networks"], "networks", values.MOST_NETWORKS)),
        **{name: _READERS[name](value) for name, value in given.items()},
    )


def registry(value: object) -> Registry:
    """The address of a registry.

    Raises:
        BadDocumentError: it is none, or would be spoken to in the clear over a network.
    """
    written = strictjson.text(value, "registry", 300)
    try:
        url = urllib.parse.urlsplit(written)
        host, port = url.hostname or "", url.port or 33333
    except ValueError:
        raise BadDocumentError(f"registry is {strictjson.plain(written)!r}, which is no URL") from None
    plain_host = host.replace("-", "").replace(".", "").replace(":", "").isalnum() and host.isascii()
    rest = url.username or url.password or url.query or url.fragment or url.path not in ("", "/")
    if url.scheme not in ("http", "https") or not plain_host or rest:
        raise BadDocumentError("registry is no URL such as https://192.0.2.1:33333")
    if url.scheme == "http" and not _is_loopback(host):
        raise BadDocumentError(
            f"registry is {strictjson.plain(written)}: http is for 127.0.0.1 and ::1 alone,"
            " since whoever listens would be let in by all hosts; say https"
        )
    return Registry(host, port, url.scheme == "https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _slots(value: object) -> int | None:
    return None if value is None else strictjson.whole(value, "slots", 1, hostsfile.MOST_SLOTS)


def _tools(value: object) -> tuple[str, ...]:
    every = strictjson.items(value, "tools", toolchain.MOST_TOOLS)
    return tuple(strictjson.text(each, "tools", 100, toolchain.TOOL_NAME) for each in every)


def _default_project(value: object) -> str:
    return "" if value == "" else values.project_name(value, "default_project")


def _owner(value: object) -> str:
    return "" if value == "" else strictjson.text(value, "owner", 64, values.OWNER)


def _host_keys(value: object) -> str:
    found = strictjson.text(value, "host_keys", 1000)
    if not os.path.isabs(found):
        raise BadDocumentError("host_keys is no absolute path")
    return found


_READERS: dict[str, Callable[[object], Any]] = {
    "slots": _slots,
    "port": lambda value: strictjson.whole(value, "port", 1, 65535),
    "ssh_port": lambda value: strictjson.whole(value, "ssh_port", 1, 65535),
    "tools": _tools,
    "default_project": _default_project,
    "owner": _owner,
    "host_keys": _host_keys,
}


def load(path: str, owners: tuple[int, ...] | None = None) -> Configuration:
    """Read the file.

    Args:
        owners: uids of those who may have written it; None for this user and root.

    Raises:
        UsageError: it is not there, somebody else could have written it, or a value cannot be used.
    """
    mend = "have it written again: ansible-playbook site.yml, or d1fleet join"
    try:
        data, state = plainfile.read(path, MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", mend) from error
    if state.st_uid not in (owners or (0, os.geteuid())) or state.st_mode & 0o022:
        raise UsageError(f"{path} can be written by others than root", f"chown root {path}; chmod 644 {path}")
    try:
        return parse(data)
    except BadDocumentError as error:
        raise UsageError(f"{path}: {error}", mend) from error


def stamp(path: str) -> tuple[int, ...]:
    """Shows whether a file is the one that was read; empty where there is none."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return ()
