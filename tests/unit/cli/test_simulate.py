"""`d1fleet simulate`: tables, JSON, and what cannot be simulated."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from d1fleet.cli.main import main
from d1fleet.errors import InventoryError, UsageError


def run(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["d1fleet", "simulate", *words])
    return main()


def _record(path: Path) -> str:
    lines = [
        {"event": "host-up", "host": "a", "slots": 2},
        *(
            {
                "event": "job", "job": number, "dir": f"/t/{number}", "argv": ["make", "all"], "host": "a",
                "asked_s": 10.0, "placed_s": 10.0, "waited_s": 0.0, "ran_s": 2.0,
            }
            for number in range(4)
        ),
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_recorded_build_on_another_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fleet = ["--hosts", "2", "--slots", "1", "--speeds", "1,3", "--others", "0", "--policy", "cost", "--json"]
    assert run([_record(tmp_path / "record"), *fleet], monkeypatch) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["jobs"] == 4 and found["slots"] == 2 and found["policy"] == "cost"
    # One on the slow host, three on the fast one.
    assert found["makespan_s"] == 2.0 and found["ratio"] == 1.0 and found["utilisation"] == 1.0


def test_made_up_builds_by_all_policies(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--hosts", "2", "--jobs-a-slot", "2", "--look-ahead", "1", "--no-history"]
    assert run(words, monkeypatch) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 + 6 * 3
    assert [line.split()[0] for line in lines[2::3]] == [
        "uniform", "heavy-tailed", "bimodal", "bursts", "layers", "tiny-and-huge",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines[2:5]] == ["cost", "d1make", "round-robin"]


def test_the_hosts_of_an_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    inventory = tmp_path / "hosts.yml"
    inventory.write_text('{"all": {"hosts": {"a": {"d1fleet_slots": 3}, "b": {}}}}')
    words = ["--inventory", str(inventory), "--family", "uniform", "--jobs-a-slot", "1"]
    assert run(words, monkeypatch) == 0
    assert "2 hosts with 7 slots" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--family", "royal"], "there is no family of builds called royal"),
        (["--policy", "luck"], "there is no policy luck"),
        (["--speeds", "1,x"], "'1,x' are not numbers by commas"),
        (["--slots", "0"], "'0': each has to be between 1 and 1024"),
        (["--speeds", "nan"], "'nan': each has to be between"),
        (["/does/not/exist"], "cannot be read"),
        (["--hosts", "3", "--inventory", "x"], "contradict each other"),
    ],
)
def test_what_cannot_be_used(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words, monkeypatch) == UsageError.exit_code
    told = capfd.readouterr().err
    assert said in told and "mend:" in told


@pytest.mark.parametrize("text", ["no JSON", "[1]\n", '{"event": "job"}\n', '{"event": "host-up"}\n', ""])
def test_what_is_no_record(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "record").write_text(text)
    assert run([str(tmp_path / "record")], monkeypatch) == UsageError.exit_code
    assert "record" in capfd.readouterr().err


def test_an_inventory_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["--inventory", "/does/not/exist"], monkeypatch) == InventoryError.exit_code
    capfd.readouterr()
