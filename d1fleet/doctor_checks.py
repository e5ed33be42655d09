"""A doctor's checks of hosts, one function each: what is known goes in, findings come out. Pure.

To add one: write it, and add a line to CHECKS. Those of trees and clocks are in doctor_trees.py, of what the
roles leave in doctor_enrolment.py, of distcc in doctor_distcc.py.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator

from . import doctor_enrolment, doctor_trees
from .doctor_case import Case
from .errors import ConnectError, D1fleetError, HostKeyError, LoginError, ServerStartError
from .findings import FAULT, WARNING, Finding, Mend
from .protocol import Hello
from .toolchains import Toolchains

Check = Callable[[Case], Iterator[Finding]]

DISK_WARN_BYTES, DISK_FAULT_BYTES = 1 << 30, 100 << 20
"""Guesses: what a middling build writes, and what hardly any compilation can do with."""

FILES_WARN_SHARE = 0.02

MEMORY_WARN_BYTES, MEMORY_FAULT_BYTES = 512 << 20, 128 << 20
"""Guesses: what one large C++ file takes, and what a small one takes."""

_LONGEST_PATH = 255
"""Of a path of a host's in words that can be typed."""

_MAKE = re.compile(r"GNU Make (\d+)\.(\d+)")
_OLDEST_MAKE = (4, 2)


# -- being reached ------------------------------------------------------------------------------------


def check_reached(case: Case) -> Iterator[Finding]:
    """Each way that a login can fail; and hosts that have said nothing of themselves."""
    kinds: dict[type[D1fleetError], str] = {
        HostKeyError: "host-key",
        LoginError: "login",
        ConnectError: "unreachable",
        ServerStartError: "server-start",
    }
    for seen in case.hosts:
        if seen.error is not None:
            id_ = kinds.get(type(seen.error), "silent")
            yield Finding(id_, FAULT, seen.name, seen.error.message, _of_error(seen.error.mend))


def _of_error(mend: str) -> Mend:
    """Where the words name a playbook of ours, it can be typed as it stands."""
    mend = mend or "see what the host itself says: log in by hand"
    return Mend(mend, play="site") if "ansible-playbook site.yml" in mend else Mend(mend)


def check_all_told(case: Case) -> Iterator[Finding]:
    """Sections that could not be found out."""
    for seen in case.known:
        for section, why in (seen.facts.missing if seen.facts else {}).items():
            yield Finding(
                "not-known",
                WARNING,
                seen.name,
                f"{section} could not be found out: {why}",
                Mend("see what hangs there: a mount that does not answer, a full disk, a program that waits"),
            )


def check_one_machine(case: Case) -> Iterator[Finding]:
    """Two names for one machine."""
    first: dict[str, str] = {}
    for seen in case.known:
        identity = seen.facts.identity if seen.facts else None
        if identity is None or not identity.machine:
            continue
        if identity.machine in first:
            yield Finding(
                "one-machine",
                WARNING,
                seen.name,
                f"it is the same machine as {first[identity.machine]}, or a copy with the same"
                " /etc/machine-id",
                Mend(
                    "take one name out; on a copy: rm /etc/machine-id, then systemd-machine-id-setup, and"
                    " restart it"
                ),
            )
        else:
            first[identity.machine] = seen.name


# -- users --------------------------------------------------------------------------------------------


def check_users(case: Case) -> Iterator[Finding]:
    """The same user, with the same numbers, and a home to keep the server in."""
    here = case.here
    for seen in case.known:
        identity = seen.facts.identity if seen.facts else None
        if identity is None:
            continue
        if identity.uid != here.uid:
            yield Finding(
                "uid",
                FAULT,
                seen.name,
                f"the login there is {identity.user or '?'} with uid {identity.uid}; here you are {here.user}"
                f" with uid {here.uid}: what it makes would be somebody else's",
                Mend(
                    f"log in there as the user with uid {here.uid} (ansible_user, or User in ssh's"
                    " configuration);"
                    " where there is none, put yourself into d1fleet_builders and enrol the host",
                ),
            )
        elif identity.gid != here.gid:
            yield Finding(
                "gid",
                WARNING,
                seen.name,
                f"{identity.user}'s group there is {identity.group or '?'} ({identity.gid}), here it is"
                f" {here.gid}: what it makes belongs to another group",
                Mend(
                    f"give {identity.user} the group with the number {here.gid} there",
                    root=f"usermod --gid {here.gid} {here.user}" if identity.user == here.user else "",
                ),
            )
        if not identity.home_usable:
            yield Finding(
                "home",
                WARNING,
                seen.name,
                f"{identity.home} is no folder that {identity.user or identity.uid} can write to: no cache of"
                " the server's can be kept there",
                Mend("have it made for that user, or correct the user's entry in passwd"),
            )


# -- room -------------------------------------------------------------------------------------------------


