"""One supervisor process and the server's handle on it; test_server.py has the whole with a server around."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from d1fleet.loop import Loop
from d1fleet.server import supervisor
from d1fleet.server.supervisor import EMPTY, ENDED, FAILED, Supervisor, decode_end
from tests.fuzz.peer import all_stopped, states, wait_until


class Handle:
    """A supervisor whose reports are kept."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.reports: list[tuple[bytes, int]] = []
        self.deaths = 0
        self.supervisor = Supervisor(
            self.loop, lambda _, verb, value: self.reports.append((verb, value)), self._died
        )
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def _died(self, _: Supervisor) -> None:
        self.deaths += 1

    def start(self, script: str, stdout: int | None = None, **changed: Any) -> None:
        job: dict[str, Any] = {
            "path": b"/bin/sh",
            "argv": [b"sh", b"-c", script.encode()],
            "environment": {b"PATH": b"/usr/bin:/bin"},
            "folder": b"/",
            "umask": 0o22,
            "limits": (),
            "ignored": 0,
            "targets": [0, 1, 2],
        }
        job |= changed
        fds = [self.null, self.null if stdout is None else stdout, self.null]
        self.supervisor.start(tuple(job.values()), fds)

    def next(self, verb: bytes) -> int:
        """The value of the next report of that kind; others are passed over."""
        while True:
            while self.reports:
                found, value = self.reports.pop(0)
                if found == verb:
                    return value
                assert found != FAILED, os.strerror(value)
            assert not self.deaths
            self.loop.run_once(30)

    def running(self) -> int:
        """The make's process, as soon as there is one."""
        wait_until(lambda: bool(psutil.Process(self.supervisor.pid).children()))
        return int(psutil.Process(self.supervisor.pid).children()[0].pid)

    def end(self) -> tuple[int, bool]:
        """Exit status (negative: the signal) and whether something is left."""
        status, left = decode_end(self.next(ENDED))
        return os.waitstatus_to_exitcode(status), left

    def died(self) -> None:
        while not self.deaths:
            self.loop.run_once(30)

    def close(self) -> None:
        self.supervisor.close()
        os.waitpid(self.supervisor.pid, 0)
        self.loop.close()
        os.close(self.null)


@pytest.fixture
def handle() -> Iterator[Handle]:
    handle = Handle()
    yield handle
    handle.close()


def _below(handle: Handle) -> list[psutil.Process]:
    return psutil.Process(handle.supervisor.pid).children(recursive=True)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9)])
def test_start_and_end(handle: Handle, script: str, code: int) -> None:
    handle.start(script)
    assert handle.end() == (code, False)


def test_one_after_the_other(handle: Handle) -> None:
    for code in range(20):
        handle.start(f"exit {code}")
        assert handle.end() == (code, False)


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"path": b"/nonexistent"}, 2),
        ({"folder": b"/nonexistent"}, 2),
        ({"path": b"/etc/passwd"}, 13),
        ({"argv": [b"x" * (1 << 18)]}, 7),
    ],
    ids=["program", "folder", "mode", "argument"],
)
def test_a_start_that_fails(handle: Handle, changed: dict[str, Any], number: int) -> None:
    handle.start("exit 0", **changed)
    assert handle.next(FAILED) == number
    handle.start("exit 3")
    assert handle.end() == (3, False)


def test_limits_umask_and_folder_are_of_one_make_alone(handle: Handle, tmp_path: Path) -> None:
    read, write = os.pipe()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    handle.start(
        "ulimit -n; umask; pwd",
        write,
        limits=((resource.RLIMIT_NOFILE, 55),),
        umask=0o77,
        folder=os.fsencode(tmp_path),
    )
    handle.end()
    assert os.read(read, 1000).decode().split() == ["55", "0077", str(tmp_path)]
    handle.start("ulimit -n; umask; pwd", write)
    handle.end()
    assert os.read(read, 1000).decode().split() == [str(soft), "0022", "/"]
    for fd in (read, write):
        os.close(fd)


def test_a_limit_above_the_hosts_own_is_as_high_as_it_goes(handle: Handle) -> None:
    read, write = os.pipe()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    everything = (1 << 64) - 1
    handle.start("ulimit -n; ulimit -c", write, limits=((resource.RLIMIT_NOFILE, everything), (99, 5)))
    assert handle.end() == (0, False)
    assert int(os.read(read, 1000).split()[0]) == hard
    for fd in (read, write):
        os.close(fd)


