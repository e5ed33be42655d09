"""Faults of whole machines, at random moments: no power, frozen, cut off, no memory."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.build import fleet_of
from d1fleet.chaos import Chaos
from d1fleet.chaos_faults import BY_NAME, Fault, own
from d1fleet.model import Host
from tests.chaos.tree import make_tree
from tests.chaos.trial import options, settings_of, shown
from tests.containers import ContainerHosts, ImageUnavailable, missing_reason
from tests.containers import Host as ContainerHost
from tests.packages.recipes import E2FSPROGS, configured
from tests.support.debsource import SourceUnavailable

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1500)]

SEED = int.from_bytes(os.urandom(4))

FAULTS = {
    "power": own("power", "kill", "power_on"),
    "frozen": own("frozen", "pause", "unpause"),
    "cable": own("cable", "cut", "restore"),
    "memory": own("memory", "starve", "feed"),
    "room": own("room", "fill", "empty"),
}
"""What befalls a host, or the tree, and what mends it: methods of `Host`, or of what is here."""

DISK_BYTES, LEFT_BYTES = 2 << 30, 512 << 10
"""The disk of a tree that is filled, and what is left of it: for logs."""

ENOUGH_FOR_SHELLS = 3 << 20


def _starved(host: ContainerHost) -> Path:
    return Path("/sys/fs/cgroup/memory", host.container)


def starve(host: ContainerHost) -> None:
    """What runs on it now, and what that starts, has next to no memory: the kernel kills."""
    host.touched = True
    group = _starved(host)
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(ENOUGH_FOR_SHELLS))
    init = host.pid()
    space = os.readlink(f"/proc/{init}/ns/pid")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{name}/ns/pid") == space and int(name) != init:
                (group / "cgroup.procs").write_text(name)


def feed(host: ContainerHost) -> None:
    """It has memory again."""
    group = _starved(host)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            (group.parent / "cgroup.procs").write_text(pid)
    deadline = time.monotonic() + 10.0
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class MachineChaos(Chaos):
    """Breaks whole container hosts."""

    containers: ContainerHosts
    filler = Path()
    """What takes all room where the tree is."""

    def run_command(self, command: str, host: Host) -> str:
        broken = self.containers[host.name]
        if command == "fill":
            found = os.statvfs(self.filler.parent)
            with self.filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - LEFT_BYTES)
        elif command == "empty":
            self.filler.unlink()
        elif command in ("starve", "feed"):
            globals()[command](broken)
        else:
            getattr(broken, command)()
        return ""


class Machines:
    """Trials on container hosts, of which each tree has its own."""

    def __init__(self, hosts: ContainerHosts, folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder

    def check(self, tree: Path, arguments: list[str], faults: list[Fault]) -> None:
        """Each fault once; they print what came of it."""
        typed = options([f"{host.name}/2" for host in self.hosts], self.hosts.ssh_config)
        settings = settings_of(typed, tree)
        chaos = MachineChaos(
            settings, fleet_of(settings), tree, arguments, typed, print, rng=random.Random(SEED)
        )
        with chaos:
            chaos.containers = self.hosts
            chaos.filler = self.folder / "filler"
            peace = chaos.peace()
            print(f"{len(peace.clean)} files, {peace.took_s:.1f} s, not compared: {peace.apart}")
            chaos.connect()
            for fault in faults:
                outcome = chaos.strike(fault, peace)
                print(f"{shown(outcome)}: again after {outcome.again_s} s, took {outcome.took_s:.1f} s")
                assert not outcome.skipped, f"{SEED}: {shown(outcome)}: {outcome.skipped}"
                assert not outcome.wrong, f"{SEED}: {shown(outcome)}"


@pytest.fixture
def machines(container_hosts: ContainerHosts, tmp_path: Path) -> Iterator[Machines]:
    yield Machines(container_hosts, tmp_path)


CONTROLLED = Path("/sys/fs/cgroup/memory/cgroup.procs").exists()


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("name", ["power", "frozen", "cable", "memory"])
def test_a_made_tree(machines: Machines, name: str, number: int) -> None:
    if name == "memory" and not CONTROLLED:
        pytest.skip("memory of hosts is limited by cgroups of version 1, which are not mounted")
    tree = machines.folder / "tree"
    make_tree(tree)
    machines.check(tree, ["-j6"], [FAULTS[name]])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Machines]:
    """Hosts that share a disk which can be filled."""
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs", disk], check=True)
    try:
        with ContainerHosts(f"small-disk-{os.getpid()}", variant="build", volumes=[disk]) as hosts:
            yield Machines(hosts, disk)
    except ImageUnavailable as exc:
        pytest.skip(str(exc))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("number", range(10))
def test_a_full_disk(small_disk: Machines, number: int) -> None:
    tree = small_disk.folder / "tree"
    make_tree(tree)
    small_disk.check(tree, ["-j6"], [FAULTS["room"]])


def test_a_real_package(small_disk: Machines) -> None:
    """e2fsprogs' libraries: host killed, frozen, cut off; d1fleet killed, no room, no host left."""
    try:
        tree = configured(E2FSPROGS, small_disk.folder / "e2fsprogs")
    except SourceUnavailable as exc:
        pytest.skip(str(exc))
    faults = [FAULTS[name] for name in ("power", "frozen", "cable", "room")]
    small_disk.check(tree, ["-j6", "libs"], [*faults, BY_NAME["coordinator"], BY_NAME["all"]])
