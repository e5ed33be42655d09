"""A build of nasty jobs under way: where its processes are, what they say, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kill import proc
from tests.kill.fleet import Fleet
from tests.kill.nasty import KINDS
from tests.kill.terminal import Terminal

START_LIMIT_S = 60.0
"""Until all processes of all jobs are there; a guess, for a machine that is busy."""

_CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of who sent a datagram: unix(7)."""

NASTY = Path(__file__).with_name("nasty.py")

_TOP = """\
jobs: {goals}
{first}:
\t$(MAKE) -C $@
{rest}:
\tcd $@ && $(MAKE)
.PHONY: jobs {jobs}
"""
# The first job is called by make itself, the others by a shell: a signal to the group ends that first.

_HERE = "here"
"""The job that is a recipe of the top makefile itself, where there is one."""

_JOB = """\
{target}:
\t@echo half > $@
\t@{python} -ISE {nasty} start {folder} {job} {manner}
\t@echo whole >> $@
"""


class Scene:
    """A folder with a tree of nasty jobs, and the socket on which they say what happens to them.

    Args:
        manner: meek ones end at a signal, stubborn ones stay.
        local: with a recipe of the top makefile itself.
        where: make it in this folder, which hosts see too. Its path has to be short, for a socket.
        python: runs the jobs, here and on hosts.

    Attributes:
        folder: holds it all; its name marks every process of the build.
        jobs: sub-makes, and `here` for a recipe that the top make runs itself.
        tree: where to build.
    """

    def __init__(
        self, manner: str, local: bool = False, where: Path | None = None, python: str = sys.executable
    ) -> None:
        # Not pytest's own folder: a socket's path has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="d1kill-", dir=where))
        self.tree = self.folder / "tree"
        self.manner = manner
        self.subs = ("one", "two")
        self.jobs = (*self.subs, _HERE) if local else self.subs
        self.heard: list[list[str]] = []
        self._events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._events.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._events.bind(str(self.folder / "events"))
        self._write_tree(manner, python)

    def _write_tree(self, manner: str, python: str) -> None:
        (self.folder / "ticks").mkdir()
        nasty = shutil.copy(NASTY, self.folder)
        self.tree.mkdir()
        texts = {
            job: _JOB.format(
                target=f"{job}/target" if job == _HERE else "target",
                python=python,
                nasty=nasty,
                folder=self.folder,
                job=job,
                manner=manner,
            )
            for job in self.jobs
        }
        first, *rest = self.subs
        goals = [f"{job}/target" if job == _HERE else job for job in self.jobs]
        top = _TOP.format(goals=" ".join(goals), jobs=" ".join(self.subs), first=first, rest=" ".join(rest))
        (self.tree / "Makefile").write_text(top + texts.get(_HERE, ""))
        for job in self.jobs:
            (self.tree / job).mkdir()
            if job != _HERE:
                (self.tree / job / "Makefile").write_text(texts[job])

    def hear(self, limit_s: float) -> list[str] | None:
        """The next event's words; None when there is none in time."""
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        if not poll.poll(max(0.0, limit_s) * 1000):
            return None
        words, (about,), *_ = self._events.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        event = words.decode().split()
        if event[0] in ("ready", "gone"):
            # In a container they know themselves by other numbers: the kernel says them as we see them.
            event[3] = str(_CREDENTIALS.unpack(about[2])[0])
        self.heard.append(event)
        return event

    def wait_for(self, *words: str, limit_s: float = START_LIMIT_S) -> list[str]:
        """Wait for an event that begins with `words`; returns it.

        Raises:
            TimeoutError: it did not come.
        """
        deadline = time.monotonic() + limit_s
        while event := self.hear(deadline - time.monotonic()):
            if event[: len(words)] == list(words):
                return event
        raise TimeoutError(f"no event {words}, but: {self.heard}")

    def wait_for_all(self, what: str, jobs: Sequence[str], kinds: Sequence[str] = KINDS) -> None:
        """Wait until every process of these kinds and jobs has said `what`."""
        deadline = time.monotonic() + START_LIMIT_S
        wanted = {(what, job, kind) for job in jobs for kind in kinds}
        while missing := wanted - {tuple(event[:3]) for event in self.heard}:
            if self.hear(1.0) is None and (time.monotonic() > deadline or not self.found()):
                raise TimeoutError(f"never {what}: {sorted(missing)}\n{self.report()}")

    def pids(self, *jobs: str) -> dict[tuple[str, str], int]:
        """The processes that have come, by job and kind."""
        found = {(e[1], e[2]): int(e[3]) for e in self.heard if e[0] == "ready"}
        return {key: pid for key, pid in found.items() if not jobs or key[0] in jobs}

    def ticks(self, *jobs: str) -> dict[str, int]:
        """How far each process has counted."""
        return {
            path.name: path.stat().st_size
            for path in (self.folder / "ticks").iterdir()
            if not jobs or path.name.partition("-")[0] in jobs
        }

    def release(self, *jobs: str) -> None:
        """Let the recipes of these jobs end; without names, everything."""
        for job in jobs or self.jobs:
            (self.folder / f"release-{job}").touch()
        if not jobs:
            (self.folder / "release").touch()

    def end_well(self) -> None:
        """Let all processes end, the recipes last, so that nothing outlives its job."""
        others = [pid for (_, kind), pid in self.pids().items() if kind != "child"]
        others += [proc.parent(pid) for (_, kind), pid in self.pids().items() if kind == "grandchild"]
        (self.folder / "release").touch()
        self.wait_for_all("gone", self.jobs, KINDS[1:])
        if proc.wait_until_gone(lambda: others, START_LIMIT_S):
            raise TimeoutError(f"told to go, and still there\n{self.report()}")
        self.release()

    def target(self, job: str) -> str | None:
        """What the job has made; None when there is nothing."""
        with contextlib.suppress(FileNotFoundError):
            return (self.tree / job / "target").read_text()
        return None

    def found(self) -> list[int]:
        """All processes that bear this scene's mark."""
        return proc.marked(self.folder.name)

    def report(self) -> str:
        """Everything that may help, for a test that failed."""
        lines = [f"processes of {self.folder}:", *map(proc.describe, self.found()), f"heard: {self.heard}"]
        for name in ("out", "err", "record"):
            with contextlib.suppress(FileNotFoundError):
                lines.append(f"{name}: {(self.folder / name).read_text()[-2000:]}")
        return "\n".join(lines)

    def close(self) -> None:
        """End everything of it."""
        for pid in self.found():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._events.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


