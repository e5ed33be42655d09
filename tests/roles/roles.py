"""The roles as data, and a way to run playbooks that leaves no connection open."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
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
    killed_when: Callable[[], bool] | None = None,
) -> Play:
    """Run a playbook.

    Args:
        controls: a folder with a short name for SSH's sockets; connections in it are closed at the end.
        killed_when: asked again and again; the run is killed, without a word to it, once this says so.
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
        argv = [tool("ansible-playbook"), *map(str, arguments), playbook]
        return Play(*_run(argv, folder, environ, killed_when))
    finally:
        for socket in controls.iterdir():
            command = ["ssh", "-F", "none", "-O", "exit", "-o", f"ControlPath={socket}", "nobody"]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)


def _run(
    argv: Sequence[str], folder: Path, environ: Mapping[str, str], killed_when: Callable[[], bool] | None
) -> tuple[int, str]:
    end = time.monotonic() + LONGEST_PLAY_S
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        child = subprocess.Popen(
            argv,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            while child.poll() is None and time.monotonic() < end:
                if killed_when is not None and killed_when():
                    break
                time.sleep(0.1)
        finally:
            if child.poll() is None:
                # Its workers have sessions of their own.
                for process in psutil.Process(child.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                child.kill()
            code = child.wait()
        said.seek(0)
        text = said.read()
    assert time.monotonic() < end, text[-4000:]
    return code, text
