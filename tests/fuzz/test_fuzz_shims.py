"""Whatever connects to the socket of shims gets an answer or none; nothing is raised, nothing stays open."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import struct
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d1fleet.errors import ProtocolError
from d1fleet.loop import Loop
from d1fleet.protocol import MAX_PAYLOAD, unpack_block
from d1fleet.shims import EXIT, INFRASTRUCTURE, ShimConnection, ShimRequest, parse_request

from .messages import EXAMPLES, mutated
from .peer import same_descriptors

pytestmark = pytest.mark.timeout(300)


def body(
    argv: Sequence[bytes] = (b"make", b"all"),
    folder: bytes = b"/tree",
    environment: Sequence[bytes] = (b"A=1",),
    flags: int = 2 | 4 | 8,
    limits: Sequence[tuple[int, int]] = ((7, 1024),),
    umask: int = 0o22,
    ignored: int = 0,
    magic: bytes = b"D1S1",
) -> bytes:
    """A request as shim.c makes it, without the length in front."""
    blocks = [b"".join(item + b"\0" for item in items) for items in (argv, environment)]
    return b"".join(
        [
            struct.pack("!4sIIQI", magic, flags, umask, ignored, len(limits)),
            *(struct.pack("!IQ", *limit) for limit in limits),
            struct.pack("!IIII", len(argv), len(blocks[0]), len(folder), len(blocks[1])),
            blocks[0],
            folder,
            blocks[1],
        ]
    )


def framed(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def _usable(request: ShimRequest) -> None:
    """What the coordinator takes for granted of a request that was not refused."""
    assert request.arguments
    unpack_block(request.environment)
    assert b"\0" not in request.folder
    assert request.umask <= 0o777
    assert len(request.limits) % 2 == 0


# -- parse_request -----------------------------------------------------------------------------------


def test_a_request() -> None:
    limits = [(0, (1 << 64) - 1), (7, 64)]
    data = body(
        [b"make", b"-C", b"\xff "], b"/a\nb", [b"X=\xfe", b"Y="], 1 | 4 | 8 | 16, limits, 0o77, 1 << 63
    )
    request = parse_request(data, [10, 11, 12, 13])
    assert request.arguments == [b"make", b"-C", b"\xff "]
    assert (request.folder, request.environment) == (b"/a\nb", b"X=\xfe\0Y=\0")
    assert (request.umask, request.ignored, request.same) == (0o77, 1 << 63, True)
    assert request.limits == [0, (1 << 64) - 1, 7, 64]
    assert request.fds == {1: 10, 2: 11}
    assert request.jobserver == (12, 13)


REFUSED: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 0),
    "another magic": (body(magic=b"D1S2"), 3),
    "many limits": (body(limits=[(0, 0)] * 65), 3),
    "no arguments": (body(argv=[]), 3),
    "cut off": (body()[:-1], 3),
    "too long": (body() + b"\0", 3),
    "one descriptor missing": (body(), 2),
    "one descriptor too many": (body(), 4),
    "jobserver missing": (body(flags=2 | 4 | 8 | 16), 3),
    "folder with NUL": (body(folder=b"/a\0b"), 3),
    "umask": (body(umask=0o1000), 3),
    "argv without NUL": (body(argv=[b"", b"x"]).replace(b"\0x\0/tree", b"\0\0x/tree"), 3),
    "environment without NUL": (body(environment=[b"", b"A"]).replace(b"\0A\0", b"\0\0A"), 3),
    "argument count": (body().replace(b"\0\0\0\x02\0\0\0\x09", b"\0\0\0\x03\0\0\0\x09"), 3),
}


@pytest.mark.parametrize(("data", "fds"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, fds: int) -> None:
    with pytest.raises(ProtocolError):
        parse_request(data, list(range(10, 10 + fds)))


@settings(max_examples=300 * EXAMPLES, deadline=None)
@given(st.one_of(st.binary(max_size=200), mutated(st.just(body()))), st.integers(0, 6))
def test_any_body(data: bytes, fds: int) -> None:
    try:
        request = parse_request(data, list(range(10, 10 + fds)))
    except ProtocolError:
        return
    _usable(request)


# -- the connection ------------------------------------------------------------------------------------


class Talk:
    """A shim's end of a socket pair, and the connection at the coordinator."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.shim, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.shim.settimeout(20.0)
        self.requests: list[ShimRequest] = []
        self.signals: list[int] = []
        self.gone = 0
        self.connection = ShimConnection(
            self.loop, ours, 1, self._asked, self.signals.append, self._gone, lambda _: None
        )

    def _asked(self, _: ShimConnection, request: ShimRequest) -> None:
        self.requests.append(request)

    def _gone(self) -> None:
        self.gone += 1

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """One message, and what the connection makes of it."""
        try:
            if fds:
                socket.send_fds(self.shim, [data], fds)
            else:
                self.shim.sendall(data)
        except BrokenPipeError:
            return
        self.loop.run_once(0)

    def serve(self) -> None:
        for _ in range(4):
            self.loop.run_once(0)

    def close(self) -> None:
        for request in self.requests:
            request.close()
        self.connection.close()
        self.shim.close()
        self.loop.close()


