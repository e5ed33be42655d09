"""A make's output pipe: read as far as credit goes, ended by the make's end, cut between groups."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.loop import Loop
from d1fleet.protocol import OUTPUT_CHUNK, STREAM_CREDIT
from d1fleet.server.output import OutputPipe


class Out:
    """A pipe, the make's end of it, and what was sent."""

    def __init__(self, lock: int | None = None) -> None:
        self.loop = Loop()
        self.sent: list[tuple[bytes, bool]] = []
        self.ended = 0
        self.is_busy = False
        self.pipe = OutputPipe(
            self.loop, lambda data, end: self.sent.append((data, end)), lambda: self.is_busy
        )
        self.make = os.dup(self.pipe.write_fd)
        os.set_blocking(self.make, False)
        self.pipe.started(lock)

    @property
    def data(self) -> bytes:
        return b"".join(data for data, _ in self.sent)

    def write(self, data: bytes) -> int:
        try:
            return os.write(self.make, data)
        except BlockingIOError:
            return 0

    def serve(self) -> None:
        for _ in range(10):
            self.loop.run_once(0)

    def finish(self) -> None:
        def end() -> None:
            self.ended += 1

        self.pipe.finish(end)

    def hang_up(self) -> None:
        os.close(self.make)
        self.make = -1

    def close(self) -> None:
        self.pipe.close()
        if self.make >= 0:
            self.hang_up()
        self.loop.close()


@pytest.fixture
def out() -> Iterator[Out]:
    out = Out()
    yield out
    out.close()


def test_what_comes_is_sent(out: Out) -> None:
    out.write(b"one\xff")
    out.serve()
    out.write(b"two")
    out.serve()
    assert [data for data, _ in out.sent] == [b"one\xff", b"two"]


def test_no_more_than_credit(out: Out) -> None:
    total = 0
    for _ in range(40):
        total += out.write(b"x" * OUTPUT_CHUNK)
        out.serve()
    assert len(out.data) == STREAM_CREDIT
    assert all(len(data) <= OUTPUT_CHUNK for data, _ in out.sent)
    assert total <= STREAM_CREDIT + OUTPUT_CHUNK
    out.pipe.credit(1000)
    out.serve()
    assert len(out.data) == STREAM_CREDIT + 1000


def test_a_busy_connection_holds_it_up(out: Out) -> None:
    out.is_busy = True
    out.write(b"x")
    out.serve()
    assert out.sent == []
    out.is_busy = False
    out.pipe.resume()
    out.serve()
    assert out.data == b"x"


def test_the_end_is_when_the_pipe_is_empty_and_not_when_it_is_closed(out: Out) -> None:
    """A daemon that the make has left may hold it for ever."""
    out.write(b"last words")
    out.finish()
    assert (out.data, out.ended) == (b"last words", 1)
    out.pipe.close()
    assert out.ended == 1


def test_the_end_of_a_pipe_that_was_closed(out: Out) -> None:
    out.hang_up()
    out.serve()
    assert out.ended == 0
    out.finish()
    assert out.ended == 1


def test_the_end_waits_for_credit(out: Out) -> None:
    while len(out.data) < STREAM_CREDIT:
        out.write(b"x" * OUTPUT_CHUNK)
        out.serve()
    out.write(b"y" * 100)
    out.finish()
    out.serve()
    assert out.ended == 0
    out.pipe.credit(99)
    assert (out.data[STREAM_CREDIT:], out.ended) == (b"y" * 99, 0)
    out.pipe.credit(1)
    out.serve()
    assert out.data[STREAM_CREDIT:] == b"y" * 100
    out.pipe.credit(1)
    assert out.ended == 1


def test_the_end_waits_for_the_connection(out: Out) -> None:
    out.is_busy = True
    out.write(b"x")
    out.finish()
    assert out.ended == 0
    out.is_busy = False
    out.pipe.resume()
    assert (out.data, out.ended) == (b"x", 1)


def test_a_reader_that_is_gone_breaks_the_pipe(out: Out) -> None:
    out.pipe.close()
    with pytest.raises(BrokenPipeError):
        os.write(out.make, b"x")


def test_a_pipe_that_never_got_to_a_make_gives_everything_back() -> None:
    loop = Loop()
    before = len(os.listdir("/proc/self/fd"))
    pipe = OutputPipe(loop, lambda *_: None, lambda: False)
    pipe.close()
    assert len(os.listdir("/proc/self/fd")) == before
    loop.close()


# -- groups ------------------------------------------------------------------------------------------

_HOLDER = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def group(lock: int) -> Iterator[Out]:
    out = Out(lock)
    yield out
    out.close()


def _ends(out: Out) -> list[int]:
    """At how many bytes a group was said to end."""
    found, at = [], 0
    for data, end in out.sent:
        at += len(data)
        if end:
            found.append(at)
    return found


def _until(out: Out, at: int) -> None:
    """Until a group is said to end there; the test's own limit of time bounds it."""
    while at not in _ends(out):
        out.loop.run_once(0.05)


def test_a_whole_group_is_said_to_end(group: Out) -> None:
    group.write(b"group")
    group.serve()
    _until(group, 5)
    assert _ends(group) == [5]


def test_a_group_ends_when_its_writer_lets_go(group: Out, lock: int) -> None:
    command = [sys.executable, "-c", _HOLDER, str(lock)]
    with subprocess.Popen(command, pass_fds=[lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout and writer.stdout.readline() == b"held\n"
        group.write(b"first half ")
        group.serve()
        assert (group.data, _ends(group)) == (b"first half ", [])
        group.write(b"second half")
        group.serve()
        assert _ends(group) == []
        writer.communicate(b"\n", timeout=30)
    _until(group, 22)
    assert _ends(group)[0] == 22


def test_a_group_cut_by_credit_has_not_ended(group: Out) -> None:
    """The rest of it is in the pipe: whoever writes in between tears it."""
    group.pipe.credit(-(STREAM_CREDIT - 100))
    group.write(b"g" * 1000)
    group.serve()
    assert (len(group.data), _ends(group)) == (100, [])
    group.pipe.credit(2000)
    group.serve()
    _until(group, 1000)
    assert _ends(group) == [1000]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("credit", [OUTPUT_CHUNK, 500])
def test_a_group_that_ends_where_a_read_ends(group: Out, credit: int) -> None:
    """The reader cannot see at once that it was all; it says so soon after."""
    group.pipe.credit(credit - STREAM_CREDIT)
    group.write(b"g" * credit)
    group.serve()
    assert len(group.data) == credit
    group.pipe.credit(STREAM_CREDIT)
    group.serve()
    _until(group, credit)


def test_without_a_lock_nothing_is_a_group(out: Out) -> None:
    out.write(b"x")
    out.serve()
    assert _ends(out) == []


def test_the_lock_is_given_back_after_each_look(group: Out, lock: int) -> None:
    group.write(b"x")
    group.serve()
    probe = "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    assert (
        subprocess.run([sys.executable, "-c", probe, str(lock)], pass_fds=[lock], timeout=30).returncode == 0
    )
    assert fcntl.fcntl(lock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
