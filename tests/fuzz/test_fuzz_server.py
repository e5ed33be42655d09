"""Whatever a coordinator sends, the server ends by itself, says so plainly, and leaves nothing behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from d1fleet import protocol
from d1fleet.errors import ProtocolError, UnfitError
from d1fleet.loop import Loop
from d1fleet.protocol import Message, encode
from d1fleet.server import process
from d1fleet.server.main import Server

from .messages import EXAMPLES, broken, mutated
from .peer import Peer, same_descriptors

pytestmark = pytest.mark.timeout(600)

_SLOW = settings(
    max_examples=25 * EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES == 1,
)

# Takes all of its input, says something on both streams, and ends with 3.
_MAKE = 'cat; echo "$@" >&2; exit 3\n'


# -- before Welcome: in this process, many ---------------------------------------------------------


def _serve(data: bytes) -> tuple[int, bytes]:
    """What a server makes of `data` and then the end of the connection: exit status, and what it wrote."""
    their_in, our_out = os.pipe2(os.O_CLOEXEC)
    our_in, their_out = os.pipe2(os.O_CLOEXEC)
    os.write(our_out, data)
    os.close(our_out)
    loop = Loop()
    server = Server(loop, their_in, their_out)
    said: list[str] = []
    watchdog = loop.call_later(20.0, lambda: pytest.fail("it hangs"))
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(server, "complain", said.append)
        # A server ends all that is below its process; below this one are other tests' servers.
        monkey.setattr(process, "kill_descendants", lambda **_: set())
        loop.run()
    watchdog.cancel()
    server._stream.close()
    loop.close()
    os.close(server.null_fd)
    wrote = os.read(our_in, 1 << 16)
    os.close(our_in)
    assert bool(said) == bool(server.exit_code)
    return server.exit_code, wrote


@settings(max_examples=150 * EXAMPLES, deadline=None)
@given(st.binary(max_size=400))
@example(b"")
@example(b"\0")
@example(encode(protocol.Bye()))
@example(encode(protocol.Gone()))
@example(b"\xff" * 9)
def test_random_bytes(data: bytes) -> None:
    with same_descriptors():
        code, wrote = _serve(data)
    assert code in (0, ProtocolError.exit_code)
    assert wrote == b""


# -- after Welcome: in a process of its own ----------------------------------------------------------


def _session(peer: Peer, data: bytes) -> None:
    """Feed a server that has said hello, hang up, and look at how it ends."""
    peer.write(data)
    peer.hang_up()
    code = peer.wait()
    assert "Traceback" not in peer.stderr, peer.stderr
    assert code in (0, ProtocolError.exit_code, UnfitError.exit_code), (code, peer.stderr)
    if code == ProtocolError.exit_code:
        assert "what the protocol does not allow" in peer.stderr


def _kinds() -> list[type[Message]]:
    return [cls for cls in protocol.KINDS.values() if cls.SENDER != "server" and cls is not protocol.Welcome]


def _coordinators(peer: Peer) -> st.SearchStrategy[Message]:
    run = {name: value for name, value in vars(peer.run()).items() if name != "attempt"}
    tree = vars(peer.check_tree())
    sane: dict[type[Message], dict[str, object]] = {protocol.Run: run, protocol.CheckTree: tree}
    # The job's PATH stays: it finds our own make and nothing else.
    fixed: dict[type[Message], dict[str, object]] = {protocol.Run: {"environment": run["environment"]}}
    return st.one_of([broken(cls, sane.get(cls, {}), fixed.get(cls, {})) for cls in _kinds()])


@_SLOW
@given(st.data())
def test_broken_messages(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, Peer(Path(folder), _MAKE) as peer:
        peer.begin()
        messages = data.draw(st.lists(_coordinators(peer), max_size=8))
        ready = [peer.run(2)] if data.draw(st.booleans()) else []
        _session(peer, b"".join(map(encode, [*ready, *messages])))


@_SLOW
@given(st.data())
def test_mutated_streams(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, Peer(Path(folder), _MAKE) as peer:
        peer.begin()
        session = [
            peer.run(2, "all", stdin=True, jobserver=[3, 4], tokens=True, limits=[4, 0]),
            protocol.Data(2, 0, False, b"input"),
            protocol.Offer(2, 1),
            peer.check_tree(),
            peer.run(4, "again", same=True, grouped=True),
            protocol.Credit(2, 1, 5),
            protocol.Signal(2, 1),
            protocol.Pause(on=True),
            protocol.Pause(on=False),
            protocol.Close(2, 0),
            protocol.Cancel(4),
            protocol.Recall(2, 1),
            protocol.Drain(),
            protocol.Grant(seq=99),
            protocol.Bye(),
        ]
        _session(peer, data.draw(mutated(st.just(b"".join(map(encode, session))))))


_WELCOMES = {"setup": ["", "A=1", "exit 3;", ":;", "kill -9 $$;", "\0", "\ud800"]}


@_SLOW
@given(st.data())
def test_broken_welcomes(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, Peer(Path(folder), _MAKE) as peer:
        sane = vars(peer.welcome())
        setup = data.draw(st.sampled_from(_WELCOMES["setup"]))
        first = data.draw(broken(protocol.Welcome, sane, {"setup": setup, "attempt": 0}))
        more = [first] if data.draw(st.booleans()) else []
        _session(peer, b"".join(map(encode, [first, *more, peer.check_tree(), peer.run(2)])))


# Each of these has ended a server with a traceback, or may.
_NAMED: dict[str, dict[str, object]] = {
    "one jobserver descriptor": {"jobserver": [3], "tokens": True},
    "three jobserver descriptors": {"jobserver": [3, 4, 5]},
    "jobserver on one number": {"jobserver": [3, 3], "tokens": True},
    "jobserver on standard output": {"jobserver": [0, 1]},
    "huge descriptor": {"jobserver": [1 << 62, 4]},
    "folder with NUL": {"folder": b"/tmp\0x"},
    "no folder": {"folder": b""},
    "no argv": {"argv": b""},
    "argv without NUL": {"argv": b"make"},
    "environment without NUL": {"environment": b"A=1"},
    "program with NUL": {"program": "ma\0ke"},
    "program that is no text": {"program": "\ud800"},
    "huge umask": {"umask": 1 << 40},
    "odd limits": {"limits": [7]},
    "unknown limit": {"limits": [1 << 40, 1]},
    "unknown limit, small": {"limits": [63, 1]},
    "many streams": {"streams": (1 << 64) - 1},
    "huge weight": {"weight": (1 << 64) - 1},
    "no weight": {"weight": 0},
    "all signals ignored": {"ignored": (1 << 64) - 1},
}


@pytest.mark.parametrize("changed", _NAMED.values(), ids=_NAMED)
def test_named_runs(tmp_path: Path, changed: dict[str, object]) -> None:
    """A Run that cannot be carried out is refused, or breaks the protocol; the server says so."""
    with Peer(tmp_path, "exit 3\n") as peer:
        peer.begin()
        peer.send(peer.run(2, **changed))
        try:
            end = peer.next(protocol.Exit, lambda m: m.attempt == 2)
        except EOFError:
            assert peer.wait() == ProtocolError.exit_code, peer.stderr
            return
        assert end.infrastructure in ("", protocol.REFUSED, protocol.INTERNAL, protocol.NO_SPACE)
        assert "was killed" not in end.text, end  # nobody killed it
        peer.send(peer.run(4))
        assert peer.next(protocol.Exit, lambda m: m.attempt == 4).code == 3
        assert peer.end() == 0, peer.stderr
        assert "Traceback" not in peer.stderr


def test_a_bad_run_that_had_to_wait(tmp_path: Path) -> None:
    """It is looked at in a timer then, not where frames are read."""
    with Peer(tmp_path, "cat; exit 3\n") as peer:
        peer.begin(slots=1)
        peer.send(peer.run(2, stdin=True), peer.run(4, argv=b"make"), protocol.Close(2, 0))
        try:
            peer.next(protocol.Exit, lambda m: m.attempt == 4)
        except EOFError:
            assert peer.wait() == ProtocolError.exit_code, peer.stderr
        else:
            assert peer.end() == 0, peer.stderr


@pytest.mark.parametrize("number", [0, 65, 200, 1 << 31, 1 << 32, 1 << 63])
def test_signals_that_do_not_exist(tmp_path: Path, number: int) -> None:
    with Peer(tmp_path, "cat; exit 3\n") as peer:
        peer.begin()
        peer.send(peer.run(2, stdin=True), protocol.Signal(2, number), protocol.Close(2, 0))
        try:
            end = peer.next(protocol.Exit)
        except EOFError:
            assert peer.wait() == ProtocolError.exit_code, peer.stderr
        else:
            assert (end.code, end.infrastructure) == (3, "")
            assert peer.end() == 0


@pytest.mark.parametrize("count", [0, 1000, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("kind", [protocol.Offer, protocol.Recall])
def test_tokens_without_measure(
    tmp_path: Path, kind: type[protocol.Offer] | type[protocol.Recall], count: int
) -> None:
    with Peer(tmp_path, "cat; exit 3\n") as peer:
        peer.begin()
        peer.send(
            peer.run(2, stdin=True, jobserver=[3, 4], tokens=True), kind(2, count), protocol.Close(2, 0)
        )
        try:
            end = peer.next(protocol.Exit)
        except EOFError:
            assert peer.wait() == ProtocolError.exit_code, peer.stderr
        else:
            assert (end.code, end.infrastructure) == (3, "")
            assert peer.end() == 0


@pytest.mark.parametrize("lease_s", [1e-9, 0.001, 1e6, 1e9, 9e14])
def test_leases_without_measure(tmp_path: Path, lease_s: float) -> None:
    with Peer(tmp_path, "exit 3\n") as peer:
        peer.send(peer.welcome(lease_s=lease_s))
        try:
            peer.next(protocol.Beat)
        except EOFError:
            assert peer.wait() in (0, ProtocolError.exit_code), peer.stderr
        else:
            peer.end()
        assert "Traceback" not in peer.stderr


def test_a_flood_of_signals(tmp_path: Path) -> None:
    """More commands at once than the supervisor's socket holds."""
    with Peer(tmp_path, "trap '' WINCH; cat; exit 3\n") as peer:
        peer.begin()
        peer.send(peer.run(2, stdin=True), *[protocol.Signal(2, 28)] * 5000, protocol.Close(2, 0))
        assert peer.next(protocol.Exit).code == 3
        assert peer.end() == 0, peer.stderr


def test_a_frame_that_is_cut_off(tmp_path: Path) -> None:
    with Peer(tmp_path, _MAKE) as peer:
        peer.begin()
        _session(peer, encode(peer.run(2))[:-1])


def test_what_comes_before_welcome(tmp_path: Path) -> None:
    with Peer(tmp_path, _MAKE) as peer:
        peer.send(peer.run(2))
        assert peer.wait() == ProtocolError.exit_code
        assert "Run before Welcome" in peer.stderr


def test_a_second_welcome(tmp_path: Path) -> None:
    with Peer(tmp_path, _MAKE) as peer:
        peer.begin()
        peer.send(peer.welcome())
        assert peer.wait() == ProtocolError.exit_code
        assert "a second Welcome" in peer.stderr


def test_a_second_run_of_one_attempt(tmp_path: Path) -> None:
    with Peer(tmp_path, _MAKE) as peer:
        peer.begin()
        peer.send(peer.run(2, stdin=True), peer.run(2))
        assert peer.wait() == ProtocolError.exit_code
        assert "at work already" in peer.stderr
