"""Commands end in any case, and what they leave behind is none of our process tree's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.containers.errors import ContainerError
from tests.containers.launcher import Command, Launch, Outside, launch_here, launcher

ROOT = Path(__file__).resolve().parent.parent.parent

LEAVES_A_DAEMON = "setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $!"

CLIENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # adopts orphans, as pytest does
from tests.containers.launcher import Command, launcher
launch = launcher()
launch(Command(["sh", "-c", sys.argv[1]], dict(os.environ), "", 60, float(sys.argv[2])))
"""


def shell(script: str, stdin: str = "", timeout_s: float = 30.0) -> Command:
    return Command(["sh", "-c", script], dict(os.environ), stdin, timeout_s, patience_s=1.0)


@pytest.fixture
def outside() -> Iterator[Outside]:
    made = launcher()
    assert made is not None, "pytest adopts orphans: tests/conftest.py"
    yield made
    made.close()


@pytest.fixture(params=["here", "outside"])
def launch(request: pytest.FixtureRequest) -> Launch:
    return launch_here if request.param == "here" else request.getfixturevalue("outside")


def test_a_command(launch: Launch) -> None:
    done = launch(shell("cat; echo oops >&2; exit 3", "größe\n" * 50_000))
    assert (done.status, done.stdout, done.stderr) == (3, "größe\n" * 50_000, "oops\n")


def test_a_slow_command_gets_its_stdin_once(launch: Launch) -> None:
    assert launch(shell("sleep 0.5; cat", "text")).stdout == "text"


def test_a_signal_is_a_negative_status(launch: Launch) -> None:
    assert launch(shell("kill -9 $$")).status == -signal.SIGKILL


def test_no_such_program(launch: Launch) -> None:
    with pytest.raises(ContainerError, match="no-such-program cannot be started"):
        launch(Command(["no-such-program"], {}, "", 1.0, 1.0))


def test_too_late(launch: Launch, tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match=r"took more than 0\.3 s"):
        launch(shell(f"sleep 60 & echo $! > {tmp_path}/pid; wait", timeout_s=0.3))
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_several_at_once(outside: Outside) -> None:
    statuses = []
    threads = [
        threading.Thread(target=lambda n=n: statuses.append(outside(shell(f"sleep 0.3; exit {n}")).status))
        for n in range(5)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 1, 2, 3, 4]
    assert time.monotonic() - began < 1.5


def test_daemons_are_not_below_us(outside: Outside) -> None:
    daemon = psutil.Process(int(outside(shell(LEAVES_A_DAEMON)).stdout))
    try:
        assert daemon.is_running()
        assert os.getpid() not in [parent.pid for parent in daemon.parents()]
    finally:
        daemon.kill()


def test_our_own_orphans_are_still_adopted(outside: Outside) -> None:
    daemon = psutil.Process(int(launch_here(shell(LEAVES_A_DAEMON)).stdout))
    try:
        assert daemon.ppid() == os.getpid()
    finally:
        daemon.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(("patience_s", "ends_well"), [(20, True), (0, False)])
def test_a_command_whose_client_is_ended(
    tmp_path: Path, number: signal.Signals, patience_s: int, ends_well: bool
) -> None:
    pid, end = tmp_path / "pid", tmp_path / "end"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1; echo end > {end}"
    argv = [sys.executable, "-c", CLIENT, script, str(patience_s)]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as client:
        deadline = time.monotonic() + 30
        while not pid.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        client.send_signal(number)
        client.communicate()
    assert client.returncode == -number
    assert is_gone(int(pid.read_text()))
    assert end.exists() == ends_well


def is_gone(pid: int) -> bool:
    """Whether a process ends in time."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
