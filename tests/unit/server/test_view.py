"""A server in a build in which some machine sees the tree late."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet import protocol
from d1fleet.changes import FILE, Change, decode, encode
from tests.fuzz.peer import Peer, wait_until

Start = Callable[..., Peer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server that watches its tree."""
    with contextlib.ExitStack() as stack:

        def start(make: str) -> Peer:
            peer = stack.enter_context(Peer(tmp_path, make))
            peer.begin()
            peer.send(protocol.Watch(folder=os.fsencode(peer.tree)))
            return peer

        yield start


def see(peer: Peer, number: int, name: str) -> protocol.See:
    (block,) = encode([Change(os.fsencode(peer.tree / name), FILE, 0, 1)])
    return protocol.See(number=number, changes=block)


def told(peer: Peer) -> list[str]:
    """What came, in order: names of files that have changed, and ends."""
    found: list[str] = []
    for message in peer.received:
        if isinstance(message, protocol.Changed):
            found += [os.path.basename(os.fsdecode(change.path)) for change in decode(message.changes)]
        elif isinstance(message, (protocol.Exit, protocol.Gone)):
            found.append(type(message).__name__)
    return found


def test_changes_are_told_before_the_end_of_an_attempt(start: Start) -> None:
    peer = start("echo x > made; exit 3\n")
    peer.send(peer.run(2))
    assert peer.next(protocol.Exit).code == 3
    assert told(peer)[-2:] == ["made", "Exit"]
    assert peer.end() == 0


def test_the_first_attempt_waits_until_nothing_can_be_missed(tmp_path: Path) -> None:
    with Peer(tmp_path, "for each in folder*; do echo x > $each/made; done\n") as peer:
        for number in range(500):
            (peer.tree / f"folder{number}").mkdir()
        peer.begin()
        peer.send(protocol.Watch(folder=os.fsencode(peer.tree)), peer.run(2))
        peer.next(protocol.Exit)
        assert told(peer).count("made") == 500
        assert peer.end() == 0


def test_it_goes_on_when_a_supervisor_is_killed(start: Start) -> None:
    peer = start("echo x > made; test -e again || exec sleep 1000\n")
    peer.send(peer.run(2))
    wait_until(lambda: any(each.name() == "sleep" for each in peer.processes()))
    (make,) = [each for each in peer.processes() if each.name() == "sleep"]
    supervisor = make.parent()
    assert supervisor is not None
    supervisor.kill()
    peer.next(protocol.Exit)
    (peer.tree / "again").touch()
    peer.received.clear()
    (peer.tree / "made").unlink()
    peer.send(peer.run(4))
    assert peer.next(protocol.Exit).code == 0
    assert "made" in told(peer)
    assert not any(isinstance(message, protocol.Unwatched) for message in peer.received)
    assert peer.end() == 0


def test_an_attempt_begins_when_all_that_it_needs_is_seen(start: Start) -> None:
    peer = start("ls\n")
    peer.send(see(peer, 4, "needed"), see(peer, 6, "not-needed"), peer.run(2, sees=3), peer.run(4, sees=5))
    output, _ = peer.output_until_exit(2)
    assert b"needed" not in output[1]
    (peer.tree / "needed").write_text("x")
    output, _ = peer.output_until_exit(4)
    assert b"needed" in output[1].split()
    assert peer.end() == 0


def test_one_that_sees_nothing_yet_can_be_cancelled(start: Start) -> None:
    peer = start("echo began\n")
    peer.send(see(peer, 1, "never"), peer.run(2, sees=1), protocol.Cancel(2))
    assert peer.next(protocol.Exit).infrastructure == protocol.CANCELLED
    (peer.tree / "never").write_text("x")
    peer.send(peer.run(4, sees=1))
    output, _ = peer.output_until_exit(4)
    assert output[1] == b"began\n"
    assert not [m for m in peer.received if isinstance(m, protocol.Data) and m.attempt == 2]


def test_the_end_of_the_build_waits_for_nothing(start: Start) -> None:
    peer = start("echo began\n")
    peer.send(see(peer, 1, "never"), peer.run(2, sees=1))
    assert peer.end(kill=False) == 0
    assert told(peer)[-2:] == ["Exit", "Gone"]
    assert peer.next(protocol.Exit).infrastructure == protocol.CANCELLED
    assert not any(isinstance(message, protocol.Data) for message in peer.received)


def test_what_no_build_has_asked_for_is_not_watched(tmp_path: Path) -> None:
    with Peer(tmp_path, "echo x > made\n") as peer:
        peer.begin()
        peer.send(peer.run(2))
        peer.next(protocol.Exit)
        assert told(peer) == ["Exit"]
        assert peer.end() == 0


def test_a_host_that_may_watch_no_more_folders_says_so(tmp_path: Path) -> None:
    with Peer(tmp_path, "echo x > made\n") as peer:
        peer.begin()
        peer.send(protocol.Watch(folder=os.fsencode(tmp_path / "missing")), peer.run(2))
        assert "No such file" in peer.next(protocol.Unwatched).reason
        assert peer.next(protocol.Exit).code == 0
        assert peer.end() == 0
