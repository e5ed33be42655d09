"""What enrolment has left on a host: believed when nobody but its owner can have written it, and whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d1fleet.server.enrolled import OWNER, RECORD, Enrolled, as_enrolled, enrolled

ME = os.geteuid()
PARTS = {"cc": "gcc 14 [cc1 1a2b]", "machine": "x86_64"}


def record(**projects: Any) -> dict[str, Any]:
    return {"version": 1, "projects": projects}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toolchain.json"


def read(path: Path, project: str = "demo") -> Enrolled:
    return enrolled(project, str(path), ME)


def test_where_it_is_and_whose() -> None:
    assert (RECORD, OWNER) == ("/etc/d1fleet/toolchain.json", 0)


def test_a_project(path: Path) -> None:
    tools = ["aarch64-linux-gnu-gcc", "/opt/cross/bin/arm-gcc"]
    path.write_text(json.dumps(record(demo={"parts": PARTS, "tools": tools}, other={"parts": {"cc": "x"}})))
    assert read(path) == Enrolled(PARTS, tuple(tools))
    assert read(path, "other") == Enrolled({"cc": "x"})
    assert read(path, "third") == Enrolled()
    assert read(path, "") == Enrolled()


def test_whether_it_has_what_it_had(tmp_path: Path) -> None:
    fact = tmp_path / "d1fleet.fact"

    def same(found: dict[str, str]) -> bool:
        return as_enrolled(found, str(fact), ME)

    assert not same(PARTS)
    # Tools of other projects of this host are in it, too.
    fact.write_text(json.dumps({"toolchain": {"parts": {**PARTS, "arm-gcc": "arm-gcc 14"}, "tools": []}}))
    assert same(PARTS)
    assert not same({**PARTS, "cc": "gcc 15 [cc1 3c4d]"})
    assert not same({**PARTS, "ld": "GNU ld 2.44"})
    assert not same({})
    fact.chmod(0o646)
    assert not same(PARTS)
    fact.chmod(0o644)
    for text in ("", "[]", "{}", '{"toolchain": 1}', '{"toolchain": {"parts": ["cc"]}}', "[" * 100_000):
        fact.write_text(text)
        assert not same(PARTS)


def test_no_record_is_no_fault(path: Path) -> None:
    assert read(path) == read(path / "below") == Enrolled()
    path.write_text(demo(parts={}))
    assert read(path) == Enrolled()


def test_without_a_project_nobody_looks(path: Path) -> None:
    path.write_text("broken")
    assert read(path, "") == Enrolled()


def demo(**project: Any) -> str:
    return json.dumps(record(demo={"parts": PARTS, **project}))


MALFORMED: dict[str, tuple[str, str]] = {
    "empty": ("", "not JSON"),
    "cut off": (demo()[:-3], "not JSON"),
    "deep": ("[" * 100_000, ""),
    "a list": ("[]", "no projects"),
    "no projects": ('{"version": 1}', "no projects"),
    "projects that are none": ('{"version": 1, "projects": []}', "no projects"),
    "no version": (json.dumps({"projects": {"demo": {"parts": PARTS}}}), "version 1"),
    "another version": (json.dumps({"version": 2, "projects": {"demo": {"parts": PARTS}}}), "version 1"),
    "a project that is none": (json.dumps(record(demo=[])), "no parts"),
    "no parts": (json.dumps(record(demo={})), "no parts"),
    "parts that are none": (demo(parts=["cc"]), "no mapping"),
    "a number": (demo(parts={"cc": 14}), "no text"),
    "long text": (demo(parts={"cc": "x" * 401}), "too long"),
    "long name": (demo(parts={"x" * 101: ""}), "too long"),
    "no name": (demo(parts={"": "x"}), "too long"),
    "control characters": (demo(parts={"cc": "\x1b[31m"}), "control characters"),
    "half a character": (demo(parts={"cc": "\ud800"}), "control characters"),
    "many parts": (demo(parts={str(number): "x" for number in range(65)}), "at most 64"),
    "tools that are none": (demo(tools="gcc"), "at most 32"),
    "many tools": (demo(tools=["gcc"] * 33), "at most 32"),
    "an option": (demo(tools=["--help"]), "neither a name nor"),
    "a relative path": (demo(tools=["../cc"]), "neither a name nor"),
    "a tool that is none": (demo(tools=[None]), "neither a name nor"),
    "long": (demo() + " " * (1 << 20), "longer than"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_not_believed(path: Path, case: str) -> None:
    text, words = MALFORMED[case]
    path.write_text(text)
    found = read(path)
    assert (found.parts, found.tools) == ({}, ())
    assert str(path) in found.fault and words in found.fault
    assert found.fault.isprintable()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


UNSAFE: dict[str, tuple[Callable[[Path], object], str]] = {
    "writable for all": (lambda path: path.chmod(0o646), "written by others (mode 0646)"),
    "writable for the group": (lambda path: path.chmod(0o664), "written by others (mode 0664)"),
    "a link": (lambda path: path.symlink_to(path.rename(path.with_name("real"))), "cannot be read"),
    "a fifo": (_fifo, "no file"),
    "a folder": (_folder, "no file"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", UNSAFE)
def test_what_others_could_have_written_is_not_believed(path: Path, case: str) -> None:
    change, words = UNSAFE[case]
    path.write_text(demo())
    assert read(path).parts
    change(path)
    found = read(path)
    assert not found.parts
    assert words in found.fault


def test_somebody_elses_record_is_not_believed(path: Path) -> None:
    path.write_text(demo())
    found = enrolled("demo", str(path), ME + 1)
    assert not found.parts
    assert f"belongs to uid {ME}, not to {ME + 1}" in found.fault


@pytest.mark.skipif(ME == 0, reason="root may read everything")
def test_a_record_that_cannot_be_read(path: Path) -> None:
    path.write_text(demo())
    path.chmod(0)
    assert "cannot be read" in read(path).fault
