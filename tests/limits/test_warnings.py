"""The jobserver says nothing that plain make would not say, and no token is lost: on make 4.3 and 4.4."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.limits.conftest import NewFleet
from tests.limits.trees import Running, StampTree, Sub, start

pytestmark = pytest.mark.timeout(240)

CALLS = {
    "plain": "$(MAKE) -C {name}",
    "shell": "cd {name} && $(MAKE)",
    "marked": "+make -C {name}",
    "literal": "make -C {name}",
    "own1": "$(MAKE) -C {name} -j1",
    "own3": "$(MAKE) -C {name} -j3",
    "own": "$(MAKE) -C {name} -j",
    "noflags": "MAKEFLAGS= $(MAKE) -C {name}",
    "unset": "env -u MAKEFLAGS -u MFLAGS $(MAKE) -C {name}",
    "given": "$(MAKE) -C {name} MAKEFLAGS=",
    "quiet": "$(MAKE) -s -C {name}",
    "loop": "for i in 1; do $(MAKE) -C {name} || exit 1; done",
}
"""How recipes call make; all of these in one tree."""

ARGUMENTS = {
    "none": [],
    "j1": ["-j1"],
    "j2": ["-j2"],
    "j5": ["-j5"],
    "j": ["-j"],
    "long": ["--jobs=3"],
    "keep-going": ["-kj4"],
    "sync": ["-j3", "-Otarget"],
    "load": ["-j3", "-l", "1000"],
}

HEADS = {
    "forced": "MAKEFLAGS += -j4",
    "not-parallel": ".NOTPARALLEL:",
    "exported": "export MAKEFLAGS",
}


LEAVES = (
    "make: warning: -j4 forced in makefile: resetting jobserver mode.",
    "d1fleet: the makefile sets -j itself, so that make has left the build's own -j: take that line out,"
    " or local recipes and sub-makes run as the makefile says",
)
"""What is said when a makefile leaves our jobserver; make's own would bear it (docs/differences.md)."""


def _plain(tree: StampTree, path: str, arguments: list[str], environment: dict[str, str]) -> Running:
    make = shutil.which("make", path=path)
    assert make is not None
    with Running(["make", *arguments], tree.folder, {**environment, "PATH": path}, "plain") as running:
        running.end()
        return running


def _compare(
    new_fleet: NewFleet, make_path: str, folder: Path, arguments: list[str], head: str = "", **variables: str
) -> None:
    """Build the same tree by plain make and by `d1fleet build`: what they say has to be the same lines."""
    subs = [Sub(name, recipes=3, nested=1, call=call) for name, call in CALLS.items()]
    tree = StampTree(folder, subs, own=1, hold=":", head=head)
    fleet = new_fleet(slots=6, PATH=make_path, **variables)
    plain = _plain(tree, make_path, arguments, fleet.environment())
    tree.log.unlink()
    with start(fleet, tree, *arguments) as ours:
        status = ours.end()
    assert status == plain.process.returncode == 0, ours.stderr
    more = LEAVES if head == HEADS["forced"] else ()
    assert sorted(ours.stderr.splitlines()) == sorted([*plain.stderr.splitlines(), *more])
    assert sorted(ours.stdout.splitlines()) == sorted(plain.stdout.splitlines())
    assert len(tree.stamps().started()) == tree.recipes
    jobs = [entry for entry in ours.record() if entry["event"] == "job" and entry["parent"] is None]
    assert len(jobs) == len(CALLS)
    assert {job["host"] for job in jobs} <= {"a", "b"}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_same_words(new_fleet: NewFleet, make_path: str, tree_folder: Path, arguments: list[str]) -> None:
    _compare(new_fleet, make_path, tree_folder, arguments)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_same_words_in_odd_makefiles(
    new_fleet: NewFleet, make_path: str, tree_folder: Path, head: str
) -> None:
    _compare(new_fleet, make_path, tree_folder, ["-j3"], head)


@pytest.mark.parametrize("name", ["MAKEFLAGS", "GNUMAKEFLAGS"])
def test_same_words_with_jobs_from_the_environment(
    new_fleet: NewFleet, make_path: str, tree_folder: Path, name: str
) -> None:
    _compare(new_fleet, make_path, tree_folder, [], **{name: "-j3"})


@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_every_token_comes_back(new_fleet: NewFleet, make_path: str, tree_folder: Path, jobs: int) -> None:
    """make counts at its end, and would say `INTERNAL: Exiting with N jobserver tokens available`."""
    subs = [Sub(f"s{number}", recipes=5, nested=2) for number in range(8)]
    tree = StampTree(tree_folder, subs, own=2, hold="sleep 0.01")
    with start(new_fleet(slots=4, PATH=make_path), tree, f"-j{jobs}") as running:
        assert running.end() == 0, running.stderr
    assert running.stderr == ""
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert stamps.most_at_once() <= jobs
