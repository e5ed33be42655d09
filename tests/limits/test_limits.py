"""-jN is never exceeded in the fleet, nor a machine's slots on it, and what is free is used."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.kill.fleet import Fleet
from tests.limits.conftest import NewFleet, separate_machines
from tests.limits.stamps import Choice, Stamps
from tests.limits.trees import LIMIT_S, Gate, StampTree, Sub, build, start, wait_until_running, wait_until_up
from tests.support.debsource import SourceUnavailable
from tests.support.make44 import real_make

pytestmark = pytest.mark.timeout(240)

MANY = [Sub(f"s{number}", recipes=4, nested=1) for number in range(6)]
"""More than any limit here, with recipes below the first level too."""


@pytest.fixture(params=["system", "4.4"], autouse=True)
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this holds for each release of make."""
    if request.param != "system":
        try:
            make = real_make(request.param)
        except SourceUnavailable as reason:
            pytest.skip(str(reason))
        monkeypatch.setenv("PATH", f"{make.parent}:{os.environ['PATH']}")


def _is_on(host: str) -> Choice:
    return lambda stamp: stamp.host == host


def _is_of(sub: str) -> Choice:
    return lambda stamp: stamp.name.startswith(f"{sub}-")


@pytest.mark.parametrize("jobs", [2, 3, 5])
def test_no_more_than_jobs_in_the_fleet(new_fleet: NewFleet, tree_folder: Path, jobs: int) -> None:
    """There are slots for more; recipes of the top makefile count too."""
    tree = StampTree(tree_folder, MANY, own=6)
    build(new_fleet(slots=16), tree, f"-j{jobs}")
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert stamps.most_at_once() <= jobs
    assert stamps.hosts() == {"a", "b", "here"}


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_than_slots_on_the_machine(new_fleet: NewFleet, tree_folder: Path, slots: int) -> None:
    """-j would allow more; two hosts are two names of one machine."""
    tree = StampTree(tree_folder, MANY)
    build(new_fleet(slots=slots), tree, "-j16")
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert stamps.most_at_once() == slots


def test_each_machine_has_its_own_slots(tmp_path: Path, tree_folder: Path) -> None:
    """Three machines of different size: each is filled, and none is overfilled."""
    slots = {"small": 1, "middle": 2, "big": 4}
    fleet = separate_machines(tmp_path, slots)
    total = sum(slots.values())
    subs = [Sub(f"s{number}") for number in range(3 * total)]
    with Gate(tree_folder, subs) as gate:
        tree = StampTree(tree_folder, subs, hold=gate.hold)
        with start(fleet, tree, "-j64") as running:
            wait_until_running(tree, total, running)
            gate.let_through(tree.recipes)
            assert running.end() == 0, running.stderr
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert {host: stamps.most_at_once(_is_on(host)) for host in slots} == slots


def test_jobs_bound_several_machines(tmp_path: Path, tree_folder: Path) -> None:
    """-jN is one limit for all machines together, for tokens of running makes too."""
    fleet = separate_machines(tmp_path, {"one": 4, "two": 4})
    tree = StampTree(tree_folder, MANY, own=4)
    build(fleet, tree, "-j3")
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert stamps.most_at_once() <= 3
    assert stamps.hosts() == {"one", "two", "here"}


def test_two_builds_share_the_machine(new_fleet: NewFleet, tmp_path: Path) -> None:
    """Two builds in two folders, each with hosts of the same machine: its slots limit both together.

    Who of them gets more is not promised where one user runs both.
    """
    fleet = new_fleet(slots=3)
    trees = [StampTree(tmp_path / name, MANY, log=tmp_path / "log") for name in ("first", "second")]
    stamps = _at_once(trees, [fleet, fleet])
    assert len(stamps.started()) == sum(tree.recipes for tree in trees)
    assert stamps.most_at_once() == 3


def test_two_builds_that_say_different_slots(new_fleet: NewFleet, tmp_path: Path) -> None:
    """The larger number is the machine's limit, and no build goes beyond its own."""
    trees = [StampTree(tmp_path / name, MANY, log=tmp_path / "log") for name in ("first", "second")]
    stamps = _at_once(trees, [new_fleet(slots=2), new_fleet(slots=4)])
    assert stamps.most_at_once() <= 4
    assert stamps.most_at_once(lambda stamp: stamp.build == "first") <= 2


def _at_once(trees: list[StampTree], fleets: list[Fleet]) -> Stamps:
    """Build two trees at the same time."""
    one, two = (
        start(fleet, tree, "-j8", name=tree.folder.name) for tree, fleet in zip(trees, fleets, strict=True)
    )
    with one, two:
        wait_until_up(fleets[0], one)
        wait_until_up(fleets[1], two)
        for tree in trees:
            tree.go()
        assert one.end() == 0, one.stderr
        assert two.end() == 0, two.stderr
    return trees[0].stamps()


