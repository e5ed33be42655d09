"""Who is told of what has changed in a tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from d1fleet import protocol, visibility
from d1fleet.changes import FILE, GONE, Change, decode, encode
from d1fleet.errors import ProtocolError
from d1fleet.loop import Loop
from d1fleet.visibility import Visibility


class FakeSight:
    """Of this machine."""

    def __init__(self, loop: Loop, start: Any, changed: Any, unseen: Any, fault: Any) -> None:
        self.changed, self.unseen = changed, unseen
        self.seen: list[tuple[int, list[Change]]] = []

    def see(self, number: int, changes: list[Change]) -> None:
        self.seen.append((number, changes))

    pid = 0
    looked: list[Change]

    def look(self, changes: list[Change]) -> None:
        self.looked = changes

    def close(self) -> None: ...


class Link:
    """A host that keeps what it is sent."""

    def __init__(self, name: str) -> None:
        self.host = SimpleNamespace(name=name)
        self.open = True
        self.sent: list[Any] = []

    def send(self, message: protocol.Message) -> None:
        self.sent.append(message)

    @property
    def told(self) -> list[tuple[int, bytes, bytes]]:
        sees = [message for message in self.sent if isinstance(message, protocol.See)]
        return [(see.number, change.path, change.kind) for see in sees for change in decode(see.changes)]


class Rig:
    def __init__(self, loop: Loop, tree: Path) -> None:
        self.tree = tree
        self.here = Visibility(loop, os.fsencode(tree))

    def joins(self, name: str, late: bool) -> Any:
        link = Link(name)
        self.here.takes_part(link, late)  # type: ignore[arg-type]
        return link

    def path(self, name: str) -> bytes:
        return os.fsencode(self.tree / name)

    def says(self, link: Any, name: str, kind: bytes = FILE, size: int = 1) -> None:
        (block,) = encode([Change(self.path(name), kind, 7, size)])
        assert self.here.heard(link, protocol.Changed(changes=block))

    @property
    def sight(self) -> FakeSight:
        found: Any = self.here._sight
        assert isinstance(found, FakeSight)
        return found


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(visibility, "Sight", FakeSight)
    monkeypatch.setattr(visibility, "shows_late", lambda folder: False)
    loop = Loop()
    yield Rig(loop, tmp_path)
    loop.close()


def test_where_nobody_sees_late_nothing_is_asked(rig: Rig) -> None:
    alder = rig.joins("alder", late=False)
    events: list[str] = []
    rig.here.look_before(lambda: events.append("look"))
    rig.here.when_seen_here(lambda: events.append("seen"))
    assert (alder.sent, events, rig.here._sight) == ([], ["look", "seen"], None)
    with pytest.raises(ProtocolError, match="nobody has asked"):
        rig.says(alder, "a")


def test_changes_reach_those_who_see_late_but_not_who_made_them(rig: Rig) -> None:
    alder, birch, cedar = rig.joins("alder", False), rig.joins("birch", True), rig.joins("cedar", True)
    assert [type(each.sent[0]) for each in (alder, birch, cedar)] == [protocol.Watch] * 3
    rig.says(birch, "made")
    assert (alder.told, birch.told, cedar.told) == ([], [], [(1, rig.path("made"), FILE)])
    rig.says(alder, "made")  # the same, as another one found it
    assert rig.here.number == 1
    rig.says(alder, "made", GONE)
    assert birch.told == [(2, rig.path("made"), GONE)] and cedar.told[1:] == birch.told
    rig.sight.changed([Change(rig.path("by hand"), FILE, 1, 2)])
    assert birch.told[1:] == cedar.told[2:] == [(3, rig.path("by hand"), FILE)]
    assert alder.told == [] and rig.sight.seen == []


def test_who_comes_later_hears_what_is_recent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    birch = rig.joins("birch", True)
    now = Loop.now()
    monkeypatch.setattr(Loop, "now", staticmethod(lambda: now - 2 * visibility.RECENT_S))
    rig.says(birch, "old")
    monkeypatch.setattr(Loop, "now", staticmethod(lambda: now))
    rig.says(birch, "new")
    rig.says(birch, "again", size=1)
    rig.says(birch, "again", size=2)
    cedar = rig.joins("cedar", True)
    assert sorted(path for _, path, _ in cedar.told) == [rig.path("again"), rig.path("new")]


def test_this_machine_sees_late(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "shows_late", lambda folder: True)
    alder = rig.joins("alder", late=False)
    assert alder.sent[0].recent_s == visibility.RECENT_S  # it knows better than we what has just changed
    rig.says(alder, "made")
    assert [number for number, _ in rig.sight.seen] == [1]
    rig.sight.changed([Change(rig.path("own"), FILE, 1, 2)])
    assert len(rig.sight.seen) == 1


@pytest.mark.parametrize("path", [b"/etc/passwd", b"/"])
def test_a_host_speaks_of_the_tree_alone(rig: Rig, path: bytes) -> None:
    alder = rig.joins("alder", True)
    with pytest.raises(ProtocolError, match="outside of the tree"):
        rig.here.heard(alder, protocol.Changed(changes=encode([Change(path, FILE)])[0]))


def test_a_host_that_goes_on_and_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are none the worse for it."""
    monkeypatch.setattr(visibility, "_MOST_TOLD", 5)
    alder, birch = rig.joins("alder", True), rig.joins("birch", True)
    with pytest.raises(ProtocolError, match="again and again"):
        for number in range(7):
            rig.says(alder, f"file{number}")
    rig.says(birch, "another")
    rig.sight.changed([Change(rig.path("own"), FILE, 1, 2)])


