"""A doctor's judgement: healthy hosts are silent, and each thing that is changed is named, alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from d1fleet.doctor_case import Case
from d1fleet.doctor_distcc import MOST_MARKS
from d1fleet.doctor_facts import (
    Backoff,
    Canary,
    Drained,
    Fresh,
    Log,
    Memory,
    Mount,
    Server,
    Slots,
    Sshd,
    SshdSetting,
    TimeServices,
    Tree,
    Try,
)  # fmt: skip
from d1fleet.doctor_talks import Clock
from d1fleet.errors import ConnectError, D1fleetError, HostError, HostKeyError, LoginError, ServerStartError
from tests.support.patients import (
    DROP_IN,
    GIB,
    NAMES,
    PARTS,
    UNITS,
    address,
    canary,
    change,
    disk,
    found,
    hosts_file,
    project,
    texts,
)  # fmt: skip

Change = Callable[[Case], object]


def test_healthy_hosts_are_silent() -> None:
    assert found(project()) == []


def error_of(error: D1fleetError) -> Change:
    def apply(case: Case) -> None:
        seen = case.hosts[1]
        seen.error, seen.facts, seen.canaries = error, None, {}
        for other in case.hosts:
            other.canaries.pop("birch", None)

    return apply


def facts(**sections: object) -> Change:
    return lambda case: change(case, "birch", **sections)


def tree(**fields: object) -> Change:
    def apply(case: Case) -> None:
        seen = case.hosts[1]
        assert seen.facts is not None
        known = seen.facts.trees[0]
        assert known is not None
        change(case, "birch", trees=(replace(known, **fields),))  # type: ignore[arg-type]

    return apply


def mount(kind: str, options: str) -> Change:
    return tree(mount=Mount("/home", kind, "server:/home", options))


def fresh(made_s: float | None, grown_s: float | None) -> Change:
    return lambda case: case.hosts[1].fresh.update({0: Fresh(made_s, grown_s)})


def clock(offset_s: float, within_s: float = 0.01) -> Change:
    return lambda case: setattr(case.hosts[1], "clock", Clock(offset_s, within_s))


def sshd(*settings: tuple[str, str, str]) -> Change:
    lines = tuple(SshdSetting(keyword, value, path, 7) for keyword, value, path in settings)
    return facts(sshd=Sshd(lines, ()))


def units(**states: dict[str, str]) -> Change:
    names = {
        "server": "d1fleet-distcc.service",
        "guard": "d1fleet-distcc-guard.service",
        "vendors": "distcc.service",
    }
    changed = {names[name]: {**UNITS[names[name]], **state} for name, state in states.items()}
    return facts(distcc={"units": {**UNITS, **changed}})


def text(old: str, new: str) -> Change:
    """Of birch's hosts file."""
    changed = hosts_file("birch").replace(old, new)
    assert changed != hosts_file("birch")
    return facts(distcc={"text": changed})


def from_alder(answer: object) -> Change:
    """What alder's compilation on birch has come to."""

    def apply(case: Case) -> None:
        case.hosts[0].canaries["birch"] = answer  # type: ignore[assignment]

    return apply


def around(*words: str) -> Change:
    """What a shell on birch says to whoever listens."""

    def apply(case: Case) -> None:
        said = "\n".join(f"d1fleet-canary: {word}" for word in (*words, "done"))
        for seen in case.hosts:
            if "birch" in seen.canaries:
                seen.canaries["birch"] = replace(canary(), around=said)

    return apply


def failed(compiler: str = "cc", log: str = "", status: int = 116, same: bool | None = None) -> Canary:
    return Canary("", (Try(compiler, status, 0.1, "", log, same),), "")


def also(*changes: Change) -> Change:
    def apply(case: Case) -> None:
        for each in changes:
            each(case)

    return apply


F, W, N = "fault", "warning", "note"

MARK = "/h/.distcc/lock/backoff_x"

