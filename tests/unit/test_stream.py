"""A byte stream on two descriptors: pushed reads, writes that never block, one end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from d1fleet.loop import Loop
from d1fleet.stream import FdStream


class Talk:
    """A stream, and the other ends of its two descriptors."""

    def __init__(self) -> None:
        self.loop = Loop()
        read, self.to = os.pipe()
        self.back, write = os.pipe()
        os.set_blocking(self.back, False)
        self.data = bytearray()
        self.ends = 0
        self.drains = 0
        self.stream = FdStream(self.loop, read, write, self.data.extend, self._ended)
        self.stream.on_drain = self._drained

    def _ended(self) -> None:
        self.ends += 1

    def _drained(self) -> None:
        self.drains += 1

    def take(self, size: int = 1 << 20) -> bytes:
        try:
            return os.read(self.back, size)
        except BlockingIOError:
            return b""

    def hang_up(self) -> None:
        os.close(self.to)
        self.to = -1

    def finish(self) -> None:
        self.stream.close()
        self.loop.close()
        for fd in (self.to, self.back):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk()
    yield talk
    talk.finish()


def test_data_comes_as_it_is_sent(talk: Talk) -> None:
    os.write(talk.to, b"a\0\xff")
    talk.loop.run_once(5)
    assert talk.data == b"a\0\xff"
    talk.loop.run_once(0)
    assert talk.ends == 0


def test_the_end_comes_once_behind_all_data(talk: Talk) -> None:
    os.write(talk.to, b"x" * 1000)
    talk.hang_up()
    for _ in range(3):
        talk.loop.run_once(0)
    assert (len(talk.data), talk.ends) == (1000, 1)


def test_a_small_write_goes_out_at_once(talk: Talk) -> None:
    talk.stream.send(b"now")
    assert talk.take() == b"now"
    assert talk.stream.backlog == 0


def test_much_waits_in_order_and_says_when_it_has_gone(talk: Talk) -> None:
    parts = [bytes([number]) * 100_000 for number in range(10)]
    for part in parts:
        talk.stream.send(part)
    assert 0 < talk.stream.backlog <= 1_000_000
    got = bytearray()
    while talk.drains == 0:
        got += talk.take(1 << 16)
        talk.loop.run_once(0)
    got += talk.take()
    assert got == b"".join(parts)
    assert (talk.stream.backlog, talk.drains) == (0, 1)
    talk.loop.run_once(0)  # it is not watched for writing any more
    assert talk.drains == 1


def test_a_reader_that_goes_is_no_error(talk: Talk) -> None:
    os.close(talk.back)
    talk.back = -1
    talk.stream.send(b"x")
    talk.stream.send(b"y")
    assert talk.ends == 0  # the reading side reports the end


def test_a_reader_that_goes_with_a_backlog(talk: Talk) -> None:
    talk.stream.send(b"x" * 1_000_000)
    assert talk.stream.backlog
    os.close(talk.back)
    talk.back = -1
    talk.loop.run_once(5)
    assert talk.stream.backlog == 0


def test_closed_is_closed(talk: Talk) -> None:
    talk.stream.send(b"x" * 1_000_000)
    talk.stream.close()
    talk.stream.close()
    talk.stream.send(b"more")
    talk.loop.run_once(0)
    assert (talk.stream.backlog, talk.ends) == (0, 0)


def test_closed_by_the_callback_for_data() -> None:
    loop = Loop()
    read, to = os.pipe()
    back, write = os.pipe()
    got: list[bytes] = []

    def on_data(data: bytes) -> None:
        got.append(data)
        stream.close()

    stream = FdStream(loop, read, write, on_data, lambda: got.append(b"end"))
    os.write(to, b"x")
    loop.run_once(5)
    loop.run_once(0)
    assert got == [b"x"]
    for fd in (to, back):
        os.close(fd)
    loop.close()


def test_a_socket_serves_both_ways() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    fd = ours.detach()
    got = bytearray()
    ended: list[int] = []
    stream = FdStream(loop, fd, fd, got.extend, lambda: ended.append(1))
    stream.send(b"q" * 5_000_000)
    theirs.send(b"answer")
    theirs.setblocking(False)
    size = 0
    while size < 5_000_000:
        loop.run_once(1)
        try:
            size += len(theirs.recv(1 << 20))
        except BlockingIOError:
            continue
    loop.run_once(0)
    assert (bytes(got), stream.backlog) == (b"answer", 0)
    theirs.close()
    loop.run_once(5)
    assert ended == [1]
    stream.close()
    loop.close()


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_sizes_around_a_pipes_capacity(talk: Talk, size: int) -> None:
    data = os.urandom(size)
    talk.stream.send(data)
    got = bytearray()
    while len(got) < size:
        got += talk.take()
        talk.loop.run_once(0)
    assert got == data
