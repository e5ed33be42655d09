"""What a server costs its host: memory with jobs at work and without, and CPU when it has nothing to do."""

from __future__ import annotations

import time

from d1fleet.server.pool import IDLE_S

from . import stats
from .fleetbuild import fleet_build
from .processes import cpu_seconds, memory
from .stage import Stage
from .stats import Row, Sample, at_most

SLOTS = 8


def measure(stage: Stage) -> list[Row]:
    """One host, looked at before, just after, and well after some jobs at once."""
    idle_s = stage.few(10, 1)
    folder = stage.folder()
    folder.write([("run", 40)])
    with (
        stage.servers(["h"]) as sshd,
        fleet_build(stage, folder, [f"-j{SLOTS}"], ["h"], sshd, slots=SLOTS) as running,
    ):
        build = running.build
        build.hear("run")
        running.wait_for_hosts(1)
        fresh = memory(running.server_pids())
        build.let_go()
        build.hear("done")
        at_work = running.server_pids()
        busy = memory(at_work)
        time.sleep(IDLE_S + 2)  # by then it has let go of the supervisors that it does not need
        servers, coordinator = running.server_pids(), [build.coordinator]
        before, coordinator_before = cpu_seconds(servers), cpu_seconds(coordinator)
        began = time.monotonic()
        time.sleep(idle_s)
        passed = time.monotonic() - began
        used, coordinator_used = cpu_seconds(servers) - before, cpu_seconds(coordinator) - coordinator_before
        after = memory(servers)
        build.finish()

    def single(what: str, value: float, unit: str, target: stats.Target | None = None) -> Row:
        return stats.row(what, Sample((value,), unit), target)

    return [
        single("its memory before the first job (PSS)", fresh.pss / 1e6, "MB", at_most(25, "MB")),
        single(f"its memory with {SLOTS} jobs at work, {len(at_work)} processes (PSS)", busy.pss / 1e6, "MB"),
        single(
            f"its memory afterwards, {len(servers)} processes (PSS)", after.pss / 1e6, "MB", at_most(25, "MB")
        ),
        single("  the same with shared pages counted in each (RSS)", after.rss / 1e6, "MB"),
        single("its CPU when idle", 100 * used / passed, "%", at_most(1, "%")),
        single("the coordinator's CPU when idle", 100 * coordinator_used / passed, "%"),
    ]