_NULL = os.devnull


@settings(max_examples=120 * EXAMPLES, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=100), st.just(framed(body())), mutated(st.just(framed(body()) + b"\x0f\x02"))
    ),
    st.lists(st.integers(1, 100), max_size=4),
    st.integers(0, 12),
)
@example(framed(body()), [], 3)
@example(framed(body()), [2, 4], 3)
@example(b"\xff\xff\xff\xff", [], 3)
def test_any_talk(data: bytes, cuts: list[int], count: int) -> None:
    with same_descriptors():
        talk = Talk()
        null = os.open(_NULL, os.O_RDWR)
        marks = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
        for number, (start, end) in enumerate(itertools.pairwise(marks)):
            talk.send(data[start:end], [null] * count if number == 0 else [])
        talk.shim.shutdown(socket.SHUT_WR)
        talk.serve()
        assert len(talk.requests) <= 1
        assert talk.gone <= 1
        for request in talk.requests:
            _usable(request)
            assert talk.gone == 1
        talk.serve()
        # Heard to its end it is told nothing; refused, that it is lost: never that it may run.
        assert talk.shim.recv(1) in (b"", INFRASTRUCTURE)
        os.close(null)
        talk.close()


def test_a_request_byte_by_byte_and_the_reply() -> None:
    talk = Talk()
    with open(_NULL) as null:
        data = framed(body())
        talk.send(data[:1], [null.fileno()] * 3)
        for at in range(1, len(data)):
            assert not talk.requests
            talk.send(data[at : at + 1])
    (request,) = talk.requests
    assert sorted(request.fds) == [0, 1, 2]
    assert all(not os.get_inheritable(fd) for fd in request.fds.values())
    talk.connection.reply(EXIT, 7)
    assert talk.shim.recv(10) == b"X\0\0\0\x07"
    assert talk.shim.recv(1) == b""
    talk.close()


@pytest.mark.parametrize("apart", [True, False])
def test_signals_behind_the_request(apart: bool) -> None:
    """Those that come in one piece with the request count too."""
    talk = Talk()
    words = bytes([signal.SIGTERM, signal.SIGINT])
    with open(_NULL) as null:
        talk.send(framed(body()) + (b"" if apart else words), [null.fileno()] * 3)
    if apart:
        talk.send(words)
    assert talk.signals == [signal.SIGTERM, signal.SIGINT]
    assert len(talk.requests) == 1
    talk.close()


def test_a_shim_that_is_killed() -> None:
    talk = Talk()
    with open(_NULL) as null:
        talk.send(framed(body()), [null.fileno()] * 3)
    talk.shim.close()
    talk.serve()
    assert talk.gone == 1
    talk.connection.reply(EXIT, 0)  # too late, and no error
    talk.close()


def test_too_long_is_refused_before_it_comes() -> None:
    talk = Talk()
    talk.send(struct.pack("!I", MAX_PAYLOAD + 1))
    assert talk.shim.recv(1) == INFRASTRUCTURE
    talk.close()


def test_a_refused_request_closes_its_descriptors() -> None:
    talk = Talk()
    read, write = os.pipe()
    talk.send(framed(body(magic=b"xxxx")), [write] * 3)
    os.close(write)
    assert os.read(read, 1) == b""  # nobody holds the writing end any more
    os.close(read)
    talk.close()