def check_room(case: Case) -> Iterator[Finding]:
    """Disks and memory."""
    for seen in case.known:
        facts = seen.facts
        assert facts is not None
        disks = [*(facts.disk or ()), *(tree.disk for tree in facts.trees if tree and tree.disk)]
        told: set[tuple[int, int]] = set()
        for disk in disks:
            if (disk.free_bytes, disk.total_bytes) in told or not disk.total_bytes:
                continue  # the same file system again
            told.add((disk.free_bytes, disk.total_bytes))
            where = {"tree": "the tree", "cache": "the server's cache", "slots": "the folder of slots"}.get(
                disk.what, "temporary files"
            )
            mend = Mend("make room there")
            if len(disk.path) <= _LONGEST_PATH and disk.path.isprintable():
                du = f"du -xh --max-depth=1 {shlex.quote(disk.path)} | sort -h"
                mend = Mend(f"make room there: `{du}` shows what is large")
            if disk.free_bytes < min(DISK_WARN_BYTES, disk.total_bytes // 4):
                yield Finding(
                    "disk",
                    FAULT if disk.free_bytes < min(DISK_FAULT_BYTES, disk.total_bytes // 10) else WARNING,
                    seen.name,
                    f"{disk.path} ({where}) has {_mib(disk.free_bytes)} left",
                    mend,
                )
            if disk.total_files and disk.free_files < FILES_WARN_SHARE * disk.total_files:
                yield Finding(
                    "disk-files",
                    FAULT if not disk.free_files else WARNING,
                    seen.name,
                    f"{disk.path} ({where}) has room for {disk.free_files} more files",
                    mend,
                )
        memory = facts.memory
        if memory is not None and memory.available_bytes < MEMORY_WARN_BYTES:
            yield Finding(
                "memory",
                FAULT if memory.available_bytes < MEMORY_FAULT_BYTES else WARNING,
                seen.name,
                f"{_mib(memory.available_bytes)} of memory can be had there",
                Mend(
                    "see what takes it (`ps -eo rss,args --sort=-rss | head`), or give the host fewer"
                    " d1fleet_slots"
                ),
            )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"


# -- toolchains and versions --------------------------------------------------------------------------------


def check_toolchains(case: Case) -> Iterator[Finding]:
    """As a build judges them: by the project's record where there is one, else by each other."""
    judge = Toolchains(case.project)
    verdicts = {}
    known = [seen for seen in case.known if seen.facts and seen.facts.toolchain is not None]
    for seen in known:
        found = seen.facts.toolchain if seen.facts else None
        assert found is not None
        hello = Hello(
            toolchain=dict(found.parts),
            toolchain_places=dict(found.places),
            project_toolchain=dict(found.record),
            record_fault=found.record_fault,
            as_enrolled=found.as_enrolled,
        )
        verdicts[seen.name] = judge.judge(seen.name, seen.host.toolchain_mismatch, hello)
    judge.settle(len(case.hosts) == 1)
    verdicts |= judge.decided
    for name, verdict in verdicts.items():
        if verdict.reason:
            yield Finding("toolchain", FAULT, name, verdict.reason, Mend(verdict.mend))
        elif verdict.note:
            mend = Mend("install the same packages on all hosts; to enrol them does that", play="site")
            yield Finding("toolchain-differs", WARNING, name, verdict.note, mend)


def check_versions(case: Case) -> Iterator[Finding]:
    """make is new enough; and what hosts differ in."""
    makes: dict[str, tuple[int, int]] = {}
    for seen in case.known:
        versions = seen.facts.versions if seen.facts else None
        if versions is None:
            continue
        found = _MAKE.match(versions.make)
        if found is None or (int(found[1]), int(found[2])) < _OLDEST_MAKE:
            what = f"make there is {versions.make}" if versions.make else "there is no make in PATH there"
            yield Finding(
                "make",
                FAULT,
                seen.name,
                f"{what}; sub-makes want GNU make 4.2 or newer",
                Mend(
                    "install it, or have d1fleet_server_setup set its PATH",
                    root="apt-get update -q && apt-get install -y --reinstall make",
                ),
            )
        else:
            makes[seen.name] = int(found[1]), int(found[2])
    if len(set(makes.values())) > 1:
        usual = Counter(makes.values()).most_common(1)[0][0]
        for name, version in makes.items():
            if version != usual:
                yield Finding(
                    "make-differs",
                    WARNING,
                    name,
                    f"make there is {version[0]}.{version[1]}, most hosts have {usual[0]}.{usual[1]}",
                    Mend("bring all hosts to one version: makefiles can tell the difference"),
                )


CHECKS: tuple[tuple[str, Check], ...] = (
    ("logins and host keys", check_reached),
    ("", check_all_told),
    ("", check_one_machine),
    ("users and ids", check_users),
    ("trees", doctor_trees.check_trees),
    ("mounts", doctor_trees.check_mounts),
    ("clocks", doctor_trees.check_clocks),
    ("", doctor_trees.check_clock_here),
    ("disks and memory", check_room),
    ("toolchains", check_toolchains),
    ("versions", check_versions),
    ("d1make servers", doctor_enrolment.check_server),
    ("slots", doctor_enrolment.check_slots),
    ("drains", doctor_enrolment.check_drained),
    ("sshd's limits", doctor_enrolment.check_sshd),
    ("nice values", doctor_enrolment.check_nice),
)
"""What each is called where it is said what was checked; empty where that goes without saying."""
