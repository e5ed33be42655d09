"""The coordinator as a client of make's jobserver: pipe and fifo, and make's own ends left as they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from d1fleet.jobserver import JobserverClient, TokenPool
from d1fleet.loop import Loop


class Server:
    """make's side: a pool of tokens in a pipe or a fifo."""

    def __init__(self, loop: Loop, style: str, folder: Path) -> None:
        self._loop = loop
        self._style = style
        self._path = folder / "fifo"
        if style == "pipe":
            self.read, self.write = os.pipe()
        else:
            os.mkfifo(self._path)
            self.read = self.write = os.open(self._path, os.O_RDWR)

    def client(self) -> JobserverClient:
        if self._style == "pipe":
            return JobserverClient.of_pipe(self._loop, self.read, self.write)
        return JobserverClient(self._loop, str(self._path), str(self._path))

    def put(self, tokens: bytes) -> None:
        os.write(self.write, tokens)

    def pool(self) -> bytes:
        """What lies in it; taken out."""
        before = fcntl.fcntl(self.read, fcntl.F_GETFL)
        os.set_blocking(self.read, False)
        try:
            with contextlib.suppress(BlockingIOError):
                return os.read(self.read, 100)
            return b""
        finally:
            fcntl.fcntl(self.read, fcntl.F_SETFL, before)

    def close(self) -> None:
        for fd in {self.read, self.write}:
            os.close(fd)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(params=["pipe", "fifo"])
def server(request: pytest.FixtureRequest, loop: Loop, tmp_path: Path) -> Iterator[Server]:
    server = Server(loop, request.param, tmp_path)
    yield server
    server.close()


def test_take_and_give(server: Server) -> None:
    client = server.client()
    assert not client.take()
    server.put(b"+-")
    assert client.take() and client.take()
    assert not client.take()
    client.give(1)
    assert len(server.pool()) == 1
    client.close()
    assert len(server.pool()) == 1


def test_the_same_tokens_come_back(server: Server) -> None:
    """make may give them meanings of their own."""
    server.put(b"abc")
    client = server.client()
    for _ in range(3):
        assert client.take()
    client.close()
    assert sorted(server.pool()) == sorted(b"abc")


def test_no_more_comes_back_than_was_taken(server: Server) -> None:
    server.put(b"+")
    client = server.client()
    client.take()
    client.give(5)
    client.give(1)
    client.close()
    assert server.pool() == b"+"


def test_wait_calls_once_when_there_is_one(server: Server, loop: Loop) -> None:
    client = server.client()
    calls: list[bool] = []
    client.wait(lambda: calls.append(client.take()))
    loop.run_once(0)
    assert calls == []
    server.put(b"+")
    loop.run_once(5)
    server.put(b"+")
    loop.run_once(0)
    assert calls == [True]
    client.close()
    assert server.pool() == b"++"


def test_all_who_wait_are_called(server: Server, loop: Loop) -> None:
    """A job and what it calls on hosts wait at the same client."""
    client = server.client()
    calls: list[str] = []
    for name in ("first", "second"):
        client.wait(lambda name=name: calls.append(name))  # type: ignore[misc]
    server.put(b"+")
    loop.run_once(5)
    assert calls == ["first", "second"]
    client.close()
    client.wait(lambda: calls.append("late"))
    assert not client.take()
    assert server.pool() == b"+"


def test_makes_own_ends_stay_blocking(server: Server) -> None:
    client = server.client()
    assert not client.take()
    for fd in (server.read, server.write):
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    client.close()


def test_two_clients_share_one_pool(server: Server) -> None:
    server.put(b"+")
    first, second = server.client(), server.client()
    assert first.take() and not second.take()
    first.give(1)
    assert second.take()
    first.close()
    second.close()
    assert server.pool() == b"+"


def test_close_while_waiting(server: Server, loop: Loop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    client = server.client()
    calls: list[int] = []
    client.wait(lambda: calls.append(1))
    client.close()
    server.put(b"+")
    loop.run_once(0)
    assert calls == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_holds_makes_writing_end_after_close(loop: Loop) -> None:
    """A make that ends waits for that."""
    read, write = os.pipe()
    client = JobserverClient.of_pipe(loop, read, write)
    os.close(write)
    client.close()
    assert os.read(read, 1) == b""
    os.close(read)


@pytest.mark.parametrize("broken", ["read", "write"])
def test_ends_that_cannot_be_opened(loop: Loop, tmp_path: Path, broken: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    missing = str(tmp_path / "missing")
    before = len(os.listdir("/proc/self/fd"))
    ends = (missing, str(fifo)) if broken == "read" else (str(fifo), missing)
    with pytest.raises(OSError):
        JobserverClient(loop, *ends)
    assert len(os.listdir("/proc/self/fd")) == before


def test_unlimited() -> None:
    calls: list[int] = []
    source = TokenPool(None)
    assert source.take() and source.take()
    source.wait(lambda: calls.append(1))
    source.give(7)
    source.close()
    assert calls == [1]


class Waiting(RuleBasedStateMachine):
    """Some who want a token now and then: who wants one and finds none joins the line."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 3
        self.pool = TokenPool(self.tokens)
        self.line: list[tuple[int, bool]] = []
        """Who waits, and whether it still has use for a token."""
        self.held = 0
        self.number = 0

    def _wait(self, number: int, wants: bool) -> None:
        def called() -> None:
            assert self.line.pop(0) == (number, wants)  # first come, first served
            if wants and self.pool.take():
                self.held += 1
            elif wants:
                self._wait(number, wants)

        self.line.append((number, wants))
        self.pool.wait(called)

    @rule(wants=st.booleans())
    def want(self, wants: bool) -> None:
        """`wants` False: by the time that there is one, it has no use for it any more."""
        self.number += 1
        if self.pool.take():
            self.held += 1
        else:
            self._wait(self.number, wants)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.held))
        self.held -= count
        self.pool.give(count)

    @invariant()
    def nobody_waits_while_there_are_tokens(self) -> None:
        assert self.held <= self.tokens
        assert not self.line or self.held == self.tokens
        assert self.pool.short == bool(self.line)


Waiting.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_waiting = Waiting.TestCase


def test_in_a_pool_nobody_is_asked_twice_for_one_token() -> None:
    """Who joins the line again from within its turn has its next turn with the next token."""
    pool = TokenPool(0)
    calls: list[int] = []

    def called() -> None:
        calls.append(1)
        pool.wait(called)

    pool.wait(called)
    pool.give(1)
    assert calls == [1]
