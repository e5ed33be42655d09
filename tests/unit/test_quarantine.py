"""Hosts that have got several files wrong, and alone, are left out for a while, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from d1fleet import quarantine
from d1fleet.quarantine import FOR_S, MANY

FILES = [f"{number}.c" for number in range(MANY)]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def _at(now: float) -> dict[str, list[str]]:
    return quarantine.left_out(lambda: now)


def test_one_file_proves_nothing_and_several_do() -> None:
    assert _at(0.0) == {}
    for number, file in enumerate(FILES):
        assert _at(1000.0) == {}
        quarantine.add({"birch": [file]}, lambda number=number: 1000.0 + number)  # type: ignore[misc]
    assert _at(2000.0) == {"birch": FILES}
    assert _at(1000.0 + FOR_S + MANY) == {}
    quarantine.path().unlink()
    assert _at(2000.0) == {}


def test_files_that_several_hosts_get_wrong_speak_for_them() -> None:
    quarantine.add({"birch": FILES, "cedar": FILES[:1]}, lambda: 0.0)
    assert _at(1.0) == {}
    quarantine.add({"birch": ["more.c"]}, lambda: 0.0)
    assert _at(1.0) == {"birch": [*FILES[1:], "more.c"]}


def test_a_clock_that_was_wrong_keeps_nobody_out_for_years() -> None:
    quarantine.add({"birch": FILES}, lambda: 1e12)
    assert _at(2000.0) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"birch": 1}', '{"birch": {"x.c": "soon"}}'])
def test_a_file_that_makes_no_sense_keeps_nobody_out(text: str) -> None:
    quarantine.path().write_text(text)
    assert _at(0.0) == {}
    quarantine.add({"birch": FILES}, lambda: 0.0)
    assert set(_at(1.0)) == {"birch"}


def test_where_nothing_can_be_kept_nothing_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "state"))
    quarantine.add({"birch": FILES})
    assert quarantine.left_out() == {}
