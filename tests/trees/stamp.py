"""The program that recipes of traced builds run, compiled once, and how makes are told to use it."""

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


_MAKEFILE = """\
override SHELL := {program}
override .SHELLFLAGS = --stamp '$@' '$^ $|' -c
"""
"""make expands the second for each recipe: so the tracer knows the target and what it needs. With double
quotes make would put a shell of its own between itself and the program.
"""


def tracing_environment(program: Path, log: Path, shell: str) -> Mapping[str, str]:
    """What lets every recipe of every make below run through the program.

    Every make reads the makefiles that MAKEFILES names, whatever it was called with: on the command line they
    would be lost where a makefile empties MAKEOVERRIDES.

    Args:
        program: of `stamp`; the makefile is written beside it.
        shell: what the build's makefiles expect SHELL to be.
    """
    makefile = program.with_name(f"{program.name}.mk")
    makefile.write_text(_MAKEFILE.format(program=program))
    return {"MAKEFILES": str(makefile), "STAMP_SHELL_LOG": str(log), "STAMP_SHELL": shell}
