"""What a host has, and what others use of it: CPUs, CPU time, memory.

In a container, and in a slice with a quota, /proc/stat and /proc/loadavg are the whole machine's:
where a CFS quota binds, the control group's own account is read instead (proc(5)).
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import cgroup
from .cgroup import number, read_text

_SHORTEST_S = 0.1
"""Samples closer together than this are one: CPU time is counted in ticks of 10 ms."""


@dataclass(frozen=True)
class Load:
    """One look at the host."""

    others_cpus: float
    """CPUs that processes other than ours kept busy since the last sample; 1.5 is one and a half."""
    own_cpus: float
    """CPUs that our processes kept busy since the last sample."""
    memory_available_bytes: int
    """What can still be had without swapping, within the control group's limit."""
    load_1min: float
    """The kernel's load average: the whole machine's, in a container too."""


def usable_cpus(root: str = "/") -> int:
    """CPUs that this process may keep busy: affinity (cpusets too), and CFS quotas up the whole chain.

    A quota of 1.5 CPUs counts as 2; at least 1.
    """
    count = len(os.sched_getaffinity(0))
    quota = cgroup.tightest(cgroup.hierarchies(root))
    return min(count, math.ceil(quota.cpus)) if quota else count


class LoadMeter:
    """Measures what others use of this host, from one sample to the next.

    Args:
        root: the folder that holds `proc` and the cgroup mounts.
        clock: seconds; only differences count.
    """

    def __init__(self, root: str = "/", clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = os.path.join(root, "proc")
        self._clock = clock
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._affinity = os.sched_getaffinity(0)
        self._hierarchies = cgroup.hierarchies(root)
        quota = cgroup.tightest(self._hierarchies)
        binds = quota is not None and quota.cpus < len(self._affinity)
        self._account = cgroup.account(self._hierarchies, quota) if quota and binds else None
        # Kernels without CONFIG_PROC_CHILDREN have no such file.
        threads = os.path.join(self._proc, "self/task")
        self._has_children_files = any(
            os.path.exists(os.path.join(threads, thread, "children")) for thread in self._list(threads)
        )
        self._roots: dict[tuple[int, int], tuple[float, bool]] = {}
        self._at_s = clock()
        self._busy_s = self._busy()
        self._last = (0.0, 0.0)

    def sample(self, own_pids: Iterable[int]) -> Load:
        """The load since the last sample, or since this meter was made.

        Args:
            own_pids: our processes, none of them below another (the server's own pid covers all of its
                supervisors); their descendants count as ours too.
                One that is new here counts with all its past.
        """
        now_s, busy_s = self._clock(), self._busy()
        passed_s = now_s - self._at_s
        if passed_s >= _SHORTEST_S:
            own_s = self._own_since_last(own_pids)
            used_s = max(0.0, busy_s - self._busy_s)
            self._last = (max(0.0, used_s - own_s) / passed_s, own_s / passed_s)
            self._at_s, self._busy_s = now_s, busy_s
        others, own = self._last
        return Load(others, own, self._memory_available(), self._load_1min())

    # CPU time of everybody

    def _busy(self) -> float:
        """Seconds of CPU time used so far, by all whose use takes from what we may use."""
        return self._machine_busy() if self._account is None else cgroup.cpu_seconds(self._account)

    def _machine_busy(self) -> float:
        """From /proc/stat, of the CPUs that we may use; what a hypervisor steals counts as used."""
        lines = [line.split() for line in read_text(os.path.join(self._proc, "stat")).splitlines()]
        table = {words[0]: words[1:] for words in lines if words and words[0].startswith("cpu")}
        ours = [f"cpu{cpu}" for cpu in self._affinity]
        names = ours if all(name in table for name in ours) else ["cpu"]
        ticks = 0
        for name in names:
            # user nice system idle iowait irq softirq steal; guest time is in user already
            ticks += sum(map(int, table.get(name, [])[:3] + table.get(name, [])[5:8]))
        return ticks * self._tick_s

    # CPU time of ours

    def _own_since_last(self, own_pids: Iterable[int]) -> float:
        children = self._child_finder()
        used_s = 0.0
        roots: dict[tuple[int, int], tuple[float, bool]] = {}
        for pid in own_pids:
            first = self._stat(pid)
            if first is None:
                continue
            key = (pid, first[1])
            total_s = self._tree(pid, first[2], children)
            before_s, fell = self._roots.get(key, (0.0, False))
            # A process that ends between two reads is missing once, then back in its parent's account;
            # a fall that lasts is real (children that nobody waited for).
            if total_s < before_s and not fell:
                roots[key] = (before_s, True)
            else:
                used_s += max(0.0, total_s - before_s)
                roots[key] = (total_s, False)
        self._roots = roots
        return used_s

    def _tree(self, pid: int, own_s: float, children: Callable[[int], list[int]]) -> float:
        # Parents are read before their children: what ends in between is missed, never counted twice.
        total_s, seen, waiting = own_s, {pid}, children(pid)
        while waiting:
            child = waiting.pop()
            stat = None if child in seen else self._stat(child)
            if stat is not None:
                seen.add(child)
                total_s += stat[2]
                waiting += children(child)
        return total_s

    def _child_finder(self) -> Callable[[int], list[int]]:
        if self._has_children_files:
            return self._children
        below: dict[int, list[int]] = {}
        for name in self._list(self._proc):
            if name.isdigit():
                stat = self._stat(int(name))
                if stat is not None:
                    below.setdefault(stat[0], []).append(int(name))
        return lambda pid: list(below.get(pid, ()))

    def _children(self, pid: int) -> list[int]:
        threads = os.path.join(self._proc, str(pid), "task")
        found: list[int] = []
        for thread in self._list(threads):
            found += map(int, read_text(os.path.join(threads, thread, "children")).split())
        return found

    def _stat(self, pid: int) -> tuple[int, int, float] | None:
        """(parent, start time in ticks, seconds of CPU with its waited-for children's); None: it is gone."""
        words = read_text(os.path.join(self._proc, str(pid), "stat")).rpartition(")")[2].split()
        if len(words) < 20:
            return None
        return int(words[1]), int(words[19]), sum(map(int, words[11:15])) * self._tick_s

    @staticmethod
    def _list(folder: str) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(folder)
        return []

    # Memory, and the kernel's own word

    def _memory_available(self) -> int:
        lines = read_text(os.path.join(self._proc, "meminfo")).splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        # Some containers have no MemAvailable.
        free_kib = number(fields.get("MemAvailable", "")) or number(fields.get("MemFree", "")) or 0
        return max(0, min([1024 * free_kib, *cgroup.memory_rooms(self._hierarchies)]))

    def _load_1min(self) -> float:
        words = read_text(os.path.join(self._proc, "loadavg")).split()
        return float(words[0]) if words else 0.0
