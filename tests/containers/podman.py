"""Podman, with a configuration that does not depend on the machine's, and run to its end in any case."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.containers.errors import ContainerError
from tests.containers.launcher import Command, Done, Launch, launch_here
from tests.containers.missing import find_tool
from tests.support.debsource import default_cache

COMMAND_TIMEOUT_S = 120.0
"""For one podman command; a guess: a dozen hosts that start at once on a busy machine."""

_LAST_LINES = 8

# crun refuses a machine that has both cgroup hierarchies. The limits are those that a root without
# CAP_SYS_RESOURCE may set. Journals and systemd's scopes are not everywhere.
_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
runc = ["{runc}"]
"""


def podman(
    *arguments: str,
    stdin: str = "",
    timeout_s: float = COMMAND_TIMEOUT_S,
    patience_s: float = COMMAND_TIMEOUT_S,
    check: bool = True,
    launch: Launch = launch_here,
) -> Done:
    """Run podman with our configuration.

    When we are interrupted it goes on for `patience_s`: one killed half-way may leave storage behind.

    Raises:
        ContainerError: it failed (unless `check` is false) or took too long; with its last words.
    """
    env = {**os.environ, "CONTAINERS_CONF": str(_configuration())}
    done = launch(Command(["podman", *arguments], env, stdin, timeout_s, patience_s))
    if check and done.status:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
        raise ContainerError(f"podman {' '.join(arguments[:4])} ... ended with {done.status}:\n{last}")
    return done


def podman_json(*arguments: str) -> Any:
    """What podman prints as JSON; an empty answer is an empty list.

    Raises:
        ContainerError: it failed, or this is no JSON.
    """
    text = podman(*arguments).stdout
    try:
        return json.loads(text or "[]") or []
    except ValueError as exc:
        raise ContainerError(f"podman {' '.join(arguments[:3])} printed no JSON: {text[:200]}") from exc


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Put a whole file in place at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _configuration() -> Path:
    path = default_cache() / "containers.conf"
    text = _CONFIGURATION.format(runc=find_tool("runc") or "/usr/sbin/runc")
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text, 0o644)
    return path
