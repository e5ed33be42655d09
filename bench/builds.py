"""A build that stops where we want to look at it, whoever runs its sub-makes.

Its recipes say words into one fifo and wait for a line from another: what is timed lies between two such
gates, so that nobody's start or end is in the figures, and processes can be looked at while they stand still.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from .processes import children

WORD_LIMIT_S = 300.0
"""For a word of a recipe; a guess, for a build that is stuck."""

END_LIMIT_S = 30.0

LEAF = "leaf.mk"


class BuildFailedError(Exception):
    """The build ended, or stood still, where it should have gone on; with its last words."""


class Folder:
    """Where a build is at work: its makefiles and its fifos.

    Args:
        leaf: recipe of the sub-makes' one target.
    """

    def __init__(self, path: Path, leaf: str = "@:") -> None:
        path.mkdir(parents=True)
        self.path = path
        self.said, self.go = path / "said", path / "go"
        os.mkfifo(self.said)
        os.mkfifo(self.go)
        (path / LEAF).write_text(f"f:\n\t{leaf.format(said=self.said, go=self.go)}\n")

    def write(self, phases: Sequence[tuple[str, int]], job: str = f"$(MAKE) -f {LEAF} f J=$@") -> None:
        """The top makefile: each phase is a gate of its name, then so many times `job`; `done` is the last
        gate. Jobs are told apart by J: the same one over and over would always meet the same host.
        """
        text, before = [], ""
        for name, count in [*phases, ("done", 0)]:
            text.append(f"{name}: {before}\n\t@echo {name} >{self.said}; read x <{self.go}\n")
            jobs = " ".join(f"{name}{number}" for number in range(count))
            if count:
                text.append(f"{jobs}: {name}\n\t@{job}\n")
            text.append(f".PHONY: {name} {jobs}\n")
            before = f"{name} {jobs}"
        (self.path / "Makefile").write_text("all: done\n" + "".join(text))


class Build:
    """A running build in a folder.

    Args:
        argv: how it is called, without make's own arguments for our makefile.
        stdout: where its output goes; None is /dev/null.
    """

    def __init__(
        self,
        folder: Folder,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdout: int | IO[bytes] | None = None,
    ) -> None:
        self._said = os.open(folder.said, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._go = os.open(folder.go, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._words: list[str] = []
        self._errors = open(folder.path / "stderr", "w+b")  # noqa: SIM115 - closed by close
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*argv, "--no-print-directory"],
            cwd=folder.path,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=self._errors,
        )
        self._pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self) -> Build:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def coordinator(self) -> int:
        """The pid of d1fleet's coordinator: the one child of what the shell knows."""
        found = children(self.process.pid)
        if len(found) != 1:
            raise BuildFailedError(f"{len(found)} processes below the front, not one coordinator")
        return found[0]

    def hear(self, word: str, limit_s: float = WORD_LIMIT_S, also: Callable[[], None] | None = None) -> float:
        """Wait for a recipe to say `word`; returns when it was heard (monotonic seconds).

        Args:
            also: called now and then meanwhile.

        Raises:
            BuildFailedError: the build ended before, or said nothing for `limit_s`.
        """
        poll = select.poll()
        poll.register(self._said, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        deadline = time.monotonic() + limit_s
        while word not in self._words:
            ready = {fd for fd, _ in poll.poll(2 if also is not None else 1000)}
            heard = time.monotonic()
            if self._said in ready:
                self._words += os.read(self._said, 1 << 16).decode().split()
                if word in self._words:
                    self._words.remove(word)
                    return heard
            elif self._pidfd in ready:
                raise BuildFailedError(f"it ended with {self.process.wait()}; {self.last_words()}")
            elif heard > deadline:
                raise BuildFailedError(f"no {word!r} within {limit_s:.0f} s; {self.last_words()}")
            if also is not None:
                also()
        self._words.remove(word)
        return time.monotonic()

    def let_go(self, count: int = 1) -> float:
        """Let so many waiting recipes go on; returns when."""
        now = time.monotonic()
        os.write(self._go, b"\n" * count)
        return now

    def finish(self) -> float:
        """Let the last gate go and wait for the end; returns how long that took.

        Raises:
            BuildFailedError: the build failed.
        """
        began = self.let_go()
        status = self.process.wait(END_LIMIT_S)
        if status != 0:
            raise BuildFailedError(f"it ended with {status}; {self.last_words()}")
        return time.monotonic() - began

    def last_words(self) -> str:
        """The end of its stderr, on one line."""
        self._errors.seek(0)
        return " | ".join(self._errors.read().decode("utf-8", "replace").split("\n")[-4:]).strip(" |")[-400:]

    def close(self) -> None:
        """End it, if it has not ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(END_LIMIT_S)
        for fd in (self._said, self._go, self._pidfd):
            os.close(fd)
        self._errors.close()
