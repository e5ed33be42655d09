"""Who watches a tree, and who waits until something is seen there: with the process that does both."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from d1fleet import sighting
from d1fleet.changes import GONE, Change
from d1fleet.loop import Loop
from d1fleet.sight import Sight, forked
from d1fleet.treewatch import look


class Rig:
    """A Sight of a folder, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = Loop()
        self.changes: list[Change] = []
        self.unseen: list[bytes] = []
        self.faults: list[str] = []
        self.events: list[str] = []
        self.sight = Sight(
            self.loop,
            partial(forked, os.fsencode(folder), 0.0),
            self._changed,
            self.unseen.append,
            self.faults.append,
        )

    def _changed(self, changes: Sequence[Change]) -> None:
        self.changes += changes

    def path(self, name: str) -> bytes:
        return os.fsencode(self.folder / name)

    def then(self, word: str) -> Callable[[], None]:
        return lambda: self.events.append(word)

    def until(self, true: Callable[[], object], limit_s: float = 10.0) -> None:
        deadline = time.monotonic() + limit_s

        def look() -> None:
            if true() or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.call_later(0.005, look)

        if not true():
            self.loop.call_later(0.005, look)
            self.loop.run()
        assert true(), (self.events, self.changes, self.unseen, self.faults)

    def ready(self) -> None:
        self.sight.see(0, ())
        self.sight.when_seen(0, self.then("ready"))
        assert self.events == []  # before that something could be missed
        self.until(lambda: self.events == ["ready"])
        self.events.clear()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.sight.close()
    made.loop.close()


def test_all_that_was_changed_is_told_before(rig: Rig) -> None:
    rig.ready()
    (rig.folder / "a").write_text("x")
    rig.sight.collect(lambda: rig.events.append(f"told {len(rig.changes)}"))
    rig.until(lambda: rig.events)
    assert rig.events == ["told 1"] and rig.changes == [look(rig.path("a"))]


def test_changes_come_soon_though_nobody_asks(rig: Rig) -> None:
    rig.ready()
    (rig.folder / "a").write_text("x")
    rig.until(lambda: rig.changes)
    (rig.folder / "a").unlink()
    rig.until(lambda: rig.changes[-1].kind == GONE)


def test_who_waits_goes_on_when_all_before_is_seen(rig: Rig) -> None:
    rig.ready()
    soon, later = Change(rig.path("soon"), b"f", 0, 1), Change(rig.path("later"), b"f", 0, 1)
    rig.sight.see(3, [soon])
    rig.sight.see(5, [later])
    rig.sight.when_seen(2, rig.then("nothing to see"))
    rig.sight.when_seen(4, rig.then("soon"))
    rig.sight.when_seen(99, rig.then("all"))
    rig.until(lambda: rig.events == ["nothing to see"])
    (rig.folder / "soon").write_text("x")
    rig.until(lambda: rig.events[1:] == ["soon"])
    (rig.folder / "later").write_text("x")
    rig.until(lambda: rig.events[2:] == ["all"])
    rig.sight.when_seen(99, rig.then("at once"))
    assert rig.events[3:] == ["at once"]


