"""What the registry knows: records that are stored, and what hosts report. Typed and bounded; pure.

A record is what a row of the database holds. All are frozen: a change is a new record.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from ..checkin.values import HOST_KEY, HOST_NAME, OWNER, PROJECT_NAME, RESERVED, SYSTEM
from ..errors import D1fleetError
from ..hostsfile import MOST_SLOTS, OPTIONS, PORT
from ..server.toolchain import parts_fault

OPERATOR_NAME = re.compile(r"[a-z_][a-z0-9._-]{0,31}", re.ASCII)
SESSION = re.compile(r"[0-9a-f]{32}", re.ASCII)
MACHINE = re.compile(r"[0-9a-f]{64}", re.ASCII)
VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}", re.ASCII)
OURS = ("d1fleet_", "registry_")
"""Beginnings of groups that playbooks and the inventory plugin make."""

_THIS_MACHINE = re.compile(
    r"(localhost|ip6-localhost|ip6-loopback)\d*(\..*)?|(.*\.)?(\d+|0x[0-9a-f]*)", re.ASCII
)
"""Ansible takes these, and addresses, for the machine that it runs on or for where to connect to."""

WIDEST = {4: 8, 6: 32}
"""Shortest prefix of a range, by the version of IP: shorter ones are the Internet."""

MOST_RANGES = 32
MOST_PROJECTS = 64
"""Of one host."""
MOST_ADDRESSES = 16
MOST_HOST_KEYS = 8
LONGEST_ERROR = 400
"""Characters of what went wrong on a host, in its own words."""
MOST_BYTES = 1 << 50
"""Of memory and disk: a petabyte is a mistake."""
MOST_CPUS = 1e6
MOST_JOBS = 1_000_000
MOST_SEQUENCE = 1 << 53

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class FieldError(D1fleetError):
    """A value cannot be used.

    Args:
        field: which one, as the API names it.
        fault: what is wrong with it, and what it should be.
    """

    exit_code = 81

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field}: {fault}")
        self.field = field
        self.fault = fault


class State(Enum):
    """What a host is to its peers; the first that fits."""

    EXPUNGED = "expunged"
    """An operator has thrown it out; it stays out until it is re-admitted."""
    CLONED = "cloned"
    """Two machines check in with one credential."""
    LEFT = "left"
    """It said goodbye: it was shut down, or its service was stopped."""
    GONE = "gone"
    """Not heard of for so long that peers do not get it any more."""
    SUSPECT = "suspect"
    """Two beats were missed. Peers keep it."""
    DRAINED = "drained"
    """It compiles for nobody, by an operator's word, and may send work to others."""
    UP = "up"


@dataclass(frozen=True)
class Project:
    """Hosts that compile for each other.

    Attributes:
        ranges: networks from which its hosts may come; nothing is let in from elsewhere.
        options: of distcc's host specifications.
        transport: how members reach each other's distcc: "tcp" or "ssh".
        toolchain_mismatch: "exclude" leaves hosts out whose compilers differ from what most have; "ignore"
            does not.
        old_clients: clients of dyndistcc may check in, unauthenticated, from `ranges`.
        created_at: seconds since the epoch.
    """

    name: str
    ranges: tuple[str, ...]
    options: tuple[str, ...] = ("lzo",)
    transport: str = "tcp"
    toolchain_mismatch: str = "exclude"
    old_clients: bool = False
    created_at: float = 0.0

    def __post_init__(self) -> None:
        """Raises:
        FieldError: a value cannot be used.
        """
        check_project_name(self.name)
        check_ranges("ranges", self.ranges)
        check_options("options", self.options)
        _one_of("transport", self.transport, ("tcp", "ssh"))
        _one_of("toolchain_mismatch", self.toolchain_mismatch, ("exclude", "ignore"))

    @functools.cached_property
    def networks(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(each) for each in self.ranges)