def test_one_sub_make_gets_all_tokens(new_fleet: NewFleet, tree_folder: Path) -> None:
    """Recipes of a single sub-make run at once, as many as -j allows."""
    subs = [Sub("wide", recipes=12)]
    with Gate(tree_folder, subs) as gate:
        tree = StampTree(tree_folder, subs, hold=gate.hold)
        with start(new_fleet(slots=16), tree, "-j5") as running:
            wait_until_running(tree, 5, running)
            gate.let_through(tree.recipes)
            assert running.end() == 0, running.stderr
    assert tree.stamps().most_at_once() == 5


def test_tokens_follow_the_work(new_fleet: NewFleet, tree_folder: Path) -> None:
    """When narrow sub-makes have ended, the wide one gets what they had; -j and slots are both used up."""
    narrow = [f"narrow{number}" for number in range(3)]
    subs = [Sub("wide", recipes=20), *map(Sub, narrow)]
    with Gate(tree_folder, subs) as gate:
        tree = StampTree(tree_folder, subs, hold=gate.hold)
        with start(new_fleet(slots=4), tree, "-j4") as running:
            wait_until_running(tree, 4, running)
            gate.let_through(1, *narrow)
            _wait_until_only(tree, "wide", 4)
            gate.let_through(tree.recipes)
            assert running.end() == 0, running.stderr
    assert tree.stamps().most_at_once() == 4


def _wait_until_only(tree: StampTree, name: str, count: int) -> None:
    """Wait until so many recipes run, and all of them are of the sub-make `name`."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        ends = {stamp.name for stamp in tree.stamps().all if stamp.step == -1}
        now = {stamp.name for stamp in tree.stamps().started()} - ends
        if len(now) == count and all(each.startswith(name) for each in now):
            return
        assert time.monotonic() < deadline, f"at the gate: {sorted(now)}"
        time.sleep(0.02)


@pytest.mark.parametrize("arguments", [(), ("-j1",)])
def test_serial(new_fleet: NewFleet, tree_folder: Path, arguments: tuple[str, ...]) -> None:
    """Without -j, and with -j1, one recipe at a time, in make's own order."""
    tree = StampTree(tree_folder, MANY[:3], own=1, hold=":")
    build(new_fleet(slots=8), tree, *arguments)
    stamps = tree.stamps()
    assert stamps.most_at_once() == 1
    names = [stamp.name for stamp in stamps.started()]
    expected = []
    for sub in MANY[:3]:
        expected += [
            f"{sub.name}-0",
            f"{sub.name}-1",
            f"{sub.name}-2",
            f"{sub.name}-n0-x",
            f"{sub.name}-n0-y",
        ]
    assert names == [*expected, "own0"]


def test_jobs_without_a_number_fill_the_slots(new_fleet: NewFleet, tree_folder: Path) -> None:
    subs = [Sub(f"s{number}", recipes=4) for number in range(4)]
    with Gate(tree_folder, subs) as gate:
        tree = StampTree(tree_folder, subs, hold=gate.hold)
        with start(new_fleet(slots=5), tree, "-j") as running:
            wait_until_running(tree, 5, running)
            gate.let_through(tree.recipes)
            assert running.end() == 0, running.stderr
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert stamps.most_at_once() == 5


def test_jobs_of_a_sub_make_itself(new_fleet: NewFleet, tree_folder: Path) -> None:
    """`$(MAKE) -j3` leaves the jobserver, as with plain make: it gets its three, and takes three slots."""
    subs = [Sub(f"s{number}", recipes=6, call="$(MAKE) -C {name} -j3") for number in range(3)]
    with Gate(tree_folder, subs) as gate:
        tree = StampTree(tree_folder, subs, hold=gate.hold)
        with start(new_fleet(slots=4), tree, "-j2") as running:
            wait_until_running(tree, 3, running)
            gate.let_through(tree.recipes)
            assert running.end() == 0, running.stderr
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    # Two of them would be six slots: there are four.
    assert stamps.most_at_once() == 3


def test_more_jobs_than_slots_in_a_sub_make(new_fleet: NewFleet, tree_folder: Path) -> None:
    """`$(MAKE) -j8` on a machine of two slots has the machine for itself; nobody can make it less."""
    tree = StampTree(tree_folder, [Sub("s0", 4, call="$(MAKE) -C {name} -j8"), Sub("s1", 2)])
    build(new_fleet(slots=2), tree, "-j4")
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    inside = [stamps.most_at_once(_is_of(name)) for name in ("s0", "s1")]
    assert stamps.most_at_once() == max(inside), "s1 ran beside s0"


def test_every_sub_make_ran_on_a_host(new_fleet: NewFleet, tree_folder: Path) -> None:
    """The figures above are of dispatched jobs."""
    tree = StampTree(tree_folder, MANY)
    running = build(new_fleet(slots=4), tree, "-j4")
    jobs = [entry for entry in running.record() if entry["event"] == "job" and entry["parent"] is None]
    assert len(jobs) == len(MANY)
    assert {job["host"] for job in jobs} <= {"a", "b"}
    assert "here" not in tree.stamps().hosts()