def test_what_is_newer_is_enough(rig: Rig) -> None:
    """A file that is gone again may never be seen."""
    rig.ready()
    rig.sight.see(1, [Change(rig.path("temporary"), b"f", 0, 1)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.sight.see(2, [Change(rig.path("temporary"), GONE)])
    rig.until(lambda: rig.events == ["seen"])


def test_what_is_newer_has_to_be_seen_then(rig: Rig) -> None:
    """Not what was before both."""
    rig.ready()
    (rig.folder / "result").write_text("old")
    rig.sight.see(1, [Change(rig.path("result"), GONE)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.sight.see(2, [Change(rig.path("result"), b"f", look(rig.path("result")).mtime_ns + 1_000_000, 3)])
    rig.sight.see(3, ())
    rig.sight.when_seen(0, rig.then("before"))
    rig.until(lambda: rig.events)
    time.sleep(0.1)
    rig.sight.collect(rig.then("asked"))
    rig.until(lambda: len(rig.events) > 1)
    assert rig.events == ["before", "asked"]
    (rig.folder / "result").write_text("new")
    rig.until(lambda: rig.events[2:] == ["seen"])


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sighting, "LONGEST_S", 8.0)
    monkeypatch.setattr(sighting, "LATER_S", 0.3)
    rig = Rig(tmp_path)
    rig.ready()
    rig.sight.see(1, [Change(rig.path("never"), b"f", 0, 1)])
    rig.sight.when_seen(1, rig.then("goes on"))
    rig.until(lambda: rig.events)
    assert rig.unseen == [rig.path("never")]
    # And the next time less long, or a build would stand still again and again.
    rig.sight.see(2, [Change(rig.path("nor that"), b"f", 0, 1)])
    rig.sight.when_seen(2, rig.then("again"))
    began = time.monotonic()
    rig.until(lambda: rig.events[1:])
    assert time.monotonic() - began < 5.0
    rig.sight.close()
    rig.loop.close()


def test_a_process_that_dies_holds_nobody_up(rig: Rig) -> None:
    rig.ready()
    rig.sight.see(1, [Change(rig.path("never"), b"f", 0, 1)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.sight.collect(rig.then("told"))
    os.kill(rig.sight.pid, signal.SIGKILL)
    rig.until(lambda: len(rig.events) == 2)
    assert rig.faults == ["its process has ended"]
    rig.sight.collect(rig.then("later"))
    rig.sight.see(2, [Change(rig.path("never"), b"f", 0, 1)])
    rig.sight.when_seen(2, rig.then("later"))
    assert rig.events[2:] == ["later", "later"]


def test_a_folder_that_cannot_be_watched(tmp_path: Path) -> None:
    """What others change can be seen all the same."""
    rig = Rig(tmp_path / "missing")
    rig.ready()
    (fault,) = rig.faults
    assert "No such file" in fault
    rig.sight.collect(rig.then("told"))
    rig.sight.see(1, [Change(os.fsencode(tmp_path / "made"), b"f", 0, 1)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.until(lambda: rig.events == ["told"])
    (tmp_path / "made").write_text("x")
    rig.until(lambda: rig.events == ["told", "seen"])
    rig.sight.close()
    rig.loop.close()


def test_who_has_changed_it_himself_need_not_see_what_was_before(rig: Rig) -> None:
    rig.ready()
    rig.sight.see(1, [Change(rig.path("x"), GONE), Change(rig.path("y"), b"f", 1 << 62, 1)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.sight.collect(rig.then("asked"))
    rig.until(lambda: rig.events == ["asked"])
    (rig.folder / "x").write_text("mine")
    (rig.folder / "y").write_text("mine")
    rig.until(lambda: rig.events == ["asked", "seen"])


def test_what_was_done_here_before_says_nothing(rig: Rig) -> None:
    rig.ready()
    (rig.folder / "x").write_text("mine")
    rig.sight.see(1, [Change(rig.path("x"), GONE)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.sight.see(2, ())
    rig.sight.collect(rig.then("asked"))
    rig.until(lambda: rig.events)
    time.sleep(0.1)
    assert rig.events == ["asked"]
    (rig.folder / "x").unlink()
    rig.until(lambda: rig.events == ["asked", "seen"])


def test_all_parts_of_what_has_one_number(rig: Rig) -> None:
    rig.ready()
    (rig.folder / "first").touch()
    rig.sight.see(1, [look(rig.path("first"))], more=True)
    rig.sight.see(1, [Change(rig.path("second"), b"f", 0, 1)])
    rig.sight.when_seen(1, rig.then("seen"))
    rig.sight.collect(rig.then("asked"))
    rig.until(lambda: rig.events)
    time.sleep(0.1)
    assert rig.events == ["asked"]
    (rig.folder / "second").write_text("x")
    rig.until(lambda: rig.events == ["asked", "seen"])


def test_how_it_is_now(rig: Rig) -> None:
    rig.ready()
    (rig.folder / "there").write_text("x")
    rig.sight.look([Change(rig.path("gone"), b"f", 0, 1), Change(rig.path("there"), GONE)])
    rig.until(lambda: len(rig.changes) >= 2)
    assert rig.changes[:2] == [Change(rig.path("gone"), GONE), look(rig.path("there"))]


def test_a_listing_that_is_old(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> None:
    """make goes by that, too: `%.o: %.c` and $(wildcard)."""
    place = tmp_path_factory.mktemp("listing")
    (place / "made.c").write_text("x")
    made = sighting._Sighting.__new__(sighting._Sighting)
    made._root, made._listings = b"/", {os.fsencode(place): frozenset()}
    assert not made._is_seen(look(os.fsencode(place / "made.c")))
    made._listings = {os.fsencode(place): frozenset([b"made.c", b"gone.c"])}
    assert made._is_seen(look(os.fsencode(place / "made.c")))
    assert not made._is_seen(Change(os.fsencode(place / "gone.c"), GONE))


def test_many_hold_nobody_up(rig: Rig) -> None:
    rig.ready()
    rig.sight.see(1, [Change(rig.path(f"never/{number}"), b"f", 0, 1) for number in range(20_000)])
    began = time.monotonic()
    for _ in range(10):
        (rig.folder / "mine").write_text("x")
        rig.events.clear()
        rig.sight.collect(rig.then("told"))
        rig.until(lambda: rig.events)
    assert time.monotonic() - began < 10.0


def test_no_lock_of_ours_outlives_us_in_it(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as file:
        rig = Rig(tmp_path)
        rig.ready()
        held = {
            os.readlink(f"/proc/{rig.sight.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{rig.sight.pid}/fd")
        }
        assert file.name not in held
    rig.sight.close()
    rig.loop.close()
