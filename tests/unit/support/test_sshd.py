"""The loopback servers that other tests stand on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.leaks import still_running
from tests.support.sshd import LoopbackSshd, missing_reason

pytestmark = pytest.mark.sshd


def test_each_alias_runs_a_command_in_a_login_of_its_own(sshd: LoopbackSshd) -> None:
    before = sshd.accepted_logins()
    for alias in sshd.aliases:
        done = subprocess.run(sshd.ssh(alias, "echo", alias), capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.returncode) == (f"{alias}\n", 0), done.stderr
    assert sshd.accepted_logins() - before == len(sshd.aliases)


def test_an_unknown_host_key_is_refused(sshd: LoopbackSshd, tmp_path: Path) -> None:
    argv = sshd.ssh("a", "true")
    argv[1:1] = ["-o", f"UserKnownHostsFile={tmp_path}/none"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


@pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())
def test_stop_ends_servers_sessions_and_what_they_run(tmp_path: Path) -> None:
    servers = LoopbackSshd(tmp_path / "s", ["x", "y", "z"], servers=2, options={"MaxSessions": 5})
    with servers:
        assert servers.port_of("x") == servers.port_of("z") != servers.port_of("y")
        argv = servers.ssh("y", "echo $$; exec sleep 300")
        client = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert client.stdout
        with client.stdout:
            remote = int(client.stdout.readline())
            pids = [*servers.pids, *(process.pid for process in servers.sessions()), remote]
            assert len(pids) >= 4 and all(psutil.pid_exists(pid) for pid in pids)
            servers.stop()
            client.wait(timeout=30)
    assert not [pid for pid in pids if still_running(pid)]