ONE: list[tuple[str, Change, str, str]] = [
    # kind, what is changed of birch, severity, a part of the text
    ("unreachable", error_of(ConnectError("no answer in time", "is it up?")), F, "no answer in time"),
    ("host-key", error_of(HostKeyError("the host key is not known here")), F, "not known"),
    ("login", error_of(LoginError("does not let you in")), F, "let you in"),
    ("server-start", error_of(ServerStartError("there is no python3 on the host")), F, "python3"),
    ("silent", error_of(HostError("the connection ended")), F, "ended"),
    ("not-known", facts(missing={"memory": "it took longer than 14 s"}, memory=None), W, "memory could"),
    ("one-machine", facts(identity={"machine": "id of alder"}), W, "same machine as alder"),
    ("uid", facts(identity={"uid": 3003, "user": "eve"}), F, "eve with uid 3003; here you are you"),
    ("gid", facts(identity={"gid": 100, "group": "users"}), W, "users (100), here it is 2001"),
    ("home", facts(identity={"home_usable": False}), W, "/home/you is no folder"),
    ("tree", tree(difference="/home/you/project does not exist on this host"), F, "does not exist"),
    ("tree-write", tree(write_fault="Permission denied"), F, "Permission denied"),
    ("tree-stale", fresh(1.2, 0.0), W, "a new file 1.2 s late"),
    ("tree-stale", fresh(0.0, 4.0), F, "that a file has grown 4.0 s late"),
    ("tree-stale", fresh(None, 0.0), F, "a new file not within"),
    ("mount-noexec", mount("ext4", "rw,noexec"), F, "noexec"),
    ("mount-soft", mount("nfs4", "rw,soft,noac"), F, "soft mount"),
    ("mount-soft", mount("cifs", "rw,soft"), F, "soft mount"),
    ("mount-lookupcache", mount("nfs", "rw,hard,acregmax=3,acdirmax=3"), W, "lookupcache=all"),
    ("mount-attributes", mount("nfs4", "rw,lookupcache=none"), W, "up to 60 s"),
    ("mount-attributes", mount("nfs4", "rw,lookupcache=pos,acregmax=3,acdirmax=30"), W, "up to 30 s"),
    ("clock", clock(0.7), W, "0.7 s ahead of this machine's"),
    ("clock", clock(-2.5), F, "2.5 s behind"),
    ("clock-tree", tree(clock_s=1.5), W, "1.5 s ahead of the time stamps in /home/you/project"),
    ("disk", facts(disk=(disk("/tmp", free_bytes=500 << 20),)), W, "/tmp (temporary files) has 500 MiB"),
    ("disk", facts(disk=(disk("cache", free_bytes=10 << 20),)), F, "the server's cache"),
    ("disk-files", facts(disk=(disk("slots", "/run", free_files=3),)), W, "room for 3 more files"),
    ("memory", facts(memory=Memory(300 << 20, GIB)), W, "300 MiB"),
    ("memory", facts(memory=Memory(50 << 20, GIB)), F, "50 MiB"),
    ("toolchain", facts(toolchain={"parts": {**PARTS, "cc": "cc 13"}}), F, "cc: cc 13"),
    ("toolchain", facts(toolchain={"record_fault": "it is no file"}), F, "not believed"),
    ("make", facts(versions={"make": ""}), F, "no make in PATH"),
    ("make", facts(versions={"make": "GNU Make 3.81"}), F, "GNU Make 3.81"),
    ("make-differs", facts(versions={"make": "GNU Make 4.4.1"}), W, "4.4, most hosts have 4.3"),
    ("server-unusable", facts(server=Server(False, True, 1, True)), W, "does not take it"),
    ("server-old", facts(server=Server(False, False, 1, True)), W, "another version"),
    ("server-not-installed", facts(server=Server(False, False, 0, False)), N, "no server is installed"),
    ("slots-per-user", facts(slots=Slots("/run/user/2001/d1fleet", False, False)), W, "do not share"),
    ("drained", facts(drain=Drained(True, "new kernel", True)), W, "everybody's builds: new kernel"),
    ("drained", facts(drain=Drained(True, "", False)), W, "your builds: no reason"),
    ("sshd-limits", sshd(("maxstartups", "3:30:10", "/etc/ssh/sshd_config")), W, "MaxStartups 3:30:10"),
    (
        "sshd-limits",
        sshd(("maxsessions", "1", "/etc/ssh/sshd_config.d/0.conf"), ("maxsessions", "64", DROP_IN)),
        W,
        "MaxSessions 1 (/etc/ssh/sshd_config.d/0.conf, line 7), in place of 64",
    ),
    ("nice", facts(identity={"nice": 15}), W, "nice 15"),
    # distcc
    ("distcc-not-enrolled", units(server={"LoadState": "not-found"}), W, "no compile server of ours"),
    ("distcc-down", units(server={"ActiveState": "failed", "Result": "exit-code"}), F, "failed, exit-code"),
    ("distcc-down", units(guard={"ActiveState": "inactive"}), F, "guard.service is inactive"),
    ("distcc-vendor", units(vendors={"LoadState": "loaded"}), W, "is not masked"),
    ("distcc-vendor", units(vendors={"LoadState": "loaded", "ActiveState": "active"}), F, "is running"),
    ("distcc-missing", facts(versions={"distcc": ""}), F, "not installed"),
    ("hosts-file-missing", facts(distcc={"text": ""}), F, "is not there"),
    ("hosts-file-missing", facts(distcc={"text": "", "file_fault": "Permission denied"}), F, "Permission"),
    ("hosts-file-bad", text("localhost/4", "localhost/4 what?"), F, "'what?'"),
    ("hosts-file-unknown", text("# alder\n", "# alder\n192.0.2.99/4,lzo  # eve\n"), F, "names eve"),
    ("hosts-file-lacks", text(f"{address('cedar')}/4,lzo  # cedar", ""), W, "does not name cedar"),
    ("hosts-file-old", text(f"{address('cedar')}/4", f"{address('cedar')}/9"), W, "cedar slots 9, it is 4"),
    ("hosts-file-old", text(f"{address('cedar')}/4", f"{address('cedar')}:99/4"), W, "cedar port 99"),
    ("hosts-file-address", text(address("cedar"), "192.0.2.77"), F, "192.0.2.77 for cedar"),
    ("hosts-file-own", facts(distcc={"own_file": "/home/you/.distcc/hosts"}), W, ".distcc/hosts"),
    (
        "hosts-file-default",
        facts(distcc={"default": "# role d1.fleet.distcc_hosts\nlocalhost/4 what?\n"}),
        W,
        "'what?'",
    ),
    ("distcc-backoff", facts(distcc={"backoff": (Backoff(MARK, 5.0),)}), W, "60 s"),
    ("distcc-backoff", facts(distcc={"backoff": (Backoff(MARK, -99.0),)}), W, "future"),
    ("distcc-backoff", facts(distcc={"backoff": (Backoff(MARK, 900.0),)}), N, "left over"),
    ("canary-connect", from_alder(Canary("no answer within 2 s", (), "")), F, "alder cannot compile there"),
    ("canary-connect", from_alder(Canary("Connection refused", (), "")), F, "no compile server listens"),
    (
        "canary-failed",
        also(facts(distcc={"masquerade": ("gcc",)}), from_alder(failed())),
        F,
        "cc: its server has no cc in /usr/lib/distcc",
    ),
    (
        "canary-failed",
        also(
            from_alder(failed(log="distcc[7] (dcc_x) ERROR: server provided no answer. Is it ...")),
            lambda case: setattr(case.hosts[1], "log", Log(True, ("distccd[9] (dcc_y) ERROR: denied",))),
        ),
        F,
        "has not that compiler; its log tells; its log: (dcc_y) ERROR: denied",
    ),
    (
        "canary-failed",
        from_alder(failed(log="distcc[7] exec on 192.0.2.11/4: arm-gcc -c\ndistcc[7] exec on localhost: x")),
        F,
        "cc: its server has no arm-gcc in",
    ),
    ("canary-failed", from_alder(failed(status=124)), F, "no end within its time"),
    ("canary-differs", from_alder(failed(status=0, same=False)), F, "the object is another"),
    ("canary-unknown", from_alder(HostError("no answer within 13 s")), W, "no answer within"),
    ("canary-unknown", from_alder(replace(failed(), tries=(
        Try("cc", 116, 0.1, "you@192.0.2.11: Permission denied (publickey).", "", None),))), W, "has no key"),
    ("distcc-sandbox", around("nice 10", "sees /home", "reaches 127.0.0.1:3632"), F, "read /home, connect"),
    ("distcc-sees-tree", around("nice 10", "sees /home/you/project"), W, "can read /home/you/project"),
    ("distcc-nice", around("nice 0"), W, "at nice 0 there, d1fleet_nice is 10"),
]  # fmt: skip


