"""Which records are kept, and for how long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d1fleet import records
from d1fleet.errors import RuntimeFolderError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    clock = iter(range(1_700_000_000, 1_800_000_000))
    monkeypatch.setattr("d1fleet.records.time.time_ns", lambda: next(clock) * 10**9)
    return tmp_path / "state" / "d1fleet" / "records"


def keep(folder: bytes, most: int = 10, size: int = 3) -> Path:
    file, name = records.begin(folder, most)
    with file:
        file.write("x" * size)
    return Path(name)


def test_the_newest_comes_first_and_the_last_few_stay() -> None:
    made = [keep(b"/a", 3) for _ in range(5)]
    assert records.of_tree(b"/a") == made[:1:-1]
    assert [path.exists() for path in made] == [False, False, True, True, True]


def test_trees_do_not_push_each_other_out() -> None:
    one = keep(b"/a", 2)
    for _ in range(5):
        keep(b"/b", 2)
    assert records.of_tree(b"/a") == [one]
    assert len(records.of_tree(b"/b")) == 2


def test_folder_and_files_are_the_users_alone(state: Path) -> None:
    old = os.umask(0)
    try:
        path = keep(b"/a")
    finally:
        os.umask(old)
    assert [place.stat().st_mode & 0o777 for place in (state.parent, state, path)] == [0o700, 0o700, 0o600]


def test_a_folder_below_finds_the_builds_above(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib" / "deep").mkdir(parents=True)
    above = keep(os.fsencode(tree))
    assert records.of_tree(os.fsencode(tree / "lib" / "deep")) == [above]
    below = keep(os.fsencode(tree / "lib"))
    assert records.of_tree(os.fsencode(tree / "lib" / "deep")) == [below]
    assert records.of_tree(os.fsencode(tmp_path)) == []


def test_all_together_are_bounded_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    first, second, third = (keep(tree, size=40) for tree in (b"/z", b"/a", b"/m"))
    assert first.exists()
    keep(b"/q")
    assert [path.exists() for path in (first, second, third)] == [False, True, True]


def test_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr(records, "MOST_FILES", 4)
    made = [keep(b"/%d" % number) for number in range(9)]
    assert sorted(state.iterdir()) == sorted(made[-4:])


def test_others_files_there_are_let_be(state: Path) -> None:
    keep(b"/a")
    (state / "notes.txt").write_text("mine")
    for _ in range(3):
        keep(b"/a", 1)
    assert (state / "notes.txt").exists()


def test_a_folder_that_others_can_write_is_not_used(state: Path) -> None:
    keep(b"/a")
    state.chmod(0o777)
    with pytest.raises(RuntimeFolderError, match="can be written by others"):
        records.begin(b"/a", 10)
    with pytest.raises(RuntimeFolderError, match="can be written by others"):
        records.of_tree(b"/a")


def test_without_any_there_are_none(state: Path) -> None:
    assert records.of_tree(b"/a") == []
    assert not state.exists()
