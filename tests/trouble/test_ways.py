"""Hosts that are not reached by their address alone, but as ssh's configuration says; no option is needed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import ContainerHosts, Host
from tests.trouble.test_trouble import build

pytestmark = [pytest.mark.containers, pytest.mark.full]

CERTIFICATE = "/etc/ssh/host-cert.pub"
DROP_IN = "/etc/ssh/sshd_config.d/00-way.conf"

MAKEFILE = """\
all: a b c d
a b c d: ; @$(MAKE) -s --no-print-directory -f sub.mk $@
"""

SUB = """\
%: ; @touch {tree}/at-work-$@; \\
\twhile [ $$(ls {tree} | grep -c at-work) -lt 4 ]; do sleep 0.05; done; hostname
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerHosts]:
    """Four hosts with IPv6."""
    shared = tmp_path_factory.getbasetemp()
    with ContainerHosts("ways", count=4, ipv6=True, volumes=[shared]) as fleet:
        yield fleet


def _do(host: Host, *argv: str, stdin: str = "") -> None:
    done = host.run(argv, stdin=stdin)
    assert done.returncode == 0, done.stderr


def _only_from(host: Host, other: Host) -> None:
    """Nobody but `other` gets through to the host's sshd."""
    rules = f"ip saddr != {other.address} tcp dport 22 drop"
    _do(
        host,
        "nft",
        "-f",
        "-",
        stdin=f"table inet way {{\n chain in {{ type filter hook input priority 0; {rules}; }}\n}}\n",
    )


def _certified(host: Host, folder: Path) -> str:
    """Let an authority sign the host's key; returns the authority's line for known_hosts."""
    authority = folder / "authority"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority)], check=True)
    public = host.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout
    (folder / "host.pub").write_text(public)
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", "-n", host.address]
    subprocess.run([*argv, str(folder / "host.pub")], check=True)
    host.put(CERTIFICATE, (folder / "host-cert.pub").read_text())
    host.put(DROP_IN, f"HostCertificate {CERTIFICATE}\n")
    _do(host, "systemctl", "reload", "ssh")
    return f"@cert-authority {host.address} {authority.with_suffix('.pub').read_text()}"


def _moved(host: Host) -> None:
    """To another port, and to IPv6 alone."""
    host.put(DROP_IN, f"Port 2222\nListenAddress {host.address6}\n")
    _do(host, "systemctl", "restart", "ssh")


def _configured(hosts: ContainerHosts, folder: Path) -> Path:
    """What a user would have in ~/.ssh/config."""
    gate, behind, certified, moved = hosts
    known = dict(line.split(" ", 1) for line in hosts.known_hosts.read_text().splitlines())
    key = {name: value for names, value in known.items() for name in names.split(",")}
    _only_from(behind, gate)
    lines = [f"{gate.address} {key[gate.name]}\n", f"{behind.address} {key[behind.name]}\n"]
    lines.append(_certified(certified, folder))
    _moved(moved)
    lines.append(f"[{moved.address6}]:2222 {key[moved.name]}\n")
    (folder / "known_hosts").write_text("".join(lines))
    (folder / "included").write_text(f"Host moved\n HostName {moved.address6}\n Port 2222\n")
    (folder / "config").write_text(
        f"Include {folder}/included\n"
        f"Host gate\n HostName {gate.address}\n"
        f"Host behind\n HostName {behind.address}\n ProxyJump gate\n"
        f"Host certified\n HostName {certified.address}\n"
        f"Host *\n User root\n IdentityFile {hosts.key}\n IdentitiesOnly yes\n IdentityAgent none\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n"
        " StrictHostKeyChecking yes\n"
    )
    return folder / "config"


def test_all_ways_in_one_build(hosts: ContainerHosts, tmp_path: Path) -> None:
    config = _configured(hosts, tmp_path)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text(MAKEFILE)
    (tree / "sub.mk").write_text(SUB.format(tree=tree))
    past_the_gate = ["ssh", "-F", str(config), "-oConnectTimeout=3", "-oProxyJump=none", "behind", "true"]
    assert subprocess.run(past_the_gate, capture_output=True, check=False).returncode == 255
    record = tmp_path / "record"
    names = "gate/1 behind/1 certified/1 moved/1"
    end = build(
        tree, "--ssh-config", str(config), "--record", str(record), "--hosts", names, "--strict", "-j4"
    )
    assert end.returncode == 0, end.stderr
    assert sorted(end.stdout.split()) == [host.name for host in hosts]
    events = [json.loads(line) for line in record.read_text().splitlines()]
    ways = {event["host"]: event["transport"] for event in events if event["event"] == "host-up"}
    assert ways == {"gate": "paramiko", "behind": "paramiko", "certified": "openssh", "moved": "paramiko"}
