"""Where a registry is, and how we know that it is that one. Pure."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

from .errors import UsageError
from .words import plain

PORT = 33333

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_PIN = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)

EXAMPLE = "https://192.0.2.1:33333"


@dataclass(frozen=True)
class Place:
    """Where a registry is.

    Attributes:
        socket: path of the socket of a registry on this machine, or "".
        host: name or address, an IPv6 address without brackets; "" with a socket.
        tls: without it, an address of loopback.
        certificate: a file with its own certificate, or that of an authority that has signed it; "" for the
            authorities that this machine trusts.
        pin: `sha256:` and 64 hex digits of its certificate; "" for none.
    """

    socket: str = ""
    host: str = ""
    port: int = PORT
    tls: bool = True
    certificate: str = ""
    pin: str = ""

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        if self.socket:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else f"http{'s' * self.tls}://{self.authority}"


def read_place(text: str, certificate: str = "", pin: str = "") -> Place:
    """What a URL says: https://HOST[:PORT], HOST[:PORT] alone for the same, http:// for loopback addresses,
    or unix:PATH.

    Raises:
        UsageError: it is none of these, or would be spoken to in the clear over a network.
    """
    if certificate and pin:
        raise UsageError(
            "a certificate and a pin are both given",
            "one of them says that it is the registry: leave out one",
        )
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise UsageError(f"{plain(text)} names no socket", "unix: and an absolute path")
        return Place(socket=path)
    try:
        url = urllib.parse.urlsplit(text if "://" in text else f"https://{text}")
        host, port = url.hostname or "", PORT if url.port is None else url.port
    except ValueError:
        raise UsageError(f"{plain(text)!r} is no URL of a registry", f"write it as {EXAMPLE}") from None
    rest = url.username or url.password or url.query or url.fragment or url.path not in ("", "/")
    if url.scheme not in ("http", "https") or rest or not port or not _is_host(host):
        raise UsageError(f"{plain(text)!r} is no URL of a registry", f"write it as {EXAMPLE}")
    if url.scheme == "http" and not is_loopback(host):
        raise UsageError(
            f"{plain(text)}: without TLS, whoever listens would get our key, and could answer in its place",
            "say https://; http:// is for 127.0.0.1 and ::1 alone",
        )
    tls = url.scheme == "https"
    return Place("", host, port, tls, certificate if tls else "", read_pin(pin) if pin and tls else "")


def read_pin(text: str) -> str:
    """A pin as we write it: letters may be capital and bytes parted by colons, as openssl prints them.

    Raises:
        UsageError: it is none.
    """
    name, _, digits = text.strip().lower().partition(":")
    found = f"{name}:{digits.replace(':', '')}"
    if not _PIN.fullmatch(found):
        raise UsageError(
            f"{plain(text)!r} is no pin of a certificate",
            "sha256: and 64 hex digits, as the panel and `d1fleet registry certificate` show it",
        )
    return found


def is_loopback(host: str) -> bool:
    """Is it an address that means this machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    try:
        return str(ipaddress.ip_address(text)) != "" and "%" not in text
    except ValueError:
        return _HOST.fullmatch(text) is not None
