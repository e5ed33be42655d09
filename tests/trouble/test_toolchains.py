"""A host with another compiler: found out, said, written down, and the build goes on with the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from d1fleet.server.toolchain import describe, fingerprint

from .test_trouble import build, write

pytestmark = pytest.mark.timeout(120)

WAIT = (
    "trap 'exit 1' TERM; until test `grep -c '\"event\": \"host-' {record}` -ge {count}; do sleep 0.02; done"
)

_INTERPRETER = """#!{python} -ISE
import sys

class Before:
    def find_spec(self, name, path=None, target=None):
        if name == "d1fleet.server.main":
            from d1fleet.server import enrolled
            enrolled.RECORD, enrolled.FACT, enrolled.OWNER = {record!r}, {fact!r}, {owner}

sys.meta_path.insert(0, Before())
exec(sys.argv[-1])
"""
"""Stands for a host's python: its server finds the record of the test in place of the machine's."""


class Fleet:
    """Hosts on this machine over pipes, each with what it has of its own.

    Args:
        count: hosts; sub-makes begin when all have come up or were left out.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.record = folder / "record"
        self.hosts: dict[str, dict[str, Any]] = {}
        self.tree = write(
            folder,
            "all: one two three four\n"
            "one two three four: wait ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n"
            f"wait: ; @{WAIT.format(record=self.record, count=count)}\n",
        )

    def host(self, name: str, **variables: Any) -> None:
        self.hosts[name] = {"ansible_connection": "local", "d1fleet_slots": 2, **variables}

    def other_compiler(self) -> str:
        """A setup that puts another cc first in PATH."""
        folder = self.folder / "other"
        folder.mkdir(exist_ok=True)
        (folder / "cc").write_text('#!/bin/sh\ncase $1 in --version) echo "cc (Other 9) 9.9";; esac\n')
        (folder / "cc").chmod(0o755)
        return f"PATH={folder}:$PATH"

    def enrolled(
        self,
        name: str,
        parts: dict[str, str],
        tools: Sequence[str] = (),
        mode: int = 0o644,
        had: dict[str, str] | None = None,
    ) -> str:
        """An interpreter for a host with this record of the project, which `had` that when it was written."""
        fact = self.folder / f"{name}.fact"
        if had is not None:
            fact.write_text(json.dumps({"toolchain": {"parts": had}}))
        record = self.folder / f"{name}.json"
        record.write_text(
            json.dumps({"version": 1, "projects": {"demo": {"parts": parts, "tools": list(tools)}}})
        )
        record.chmod(mode)
        python = self.folder / f"{name}-python"
        python.write_text(
            _INTERPRETER.format(python=sys.executable, record=str(record), fact=str(fact), owner=os.geteuid())
        )
        python.chmod(0o755)
        return str(python)

    def build(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        inventory = self.folder / "hosts.yml"
        inventory.write_text(json.dumps({"projects": {"children": {"demo": {"hosts": self.hosts}}}}))
        end = build(self.tree, "--inventory", str(inventory), "--record", str(self.record), "-j4", *arguments)
        assert end.returncode == 0, end.stderr
        assert sorted(end.stdout.split("\n")) == ["", "made four", "made one", "made three", "made two"]
        return end

    def events(self, kind: str) -> dict[str, dict[str, Any]]:
        lines = map(json.loads, self.record.read_text().splitlines())
        return {line["host"]: line for line in lines if line["event"] == kind}

    def used(self) -> set[str]:
        lines = map(json.loads, self.record.read_text().splitlines())
        return {line["host"] for line in lines if line["event"] == "job"}


@pytest.fixture
def ours() -> dict[str, str]:
    """What this machine has."""
    return describe()


@pytest.fixture
def three(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, count=3)


def test_another_compiler_than_the_projects_is_left_out(three: Fleet, ours: dict[str, str]) -> None:
    python = three.enrolled("all", ours)
    three.host("alder", ansible_python_interpreter=python)
    three.host("birch", ansible_python_interpreter=python, d1fleet_server_setup=three.other_compiler())
    three.host("cedar", ansible_python_interpreter=python)
    end = three.build()
    lines = end.stderr.splitlines()
    assert len(lines) == 2, end.stderr
    version = ours["cc"].partition(" [")[0]
    assert lines[0] == (
        "d1fleet: host birch: its toolchain is not project demo's: cc: cc (Other 9) 9.9"
        f" at {three.folder}/other/cc, the project has {version}"
    )
    assert lines[1] == (
        "d1fleet:   mend: bring its packages, links and wrappers to what the other hosts have; after an"
        " upgrade of all hosts run site.yml again, so that the record is new; or set"
        " d1fleet_toolchain_mismatch: ignore"
    )
    assert three.used() <= {"alder", "cedar"}
    up, failed = three.events("host-up"), three.events("host-failed")
    assert {name: event["fingerprint"] for name, event in up.items()} == {
        name: fingerprint(ours) for name in ("alder", "cedar")
    }
    assert set(failed) == {"birch"}
    assert failed["birch"]["fingerprint"] not in ("", fingerprint(ours))
    assert failed["birch"]["reason"] in lines[0]


def test_hosts_that_were_upgraded_together_go_on(three: Fleet, ours: dict[str, str]) -> None:
    """As by a night's upgrades: the record is old, and what they make fits together."""
    python = three.enrolled("all", ours | {"cc": "cc of last week"})
    for name in ("alder", "birch", "cedar"):
        three.host(name, ansible_python_interpreter=python, d1fleet_max_jobs=2)
    end = three.build()
    (line,) = end.stderr.splitlines()
    assert "have the same toolchain, but their project's record has another: cc: cc (" in line
    assert line.endswith("the project has cc of last week; run site.yml again")
    assert set(three.events("host-up")) == {"alder", "birch", "cedar"}
    assert len(three.used()) > 1


def test_hosts_that_are_as_they_were_enrolled_were_not_upgraded(tmp_path: Path, ours: dict[str, str]) -> None:
    """As those of another release: that two of them agree, and come first, makes theirs not the project's."""
    fleet = Fleet(tmp_path, count=2)
    python = fleet.enrolled("all", ours | {"cc": "cc of another release"}, had=ours)
    for name in ("alder", "birch"):
        fleet.host(name, ansible_python_interpreter=python, d1fleet_server_setup="OTHERWISE=1")
    end = fleet.build()
    assert end.stderr.count("its toolchain is not project demo's: cc: ") == 2, end.stderr
    assert not fleet.used() & {"alder", "birch"}


def test_a_host_alone_goes_on(tmp_path: Path, ours: dict[str, str]) -> None:
    fleet = Fleet(tmp_path, count=1)
    fleet.host("alder", ansible_python_interpreter=fleet.enrolled("one", ours | {"cc": "cc of last week"}))
    # A fleet of this machine alone is not asked; one host that is set up otherwise is.
    fleet.hosts["alder"]["d1fleet_server_setup"] = "OTHERWISE=1"
    end = fleet.build()
    assert "it is alone and takes part; run site.yml again" in end.stderr
    assert fleet.used() == {"alder"}


def test_it_takes_part_where_that_is_wished(three: Fleet, ours: dict[str, str]) -> None:
    python = three.enrolled("all", ours)
    three.host("alder", ansible_python_interpreter=python)
    for name in ("birch", "cedar"):
        three.host(
            name,
            ansible_python_interpreter=python,
            d1fleet_server_setup=three.other_compiler(),
            d1fleet_toolchain_mismatch="ignore",
        )
    assert three.build().stderr == ""
    assert set(three.events("host-up")) == {"alder", "birch", "cedar"}


def test_records_that_differ(tmp_path: Path, ours: dict[str, str]) -> None:
    fleet = Fleet(tmp_path, count=2)
    fleet.host("alder", ansible_python_interpreter=fleet.enrolled("alder", ours))
    fleet.host("birch", ansible_python_interpreter=fleet.enrolled("birch", {**ours, "cc": "gcc 1"}))
    end = fleet.build()
    # Whichever came first.
    assert "its record of project demo's toolchain is another than" in end.stderr
    assert len(fleet.events("host-failed")) >= 1


def test_a_record_that_others_can_write(tmp_path: Path, ours: dict[str, str]) -> None:
    fleet = Fleet(tmp_path, count=2)
    fleet.host("alder", ansible_python_interpreter=fleet.enrolled("alder", ours))
    fleet.host("birch", ansible_python_interpreter=fleet.enrolled("birch", ours, mode=0o666))
    end = fleet.build()
    assert "host birch: its record of toolchains is not believed: " in end.stderr
    assert "birch.json: it can be written by others (mode 0666)" in end.stderr
    assert fleet.used() == {"alder"}


def test_a_record_that_comes_late(tmp_path: Path, ours: dict[str, str]) -> None:
    """alder, without a record, is at work when birch comes and says what the project has."""
    fleet = Fleet(tmp_path, count=1)
    started = tmp_path / "started"
    (fleet.tree / "sub.mk").write_text(
        f"%: ; @touch {started}; until grep -q host-up.*birch {fleet.record}; do sleep 0.02; done;"
        " echo made $@\n"
    )
    fleet.host("alder", d1fleet_server_setup=fleet.other_compiler(), d1fleet_slots=1)
    fleet.host(
        "birch",
        ansible_python_interpreter=fleet.enrolled("birch", ours),
        d1fleet_server_setup=f"until test -e {started}; do sleep 0.02; done;",
    )
    end = fleet.build()
    assert (
        "host alder gets no more sub-makes: its toolchain is not project demo's: cc: cc (Other" in end.stderr
    )
    assert set(fleet.events("host-drained")) == {"alder"}
    lines = map(json.loads, fleet.record.read_text().splitlines())
    where = [line["host"] for line in lines if line["event"] == "job"]
    assert sorted(where) == ["alder", "birch", "birch", "birch"]  # what it had begun it ended


def test_a_tool_of_the_project_that_a_host_lacks(tmp_path: Path, ours: dict[str, str]) -> None:
    fleet = Fleet(tmp_path, count=2)
    tools = ["no-such-tool", "sh"]
    record = describe(tools)
    fleet.host("alder", ansible_python_interpreter=fleet.enrolled("same", record, tools))
    fleet.host("birch", ansible_python_interpreter=fleet.enrolled("same", record, tools))
    assert fleet.build().stderr == ""
    record["no-such-tool"] = "tool 1.0"
    fleet.enrolled("same", record, tools)
    end = fleet.build()
    assert end.stderr.count("no-such-tool: none, the project has tool 1.0") == 2


def test_without_a_record_a_difference_is_said_once(three: Fleet, ours: dict[str, str]) -> None:
    three.host("alder")
    three.host("birch", d1fleet_server_setup=three.other_compiler())
    three.host("cedar")
    end = three.build()
    assert set(three.events("host-up")) == {"alder", "birch", "cedar"}
    # Whichever came first is what the others are compared with.
    said = end.stderr.splitlines()
    assert said and all(" its toolchain differs from " in line for line in said), end.stderr
    assert all(
        "cc (Other 9) 9.9" in line and line.endswith("; objects may not fit together") for line in said
    )
    assert ("host birch: its toolchain differs from" in end.stderr and len(said) == 1) or (
        len(said) == 2 and all("differs from birch's" in line for line in said)
    )


def test_hosts_that_cannot_differ_are_not_looked_at(three: Fleet) -> None:
    """They are this machine, so nobody pays for it."""
    for name in ("alder", "birch", "cedar"):
        three.host(name)
    assert three.build().stderr == ""
    assert {event["fingerprint"] for event in three.events("host-up").values()} == {""}