def test_what_is_old_is_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "_FORGET_ABOVE", 10)
    rig.here._log._forget_above = 10
    alder = rig.joins("alder", True)
    now = Loop.now()
    for number in range(50):
        monkeypatch.setattr(Loop, "now", staticmethod(lambda number=number: now + 30 * number))
        rig.says(alder, f"file{number}")
    assert len(rig.here._log._newest) <= 11


def test_what_a_lost_host_was_changing_is_looked_at(rig: Rig) -> None:
    alder, birch = rig.joins("alder", True), rig.joins("birch", True)
    rig.says(alder, "its")
    rig.says(birch, "another's")
    rig.here.left(alder)
    assert [change.path for change in rig.sight.looked] == [rig.path("its")]
    rig.sight.changed([Change(rig.path("its"), GONE)])
    assert birch.told[-1][1:] == (rig.path("its"), GONE)
    assert len(alder.told) == 1  # what birch has changed


def test_much_goes_in_parts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    alder = rig.joins("alder", True)
    rig.sight.changed([Change(rig.path(f"{number:0200}"), FILE, 1, 2) for number in range(9000)])
    sees = [message for message in alder.sent if isinstance(message, protocol.See)]
    assert len(sees) > 1 and {see.number for see in sees} == {1}
    assert [see.more for see in sees] == [True] * (len(sees) - 1) + [False]


def test_those_at_work_already_tell_what_they_have_just_changed(rig: Rig) -> None:
    alder = rig.joins("alder", False)
    birch = rig.joins("birch", True)
    cedar = rig.joins("cedar", False)
    assert [link.sent[0].recent_s for link in (alder, birch, cedar)] == [visibility.RECENT_S] * 2 + [0.0]


def test_what_is_never_seen_is_said_once_a_host(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    alder = rig.joins("alder", True)
    for name in ("a", "b"):
        assert rig.here.heard(alder, protocol.Unseen(path=rig.path(name)))
    rig.sight.unseen(rig.path("c"))
    for _ in range(2):
        assert rig.here.heard(alder, protocol.Unwatched(reason="No space left on device"))
    said = capfd.readouterr().err
    assert said.count("host alder does not see") == 1 and said.count("this machine does not see") == 1
    assert said.count("on host alder cannot be watched (No space left on device)") == 1
