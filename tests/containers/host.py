"""One test host and the faults that can be made in it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.containers.errors import ContainerError
from tests.containers.launcher import Launch, launch_here
from tests.containers.links import host_end, set_link
from tests.containers.podman import podman

START_TIMEOUT_S = 60.0
"""From a container's start until its sshd answers: a guess, ten times what a slow host took."""

RUN_TIMEOUT_S = 120.0

_AFTER_S = 5
"""Between asking and killing a command that took too long."""

_TIMED_OUT = 124
"""The status of timeout(1) then."""

_POLL_S = 0.05

_FREEZE_TRIES = 4
_NOT_FROZEN = "unable to freeze"
"""What runc says then; it lets what it had frozen go on."""

_FILTER = "d1fleet_tests"
"""The nftables table that holds our rules and no others."""

_NO_FILTER = f"table inet {_FILTER}\ndelete table inet {_FILTER}\n"
"""Made first, so that there is one to delete."""


class Host:
    """A container with systemd and sshd.

    Attributes:
        name: in inventory, ssh_config, and its own hostname.
        address: IPv4; `address6` is IPv6 or "".
        container: its name in podman.
        bridge: of its network, on this machine.
        touched: whether a fault was made since it was last mended.
    """

    def __init__(
        self,
        name: str,
        address: str,
        container: str,
        bridge: str,
        address6: str = "",
        launch: Launch = launch_here,
    ) -> None:
        self.name = name
        self.address = address
        self.address6 = address6
        self.container = container
        self.bridge = bridge
        self.touched = False
        self._podman = partial(podman, launch=launch)

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address}>"

    @property
    def addresses(self) -> list[str]:
        """IPv4, then IPv6 if it has one."""
        return [address for address in (self.address, self.address6) if address]

    def described(self) -> dict[str, str]:
        """What `Host` was made from, for another process."""
        names = ("name", "address", "container", "bridge", "address6")
        return {name: getattr(self, name) for name in names}

    def pause(self) -> None:
        """Freeze all processes: connections stay, nothing answers.

        Raises:
            ContainerError: it does not run.
        """
        self.touched = True
        # The kernel's older freezer gives up when processes fork all the while on a busy machine.
        for tries_left in range(_FREEZE_TRIES - 1, -1, -1):
            try:
                self._podman("pause", self.container)
                return
            except ContainerError as error:
                if not tries_left or _NOT_FROZEN not in str(error):
                    raise

    def unpause(self) -> None:
        """Let frozen processes go on.

        Raises:
            ContainerError: it is not paused.
        """
        self._podman("unpause", self.container)

    def kill(self) -> None:
        """Power off: everything ends at once, and no peer hears of it.

        Raises:
            ContainerError: it does not run.
        """
        self.touched = True
        # The kernel closes the connections of what it kills; without a link nobody is told.
        self.cut()
        self._podman("kill", "--signal=KILL", self.container)
        self._podman("wait", "--condition=exited", self.container)

    def start(self) -> None:
        """Power on again, with the same address, host key and file system; returns when sshd answers.

        Raises:
            ContainerError: it does not start, or sshd does not answer in time.
        """
        self.power_on()
        self.wait_for_sshd()

    def power_on(self) -> None:
        """Start, and wait for nothing.

        Raises:
            ContainerError: it cannot be started.
        """
        self._podman("start", self.container)

    def cut(self) -> None:
        """Pull the network cable: packets in both directions are lost. A host that starts has it in again.

        Raises:
            ContainerError: it does not run.
            NotOurs: its link is not one of podman's.
        """
        self.touched = True
        self._set_link(up=False)

    def restore(self) -> None:
        """Put the network cable in again.

        Raises:
            ContainerError: it does not run.
            NotOurs: its link is not one of podman's.
        """
        self._set_link(up=True)

    def drop(self) -> None:
        """Lose all packets from and to others, by a packet filter inside; the link stays up.

        Raises:
            ContainerError: it does not run, or nft(8) failed.
        """
        self.touched = True
        chains = "".join(
            f"  chain {hook} {{ type filter hook {hook} priority -300; policy drop; {way} lo accept; }}\n"
            for hook, way in (("input", "iif"), ("output", "oif"))
        )
        self._nft(f"{_NO_FILTER}table inet {_FILTER} {{\n{chains}}}\n")

    def reject(self) -> None:
        """Refuse everything that comes in, aloud: new connections are reset at once.

        Raises:
            ContainerError: it does not run, or nft(8) failed.
        """
        self.touched = True
        rules = "iif lo accept; meta l4proto tcp reject with tcp reset; reject;"
        chain = f"chain input {{ type filter hook input priority 0; {rules} }}"
        self._nft(f"{_NO_FILTER}table inet {_FILTER} {{\n  {chain}\n}}\n")

    def accept(self) -> None:
        """Take back `drop` and `reject`; without effect where there was neither.

        Raises:
            ContainerError: it does not run, or nft(8) failed.
        """
        self._nft(_NO_FILTER)

    def run(
        self, argv: Sequence[str], *, stdin: str = "", timeout_s: float = RUN_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside, not over SSH; its status is in the answer.

        Raises:
            ContainerError: the host does not run or is paused, or the command took too long.
        """
        # A podman that is killed leaves the command running inside.
        limited = ["timeout", f"--kill-after={_AFTER_S}", str(timeout_s), *argv]
        done = self._podman(
            "exec", "--interactive", self.container, *limited,
            stdin=stdin, timeout_s=timeout_s + 2 * _AFTER_S, patience_s=0.0, check=False,
        )  # fmt: skip
        if done.status == 125 or (done.status == 255 and "Error: " in done.stderr):
            raise ContainerError(f"{self.name}: podman exec {argv[0]} failed: {done.stderr.strip()}")
        if done.status == _TIMED_OUT:
            raise ContainerError(f"{self.name}: {' '.join(argv)} took more than {timeout_s} s")
        return subprocess.CompletedProcess(list(argv), done.status, done.stdout, done.stderr)

    def put(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file inside, with its folders.

        Raises:
            ContainerError: the host does not run, or it cannot be written.
        """
        done = self.run(["install", "-D", f"--mode={mode:o}", "/dev/stdin", path], stdin=content)
        if done.returncode:
            raise ContainerError(f"{self.name}: {path} cannot be written: {done.stderr.strip()}")

    def processes(self) -> dict[int, list[str]]:
        """The argv of everything that runs inside, by process number inside; seen from outside.

        Raises:
            ContainerError: it does not run.
        """
        ours = Path(f"/proc/{self.pid()}/ns/pid").readlink()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if (process / "ns/pid").readlink() == ours:
                    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                    status = (process / "status").read_text(errors="replace")
                    inner = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                    found[int(inner.split()[-1])] = words
        return found

    def state(self) -> str:
        """Podman's word for it: running, paused, exited, created.

        Raises:
            ContainerError: there is no such container.
        """
        return self._podman("inspect", "--format={{.State.Status}}", self.container).stdout.strip()

    def pid(self) -> int:
        """The number of its init process outside.

        Raises:
            ContainerError: it does not run.
        """
        number = int(self._podman("inspect", "--format={{.State.Pid}}", self.container).stdout)
        if not number:
            raise ContainerError(f"{self.name} ({self.container}) does not run")
        return number

    def cpu_s(self) -> float:
        """The processor time that it has used since it was made, of all its processes.

        Raises:
            ContainerError: it does not run, or nothing counts it.
        """
        for line in Path(f"/proc/{self.pid()}/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            # systemd inside has groups of its own below the container's.
            own, found, _ = path.partition(f"libpod-{self._podman_id()}")
            group = f"{own}{found}".strip("/")
            if found and number == "0" and (Path("/sys/fs/cgroup") / group / "cpu.stat").exists():
                text = (Path("/sys/fs/cgroup") / group / "cpu.stat").read_text()
                return int(text.split()[1]) / 1e6
            if found and "cpuacct" in controllers.split(","):
                return int((Path("/sys/fs/cgroup/cpuacct") / group / "cpuacct.usage").read_text()) / 1e9
        raise ContainerError(f"{self.name}: no cgroup counts its processor time")

    def _podman_id(self) -> str:
        return self._podman("inspect", "--format={{.Id}}", self.container).stdout.strip()

    def wait_for_sshd(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when sshd has said its first words.

        Raises:
            ContainerError: it has not in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.address, 22), timeout=1) as probe,
            ):
                probe.settimeout(5)
                if probe.recv(4) == b"SSH-":
                    return
            time.sleep(_POLL_S)
        last = self._podman("logs", "--tail=8", self.container, check=False)
        raise ContainerError(
            f"{self.name} ({self.address}): no sshd after {timeout_s} s\n{last.stdout}{last.stderr}"
        )

    def _set_link(self, *, up: bool) -> None:
        set_link(host_end(self.pid(), self.bridge), self.bridge, up=up)

    def _nft(self, rules: str) -> None:
        done = self.run(["nft", "-f", "-"], stdin=rules)
        if done.returncode:
            raise ContainerError(f"{self.name}: nft ended with {done.returncode}: {done.stderr.strip()}")
