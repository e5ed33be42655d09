"""Small fleets on this machine for builds of the tests, over pipes and over SSH, with slots of their own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.support.sshd import LoopbackSshd

PROGRAM = shlex.split(os.environ.get("D1FLEET_TEST_PROGRAM", "")) or [sys.executable, "-m", "d1fleet.cli"]
"""The `d1fleet` under test."""

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Times:
    """How soon a silent peer is given up."""

    lease_s: float = 2.0
    grace_s: float = 1.0
    heartbeat_s: float = 0.4

    def options(self) -> list[str]:
        return [
            f"--lease={self.lease_s}",
            f"--grace={self.grace_s}",
            f"--heartbeat={self.heartbeat_s}",
        ]


SHORT = Times()
DEFAULTS = Times(10.0, 6.0, 2.0)


def private_sshd(folder: Path, aliases: Sequence[str]) -> LoopbackSshd:
    """A server whose logins have slots of their own: other builds on this machine do not count."""
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    options: dict[str, str | int] = {"MaxSessions": 1, "SetEnv": f"XDG_RUNTIME_DIR={runtime}"}
    return LoopbackSshd(folder, aliases, options=options)


@dataclass
class Fleet:
    """Hosts, all of them this machine; those of `containers.ContainerFleet` are not.

    Args:
        folder: for the inventory, and for the locks of slots where hosts are reached over pipes.
        hosts: variables of each host, by name.
        sshd: reach them over this; its aliases are their names. None: over pipes.
        transport: the client for that.
    """

    folder: Path
    hosts: Mapping[str, Mapping[str, object]]
    sshd: LoopbackSshd | None = None
    times: Times = SHORT
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further environment of a build."""
    transport: str = "ssh"

    @property
    def runtime(self) -> Path:
        return self.folder / "run"

    def environment(self) -> dict[str, str]:
        """For a build: the caller's, with runtime folders of its own."""
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        ours = {"PYTHONPATH": str(CHECKOUT), "XDG_RUNTIME_DIR": str(self.runtime)}
        return {**os.environ, **ours, **self.variables}

    def command(self, *arguments: str, record: Path | None = None, own: Sequence[str] = ()) -> list[str]:
        """argv of `d1fleet build` on this fleet with make's `arguments`."""
        argv = [*PROGRAM, "build", "--inventory", str(self._inventory()), *self.times.options()]
        argv += self.ssh_arguments()
        if record is not None:
            argv += ["--record", str(record)]
        return [*argv, *own, *arguments]

    def ssh_arguments(self) -> list[str]:
        """Options of ours that say how hosts are reached."""
        return ["--ssh-config", str(self.sshd.ssh_config)] if self.sshd is not None else []

    def variables_of(self, name: str) -> dict[str, object]:
        """What the inventory says of a host."""
        return {"d1fleet_transport": "local" if self.sshd is None else self.transport, **self.hosts[name]}

    def sshd_pids(self) -> list[int]:
        """Processes of the SSH servers; none where hosts are reached over pipes."""
        return self.sshd.pids if self.sshd is not None else []

    def slots_held(self) -> list[str]:
        """Slots that somebody still holds."""
        runtime = self.runtime if self.sshd is None else self.sshd.folder / "run"
        held = []
        for path in (runtime / "d1fleet" / "slots").glob("slot.*"):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(path.name)
        return held

    def builds_left(self) -> list[Path]:
        """Folders of builds that have not been removed."""
        return list((self.runtime / "d1fleet" / "builds").glob("*"))

    def _inventory(self) -> Path:
        hosts = {name: self.variables_of(name) for name in self.hosts}
        text = yaml.safe_dump({"projects": {"children": {"test": {"hosts": hosts}}}})
        path = self.folder / f"hosts-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yml"
        path.write_text(text)
        return path
