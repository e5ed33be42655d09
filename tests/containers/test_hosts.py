"""Real hosts: what clients are given works, and every fault is one and can be undone."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.containers import ContainerError, ContainerHosts, Host, hygiene

pytestmark = pytest.mark.containers

PROBE_TIMEOUT_S = 0.7
"""Long for a link without a wire; what does not answer by then is cut off."""


def ssh(hosts: ContainerHosts, host: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        hosts.ssh(host, *command), capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def answers(host: Host) -> bool:
    try:
        with socket.create_connection((host.address, 22), timeout=PROBE_TIMEOUT_S) as probe:
            return probe.recv(4) == b"SSH-"
    except TimeoutError:
        return False


@pytest.fixture
def first(container_hosts: ContainerHosts) -> Host:
    return container_hosts[0]


@pytest.fixture
def session(first: Host) -> Iterator[socket.socket]:
    """A connection that is there before the fault."""
    with socket.create_connection((first.address, 22), timeout=5) as open_session:
        assert open_session.recv(4) == b"SSH-"
        open_session.settimeout(PROBE_TIMEOUT_S)
        yield open_session


def test_ssh_with_strict_keys(container_hosts: ContainerHosts) -> None:
    said = [ssh(container_hosts, host.name, "hostname") for host in container_hosts]
    assert [(done.returncode, done.stdout, done.stderr) for done in said] == [
        (0, f"{host.name}\n", "") for host in container_hosts
    ]


def test_processor_time_is_each_hosts_own(container_hosts: ContainerHosts) -> None:
    busy, idle = container_hosts[0], container_hosts[1]
    before_s = [host.cpu_s() for host in (busy, idle)]
    burn = "import time\nwhile time.process_time() < 1: pass"
    assert busy.run(["python3", "-c", burn]).returncode == 0
    used_s, other_s = (host.cpu_s() - old_s for host, old_s in zip((busy, idle), before_s, strict=True))
    assert used_s >= 1
    assert other_s < used_s


def test_another_host_key_is_refused(container_hosts: ContainerHosts, tmp_path: Path) -> None:
    first, second = container_hosts[0], container_hosts[1]
    lines = container_hosts.known_hosts.read_text().splitlines()
    wrong = tmp_path / "known_hosts"
    wrong.write_text(f"{first.name},{first.address} {lines[1].split(' ', 1)[1]}\n")
    argv = container_hosts.ssh(first.name, "true")
    argv[1:1] = ["-o", f"UserKnownHostsFile={wrong}"]
    assert lines[1].startswith(f"{second.name},")
    assert subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 255


def test_keys_are_the_owners_alone(container_hosts: ContainerHosts) -> None:
    assert container_hosts.folder.stat().st_mode & 0o777 == 0o700
    assert container_hosts.key.stat().st_mode & 0o777 == 0o600


def test_inventory(container_hosts: ContainerHosts) -> None:
    tree = yaml.safe_load(container_hosts.inventory.read_text())
    hosts = tree["projects"]["children"]["test"]["hosts"]
    assert {name: host["ansible_host"] for name, host in hosts.items()} == {
        host.name: host.address for host in container_hosts
    }
    assert "StrictHostKeyChecking=yes" in hosts["h1"]["ansible_ssh_common_args"]


def test_systemd_runs_and_has_no_failed_unit(first: Host) -> None:
    done = first.run(["systemctl", "is-system-running", "--wait"])
    assert done.stdout == "running\n", first.run(["systemctl", "--failed"]).stdout


def test_folders_are_shared(container_hosts: ContainerHosts, tmp_path: Path) -> None:
    (tmp_path / "from-here").write_text("here\n")
    for host in container_hosts:
        there = tmp_path / f"from-{host.name}"
        assert host.run(["cp", str(tmp_path / "from-here"), str(there)]).returncode == 0
        assert there.read_text() == "here\n"


def test_put_and_run(first: Host) -> None:
    first.put("/opt/new folder/file", "a 'b' $c\n", 0o600)
    assert first.run(["cat", "/opt/new folder/file"]).stdout == "a 'b' $c\n"
    assert first.run(["stat", "-c%a", "/opt/new folder/file"]).stdout == "600\n"
    assert first.run(["sh", "-c", "exit 3"]).returncode == 3
    assert first.run(["no-such-command"]).returncode == 127


def test_a_command_that_takes_too_long_is_ended(first: Host) -> None:
    with pytest.raises(ContainerError, match=r"sleep 1000 took more than 0\.3 s"):
        first.run(["sleep", "1000"], timeout_s=0.3)
    assert ["sleep", "1000"] not in first.processes().values()


def test_processes(first: Host) -> None:
    assert first.processes()[1] == ["/sbin/init"]


def test_pause(first: Host, session: socket.socket) -> None:
    first.pause()
    assert not answers(first)
    first.unpause()
    assert answers(first)
    assert session.recv(2000)


def test_kill_tells_no_peer_and_start_brings_the_same_host(
    container_hosts: ContainerHosts, first: Host, session: socket.socket
) -> None:
    first.put("/root/kept", "kept\n")
    session.recv(2000)  # the rest of the first words
    first.kill()
    with pytest.raises(TimeoutError):
        session.recv(1)
    assert first.state() == "exited"
    with pytest.raises(ContainerError):
        first.run(["true"])
    first.start()
    assert ssh(container_hosts, first.name, "cat", "/root/kept").stdout == "kept\n"


def test_cut(first: Host, session: socket.socket) -> None:
    before = first.run(["ip", "route"]).stdout
    session.recv(2000)
    first.cut()
    with pytest.raises(TimeoutError):
        session.recv(1)
    assert not answers(first)
    first.restore()
    assert answers(first)
    assert first.run(["ip", "route"]).stdout == before


def test_drop(first: Host) -> None:
    first.drop()
    assert not answers(first)
    first.accept()
    assert answers(first)


def test_reject(first: Host) -> None:
    first.drop()
    first.reject()
    with pytest.raises(ConnectionRefusedError):
        answers(first)
    first.accept()
    assert answers(first)


def test_hosts_are_mended(first: Host) -> None:
    first.drop()
    first.cut()
    first.pause()
    hygiene.mend(first)
    assert answers(first)
    assert not first.touched


def test_what_a_test_leaves_inside_is_seen(container_hosts: ContainerHosts, first: Host) -> None:
    before = {host.name: hygiene.foreign(host) for host in container_hosts}
    first.run(["systemd-run", "--quiet", "--unit=left", "sleep", "1000"])
    try:
        left = hygiene.left_behind(container_hosts, before, settle_s=0.2)
        assert left == [f"{first.name}: /usr/bin/sleep 1000"]
    finally:
        first.run(["systemctl", "stop", "left"])


def test_compilers(first: Host) -> None:
    for program in ("gcc", "g++", "make", "bison", "flex", "pkg-config", "msgfmt"):
        assert first.run([program, "--version"]).returncode == 0, program


def test_hosts_of_another_process(container_hosts: ContainerHosts) -> None:
    same = ContainerHosts.attach(container_hosts.settings.name)
    assert [host.described() for host in same] == [host.described() for host in container_hosts]
    assert same["h2"].run(["hostname"]).stdout == "h2\n"
