"""Versions that the inventory does not name, on three hosts: a compiler of the tests, in two versions."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.roles.roles import Play
from tests.roles.site import Site, bare_site

pytestmark = [
    pytest.mark.containers,
    pytest.mark.full,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb"),
]

TOOL, CORE = "d1fleet-tool", "d1fleet-tool-core"
SETTINGS = {"d1fleet_toolchain_packages": [TOOL], "d1fleet_toolchain_tools": [TOOL]}
RECORD = "/etc/d1fleet/toolchain.json"
PINS = "/etc/apt/preferences.d/d1fleet"

PLAYS = """
- hosts: localhost:all
  gather_facts: false
  become: false
  tasks:
    - import_role: {name: fleet, tasks_from: inventory}
- hosts: projects
  become: true
  gather_facts: true
  roles: [fleet, toolchain]
- hosts: localhost:projects
  gather_facts: false
  become: false
  tasks:
    - import_role: {name: fleet, tasks_from: report}
"""

CONTROL = """Package: {name}
Source: d1fleet-tool
Version: {version}
Section: devel
Priority: optional
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: of a test
{more}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("t")
    (folder / "plays.yml").write_text(PLAYS)

    def builders(public: str) -> list[dict[str, Any]]:
        return []

    with bare_site("toolchain", folder, builders, str(folder / "plays.yml")) as made:
        yield made


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """By version: a compiler, and a package that only depends on it, as gcc does."""
    folder = tmp_path_factory.mktemp("debs")
    return {
        version: [
            _deb(folder, CORE, version, ""),
            _deb(folder, TOOL, version, f"Depends: {CORE} (>= 1)\n"),
        ]
        for version in ("1.0", "2.0")
    }


def _deb(folder: Path, name: str, version: str, more: str) -> Path:
    tree = folder / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(CONTROL.format(name=name, version=version, more=more))
    if name == CORE:
        program = tree / "usr" / "bin" / TOOL
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho {TOOL} {version}\n")
        program.chmod(0o755)
    deb = folder / f"{name}_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, deb], check=True, stdout=subprocess.DEVNULL
    )
    return deb


def _offer(site: Site, host: str, debs: list[Path]) -> None:
    """What apt there has of them from now on."""
    index, data = [], io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for deb in debs:
            archive.add(deb, deb.name)
            control = subprocess.run(
                ["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True
            ).stdout
            digest = hashlib.sha256(deb.read_bytes()).hexdigest()
            index.append(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
        text = "\n".join(index).encode()
        entry = tarfile.TarInfo("Packages")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    packed = base64.b64encode(data.getvalue()).decode()
    source = "/etc/apt/sources.list.d/test.list"
    site.on(
        host,
        f"rm -rf /srv/repo; mkdir -p /srv/repo; echo {packed} | base64 -d | tar xz -C /srv/repo;"
        f" echo 'deb [trusted=yes] file:/srv/repo ./' >{source}; apt-get -q update"
        f" -o Dir::Etc::SourceList={source} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0",
    )


def _versions(site: Site, host: str) -> list[str]:
    return site.on(host, f"dpkg-query -W -f '${{Version}} ' {TOOL} {CORE}").split()


def _play(site: Site, *arguments: str, **variables: Any) -> Play:
    done = site.play(*arguments, **SETTINGS, **variables)
    assert done.code == 0, done.text
    return done


def test_a_host_that_joins_later_gets_what_its_peers_have(site: Site, debs: dict[str, list[Path]]) -> None:
    for host in ("h1", "h2", "h3"):
        _offer(site, host, debs["1.0"])
    first = _play(site, "--limit", "h1,h2")
    assert first.total("changed") > 0
    assert _play(site, "--limit", "h1,h2").total("changed") == 0
    record = json.loads(site.on("h1", f"cat {RECORD}"))["projects"]["demo"]
    assert record["packages"]["d1fleet-tool"] == {TOOL: "1.0", CORE: "1.0"}
    # Time goes by.
    for host in ("h1", "h2", "h3"):
        _offer(site, host, [*debs["1.0"], *debs["2.0"]])
    done = _play(site)
    assert [_versions(site, host) for host in ("h1", "h2", "h3")] == [["1.0", "1.0"]] * 3
    assert "demo: 3 of 3 hosts take part" in done.words
    # An upgrade is free to go on.
    assert site.on("h3", f"ls {PINS} 2>&1; apt-cache policy {CORE} | grep Candidate; :").split()[-1] == "2.0"
    again = _play(site)
    assert again.total("changed") == 0, again.text
    assert "Work out what each host is asked for" not in again.text


def test_what_a_host_cannot_get_is_named_with_the_reason(site: Site, debs: dict[str, list[Path]]) -> None:
    site.on("h3", f"apt-get -q -y purge {TOOL} {CORE} >/dev/null 2>&1")
    _offer(site, "h3", debs["2.0"])
    done = _play(site, "--limit", "h3")
    assert _versions(site, "h3") == ["2.0", "2.0"]
    assert "demo: 2 of 3 hosts take part: h1, h2" in done.words
    assert "demo: h3 has d1fleet-tool 2.0 and not 1.0 (apt there has 2.0)" in done.words
    assert json.loads(site.on("h3", f"cat {RECORD}"))["projects"]["demo"]["packages"]["d1fleet-tool"] == {
        TOOL: "1.0",
        CORE: "1.0",
    }
    failed = site.play("--limit", "h3", **SETTINGS, d1fleet_toolchain_mismatch="fail")
    assert failed.code == 2
    assert "h3 has not the toolchain of project demo" in failed.words


def test_what_is_there_already_in_another_version_is_not_changed(
    site: Site, debs: dict[str, list[Path]]
) -> None:
    """The two fit together in one version alone; so the host gets both as it can."""
    site.on("h3", f"apt-get -q -y purge {TOOL} >/dev/null 2>&1")
    _offer(site, "h3", [*debs["1.0"], *debs["2.0"]])
    done = _play(site)
    assert _versions(site, "h3") == ["2.0", "2.0"]
    assert "(it has d1fleet-tool-core 2.0 already)" in done.words


def test_the_project_moves_on_when_that_is_asked_for(site: Site, debs: dict[str, list[Path]]) -> None:
    assert _play(site).total("changed") == 0
    moved = _play(site, d1fleet_toolchain_resolve=True)
    assert [_versions(site, host) for host in ("h1", "h2", "h3")] == [["2.0", "2.0"]] * 3
    assert "demo: 3 of 3 hosts take part" in moved.words
    record = json.loads(site.on("h1", f"cat {RECORD}"))["projects"]["demo"]["packages"]
    assert record["d1fleet-tool"] == {TOOL: "2.0", CORE: "2.0"}
    assert _play(site, d1fleet_toolchain_resolve=True).total("changed") == 0
    assert _play(site).total("changed") == 0