@dataclass(frozen=True)
class Host:
    """A host that has joined.

    Attributes:
        id: 32 hex digits; no secret.
        projects: in the order in which it joined them.
        address: by which peers reach it, "" as long as none is known that they may.
        fixed_address: an operator's word that it is so, "" for the address that is seen.
        machine: a digest of its machine-id: another one is another machine.
        host_keys: of its sshd, as they were when it joined.
        generation: of its credential; older ones are void.
        session: of the last report, so that another machine with the same credential is noticed.
        joined_at, seen_at: seconds since the epoch; seen_at is written now and then.
        left, gone: it said goodbye, or was not heard of for too long; until it is heard of again.
        note: why peers do not get it, where that is not its state.
    """

    id: str
    name: str
    projects: tuple[str, ...]
    owner: str = ""
    address: str = ""
    fixed_address: str = ""
    slots: int = 1
    port: int = PORT
    ssh_port: int = 22
    serving: bool = True
    version: str = ""
    system: str = ""
    machine: str = ""
    host_keys: tuple[str, ...] = ()
    toolchain: dict[str, str] = field(default_factory=dict)
    generation: int = 1
    session: str = ""
    joined_at: float = 0.0
    seen_at: float = 0.0
    drained: bool = False
    expunged: bool = False
    cloned: bool = False
    left: bool = False
    gone: bool = False
    note: str = ""


@dataclass(frozen=True)
class Token:
    """With which hosts join a project; `digest` is of the whole token, which nobody keeps."""

    id: str
    project: str
    digest: str
    note: str = ""
    created_at: float = 0.0
    used_at: float = 0.0


@dataclass(frozen=True)
class Operator:
    """Somebody who signs in at the panel."""

    name: str
    password_hash: str
    kind: str = "operator"
    created_at: float = 0.0

    def __post_init__(self) -> None:
        check_operator_name(self.name)
        _one_of("kind", self.kind, KINDS)


@dataclass(frozen=True)
class Key:
    """With which programs speak to the API for operators."""

    id: str
    digest: str
    kind: str
    note: str = ""
    created_at: float = 0.0

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)


KINDS = ("viewer", "operator")
"""A viewer changes nothing."""


@dataclass(frozen=True)
class AuditEntry:
    """Who did what to whom, and from where.

    Attributes:
        at: seconds since the epoch.
        who: `operator:ada`, `key:1f2e3d4c`, `socket`, `host:alder`.
        source: the address that it came from, or "".
    """

    at: float
    who: str
    what: str
    whom: str
    source: str = ""
    detail: str = ""


Record = Project | Host | Token | Operator | Key


@dataclass(frozen=True)
class Report:
    """What a host says of itself. Checked as a whole when it is made.

    Attributes:
        session: new at each start of what checks in.
        sequence: grows with each report of a session; one that does not has been replayed.
        addresses: that it has, for one that checks in on the registry's own machine.
        serving: its compile server answers.
        toolchain: as `server.toolchain.describe` has it.
        jobs: compilations for others at this moment.
        load_others_cpus: CPUs that are kept busy by what is not distcc's.
        error: what went wrong there since the last report, "" for nothing.
    """

    session: str
    sequence: int
    slots: int
    owner: str = ""
    addresses: tuple[str, ...] = ()
    port: int = PORT
    ssh_port: int = 22
    serving: bool = True
    version: str = "0"
    system: str = "Linux"
    machine: str = "0" * 64
    host_keys: tuple[str, ...] = ()
    toolchain: dict[str, str] = field(default_factory=dict)
    jobs: int = 0
    load_others_cpus: float = 0.0
    load_1min: float = 0.0
    memory_available_bytes: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    error: str = ""

    def __post_init__(self) -> None:
        """Raises:
        FieldError: a field cannot be meant.
        """
        _matches("session", self.session, SESSION, "32 hex digits")
        check_number("sequence", self.sequence, 1, MOST_SEQUENCE)
        check_number("slots", self.slots, 1, MOST_SLOTS)
        if self.owner:
            _matches("owner", self.owner, OWNER, "a name of plain letters and digits, at most 64 characters")
        if len(self.addresses) > MOST_ADDRESSES:
            raise FieldError("addresses", f"there are more than {MOST_ADDRESSES}")
        for each in self.addresses:
            read_address("addresses", each)
        check_number("port", self.port, 1, 65535)
        check_number("ssh_port", self.ssh_port, 1, 65535)
        _matches("version", self.version, VERSION, "a version such as 0.1.0")
        _matches("system", self.system, SYSTEM, "the name of a distribution, at most 64 characters")
        _matches("machine", self.machine, MACHINE, "64 hex digits")
        if len(self.host_keys) > MOST_HOST_KEYS:
            raise FieldError("host_keys", f"there are more than {MOST_HOST_KEYS}")
        for each in self.host_keys:
            _matches("host_keys", each, HOST_KEY, "public keys as ssh writes them, without a comment")
        if fault := parts_fault(self.toolchain):
            raise FieldError("toolchain", fault)
        check_number("jobs", self.jobs, 0, MOST_JOBS)
        _amount("load_others_cpus", self.load_others_cpus)
        _amount("load_1min", self.load_1min)
        for name in ("memory_available_bytes", "memory_bytes", "disk_free_bytes"):
            check_number(name, getattr(self, name), 0, MOST_BYTES)
        if len(self.error) > LONGEST_ERROR or not self.error.isprintable():
            raise FieldError("error", f"at most {LONGEST_ERROR} characters that can be printed")


