"""Debian packages built by `d1fleet build --command -- dpkg-buildpackage` are those of a plain build."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packages.recipes import install
from tests.support.debsource import SourceUnavailable, default_cache, fetch_source

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800), pytest.mark.network]

D1FLEET = str(Path(sys.executable).with_name("d1fleet"))
HOSTS = ("north", "east")


@dataclass(frozen=True)
class Package:
    """A source package.

    Attributes:
        needs: Debian packages to build it.
        options: further options of dpkg-buildpackage.
        dispatched: words of a sub-make that has to run on a host.
        local: those of one that must not, for it runs as (faked) root.
    """

    name: str
    needs: Sequence[str]
    options: Sequence[str]
    dispatched: Sequence[str]
    local: str


PACKAGES = (
    # CMake, with all parts of the package under fakeroot that ever need it.
    Package(
        "cjson",
        needs=("dpkg-dev", "debhelper", "fakeroot", "cmake", "make"),
        options=("-rfakeroot", "--rules-requires-root"),
        dispatched=("-j4", "VERBOSE=1"),
        local="install",
    ),
    # A makefile that recurses, below a target of debian/rules that calls it.
    Package(
        "lz4",
        needs=("dpkg-dev", "debhelper", "make"),
        options=(),
        dispatched=("-j4", "V=1"),
        local="debhelper-fail-me",
    ),
)


def build(package: Package, folder: Path, program: Sequence[str]) -> dict[str, bytes]:
    """Unpack and build; what came out, by name."""
    tree = folder / "tree"
    if tree.exists():
        shutil.rmtree(tree)
    fetch_source(package.name, "", tree, default_cache())
    log = folder / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            [*program, "dpkg-buildpackage", "-b", "-uc", *package.options],
            cwd=tree,
            env={**os.environ, "DEB_BUILD_OPTIONS": "parallel=4 nocheck", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
        )
    assert done.returncode == 0, "\n".join(log.read_text(errors="replace").splitlines()[-25:])
    made = {path.name: path.read_bytes() for path in folder.glob("*.deb")}
    for name in made:
        (folder / name).unlink()
    return made


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_debian_package(package: Package, tmp_path: Path) -> None:
    try:
        install(package.needs)
        plain = build(package, tmp_path, ())
    except SourceUnavailable as exc:
        pytest.skip(str(exc))
    inventory, record = tmp_path / "hosts.yml", tmp_path / "record"
    local = {name: {"ansible_connection": "local", "d1fleet_slots": 4} for name in HOSTS}
    inventory.write_text(json.dumps({"projects": {"children": {"test": {"hosts": local}}}}))
    own = ["--inventory", str(inventory), "--record", str(record)]
    ours = build(package, tmp_path, [D1FLEET, "build", *own, "--command", "--"])
    assert plain
    assert {name: ours.get(name) == content for name, content in plain.items()} == dict.fromkeys(plain, True)
    assert ours.keys() == plain.keys()

    jobs = [event for event in map(json.loads, record.read_text().splitlines()) if event["event"] == "job"]
    wanted = [job for job in jobs if set(package.dispatched) <= set(job["argv"])]
    assert wanted and all(job["host"] in HOSTS for job in wanted)
    assert not [job for job in jobs if job["host"] and package.local in job["argv"]]
