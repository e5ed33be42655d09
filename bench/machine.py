"""What else this machine is doing: figures taken while others use it mean nothing."""

from __future__ import annotations

import os
import time

BUSY_SHARE = 0.1
"""Share of all CPUs that others may use before figures are in doubt; a guess."""

BUSY_LOAD = 0.5
"""1-minute load average for each CPU before figures are in doubt; a guess: it is slow to fall."""


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def describe() -> str:
    """The machine in a few words, without a name."""
    loads = " ".join(f"{load:.2f}" for load in os.getloadavg())
    kernel = os.uname()
    return f"{cpus()} CPUs, {kernel.sysname} {kernel.release} {kernel.machine}, load average {loads}"


def load_is_high() -> bool:
    return os.getloadavg()[0] > BUSY_LOAD * cpus()


def busy_share(for_s: float) -> float:
    """Share of all CPUs that is used while we wait for `for_s` seconds."""
    before = _times()
    time.sleep(for_s)
    after = _times()
    passed = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return max(0.0, 1 - idle / passed) if passed else 0.0


def _times() -> list[int]:
    with open("/proc/stat") as file:
        # user nice system idle iowait irq softirq steal
        return [int(word) for word in file.readline().split()[1:9]]
