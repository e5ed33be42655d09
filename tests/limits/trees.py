"""Makefiles whose sub-makes' recipes stamp their times, and builds of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kill.fleet import Fleet
from tests.limits.stamps import SCRIPT, Stamps

LIMIT_S = 90.0
"""For one build; a guess, for a machine that is busy."""


@dataclass(frozen=True)
class Sub:
    """A first-level sub-make.

    Attributes:
        recipes: how many that may run at once.
        nested: how many of them are sub-makes with two recipes of their own.
        call: how the top makefile calls it.
        after: others that have to be made before.
    """

    name: str
    recipes: int = 1
    nested: int = 0
    call: str = "$(MAKE) -C {name}"
    after: Sequence[str] = ()


class StampTree:
    """A tree of stamping sub-makes.

    Args:
        folder: made if need be.
        subs: its sub-makes.
        own: recipes of the top makefile itself beside them.
        hold: what a recipe spends its time with, in shell; without it, it waits for `go` and then a bit.
        head: lines at the top of the top makefile.
        log: where recipes stamp; its own file in the folder without it.
    """

    def __init__(
        self,
        folder: Path,
        subs: Sequence[Sub],
        own: int = 0,
        hold: str = "",
        head: str = "",
        log: Path | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        hold = hold or f"while [ ! -e '{folder}/go' ]; do sleep 0.02; done; sleep 0.05"
        self.log = log or folder / "log"
        self.subs = list(subs)
        self.recipes = own + sum(sub.recipes + sub.nested for sub in subs)
        """How many recipes stamp when all is made."""
        (folder / "stamp.sh").write_text(SCRIPT.format(log=self.log, hold=hold))
        names = [sub.name for sub in subs]
        locals_ = [f"own{number}" for number in range(own)]
        lines = [head, f"all: {' '.join(names + locals_)}", f".PHONY: all {' '.join(names + locals_)}"]
        for name in locals_:
            lines += [f"{name}:", f"\t@sh {folder}/stamp.sh {name}"]
        for sub in subs:
            lines += [f"{sub.name}: {' '.join(sub.after)}", f"\t{sub.call.format(name=sub.name)}"]
            self._write_sub(sub)
        (folder / "Makefile").write_text("\n".join(lines) + "\n")

    def _write_sub(self, sub: Sub) -> None:
        place = self.folder / sub.name
        place.mkdir()
        plain = [f"{sub.name}-{number}" for number in range(sub.recipes - sub.nested)]
        nested = [f"{sub.name}-n{number}" for number in range(sub.nested)]
        goals = " ".join(plain + nested)
        lines = [f"all: {goals}", f".PHONY: all {goals}"]
        for name in plain:
            lines += [f"{name}:", f"\t@sh {self.folder}/stamp.sh {name}"]
        for name in nested:
            lines += [f"{name}:", f"\t@$(MAKE) -f nested.mk NAME={name}"]
        (place / "Makefile").write_text("\n".join(lines) + "\n")
        inner = f"all: x y\nx y:\n\t@sh {self.folder}/stamp.sh $(NAME)-$@\n"
        (place / "nested.mk").write_text(inner)

    def go(self) -> None:
        """Let recipes that wait for it go on."""
        (self.folder / "go").touch()

    def stamps(self) -> Stamps:
        return Stamps(self.log)


class Running:
    """A build under way; ended with the block."""

    def __init__(self, argv: Sequence[str], folder: Path, environment: dict[str, str], name: str) -> None:
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        self._record = folder / f"{name}.record"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**environment, "STAMP_BUILD": name, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit status.

        Raises:
            AssertionError: it hangs.
        """
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the build hangs\n{self.stdout}\n{self.stderr}") from None

    @property
    def stdout(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(errors="replace")

    def record(self) -> list[dict[str, Any]]:
        """What `d1fleet build` has recorded so far."""
        text = self._record.read_text() if self._record.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            # Everything of a build ends with its front.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start(fleet: Fleet, tree: StampTree, *arguments: str, name: str = "build") -> Running:
    """Start `d1fleet build` in the tree; it has to run every sub-make on a host."""
    argv = fleet.command(*arguments, record=tree.folder / f"{name}.record", own=["--strict"])
    return Running(argv, tree.folder, fleet.environment(), name)


def build(fleet: Fleet, tree: StampTree, *arguments: str) -> Running:
    """`d1fleet build`, to its end, which has to be a good one; no recipe ends before all hosts take part."""
    with start(fleet, tree, *arguments) as running:
        wait_until_up(fleet, running)
        tree.go()
        status = running.end()
        assert status == 0, f"status {status}\n{running.stdout}\n{running.stderr}"
        return running


class Gate:
    """Recipes wait at it until they are let through: `hold` is what they run.

    A fifo for each sub-make, open here all the time; each of its recipes takes one line out of it.
    """

    def __init__(self, folder: Path, subs: Sequence[Sub]) -> None:
        self._fds: dict[str, int] = {}
        for sub in subs:
            path = folder / f"gate-{sub.name}"
            os.mkfifo(path)
            self._fds[sub.name] = os.open(path, os.O_RDWR)
        self.hold = f'read go <"{folder}/gate-${{1%%-*}}"'

    def let_through(self, count: int, *names: str) -> None:
        """Let so many recipes of each of these sub-makes go on, or of all."""
        for name in names or self._fds:
            os.write(self._fds[name], b"\n" * count)

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_until_up(fleet: Fleet, running: Running) -> None:
    """Wait until all hosts take part, or the build has ended."""
    deadline = time.monotonic() + LIMIT_S
    while running.process.poll() is None and time.monotonic() < deadline:
        if sum(entry["event"] == "host-up" for entry in running.record()) == len(fleet.hosts):
            return
        time.sleep(0.02)


def wait_until_running(tree: StampTree, count: int, running: Running) -> None:
    """Wait until so many recipes run at once.

    Raises:
        AssertionError: they never do.
    """
    deadline = time.monotonic() + LIMIT_S
    while (now := tree.stamps().running()) < count:
        ended = running.process.poll()
        if ended is not None or time.monotonic() > deadline:
            raise AssertionError(
                f"{now} recipes run at once, not {count}\n{running.stdout}\n{running.stderr}"
            )
        time.sleep(0.02)
