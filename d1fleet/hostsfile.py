"""distcc's hosts files: written from what is known of a project's members, and read again. Pure.

The grammar is that of distcc(1), HOST SPECIFICATIONS; only what stands in such a file of ours is read:

    # comment
    --localslots=4 --localslots_cpp=16
    localhost/4
    192.0.2.12/8,lzo                    # birch
    [2001:db8::13]:3633/8,lzo           # cedar
    @192.0.2.14/4:COMMAND,lzo           # dogwood, over SSH

One word that distcc does not understand turns distribution off without an error, so nothing but addresses and
numbers ever gets into one. Used by the role distcc_hosts, too, and on hosts: the standard library alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PORT = 3632
"""distccd's, as IANA has it."""

MOST_SLOTS = 4096
"""More is a slip of the finger (a guess)."""

OPTIONS = ("lzo", "cpp")
"""lzo: what goes over the network is compressed. cpp: the peer preprocesses ("pump"), which wants lzo."""

SERVE = "/usr/local/lib/d1fleet/distcc/serve"
"""What a peer over SSH is asked to start; the role distcc puts it there."""

SERVE_ARGUMENTS = ("--inetd", "--enable-tcp-insecure")
"""What distcc says behind it, whatever it is."""

CPP_A_SLOT = 4
"""Preprocessors that may run here for each compiler that may: each waits for its peer most of the time.
distcc's own default is 8 for 4.
"""

LOCALHOST = "localhost"

