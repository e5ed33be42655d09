"""Made-up trees under plain make and under d1fleet: the same recipes and files, never too many at once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.limits.conftest import separate_machines
from tests.limits.trees import Running
from tests.trees import made
from tests.trees.invariants import credits_of, violations
from tests.trees.made import Shape
from tests.trees.plan import Make, makes, order, together
from tests.trees.stamp import tracing_environment
from tests.trees.trace import Ran, most_at_once, read
from tests.trees.traced import plain_recipes, plan_of

pytestmark = pytest.mark.timeout(180)

SMALL = Shape(fan=(2, 2, 2), leaves=3, middle_s=0.02, how="sleep", link=True)
SHAPES = {
    "folders": SMALL,
    "files": replace(SMALL, call="file", flags="-k"),
    "shims": replace(SMALL, joined=("background", "target", "background")),
    "loops": replace(SMALL, joined=("loop", "background", "loop"), call="file"),
}
"""Four levels of makes, called in all ways."""

SLOTS = {"one": 1, "two": 2, "three": 3}
JOBS = 5
"""Fewer than slots."""


def plain(tree: Path, log: Path, *arguments: str, **environment: str) -> int:
    """Build with plain make; returns its exit status."""
    env = {**os.environ, "STAMP_LOG": str(log), "STAMP_HOST": "here", **environment}
    return subprocess.run(
        ["make", *arguments], cwd=tree, env=env, capture_output=True, check=False
    ).returncode


def start(folder: Path, *arguments: str, **environment: str) -> Running:
    """Start d1fleet in `folder`/tree, on hosts that are machines of their own; they stamp in `folder`/log."""
    fleet = separate_machines(folder, SLOTS)
    fleet.variables = {"STAMP_LOG": str(folder / "log"), "STAMP_HOST": "here", **environment}
    argv = fleet.command(f"-j{JOBS}", "-C", str(folder / "tree"), *arguments, record=folder / "build.record")
    return Running(argv, folder, fleet.environment(), "build")


def check_order(trace: Sequence[Ran], before: Mapping[str, frozenset[str]], complete: bool = True) -> None:
    """Every recipe ran once, after all that it waits for."""
    assert [name for name, times in Counter(ran.target for ran in trace).items() if times > 1] == []
    by_name = {ran.target: ran for ran in trace}
    assert by_name.keys() <= before.keys()
    assert by_name.keys() == before.keys() or not complete
    for ran in trace:
        for name in before[ran.target]:
            end_s = by_name[name].end_s
            assert end_s is not None and end_s <= ran.start_s, f"{ran.target} did not wait for {name}"


def check_limits(trace: Sequence[Ran], running: Running, plan: Make) -> None:
    # A host may have one probe: the record tells of it only with the next credit. What the coordinator's
    # machine runs itself is bound by -jN.
    slots = {**{name: count + 1 for name, count in SLOTS.items()}, "here": JOBS}
    assert violations(trace, slots, JOBS, credits_of(running.record()), together(plan)) == []


def _outline(make: Make) -> list[tuple[list[str], list[set[int]]]]:
    """The steps of all makes: their names, and what they come after."""
    return [
        ([step.name for step in each.steps], [set(step.after) for step in each.steps]) for each in makes(make)
    ]


@pytest.mark.parametrize("name", SHAPES)
def test_plain_make_keeps_the_plan(tmp_path: Path, stamp_program: Path, release: str, name: str) -> None:
    """What is said about a tree is so; the tracer finds the same in a serial make."""
    tree, log, shells = tmp_path / "tree", tmp_path / "log", tmp_path / "shells"
    plan = made.write(SHAPES[name], tree, stamp_program)
    assert plain(tree, log, **tracing_environment(stamp_program, shells, "/bin/sh")) == 0
    trace = read(log)
    check_order(trace, order(plan))
    assert {ran.level for ran in trace} == {0, 1, 2, 3}
    assert sorted(ran.target for ran in trace) == sorted(Path(path).name for path in made.products(tree))
    assert most_at_once(trace) == {"shims": 4, "loops": 2}.get(name, 1)
    assert sorted(_outline(plan_of(read(shells)))) == sorted(_outline(plan))


@pytest.mark.parametrize("name", SHAPES)
def test_a_fleet_keeps_plan_and_limits(tmp_path: Path, stamp_program: Path, release: str, name: str) -> None:
    tree = tmp_path / "tree"
    plan = made.write(SHAPES[name], tree, stamp_program)
    assert plain(tree, tmp_path / "plain", f"-j{JOBS}") == 0
    expected = made.products(tree)
    made.clean(tree)
    with start(tmp_path) as running:
        assert running.end() == 0, running.stderr
    assert made.products(tree) == expected
    trace = read(tmp_path / "log")
    assert {ran.host for ran in trace} & SLOTS.keys()
    check_order(trace, order(plan))
    check_limits(trace, running, plan)


def test_the_tracer_goes_with_makes_to_hosts(tmp_path: Path, stamp_program: Path) -> None:
    plan = made.write(SMALL, tmp_path / "tree", stamp_program)
    shells = tmp_path / "shells"
    with start(tmp_path, **tracing_environment(stamp_program, shells, "/bin/sh")) as running:
        assert running.end() == 0, running.stderr
    recipes, before = plain_recipes(read(shells))
    expected = order(plan)
    names = {ran.key: Path(ran.command.split()[-5]).name for ran in recipes}
    assert sorted(names.values()) == sorted(expected)
    assert {names[key]: {names[each] for each in before[key]} for key in names} == expected
    assert {ran.host for ran in recipes} & SLOTS.keys()


@pytest.mark.parametrize("flags", ["", "-k"])
def test_failures(tmp_path: Path, stamp_program: Path, release: str, flags: str) -> None:
    """A recipe of a last make fails, and one of a middle make: with -k, the rest of the tree is made."""
    failing = frozenset(["top.0.1.0-1", "top.1-0"])
    tree = tmp_path / "tree"
    plan = made.write(replace(SMALL, flags=flags, failing=failing), tree, stamp_program)
    status = plain(tree, tmp_path / "plain", f"-j{JOBS}", *flags.split())
    expected = made.products(tree)
    made.clean(tree)
    with start(tmp_path, *flags.split()) as running:
        assert running.end() == status == 2, running.stderr
    trace = read(tmp_path / "log")
    assert failing & {ran.target for ran in trace}
    check_order(trace, order(plan), complete=False)
    check_limits(trace, running, plan)
    # Without -k, what else had begun when the first one failed depends on the times.
    assert made.products(tree) == expected or not flags


def test_killed_makes(tmp_path: Path, stamp_program: Path, release: str) -> None:
    """kill -9 of makes on hosts, one after the other: their tokens are neither lost nor doubled.

    What a killed make leaves running is nobody's recipe any more, as with plain make: it counts until then.
    """
    shape = Shape(fan=(3, 2, 2), leaves=4, middle_s=0.05, how="sleep", call="file", flags="-k")
    plan = made.write(shape, tmp_path / "tree", stamp_program)
    killed: dict[str, float] = {}
    with start(tmp_path, "-k") as running:
        while running.process.poll() is None and len(killed) < 3:
            killed |= _kill_a_make(running.process.pid)
            time.sleep(0.1)
        assert len(killed) == 3
        assert running.end() != 0
    trace = read(tmp_path / "log")
    check_order(trace, order(plan), complete=False)
    check_limits(_without_orphans(trace, killed), running, plan)


def _without_orphans(trace: Sequence[Ran], killed: Mapping[str, float]) -> list[Ran]:
    """Recipes of killed makes and of makes below these end when theirs was killed."""
    kept = []
    for ran in trace:
        make = ran.target.rpartition("-")[0]
        end_s = min(
            (when_s for name, when_s in killed.items() if f"{make}.".startswith(f"{name}.")), default=None
        )
        if end_s is None:
            kept.append(ran)
        elif ran.start_s < end_s:
            kept.append(replace(ran, end_s=min(ran.end_s or end_s, end_s)))
    return kept


def _kill_a_make(front: int) -> dict[str, float]:
    """Kill a make that runs a recipe on a host; its name in the tree, and when: none where there is none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(front).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                parent, words = process.parent(), process.cmdline()
                on_host = process.name().startswith("stamp") and process.environ().get("STAMP_HOST") in SLOTS
                if on_host and parent is not None and parent.name() == "make" and len(words) > 2:
                    when_s = time.clock_gettime(time.CLOCK_BOOTTIME)
                    parent.kill()
                    return {words[2].rpartition("-")[0]: when_s}
    return {}