@pytest.mark.parametrize(("id_", "apply", "severity", "says"), ONE)
def test_one_thing_is_named_alone(id_: str, apply: Change, severity: str, says: str) -> None:
    case = project()
    apply(case)
    assert found(case) == [(id_, severity, "birch")]
    (finding,) = texts(case, id_)
    assert says in finding.what
    assert finding.mend.words


def test_every_kind_is_tried() -> None:
    """Those that are about this machine, or need all hosts, have tests of their own."""
    import inspect
    import re

    from d1fleet import doctor_checks, doctor_distcc, doctor_enrolment, doctor_trees

    source = "".join(map(inspect.getsource, (doctor_checks, doctor_distcc, doctor_enrolment, doctor_trees)))
    kinds = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source)) | set(
        re.findall(r'yield "([a-z-]+)"', source)
    )
    assert kinds - {id_ for id_, *_ in ONE} == {"clock-here", "toolchain-differs"}


@pytest.mark.parametrize(
    "apply",
    [
        clock(0.8, within_s=0.5),  # a slow answer proves nothing
        clock(-0.4),
        mount("nfs4", "rw,noac"),
        mount("fuse.sshfs", "rw"),
        fresh(0.4, 0.4),
        facts(identity={"nice": 10}),
        also(facts(identity={"nice": 15, "nice_of_all": 10}), around("nice 20")),
        around("nice 10"),
        sshd(("maxstartups", "10:30:100", "/etc/ssh/sshd_config")),
        units(vendors={"LoadState": "not-found"}),
        facts(versions={"python": "3.13.1"}),
    ],
)
def test_what_is_no_finding(apply: Change) -> None:
    case = project()
    apply(case)
    assert found(case) == []


