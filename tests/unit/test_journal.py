"""The journal tells the next build what this one cannot say any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d1fleet import journal
from d1fleet.entries import Entry
from d1fleet.errors import TreeError
from d1fleet.journal import Journal, left_over


def entry(attempt: int, since_ns: int = 7) -> Entry:
    return Entry(
        attempt, "a", since_ns, b"/t/\xff", [b"make", b"-C", b"x\ny", b"\xfe"], {b"MAKEFLAGS": b"k -- A=\xfd"}
    )


@pytest.fixture
def folder(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


def test_a_build_that_ends_well_leaves_nothing(folder: bytes) -> None:
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    kept.began(entry(4))
    assert os.listdir(folder) == []
    kept.ended(4)
    kept.ended(2)
    kept.ended(2)  # what never began, or ended before, says nothing
    kept.settle()
    assert os.listdir(folder) == []
    assert left_over(folder) is None


def test_what_was_at_work_is_known_to_the_next(folder: bytes) -> None:
    kept = Journal(folder, 10.0, 6.0)
    for attempt in (2, 4, 6):
        kept.began(entry(attempt, attempt * 100))
    kept.ended(4)
    kept.settle()
    assert os.listdir(folder) == [journal.NAME]
    found = left_over(folder)
    assert found is not None
    assert found.entries == [entry(2, 200), entry(6, 600)]
    assert 15.0 < found.wait_s <= 16.0
    # Reading it has not made it younger.
    before = os.stat(journal.path(folder)).st_mtime_ns
    assert left_over(folder) is not None
    assert os.stat(journal.path(folder)).st_mtime_ns == before
    journal.forget(folder)
    journal.forget(folder)
    assert left_over(folder) is None


def test_a_machine_that_crashed(folder: bytes) -> None:
    """Nobody was left to put it into the tree."""
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    os.close(kept._fd)
    found = left_over(folder)
    assert found is not None and found.entries == [entry(2)]
    journal.forget(folder)
    assert left_over(folder) is None


def test_another_tree_is_not_meant(folder: bytes, tmp_path: Path) -> None:
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    assert left_over(os.fsencode(tmp_path / "other")) is None
    kept.settle()


def test_a_beat_keeps_it_young(folder: bytes) -> None:
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    os.utime(kept._path, (1, 1))
    kept.beat()
    found = left_over(folder)
    assert found is not None and found.quiet_s < 5
    kept.settle()


def test_time_that_has_passed_is_not_waited_for(folder: bytes) -> None:
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    kept.settle()
    at_ns = os.stat(journal.path(folder)).st_mtime_ns
    os.utime(journal.path(folder), ns=(at_ns, at_ns - 12_000_000_000))
    found = left_over(folder)
    assert found is not None and 3.0 < found.wait_s <= 4.0
    os.utime(journal.path(folder), ns=(at_ns, at_ns - 60_000_000_000))
    found = left_over(folder)
    assert found is not None and found.wait_s == 0.0


def test_what_has_ended_for_certain_is_not_waited_for(folder: bytes) -> None:
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    kept.began(entry(4))
    kept.over(2)
    found = left_over(folder)
    assert found is not None and found.wait_s > 15
    kept.over(4)
    kept.over(6)
    kept.settle()
    found = left_over(folder)
    assert found is not None and found.wait_s == 0.0
    assert [(each.attempt, each.over) for each in found.entries] == [(2, True), (4, True)]


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_line_that_was_not_finished_counts_for_nothing(folder: bytes, cut: int) -> None:
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    kept.began(entry(4))
    kept.settle()
    path = Path(os.fsdecode(journal.path(folder)))
    path.write_bytes(path.read_bytes()[:-cut])
    path.chmod(0o600)
    found = left_over(folder)
    assert found is not None and found.entries == [entry(2)]


def test_killed_before_it_had_written_anything(folder: bytes) -> None:
    Path(os.fsdecode(journal.path(folder))).touch(0o600)
    found = left_over(folder)
    assert found is not None and not found.entries and found.wait_s == 0


HEAD = '{"format": 1, "lease_s": 1, "grace_s": 1}\n'


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        "[]\n",
        "{}\n",
        HEAD.replace("1", "2", 1),
        HEAD.replace("1, ", "null, "),
        HEAD + '{"began": 2}\n',
    ],
)
def test_what_is_no_journal_is_refused(folder: bytes, text: str) -> None:
    path = Path(os.fsdecode(journal.path(folder)))
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(TreeError, match="no journal of ours"):
        left_over(folder)


def test_one_that_came_with_a_tree_is_refused(folder: bytes, tmp_path: Path) -> None:
    path = Path(os.fsdecode(journal.path(folder)))
    path.write_text(HEAD)
    path.chmod(0o644)
    with pytest.raises(TreeError, match="another user's, or open to others"):
        left_over(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to("elsewhere")
    with pytest.raises(TreeError, match="cannot be read"):
        left_over(folder)


def test_where_there_is_no_room_for_a_whole_line(folder: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes next must not stand behind half a line."""
    kept = Journal(folder, 10.0, 6.0)
    kept.began(entry(2))
    write = os.write
    with monkeypatch.context() as short:
        short.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        with pytest.raises(OSError, match="No space"):
            kept.began(entry(4))
    kept.over(2)
    kept.settle()
    found = left_over(folder)
    assert found is not None and [each.attempt for each in found.entries] == [2]
    assert found.wait_s == 0.0


def test_all_makes_of_a_sub_make(folder: bytes) -> None:
    """What has stayed in it has its number."""
    kept = Journal(folder, 10.0, 6.0)
    for since_ns in (1, 2):
        kept.began(entry(2, since_ns))
    kept.settle()
    found = left_over(folder)
    assert found is not None and [each.since_ns for each in found.entries] == [1, 2]
