"""Whatever ends a build, nothing of it is left within the lease and ten seconds; its end says what it was."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from d1fleet.errors import JobLostError
from tests.kill import proc
from tests.kill.conftest import TRANSPORTS, NewFleet
from tests.kill.fleet import SHORT, Fleet, Times
from tests.kill.running import Build, Scene
from tests.kill.terminal import Terminal

AFTER_LEASE_S = 10.0

LOST = JobLostError.exit_code

LOST_LINE = re.compile(r"^d1fleet: lost: make -C one on host [abh12]+: ", re.MULTILINE)

pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True)
class Event:
    """Something that ends a build.

    Attributes:
        do: lets it happen.
        ends: how `d1fleet build` ends, as plain make does: an exit code, or minus a signal.
        or_ends: another way in which plain make ends, too.
        lost: the first job's host is lost, and no more than that: the second job ends well.
        local: manners with which a recipe of the top make is there too, and is ended with the build. A
            stubborn one outlives a signal, and make with it, as without us.
        tidy: make gets the time to delete the target that it has not finished.
        ssh_only: it needs an sshd.
    """

    do: Callable[[Build, Terminal], None]
    ends: int
    or_ends: int | None = None
    local: tuple[str, ...] = ("meek",)
    lost: bool = False
    tidy: bool = False
    ssh_only: bool = False


def _to(number: int, *pids: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def _press_twice(build: Build, terminal: Terminal) -> None:
    terminal.press("\x03")
    # The second one comes when the first has arrived; meek processes are dead by then.
    terminal.wait_for("^C")
    stubborn = [pid for pid in build.scene.pids().values() if proc.runs(pid)]
    if stubborn and build.scene.manner == "stubborn":
        build.scene.wait_for("signal", "one", "child", str(int(signal.SIGINT)))
    # Signals of one number that wait for a process are one.
    assert soon(lambda: not proc.awaits(build.front, signal.SIGINT))
    terminal.press("\x03")


RACE = 2
"""make, when a recipe dies at the same moment as it has a signal itself: `wait: No child processes`."""

BOTH = ("meek", "stubborn")

EVENTS: dict[str, Event] = {
    "ctrl-c": Event(lambda build, terminal: terminal.press("\x03"), -signal.SIGINT, or_ends=RACE, tidy=True),
    "ctrl-c-twice": Event(_press_twice, -signal.SIGINT, or_ends=RACE, local=BOTH),
    # The hang-up comes to the session's leader alone, which is the front here: recipes of make hear nothing.
    "terminal-closed": Event(lambda build, terminal: terminal.hang_up(), -signal.SIGHUP, local=(), tidy=True),
    "term-front": Event(lambda build, _: _to(signal.SIGTERM, build.front), -signal.SIGTERM, tidy=True),
    "term-group": Event(
        lambda build, _: os.killpg(build.front, signal.SIGTERM), -signal.SIGTERM, or_ends=RACE, tidy=True
    ),
    "kill-front": Event(
        lambda build, _: _to(signal.SIGKILL, build.front), -signal.SIGKILL, local=BOTH, tidy=True
    ),
    "kill-coordinator": Event(
        lambda build, _: _to(signal.SIGKILL, build.coordinator), LOST, local=BOTH, tidy=True
    ),
    "kill-make": Event(lambda build, _: _to(signal.SIGKILL, build.make), -signal.SIGKILL, local=BOTH),
    "kill-shims": Event(lambda build, _: _to(signal.SIGKILL, *build.shims), 2, local=(), tidy=True),
    "kill-server": Event(
        lambda build, _: _to(signal.SIGKILL, build.server("one")), LOST, local=(), lost=True, tidy=True
    ),
    "kill-supervisor": Event(
        lambda build, _: _to(signal.SIGKILL, build.supervisor("one")), LOST, local=(), lost=True
    ),
    "kill-session": Event(
        lambda build, _: _to(signal.SIGKILL, *build.sessions("one")),
        LOST,
        local=(),
        lost=True,
        tidy=True,
        ssh_only=True,
    ),
}


def _cases() -> Iterator[ParameterSet]:
    """Every event with both manners over each transport; some of those over SSH are left to `full`."""
    ways = ("pipes", "ssh", "openssh")
    for transport, (name, event), manner in product(ways, EVENTS.items(), ("meek", "stubborn")):
        if transport == "pipes" and event.ssh_only:
            continue
        spare = transport == "ssh" and manner == "meek" and name not in ("ctrl-c", "kill-session")
        marks = [pytest.mark.full] if spare or transport == "openssh" else []
        yield pytest.param(transport, name, manner, id=f"{transport}-{name}-{manner}", marks=marks)


@pytest.mark.parametrize(("transport", "name", "manner"), list(_cases()))
def test_nothing_is_left(new_fleet: NewFleet, transport: str, name: str, manner: str, times: Times) -> None:
    play(EVENTS[name], new_fleet(transport, times), Scene(manner, manner in EVENTS[name].local))


def play(event: Event, fleet: Fleet, scene: Scene) -> None:
    """Build the scene on the fleet, let the event happen, and look for what is left."""
    manner, times = scene.manner, fleet.times
    with scene, Terminal() as terminal, Build.on(fleet, scene, terminal) as build:
        deadline = time.monotonic() + times.lease_s + AFTER_LEASE_S
        shim = shim_of(build, "one") if event.lost else 0
        event.do(build, terminal)
        if event.lost:
            wait_until_lost(build, shim, times)
            # Only one host is lost: the other one's job goes on, and make waits for it.
            build.wait_until_gone(
                deadline - time.monotonic(), but=lambda: set(build.left()) - set(scene.pids("one").values())
            )
            still_counts(scene, "two")
            scene.release("two")
        status = build.wait(deadline - time.monotonic())
        build.wait_until_gone(deadline - time.monotonic())
        assert status in (event.ends, event.or_ends), scene.report()
        if event.lost:
            assert scene.target("two") == "half\nwhole\n"
            assert LOST_LINE.search(build.stderr), build.stderr
        if event.tidy and manner == "meek":
            assert scene.target("one") is None, scene.report()
            assert scene.target("here") is None, scene.report()
        assert "Traceback" not in build.stderr, build.stderr
        assert fleet.slots_held() == []
        if build.wait(0) not in (-signal.SIGKILL, LOST) or event.lost:
            # Nothing of ours was killed that would have had to tidy up.
            assert fleet.builds_left() == []
            # make was killed before it could delete what is half made: that is put away, or noted.
            killed = manner == "stubborn" or not event.tidy
            torn = {".d1fleet-lost", ".d1fleet-journal"} if killed else set()
            assert set(os.listdir(scene.tree)) - torn == {"Makefile", *scene.jobs}


def still_counts(scene: Scene, job: str) -> None:
    """All processes of the job are at work."""
    for (_, kind), pid in scene.pids(job).items():
        assert proc.runs(pid), f"{job}'s {kind} was ended too\n{scene.report()}"


@pytest.mark.parametrize("manner", ["meek", "stubborn"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_silent_coordinator(new_fleet: NewFleet, transport: str, manner: str, times: Times) -> None:
    """A stopped coordinator: hosts end everything when their leases have run out."""
    with (
        Scene(manner) as scene,
        Terminal() as terminal,
        Build.on(new_fleet(transport, times), scene, terminal) as build,
    ):
        coordinator, make = build.coordinator, build.make

        def here() -> list[int]:
            return [build.front, coordinator, make, *proc.below([make]), *_logins(build)]

        os.kill(coordinator, signal.SIGSTOP)
        try:
            build.wait_until_gone(times.lease_s + AFTER_LEASE_S, but=here)
        finally:
            os.kill(coordinator, signal.SIGCONT)
        assert build.wait(times.lease_s + AFTER_LEASE_S) == LOST, scene.report()
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)


def _logins(build: Build) -> list[int]:
    """sshd's processes, which stay until the coordinator lets go of them."""
    return [pid for pid in proc.below(build.sshd) if any("sshd" in word for word in proc.words(pid)[:1])]


