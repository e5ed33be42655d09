"""The table itself is under test here: each thing that d1fleet could do wrong has to make a row fail."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from . import running
from .conftest import Stage
from .judge import check_places, check_plain, compare, read_record
from .rows import PROGRAM, File, Row, RowError, load, make_row

FAKE = Path(__file__).with_name("fake.py")

MAKEFILE = "all: ; @echo out 1; echo err >&2; echo out 2; echo made > made; ln -s made link\n"

DATA: dict[str, Any] = {
    "name": "sample",
    "files": {"Makefile": MAKEFILE},
    "run": [],
    "dispatch": 1,
    "shows": ["out 2"],
}


def faults_of(stage: Stage, fault: str, **changes: Any) -> list[str]:
    """What the table says of a d1fleet with this fault."""
    row = make_row({**DATA, **changes}, {})
    record = stage.folder / "fake-record"
    plain = stage.run(row, lambda _: ["make"])
    assert check_plain(row, plain) == []
    other = stage.run(row, lambda _: [sys.executable, str(FAKE), fault, str(record)])
    return compare(row, plain, other) + check_places(row, read_record(record))


def test_no_fault(stage: Stage) -> None:
    assert faults_of(stage, "none") == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("streams swapped", "stderr differs"),
        ("a blank more", "stdout differs"),
        ("a line missing", "stdout differs"),
        ("lines in another order", "stdout differs"),
        ("a line of its own", "stderr differs"),
        ("another exit status", "exit: 0 under plain make, 1 here"),
        ("killed", "exit: 0 under plain make, -15 here"),
        ("a file more", "'left': not there"),
        ("a file less", "'made': missing"),
        ("other contents", "'made': b'made"),
        ("another mode", "'made': file 644, here file 600"),
        ("a file in place of a link", "'link': link"),
        ("nothing dispatched", "0 sub-makes ran on a server"),
        ("stayed here", "1 sub-makes stayed here"),
        ("lost", "1 sub-makes were lost"),
    ],
)
def test_a_fault_is_noticed(fault: str, said: str, stage: Stage) -> None:
    assert said in "\n".join(faults_of(stage, fault))


def test_output_held_open_is_noticed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "DRAIN_S", 0.2)
    row = make_row(DATA, {})
    left = {**row.tree, b"hold": File(fifo=True)}
    holding = replace(row, tree=left, run=None, script=f"{PROGRAM}; cat hold &".encode())
    result = stage.run(holding, lambda _: ["make"])
    (stage.folder / "tree" / "hold").write_bytes(b"")  # the cat ends
    assert result.held
    assert "its output was still open after its end" in compare(row, replace(result, held=False), result)


def test_a_run_that_does_not_end_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LIMIT_S", 0.2)
    row = make_row(
        {**DATA, "files": {"Makefile": "all: ; @echo so far; cat hold\n", "hold": {"fifo": True}}}, {}
    )
    with pytest.raises(running.Stuck, match="so far"):
        stage.run(row, lambda _: ["make"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exit": 2}, "ends with 0, the row says 2"),
        ({"shows": ["out 3"]}, "does not show b'out 3'"),
    ],
)
def test_a_row_that_shows_nothing_is_noticed(changes: dict[str, Any], said: str, stage: Stage) -> None:
    row = make_row({**DATA, **changes}, {})
    assert said in "\n".join(check_plain(row, stage.run(row, lambda _: ["make"])))


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("lines in another order", {"unordered": True}),
        ("a line of its own", {"ours": True}),
        ("streams swapped", {"drop": "out|err"}),
        ("nothing dispatched", {"dispatch": 0}),
        ("stayed here", {"stays": 1}),
    ],
)
def test_what_a_row_leaves_free(fault: str, changes: dict[str, Any], stage: Stage) -> None:
    assert faults_of(stage, fault, **changes) == []


def test_a_server_that_runs_what_must_stay_is_noticed(stage: Stage) -> None:
    faults = faults_of(stage, "none", dispatch=0, stays=1)
    assert "1 sub-makes ran on a server, the row says 0" in faults
    assert "0 sub-makes stayed here, the row says 1" in faults


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "No such name"},
        {"exits": 2},
        {"script": "@MAKE@"},
        {"run": None, "script": "make"},
        {"dispatch": None},
        {"terminal": "yes"},
        {"files": {"x": {"contents": "misspelt"}}},
        {"files": {"x": 1.5}},
        {"tree": "unknown"},
    ],
)
def test_a_malformed_row_is_an_error(changes: dict[str, Any]) -> None:
    data = {name: value for name, value in {**DATA, **changes}.items() if value is not None}
    with pytest.raises(RowError):
        make_row(data, {})


def test_two_rows_of_one_name_are_an_error(tmp_path: Path) -> None:
    row = "- {name: a, files: {Makefile: ''}, run: [], dispatch: 0}\n"
    (tmp_path / "rows.yaml").write_text("rows:\n" + row + row)
    with pytest.raises(RowError, match="two rows"):
        load(tmp_path)


def test_bytes_of_any_kind_in_a_row() -> None:
    row: Row = make_row(
        {**DATA, "files": {"caf\udce9": {"repeat": "x", "times": 3}}, "env": {"V[2]": "v"}}, {}
    )
    assert row.tree[b"caf\xe9"].content == b"xxx"
    assert row.env == {b"V0": b"v", b"V1": b"v"}
