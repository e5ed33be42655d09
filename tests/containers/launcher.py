"""How podman is started."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.containers.errors import ContainerError


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def launch(argv: Sequence[str], *, env: Mapping[str, str], stdin: str, timeout_s: float) -> Done:
    """Run a command in a session of its own."""
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(stdin, timeout_s)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        process.communicate()
        raise ContainerError(f"{' '.join(argv[:4])} ... took more than {timeout_s} s") from exc
    except BaseException:
        process.communicate(timeout=timeout_s)
        raise
    return Done(process.returncode, out, err)
