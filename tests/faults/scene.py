"""A build whose one recipe is in the middle of writing its target, until the test says go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.kill import proc
from tests.kill.fleet import Fleet

START_LIMIT_S = 30.0

MAKEFILE = """\
all: ; $(MAKE) -C sub {goal}
"""

SUB = """\
export CFLAGS := -O2
big.o: big.c
\t@echo half > $@; echo $$$$ >> ../began; while [ ! -e ../go ]; do sleep 0.02; done; echo whole >> $@
whole.o: big.c
\t@echo whole > $@
steady.o: big.c
\t@echo $$$$ >> ../began; while [ ! -e ../go ]; do echo tick >> $@; sleep 0.01; done; echo whole > $@
ticks.o: big.c
\t@echo $$$$ >> ../began; while [ ! -e ../go ]; do echo >> ../ticks.$$$$; sleep 0.01; done; echo whole > $@
both: whole.o big.o
.PHONY: both
"""


class Scene:
    """The tree and its builds.

    Args:
        goal: of the sub-make.
    """

    def __init__(self, folder: Path, fleet: Fleet, goal: str = "big.o") -> None:
        self.tree = folder / "tree"
        self.fleet = fleet
        self.folder = folder
        (self.tree / "sub").mkdir(parents=True)
        (self.tree / "Makefile").write_text(MAKEFILE.format(goal=goal))
        (self.tree / "sub" / "Makefile").write_text(SUB)
        (self.tree / "sub" / "big.c").write_text("\n")
        self._builds: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exc: object) -> None:
        self.go()
        for build in self._builds:
            if build.poll() is None:
                build.kill()
            build.communicate()
        proc.wait_until_gone(lambda: proc.marked(self.folder.name), 20.0)

    def start(self, *arguments: str, own: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a build."""
        number = len(self._builds)
        build = subprocess.Popen(
            self.fleet.command("-j2", *arguments, record=self.folder / f"record{number}", own=own),
            cwd=self.tree,
            env={**self.fleet.environment(), "D1KILL_MARK": self.folder.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._builds.append(build)
        return build

    def recipe(self, number: int) -> int:
        """The process of the `number`th time (from 1) that the recipe has written half."""
        began = self.tree / "began"

        def there() -> bool:
            return began.exists() and len(began.read_text().split()) >= number

        self.wait_for(there, f"recipe {number}")
        return int(began.read_text().split()[number - 1])

    def wait_for(self, true: Callable[[], bool], what: str, limit_s: float = START_LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not true():
            ended = [build for build in self._builds if build.poll() is not None]
            if time.monotonic() > deadline or len(ended) == len(self._builds):
                words = [build.communicate() for build in ended]
                raise TimeoutError(f"never: {what}; {words}")
            time.sleep(0.02)

    def wait_for_hosts(self, count: int) -> None:
        """Until so many take part: the first one up gets work at once."""
        record = self.folder / "record0"
        self.wait_for(lambda: record.read_text().count('"host-up"') >= count, f"{count} hosts")

    def go(self) -> None:
        """Let recipes write the rest."""
        (self.tree / "go").touch()

    def supervisor(self, recipe: int) -> int:
        """Of a recipe's process: what its make runs below."""
        above = proc.above(recipe)
        makes = [number for number, pid in enumerate(above) if proc.words(pid)[:1] == ["make"]]
        return above[makes[0] + 1]

    def server(self, recipe: int) -> int:
        return proc.parent(self.supervisor(recipe))

    def frozen(self, recipe: int) -> list[int]:
        """Stop all that a host runs of the build, with its connection; returns the processes."""
        session = [] if self.fleet.sshd is None else [self.session(recipe)]
        server = self.server(recipe)
        for pid in session:
            os.kill(pid, signal.SIGSTOP)
        return session + proc.freeze(server)

    @staticmethod
    def thaw(pids: Sequence[int]) -> None:
        """Let them go on."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # the first that goes on ends others
                os.kill(pid, signal.SIGCONT)

    @property
    def has_note(self) -> bool:
        """Has a host noted in the tree what it may have written too late?"""
        return any(not path.name.startswith(".") for path in self.tree.glob(".d1fleet-late/*"))

    def thaw_behind_the_build(self) -> str:
        """A host is frozen, another one does its work, the build ends well, and the host goes on. Returns
        what the build said.
        """
        build = self.start()
        first = self.recipe(1)
        frozen = self.frozen(first)
        self.recipe(2)
        self.go()
        _, err = build.communicate(timeout=START_LIMIT_S)
        assert build.returncode == 0, err
        assert self.product("steady.o") == "whole\n"
        (self.tree / "go").unlink()
        self.thaw(frozen)
        assert not proc.wait_until_gone(lambda: [first], 5.0)
        self.go()
        proc.wait_until_gone(lambda: frozen, 20.0)
        return err

    def session(self, recipe: int) -> int:
        """The process of the login that carries the connection; only over SSH."""
        return proc.parent(self.server(recipe))

    def coordinator(self, build: subprocess.Popen[str]) -> int:
        (pid,) = proc.children(build.pid)
        return pid

    def product(self, name: str = "big.o") -> str:
        path = self.tree / "sub" / name
        return path.read_text() if path.exists() else ""

    @property
    def put_away(self) -> dict[str, str]:
        """What was put away: paths as they were, and contents."""
        lost = self.tree / ".d1fleet-lost"
        return {
            str(path.relative_to(lost)).partition("/")[2]: path.read_text()
            for path in lost.glob("*/**/*")
            if path.is_file()
        }

    def events(self, name: str, number: int = 0) -> list[dict[str, Any]]:
        """Of a build's record."""
        lines = (self.folder / f"record{number}").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    @property
    def left_in_tree(self) -> set[str]:
        """Names of ours in the tree."""
        return {name for name in os.listdir(self.tree) if name.startswith(".d1fleet")}
