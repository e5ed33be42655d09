"""Hosts that are machines of their own, and what befalls those too: power off, a freeze, a cut cable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers import ContainerHosts, Host
from tests.kill import proc
from tests.kill.conftest import HOSTS
from tests.kill.containers import ContainerFleet
from tests.kill.fleet import Times
from tests.kill.running import Build, Scene
from tests.kill.terminal import Terminal
from tests.kill.test_events import (
    AFTER_LEASE_S,
    EVENTS,
    LOST,
    LOST_LINE,
    play,
    shim_of,
    soon,
    still_counts,
    wait_until_lost,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]

PYTHON = "/usr/bin/python3"
"""There on hosts and here."""

NewFleet = Callable[[str, Times], ContainerFleet]
NewScene = Callable[..., Scene]


@pytest.fixture
def new_fleet(container_hosts: ContainerHosts, tmp_path: Path) -> Iterator[NewFleet]:
    """Makes a fleet of two of the hosts: `new_fleet(transport, times)`. No host is left broken."""
    names = [host.name for host in container_hosts][: len(HOSTS)]

    def make(transport: str, times: Times) -> ContainerFleet:
        hosts = {
            name: {"d1fleet_transport": transport, **given}
            for name, given in zip(names, HOSTS.values(), strict=True)
        }
        return ContainerFleet(tmp_path, hosts, None, times, containers=container_hosts)

    yield make


@pytest.fixture
def new_scene(tmp_path_factory: pytest.TempPathFactory) -> NewScene:
    """Makes a scene that the hosts see at the same path."""

    def make(manner: str, local: bool = False) -> Scene:
        return Scene(manner, local, tmp_path_factory.getbasetemp(), PYTHON)

    return make


def _cases() -> Iterator[object]:
    for transport in ("ssh", "openssh"):
        for name in ("ctrl-c", "kill-coordinator", "kill-server", "kill-supervisor", "kill-session"):
            for manner in ("meek", "stubborn"):
                spare = (transport, name, manner) != ("ssh", "kill-session", "stubborn")
                marks = [pytest.mark.full] if spare else []
                yield pytest.param(transport, name, manner, id=f"{transport}-{name}-{manner}", marks=marks)


@pytest.mark.parametrize(("transport", "name", "manner"), list(_cases()))
def test_nothing_is_left(
    new_fleet: NewFleet, new_scene: NewScene, transport: str, name: str, manner: str, times: Times
) -> None:
    event = EVENTS[name]
    play(event, new_fleet(transport, times), new_scene(manner, manner in event.local))


@contextmanager
def _building(
    fleet: ContainerFleet, scene: Scene
) -> Iterator[tuple[Build, Host, dict[tuple[str, str], int], int]]:
    """A build at work; the host of its first job, that one's processes, and its shim."""
    with scene, Terminal() as terminal, Build.on(fleet, scene, terminal) as build:
        pids = scene.pids("one")
        yield build, fleet.host_of(pids["one", "child"]), pids, shim_of(build, "one")


def _ends_well_but_for_the_lost(build: Build, scene: Scene, times: Times, cause: str, host: Host) -> None:
    still_counts(scene, "two")
    scene.release("two")
    assert build.wait(times.lease_s + AFTER_LEASE_S) == LOST, scene.report()
    assert scene.target("two") == "half\nwhole\n"
    assert LOST_LINE.search(build.stderr), build.stderr
    assert f"d1fleet: host {host.name}: {cause}" in build.stderr
    record = map(json.loads, (scene.folder / "record").read_text().splitlines())
    ends = {event["host"]: event["infrastructure"] for event in record if event["event"] == "job"}
    assert ends.pop(host.name) == "lost"
    assert list(ends.values()) == [""]


