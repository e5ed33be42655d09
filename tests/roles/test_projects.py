"""Two projects that share a host, one of them with two releases of Debian; and twenty hosts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.roles import ROOT, Play
from tests.roles.site import Site, bare_site
from tests.support.debsource import SourceUnavailable, default_cache, fetch_source

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(2400)]

PROJECTS = {"engine": ["h1", "h2", "h3", "h5"], "firmware": ["h3", "h4"]}
RELEASES = "bookworm,bookworm,bookworm,trixie,bookworm"
NICE = 7
PACKAGES = Path(sysconfig.get_path("purelib"))
D1FLEET = f"PYTHONPATH={ROOT}:{PACKAGES} /usr/bin/python3 -m d1fleet.cli"
"""On a host, which has the same Python as this machine: bare ones have no pip to install it with."""

FLAT = "mawk"
"""A source package whose makefile is one flat level."""


@dataclass
class Fleet:
    """The first three runs, in their order; `tree` is at the same path on all hosts."""

    site: Site
    tree: Path
    took_s: float
    first: Play
    second: Play
    checked: Play


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    def builders(public: str) -> list[dict[str, Any]]:
        return [{"name": "root", "uid": 0, "authorized_keys": [public]}]

    folder = tmp_path_factory.mktemp("p")
    tree = tmp_path_factory.mktemp("tree")
    volumes = (ROOT, PACKAGES, tree)
    with bare_site("projects", folder, builders, count=5, release=RELEASES, volumes=volumes) as site:
        _group(site.hosts.inventory)
        settings = {"d1fleet_nice": NICE, "d1fleet_slots": 2}
        begin = time.monotonic()
        first = site.play(**settings)
        took_s = time.monotonic() - begin
        yield Fleet(site, tree, took_s, first, site.play(**settings), site.play("--check", **settings))


def _group(inventory: Path) -> None:
    """Put the hosts into our projects."""
    (known,) = yaml.safe_load(inventory.read_text())["projects"]["children"].values()
    hosts = known["hosts"]
    children: dict[str, Any] = {
        project: {"hosts": {name: hosts[name] for name in names}} for project, names in PROJECTS.items()
    }
    hosts["h3"]["d1fleet_default_project"] = "engine"
    inventory.write_text(yaml.safe_dump({"projects": {"children": children}}))


def _entries(site: Site, host: str, file: str) -> list[str]:
    """Addresses of peers, in the order of the file."""
    lines = site.on(host, f"cat {file}").splitlines()
    return [re.split("[/:,]", line)[0] for line in lines if re.match(r"\d", line)]


def _addresses(site: Site, names: Sequence[str]) -> set[str]:
    return {site.hosts[name].address for name in names}


def test_one_run_enrols_and_the_next_changes_nothing(fleet: Fleet) -> None:
    print(f"five hosts from bare, packages and all: {fleet.took_s:.0f} s")
    assert fleet.first.code == 0, fleet.first.text
    assert fleet.second.code == 0
    assert fleet.second.total("changed") == 0, fleet.second.text
    assert fleet.checked.code == 0
    assert fleet.checked.total("changed") == 0, fleet.checked.text


def test_each_project_has_its_own_hosts_and_the_other_release_is_left_out(fleet: Fleet) -> None:
    site = fleet.site
    for host, project, peers in (
        ("h1", "engine", ["h2", "h3", "h5"]),
        ("h5", "engine", ["h1", "h2", "h3"]),
        ("h3", "engine", ["h1", "h2", "h5"]),
        ("h3", "firmware", []),
        ("h4", "firmware", []),
    ):
        file = f"/etc/d1fleet/hosts/{project}"
        assert set(_entries(site, host, file)) == _addresses(site, peers), f"{project} on {host}"
    assert _entries(site, "h3", "/etc/distcc/hosts") == _entries(site, "h3", "/etc/d1fleet/hosts/engine")
    assert site.on("h1", "ls /etc/d1fleet/hosts").split() == ["engine"]
    # The reason is where people look: at the end of the play, and in the file that lacks it.
    assert re.search(r"h4 .*(left out|differs|toolchain)", fleet.second.words), fleet.second.text
    assert re.search(r"(?m)^#.*\bh4\b.*(cc|libc|toolchain)", site.on("h3", "cat /etc/d1fleet/hosts/firmware"))


def test_a_host_is_reached_by_the_members_of_its_projects_alone(fleet: Fleet) -> None:
    site = fleet.site
    ask = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}/3632' && echo open || echo closed"
    for client, server, found in (
        ("h1", "h2", "open"),
        ("h5", "h3", "open"),
        ("h4", "h3", "open"),
        ("h1", "h4", "closed"),
        ("h4", "h5", "closed"),
    ):
        assert site.on(client, ask.format(site.hosts[server].address)).strip() == found, (client, server)


def test_a_flat_package_is_compiled_on_three_hosts_and_is_the_same(fleet: Fleet) -> None:
    site = fleet.site
    tree = fleet.tree / FLAT
    try:
        fetch_source(FLAT, "", tree, default_cache())
    except SourceUnavailable as error:
        pytest.skip(str(error))
    site.on("h1", f"cd {tree} && ./configure >/dev/null 2>&1")
    site.on("h1", f"make -C {tree} -j2 >/dev/null 2>&1")
    local = _objects(tree)
    assert len(local) > 12
    site.on("h1", f"make -C {tree} clean >/dev/null")
    assert not _objects(tree)
    watched = {host: _Watched(site, host) for host in PROJECTS["engine"]}
    try:
        said = site.on("h1", f"cd {tree} && {D1FLEET} run --strict --summary -- make -j{{slots}} 2>&1; :")
    finally:
        seen = {host: each.end() for host, each in watched.items()}
    assert _objects(tree) == local, said
    assert [set(seen[host]) for host in ("h2", "h3", "h5")] == [{NICE}] * 3, f"{seen}: {said}"
    assert f"{len(local)} compilations: h2 " in said
    assert "0 compilations fell back" in said


class _Watched:
    """Looks at the nice values of compilers on a host until it is ended."""

    def __init__(self, site: Site, host: str) -> None:
        look = "while :; do ps -eo ni=,comm= | grep -w cc1; sleep 0.05; done"
        argv = site.hosts.ssh(host, f"timeout 300 sh -c {shlex.quote(look)}")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def end(self) -> list[int]:
        self._process.terminate()
        out, _ = self._process.communicate(timeout=60)
        return [int(line.split()[0]) for line in out.splitlines() if len(line.split()) == 2]


def _objects(tree: Path) -> dict[str, bytes]:
    """Without the tables of lines, which are others where macros stood: docs/distcc.md."""
    found = {}
    for path in sorted(tree.glob("*.o")):
        bare = path.with_suffix(".bare")
        subprocess.run(["strip", "--strip-debug", "-o", bare, path], check=True, stdin=subprocess.DEVNULL)
        found[path.name] = bare.read_bytes()
    return found


def test_after_a_restart_everything_is_as_before(fleet: Fleet) -> None:
    site = fleet.site
    look = (
        "cat /etc/d1fleet/hosts/* /etc/distcc/hosts; nft list table inet d1fleet_distcc;"
        " stat -c '%a %U %n' /run/d1fleet/slots /run/d1fleet/drain;"
        " systemctl is-active d1fleet-distcc.service d1fleet-distcc-guard.service"
    )
    before = site.everywhere(look)
    for host in site.hosts:
        host.kill()
    for host in site.hosts:
        host.start()
    end = time.monotonic() + 60
    while (after := site.everywhere(look + "; :")) != before and time.monotonic() < end:
        time.sleep(1)
    assert after == before
    ask = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{site.hosts['h2'].address}/3632' && echo open"
    assert site.on("h1", ask).strip() == "open"


def test_twenty_hosts_are_looked_through_in_two_minutes(tmp_path: Path) -> None:
    """Ansible alone takes a time for as many tasks on this machine: that times 1.5 counts as well."""

    def builders(public: str) -> list[dict[str, Any]]:
        return [{"name": "root", "uid": 0, "authorized_keys": [public]}]

    with bare_site("twenty", tmp_path, builders, count=20, variant="build") as site:
        begin = time.monotonic()
        first = site.play()
        first_s = time.monotonic() - begin
        assert first.code == 0, first.text[-4000:]
        begin = time.monotonic()
        second = site.play()
        took_s = time.monotonic() - begin
        assert second.code == 0
        assert second.total("changed") == 0, second.text
        tasks = max(count["ok"] + count["skipped"] for count in second.counts.values())
        nothing = [{"name": "Nothing", "ansible.builtin.command": "true", "changed_when": False}]
        play = [{"hosts": "projects", "gather_facts": False, "tasks": nothing * second.counts["h1"]["ok"]}]
        (tmp_path / "nothing.yml").write_text(yaml.safe_dump(play))
        site.playbook = str(tmp_path / "nothing.yml")
        begin = time.monotonic()
        assert site.play().code == 0
        nothing_s = time.monotonic() - begin
        print(
            f"20 hosts: first run {first_s:.0f} s, without changes {took_s:.0f} s ({tasks} tasks a host,"
            f" {second.counts['h1']['ok']} of them run), as many that do nothing {nothing_s:.0f} s"
        )
        assert took_s <= max(120.0, 1.5 * nothing_s), f"{os.getloadavg()}"