_ENTRY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+))(?::(?P<port>\d+))?/(?P<slots>\d+)(?P<options>(?:,\w+)*)"
)
_SSH_ENTRY = re.compile(
    rf"@(?P<alias>[0-9A-Fa-f][0-9A-Fa-f.-]*)/(?P<slots>\d+):{re.escape(SERVE)}(?P<options>(?:,\w+)*)"
)
_LOCAL = re.compile(r"--(localslots|localslots_cpp)=(\d+)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class HostsFileError(ValueError):
    """A text is no hosts file of ours; says which word, and what is wrong with it."""


@dataclass(frozen=True)
class Peer:
    """A host that compiles for others.

    Attributes:
        name: the inventory's, for people; it stands in a comment.
        address: IPv4 or IPv6, written as ipaddress writes it.
        slots: compilations at once that one client may send there.
        port: of its compile server; over SSH the configuration of ssh has one.
        options: some of OPTIONS.
        ssh: it is reached by a login, not by a port of its own.
    """

    name: str
    address: str
    slots: int
    port: int = PORT
    options: tuple[str, ...] = ("lzo",)
    ssh: bool = False

    def __post_init__(self) -> None:
        """Raises:
        HostsFileError: a field could change the meaning of the file.
        """
        if not _NAME.fullmatch(self.name):
            raise HostsFileError(f"{self.name!r} is no name of a host")
        address = _address(self.address)
        if (
            str(address) != self.address
            or address.is_loopback
            or address.is_unspecified
            or address.is_multicast
            or self.address.startswith(":")
        ):
            raise HostsFileError(f"{self.name}: {self.address} is no address by which peers can reach it")
        _number(self.name, "port", self.port, 65535)
        _number(self.name, "slots", self.slots, MOST_SLOTS)
        _check_options(self.name, self.options)
        if self.ssh and self.port != PORT:
            raise HostsFileError(f"{self.name}: over SSH there is no port {self.port}")

    @property
    def alias(self) -> str:
        """Its address as ssh is told it: distcc takes no colons there."""
        return self.address.replace(":", "-")

    def __str__(self) -> str:
        options = "".join(f",{option}" for option in self.options)
        if self.ssh:
            return f"@{self.alias}/{self.slots}:{SERVE}{options}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        port = "" if self.port == PORT else f":{self.port}"
        return f"{host}{port}/{self.slots}{options}"


@dataclass(frozen=True)
class HostsFile:
    """What distcc on one host of a project reads.

    Attributes:
        localslots: compilers at once on the host itself, also for what no peer could compile: a hard limit.
        peers: in the order in which distcc fills them.
    """

    localslots: int
    peers: tuple[Peer, ...]

    @property
    def slots(self) -> int:
        """All together, as `distcc -j` counts them."""
        return self.localslots + sum(peer.slots for peer in self.peers)

    def text(self, head: Sequence[str] = ()) -> str:
        """The file, with lines of comment in front.

        Raises:
            HostsFileError: the number of slots cannot be used.
        """
        _number(LOCALHOST, "slots", self.localslots, MOST_SLOTS)
        entries = [(f"{LOCALHOST}/{self.localslots}", ""), *((str(peer), peer.name) for peer in self.peers)]
        width = max(len(entry) for entry, _ in entries)
        lines = [f"# {' '.join(line.split())}" for line in head]
        lines.append(f"--localslots={self.localslots} --localslots_cpp={CPP_A_SLOT * self.localslots}")
        lines += [f"{entry:<{width}}  # {name}" if name else entry for entry, name in entries]
        return "\n".join(lines) + "\n"

    def words(self, *, here: bool = True) -> str:
        """The same without comments, for DISTCC_HOSTS.

        Args:
            here: this host compiles, too; without, it only does what cannot be distributed.
        """
        words = [word for line in self.text().splitlines() for word in line.partition("#")[0].split()]
        return " ".join(word for word in words if here or not word.startswith(f"{LOCALHOST}/"))


def parse(text: str) -> HostsFile:
    """Read what `HostsFile.text` has written, in whatever order people have brought it.

    Raises:
        HostsFileError: a word is not understood, or it has no slots of its own.
    """
    localslots: int | None = None
    peers = []
    for number, line in enumerate(text.splitlines(), 1):
        before, _, comment = line.partition("#")
        words = before.split()
        for word in words:
            local, entry = _LOCAL.fullmatch(word), _ENTRY.fullmatch(word)
            over_ssh = _SSH_ENTRY.fullmatch(word)
            named = comment.split()[0] if len(words) == 1 and comment.split() else ""
            if local:
                if local[1] == "localslots":
                    localslots = int(local[2])
            elif over_ssh:
                peers.append(_peer(number, over_ssh, over_ssh["alias"].replace("-", ":"), named))
            elif entry is None:
                raise HostsFileError(f"line {number}: {word!r} is no host as d1fleet writes them")
            elif entry["host"] == LOCALHOST:
                localslots = int(entry["slots"]) if localslots is None else localslots
            else:
                peers.append(_peer(number, entry, entry["six"] or entry["host"], named))
    if localslots is None or not 1 <= localslots <= MOST_SLOTS:
        raise HostsFileError("it does not say how many compilers may run on this host itself")
    return HostsFile(localslots, tuple(peers))


def ring(own: str, members: Iterable[Peer]) -> tuple[Peer, ...]:
    """All but `own`, from the one behind it on: distcc fills the first before the next, and so each member of
    a project begins with another.
    """
    every = list(members)
    at = next((index for index, peer in enumerate(every) if peer.name == own), -1)
    return tuple(every[at + 1 :] + every[: max(at, 0)])


def address_of(text: str) -> str:
    """An address as it is written in a hosts file.

    Raises:
        HostsFileError: it is none.
    """
    return str(_address(text))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise HostsFileError(f"{text!r} is no address") from None
    if "%" in text:
        raise HostsFileError(f"{text!r} is an address that means something on one host alone")
    return found


def _number(name: str, what: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise HostsFileError(f"{name}: {what} {value!r} is not from 1 to {most}")


def _check_options(name: str, options: tuple[str, ...]) -> None:
    strange = [option for option in options if option not in OPTIONS]
    if strange or len(set(options)) != len(options):
        raise HostsFileError(
            f"{name}: options {', '.join(map(str, options))}; there are {', '.join(OPTIONS)}"
        )
    if "cpp" in options and "lzo" not in options:
        raise HostsFileError(f"{name}: option cpp wants lzo")


def _peer(number: int, entry: re.Match[str], host: str, named: str) -> Peer:
    options = tuple(entry["options"].split(",")[1:])
    port = entry.groupdict().get("port") or PORT
    ssh = "alias" in entry.groupdict()
    try:
        name = named if _NAME.fullmatch(named) else re.sub(r"[^A-Za-z0-9._-]", "-", host).strip("-.")
        return Peer(name, address_of(host), int(entry["slots"]), int(port), options, ssh)
    except HostsFileError as error:
        raise HostsFileError(f"line {number}: {error}") from None
