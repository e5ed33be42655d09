"""A project of three healthy hosts, as a doctor has found them: tests of its judgement change one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from d1fleet import doctor_checks, doctor_distcc
from d1fleet.doctor_canaries import SIGN
from d1fleet.doctor_case import Case, Here, Seen
from d1fleet.doctor_facts import (
    Canary,
    Disk,
    Distcc,
    Drained,
    Facts,
    Fresh,
    Identity,
    Log,
    Memory,
    Mount,
    Server,
    Slots,
    Sshd,
    SshdSetting,
    TimeServices,
    Toolchain,
    Tree,
    Try,
    Versions,
)  # fmt: skip
from d1fleet.doctor_talks import Clock
from d1fleet.hostsfile import HostsFile, Peer
from d1fleet.model import Host

NAMES = ("alder", "birch", "cedar")
TREE = "/home/you/project"
PARTS = {"cc": "cc 12 [aa]", "c++": "c++ 12 [bb]", "libc": "2.36 [cc]"}
GIB = 1 << 30
DROP_IN = "/etc/ssh/sshd_config.d/10-d1fleet.conf"
UNITS = {
    "d1fleet-distcc.service": {"LoadState": "loaded", "ActiveState": "active", "Result": "success"},
    "d1fleet-distcc-guard.service": {"LoadState": "loaded", "ActiveState": "active", "Result": "success"},
    "distcc.service": {"LoadState": "masked", "ActiveState": "inactive", "Result": "success"},
}


def address(name: str) -> str:
    return f"192.0.2.{10 + NAMES.index(name)}"


def hosts_file(name: str) -> str:
    peers = [Peer(each, address(each), 4) for each in NAMES if each != name]
    return HostsFile(4, tuple(peers)).text(["written by Ansible, role d1.fleet.distcc_hosts"])


def canary() -> Canary:
    tries = tuple(Try(name, 0, 0.1, "", "", True) for name in ("cc", "c++"))
    return Canary("", tries, f"{SIGN} nice 10\n{SIGN} done")


def healthy(name: str) -> Seen:
    """One host of NAMES."""
    facts = Facts(
        identity=Identity(
            2001, 2001, "you", "you", "/home/you", True, name, f"id of {name}", (address(name),), 4, 0, 0
        ),
        versions=Versions("3.11.2", "GNU Make 4.3", "3.4"),
        server=Server(True, True, 1, True),
        slots=Slots("/run/d1fleet/slots", True, True),
        drain=Drained(False, "", False),
        memory=Memory(8 * GIB, 16 * GIB),
        sshd=Sshd(
            (
                SshdSetting("maxstartups", "64:30:256", DROP_IN, 3),
                SshdSetting("maxsessions", "64", DROP_IN, 4),
            ),
            (),
        ),
        time=TimeServices(("chrony.service",), ("chrony.service",)),
        toolchain=Toolchain(PARTS, {}, PARTS, "", True, ()),
        distcc=Distcc(
            "/etc/d1fleet/hosts/demo",
            hosts_file(name),
            "",
            hosts_file(name),
            "",
            (),
            ("cc", "c++", "gcc"),
            UNITS,
        ),
        disk=(disk("/tmp"), disk("cache", "/home/you/.cache")),
        trees=(
            Tree(
                "",
                Mount("/home", "nfs4", "server:/home", "rw,hard,lookupcache=pos,acregmax=1,acdirmax=1"),
                "",
                0.0,
            ),
        ),
    )
    seen = Seen(Host(name), transport="paramiko", clock=Clock(0.01, 0.002), facts=facts)
    seen.fresh = {0: Fresh(0.0, 0.05)}
    seen.canaries = {each: canary() for each in NAMES if each != name}
    seen.log = Log(True, ())
    return seen


def disk(what: str, path: str = "/tmp", free_bytes: int = 50 * GIB, free_files: int = 10**6) -> Disk:
    return Disk(what, path, free_bytes, 100 * GIB, free_files, 2 * 10**6)


def project() -> Case:
    """All of them, and a machine of the same user."""
    here = Here(2001, 2001, "you", (TREE,), (0.0,))
    return Case("demo", here, [healthy(name) for name in NAMES], {name: {} for name in NAMES})


def change(case: Case, name: str, **sections: Any) -> Case:
    """Other facts of one host; a section given as a dictionary changes fields of it."""
    seen = case.named(name)
    assert seen is not None and seen.facts is not None
    changed = {
        key: replace(getattr(seen.facts, key), **value)
        if isinstance(value, dict) and key != "missing"
        else value
        for key, value in sections.items()
    }
    seen.facts = replace(seen.facts, **changed)
    return case


def found(case: Case) -> list[tuple[str, str, str]]:
    """(kind, severity, host) of all that is found."""
    return [
        (each.id, each.severity, each.host)
        for _, check in (*doctor_checks.CHECKS, *doctor_distcc.CHECKS)
        for each in check(case)
    ]


def texts(case: Case, id_: str) -> list[Any]:
    """The findings of one kind."""
    return [
        each
        for _, check in (*doctor_checks.CHECKS, *doctor_distcc.CHECKS)
        for each in check(case)
        if each.id == id_
    ]
