"""A job that writes much: how fast it comes through, and what of it the coordinator keeps in memory."""

from __future__ import annotations

import subprocess
import time
from typing import IO

from tests.support.sshd import LoopbackSshd

from . import stats
from .builds import BuildFailedError, Folder
from .fleetbuild import FleetBuild, fleet_build
from .processes import Memory, cpu_seconds, memory
from .stage import Stage
from .stats import Row, Sample, at_least, at_most

GROWTH_MB = 16
"""Most that output may add to the coordinator's memory: credit for a stream is 256 KiB, a window 2 MiB."""

_STALL_S = 0.5
_STALL_CPU_S = 0.01


def _timed(argv: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def _by_ssh(sshd: LoopbackSshd, size: int) -> float:
    """Seconds for the bytes alone: less a login and a command."""
    login_s = _timed(sshd.ssh("h", "true"))
    return _timed(sshd.ssh("h", f"head -c {size} /dev/zero")) - login_s


def _by_d1fleet(
    stage: Stage, folder: Folder, hosts: list[str], sshd: LoopbackSshd | None
) -> tuple[float, float, Memory]:
    """Seconds for the bytes, the coordinator's CPU seconds for them, and its memory then."""
    with fleet_build(stage, folder, ["-j2"], hosts, sshd) as running:
        build = running.build
        build.hear("run")
        running.wait_for_hosts(1)
        coordinator = [build.coordinator]
        cpu_before = cpu_seconds(coordinator)
        began = build.let_go()
        passed = build.hear("done") - began
        used = memory(coordinator)
        cpu = cpu_seconds(coordinator) - cpu_before
        build.finish()
        return passed, cpu, used


def _wait_for_stall(pid: int) -> None:
    """Until the coordinator has nothing to do any more: all that may be under way is."""
    before = cpu_seconds([pid])
    while True:
        time.sleep(_STALL_S)
        now = cpu_seconds([pid])
        if now - before < _STALL_CPU_S:
            return
        before = now


def _read_all(running: FleetBuild, stream: IO[bytes], size: int) -> None:
    got = 0
    while got < size:
        data = stream.read1(1 << 20)  # type: ignore[attr-defined]
        if not data:
            raise BuildFailedError(f"{got} of {size} bytes arrived; {running.build.last_words()}")
        got += len(data)
    running.build.hear("done")


def _slow_reader(stage: Stage, folder: Folder, sshd: LoopbackSshd, size: int) -> float:
    """MB that the coordinator grew by while nobody read its output, until all was read."""
    with fleet_build(stage, folder, ["-j2"], ["h"], sshd, piped=True) as running:
        build = running.build
        build.hear("run")
        running.wait_for_hosts(1)
        before = memory([build.coordinator])
        build.let_go()
        _wait_for_stall(build.coordinator)
        if build.process.stdout is None:
            raise BuildFailedError("no pipe to read from")
        with build.process.stdout as stream:
            _read_all(running, stream, size)
            grown = memory([build.coordinator]).peak - before.rss
            build.finish()
        return grown / 1e6


def measure(stage: Stage) -> list[Row]:
    """d1fleet and ssh in turn."""
    size = stage.few(200, 2) * 10**6
    folder = stage.folder(f"@head -c {size} /dev/zero")
    folder.write([("run", 1)])
    ssh: list[float] = []
    ours: list[float] = []
    pipes: list[float] = []
    cpu: list[float] = []
    peaks: list[float] = []
    with stage.servers(["h"]) as sshd:
        for _ in range(stage.few(5, 1)):
            ssh.append(size / 1e6 / max(_by_ssh(sshd, size), 1e-3))
            passed, used_cpu, used = _by_d1fleet(stage, folder, ["h"], sshd)
            ours.append(size / 1e6 / passed)
            cpu.append(used_cpu * 1000 / (size / 1e8))
            peaks.append(used.peak / 1e6)
            passed, _, _ = _by_d1fleet(stage, folder, [":"], None)
            pipes.append(size / 1e6 / passed)
        grown = _slow_reader(stage, folder, sshd, size)
    fleet, plain = Sample(tuple(ours), "MB/s"), Sample(tuple(ssh), "MB/s")
    return [
        stats.row("a job over ssh", fleet, at_least(150, "MB/s")),
        stats.row("ssh host head", plain),
        stats.ratio_row("d1fleet : ssh", fleet, plain),
        stats.row("a job over pipes", Sample(tuple(pipes), "MB/s")),
        stats.row("coordinator's CPU for 100 MB", Sample(tuple(cpu), "ms")),
        stats.row("coordinator's peak memory", Sample(tuple(peaks), "MB"), at_most(60.15 + GROWTH_MB, "MB")),
        stats.row("its growth when nobody reads", Sample((grown,), "MB"), at_most(GROWTH_MB, "MB")),
    ]
