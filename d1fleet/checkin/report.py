"""What a host says of itself when it checks in: facts and configuration, in the registry's words."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import __version__, hostsfile
from ..server.load import LoadMeter, usable_cpus
from . import facts, netlink, values
from .config import Configuration


@dataclass(frozen=True)
class Durable:
    """What changes seldom, and is said at once when it does."""

    addresses: tuple[str, ...]
    slots: int
    serving: bool
    host_keys: tuple[str, ...]
    toolchain: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fleeting:
    """What every beat says anew."""

    jobs: int = 0
    load_others_cpus: float = 0.0
    load_1min: float = 0.0
    memory_available_bytes: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0


def durable(config: Configuration, toolchain: Mapping[str, str]) -> Durable:
    """A look at this host."""
    return Durable(
        tuple(netlink.own_addresses(config.networks)[: values.MOST_ADDRESSES]),
        config.slots or min(usable_cpus(), hostsfile.MOST_SLOTS),
        facts.listens(config.port),
        facts.host_keys(config.host_keys),
        toolchain,
    )


class Meter:
    """What this host does at the moment.

    Args:
        root: the folder that holds `proc` and the cgroup mounts.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._server = facts.CompileServer(root)
        self._load: LoadMeter | None = None
        self._cpus = 0

    def sample(self) -> Fleeting:
        """A look; load is that since the last one."""
        cpus = usable_cpus(self._root)
        if self._load is None or cpus != self._cpus:
            # It counts what may be used here, and that is another by now.
            self._load, self._cpus = LoadMeter(self._root), cpus
        pid = self._server.pid()
        load = self._load.sample([os.getpid(), *([pid] if pid else [])])
        return Fleeting(
            self._server.jobs(),
            round(load.others_cpus, 3),
            round(load.load_1min, 3),
            load.memory_available_bytes,
            facts.memory_bytes(self._root),
            facts.disk_free_bytes(),
        )


class Reporter:
    """Makes reports, each with a higher number than the one before.

    Args:
        machine: 64 hex digits.
    """

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._session = secrets.token_hex(16)
        self._sequence = 0
        self._system = facts.system()

    def report(
        self, config: Configuration, known: Durable, moment: Fleeting, error: str = ""
    ) -> dict[str, Any]:
        """One report.

        Args:
            error: what went wrong since the last one.
        """
        self._sequence += 1
        return {
            "session": self._session,
            "sequence": self._sequence,
            "owner": config.owner,
            "addresses": list(known.addresses),
            "slots": known.slots,
            "port": config.port,
            "ssh_port": config.ssh_port,
            "serving": known.serving,
            "version": __version__,
            "system": self._system,
            "machine": self._machine,
            "host_keys": list(known.host_keys),
            "toolchain": dict(known.toolchain),
            "jobs": moment.jobs,
            "load_others_cpus": moment.load_others_cpus,
            "load_1min": moment.load_1min,
            "memory_available_bytes": moment.memory_available_bytes,
            "memory_bytes": moment.memory_bytes,
            "disk_free_bytes": moment.disk_free_bytes,
            "error": _printable(error),
        }


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)[: values.LONGEST_ERROR]
