"""Ctrl-Z stops the remote recipes too and keeps the leases; fg goes on, and the build ends well."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kill import proc
from tests.kill.conftest import TRANSPORTS, NewFleet
from tests.kill.fleet import Times
from tests.kill.running import Build, Scene
from tests.kill.terminal import Terminal

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(shutil.which("bash") is None, reason="no bash: it is the shell with job control here"),
]

PROMPT = "d1-prompt> "

OVER_EACH = pytest.mark.parametrize("transport", TRANSPORTS)


class Shell(Build):
    """A build that was started from an interactive shell; `process` is the shell."""

    @property
    def front(self) -> int:
        (pid,) = proc.children(self.process.pid)
        return pid


@contextmanager
def _shell(
    new_fleet: NewFleet, transport: str, times: Times, manner: str, local: bool = False
) -> Iterator[tuple[Shell, Terminal]]:
    """A build at work in the foreground of a shell."""
    fleet = new_fleet(transport, times)
    with Scene(manner, local) as scene, Terminal() as terminal:
        environment = {**fleet.environment(), "PS1": PROMPT, "TERM": "dumb"}
        bash = ["bash", "--norc", "--noprofile", "-i"]
        with Shell(scene, bash, environment, terminal, fleet.sshd_pids, output=False) as build:
            terminal.wait_for(PROMPT)
            command = shlex.join(fleet.command("-j3", record=scene.folder / "record"))
            terminal.press(f"{command} >{scene.folder}/out 2>{scene.folder}/err\n")
            scene.wait_for_all("ready", scene.jobs)
            yield build, terminal


def _stop(build: Shell, terminal: Terminal) -> None:
    """Ctrl-Z, and all that has to follow from it."""
    terminal.press("\x1a")
    terminal.wait_for("Stopped")
    terminal.wait_for(PROMPT)
    assert proc.state(build.front) == "T"
    for pid in [build.make, *build.shims, *build.scene.pids().values()]:
        assert _stops(pid), f"{proc.describe(pid)} was not stopped\n{build.scene.report()}"
    assert proc.state(build.coordinator) != "T"


def _stops(pid: int) -> bool:
    return _becomes(lambda: proc.state(pid) == "T")


def _goes(pid: int) -> bool:
    return _becomes(lambda: proc.state(pid) in "SR")


def _becomes(true: Callable[[], bool]) -> bool:
    """Is it so, now or within five seconds? Nothing tells of a stop to anybody but the parent."""
    deadline = time.monotonic() + 5
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _stays_stopped(build: Shell, times: Times) -> None:
    """Nothing moves, and nothing is ended, for more than a lease."""
    before = build.scene.ticks()
    assert build.scene.hear(times.lease_s * 1.5) is None
    assert build.scene.ticks() == before
    for pid in build.scene.pids().values():
        assert proc.state(pid) == "T", build.scene.report()


def _goes_on(build: Shell, terminal: Terminal, times: Times) -> None:
    """The build ends well."""
    scene = build.scene
    scene.end_well()
    terminal.wait_for(PROMPT)
    terminal.press("echo status=$?\n")
    terminal.wait_for("status=0")
    for job in scene.jobs:
        assert scene.target(job) == "half\nwhole\n"
    assert build.stderr == "", build.stderr
    terminal.press("exit\n")
    assert build.wait(20) == 0
    build.wait_until_gone(times.lease_s + 10)


@OVER_EACH
def test_stop_and_go_on(new_fleet: NewFleet, transport: str, times: Times) -> None:
    with _shell(new_fleet, transport, times, "meek") as (build, terminal):
        _stop(build, terminal)
        _stays_stopped(build, times)
        terminal.press("fg\n")
        _goes_on(build, terminal, times)


@OVER_EACH
def test_stop_twice(new_fleet: NewFleet, transport: str, times: Times) -> None:
    """The second time from the background: bg, then fg, then Ctrl-Z again."""
    with _shell(new_fleet, transport, times, "stubborn") as (build, terminal):
        _stop(build, terminal)
        terminal.press("bg\n")
        terminal.wait_for(PROMPT)
        for pid in build.scene.pids().values():
            assert _goes(pid), f"{proc.describe(pid)} does not go on\n{build.scene.report()}"
        terminal.press("fg\n")
        assert _becomes(lambda: terminal.foreground == build.front)
        _stop(build, terminal)
        _stays_stopped(build, times)
        terminal.press("fg\n")
        _goes_on(build, terminal, times)


@OVER_EACH
def test_interrupt_after_stop(new_fleet: NewFleet, transport: str, times: Times) -> None:
    """fg, and then Ctrl-C: as if it had never been stopped."""
    with _shell(new_fleet, transport, times, "meek") as (build, terminal):
        _stop(build, terminal)
        terminal.press("fg\n")
        for pid in build.scene.pids().values():
            assert _goes(pid), build.scene.report()
        terminal.press("\x03")
        terminal.wait_for(PROMPT, limit_s=times.lease_s + 10)
        terminal.press("echo status=$?\n")
        # Now and then make ends by 2 (see `term-group` of the events).
        terminal.wait_for(f"status={128 + signal.SIGINT}", "status=2")
        assert build.scene.target("one") is None
        terminal.press("exit\n")
        build.wait(20)
        build.wait_until_gone(times.lease_s + 10)


@OVER_EACH
def test_window_closed(new_fleet: NewFleet, transport: str, times: Times) -> None:
    """The shell passes the hang-up on to everything in the foreground."""
    with _shell(new_fleet, transport, times, "meek", local=True) as (build, terminal):
        terminal.hang_up()
        build.wait(times.lease_s + 10)
        build.wait_until_gone(times.lease_s + 10)
        for job in build.scene.jobs:
            assert build.scene.target(job) is None, build.scene.report()


@OVER_EACH
@pytest.mark.parametrize("how", ["kill", "kill-9", "hang-up"])
def test_end_while_stopped(new_fleet: NewFleet, transport: str, how: str, times: Times) -> None:
    """What is ended while it is stopped leaves nothing behind either."""
    with _shell(new_fleet, transport, times, "stubborn") as (build, terminal):
        front = build.front
        _stop(build, terminal)
        if how == "hang-up":
            terminal.hang_up()
        else:
            # kill of a shell: SIGTERM, and SIGCONT so that it arrives.
            terminal.press("kill %1\n" if how == "kill" else "kill -9 %1\n")
            assert not proc.wait_until_gone(lambda: [front], times.lease_s + 10), build.scene.report()
            # A shell that has not noticed yet would refuse to leave a stopped job alone.
            terminal.press("wait; exit\n")
        build.wait(20)
        build.wait_until_gone(times.lease_s + 10)
