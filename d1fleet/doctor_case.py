"""What a doctor knows when all has been asked: one project, its hosts, and this machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import hostsfile
from .doctor_facts import Canary, Distcc, Facts, Fresh, Log
from .doctor_talks import Clock
from .errors import D1fleetError
from .hostsfile import HostsFile, HostsFileError
from .model import Host


@dataclass(frozen=True)
class Here:
    """This machine."""

    uid: int
    gid: int
    user: str
    trees: tuple[str, ...]
    """Folders that hosts have to share, the build's own first."""
    clocks_s: tuple[float | None, ...] = ()
    """Our clock, less the time stamp that a file in each of them got just then."""


@dataclass
class Seen:
    """One host."""

    host: Host
    error: D1fleetError | None = None
    """Why nothing, or no more, is known of it."""
    transport: str = ""
    clock: Clock | None = None
    facts: Facts | None = None
    fresh: dict[int, Fresh] = field(default_factory=dict)
    """By the tree's number."""
    canaries: dict[str, Canary | D1fleetError | str] = field(default_factory=dict)
    """By the peer's name; a text says why a peer was not tried."""
    log: Log | None = None
    """What its compile server has said, where a peer could not compile."""

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def distcc(self) -> Distcc | None:
        return self.facts.distcc if self.facts is not None else None

    @property
    def hosts_file(self) -> HostsFile | None:
        """Its project's hosts file; None where there is none that distcc understands."""
        try:
            return hostsfile.parse(self.distcc.text) if self.distcc and self.distcc.text else None
        except HostsFileError:
            return None

    @property
    def distcc_enrolled(self) -> bool:
        """Has the role been here?"""
        if self.distcc is None:
            return False
        unit = self.distcc.units.get("d1fleet-distcc.service", {})
        return bool(self.distcc.text) or unit.get("LoadState") == "loaded"


@dataclass
class Case:
    """A project."""

    project: str
    """Empty where hosts were named by --hosts."""
    here: Here
    hosts: Sequence[Seen]
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """d1fleet_ variables of the inventory, by host."""

    def said(self, host: str, variable: str, usual: Any) -> Any:
        """A variable of the inventory, where it has a plain value of the usual one's type."""
        value = self.variables.get(host, {}).get(variable)
        return value if type(value) is type(usual) else usual

    def slots(self, host: str) -> int | None:
        """What the inventory says: a build's own settings are not in distcc's hosts files."""
        value = self.variables.get(host, {}).get("d1fleet_slots")
        number = str(value) if type(value) in (int, str) else ""
        return int(number) if number.isascii() and number.isdigit() else None

    def named(self, name: str) -> Seen | None:
        return next((each for each in self.hosts if each.name == name), None)

    @property
    def known(self) -> Iterator[Seen]:
        """Hosts that have told of themselves."""
        return (each for each in self.hosts if each.facts is not None)

    @property
    def has_distcc(self) -> bool:
        """Has any of them been given distcc by the role?"""
        return any(each.distcc_enrolled for each in self.hosts)
