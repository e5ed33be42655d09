"""Hosts, and a doctor who examines them as a person would: by the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from d1fleet.findings import FAULT
from tests.roles.roles import play
from tests.roles.site import Site

SICK = "h2"
"""The host that faults are made on."""

LONGEST_S = 60.0
"""For one examination, whatever hangs; a guess for a machine that is busy."""


@dataclass
class Report:
    """One examination: doctor's exit code, its answer, and what it took."""

    code: int
    answer: dict[str, Any]
    seconds: float

    def about(self, finding: str, host: str = SICK) -> dict[str, Any] | None:
        """The finding of this kind about a host; None where there is none."""
        return next(
            (each for each in self.answer["findings"] if each["id"] == finding and host in each["hosts"]),
            None,
        )

    @property
    def serious(self) -> list[str]:
        """Kinds of all faults and warnings."""
        return [each["id"] for each in self.answer["findings"] if each["severity"] != "note"]


@dataclass
class Ward:
    """Enrolled hosts that share a tree with this machine.

    Attributes:
        tree: the folder.
    """

    site: Site
    tree: Path

    def examine(self, *options: str) -> Report:
        """`d1fleet doctor --json` in the tree; its exit code has to fit its findings."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "d1fleet.cli", "doctor", "--json", *self._inventories(), *options],
            cwd=self.tree,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * LONGEST_S,
        )
        seconds = time.monotonic() - began
        assert done.stdout, done.stderr
        report = Report(done.returncode, json.loads(done.stdout), seconds)
        worst = any(each["severity"] == FAULT for each in report.answer["findings"])
        assert report.code == (97 if worst else 0), done.stdout
        assert seconds < LONGEST_S, done.stdout
        return report

    def check(self) -> tuple[int, list[str]]:
        """playbooks/check_fleet.yml: its exit code, and the lines that it says."""
        done = play(
            *self.site.inventories,
            controls=self.site.folder / "c",
            playbook="playbooks/check_fleet.yml",
            environment={"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "XDG_CACHE_HOME": str(self.site.folder)},
        )
        said = re.search(r'"msg": (\[.*?^    \])', done.text, re.DOTALL | re.MULTILINE)
        assert said is not None, done.text
        assert done.total("changed") == 0, done.text
        lines: list[str] = json.loads(said[1])
        return done.code, lines

    def refresh(self) -> None:
        """playbooks/refresh.yml, by what the inventory says now."""
        done = play(
            *self.site.inventories,
            controls=self.site.folder / "c",
            playbook="playbooks/refresh.yml",
            environment={"XDG_CACHE_HOME": str(self.site.folder)},
        )
        assert done.code == 0, done.text

    def _inventories(self) -> list[str]:
        return [str(word) for word in self.site.inventories]

    def type(self, command: str) -> None:
        """A command as doctor has printed it, in a shell."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        controls = self.site.folder / "c"
        controls.mkdir(exist_ok=True)
        environ = {
            **os.environ,
            "PATH": path,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(controls),
            "XDG_CACHE_HOME": str(self.site.folder),
        }
        try:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd="/",
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=900,
            )
        finally:
            # Ansible's connections stay for a minute, and would be left behind.
            for socket in controls.iterdir():
                end = ["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={socket}", "nobody"]
                subprocess.run(end, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)
        assert done.returncode == 0, f"{command}\n{done.stdout}"

    def on(self, command: str, host: str = SICK) -> str:
        """What root's shell prints there; not over SSH, which may be what is out of order."""
        done = self.site.hosts[host].run(["sh", "-c", command])
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def say(self, variables: dict[str, Any]) -> None:
        """Set variables of the sick host in the inventory; none takes them all back."""
        folder = self.site.folder / "more" / "host_vars"
        folder.mkdir(exist_ok=True)
        file = folder / f"{SICK}.yml"
        if variables:
            file.write_text(yaml.safe_dump(variables))
        else:
            file.unlink(missing_ok=True)