@pytest.mark.parametrize("manner", ["meek", "stubborn"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_frozen_server(new_fleet: NewFleet, transport: str, manner: str, times: Times) -> None:
    """A stopped server: its host is given up, the other one's job goes on, nothing is left after the thaw."""
    with (
        Scene(manner) as scene,
        Terminal() as terminal,
        Build.on(new_fleet(transport, times), scene, terminal) as build,
    ):
        server, shim = build.server("one"), shim_of(build, "one")
        os.kill(server, signal.SIGSTOP)
        try:
            wait_until_lost(build, shim, times)
            still_counts(scene, "two")
            # It goes as well, with the slot that it cannot give back.
            assert soon(lambda: not proc.runs(server)), scene.report()
            scene.release("two")
            assert build.wait(times.lease_s + AFTER_LEASE_S) == LOST, scene.report()
            record = map(json.loads, (scene.folder / "record").read_text().splitlines())
            ends = [(event["infrastructure"], event["exit"]) for event in record if event["event"] == "job"]
            assert sorted(ends) == [("", 0), ("lost", None)]
        finally:
            if proc.runs(server):
                os.kill(server, signal.SIGCONT)
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)
        assert scene.target("two") == "half\nwhole\n"


@pytest.mark.parametrize("manner", ["meek", "stubborn"])
@pytest.mark.parametrize("transport", TRANSPORTS[1:])
def test_dead_connection(new_fleet: NewFleet, transport: str, manner: str, times: Times) -> None:
    """A stopped sshd is a peer that nobody hears any more, with a connection that looks well."""
    with (
        Scene(manner) as scene,
        Terminal() as terminal,
        Build.on(new_fleet(transport, times), scene, terminal) as build,
    ):
        sessions, shim = build.sessions("one"), shim_of(build, "one")
        for pid in sessions:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until_lost(build, shim, times)
            still_counts(scene, "two")
            scene.release("two")
            assert build.wait(times.lease_s + AFTER_LEASE_S) == LOST, scene.report()
            build.wait_until_gone(times.lease_s + AFTER_LEASE_S, but=lambda: sessions)
        finally:
            for pid in sessions:
                os.kill(pid, signal.SIGCONT)
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)
        assert scene.target("two") == "half\nwhole\n"


