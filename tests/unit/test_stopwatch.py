"""How long processes run that are nobody's children here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from d1fleet import stopwatch
from d1fleet.loop import Loop
from d1fleet.stopwatch import Stopwatch


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_the_time_until_a_process_ends(loop: Loop) -> None:
    watch, told = Stopwatch(loop), list[float]()
    with subprocess.Popen(["sleep", "0.2"]) as process:
        watch.start(process.pid, told.append)
        while not told:
            loop.run_once(5.0)
        assert 0.1 < told[0] < 5.0
    watch.close()


def test_what_still_runs_is_let_go(loop: Loop) -> None:
    watch, told = Stopwatch(loop), list[float]()
    with subprocess.Popen(["sleep", "100"]) as process:
        watch.start(process.pid, told.append)
        watch.close()
        process.send_signal(signal.SIGKILL)
    loop.run_once(0)
    assert not told


@pytest.mark.parametrize("pid", [0, (1 << 22) + 1], ids=["of another namespace", "gone"])
def test_a_process_that_cannot_be_seen_is_passed_over(loop: Loop, pid: int) -> None:
    Stopwatch(loop).start(pid, lambda _: pytest.fail("nobody ended"))
    loop.run_once(0)


def test_no_more_than_can_be_watched(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "_MOST", 3)
    watch, before = Stopwatch(loop), len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        watch.start(os.getpid(), lambda _: None)
    assert len(os.listdir("/proc/self/fd")) == before + 3
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before
