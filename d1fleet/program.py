"""A program that is not make, as `d1fleet build --command` starts it: found and begun as by a shell."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .errors import NotExecutableError, ProgramError

_SHELL = "/bin/sh"


@dataclass(frozen=True)
class Program:
    """What was asked for."""

    words: Sequence[str]
    """The program and its arguments."""
    jobs: int | None = None
    """N of -jN for the makes that it starts; 0 is -j without a number, None is no -j."""


def find(word: str, path: str) -> Path:
    """The file that `word` means: one with a slash is a path, others are looked up in `path`, as PATH is.

    Raises:
        ProgramError: there is none.
        NotExecutableError: there is one, which cannot be executed.
    """
    folders = [""] if "/" in word else [folder or "." for folder in path.split(":")]
    files = [file for folder in folders if (file := Path(folder, word)).exists()] if word else []
    for file in files:
        if file.is_file() and os.access(file, os.X_OK):
            return file
    if not files:
        where = "there is no" if "/" in word else "in PATH there is no program"
        raise ProgramError(f"{where} {word or '(empty name)'}", _MEND)
    if files[0].is_dir():
        raise NotExecutableError(f"{files[0]} is a folder", _MEND)
    raise NotExecutableError(f"{files[0]} may not be executed", f"chmod +x {files[0]}")


_LOOK = "see what `file` says of it"
_MEND = "d1fleet build --command -- PROGRAM ARGUMENTS"


def replace_us(argv: Sequence[str]) -> NoReturn:
    """Become the program.

    Raises:
        ProgramError: it is not there.
        NotExecutableError: it cannot be executed.
    """
    file = find(argv[0], os.environ.get("PATH", os.defpath))
    try:
        os.execv(file, list(argv))
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            os.execv(_SHELL, [_SHELL, str(file), *argv[1:]])
        raise NotExecutableError(f"{file} cannot be started: {error.strerror}", _LOOK) from error


def spawn(file: Path, argv: Sequence[bytes], environ: Mapping[str, str], **how: Any) -> int:
    """Start it; returns its process id. A text file without a #! line is a script of the shell.

    Args:
        how: further arguments of os.posix_spawn.

    Raises:
        ProgramError: its interpreter is not there.
        NotExecutableError: the kernel does not take it.
    """
    try:
        try:
            return os.posix_spawn(file, list(argv), environ, **how)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            shell = [os.fsencode(_SHELL), os.fsencode(file), *argv[1:]]
            return os.posix_spawn(_SHELL, shell, environ, **how)
    except FileNotFoundError as error:
        raise ProgramError(
            f"{file} cannot be started: its interpreter is not there", "see its first line"
        ) from error
    except OSError as error:
        raise NotExecutableError(f"{file} cannot be started: {error.strerror}", _LOOK) from error
