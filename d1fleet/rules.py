"""Rules by goal, folder and argument: which sub-makes stay where they are called, which must not be done
twice. Pure; docs/rules.md has the grammar.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from . import makeflags

KINDS = ("goal", "folder", "argument")
"""What a rule can go by."""

NOT_REPEATABLE = tuple(
    f"goal={name}"
    for name in (
        "install",
        "install-*",
        "uninstall",
        "uninstall-*",
        "flash",
        "upload",
        "deploy",
        "publish",
        "release",
    )
)
"""Goals that leave something behind that a second time may spoil."""

KEEP_LOCAL = (*NOT_REPEATABLE, *(f"goal={name}config" for name in ("menu", "n", "x", "g")))
"""Goals that touch this machine, ask a person, or must happen once and here."""


class BadRule(ValueError):
    """A rule that cannot be read; says why."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: as it was written.
        kind: one of KINDS.
        pattern: of a shell's kind; `*` stands for slashes too.
        applies: false where it takes back what rules before it say.
    """

    text: str
    kind: str
    pattern: str
    applies: bool

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `[!]KIND=PATTERN`.

        Raises:
            BadRule: it is none.
        """
        kind, equals, pattern = text.removeprefix("!").partition("=")
        if not equals or kind not in KINDS:
            known = ", ".join(f"{each}=" for each in KINDS)
            raise BadRule(f"it has to begin with {known}, or with ! and one")
        if not pattern or "\0" in pattern:
            raise BadRule(f"{kind}= lacks its pattern")
        return cls(text, kind, pattern, not text.startswith("!"))


class Rules:
    """A list of rules. Of those of one kind that fit, the last one says whether they apply.

    Args:
        texts: the rules, the weakest first.
        folder: of the build, absolute: what folders are relative to.

    Raises:
        BadRule: one of them cannot be read.
    """

    def __init__(self, texts: Sequence[str], folder: bytes) -> None:
        start = glob.escape(os.fsdecode(folder))
        self._rules: dict[str, list[tuple[re.Pattern[str], Rule]]] = {kind: [] for kind in KINDS}
        for text in reversed(texts):
            rule = Rule.parse(text)
            pattern = rule.pattern
            if rule.kind == "folder":
                pattern = os.path.normpath(os.path.join(start, pattern))
            self._rules[rule.kind].append((re.compile(fnmatch.translate(pattern)), rule))
        # Most sub-makes meet no rule at all: one look is to be enough for them.
        self._any = {
            kind: re.compile("|".join(regex.pattern for regex, rule in found if rule.applies))
            for kind, found in self._rules.items()
            if any(rule.applies for _, rule in found)
        }

    def applying(self, folder: bytes, argv: Sequence[bytes], flags: makeflags.Flags) -> str | None:
        """The rule that applies to a sub-make, as it was written; None when none does.

        Args:
            folder: where it is called; absolute.
            argv: its program and its arguments.
            flags: its MAKEFLAGS, for the variables of the command line.
        """
        found = None
        if "goal" in self._any:
            goals = makeflags.argv_goals(argv)
            found = self._first("goal", ((os.fsdecode(goal),) for goal in goals))
        if found is None and "argument" in self._any:
            words = (*argv[1:], *flags.arguments.variables)
            found = self._first("argument", ((os.fsdecode(word),) for word in words))
        if found is None and "folder" in self._any:
            place = os.path.normpath(os.fsdecode(os.path.join(folder, *makeflags.argv_directory(argv))))
            found = self._first("folder", (tuple(_with_parents(place)),))
        return found

    def _first(self, kind: str, things: Iterable[Sequence[str]]) -> str | None:
        """The rule for the first of these things that one applies to. Each thing has one or several names."""
        for names in things:
            if any(map(self._any[kind].match, names)):
                fitting = (rule for regex, rule in self._rules[kind] if any(map(regex.match, names)))
                rule = next(fitting, None)
                if rule is not None and rule.applies:
                    return rule.text
        return None


def _with_parents(folder: str) -> Iterator[str]:
    """A folder and all above it: a rule for one is for what lies in it."""
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above
