"""Builds of three levels on two machines: what a job calls runs on the machine where the job does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kill.fleet import Fleet
from tests.limits.conftest import separate_machines

LIMIT_S = 60.0
"""For one build; a guess, for a machine that is busy."""

NAMES = ("a", "b")


_NOISE = re.compile(r"^(bash: .*|d1fleet: \d+ process(es)? that outlived sub-makes ended)\n", re.MULTILINE)
"""A shell without a terminal names its process; what a killed make leaves may be there still at the end."""


@dataclass(frozen=True)
class End:
    """What can be seen of a build, from outside."""

    code: int
    out: str
    err: str


@dataclass
class Depth:
    """A tree whose makefiles each call the next: Makefile, mid.mk, leaf.mk. The build's own make calls mid.mk
    on one host, which that fills, so that leaf.mk goes to the other one.

    Skips the test where this machine cannot pretend to be two.
    """

    folder: Path
    setups: Mapping[str, str] = field(default_factory=dict)
    """Further words of each host's setup."""

    def __post_init__(self) -> None:
        self.tree = self.folder / "tree"
        self.record = self.folder / "record"
        self.fleet: Fleet = separate_machines(self.folder, dict.fromkeys(NAMES, 1))
        self._cache = self.folder.parent / "cache-of-depth"  # one for all tests: the shim is compiled once
        self.fleet.variables = {"XDG_STATE_HOME": str(self._cache), "LC_ALL": "C.UTF-8"}
        for name, host in self.fleet.hosts.items():
            assert isinstance(host, dict)
            host["d1fleet_server_setup"] = f"STAMP_HOST={name} {self.setups.get(name, '')}"

    def plant(self, mid: str, leaf: str, **files: str) -> None:
        """A fresh tree."""
        if self.tree.exists():
            shutil.rmtree(self.tree)
        self.tree.mkdir()
        up = f'until [ "$$(grep -c host-up {self.record})" -ge 2 ]; do sleep 0.02; done'
        wait = f"[ ! -e {self.record} ] || {up}"
        top = f"all:\n\t@{wait}\n\t@$(MAKE) -f mid.mk\n"
        for name, text in {"Makefile": top, "mid.mk": mid, "leaf.mk": leaf, **files}.items():
            (self.tree / name).write_text(text)

    def start(self, argv: Sequence[str], merged: bool = False) -> subprocess.Popen[str]:
        """Start a program in the tree."""
        return subprocess.Popen(
            argv,
            cwd=self.tree,
            env=self.fleet.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def plain(self, *arguments: str, merged: bool = False) -> End:
        """What plain make does."""
        self.record.unlink(missing_ok=True)
        return ended(self.start(["make", *arguments], merged))

    def command(self, *arguments: str) -> list[str]:
        """argv of our build."""
        self.record.touch()
        # A history knows jobs of the same names, and that they are too short to move.
        shutil.rmtree(self._cache / "d1fleet" / "history", ignore_errors=True)
        return self.fleet.command(*arguments, record=self.record)

    def build(self, *arguments: str, merged: bool = False) -> End:
        """What we do."""
        return ended(self.start(self.command(*arguments), merged))

    def moved(self) -> int:
        """Sub-makes that were called on one host and ran on the other, in the last build."""
        jobs = [json.loads(line) for line in self.record.read_text().splitlines()]
        return sum(
            job["event"] == "job"
            and job["asked_from"] in NAMES
            and job["host"] not in (None, job["asked_from"])
            for job in jobs
        )


def ended(running: subprocess.Popen[str]) -> End:
    """Wait for the end of a build."""
    with running:
        try:
            out, err = running.communicate(timeout=LIMIT_S)
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    return End(running.returncode, out, _NOISE.sub("", err or ""))