def test_ignored_signals_are_of_one_make_alone(handle: Handle) -> None:
    ignored = 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGCHLD - 1)
    handle.start("kill -USR1 $$; kill -TERM $$; exit 5", ignored=ignored)
    assert handle.end() == (5, False)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        handle.start(f"kill -{int(number)} $$; exit 5")
        assert handle.end() == (-number, False)


def test_the_supervisor_itself_survives_the_terminals_signals(handle: Handle) -> None:
    handle.start("exit 4")  # once it serves; until then it ignores what the server ignores
    handle.end()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        os.kill(handle.supervisor.pid, number)
    handle.start("exit 4")
    assert handle.end() == (4, False)


@pytest.mark.parametrize("targets", [[0, 1, 2], [0, 2, 1], [5, 1, 9], [2, 0, 1], [70, 3, 64]], ids=str)
def test_descriptors_go_where_they_belong(handle: Handle, targets: list[int]) -> None:
    """Even where a number is that of another one on the way; and no others get there."""
    read, write = os.pipe()
    number = targets[1]
    script = f"for f in /proc/$$/fd/*; do echo ${{f##*/}} $(readlink $f); done >/proc/$$/fd/{number}"
    handle.start(script, write, targets=targets)
    assert handle.end()[0] == 0
    found = dict(line.split(" ") for line in os.read(read, 10000).decode().splitlines() if " " in line)
    pipe = os.readlink(f"/proc/self/fd/{write}")
    # The redirection is at 1 meanwhile, and what was there is at 10 or more.
    there = {int(fd) for fd, target in found.items() if target in (pipe, os.devnull) and int(fd) != 1}
    assert {fd for fd in there if fd < 10 or fd >= 60} == set(targets) - {1}
    for fd in (read, write):
        os.close(fd)


def test_a_group_gets_a_signal(handle: Handle) -> None:
    read, write = os.pipe()
    handle.start("trap 'echo got; exit 6' USR1; echo up; while :; do sleep 0.05; done", write)
    assert os.read(read, 10) == b"up\n"
    handle.supervisor.command(supervisor.TO_GROUP, signal.SIGUSR1)
    assert handle.end() == (6, False)
    assert os.read(read, 10) == b"got\n"
    handle.supervisor.command(supervisor.TO_GROUP, signal.SIGUSR1)  # it has ended: nobody's number
    handle.start("exit 1")
    assert handle.end() == (1, False)
    for fd in (read, write):
        os.close(fd)


def test_a_make_tells_its_recipes_of_sigterm_itself(handle: Handle, tmp_path: Path) -> None:
    """One that had ended before make looks would be nobody's child to it, and its target would stay."""
    (tmp_path / "Makefile").write_text(
        "half.o:\n\t@trap 'exit 9' TERM; echo half >$@; sleep 1000 & touch up; "
        "while :; do wait; sleep 0.05; done\n"
    )
    handle.start("", path=b"/usr/bin/make", argv=[b"make", b"-s"], folder=os.fsencode(tmp_path))
    make = handle.running()
    wait_until((tmp_path / "up").exists)
    os.kill(make, signal.SIGSTOP)
    wait_until(lambda: all_stopped(states([psutil.Process(make)])))
    (recipe,) = psutil.Process(make).children()
    (sleep,) = recipe.children()
    handle.supervisor.command(supervisor.TO_GROUP, signal.SIGTERM)
    wait_until(lambda: not sleep.is_running() or sleep.status() == psutil.STATUS_ZOMBIE)
    assert recipe.status() != psutil.STATUS_ZOMBIE  # its make has not had time to tell it
    handle.supervisor.command(supervisor.TO_GROUP, signal.SIGCONT)
    assert handle.end()[0] == -signal.SIGTERM
    assert not (tmp_path / "half.o").exists()


def test_what_is_left_is_told_and_killed(handle: Handle) -> None:
    handle.start("setsid sleep 1000 & exit 2")
    assert handle.end() == (2, True)
    wait_until(lambda: [p.name() for p in _below(handle)] == ["sleep"])
    handle.supervisor.command(supervisor.KILL)
    handle.next(EMPTY)
    assert _below(handle) == []


def test_kill_of_a_make_is_its_end_too(handle: Handle) -> None:
    handle.start("sleep 1000 & wait")
    handle.running()
    handle.supervisor.command(supervisor.KILL)
    assert handle.end()[0] == -9
    handle.next(EMPTY)


def test_kill_of_nothing(handle: Handle) -> None:
    handle.supervisor.command(supervisor.KILL)
    assert handle.next(EMPTY) == 0


