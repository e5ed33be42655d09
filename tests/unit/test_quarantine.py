"""Hosts that have got something wrong are left out for a while, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from d1fleet import quarantine
from d1fleet.quarantine import FOR_S, Entry


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def _at(now: float) -> dict[str, Entry]:
    return quarantine.load(lambda: now)


def test_a_host_is_left_out_for_its_time() -> None:
    assert _at(0.0) == {}
    quarantine.add({"birch": "a.c"}, lambda: 1000.0)
    quarantine.add({"cedar": "b.c"}, lambda: 2000.0)
    assert _at(2000.0) == {"birch": Entry("a.c", 1000.0 + FOR_S), "cedar": Entry("b.c", 2000.0 + FOR_S)}
    assert set(_at(1500.0 + FOR_S)) == {"cedar"}
    quarantine.path().unlink()
    assert _at(2000.0) == {}


def test_a_clock_that_was_wrong_keeps_nobody_out_for_years() -> None:
    quarantine.add({"birch": "a.c"}, lambda: 1e12)
    assert _at(2000.0) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"birch": 1}', '{"birch": {"file": "x", "until": "soon"}}'])
def test_a_file_that_makes_no_sense_keeps_nobody_out(text: str) -> None:
    quarantine.path().write_text(text)
    assert _at(0.0) == {}
    quarantine.add({"birch": "a.c"}, lambda: 0.0)
    assert set(_at(1.0)) == {"birch"}