@pytest.mark.full
@pytest.mark.parametrize("manner", ["meek", "stubborn"])
def test_killed_clients(new_fleet: NewFleet, manner: str, times: Times) -> None:
    """OpenSSH's clients on this machine are killed: to the build, their hosts are lost."""
    with (
        Scene(manner) as scene,
        Terminal() as terminal,
        Build.on(new_fleet("openssh", times), scene, terminal) as build,
    ):
        shim = shim_of(build, "one")
        clients = [pid for pid in proc.below([build.coordinator]) if proc.words(pid)[:2] == ["ssh", "-T"]]
        assert len(clients) == 2
        _to(signal.SIGKILL, *clients)
        wait_until_lost(build, shim, times)
        assert build.wait(times.lease_s + AFTER_LEASE_S) == LOST, scene.report()
        build.wait_until_gone(times.lease_s + AFTER_LEASE_S)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_a_lost_host_is_waited_for(new_fleet: NewFleet, tmp_path: Path, presses: int) -> None:
    """make is told at once; the build itself ends with the lease, or at the second Ctrl-C."""
    times = SHORT if presses == 1 else Times(lease_s=60.0, grace_s=5.0, heartbeat_s=1.0)
    fleet = new_fleet("pipes", times)
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    hosts = {
        name: {**given, "ansible_python_interpreter": str(python)} for name, given in fleet.hosts.items()
    }
    with (
        Scene("meek") as scene,
        Terminal() as terminal,
        Build.on(replace(fleet, hosts=hosts), scene, terminal) as build,
    ):
        python.unlink()  # it does not come back, to say that nothing is left
        os.kill(build.server("one"), signal.SIGKILL)
        assert soon(lambda: "made by two" in build.stderr), build.stderr
        for _ in range(presses):
            _press_and_see(build, terminal)
            # The second one is an answer to these words.
            assert soon(lambda: "Ctrl-C again does not wait" in build.stderr), build.stderr
        assert build.wait(times.lease_s + AFTER_LEASE_S if presses == 1 else 20) in (-signal.SIGINT, RACE)
        assert ("may still run there" in build.stderr) == (presses == 2), build.stderr
        build.wait_until_gone(AFTER_LEASE_S)


def test_a_signal_to_the_shim_of_a_lost_job_is_no_answer_yet(new_fleet: NewFleet) -> None:
    """As by timeout(1): the recipe goes on when make has its answer, and may start the next writer."""
    times = Times(lease_s=60.0, grace_s=5.0, heartbeat_s=1.0)
    with (
        Scene("meek") as scene,
        Terminal() as terminal,
        Build.on(new_fleet("pipes", times), scene, terminal) as build,
    ):
        shim = shim_of(build, "one")
        os.kill(build.server("one"), signal.SIGKILL)
        assert soon(lambda: "made by two" in build.stderr), build.stderr
        os.kill(shim, signal.SIGTERM)
        time.sleep(1.0)
        assert proc.runs(shim), scene.report()
        for _ in range(2):
            _press_and_see(build, terminal)
        build.wait(20)
        build.wait_until_gone(AFTER_LEASE_S)


def _press_and_see(build: Build, terminal: Terminal) -> None:
    """Ctrl-C, and make's word that it has come: two at once would be one."""
    terminal.press("\x03")
    assert soon(lambda: "make: ***" in build.stderr), build.stderr


def soon(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def shim_of(build: Build, job: str) -> int:
    (shim,) = [pid for pid in build.shims if proc.words(pid)[-1] == job]
    return shim


def wait_until_lost(build: Build, shim: int, times: Times) -> None:
    """Wait until make knows that the first job is lost: at that moment nothing of it may run any more, for
    what comes next may write the same files.
    """
    left = proc.wait_until_gone(lambda: [shim], times.lease_s + AFTER_LEASE_S)
    writers = [pid for pid in build.scene.pids("one").values() if proc.runs(pid)]
    assert not writers, build.scene.report()
    assert not left, build.scene.report()
    assert LOST_LINE.search(build.stderr), build.stderr