def _takes_part_again(fleet: ContainerFleet, scene: Scene, host: Host) -> None:
    """A further build uses it, with all the slots that it had."""
    with scene, Build.on(fleet, scene) as build:
        fleet.host_of(scene.pids()["one", "child"])
        scene.end_well()
        assert build.wait(30) == 0, scene.report()
        record = [json.loads(line) for line in (scene.folder / "record").read_text().splitlines()]
        assert {event["host"] for event in record if event["event"] == "job"} == set(fleet.hosts)
        up = {event["host"]: event["slots"] for event in record if event["event"] == "host-up"}
        assert up[host.name] == fleet.hosts[host.name]["d1fleet_slots"]
        build.wait_until_gone(AFTER_LEASE_S)
    assert fleet.slots_held() == []


TRANSPORTS = [
    pytest.param("ssh", id="ssh"),
    pytest.param("openssh", id="openssh", marks=pytest.mark.full),
]
MANNERS = [pytest.param("meek", marks=pytest.mark.full), "stubborn"]


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_power_off(
    new_fleet: NewFleet, new_scene: NewScene, transport: str, manner: str, times: Times
) -> None:
    fleet, scene = new_fleet(transport, times), new_scene(manner)
    with _building(fleet, scene) as (build, host, pids, shim):
        host.kill()
        try:
            assert not any(map(proc.runs, pids.values()))
            wait_until_lost(build, shim, times)
            _ends_well_but_for_the_lost(build, scene, times, "no word from it for", host)
        finally:
            host.start()
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)
    _takes_part_again(fleet, new_scene("meek"), host)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_freeze(new_fleet: NewFleet, new_scene: NewScene, transport: str, manner: str, times: Times) -> None:
    """It stands still for three leases. Its processes are there all the while, and go when it goes on."""
    fleet, scene = new_fleet(transport, times), new_scene(manner)
    with _building(fleet, scene) as (build, host, pids, shim):
        host.pause()
        frozen_at = time.monotonic()
        try:
            left = proc.wait_until_gone(lambda: [shim], times.lease_s + AFTER_LEASE_S)
            assert not left, scene.report()
            assert all(map(proc.runs, pids.values()))
            still_counts(scene, "two")
            time.sleep(max(0.0, frozen_at + 3 * times.lease_s - time.monotonic()))
            before = scene.ticks("one")
        finally:
            host.unpause()
        assert soon(lambda: not any(map(proc.runs, pids.values())), times.lease_s + AFTER_LEASE_S)
        # It wrote for some hundredths of a second at most: a tick is 20 ms.
        wrote = {name: count - before[name] for name, count in scene.ticks("one").items()}
        assert max(wrote.values()) <= 25, wrote
        _ends_well_but_for_the_lost(build, scene, times, "no word from it for", host)
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)
    _takes_part_again(fleet, new_scene("meek"), host)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_cut_cable(
    new_fleet: NewFleet, new_scene: NewScene, transport: str, manner: str, times: Times
) -> None:
    """It runs on and hears nothing: it ends what it runs by itself, before anybody reaches it again."""
    fleet, scene = new_fleet(transport, times), new_scene(manner)
    with _building(fleet, scene) as (build, host, _, shim):
        host.cut()
        try:
            wait_until_lost(build, shim, times)  # looks for writers at that moment
            _ends_well_but_for_the_lost(build, scene, times, "no word from it for", host)
        finally:
            host.restore()
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)
    _takes_part_again(fleet, new_scene("meek"), host)


def test_a_flapping_link_is_no_loss(new_fleet: NewFleet, new_scene: NewScene) -> None:
    """Shorter than the lease: nothing is lost, and the build ends well."""
    times = Times(lease_s=6.0, grace_s=2.0, heartbeat_s=0.5)
    with _building(new_fleet("ssh", times), new_scene("meek")) as (build, host, pids, _):
        for _ in range(3):
            host.cut()
            time.sleep(1.0)
            host.restore()
            time.sleep(0.5)
        assert all(map(proc.runs, pids.values()))
        build.scene.end_well()
        assert build.wait(30) == 0, build.scene.report()
        assert "lost" not in build.stderr
