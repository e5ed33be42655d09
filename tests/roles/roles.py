"""The roles as data, and a way to run playbooks that leaves no connection open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())

LONGEST_PLAY_S = 900.0
"""A guess: packages of three hosts over a slow mirror, on a busy machine."""


def load(path: str | Path) -> Any:
    """A YAML file of this repository."""
    return yaml.safe_load((ROOT / path).read_text())


def options(role: str) -> dict[str, dict[str, Any]]:
    """A role's variables, as its argument_specs say them."""
    found: dict[str, dict[str, Any]] = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"][
        "main"
    ]["options"]
    return found


def tool(name: str) -> str:
    """A program of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


class Play:
    """One run of ansible-playbook: what it printed, and each host's counts."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        self.counts = {
            line[1]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line[2])}
            for line in re.finditer(r"^(\S+) +: (ok=.*)$", text, re.M)
        }

    @property
    def words(self) -> str:
        """All text with single blanks: messages are broken into lines as the terminal is wide."""
        return " ".join(self.text.split())

    def total(self, what: str) -> int:
        """Of all hosts: changed, failed, unreachable ..."""
        return sum(found[what] for found in self.counts.values())


def play(
    *arguments: str | Path,
    controls: Path,
    playbook: str = "site.yml",
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> Play:
    """Run a playbook.

    Args:
        controls: a folder with a short name for SSH's sockets; connections in it are closed at the end.
    """
    controls.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {
        **os.environ,
        "PATH": path,
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(controls),
        **(environment or {}),
    }
    try:
        return Play(*_run([tool("ansible-playbook"), *map(str, arguments), playbook], folder, environ))
    finally:
        for socket in controls.iterdir():
            command = ["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={socket}", "nobody"]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)


def _run(argv: Sequence[str], folder: Path, environ: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        argv,
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LONGEST_PLAY_S,
    )
    return done.returncode, done.stdout
