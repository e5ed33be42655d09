"""Empty sub-makes: how many a second, what one costs, and what it costs the coordinator."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from . import stats
from .builds import LEAF, Build, Folder
from .fleetbuild import fleet_build
from .processes import Memory, cpu_seconds, memory
from .stage import Stage, multiplexed
from .stats import Row, Sample, at_least, at_most

HOSTS = ("a", "b", "c")
SLOTS = 8
LEVELS = (1, 8, 30)

D1MAKE_MS = 28.4
"""d1make 3.8.2 at -j8 on a machine like this one; it needs a Python that is no longer to be had."""


@dataclass
class Costs:
    """What the rounds of one contestant at one -j gave."""

    wall_ms: list[float] = field(default_factory=list)
    coordinator_ms: list[float] = field(default_factory=list)
    servers_ms: list[float] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)


Contestant = Callable[[int, int, Costs], None]
"""Runs so many jobs at this -j, and adds what they cost."""


def _plain(stage: Stage, folder: Folder, job: str, level: int, count: int, costs: Costs) -> None:
    folder.write([("warm", min(count, 10)), ("run", count)], job)
    with Build(folder, ["make", f"-j{level}"], stage.environment) as build:
        build.hear("warm")
        build.let_go()
        build.hear("run")
        began = build.let_go()
        costs.wall_ms.append((build.hear("done") - began) * 1000 / count)
        build.finish()


def _fleet(
    stage: Stage,
    folder: Folder,
    hosts: Sequence[str],
    options: dict[str, object],
    level: int,
    count: int,
    costs: Costs,
) -> None:
    folder.write([("warm", stage.few(60, 6)), ("run", count)])
    with fleet_build(stage, folder, [f"-j{level}"], hosts, slots=SLOTS, **options) as running:  # type: ignore[arg-type]
        build = running.build
        build.hear("warm")
        running.wait_for_hosts(len(hosts))
        build.let_go()
        build.hear("run")
        coordinator, servers = [build.coordinator], running.server_pids()
        cpu_before, servers_before = cpu_seconds(coordinator), cpu_seconds(servers)
        began = build.let_go()
        costs.wall_ms.append((build.hear("done") - began) * 1000 / count)
        costs.coordinator_ms.append((cpu_seconds(coordinator) - cpu_before) * 1000 / count)
        costs.servers_ms.append((cpu_seconds(servers) - servers_before) * 1000 / count)
        costs.memory.append(memory(coordinator))
        build.finish()


def measure(stage: Stage) -> list[Row]:
    """All contestants in turn, round by round."""
    local = stage.folder()
    rounds = stage.few(5, 1)
    with (
        stage.servers(HOSTS, MaxSessions=500) as sshd,
        multiplexed(sshd, HOSTS[0], stage.scratch / "control") as ssh,
    ):
        remote = f"cd {shlex.quote(str(local.path))} && make -f {LEAF} f"
        contestants: dict[str, Contestant] = {
            "local make": partial(_plain, stage, local, f"$(MAKE) -f {LEAF} f J=$@"),
            "ssh -S": partial(_plain, stage, local, shlex.join([*ssh, remote]) + " J=$@"),
            "pipes": partial(_fleet, stage, local, (":",), {}),
            "3 hosts": partial(_fleet, stage, local, HOSTS, {"sshd": sshd}),
        }
        costs = {(level, name): Costs() for level in LEVELS for name in contestants}
        for level in LEVELS:
            for _ in range(rounds):
                for name, run in contestants.items():
                    count = stage.few(200 if level == 1 or name == "ssh -S" else 800, 12)
                    run(level, count, costs[level, name])
    return _rows(costs)


def _rows(costs: dict[tuple[int, str], Costs]) -> list[Row]:
    rows: list[Row] = []
    for level in LEVELS:
        wall = {name: Sample(tuple(costs[level, name].wall_ms), "ms") for name in _names(costs)}
        for name, sample in wall.items():
            target = at_least(600, "/s") if (level, name) == (8, "3 hosts") else None
            what = f"-j{level} {name}" if name in ("local make", "ssh -S") else f"-j{level} d1fleet, {name}"
            rows.append(stats.row(f"{what}: a job", sample))
            rows.append(stats.row(f"{what}: jobs a second", sample.inverted(1000, "/s"), target))
        for name in ("pipes", "3 hosts"):
            rows.append(
                stats.ratio_row(f"-j{level} d1fleet, {name} : local make", wall[name], wall["local make"])
            )
        three = at_least(3, "x") if level == 8 else None
        rows.append(
            stats.ratio_row(f"-j{level} ssh -S : d1fleet, 3 hosts", wall["ssh -S"], wall["3 hosts"], three)
        )
        if level == 8:
            d1make = Sample((D1MAKE_MS,), "ms")
            rows.append(
                stats.ratio_row(
                    "-j8 d1make (not run here) : d1fleet, 3 hosts", d1make, wall["3 hosts"], at_least(18, "x")
                )
            )
        if level == 1:
            for name, target in (("pipes", None), ("3 hosts", at_most(1, "ms"))):
                added = stats.difference(wall[name], wall["local make"])
                rows.append(stats.row(f"-j1 added to one job, {name}", added, target))
    for name in ("pipes", "3 hosts"):
        of_8 = costs[8, name]
        target = at_most(0.35, "ms") if name == "3 hosts" else None
        rows.append(
            stats.row(
                f"coordinator's CPU a job, -j8, {name}", Sample(tuple(of_8.coordinator_ms), "ms"), target
            )
        )
    of_8 = costs[8, "3 hosts"]
    rows.append(
        stats.row("servers' and supervisors' CPU a job, -j8, 3 hosts", Sample(tuple(of_8.servers_ms), "ms"))
    )
    rss = Sample(tuple(each.rss / 1e6 for each in of_8.memory), "MB")
    rows.append(stats.row("coordinator's memory, 3 hosts", rss, at_most(60 + 0.15 * len(HOSTS), "MB")))
    pss = Sample(tuple(each.pss / 1e6 for each in of_8.memory), "MB")
    rows.append(stats.row("  of that its own share (PSS)", pss))
    return rows


def _names(costs: dict[tuple[int, str], Costs]) -> list[str]:
    return list(dict.fromkeys(name for _, name in costs))
