"""Fleets of container hosts for builds of nasty jobs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.containers import ContainerError, ContainerHosts, Host
from tests.kill import proc
from tests.kill.fleet import Fleet


@dataclass
class ContainerFleet(Fleet):
    """Hosts that are containers; their processes are seen by the numbers that they have here.

    Args:
        containers: of which those named in `hosts` are used.
    """

    containers: ContainerHosts = field(kw_only=True)
    _inits: dict[str, int] = field(default_factory=dict)

    def ssh_arguments(self) -> list[str]:
        return ["--ssh-config", str(self.containers.ssh_config)]

    def variables_of(self, name: str) -> dict[str, object]:
        return {"ansible_connection": "ssh", **self.hosts[name]}

    def sshd_pids(self) -> list[int]:
        """Those that listen; none of a host that is off."""
        return [
            pid
            for name in self.hosts
            for pid in proc.children(self._init(name))
            if any("sshd" in word for word in proc.words(pid)[:1])
        ]

    def slots_held(self) -> list[str]:
        held = []
        for name in self.hosts:
            root = Path(f"/proc/{self._init(name)}/root")
            for folder in ("run/d1fleet/slots", "run/user/0/d1fleet/slots", "tmp/d1fleet-0/slots"):
                for path in (root / folder).glob("slot.*"):
                    with path.open() as file:
                        try:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        except BlockingIOError:
                            held.append(f"{name}: {path.name}")
        return held

    def host_of(self, pid: int) -> Host:
        """The host that a process runs on.

        Raises:
            ProcessLookupError: none, or it is gone.
        """
        with contextlib.suppress(OSError):
            space = os.readlink(f"/proc/{pid}/ns/pid")
            for name in self.hosts:
                if os.readlink(f"/proc/{self._init(name)}/ns/pid") == space:
                    return self.containers[name]
        raise ProcessLookupError(f"process {pid} runs on no host")

    def _init(self, name: str) -> int:
        """The first process of a host, 0 while it is off; podman takes too long to be asked each time."""
        if not proc.runs(self._inits.get(name, 0)):
            self._inits[name] = 0
            with contextlib.suppress(ContainerError):
                self._inits[name] = self.containers[name].pid()
        return self._inits[name]
