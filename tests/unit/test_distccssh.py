"""How ssh is told to reach peers; roles' tests have the rest, with the role's own words."""

from __future__ import annotations

from d1fleet.distccssh import KNOWN_HOSTS, Login, known_hosts, ssh_config
from d1fleet.hostsfile import Peer


def test_what_a_peer_is_known_as() -> None:
    assert Login("Alder", 22, 2222).known_as == "alder"
    assert Login("Alder", 2222, 22).known_as == "[alder]:2222"


def test_each_peer_has_a_block_and_all_have_one() -> None:
    peer = Peer("cedar", "2001:db8::13", 4, ssh=True)
    lines = ssh_config("for a test", {peer: Login("cedar", 22, 2222)}).splitlines()
    assert lines[:8] == [
        "# for a test",
        "Host 2001-db8--13",
        "    HostName 2001:db8::13",
        "    Port 2222",
        "    HostKeyAlias cedar",
        "Host *",
        "    StrictHostKeyChecking yes",
        f"    GlobalKnownHostsFile {KNOWN_HOSTS}",
    ]
    assert lines[-1] == "    Include ~/.ssh/config"
    assert "    GlobalKnownHostsFile /x" in ssh_config("", {peer: Login("cedar", 22, 22)}, "/x").splitlines()


def test_nobody_has_no_file() -> None:
    assert ssh_config("for a test", {}) == ""


def test_keys() -> None:
    keys = {Login("cedar", 22, 2222): ["ssh-ed25519 A", "ssh-rsa B"], Login("elm", 22, 22): ["ssh-ed25519 C"]}
    assert known_hosts("for a test", keys) == (
        "# for a test\ncedar ssh-ed25519 A\ncedar ssh-rsa B\nelm ssh-ed25519 C\n"
    )