def test_pause_and_continue(handle: Handle) -> None:
    handle.start("(setsid sh -c 'while :; do sleep 0.05; done' &); while :; do sleep 0.05; done")
    handle.running()
    wait_until(lambda: len(_below(handle)) >= 2)
    handle.supervisor.command(supervisor.PAUSE)
    wait_until(lambda: all_stopped(states(_below(handle))))
    handle.supervisor.command(supervisor.CONTINUE)
    wait_until(lambda: psutil.STATUS_STOPPED not in states(_below(handle)))
    handle.supervisor.command(supervisor.KILL)
    handle.next(EMPTY)


def test_a_stopped_supervisor_gets_all_commands_in_the_end(handle: Handle) -> None:
    os.kill(handle.supervisor.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(handle.supervisor.pid).status() == psutil.STATUS_STOPPED)
    for _ in range(2000):
        handle.supervisor.command(supervisor.CONTINUE)
    handle.start("exit 9")
    os.kill(handle.supervisor.pid, signal.SIGCONT)
    assert handle.end() == (9, False)


def test_its_death_is_told_once(handle: Handle) -> None:
    os.kill(handle.supervisor.pid, signal.SIGKILL)
    handle.died()
    handle.supervisor.command(supervisor.KILL)
    handle.loop.run_once(0)
    assert handle.deaths == 1


def test_closed_it_ends_its_tree_and_lets_make_tidy_up(tmp_path: Path) -> None:
    handle = Handle()
    tidied = tmp_path / "tidied"
    handle.start(f"trap 'echo yes > {tidied}; exit' TERM; setsid sleep 1000 & while :; do sleep 0.05; done")
    handle.running()
    wait_until(lambda: any(p.cmdline()[:1] == ["sleep"] and "1000" in p.cmdline() for p in _below(handle)))
    below = _below(handle)
    handle.close()
    assert tidied.read_text() == "yes\n"
    assert psutil.wait_procs(below, timeout=20)[1] == []


def test_the_servers_death_is_its_end() -> None:
    """By PDEATHSIG and by the socket's end: the server was killed."""
    read, write = os.pipe()
    server = os.fork()
    if server == 0:
        try:
            handle = Handle()
            handle.start("trap '' TERM; setsid sleep 1000 & while :; do sleep 0.05; done")
            handle.running()
            wait_until(lambda: len(_below(handle)) >= 2)
            pids = [handle.supervisor.pid, *(p.pid for p in _below(handle))]
            os.write(write, " ".join(map(str, pids)).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) == -signal.SIGKILL
    pids = list(map(int, os.read(read, 1000).split()))
    assert len(pids) >= 3

    def gone(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until(lambda: all(map(gone, pids)))
    for fd in (read, write):
        os.close(fd)


def test_it_holds_no_folder_and_no_descriptor_of_a_job(handle: Handle, tmp_path: Path) -> None:
    def fds() -> set[str]:
        folder = f"/proc/{handle.supervisor.pid}/fd"
        return {name for name in os.listdir(folder) if os.path.islink(f"{folder}/{name}")}

    handle.start("exit 0")
    handle.end()
    before = fds()
    for _ in range(5):
        handle.start("exit 0", folder=os.fsencode(tmp_path))
        handle.end()
    assert fds() == before
    assert os.readlink(f"/proc/{handle.supervisor.pid}/cwd") == "/"


def test_it_is_no_child_of_a_job_that_waits_for_it() -> None:
    """A second supervisor must not hold the first one's socket: its end would never be seen."""
    first, second = Handle(), Handle()
    first.supervisor.close()
    os.waitpid(first.supervisor.pid, 0)
    first.loop.close()
    os.close(first.null)
    second.start("exit 1")
    assert second.end() == (1, False)
    second.close()


@pytest.mark.parametrize(
    ("value", "status", "left"), [(0, 0, False), (9, 9, False), (1 << 31 | 0x700, 0x700, True)]
)
def test_decode_end(value: int, status: int, left: bool) -> None:
    assert decode_end(value) == (status, left)


def test_nothing_of_python_is_needed_below_it(handle: Handle) -> None:
    """The make's parent is the supervisor itself: no shell, no second process."""
    handle.start("exec sleep 1000")
    pid = handle.running()
    assert psutil.Process(pid).ppid() == handle.supervisor.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    handle.supervisor.command(supervisor.KILL)
    handle.next(EMPTY)
    assert subprocess.run(["kill", "-0", str(pid)], capture_output=True).returncode != 0
