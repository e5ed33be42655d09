"""Marks that keep work away from a host: who may put them, whom they count for, and what the server says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet import protocol
from d1fleet.errors import RuntimeFolderError
from d1fleet.protocol import Drain
from d1fleet.server import drain
from d1fleet.server.drain import MARK, Marks
from tests.fuzz.peer import Peer

NOWHERE = "/nonexistent/drain"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


def test_put_and_take_away(own: Path) -> None:
    marks = Marks(NOWHERE, str(own))
    assert marks.look() == Drain(on=False)
    assert not own.exists()  # to look makes nothing
    marks.put("new kernel")
    assert marks.look() == Drain(on=True, reason="new kernel")
    marks.put("dinner")
    assert marks.look().reason == "dinner"
    assert [path.name for path in own.iterdir()] == [MARK]
    assert own.stat().st_mode & 0o777 == 0o700
    marks.take_away()
    assert marks.look() == Drain(on=False)
    marks.take_away()


@pytest.mark.skipif(os.geteuid() != 0, reason="root's folder is for root to make")
def test_for_everybody_where_the_folder_is_roots(tmp_path: Path, own: Path) -> None:
    system = tmp_path / "drain"
    system.mkdir(mode=0o755)
    marks = Marks(str(system), str(own))
    marks.put("new kernel")
    assert marks.look() == Drain(on=True, reason="new kernel", everybody=True)
    assert (system / MARK).stat().st_mode & 0o777 == 0o644
    assert not own.exists()
    marks.take_away()
    assert marks.look() == Drain(on=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="chown")
@pytest.mark.parametrize("how", ["of another user", "for all to write", "a link"])
def test_a_folder_that_others_could_have_made_counts_for_nobody(tmp_path: Path, own: Path, how: str) -> None:
    system = tmp_path / "drain"
    system.mkdir()
    (system / MARK).write_text("by a stranger")
    if how == "of another user":
        os.chown(system, 12345, 12345)
    elif how == "for all to write":
        system.chmod(0o1777)
    else:
        system.rename(tmp_path / "elsewhere")
        system.symlink_to(tmp_path / "elsewhere")
    marks = Marks(str(system), str(own))
    assert marks.look() == Drain(on=False)
    marks.put("mine")
    assert marks.look() == Drain(on=True, reason="mine")
    assert (own / MARK).exists()


def test_marks_that_are_no_plain_text(own: Path) -> None:
    own.mkdir(mode=0o700)
    marks = Marks(NOWHERE, str(own))
    (own / MARK).write_bytes(b"\x1b[2Jgo\n\xff away" + b"x" * 5000)
    found = marks.look().reason
    assert found.startswith(" [2Jgo � away".strip()) and found.isprintable() and len(found) <= 1000
    (own / MARK).unlink()
    os.mkfifo(own / MARK)
    assert marks.look() == Drain(on=False)
    (own / MARK).unlink()
    (own / MARK).symlink_to("/etc/passwd")
    assert marks.look() == Drain(on=False)


def test_a_folder_of_ours_that_others_can_write_to(own: Path) -> None:
    own.mkdir()
    own.chmod(0o777)
    (own / MARK).write_text("by a stranger")
    marks = Marks(NOWHERE, str(own))
    assert marks.look() == Drain(on=False)
    with pytest.raises(RuntimeFolderError, match="can be written by others"):
        marks.put("mine")


# -- what the server says ----------------------------------------------------------------------------


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path) as found:
        yield found


def _marks(peer: Peer) -> Marks:
    return Marks(drain.SYSTEM, f"{peer.folder}/run/d1fleet-{os.geteuid()}")


def test_a_drain_in_place_of_a_build(peer: Peer) -> None:
    peer.send(Drain(reason="new kernel"))
    assert peer.next(Drain) == Drain(on=True, reason="new kernel")
    assert _marks(peer).look().on
    peer.send(Drain(on=False))
    assert peer.next(Drain) == Drain(on=False)
    assert not _marks(peer).look().on
    peer.hang_up()
    assert peer.wait() == 0


def test_a_drain_that_cannot_be_kept(peer: Peer) -> None:
    (peer.folder / "run" / f"d1fleet-{os.geteuid()}").write_text("no folder")
    peer.send(Drain(reason="new kernel"))
    assert "is not a folder" in peer.next(protocol.Unfit).reason
    assert peer.wait() == 94


def test_a_build_is_told_behind_hello_and_at_each_beat(peer: Peer) -> None:
    marks = _marks(peer)
    marks.put("from the start")
    peer.begin()
    assert peer.received[1] == Drain(on=True, reason="from the start")
    marks.put("longer")
    assert peer.next(Drain) == Drain(on=True, reason="longer")
    marks.take_away()
    assert peer.next(Drain) == Drain(on=False)
    peer.send(peer.run(2))  # it is the coordinator that gives no more
    assert peer.next(protocol.Exit).infrastructure == ""
    assert peer.end() == 0
    kinds = [type(message) for message in peer.received]
    assert kinds[:3] == [protocol.Hello, Drain, protocol.Beat]
    assert kinds.count(Drain) == 3


def test_a_build_cannot_drain_a_host(peer: Peer) -> None:
    peer.begin()
    peer.send(Drain(reason="ha"))
    peer.next(protocol.Beat)
    peer.next(protocol.Beat)
    assert not _marks(peer).look().on
    assert peer.end() == 0
    assert Drain not in map(type, peer.received)
