"""Whole fleets: from the command line, several at once, and that nothing of one is left whatever ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers import ContainerError, ContainerHosts, ImageUnavailable, missing_reason, registry
from tests.containers.errors import NameTaken, NoRoom
from tests.containers.image import ensure_image
from tests.containers.room import check_room

pytestmark = pytest.mark.containers

ROOT = Path(__file__).resolve().parent.parent.parent
TOOL = [sys.executable, "-m", "tests.containers"]
TIMEOUT_S = 120.0

OWNER = """
import sys
from tests.containers import ContainerHosts
with ContainerHosts(sys.argv[1], count=1, variant="bare") as hosts:
    hosts[0].cut()
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    try:
        ensure_image("bookworm", "bare")
    except ImageUnavailable as exc:
        pytest.skip(str(exc))


@pytest.fixture
def name() -> Iterator[str]:
    """Of a fleet that is gone after the test, whatever happens."""
    chosen = f"one-{os.getpid()}"
    yield chosen
    with registry.machine_lock():
        registry.take_down(chosen)


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOOL, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def bridges_of(name: str) -> list[str]:
    return registry.find_fleets()[name].bridges


def assert_gone(name: str, bridges: list[str]) -> None:
    assert name not in registry.find_fleets()
    assert not registry.fleet_folder(name).exists()
    for bridge in bridges:
        assert not Path("/sys/class/net", bridge).exists()
    assert f"{registry.PREFIX}{name}" not in Path("/proc/mounts").read_text()
    assert not Path("/var/lib/cni/networks", registry.PREFIX + name).exists()


def test_command_line(name: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    done = tool(
        "up", name, "--hosts=1", "--cpus=0.3", "--ipv6", f"--volume={tmp_path}", "--project=kernel",
        f"--inventory={inventory}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert said["inventory"] == str(inventory) and "kernel" in inventory.read_text()
    assert re.search(rf"^{name}\tkept\t1 running\t", tool("list").stdout, re.MULTILINE)

    host = ContainerHosts.attach(name)[0]
    assert host.run(["cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"]).stdout == "30000\n"
    over_ipv6 = [
        "ssh", "-F", said["ssh_config"], "-o", f"HostName={host.address6}", "h1", "ls", str(tmp_path),
    ]  # fmt: skip
    assert subprocess.run(over_ipv6, capture_output=True, check=True, timeout=60).stdout == b"hosts.yml\n"

    assert "there is a fleet" in tool("up", name).stderr
    assert tool("fault", name, "h1", "pause").returncode == 0
    assert host.state() == "paused"
    assert tool("down", "--stale").returncode == 0
    bridges = bridges_of(name)  # it is nobody's, and stays
    assert tool("down", name).returncode == 0
    assert_gone(name, bridges)
    assert not inventory.exists()
    assert tool("down", name).returncode == 1


def test_a_fleet_goes_whose_owner_was_killed(name: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        bridges = bridges_of(name)
        assert not registry.find_fleets()[name].stale
        owner.kill()
    assert tool("down", "--stale").returncode == 0
    assert_gone(name, bridges)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_an_interrupted_up_leaves_nothing(name: str, number: signal.Signals) -> None:
    with subprocess.Popen([*TOOL, "up", name, "--hosts=2"], cwd=ROOT, stdout=subprocess.PIPE) as up:
        wait_until(lambda: name in registry.find_fleets())
        bridges = bridges_of(name)
        up.send_signal(number)
        assert up.wait(TIMEOUT_S) == 128 + number
    assert_gone(name, bridges)


def test_a_failed_up_leaves_nothing(name: str, tmp_path: Path) -> None:
    hosts = ContainerHosts(name, count=1, variant="bare", volumes=[tmp_path / "not-there"])
    with pytest.raises(ContainerError, match="is no folder here"):
        hosts.up()
    assert_gone(name, [])


def test_a_failed_test_leaves_nothing(name: str) -> None:
    bridges = []
    with pytest.raises(ZeroDivisionError), ContainerHosts(name, count=1, variant="bare") as hosts:
        bridges += bridges_of(name)
        with pytest.raises(NameTaken):
            ContainerHosts(name).up()
        hosts[0].pause()
        raise ZeroDivisionError
    assert_gone(name, bridges)


def test_a_folder_without_a_fleet_is_no_obstacle(name: str) -> None:
    registry.fleet_folder(name).mkdir(parents=True)
    with registry.machine_lock():
        assert name in registry.remove_stale()
    assert_gone(name, [])


@pytest.mark.full
def test_a_tree_over_sshfs(name: str, tmp_path: Path) -> None:
    with ContainerHosts(name, count=2, sshfs=tmp_path) as hosts:
        (tmp_path / "file").write_text("one")
        assert hosts["h2"].run(["cat", str(tmp_path / "file")]).stdout == "one"
        hosts["h2"].put(str(tmp_path / "back"), "two")
        assert (tmp_path / "back").read_text() == "two"
        hosts["h2"].kill()
        hosts["h2"].start()
        wait_until(lambda: hosts["h2"].run(["cat", str(tmp_path / "back")]).stdout == "two")


@pytest.mark.full
@pytest.mark.network
def test_packages_are_fetched_once(name: str) -> None:
    install = ["apt-get", "install", "-y", "--no-install-recommends", "hello"]
    for _ in range(2):
        with ContainerHosts(name, count=1, variant="bare", debs=True) as hosts:
            done = hosts[0].run(install)
            assert done.returncode == 0, done.stderr
    assert "Need to get 0 B" in done.stdout


@pytest.mark.full
def test_another_release_beside(name: str) -> None:
    with (
        ContainerHosts(name, count=1, variant="bare") as old,
        ContainerHosts(f"{name}-trixie", count=1, release="trixie", variant="build") as new,
    ):
        assert "VERSION_CODENAME=bookworm" in old[0].run(["cat", "/etc/os-release"]).stdout
        assert "VERSION_CODENAME=trixie" in new[0].run(["cat", "/etc/os-release"]).stdout
        assert (
            subprocess.run(new.ssh("h1", "gcc", "--version"), capture_output=True, check=False).returncode
            == 0
        )
        assert old[0].address != new[0].address


@pytest.mark.full
def test_twenty_hosts(name: str) -> None:
    hosts = ContainerHosts(name, count=20, variant="bare")
    try:
        hosts.up()
    except NoRoom as exc:  # other fleets are there
        pytest.skip(str(exc))
    try:
        bridges = bridges_of(name)
        assert len({host.address for host in hosts}) == 20
        assert all(host.run(["hostname"]).stdout == f"{host.name}\n" for host in hosts)
    finally:
        hosts.down()
    assert_gone(name, bridges)


def test_more_hosts_than_the_kernel_allows() -> None:
    with pytest.raises(NoRoom, match=r"max_user_instances is \d+, \d+ are used"):
        check_room(1_000_000)
