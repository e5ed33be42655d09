"""Which files are targets that a make may have been at: its goals, and what they need, however far below.
make itself is asked. Nothing is run for that but what it runs each time that it reads its makefiles, and
`$(shell ...)` in recipes.

`make -q` alone would not do: lines with `+` or `$(MAKE)` run all the same, and so do rules that remake
makefiles (measured with 4.3 and 4.4.1). So every rule gets a SHELL that does nothing, by a pattern that fits
all targets; `$(shell ...)` in makefiles, on which names of targets depend, keeps its own. A makefile that has
a SHELL for some target wins against that: then make is not shown its goals, and what it has from rules alone
counts.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import makeargs, makeflags

_QUIET_SHELL = b"/bin/true"

_NO_GOAL = b".d1fleet-asks"
"""A goal of our own: without one make would look at the first of the makefile."""

_ASK_LIMIT_S = 60.0
"""For reading the makefiles once (a guess): those of large trees call programs while they are read."""

_DEFAULT_GOAL = re.compile(rb"^\.DEFAULT_GOAL :?= (.+)$", re.MULTILINE)
_MAKEFILES = re.compile(rb"^MAKEFILE_LIST :?= (.+)$", re.MULTILINE)
_MEMBER = re.compile(rb"(.+)\((.+)\)")
"""Of an archive: who writes it, writes that."""
_ALSO = b"#  Also makes:"

_KEPT = frozenset((b"C", b"f", b"I", b"E", b"e", b"r", b"R", b"L"))
"""Options that decide what the makefiles say, as against what make does with that."""

_DATABASE = re.compile(rb"^# Make data base", re.MULTILINE)
_OWN_SHELL = re.compile(
    # Of a target, as `make -p` prints it; of a pattern, where it is printed as a comment.
    rb"^(?:[^#\s][^\n]*: (?:\w+ )*|# )(?:SHELL|\.SHELLFLAGS) (?:::?:?|[?+!])?= ?(.*)$",
    re.MULTILINE,
)
_NOT_A_NAME = re.compile(rb"[\s:=%#$\\]")
"""What stands for something else than a part of a name in a data base that make has printed."""

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


@dataclass(frozen=True)
class Found:
    """What make says of a file.

    Attributes:
        makefile: that has its recipe; empty for a rule that is built in.
        reached: it is a goal of the make, or a prerequisite of one, however far below. False where that
            cannot be known.
        empty: its recipe does nothing: something else makes it, or nothing does.
    """

    makefile: bytes
    reached: bool
    empty: bool


def targets_of(question: Question) -> dict[bytes, Found]:
    """Targets with a recipe that a make may have run, and no phony ones, by their absolute paths, without
    symbolic links in front of their names. What make prints in a way that cannot be read back (with a blank,
    a colon ...) is left out.

    Raises:
        AskError: make cannot read its makefiles, or takes too long for it.
    """
    database = _ask(question, named=False)
    # Make must not look at its goals then: what a rule names may have been run, though nobody can tell.
    blind = any(map(_is_foreign, _OWN_SHELL.findall(database)))
    rules = _rules(database if blind else _ask(question, named=True))
    goals = makeargs.arguments(question.argv).goals or _DEFAULT_GOAL.findall(database)[-1:]
    reached = _reached(rules, [*goals, *_words(_MAKEFILES, database)])
    place = _Place(question.directory)
    found: dict[bytes, Found] = {}
    for name, rule in rules.items():
        if rule.makefile is not None and not rule.phony and (blind or name in reached):
            member = _MEMBER.fullmatch(name)
            path = place.path(member[1] if member is not None else name)
            found[path] = Found(rule.makefile, name in reached, rule.empty)
    return found


class _Place:
    """Where names of files count from."""

    def __init__(self, directory: bytes) -> None:
        self._directory = directory
        self._folders: dict[bytes, bytes] = {}

    def path(self, name: bytes) -> bytes:
        """Whatever `//`, `..` and links to folders stand in it."""
        folder, _, base = name.rpartition(b"/")
        if folder not in self._folders:
            start = folder or (b"/" if name.startswith(b"/") else b"")
            self._folders[folder] = os.path.realpath(os.path.join(self._directory, start))
        return os.path.join(self._folders[folder], base)


@dataclass
class _Rule:
    prerequisites: list[bytes]
    makefile: bytes | None = None
    """None without a recipe."""
    phony: bool = False
    empty: bool = True


def _reached(rules: Mapping[bytes, _Rule], goals: Iterable[bytes]) -> set[bytes]:
    reached: set[bytes] = set()
    waiting = [goal[2:].lstrip(b"/") if goal.startswith(b"./") else goal for goal in goals]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += rules[name].prerequisites if name in rules else []
    return reached


def _words(expression: re.Pattern[bytes], database: bytes) -> list[bytes]:
    return [word for line in expression.findall(database)[-1:] for word in line.split()]


def _is_foreign(shell: bytes) -> bool:
    return shell != _QUIET_SHELL


def _ask(question: Question, named: bool) -> bytes:
    """The data base of make, after it has looked at the goals it was called with if `named`."""
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
    variables = [*reversed(inherited.variables), *own.variables]
    if not named:
        variables.append(b"MAKECMDGOALS=" + b" ".join(own.goals))
    unwanted = (b"MAKEFLAGS", b"MFLAGS", b"GNUMAKEFLAGS", b"MAKE_RESTARTS")
    environment = {name: value for name, value in question.environment.items() if name not in unwanted}
    try:
        done = subprocess.run(
            [*argv, *variables, b"--", *(own.goals if named else [_NO_GOAL])],
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
    # goal that it cannot make. The first is seen when it has no goals of its own.
    if start is None or done.returncode not in ((0, 1, 2) if named else (0, 1)):
        said = done.stderr.decode(errors="replace").strip()
        raise AskError(said or f"make ended with {done.returncode} and without its data base")
    return done.stdout[start.start() :]


def _rules(database: bytes) -> dict[bytes, _Rule]:
    """The files of a data base that make has printed, by name."""
    rules: dict[bytes, _Rule] = {}
    _, _, files = database.partition(b"\n# Files\n")
    for entry in files.split(b"\n\n"):
        if entry.startswith(b"# Not a target:"):
            continue
        lines = entry.splitlines()
        found = next((rule for rule in map(_rule, lines) if rule is not None), None)
        if found is None or _NOT_A_NAME.search(found[0]):
            continue
        name, prerequisites = found
        rule = rules.setdefault(name, _Rule([]))  # one with `::` has several
        rule.prerequisites += prerequisites
        also: list[bytes] = []
        for line in lines:
            recipe = _RECIPE.fullmatch(line)
            if recipe is not None:
                rule.makefile = recipe[1] or b""
            elif line.startswith(b"#  Phony target"):
                rule.phony = True
            elif line.startswith(b"\t") and line.strip():
                rule.empty = False
            elif line.startswith(_ALSO):
                also = line[len(_ALSO) :].split()
        # One recipe makes them all: who reaches one, reaches them.
        rule.prerequisites += also
        for other in also:
            made = rules.setdefault(other, _Rule([]))
            made.makefile, made.empty = rule.makefile, rule.empty
    return rules


def _rule(line: bytes) -> tuple[bytes, list[bytes]] | None:
    """What the line of a rule names, and its prerequisites; None for any other line. Variables of targets are
    printed before it.
    """
    if line.startswith((b"#", b"\t")):
        return None
    name, colon, rest = line.partition(b":")
    if not colon or re.match(rb":? (?:\w+ )*\S+ (?:::?:?|[?+!])?= ?", rest):
        return None
    return name, [word for word in rest.lstrip(b":").split() if word != b"|"]