ONCE = ("--not-repeatable", "folder=*")
"""Jobs of a scene end when they are told to: done again, they would wait for ever."""


class Build:
    """`d1fleet build`, or another command, at work in a scene.

    Args:
        command: what to run.
        environment: its environment.
        terminal: its controlling terminal, where it is the foreground; None: it has none.
        sshd: tells the process ids of SSH servers that it uses.
        output: keep its output in files; else it goes to the terminal.
    """

    def __init__(
        self,
        scene: Scene,
        command: Sequence[str],
        environment: dict[str, str],
        terminal: Terminal | None = None,
        sshd: Callable[[], Sequence[int]] = tuple,
        output: bool = True,
    ) -> None:
        self.scene = scene
        self._sshd = sshd
        self._before = set(proc.below([os.getpid()]))
        out, err = scene.folder / "out", scene.folder / "err"
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=scene.tree,
                env={**environment, "D1KILL_MARK": scene.folder.name},
                stdin=terminal.slave if terminal is not None else subprocess.DEVNULL,
                stdout=stdout if output or terminal is None else terminal.slave,
                stderr=stderr if output or terminal is None else terminal.slave,
                start_new_session=True,
                preexec_fn=terminal.become_controlling if terminal is not None else None,
            )

    @classmethod
    def on(cls, fleet: Fleet, scene: Scene, terminal: Terminal | None = None, *arguments: str) -> Build:
        """Start a build of the scene's jobs on a fleet, and wait until all their processes are there."""
        make = arguments or (f"-j{len(scene.jobs)}",)
        command = fleet.command(*make, record=scene.folder / "record", own=ONCE)
        build = cls(scene, command, fleet.environment(), terminal, fleet.sshd_pids)
        try:
            scene.wait_for_all("ready", scene.jobs)
        except BaseException:
            build.close()
            raise
        return build

    @property
    def sshd(self) -> Sequence[int]:
        """The SSH servers; a host that was started again has another one."""
        return self._sshd()

    # -- who is who ------------------------------------------------------------------------------

    @property
    def front(self) -> int:
        return self.process.pid

    @property
    def coordinator(self) -> int:
        (pid,) = proc.children(self.front)
        return pid

    @property
    def make(self) -> int:
        """The top make."""
        (pid,) = [pid for pid in proc.children(self.coordinator) if proc.words(pid)[:1] == ["make"]]
        return pid

    @property
    def shims(self) -> list[int]:
        """What the recipes of the top make wait for."""
        return [pid for pid in proc.below([self.make]) if proc.words(pid)[:1] == ["make"]]

    def supervisor(self, job: str) -> int:
        """The process that the job's make is a child of."""
        return self._above(job)[0]

    def server(self, job: str) -> int:
        """The server on the job's host."""
        return self._above(job)[1]

    def sessions(self, job: str) -> list[int]:
        """sshd's processes for the login to the job's host."""
        return [pid for pid in proc.above(self.server(job)) if pid in proc.below(self.sshd)]

    def _above(self, job: str) -> list[int]:
        """The servers' own processes above a job, the nearest first."""
        start = self.scene.pids()[job, "child"]
        return [pid for pid in proc.above(start) if "-ISE" in proc.words(pid) and pid != self.front]

    # -- the end ---------------------------------------------------------------------------------

    def left(self) -> list[int]:
        """All that is there of the build, here or on hosts: marked ones, and new ones below us or sshd."""
        new = set(proc.below([os.getpid()])) - self._before
        found = new | set(self.scene.found()) | set(proc.below(self.sshd))
        return sorted(pid for pid in found if proc.runs(pid))

    def wait(self, limit_s: float) -> int:
        """How the command ended; a negative number is a signal.

        Raises:
            TimeoutError: it has not.
        """
        try:
            return self.process.wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the build has not ended\n{self.scene.report()}") from None

    def wait_until_gone(self, limit_s: float, but: Callable[[], Collection[int]] = lambda: ()) -> None:
        """Wait until nothing of the build is left.

        Raises:
            AssertionError: something is, after `limit_s` seconds.
        """
        left = proc.wait_until_gone(lambda: set(self.left()) - set(but()), limit_s)
        if left:
            lines = "\n  ".join(map(proc.describe, filter(proc.runs, left)))
            raise AssertionError(f"left after {limit_s:.1f} s:\n  {lines}\n{self.scene.report()}")

    @property
    def stderr(self) -> str:
        return (self.scene.folder / "err").read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return (self.scene.folder / "out").read_text(errors="replace")

    def close(self) -> None:
        """End everything, kindly or not."""
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
