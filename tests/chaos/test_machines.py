"""Faults of whole machines, at random moments: no power, frozen, cut off, no memory."""

from __future__ import annotations

import os
import random
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.build import fleet_of
from d1fleet.chaos import Chaos
from d1fleet.chaos_faults import BY_NAME, Fault, own
from d1fleet.settings import load_settings
from tests.chaos.tree import make_tree
from tests.chaos.trial import shown
from tests.containers import ContainerHosts
from tests.kill.fleet import CHECKOUT, SHORT
from tests.packages.recipes import E2FSPROGS, configured
from tests.support.debsource import SourceUnavailable

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1500)]

SEED = int.from_bytes(os.urandom(4))

MACHINES = {
    "power": ("kill()", "power_on()"),
    "frozen": ("pause()", "unpause()"),
    "cable": ("cut()", "restore()"),
}
"""What befalls a host, and what mends it."""

MEMORY = "podman update --memory {size} --memory-swap {size} {name}"


def machine_fault(hosts: ContainerHosts, name: str) -> Fault:
    """A fault that is made from outside of a host."""
    if name == "memory":
        full = hosts[0].container.removesuffix(hosts[0].name) + "$D1FLEET_CHAOS_HOST"
        return own(name, MEMORY.format(size="48m", name=full), MEMORY.format(size="4g", name=full))
    program = "from tests.containers import ContainerHosts; ContainerHosts.attach({fleet!r})[{host}].{act}"
    host = "__import__('os').environ['D1FLEET_CHAOS_HOST']"
    strike, mend = (
        f"cd {shlex.quote(str(CHECKOUT))} && exec {shlex.quote(sys.executable)} -c "
        + shlex.quote(program.format(fleet=hosts.settings.name, host=host, act=act))
        for act in MACHINES[name]
    )
    return own(name, strike, mend)


class Machines:
    """Trials on container hosts, of which each tree has its own."""

    def __init__(self, hosts: ContainerHosts, folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder

    def check(self, tree: Path, arguments: list[str], faults: list[Fault]) -> None:
        """Each fault once; they print what came of it."""
        names = ",".join(f"{host.name}/2" for host in self.hosts)
        options = {
            "hosts": names,
            "ssh_config": str(self.hosts.ssh_config),
            "lease_s": SHORT.lease_s,
            "grace_s": SHORT.grace_s,
            "heartbeat_s": SHORT.heartbeat_s,
        }
        settings = load_settings(options, environ={}, folder=tree)
        typed = ["--hosts", names, "--ssh-config", str(self.hosts.ssh_config), *SHORT.options()]
        with Chaos(
            settings, fleet_of(settings), tree, arguments, typed, print, rng=random.Random(SEED)
        ) as chaos:
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


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("name", [*MACHINES, "memory"])
def test_a_made_tree(machines: Machines, name: str, number: int) -> None:
    tree = machines.folder / "tree"
    make_tree(tree)
    machines.check(tree, ["-j6"], [machine_fault(machines.hosts, name)])


def test_a_real_package(machines: Machines) -> None:
    """e2fsprogs' libraries: host killed, frozen, cut off; d1fleet killed, no room, no host left."""
    try:
        tree = configured(E2FSPROGS, machines.folder / "e2fsprogs")
    except SourceUnavailable as exc:
        pytest.skip(str(exc))
    faults = [machine_fault(machines.hosts, name) for name in MACHINES]
    machines.check(tree, ["-j6", "libs"], [*faults, BY_NAME["coordinator"], BY_NAME["full"], BY_NAME["all"]])
