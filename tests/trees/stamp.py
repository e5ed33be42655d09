"""The program that recipes of traced builds run, compiled once, and how make is told to use it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("stamp.c")


class NoCompiler(Exception):
    """It cannot be compiled here; the text is a test's reason to skip."""


def stamp(folder: Path) -> Path:
    """The program in `folder`, compiled there if it is not yet; it needs no library of a host's.

    Raises:
        NoCompiler: no compiler, or no static libc.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    program = folder / f"stamp-{digest}"
    if program.exists():
        return program
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompiler("no C compiler here")
    new = folder / f"stamp-{digest}.{os.getpid()}"
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-Werror", "-static", "-o", str(new), str(_SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoCompiler(done.stderr)
    new.rename(program)
    return program


SHELL_FLAGS = "--stamp '$@' '$^ $|' -c"
"""make expands them for each recipe: so the tracer knows the target and what it needs.

With double quotes make would put a shell of its own between itself and the program.
"""


def tracing_arguments(program: Path) -> list[str]:
    """make's arguments that let every recipe of every make below run through the program."""
    return [f"SHELL={program}", f".SHELLFLAGS={SHELL_FLAGS}"]


def tracing_environment(log: Path, shell: str) -> Mapping[str, str]:
    """What such a build needs besides.

    Args:
        shell: what its makefiles expect SHELL to be.
    """
    return {"STAMP_SHELL_LOG": str(log), "STAMP_SHELL": shell}
