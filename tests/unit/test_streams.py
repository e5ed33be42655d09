"""Streams of a shim at the coordinator: nothing blocks, nothing changes for those who share them."""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet.locks import try_lock
from d1fleet.loop import Loop
from d1fleet.streams import Sink, Source

PIPE = 65536
"""A pipe's usual capacity."""


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def _is_blocking(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


class Out:
    """A sink, and what it said."""

    def __init__(self, loop: Loop, fd: int, lock_fd: int | None = None) -> None:
        self.loop = loop
        self.written = 0
        self.broken = 0
        self.sink = Sink(loop, fd, self._count, self._break, lock_fd)

    def _count(self, amount: int) -> None:
        assert amount > 0
        self.written += amount

    def _break(self) -> None:
        self.broken += 1


# -- Sink: what it writes to -------------------------------------------------------------------------


def test_pipe(loop: Loop) -> None:
    read, write = os.pipe()
    out = Out(loop, write)
    out.sink.write(b"one ")
    out.sink.write(b"two\xff")
    assert os.read(read, 100) == b"one two\xff"
    assert (out.written, out.sink.empty) == (8, True)
    assert _is_blocking(write) and _is_blocking(read)
    out.sink.close()
    for fd in (read, write):
        os.close(fd)


def test_slow_reader_of_a_pipe(loop: Loop) -> None:
    """It keeps what the pipe does not take, in order, and never blocks; make's own end stays as it is."""
    read, write = os.pipe()
    out = Out(loop, write)
    parts = [bytes([65 + number]) * 30_000 for number in range(10)]
    done: list[bool] = []
    for part in parts:
        out.sink.write(part)
    out.sink.on_empty = lambda: done.append(True)
    full = out.written
    assert not out.sink.empty and full <= PIPE
    assert _is_blocking(write)
    loop.run_once(0)
    assert out.written == full
    got = b""
    while not done:
        got += os.read(read, 5000)
        loop.run_once(0)
    got += os.read(read, PIPE)
    assert got == b"".join(parts)
    assert (out.written, out.sink.empty, done) == (300_000, True, [True])
    assert _is_blocking(write) and _is_blocking(read)
    out.sink.close()
    for fd in (read, write):
        os.close(fd)


def test_closed_reader(loop: Loop) -> None:
    read, write = os.pipe()
    out = Out(loop, write)
    os.close(read)
    out.sink.write(b"x")
    out.sink.write(b"y")
    assert (out.broken, out.written, out.sink.broken) == (1, 0, True)
    out.sink.close()
    os.close(write)


def test_reader_that_goes_while_data_waits(loop: Loop) -> None:
    read, write = os.pipe()
    out = Out(loop, write)
    done: list[bool] = []
    out.sink.write(b"x" * 200_000)
    out.sink.on_empty = lambda: done.append(True)
    os.close(read)
    loop.run_once(5)
    assert (out.broken, done) == (1, [True])
    out.sink.close()
    os.close(write)


def test_file_keeps_its_offset_and_its_other_writers(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"before ")
    out = Out(loop, fd)
    out.sink.write(b"ours ")
    os.write(fd, b"after")
    assert path.read_bytes() == b"before ours after"
    out.sink.close()
    os.close(fd)


def test_file_for_appending(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old ")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    out = Out(loop, fd)
    with path.open("ab") as other:
        other.write(b"other ")
    out.sink.write(b"ours")
    assert path.read_bytes() == b"old other ours"
    out.sink.close()
    os.close(fd)


def test_full_disk_is_a_broken_stream(loop: Loop) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    out = Out(loop, fd)
    out.sink.write(b"x")
    assert out.broken == 1
    out.sink.close()
    os.close(fd)


def test_a_descriptor_that_is_only_for_reading(loop: Loop) -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    out = Out(loop, fd)
    out.sink.write(b"x")
    assert out.broken == 1
    out.sink.close()
    os.close(fd)


def test_terminal(loop: Loop) -> None:
    ours, theirs = pty.openpty()
    out = Out(loop, theirs)
    out.sink.write(b"x\n")
    assert os.read(ours, 100) == b"x\r\n"
    assert _is_blocking(theirs)
    out.sink.close()
    for fd in (ours, theirs):
        os.close(fd)


def test_terminal_that_is_stopped(loop: Loop) -> None:
    """Ctrl-S holds up this job's output and nothing else."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    out = Out(loop, theirs)
    termios.tcflow(theirs, termios.TCOOFF)
    out.sink.write(b"x" * 100)
    loop.run_once(0)
    assert out.written == 0
    termios.tcflow(theirs, termios.TCOON)
    while not out.sink.empty:
        loop.run_once(1)
    assert os.read(ours, 200) == b"x" * 100
    assert _is_blocking(theirs)
    out.sink.close()
    for fd in (ours, theirs):
        os.close(fd)


def test_terminal_whose_window_was_closed(loop: Loop) -> None:
    ours, theirs = pty.openpty()
    out = Out(loop, theirs)
    os.close(ours)
    out.sink.write(b"x")
    assert out.broken == 1
    out.sink.close()
    os.close(theirs)


def test_socket(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    out = Out(loop, theirs.fileno())
    done: list[bool] = []
    data = os.urandom(3_000_000)
    out.sink.write(data)
    assert not out.sink.empty
    assert theirs.getblocking() and _is_blocking(theirs.fileno())
    out.sink.on_empty = lambda: done.append(True)
    got = bytearray()
    while len(got) < len(data):
        got += ours.recv(1 << 20)
        loop.run_once(0)
    assert (bytes(got), done) == (data, [True])
    assert _is_blocking(theirs.fileno())
    ours.close()
    out.sink.write(b"x")
    assert out.broken == 1
    out.sink.close()
    theirs.close()


def test_pipe_that_cannot_be_opened_anew(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's pipe (after su): written in portions that do not block."""
    monkeypatch.setattr("d1fleet.streams._reopen", lambda fd, flags: None)
    read, write = os.pipe()
    high = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, 1500) if _may_have(1500) else os.dup(write)
    out = Out(loop, high)
    data = os.urandom(200_000)
    out.sink.write(data)
    assert out.written <= PIPE
    got = b""
    while len(got) < len(data):
        got += os.read(read, 7000)
        loop.run_once(0)
    assert got == data
    assert _is_blocking(write)
    out.sink.close()
    for fd in (read, write, high):
        os.close(fd)


def _may_have(number: int) -> bool:

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] > number


