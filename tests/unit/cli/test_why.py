"""Which records `d1fleet why` looks into, and what it prints and returns."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from d1fleet import records
from d1fleet.cli.main import main
from d1fleet.errors import NoRecordError, UsageError
from tests.unit.test_why import BEGIN, END, job, up


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    monkeypatch.chdir(tree)
    return tree


def keep(tree: Path, *jobs: object) -> Path:
    """Put a build on record."""
    file, name = records.begin(os.fsencode(tree), 10)
    with file:
        for event in ({**BEGIN, "folder": str(tree)}, up("alder", 0), *jobs, END):
            file.write(json.dumps(event) + "\n")
    return Path(name)


def ask(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["d1fleet", "why", *words])
    return main()


def test_the_last_build_and_those_before(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    keep(tree, job(1, "first"), job(2, "both"))
    keep(tree, job(1, "second"), job(2, "both"))
    assert ask(monkeypatch, "1") == 0
    assert capfd.readouterr().out.startswith("job 1: make second\n")
    assert ask(monkeypatch, "--build", "2", "1") == 0
    assert capfd.readouterr().out.startswith("job 1: make first\n")
    assert ask(monkeypatch, "both") == 0
    out = capfd.readouterr().out
    assert out.startswith("job 2: make both\n") and "Earlier builds have it too (1):" in out
    assert ask(monkeypatch) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["build", "1", "2"]
    assert ask(monkeypatch, "--build", "2") == 0
    assert [line.split()[:2] for line in capfd.readouterr().out.splitlines()[1:]] == [["2", "1"], ["2", "2"]]


def test_several_are_listed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    keep(tree, job(1, "-C", "a", "all"), job(2, "-C", "b", "all"))
    assert ask(monkeypatch, "all") == 0
    out = capfd.readouterr().out
    assert out.endswith("2 sub-makes match all; name one: d1fleet why --build N JOB\n")
    assert ask(monkeypatch, "--json", "all") == 0
    assert [each["job"] for each in json.loads(capfd.readouterr().out)["matches"]] == [1, 2]


def test_from_a_folder_below_and_from_a_file(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = keep(tree, job(3, "x"))
    monkeypatch.chdir(tree / "lib")
    assert ask(monkeypatch, "3", "--json") == 0
    assert json.loads(capfd.readouterr().out)["build"]["number"] == 1
    monkeypatch.chdir("/")
    assert ask(monkeypatch, "--record", str(path), "x", "--json") == 0
    assert json.loads(capfd.readouterr().out)["build"]["number"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["9"], "there is no sub-make 9 in the build of 2026-01-31T18:05:00+0100 in {tree}: it has 1 to 4"),
        (["nothing"], "no sub-make on record has nothing as a goal, folder or word"),
        (["--build", "2", "1"], "there are records of 1 builds here"),
        (["--record", "none", "1"], "the record none cannot be read"),
    ],
)
def test_what_is_not_on_record(
    tree: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    keep(tree, job(1), job(4))
    assert ask(monkeypatch, *words) == NoRecordError.exit_code
    out, err = capfd.readouterr()
    assert out == "" and said.format(tree=tree) in err and "  mend: " in err


def test_no_build_at_all(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, "1") == NoRecordError.exit_code
    assert f"there is no record of a build in {tree} or above it" in capfd.readouterr().err
    keep(tree)
    assert ask(monkeypatch, "1") == NoRecordError.exit_code
    assert "it had no sub-makes" in capfd.readouterr().err
    assert ask(monkeypatch, "--build", "0", "1") == UsageError.exit_code


def test_a_record_that_is_spoilt_is_passed_over(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    keep(tree, job(1, "first"))
    spoilt = keep(tree)
    spoilt.write_text("")
    assert ask(monkeypatch, "first") == 0
    out, err = capfd.readouterr()
    assert out.startswith("job 1: make first") and f"build 1 is passed over: {spoilt} is no record" in err
    assert ask(monkeypatch, "--build", "1") == NoRecordError.exit_code
