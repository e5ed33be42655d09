"""Whole trees on container hosts: d1fleet makes what plain make makes; what it took goes into a table."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import containers
from tests.packages.trees import BuildFailed, Products, Site, differences
from tests.support.debsource import SourceUnavailable
from tests.trees import made
from tests.trees.figures import Figures, keep, table
from tests.trees.invariants import credits_of, debt_s, violations
from tests.trees.onhosts import D1FLEET, SLOTS, Place, Tree, describe, measure
from tests.trees.packages import CASES, Case
from tests.trees.plan import order
from tests.trees.stamp import stamp
from tests.trees.trace import read

pytestmark = [pytest.mark.full, pytest.mark.timeout(2600)]

HOSTS, CPUS = 3, 0.5
"""Hosts that together have less than two processors."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    reason = containers.missing_reason()
    if reason:
        pytest.skip(reason)
    shared = tmp_path_factory.mktemp("trees")
    name = f"trees-{shared.parent.name.rpartition('-')[2]}"
    hosts = containers.ContainerHosts(name, count=HOSTS, variant="packages", cpus=CPUS, volumes=[shared])
    try:
        hosts.up()
    except containers.ImageUnavailable as exc:
        pytest.skip(str(exc))
    try:
        yield Place(hosts, CPUS, shared, stamp(shared))
    finally:
        hosts.down()


def _site(case: Case, folder: Path) -> Site:
    tree = folder / case.name
    try:
        case.prepare(tree)
    except SourceUnavailable as exc:
        pytest.skip(str(exc))
    return Site.at(tree)


def _compare(case: Case, plain: Products, built: Products) -> None:
    assert len(plain.binaries) >= case.least or case.program, sorted(plain.binaries)
    assert len(plain.files) >= case.least, sorted(plain.files)
    wrong = differences(plain, built)
    stays = {name for name in wrong if not any(fnmatch.fnmatch(name, each) for each in case.differs)}
    print(f"{case.name}: {len(built.files)} files, {len(built.binaries)} of them binaries")
    assert {name: wrong[name] for name in stays} == {}


@pytest.mark.containers
def test_made(place: Place) -> None:
    """Four levels, 200 recipes in the makes of the last one: exact, since its recipes stamp."""
    folder = place.shared / "made"
    plan = made.write(made.FOUR_LEVELS, folder, place.stamp)
    products: dict[str, dict[str, str]] = {}

    def look(which: str) -> None:
        products[which] = made.products(folder)

    tree = Tree("made", folder, lambda: made.clean(folder))
    measured = measure(place, tree, second=True, look=look)
    print(describe(measured))
    print(table([measured.figures]))
    keep(measured.figures)
    assert products["fleet"] == products["plain"]
    assert sorted(map(_last, products["plain"])) == sorted(order(plan))

    log = place.shared / "made.log"
    place.fleet(tree, STAMP_LOG=str(log))
    record = [json.loads(line) for line in (place.shared / "made.record").read_text().splitlines()]
    slots = {host.name: SLOTS for host in place.containers} | {_here(): HOSTS * SLOTS}
    trace, extra = read(log), credits_of(record)
    print(f"seconds beyond slots and credits: {debt_s(trace, slots, extra)}")
    assert violations(trace, slots, HOSTS * SLOTS, extra) == []


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _here() -> str:
    return Path("/proc/sys/kernel/hostname").read_text().strip()


@pytest.mark.containers
@pytest.mark.network
@pytest.mark.parametrize("name", ["e2fsprogs", "mbedtls", "binutils"])
def test_package(place: Place, name: str) -> None:
    case = CASES[name]
    site = _site(case, place.shared)
    products: dict[str, Products] = {}

    def look(which: str) -> None:
        products[which] = site.products()

    tree = Tree(name, site.path / case.folder, site.restore, case.goals, case.shell)
    measured = measure(place, tree, look=look)
    print(describe(measured))
    print(table([measured.figures]))
    keep(measured.figures)
    _compare(case, products["plain"], products["fleet"])
    assert measured.figures.jobs


@pytest.mark.containers
@pytest.mark.network
def test_debian_package(place: Place) -> None:
    """dpkg-buildpackage as the program, here: its build is dispatched, what runs under fakeroot is not."""
    case = CASES["lz4"]
    site = _site(case, place.shared)
    record, hosts = place.shared / "lz4.record", place.containers
    fleet = [
        *D1FLEET,
        "--hosts",
        ",".join(host.name for host in hosts),
        "--ssh-config",
        str(hosts.ssh_config),
    ]
    fleet += ["--slots", str(SLOTS), "--record", str(record), "--command", "--", *case.program]
    took_s, found = {}, {}
    inside = ["env", "-C", case.folder]
    for which, argv in {"plain": list(case.program), "fleet": fleet}.items():
        start_s = time.monotonic()
        try:
            found[which] = site.build([[*inside, *argv]], place.shared / f"lz4-{which}.log")
        except BuildFailed as exc:
            pytest.fail(str(exc))
        took_s[which] = time.monotonic() - start_s
    _compare(case, found["plain"], found["fleet"])
    assert sum(name.endswith(".deb") for name in found["plain"].files) > 1
    jobs = [json.loads(line) for line in record.read_text().splitlines()]
    dispatched = [job for job in jobs if job["event"] == "job" and job["host"]]
    words = f"{place.words}; plain make here"
    figures = Figures(
        "lz4 (dpkg-buildpackage)", words, took_s["plain"], took_s["fleet"], jobs=len(dispatched)
    )
    print(table([figures]))
    keep(figures)
    assert dispatched, "no part of it was dispatched"