def test_close_forgets_what_waits_and_gives_back(loop: Loop) -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    out = Out(loop, write)
    out.sink.write(b"x" * 200_000)
    out.sink.close()
    assert len(os.listdir("/proc/self/fd")) == before
    full = out.written
    os.read(read, PIPE)
    loop.run_once(0)
    out.sink.write(b"more")
    assert out.sink.empty and out.written == full
    for fd in (read, write):
        os.close(fd)


# -- Sink: make's output lock ----------------------------------------------------------------------------

_HOLDER = """
import fcntl, os, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""

_PROBE = """
import fcntl, sys
try:
    fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("held")
else:
    print("free")
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def _state(lock: int) -> str:
    """Whether another make could have the lock: POSIX locks, in another process, as make takes them."""
    command = [sys.executable, "-c", _PROBE, str(lock)]
    return subprocess.run(command, pass_fds=[lock], capture_output=True, text=True, timeout=30).stdout.strip()


@pytest.fixture
def holder(lock: int) -> Iterator[Callable[[], None]]:
    """Another make that has the lock; calling it lets go."""
    command = [sys.executable, "-c", _HOLDER, str(lock)]
    with subprocess.Popen(command, pass_fds=[lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"held\n"

        def release() -> None:
            process.communicate(b"\n", timeout=30)

        yield release
        if process.poll() is None:
            release()


def test_the_lock_is_held_over_a_group(loop: Loop, lock: int) -> None:
    read, write = os.pipe()
    out = Out(loop, write, lock)
    out.sink.write(b"a", group_end=False)
    assert _state(lock) == "held"
    out.sink.write(b"b", group_end=True)
    assert _state(lock) == "free"
    out.sink.write(b"c", group_end=False)
    out.sink.write(b"", group_end=True)
    assert _state(lock) == "free"
    assert os.read(read, 10) == b"abc"
    out.sink.write(b"d", group_end=False)
    out.sink.close()
    assert _state(lock) == "free"
    for fd in (read, write):
        os.close(fd)


def test_waits_for_the_lock_and_then_gives_it_back(loop: Loop, lock: int, holder: Callable[[], None]) -> None:
    """The group's end may come before the lock was had."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    out = Out(loop, write, lock)
    out.sink.write(b"a", group_end=False)
    out.sink.write(b"b", group_end=False)
    out.sink.write(b"", group_end=True)
    loop.run_once(0.01)
    assert out.written == 0
    holder()
    while not out.sink.empty:
        loop.run_once(1)
    assert os.read(read, 10) == b"ab"
    assert _state(lock) == "free"
    out.sink.close()
    for fd in (read, write):
        os.close(fd)


def test_many_writes_wait_for_the_lock_as_one(
    loop: Loop, lock: int, holder: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def counted(fd: int) -> bool:
        tries.append(fd)
        return try_lock(fd)

    monkeypatch.setattr("d1fleet.streams.try_lock", counted)
    read, write = os.pipe()
    out = Out(loop, write, lock)
    for _ in range(200):
        out.sink.write(b"x", group_end=True)
    tries.clear()
    loop.run_once()
    loop.run_once()
    assert 1 <= len(tries) <= 4
    holder()
    while not out.sink.empty:
        loop.run_once(1)
    assert os.read(read, 1000) == b"x" * 200
    out.sink.close()
    for fd in (read, write):
        os.close(fd)


def test_a_broken_stream_lets_go_of_the_lock(loop: Loop, lock: int) -> None:
    read, write = os.pipe()
    out = Out(loop, write, lock)
    out.sink.write(b"a", group_end=False)
    os.close(read)
    out.sink.write(b"b", group_end=False)
    assert out.broken == 1
    assert _state(lock) == "free"
    out.sink.close()
    os.close(write)


# -- Source ------------------------------------------------------------------------------------------


class In:
    """A source, and what it gave."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.loop = loop
        self.data = b""
        self.ends = 0
        self.source = Source(loop, fd, self._take, self._end)
        self.source.start()

    def _take(self, data: bytes) -> None:
        assert data
        self.data += data

    def _end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("name", ["pipe", "file", "end of file", "null", "terminal"])
def test_what_is_forwarded(tmp_path: Path, name: str) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"text")
    fds = [os.open(path, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY), *os.pipe(), *pty.openpty()]
    chosen = {"pipe": fds[2], "file": fds[0], "end of file": fds[0], "null": fds[1], "terminal": fds[5]}[name]
    if name == "end of file":
        os.lseek(fds[0], 0, os.SEEK_END)
    assert Source.forwards(chosen) is (name in ("pipe", "file"))
    for fd in fds:
        os.close(fd)


def test_a_pipe_is_given_and_taken_as_it_is_used(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, b"one\ntwo\n")
    got = In(loop, read)
    loop.run_once(5)
    assert got.data == b"one\ntwo\n"
    got.source.used(4)
    got.source.close()
    # The loop around the make reads on where the make stopped.
    assert os.read(read, 100) == b"two\n"
    assert _is_blocking(read)
    for fd in (read, write):
        os.close(fd)


def test_a_pipe_that_is_not_read_stays_full(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, b"all of it")
    got = In(loop, read)
    loop.run_once(5)
    got.source.close()
    assert got.data == b"all of it"
    assert os.read(read, 100) == b"all of it"
    for fd in (read, write):
        os.close(fd)


def test_a_pipe_to_its_end(loop: Loop) -> None:
    read, write = os.pipe()
    got = In(loop, read)
    sent = b""
    for number in range(20):
        part = bytes([65 + number]) * 10_000
        sent += part
        os.write(write, part)
        loop.run_once(5)
        assert got.data == sent
        got.source.used(10_000)
    assert got.ends == 0
    os.close(write)
    loop.run_once(5)
    assert got.ends == 1
    assert got.data == sent
    got.source.close()
    os.close(read)


def test_the_end_waits_for_nothing_but_the_data(loop: Loop) -> None:
    """`echo x | make`: the job has both at once, before it has read anything."""
    read, write = os.pipe()
    os.write(write, b"x\n")
    os.close(write)
    got = In(loop, read)
    loop.run_once(5)
    assert (got.data, got.ends) == (b"x\n", 1)
    got.source.used(2)
    loop.run_once(0)
    assert got.ends == 1
    assert os.read(read, 10) == b""
    got.source.close()
    os.close(read)


def test_an_empty_pipe_ends_at_once(loop: Loop) -> None:
    read, write = os.pipe()
    os.close(write)
    got = In(loop, read)
    loop.run_once(5)
    assert (got.data, got.ends) == (b"", 1)
    got.source.close()
    os.close(read)


def test_more_than_a_pipe_in_pieces(loop: Loop) -> None:
    read, write = os.pipe()
    got = In(loop, read)
    os.write(write, b"a" * PIPE)
    loop.run_once(5)
    assert len(got.data) == PIPE
    got.source.used(1000)
    assert len(got.data) == PIPE  # nothing twice
    got.source.used(PIPE - 1000)
    os.write(write, b"b" * 500)
    loop.run_once(5)
    assert got.data == b"a" * PIPE + b"b" * 500
    got.source.close()
    for fd in (read, write):
        os.close(fd)


def test_a_claim_above_what_was_given_takes_no_more(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, b"abc")
    got = In(loop, read)
    loop.run_once(5)
    os.write(write, b"def")
    got.source.used(1 << 40)
    got.source.close()
    assert os.read(read, 10) == b"def"
    for fd in (read, write):
        os.close(fd)


def test_a_file_is_read_ahead_and_its_offset_follows(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "list"
    data = os.urandom(200_000)
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 100, os.SEEK_SET)
    got = In(loop, fd)
    assert got.data == data[100 : 100 + PIPE]
    assert os.lseek(fd, 0, os.SEEK_CUR) == 100
    got.source.used(40_000)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 40_100
    assert got.data == data[100 : 100 + 40_000 + PIPE]
    got.source.close()
    # What the make did not read is the caller's.
    assert os.read(fd, 10) == data[40_100:40_110]
    os.close(fd)


def test_a_file_to_its_end(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "list"
    data = os.urandom(150_000)
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    got = In(loop, fd)
    used = 0
    while used < len(data):
        assert len(got.data) > used
        amount = len(got.data) - used
        got.source.used(amount)
        used += amount
    got.source.close()
    assert (got.data, got.ends) == (data, 1)
    assert os.read(fd, 1) == b""
    os.close(fd)


def test_source_gives_back_its_descriptors(loop: Loop) -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    got = In(loop, read)
    os.write(write, b"x")
    loop.run_once(5)
    got.source.close()
    assert len(os.listdir("/proc/self/fd")) == before
    loop.run_once(0)
    got.source.used(1)
    for fd in (read, write):
        os.close(fd)
