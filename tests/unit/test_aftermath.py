"""What lost sub-makes may have torn is put away: in the build, at its end, before the next one."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet import journal
from d1fleet.aftermath import Aftermath, after, recover
from d1fleet.entries import Entry
from d1fleet.errors import TreeError
from d1fleet.journal import Journal
from d1fleet.loop import Loop
from d1fleet.record import Record
from d1fleet.scrub import Scrubbed
from d1fleet.server import late
from tests.support.desk import Waiting
from tests.unit.test_scrub import now_ns

MAKE = b"/usr/bin/make"
ENVIRONMENT = {b"PATH": b"/usr/bin:/bin"}


class Torn:
    """What Aftermath knows of a job: it was at `make goal` in the tree."""

    def __init__(self, tree: Path, number: int, goal: str, since_ns: int) -> None:
        self.number = self.attempt = number
        self.notes = [Entry(number, "alder", since_ns, bytes(tree), [b"make", goal.encode()], {})]
        self.asker = Waiting()


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text("all: a b\na b c: ; touch $@\n")
    for name in ("a", "b", "c", "mine"):
        (tree / name).write_text(name)
    return tree


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def finish(loop: Loop, aftermath: Aftermath) -> None:
    """Until all is put away, and the process that did it is gone."""
    while aftermath.busy:
        loop.run_once(1.0)
    gc.collect()


def moved(tree: Path) -> list[str]:
    lost = tree / ".d1fleet-lost"
    return sorted(str(path.relative_to(lost)).partition("/")[2] for path in lost.glob("2*/*"))


def entry(tree: Path, attempt: int, *argv: bytes) -> Entry:
    return Entry(attempt, "alder", 0, os.fsencode(tree), [b"make", *argv], {})


def test_one_after_the_other(tree: Path, tmp_path: Path, loop: Loop) -> None:
    record = Record(str(tmp_path / "record"))
    kept = Journal(os.fsencode(tree), 1.0, 1.0)
    since_ns = now_ns(tree)
    for name in "abc":
        (tree / name).write_text("torn")
    aftermath = Aftermath(loop, os.fsencode(tree), MAKE, kept, record)
    jobs: list[Any] = [Torn(tree, 2, "a", since_ns), Torn(tree, 4, "b", since_ns)]
    found: list[Scrubbed] = []
    for job in jobs:
        kept.began(entry(tree, job.attempt, b"a"))
        aftermath.put_away(job, found.append)
    assert aftermath.busy
    finish(loop, aftermath)
    assert [sorted(each.moved) for each in found] == [[os.fsencode(tree / name)] for name in "ab"]
    assert moved(tree) == ["a", "b"] and (tree / "c").exists()
    assert not any(job.notes for job in jobs)
    kept.settle()
    assert journal.left_over(os.fsencode(tree)) is None
    record.close()
    torn = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert [(each["job"], each["left"]) for each in torn] == [(2, []), (4, [])]
    aftermath.close()


def test_nobody_wants_to_wait(tree: Path, loop: Loop) -> None:
    aftermath = Aftermath(loop, os.fsencode(tree), MAKE, None, Record(None))
    job: Any = Torn(tree, 2, "a", now_ns(tree))
    aftermath.put_away(job, lambda _: pytest.fail("it was given up"))
    aftermath.give_up()
    assert not aftermath.busy
    loop.run_once(0.2)
    aftermath.close()


def test_what_cannot_be_told_is_left_for_the_next_build(
    tree: Path, loop: Loop, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = Journal(os.fsencode(tree), 1.0, 1.0)
    aftermath = Aftermath(loop, os.fsencode(tree), MAKE, kept, Record(None))
    (tree / "Makefile").write_text("torn line\n")
    job: Any = Torn(tree, 2, "a", 0)
    kept.began(entry(tree, 2, b"a"))
    kept.over(2)
    found: list[Scrubbed] = []
    aftermath.put_away(job, found.append)
    finish(loop, aftermath)
    assert not found[0].is_clean and job.notes
    aftermath.close()
    kept.settle()
    with pytest.raises(TreeError, match="half written"):
        recover(os.fsencode(tree), MAKE, ENVIRONMENT)
    assert "missing separator" in capfd.readouterr().err
    (tree / "Makefile").write_text("a: ; touch $@\n")
    with pytest.raises(TreeError):  # its rule came when the sub-make was at work, for all that is known
        recover(os.fsencode(tree), MAKE, ENVIRONMENT)
    os.utime(tree / "Makefile", (0, 0))
    assert moved(tree) == []


def test_the_next_build_puts_away_what_a_killed_one_has_torn(tree: Path) -> None:
    recover(os.fsencode(tree), MAKE, ENVIRONMENT)
    assert moved(tree) == []
    kept = Journal(os.fsencode(tree), 0.0, 0.0)
    since = now_ns(tree)
    for number, name in ((2, b"a"), (4, b"c")):
        os.utime(tree / name.decode())
        kept.began(Entry(number, "alder", since, os.fsencode(tree), [b"make", name], {}))
    kept.ended(4)
    kept.settle()
    recover(os.fsencode(tree), MAKE, ENVIRONMENT)
    assert moved(tree) == ["a"]
    assert not (tree / ".d1fleet-journal").exists()


def test_what_a_late_host_has_written(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = os.fsencode(tree)
    assert not after(folder, MAKE, ENVIRONMENT)
    for name in ("Makefile", "a", "mine"):
        os.utime(tree / name, (0, 0))
    late.note(folder, [entry(tree, 2, b"b")], late_s=-1.0)
    assert journal.late_there(folder)
    assert not after(folder, MAKE, ENVIRONMENT), "nothing has changed since"
    assert not journal.late_there(folder) and moved(tree) == []
    late.note(folder, [entry(tree, 2, b"b")], late_s=-1.0)
    (tree / "b").write_text("torn")
    (tree / "mine").write_text("changed meanwhile")
    assert after(folder, MAKE, ENVIRONMENT)
    assert moved(tree) == ["b"] and not journal.late_there(folder)
    assert "what the last build has made may be torn: build again" in capfd.readouterr().err


def test_a_note_that_is_not_ours(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = os.fsencode(tree)
    late.note(folder, [entry(tree, 2, b"b")], late_s=0.0)
    (note,) = (tree / ".d1fleet-late").iterdir()
    note.chmod(0o644)
    assert after(folder, MAKE, ENVIRONMENT)
    assert "another user's, or open to others" in capfd.readouterr().err
    with pytest.raises(TreeError):
        recover(folder, MAKE, ENVIRONMENT)