def test_this_machines_clock() -> None:
    case = project()
    case.here = replace(case.here, clocks_s=(-3.0,))
    assert found(case) == [("clock-here", "fault", "")]
    assert "3.0 s behind" in texts(case, "clock-here")[0].what


def test_hosts_without_records_are_compared() -> None:
    case = project()
    for name in NAMES:
        change(case, name, toolchain={"record": {}})
    change(case, "cedar", toolchain={"parts": {**PARTS, "cc": "cc 13"}})
    assert found(case) == [("toolchain-differs", "warning", "cedar")]


def test_a_host_that_serves_nobody_is_not_asked_for() -> None:
    case = project()
    case.variables["birch"]["d1fleet_distcc"] = False  # type: ignore[index]
    units(server={"LoadState": "not-found"}, guard={"LoadState": "not-found"})(case)
    for name in ("alder", "cedar"):
        without = hosts_file(name).replace(f"{address('birch')}/4,lzo", "#")
        change(case, name, distcc={"text": without})
        case.named(name).canaries.pop("birch")  # type: ignore[union-attr]
    assert found(case) == []


def test_without_distcc_nothing_is_said_of_it() -> None:
    case = project()
    nothing = {name: {"LoadState": "not-found", "ActiveState": "inactive"} for name in UNITS}
    for name in NAMES:
        change(case, name, distcc={"text": "", "default": "", "units": nothing}, versions={"distcc": ""})
        case.named(name).canaries.clear()  # type: ignore[union-attr]
    assert found(case) == []