def check_project_name(text: str) -> None:
    """Raises:
    FieldError: it cannot be a group of an inventory and a file.
    """
    _matches("name", text, PROJECT_NAME, "letters, digits and _, at most 63, no digit in front")
    if text.lower() in RESERVED or text.lower().startswith(OURS):
        raise FieldError("name", f"{text} means something else in an inventory; choose another name")


def check_host_name(text: str) -> None:
    """Raises:
    FieldError: it is no name of a host that could stand in an inventory.
    """
    _matches("name", text, HOST_NAME, "a host's name in lower case, at most 100 characters")
    if text in RESERVED or _THIS_MACHINE.fullmatch(text):
        raise FieldError("name", f"{text} is no name by which others know a host")


def check_operator_name(text: str) -> None:
    """Raises:
    FieldError: it is none.
    """
    _matches("name", text, OPERATOR_NAME, "lower case letters, digits and ._-, at most 32, a letter in front")


def check_ranges(name: str, ranges: Iterable[str]) -> None:
    """Raises:
    FieldError: none, too many, or one that is no network of the operator's own.
    """
    every = list(ranges)
    if not 1 <= len(every) <= MOST_RANGES:
        raise FieldError(name, f"name from 1 to {MOST_RANGES} networks, such as 192.0.2.0/24")
    for text in every:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise FieldError(name, f"{plain(str(error))}. Write networks as 192.0.2.0/24") from None
        if str(network) != text:
            raise FieldError(name, f"{plain(text)} is written {network}")
        if network.prefixlen < WIDEST[network.version]:
            raise FieldError(
                name,
                f"{text} is open to the world, and who reaches distcc runs programs there;"
                f" name your own networks, of /{WIDEST[network.version]} or narrower",
            )
        if network.is_loopback or network.is_multicast:
            raise FieldError(name, f"{text} is no network in which peers could reach each other")


def check_options(name: str, options: Iterable[str]) -> None:
    """Raises:
    FieldError: unknown ones, or one twice.
    """
    every = list(options)
    if any(option not in OPTIONS for option in every) or len(set(every)) != len(every):
        raise FieldError(name, f"there are {', '.join(OPTIONS)}, each once")
    if "cpp" in every and "lzo" not in every:
        raise FieldError(name, "cpp wants lzo beside it")


def check_number(name: str, value: int, least: int, most: int) -> None:
    """Raises:
    FieldError: it is no whole number of that range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise FieldError(name, f"it has to be a whole number from {least} to {most}")


def read_address(name: str, text: str) -> Address:
    """An address as ipaddress writes it.

    Raises:
        FieldError: it is none, or means something on one host alone.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise FieldError(name, f"{plain(text)!r} is no address") from None
    if str(address) != text or "%" in text:
        raise FieldError(name, f"{plain(text)!r} is not written as addresses are")
    return address


def may_be_peer(address: Address, networks: Iterable[Network]) -> bool:
    """Can peers in these networks reach a host by it? Never by one that is their own loopback."""
    return (
        not (address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local)
        and not (address.version == 6 and address.ipv4_mapped is not None)
        and any(address in network for network in networks if network.version == address.version)
    )


def plain(text: str, longest: int = 80) -> str:
    """Of what somebody sent, as much as may stand in a message."""
    return "".join(each if each.isprintable() and each.isascii() else "?" for each in text[:longest])


def _matches(name: str, text: str, pattern: re.Pattern[str], words: str) -> None:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise FieldError(name, f"it has to be {words}")


def _one_of(name: str, text: str, choices: tuple[str, ...]) -> None:
    if text not in choices:
        raise FieldError(name, f"it has to be one of {', '.join(choices)}")


def _amount(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_CPUS:
        raise FieldError(name, f"it has to be a number from 0 to {MOST_CPUS:.0f}")
