"""Which files are targets of a make: make itself is asked, by name. Nothing is run for that but what it runs
each time that it reads its makefiles.

`make -q` alone would not do: lines with `+` or `$(MAKE)` run all the same, and so do rules that remake
makefiles (measured with 4.3 and 4.4.1). So every rule gets a SHELL that does nothing, by a pattern that fits
all targets; `$(shell ...)` in makefiles, on which names of targets depend, keeps its own. A makefile that has
a SHELL for some target wins against that: then make is not asked by name, and rules that name a file count.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import makeargs, makeflags

_QUIET_SHELL = b"/bin/true"

_NO_GOAL = b".d1fleet-asks"
"""A goal of our own: without one make would look at the first of the makefile."""

_ASK_LIMIT_S = 60.0
"""For reading the makefiles once (a guess): those of large trees call programs while they are read."""

_MOST_BYTES = 64 << 10
"""Of names in one question; the kernel takes 2 MiB of arguments and environment together."""

_KEPT = frozenset((b"C", b"f", b"I", b"E", b"e", b"r", b"R", b"L"))
"""Options that decide what the makefiles say, as against what make does with that."""

_DATABASE = re.compile(rb"^# Make data base", re.MULTILINE)
_OWN_SHELL = re.compile(
    # Of a target, as `make -p` prints it; of a pattern, where it is printed as a comment.
    rb"^(?:[^#\s][^\n]*: (?:\w+ )*|# )(?:SHELL|\.SHELLFLAGS) (?:::?:?|[?+!])?= ?(.*)$",
    re.MULTILINE,
)
_NOT_A_NAME = re.compile(rb"[\s:=%#$\\;|&*?\[\]~()<>'\"]")
"""What make, or its printed data base, would take for something else than a part of a name."""

_RECIPE = re.compile(rb"#  (?:recipe|commands) to execute(?: \(from '(.*)', line \d+\))?.*")


class AskError(Exception):
    """Make could not say; has make's own words."""


@dataclass(frozen=True)
class Question:
    """A make, as it was called.

    Attributes:
        make: path of the real make.
        argv: as it was called, program first.
        environment: as it was called.
        folder: where it was called; its -C counts from there.
    """

    make: bytes
    argv: Sequence[bytes]
    environment: Mapping[bytes, bytes]
    folder: bytes

    @property
    def directory(self) -> bytes:
        """Where it goes to work: names of targets count from there."""
        return os.path.realpath(os.path.join(self.folder, *makeflags.argv_directory(self.argv)))


class Targets:
    """What a make would make.

    Raises:
        AskError: make cannot read its makefiles, or takes too long for it.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        database = _ask(question, [])
        self._explicit = database if any(map(_is_foreign, _OWN_SHELL.findall(database))) else None
        """All that may be looked at, where make must not be asked by name."""

    def among(self, names: Collection[bytes]) -> dict[bytes, bytes]:
        """Those names that are targets with a recipe, and no phony ones; with the makefile that has the
        recipe, empty for a rule that is built in.

        Args:
            names: as makefiles may write them, relative to the make's directory or absolute. What cannot
                stand in a makefile as it is (with a blank, a colon ...) is no target. Of what is named make
                believes that it will be there: `a` is a target by `%: %.o` when `a.o` is named too.

        Raises:
            AskError: make cannot say.
        """
        names = [name for name in names if not _NOT_A_NAME.search(name) and not name.startswith(b"-")]
        found: dict[bytes, bytes] = {}
        for some in batches(names):
            database = self._explicit if self._explicit is not None else _ask(self._question, some)
            found.update(_targets_in(database, some))
        return found


def _is_foreign(shell: bytes) -> bool:
    return shell != _QUIET_SHELL


def batches(names: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many of them at a time as a command line takes."""
    some: list[bytes] = []
    size = 0
    for name in names:
        if some and size + len(name) > _MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(name)
        size += len(name) + 1
    if some:
        yield some


def _ask(question: Question, names: Sequence[bytes]) -> bytes:
    """The data base of make after it has looked at these names."""
    inherited = makeflags.parse(question.environment.get(b"MAKEFLAGS", b"")).arguments
    own = makeargs.arguments(question.argv)
    argv = [question.make, b"-qpk"]
    for source in (inherited, own):
        for option in source.options:
            if option.name in _KEPT:
                argv += [b"-" + option.name] if option.value is None else [b"-" + option.name, option.value]
    argv += [
        b"--eval",
        b"%: override SHELL=" + _QUIET_SHELL,
        b"--eval",
        b".PHONY: %b\n%b:" % ((_NO_GOAL,) * 2),
    ]
    # Makefiles that look at their goals shall see those of the make that is asked about.
    variables = [*reversed(inherited.variables), *own.variables, b"MAKECMDGOALS=" + b" ".join(own.goals)]
    unwanted = (b"MAKEFLAGS", b"MFLAGS", b"GNUMAKEFLAGS", b"MAKE_RESTARTS")
    environment = {name: value for name, value in question.environment.items() if name not in unwanted}
    try:
        done = subprocess.run(
            [*argv, *variables, b"--", *(names or [_NO_GOAL])],
            cwd=question.folder,
            env={**environment, b"LC_ALL": b"C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AskError(f"make takes more than {_ASK_LIMIT_S:.0f} s to read its makefiles") from None
    except OSError as error:
        raise AskError(str(error)) from error
    start = _DATABASE.search(done.stdout)
    # Where it stops at a line that it cannot read, it prints what it has by then, and ends with 2: as for a
    # name that it cannot make.
    if start is None or done.returncode not in ((0, 1, 2) if names else (0, 1)):
        said = done.stderr.decode(errors="replace").strip()
        raise AskError(said or f"make ended with {done.returncode} and without its data base")
    return done.stdout[start.start() :]


def _targets_in(database: bytes, names: Collection[bytes]) -> dict[bytes, bytes]:
    """Of a data base that make has printed: those of the names that have a recipe."""
    # Make drops ./ in front of a name.
    wanted = {name[2:].lstrip(b"/") if name.startswith(b"./") else name: name for name in names}
    found: dict[bytes, bytes] = {}
    _, _, files = database.partition(b"\n# Files\n")
    for entry in files.split(b"\n\n"):
        if entry.startswith(b"# Not a target:"):
            continue
        lines = entry.splitlines()
        name = next((name for name in map(_name_of_rule, lines) if name is not None), None)
        if name not in wanted or any(line.startswith(b"#  Phony target") for line in lines):
            continue
        recipe = next((match for match in map(_RECIPE.fullmatch, lines) if match), None)
        if recipe is not None:
            found[wanted[name]] = recipe[1] or b""
    return found


def _name_of_rule(line: bytes) -> bytes | None:
    """What the line of a rule names; None for any other line. Variables of targets are printed before it."""
    if line.startswith((b"#", b"\t")):
        return None
    name, colon, rest = line.partition(b":")
    if not colon or re.match(rb":? (?:\w+ )*\S+ (?:::?:?|[?+!])?= ?", rest):
        return None
    return name