def test_a_reason_that_others_share_is_told_once() -> None:
    case = project()
    for name in ("alder", "cedar"):
        case.named(name).canaries["birch"] = Canary("no answer within 2 s", (), "")  # type: ignore[union-attr]
    (finding,) = texts(case, "canary-connect")
    assert finding.what.startswith("alder, cedar cannot compile there")


EVIL = "/etc/passwd; reboot"


@pytest.mark.parametrize(
    ("id_", "apply"),
    [
        ("gid", facts(identity={"gid": 0, "user": EVIL})),
        ("tree-write", tree(write_fault="Read-only", mount=Mount("/etc", "ext4", "", "ro"))),
        ("mount-noexec", tree(mount=Mount("/etc", "ext4", "", "noexec"))),
        ("sshd-limits", sshd(("maxsessions", "0", EVIL))),
        ("sshd-limits", sshd(("maxsessions", "0", "/etc/ssh/../passwd"))),
        ("hosts-file-own", facts(distcc={"own_file": EVIL})),
        ("distcc-backoff", facts(distcc={"backoff": (Backoff(EVIL, -9.0),)})),
    ],
)
def test_a_host_does_not_choose_what_root_is_told_to_do(id_: str, apply: Change) -> None:
    """What its user's server says goes into commands only where it is what it should be."""
    case = project()
    apply(case)
    (finding,) = texts(case, id_)
    assert finding.mend.root == ""


def test_a_time_service_is_one_that_is_known() -> None:
    case = project()
    also(clock(5.0), facts(time=TimeServices(("x;reboot.service",), ("x;reboot.service",))))(case)
    (finding,) = texts(case, "clock")
    assert finding.mend.root == "apt-get install -y chrony"


def test_trees_are_typed() -> None:
    assert isinstance(project().hosts[0].facts.trees[0], Tree)  # type: ignore[union-attr]


def marks(folder: Path, count: int) -> list[Backoff]:
    """distcc's marks of peers, there; their time stamps are of the future."""
    lock = folder / ".distcc" / "lock"
    lock.mkdir(parents=True)
    paths = [lock / f"backoff_tcp_192.0.2.{number}_3632_0" for number in range(count)]
    for path in paths:
        path.touch()
    return [Backoff(str(path), -3600.0) for path in paths]


def type_as_root(case: Case) -> str:
    """The command of the finding about marks; returns the words with it."""
    (finding,) = texts(case, "distcc-backoff")
    subprocess.run(["sh", "-c", finding.mend.root], check=True, timeout=60)
    return str(finding.mend.words)


@pytest.mark.parametrize("count", [1, 7, MOST_MARKS])
def test_marks_are_removed_by_one_command(tmp_path: Path, count: int) -> None:
    there = marks(tmp_path, count)
    case = change(project(), "birch", distcc={"backoff": tuple(there)})
    assert "again" not in type_as_root(case)
    assert not [mark for mark in there if os.path.exists(mark.path)]


def test_of_many_marks_some_are_left_for_the_next_time(tmp_path: Path) -> None:
    there = marks(tmp_path, 3 * MOST_MARKS)
    # Those of no effect come last, wherever they stand.
    there[:MOST_MARKS] = [Backoff(mark.path, 900.0) for mark in there[:MOST_MARKS]]
    for left in (2, 1, 0):
        case = change(project(), "birch", distcc={"backoff": tuple(there)})
        (finding,) = texts(case, "distcc-backoff")
        assert f"and {len(there) - 3} more" in finding.what
        assert ("run doctor again for the rest" in type_as_root(case)) == (left > 0)
        there = [mark for mark in there if os.path.exists(mark.path)]
        assert len(there) == left * MOST_MARKS
        assert left != 1 or {mark.age_s for mark in there} == {900.0}


def test_no_mark_is_removed_behind_a_link(tmp_path: Path) -> None:
    there = marks(tmp_path, 2)
    (tmp_path / "link").symlink_to(tmp_path / ".distcc")
    led = Backoff(there[0].path.replace(".distcc", "link"), -9.0)
    type_as_root(change(project(), "birch", distcc={"backoff": (led, there[1])}))
    assert [os.path.exists(mark.path) for mark in there] == [True, False]


