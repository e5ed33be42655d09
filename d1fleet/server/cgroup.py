"""The control groups of this process: which CPU quota binds it, and what memory they leave.

Version 1, version 2 and both side by side (hybrid), each hierarchy up to the highest group that can be seen
(cgroups(7)). `root` is the folder below which `proc` and the mounts are looked for: "/" but in tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Hierarchy:
    """One cgroup mount, and where this process is in it."""

    version: int
    groups: tuple[str, ...]
    """Folders from this process's own group up to the highest that can be seen."""


@dataclass(frozen=True)
class Quota:
    """A CFS quota, and the group that it is set on."""

    cpus: float
    version: int
    group: str


def read_text(path: str) -> str:
    """A small file's content; empty when it is not there or may not be read."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def number(text: str) -> int | None:
    """The first word as a number; None for "max", nothing, or anything else."""
    words = text.split()
    return int(words[0]) if words and words[0].lstrip("-").isdigit() else None


def _unescape(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def _groups(mount: str, top: str, path: str) -> tuple[str, ...]:
    """Folders of `path` and its parents; `top` is what of the hierarchy is mounted at `mount`."""
    below = os.path.relpath(path, top)
    # A path outside the mount is another namespace's name for our group: its top is all that we see.
    parts = [] if below == "." or below.split("/")[0] == ".." else below.split("/")
    chain = [os.path.join(mount, *parts[:count]) for count in range(len(parts), -1, -1)]
    return tuple(group for group in chain if os.path.isdir(group)) or (mount,)


def hierarchies(root: str) -> dict[str, Hierarchy]:
    """The hierarchy of each controller of this process; "" stands for version 2."""
    paths: dict[str, str] = {}
    for line in read_text(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    found: dict[str, Hierarchy] = {}
    for line in read_text(os.path.join(root, "proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if len(left) < 5 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        mount = os.path.join(root, _unescape(left[4]).lstrip("/"))
        names = [""] if right[0] == "cgroup2" else right[2].split(",")
        for name in names:
            if name in paths and name not in found:
                groups = _groups(mount, _unescape(left[3]), paths[name])
                found[name] = Hierarchy(2 if name == "" else 1, groups)
    return found


def _quotas(known: dict[str, Hierarchy]) -> Iterator[Quota]:
    if "" in known:
        for group in known[""].groups:
            quota, _, period = read_text(os.path.join(group, "cpu.max")).partition(" ")
            limit, each = number(quota), number(period)
            if limit and limit > 0 and each:
                yield Quota(limit / each, 2, group)
    if "cpu" in known:
        for group in known["cpu"].groups:
            limit = number(read_text(os.path.join(group, "cpu.cfs_quota_us")))
            each = number(read_text(os.path.join(group, "cpu.cfs_period_us")))
            if limit and limit > 0 and each:
                yield Quota(limit / each, 1, group)


def tightest(known: dict[str, Hierarchy]) -> Quota | None:
    """The quota that binds first; None without any."""
    return min(_quotas(known), key=lambda quota: quota.cpus, default=None)


def account(known: dict[str, Hierarchy], quota: Quota) -> str | None:
    """The file that counts the CPU time of all who share `quota`; None where there is none to read."""
    if quota.version == 2:
        places = [os.path.join(quota.group, "cpu.stat")]
    else:
        places = [os.path.join(quota.group, "cpuacct.usage")]
        if "cpuacct" in known:
            # Mounted apart: the group as far from the top, else our own.
            groups, chain = known["cpu"].groups, known["cpuacct"].groups
            level = len(groups) - groups.index(quota.group)
            places.append(os.path.join(chain[-level] if level <= len(chain) else chain[0], "cpuacct.usage"))
    return next((place for place in places if read_text(place)), None)


def cpu_seconds(account_file: str) -> float:
    """What an account of `account` says: seconds of CPU time used so far."""
    text = read_text(account_file)
    if account_file.endswith("cpuacct.usage"):
        return (number(text) or 0) / 1e9
    fields = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return (number(fields.get("usage_usec", "")) or 0) / 1e6


_MEMORY_FILES = {
    "": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "memory": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}


def memory_rooms(known: dict[str, Hierarchy]) -> Iterator[int]:
    """Bytes that each limited group can still take; its inactive page cache counts as free."""
    for name, (limit_files, used_file, inactive) in _MEMORY_FILES.items():
        for group in known[name].groups if name in known else ():
            read = [number(read_text(os.path.join(group, file))) for file in limit_files]
            limits = [limit for limit in read if limit is not None]
            if limits:
                used = number(read_text(os.path.join(group, used_file))) or 0
                fields = [line.split() for line in read_text(os.path.join(group, "memory.stat")).splitlines()]
                cache = next((int(words[1]) for words in fields if words[:1] == [inactive]), 0)
                yield min(limits) - max(0, used - cache)
