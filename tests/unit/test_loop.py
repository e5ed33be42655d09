"""The event loop: descriptors, timers, posts, and what happens when they change each other."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from d1fleet.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield read, write
    os.close(read)
    os.close(write)


def test_time_goes_on_while_the_machine_sleeps() -> None:
    assert abs(Loop.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5


def test_readable_until_it_is_read(loop: Loop, pipe: tuple[int, int]) -> None:
    found: list[bytes] = []
    loop.on_read(pipe[0], lambda: found.append(os.read(pipe[0], 1)))
    loop.run_once(0)
    assert found == []
    os.write(pipe[1], b"ab")
    loop.run_once(1)
    loop.run_once(1)
    loop.run_once(0)
    assert found == [b"a", b"b"]
    loop.forget(pipe[0])


def test_the_end_of_a_pipe_is_readable(loop: Loop) -> None:
    read, write = os.pipe()
    os.close(write)
    found: list[bytes] = []
    loop.on_read(read, lambda: found.append(os.read(read, 1)))
    loop.run_once(1)
    assert found == [b""]
    loop.forget(read)
    os.close(read)


def test_a_broken_pipe_is_writable(loop: Loop) -> None:
    read, write = os.pipe()
    os.close(read)
    called: list[int] = []
    loop.on_write(write, lambda: called.append(1))
    loop.run_once(1)
    assert called
    loop.forget(write)
    os.close(write)


def test_the_last_callback_counts_and_none_stops(loop: Loop, pipe: tuple[int, int]) -> None:
    calls: list[str] = []
    loop.on_write(pipe[1], lambda: calls.append("first"))
    loop.on_write(pipe[1], lambda: calls.append("second"))
    loop.run_once(1)
    loop.on_write(pipe[1], None)
    loop.on_write(pipe[1], None)
    loop.run_once(0)
    assert calls == ["second"]


def test_one_descriptor_both_ways(loop: Loop) -> None:

    ours, theirs = socket.socketpair()
    calls: list[str] = []
    loop.on_read(ours.fileno(), lambda: calls.append("read"))
    loop.on_write(ours.fileno(), lambda: calls.append("write"))
    theirs.send(b"x")
    loop.run_once(1)
    assert calls == ["read", "write"]
    loop.on_read(ours.fileno(), None)
    loop.run_once(1)
    assert calls == ["read", "write", "write"]
    loop.forget(ours.fileno())
    loop.run_once(0)
    assert len(calls) == 3
    ours.close()
    theirs.close()


def test_forgotten_by_another_callback_of_the_same_round(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    calls: list[int] = []

    def serve(index: int) -> None:
        calls.append(index)
        for read, _ in pipes:
            loop.forget(read)

    for index, (read, write) in enumerate(pipes):
        loop.on_read(read, lambda index=index: serve(index))  # type: ignore[misc]
        os.write(write, b"x")
    loop.run_once(1)
    loop.run_once(0)
    assert len(calls) == 1
    for read, write in pipes:
        os.close(read)
        os.close(write)


def test_a_descriptor_that_was_closed_before_it_was_forgotten(loop: Loop) -> None:
    read, write = os.pipe()
    loop.on_read(read, lambda: None)
    os.close(read)
    loop.forget(read)
    os.close(write)
    loop.run_once(0)


def test_timers_in_order_and_cancelled_ones_not(loop: Loop) -> None:
    calls: list[str] = []
    now = loop.now()
    loop.call_at(now - 1, lambda: calls.append("late"))
    loop.call_at(now - 3, lambda: calls.append("early"))
    gone = loop.call_at(now - 2, lambda: calls.append("gone"))
    loop.call_at(now + 1000, lambda: calls.append("never"))
    gone.cancel()
    gone.cancel()
    loop.run_once()
    assert calls == ["early", "late"]


def test_equal_times_keep_their_order(loop: Loop) -> None:
    calls: list[int] = []
    when = loop.now()
    for number in range(5):
        loop.call_at(when, lambda number=number: calls.append(number))  # type: ignore[misc]
    loop.run_once()
    assert calls == [0, 1, 2, 3, 4]


def test_a_timer_cancelled_by_another_of_the_same_round(loop: Loop) -> None:
    calls: list[str] = []
    now = loop.now()
    loop.call_at(now - 2, lambda: second.cancel())
    second = loop.call_at(now - 1, lambda: calls.append("second"))
    loop.run_once()
    loop.run_once(0)
    assert calls == []


def test_a_timer_that_sets_itself_again_lets_others_through(loop: Loop, pipe: tuple[int, int]) -> None:
    calls: list[str] = []

    def again() -> None:
        calls.append("timer")
        loop.call_later(0.0, again)

    again()
    os.write(pipe[1], b"x")
    loop.on_read(pipe[0], lambda: calls.append("read"))
    for _ in range(5):
        loop.run_once()
    assert "read" in calls
    loop.forget(pipe[0])


def test_timers_go_before_descriptors(loop: Loop, pipe: tuple[int, int]) -> None:
    """After a freeze the lease has to be looked at before anything else is served."""
    calls: list[str] = []
    os.write(pipe[1], b"x")
    loop.on_read(pipe[0], lambda: calls.append("read"))
    loop.call_at(loop.now() - 1, lambda: calls.append("timer"))
    loop.run_once()
    assert calls == ["timer", "read"]
    loop.forget(pipe[0])


def test_waits_for_a_timer_and_no_longer(loop: Loop) -> None:
    calls: list[float] = []
    when = loop.now() + 0.05
    loop.call_at(when, lambda: calls.append(loop.now()))
    while not calls:
        loop.run_once()
    assert when <= calls[0] < when + 30


def test_posts_from_another_thread_wake_it(loop: Loop) -> None:
    calls: list[str] = []

    def posted() -> None:
        calls.append("posted")
        loop.stop()

    thread = threading.Thread(target=lambda: loop.post(posted))
    loop.call_later(30, loop.stop)
    thread.start()
    loop.run()
    thread.join()
    assert calls == ["posted"]


def test_many_posts_and_posts_of_posts(loop: Loop) -> None:
    calls: list[int] = []
    for number in range(3000):
        loop.post(lambda number=number: calls.append(number))  # type: ignore[misc]
    loop.post(lambda: loop.post(lambda: calls.append(-1)))
    loop.run_once()
    assert calls == list(range(3000))
    loop.run_once()
    assert calls[-1] == -1


def test_a_post_after_close_is_harmless() -> None:
    loop = Loop()
    loop.close()
    loop.post(lambda: None)


def test_stop(loop: Loop) -> None:
    calls: list[int] = []
    loop.post(lambda: calls.append(1))
    loop.post(loop.stop)
    loop.run()
    assert calls == [1]


def test_close_gives_back_everything() -> None:
    before = len(os.listdir("/proc/self/fd"))
    loop = Loop()
    assert len(os.listdir("/proc/self/fd")) > before
    loop.close()
    assert len(os.listdir("/proc/self/fd")) == before
