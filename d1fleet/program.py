"""A program that is not make, as `d1fleet build --command` starts it: found and begun as by a shell."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import NotExecutableError, ProgramError

_SHELL = "/bin/sh"


@dataclass(frozen=True)
class Program:
    """What was asked for."""

    words: Sequence[str]
    """The program and its arguments."""
    jobs: int | None = None
    """N of -jN for the makes that it starts; 0 is -j without a number, None is no -j."""


def find(word: str, path: str) -> str:
    """The file that `word` means: one with a slash is a path, others are looked up in `path`, as PATH is.

    Raises:
        ProgramError: there is none.
        NotExecutableError: there is one, which cannot be executed.
    """
    folders = [""] if "/" in word else [folder or "." for folder in path.split(":")]
    files = [os.path.join(folder, word) for folder in folders if word]
    files = [file for file in files if os.path.exists(file)]
    for file in files:
        if os.path.isfile(file) and os.access(file, os.X_OK):
            return file
    if not files:
        where = "there is no" if "/" in word else "in PATH there is no program"
        raise ProgramError(f"{where} {word or '(empty name)'}", _MEND)
    if os.path.isdir(files[0]):
        raise NotExecutableError(f"{files[0]} is a folder", _MEND)
    raise NotExecutableError(f"{files[0]} may not be executed", f"chmod +x {files[0]}")


_MEND = "d1fleet build --command -- PROGRAM ARGUMENTS"


def replace_us(argv: Sequence[str]) -> int:
    """Become the program; does not return.

    Raises:
        ProgramError, NotExecutableError: as find and spawn.
    """
    file = find(argv[0], os.environ.get("PATH", os.defpath))
    return _begin(file, list(argv), os.execv)


def spawn(file: str, argv: Sequence[bytes], environ: Mapping[str, str], **how: Any) -> int:
    """Start it; returns its process id.

    Args:
        how: further arguments of os.posix_spawn.

    Raises:
        ProgramError: its interpreter is not there.
        NotExecutableError: the kernel does not take it.
    """
    words = [os.fsdecode(word) for word in argv]
    return _begin(file, words, lambda path, words: os.posix_spawn(path, words, environ, **how))


def _begin(file: str, words: list[str], call: Callable[[str, list[str]], int]) -> int:
    """Call the kernel for the file, or, where it is a text without a #! line, for a shell that reads it."""
    try:
        try:
            return call(file, words)
        except OSError as error:
            if error.errno != errno.ENOEXEC or b"\0" in _first_line(file):
                raise
            return call(_SHELL, [_SHELL, file, *words[1:]])
    except FileNotFoundError as error:
        raise ProgramError(
            f"{file} cannot be started: its interpreter is not there", "see its first line"
        ) from error
    except OSError as error:
        raise NotExecutableError(
            f"{file} cannot be started: {error.strerror}", "see what `file` says of it"
        ) from error


def _first_line(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(4096).partition(b"\n")[0]
