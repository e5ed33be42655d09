"""Connecting: 1 to 100 names of this machine, when they are up, and when the first job runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

from tests.support.sshd import LoopbackSshd

from . import stats
from .fleetbuild import UP, fleet_build
from .processes import cpu_seconds, memory
from .stage import Stage
from .stats import Row, Sample, at_most
from .tail import Arrivals, Tail

SERVERS = 4
"""sshd's that share the names."""

_ASKED, _STARTED = "Connection from", "Starting session"
"""In sshd's log: a connection, and an authenticated channel with its command."""

FIRST_JOB_S = 0.2
""""As soon as the first host is up" means within this, while two cores log 100 hosts in; a guess."""


@dataclass
class Times:
    """Of one number of hosts, in seconds, a value for each round."""

    channels: list[float] = field(default_factory=list)
    first_up: list[float] = field(default_factory=list)
    all_up: list[float] = field(default_factory=list)
    job_after_first_up: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)


def _one_round(stage: Stage, sshd: LoopbackSshd, hosts: list[str], times: Times) -> None:
    folder = stage.folder("@echo first >{said}")
    folder.write([("run", 1)])
    logs = Arrivals([Tail(log, from_end=True) for log in sshd.logs], [_ASKED, _STARTED])
    with fleet_build(stage, folder, ["-j2"], hosts, sshd) as running:
        build = running.build

        def look() -> None:
            running.events.look()
            logs.look()

        build.hear("run", also=look)
        build.let_go()
        first_job = build.hear("first", also=look)
        running.wait_for_hosts(len(hosts), logs)
        build.hear("done")
        up, asked, started = running.events.times[UP], logs.times[_ASKED], logs.times[_STARTED]
        times.channels.append(started[len(hosts) - 1] - asked[0])
        times.first_up.append(up[0] - build.began)
        times.all_up.append(up[-1] - build.began)
        times.job_after_first_up.append(first_job - up[0])
        coordinator = [build.coordinator]
        times.cpu_ms.append(cpu_seconds(coordinator) * 1000)
        used = memory(coordinator)
        times.rss.append(used.rss / 1e6)
        times.pss.append(used.pss / 1e6)
        times.end.append(build.finish())


def measure(stage: Stage) -> list[Row]:
    """Round by round, all numbers of hosts in turn."""
    sizes = (1, 3) if stage.quick else (1, 10, 50, 100)
    names = [f"h{number}" for number in range(1, max(sizes) + 1)]
    found = {size: Times() for size in sizes}
    with stage.servers(names, SERVERS) as sshd:
        # The first round finds an empty cache: the shim is compiled, the server is shipped.
        _one_round(stage, sshd, names[:1], Times())
        for _ in range(stage.few(3, 1)):
            for size in sizes:
                found[size].alone.append(_channels_alone(sshd, names[:size]))
                _one_round(stage, sshd, names[:size], found[size])
    return _rows(found)


def _channels_alone(sshd: LoopbackSshd, names: list[str]) -> float:
    """Seconds to log in to all of them, with nothing started there."""
    command = [sys.executable, "-m", "bench.channels", str(sshd.ssh_config), *names]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _rows(found: dict[int, Times]) -> list[Row]:
    return [row for size, times in found.items() for row in _rows_of(size, times)]


def _rows_of(size: int, times: Times) -> list[Row]:
    who = f"{size} host{'s' * (size > 1)}"

    def row(what: str, values: list[float], unit: str = "s", target: stats.Target | None = None) -> Row:
        return stats.row(f"{who}: {what}", Sample(tuple(values), unit), target)

    channels = at_most(2, "s") if size == 100 else None
    return [
        row("authenticated channels to all", times.alone, target=channels),
        row("the same while so many servers start on this machine", times.channels),
        row("command to first host up", times.first_up),
        row("command to all hosts up", times.all_up),
        row(
            "first host up to first job's recipe", times.job_after_first_up, target=at_most(FIRST_JOB_S, "s")
        ),
        row("coordinator's CPU until then", times.cpu_ms, "ms"),
        row("coordinator's memory", times.rss, "MB", at_most(60 + 0.15 * size, "MB")),
        row("  of that its own share (PSS)", times.pss, "MB"),
        row("last recipe to the end of the build", times.end),
    ]
