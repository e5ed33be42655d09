"""The tree's own clock, and nothing left in the tree."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from d1fleet import treeclock
from d1fleet.treeclock import TreeClock


@pytest.mark.parametrize("named", [False, True])
def test_files_are_not_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    real = os.open
    monkeypatch.setattr(treeclock, "_AGAIN_S", 0.0)

    def without(path: bytes, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, mode)

    if named:
        monkeypatch.setattr(os, "open", without)
    clock = TreeClock(os.fsencode(tmp_path))
    for number in range(20):
        before = clock.now_ns()
        (tmp_path / str(number)).touch()
        assert before <= (tmp_path / str(number)).stat().st_mtime_ns <= clock.now_ns()
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_time_that_costs_a_name_is_used_for_a_while(tmp_path: Path) -> None:
    clock = TreeClock(os.fsencode(tmp_path))
    clock._named = True
    first = clock.now_ns()
    assert clock.now_ns() == first
    clock._asked -= 1
    while clock.now_ns() == first:
        clock._asked -= 1
    assert clock.now_ns() > first


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        TreeClock(os.fsencode(tmp_path / "gone")).now_ns()
