"""Hosts that check in: containers, `d1fleet join` on each, and what one looks at there."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import ContainerHosts, Host, ImageUnavailable, missing_reason

from .running import ROOT, Running

PACKAGES = Path(sysconfig.get_path("purelib"))
"""Of this Python: hosts have the same version of it, and take them from here instead of fetching them."""

WITHIN_S = 5.0
"""After a change, hosts files are right."""

GONE_WITHIN_S = 45.0
JOIN_LIMIT_S = 900


def missing_for_joining() -> str:
    """Why no container can run what is installed here; empty where it can."""
    return missing_reason() or (
        ""
        if sys.version_info[:2] == (3, 11)
        else "hosts have Python 3.11, and what is installed here is not for it"
    )


@dataclass
class Site:
    """Hosts h1, h2, ..., and a registry on the machine that they run on."""

    hosts: ContainerHosts
    registry: Running

    def on(self, host: str, command: str, *, check: bool = True, limit_s: float = 60) -> str:
        """What a command prints, run by root's shell there; not over the network."""
        done = self.hosts[host].run(["bash", "-c", command], timeout_s=limit_s)
        assert not check or done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def join(self, host: str, project: str, *more: str) -> str:
        """As the panel shows it; returns what it said."""
        pin = json.loads(
            self.registry.command("registry", "certificate", "--data", str(self.registry.data), "--json")
        )["pin"]
        words = [
            *(
                "env",
                "PYTHONDONTWRITEBYTECODE=1",
                f"D1FLEET_JOIN_TOKEN={self.registry.token(project)}",
            ),
            *(
                "/usr/bin/python3",
                "-m",
                "d1fleet.cli",
                "join",
                self.registry.url,
                "--pin",
                pin,
                "--yes",
                *more,
            ),
        ]
        return self.on(host, shlex.join(words) + " 2>&1", limit_s=JOIN_LIMIT_S)

    def leave(self, host: str) -> str:
        words = ["env", "PYTHONDONTWRITEBYTECODE=1"]
        words += ["/usr/bin/python3", "-m", "d1fleet.cli", "leave", "--yes"]
        return self.on(host, shlex.join(words) + " 2>&1", limit_s=JOIN_LIMIT_S)

    def join_all(self, hosts: Iterable[str], project: str) -> None:
        """Two at a time: apt and dpkg work on disks and processors alone."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: self.join(host, project), hosts))

    def peers(self, host: str, project: str) -> dict[str, str]:
        """{name: entry} of a hosts file, without localhost; empty where there is no file."""
        return _peers(self.on(host, f"cat /etc/d1fleet/hosts/{project}; :"))

    def right(self, project: str, members: Sequence[str]) -> str:
        """What is wrong with the files and filters of a project's members; empty when all is right."""
        addresses = {host: self.hosts[host].address for host in members}

        def wrong(host: str) -> str:
            # In one look: each takes a quarter of a second.
            text = self.on(
                host,
                f"cat /etc/d1fleet/hosts/{project}; echo FILTER;"
                " nft list set inet d1fleet_distcc members4; :",
            )
            file, _, filtered = text.partition("FILTER")
            found, allowed = _peers(file), _addresses(filtered.partition("elements")[2])
            wanted = {each: address for each, address in addresses.items() if each != host}
            if {each: entry.split("/")[0] for each, entry in found.items()} != wanted:
                return f"{host} has {found} instead of {wanted}"
            return "" if set(addresses.values()) <= allowed else f"{host} lets in {allowed}"

        with ThreadPoolExecutor(len(members)) as pool:
            return "; ".join(filter(None, pool.map(wrong, members)))

    def compiles(self, host: str, to: str) -> bool:
        """Can one host have another compile, and nobody else?"""
        address = self.hosts[to].address
        hosts = (
            f"DISTCC_HOSTS={address}/1,lzo DISTCC_FALLBACK=0 DISTCC_SKIP_LOCAL_RETRY=1 DISTCC_IO_TIMEOUT=5"
        )
        command = (
            "cd $(mktemp -d) && echo 'int f(int x) { return x + 1; }' >a.c && export DISTCC_DIR=$PWD &&"
            f" {hosts} timeout 20 distcc gcc -c a.c -o a.o 2>/dev/null && test -s a.o && echo compiled; :"
        )
        return self.on(host, command).strip() == "compiled"


def _peers(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if re.match(r"[\d\[]", line) and "#" in line]
    return {line.split()[-1]: line.split()[0] for line in lines}


def _addresses(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+\.\d+\.\d+", text))


def _equip(hosts: ContainerHosts) -> None:
    """Have hosts find d1fleet and Ansible as if they were installed there."""
    for host in hosts:
        host.put("/usr/local/lib/python3.11/dist-packages/tests.pth", f"{ROOT}\n{PACKAGES}\n")
        host.put(
            "/usr/local/bin/ansible-playbook",
            '#!/bin/sh\nexec /usr/bin/python3 -m ansible playbook "$@"\n',
            0o755,
        )


def within(limit_s: float, wrong: Callable[[], str]) -> float:
    """Wait until nothing is wrong; returns after how many seconds that was."""
    began = time.monotonic()
    while said := wrong():
        assert time.monotonic() - began < limit_s, f"after {limit_s:g} s: {said}"
        time.sleep(0.1)
    return time.monotonic() - began


def gateway(hosts: Sequence[Host]) -> str:
    """The address of this machine in the hosts' network."""
    done = subprocess.run(
        ["ip", "-4", "-o", "address", "show", "dev", hosts[0].bridge],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[3].partition("/")[0]


def network(hosts: Sequence[Host]) -> str:
    done = subprocess.run(
        ["ip", "-4", "-o", "address", "show", "dev", hosts[0].bridge],
        capture_output=True,
        text=True,
        check=True,
    )
    return str(ipaddress.ip_interface(done.stdout.split()[3]).network)


@contextmanager
def site(name: str, folder: Path, count: int, settings: Sequence[str] = ()) -> Iterator[Site]:
    """Hosts with a toolchain, and a registry with a project `engine`; skipped where there can be none."""
    reason = missing_for_joining()
    if reason:
        pytest.skip(reason)
    try:
        with ContainerHosts(name, count=count, variant="build", volumes=[ROOT, PACKAGES], debs=True) as hosts:
            _equip(hosts)
            registry = Running(folder / "registry", gateway(hosts), settings)
            registry.start()
            try:
                registry.ask("project", "create", "engine", "--range", network(hosts))
                yield Site(hosts, registry)
            finally:
                registry.stop()
    except ImageUnavailable as error:
        pytest.skip(str(error))
