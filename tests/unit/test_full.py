"""The runner of `make test-full`: what it remembers, and what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import full

_PASSED = full.Result("passed", 3, 0, 1, 0.1, ("no sshd",))


def test_results_are_kept_for_the_same_version_only(tmp_path: Path) -> None:
    state = tmp_path / "state" / "full.json"
    full.save(state, "one", {"fuzz": _PASSED})
    kept = full.load(state, "one")
    assert kept["fuzz"].status == "passed" and list(kept["fuzz"].reasons) == ["no sshd"]
    assert full.load(state, "two") == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "one", "results": {"fuzz": {"x": 1}}}'])
def test_a_state_file_that_makes_no_sense_is_no_result(tmp_path: Path, text: str) -> None:
    state = tmp_path / "full.json"
    state.write_text(text)
    assert full.load(state, "one") == {}


def test_a_report_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase name="a"/><testcase name="b"><failure/></testcase><testcase name="c"><error/></testcase>'
        '<testcase name="d"><skipped message="no sshd"/></testcase><testcase name="e"/>'
        "</testsuite></testsuites>"
    )
    assert full.count(report) == (2, 2, 1, {"no sshd"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("def test_it(): pass", "passed"),
        ("def test_it(): assert 0", "failed"),
        ("import pytest\ndef test_it(): pytest.skip('no sshd')", "skipped"),
        ("", "no tests"),
        ("def test_it():\n    import subprocess\n    subprocess.run(['sleep', '300'])", "over 0.05 min"),
    ],
)
def test_a_part_ends_as_its_tests_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: str
) -> None:
    (tmp_path / "test_part.py").write_text(body)
    monkeypatch.setattr(full, "STATE", tmp_path / "cache" / "full.json")
    if status.startswith("over"):
        monkeypatch.setattr(full, "LIMIT_MIN", 0.05)
    result = full.run(
        full.Part("part", ("-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path / "test_part.py")))
    )
    assert result.status == status


def test_every_part_has_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = full.table({"fuzz": _PASSED}).splitlines()
    assert [line.split()[0] for line in lines[1 : len(full.PARTS) + 1]] == [part.name for part in full.PARTS]
    assert lines[-1] == "skipped in fuzz: no sshd"
