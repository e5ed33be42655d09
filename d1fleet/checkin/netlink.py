"""What the kernel says of addresses, and of changes (rtnetlink(7)), and of who listens (sock_diag(7))."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator

from .values import Address, Network, may_be_peer

_GROUPS = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""

_NEWADDR, _GETADDR = 20, 22
_DONE, _ERROR = 3, 2
_REQUEST, _DUMP = 0x1, 0x300
_ADDRESS, _LOCAL, _FLAGS = 1, 2, 8
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")

_SOCK_DIAG, _BY_FAMILY, _LISTEN = 4, 20, 10
"""NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, TCP_LISTEN."""
_DIAG_REQUEST = struct.Struct("=BBBBI")

_UNUSABLE = 0x08 | 0x20 | 0x40
"""Flags of addresses that failed, are deprecated, or are not ours yet: IFA_F_DADFAILED and so on."""
_TEMPORARY = 0x01
"""RFC 8981: for privacy, another one every day."""
_OF_LINK = 253
"""RT_SCOPE_LINK; what is above means something on this host alone."""

_LIMIT_S = 2.0


class AddressWatch:
    """A descriptor that can be read from when addresses may have changed."""

    def __init__(self) -> None:
        """Raises:
        OSError: there is no such socket here: then addresses have to be looked at again and again.
        """
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self.socket.bind((0, _GROUPS))
        except OSError:
            self.socket.close()
            raise

    def drain(self) -> None:
        """Take what was said; that too much was said to be kept is word enough."""
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 16):
                pass

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()


def own_addresses(networks: Iterable[Network] = ()) -> list[str]:
    """Addresses by which others could reach this host, those in `networks` first, temporary ones last.

    In an order that stays the same as long as they do.
    """
    try:
        found = dict(_asked())
    except (OSError, struct.error):
        found = dict(_read())
    allowed = tuple(networks)

    def rank(address: Address) -> tuple[bool, bool, int, int]:
        return not may_be_peer(address, allowed), found[address], address.version, int(address)

    usable = [each for each in found if not (each.is_loopback or each.is_link_local or each.is_unspecified)]
    return [str(each) for each in sorted(usable, key=rank)]


def listens(port: int) -> bool:
    """Does anybody listen on this TCP port here? As sock_diag(7) says it, at once; proc(5) looks at every
    connection that there is.

    Raises:
        OSError: the kernel does not say.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN) + bytes(48)
        for kind, message in _dump(_SOCK_DIAG, _BY_FAMILY, request):
            # Family, state, timer, retransmissions; then the port, as the network has it.
            if kind == _BY_FAMILY and int.from_bytes(message[4:6], "big") == port:
                return True
    return False


def _dump(protocol: int, kind: int, request: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, message) of all that the kernel answers to a request for everything.

    Raises:
        OSError: it refuses.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as asked:
        asked.settimeout(_LIMIT_S)
        asked.bind((0, 0))
        asked.send(_HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | _DUMP, 1, 0) + request)
        while True:
            data = asked.recv(1 << 18)
            while data:
                length, found, _, _, _ = _HEADER.unpack_from(data)
                if found == _DONE:
                    return
                if found == _ERROR or length < _HEADER.size:
                    raise OSError("the kernel does not list it")
                yield found, data[_HEADER.size : length]
                data = data[(length + 3) & ~3 :]


def _asked() -> Iterator[tuple[Address, bool]]:
    """(address, is it temporary), from the kernel."""
    request = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for kind, message in _dump(socket.NETLINK_ROUTE, _GETADDR, request):
        if kind == _NEWADDR:
            yield from _address(message)


def _address(message: bytes) -> Iterator[tuple[Address, bool]]:
    family, _, flags, scope, _ = _MESSAGE.unpack_from(message)
    attributes: dict[int, bytes] = {}
    rest = message[_MESSAGE.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[(length + 3) & ~3 :]
    if len(attributes.get(_FLAGS, b"")) == 4:
        (flags,) = struct.unpack("=I", attributes[_FLAGS])
    # Of a point-to-point link, the other end is the address, and ours the local one.
    packed = attributes.get(_LOCAL, attributes.get(_ADDRESS, b""))
    if scope < _OF_LINK and not flags & _UNUSABLE:
        if family == socket.AF_INET and len(packed) == 4:
            yield ipaddress.IPv4Address(packed), False
        elif family == socket.AF_INET6 and len(packed) == 16:
            yield ipaddress.IPv6Address(packed), bool(flags & _TEMPORARY)


def _read() -> Iterator[tuple[Address, bool]]:
    """The same from proc(5), where the unit may not use such sockets."""
    with contextlib.suppress(OSError, ValueError), open("/proc/net/fib_trie") as file:
        last = ""
        for line in file:
            words = line.split()
            if words[:2] == ["/32", "host"] and words[2:] == ["LOCAL"]:
                yield ipaddress.IPv4Address(last), False
            elif words[:1] == ["|--"]:
                last = words[1]
    with contextlib.suppress(OSError, ValueError), open("/proc/net/if_inet6") as file:
        for line in file:
            packed, _, _, scope, flags, _ = line.split()
            if int(scope, 16) == 0 and not int(flags, 16) & _UNUSABLE:
                yield ipaddress.IPv6Address(bytes.fromhex(packed)), bool(int(flags, 16) & _TEMPORARY)
