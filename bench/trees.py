"""Whole trees on eight slow hosts: how much of the speed-up that a tree's structure allows is reached."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tests import containers
from tests.packages.trees import Site
from tests.support.debsource import SourceUnavailable
from tests.trees import made
from tests.trees.figures import Figures, keep
from tests.trees.onhosts import Place, Tree, measure
from tests.trees.packages import CASES
from tests.trees.stamp import NoCompiler, stamp

from . import stats
from .stage import Stage
from .stats import Row, Sample

HOSTS, CPUS = 8, 0.2
"""1.6 processors: what is left of two is for the coordinator, whose machine has no limit."""

MADE = replace(made.FOUR_LEVELS, middle_s=0.2)
"""Four minutes on one host: what starts and ends a build is to be small beside the rest."""

NAMES = ("made", *(name for name, case in CASES.items() if not case.program))


def measure_tree(stage: Stage, name: str) -> list[Row]:
    """Plain make on one host, d1fleet on all of them without and with history, both traced."""
    reason = containers.missing_reason()
    if reason:
        raise RuntimeError(reason)
    shared = stage.scratch / f"trees-{name}"
    shared.mkdir(mode=0o700)
    try:
        program = stamp(shared)
        shape = made.Shape(fan=(2, 2), leaves=2) if stage.quick else MADE
        tree = _made(shape, shared, program) if name == "made" else _package(name, shared)
    except (NoCompiler, SourceUnavailable) as error:
        raise RuntimeError(str(error)) from error
    count = stage.few(HOSTS, 2)
    with containers.ContainerHosts(
        f"bench-{os.getpid()}", count=count, variant="packages", cpus=CPUS, volumes=[shared]
    ) as hosts:
        found = measure(Place(hosts, CPUS, shared, program), tree, second=True).figures
    if not stage.quick:
        keep(found)
    return _rows(found)


def _made(shape: made.Shape, shared: Path, program: Path) -> Tree:
    folder = shared / "made"
    made.write(shape, folder, program)
    return Tree("made", folder, lambda: made.clean(folder))


def _package(name: str, shared: Path) -> Tree:
    case = CASES[name]
    case.prepare(shared / name)
    site = Site.at(shared / name)
    return Tree(name, site.path / case.folder, site.restore, case.goals, case.shell)


def _rows(found: Figures) -> list[Row]:
    plain, name = Sample((found.plain_s,), "s"), found.tree
    first, second = (Sample((seconds,), "s") for seconds in (found.first_s, found.second_s))
    rows = [
        stats.ratio_row(f"{name}: plain make on one host : d1fleet, first build", plain, first),
        stats.ratio_row(f"{name}: the same : d1fleet, history known", plain, second),
        stats.row(f"{name}: speed-up that the tree allows, at most", Sample((found.bound,), "x")),
        stats.row(f"{name}: a schedule that could be had", Sample((found.schedule,), "x")),
    ]
    for build, wall in (("first build", first), ("history known", second)):
        share = Sample((100 * found.plain_s / wall.median / found.bound,), "%")
        target = stats.at_least(80, "%") if wall is second else None
        rows.append(stats.row(f"{name}: of what it allows, {build}", share, target))
    if found.contended_s:
        busy = Sample((100 * found.busy_share,), "%")
        rows.append(stats.row(f"{name}: slots busy where recipes wait", busy, stats.at_least(80, "%")))
    return rows