def test_a_path_that_is_too_long_is_not_named() -> None:
    long = f"/h/{'x' * 300}/lock/backoff_x"
    case = change(project(), "birch", distcc={"backoff": (Backoff(long, -9.0), Backoff(MARK, -9.0))})
    (finding,) = texts(case, "distcc-backoff")
    assert MARK in finding.mend.root and long not in finding.mend.root


def reason() -> str:
    """Why role distcc_hosts leaves a host with another compiler out, in its own words."""
    path = Path(__file__).resolve().parents[2] / "roles/fleet/files/fleet_report.py"
    spec = importlib.util.spec_from_file_location("fleet_report_of_doctor", path)
    assert spec is not None and spec.loader is not None
    report = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(report)
    finally:
        sys.dont_write_bytecode = written
        del sys.path[0]
    host = {"state": "done", "parts": {**PARTS, "cc": "cc 13"}, "record": {}}
    return str(report.differs(host, "demo", PARTS))


def left_out(case: Case, name: str, why: dict[str, str]) -> None:
    """A host's file as the role writes it: peers of `why` do not stand in it."""
    lines = [line for line in hosts_file(name).splitlines(True) if line.split("# ")[-1].strip() not in why]
    said = "".join(f"# left out: {each}: {text}\n" for each, text in why.items())
    change(case, name, distcc={"text": said + "".join(lines), "default": ""})
    for each in why:
        case.named(name).canaries.pop(each)  # type: ignore[union-attr]


def left_out_for_cedar(case: Case) -> None:
    """cedar has another compiler, the files say: its own leaves out everybody."""
    why = reason()
    for name in ("alder", "birch"):
        left_out(case, name, {"cedar": why})
    own = f"cedar is not as the project is: {why}"
    left_out(case, "cedar", {"alder": own, "birch": own})


def test_a_host_that_is_left_out_for_its_toolchain_is_one_fault() -> None:
    case = project()
    left_out_for_cedar(case)
    change(case, "cedar", toolchain={"parts": {**PARTS, "cc": "cc 13"}})
    assert found(case) == [("toolchain", "fault", "cedar")]


def test_a_host_that_is_left_out_and_says_nothing_now_is_one_fault() -> None:
    case = project()
    left_out_for_cedar(case)
    seen = case.hosts[2]
    seen.error, seen.facts, seen.canaries = ConnectError("no answer in time", "is it up?"), None, {}
    assert found(case) == [("unreachable", "fault", "cedar")]


def test_a_toolchain_that_is_no_reason_any_more() -> None:
    case = project()
    left_out_for_cedar(case)
    assert found(case) == [("hosts-file-lacks", "warning", name) for name in NAMES]
    for each in texts(case, "hosts-file-lacks"):
        assert "for a toolchain of cedar" in each.what and "cc 13" not in each.what
        # refresh.yml does not look at toolchains.
        assert each.mend.play == "site" and each.mend.everywhere


def test_another_reason_is_told_and_is_short() -> None:
    case = project()
    left_out(case, "birch", {"cedar": "nothing is known of it: it was not reached"})
    (finding,) = texts(case, "hosts-file-lacks")
    assert finding.what.endswith("as it says: nothing is known of it: it was not reached")
    assert finding.mend.play == "refresh"
    case = project()
    left_out(case, "birch", {"cedar": "x" * 900})
    (finding,) = texts(case, "hosts-file-lacks")
    assert len(finding.what) < 300


@pytest.mark.parametrize("path", ["/tmp; reboot", "/tmp\nreboot", "/" + "x" * 999])
def test_words_with_a_command_can_be_typed_as_well(path: str) -> None:
    case = change(project(), "birch", disk=(disk("/tmp", path, free_bytes=1 << 20),))
    (finding,) = texts(case, "disk")
    words = finding.mend.words.split("`")
    assert len(words) == 1 or words[1] == "du -xh --max-depth=1 '/tmp; reboot' | sort -h"
