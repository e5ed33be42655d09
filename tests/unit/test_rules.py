"""Which rules apply to a sub-make."""

from __future__ import annotations

import pytest

from d1fleet import makeflags
from d1fleet.rules import KEEP_LOCAL, NOT_REPEATABLE, BadRule, Rules

TREE = b"/src/[engine]"


def _rule(
    *arguments: str, rules: tuple[str, ...] = KEEP_LOCAL, folder: bytes = TREE, flags: bytes = b""
) -> str | None:
    argv = [b"make", *(argument.encode("utf-8", "surrogateescape") for argument in arguments)]
    return Rules(rules, TREE).applying(folder, argv, makeflags.parse(flags))


@pytest.mark.parametrize("goal", ["install", "install-strip", "uninstall", "menuconfig", "flash", "release"])
def test_goals_that_stay(goal: str) -> None:
    assert _rule("-C", "sub", goal) == f"goal={goal.replace('strip', '*')}"


@pytest.mark.parametrize("goal", ["install", "install-strip", "uninstall", "upload", "publish", "release"])
def test_goals_that_are_not_repeated(goal: str) -> None:
    assert _rule(goal, rules=NOT_REPEATABLE) == f"goal={goal.replace('strip', '*')}"


def test_a_question_may_be_asked_twice() -> None:
    assert _rule("menuconfig", rules=NOT_REPEATABLE) is None


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("all",),
        ("installer",),
        ("preinstall",),
        ("-C", "install"),
        ("-f", "release"),
        ("V=install",),
        ("install=1",),
        ("-Iinstall",),
        ("Install",),
    ],
    ids=" ".join,
)
def test_what_may_travel(arguments: tuple[str, ...]) -> None:
    assert _rule(*arguments) is None


def test_one_of_several_goals_is_enough() -> None:
    assert _rule("all", "check", "install", "release") == "goal=install"


def test_goals_behind_two_dashes() -> None:
    assert _rule("--", "install") is not None


def test_a_later_rule_takes_back_what_an_earlier_one_says() -> None:
    rules = (*KEEP_LOCAL, "!goal=install-*", "goal=install-exec")
    assert _rule("install-data", rules=rules) is None
    assert _rule("install-exec", rules=rules) == "goal=install-exec"
    assert _rule("install-data", "install", rules=rules) == "goal=install"


def test_a_rule_answers_only_those_of_its_kind() -> None:
    assert _rule("-C", "docs", "install", rules=(*KEEP_LOCAL, "!folder=docs")) == "goal=install"


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (("DESTDIR=/tmp/x",), b""),
        (("all", "V=1", "DESTDIR=/tmp/x"), b""),
        ((), b" -- DESTDIR=/tmp/x V=1"),
        ((), b"k -j4 --jobserver-auth=3,4 -- V=1 DESTDIR=/tmp/x"),
    ],
)
def test_an_argument(arguments: tuple[str, ...], flags: bytes) -> None:
    """Also a variable that the build was called with, which make passes on by MAKEFLAGS."""
    assert _rule(*arguments, rules=("argument=DESTDIR=*",), flags=flags) == "argument=DESTDIR=*"
    assert _rule("V=1", rules=("argument=DESTDIR=*",)) is None


@pytest.mark.parametrize(
    ("rule", "folder", "directory", "applies"),
    [
        ("docs", b"docs", "", True),
        ("docs", b"docs/man/de", "", True),
        ("docs", b".", "docs", True),
        ("docs", b"lib", "../docs", True),
        ("docs", b"docs", "../lib", False),
        ("docs", b"lib/docs", "", False),
        ("*/docs", b"lib/docs/man", "", True),
        ("./docs/", b"docs", "", True),
        (".", b"anything/at/all", "", True),
        ("../*", b"lib", "", True),
        ("docs*", b"documents", "", False),
        ("/src/other", b"../other/x", "", True),
        ("/srv", b"lib", "", False),
    ],
)
def test_a_folder(rule: str, folder: bytes, directory: str, applies: bool) -> None:
    """As seen from the build's folder, whose own name is no pattern; with all that lies in it."""
    arguments = ("-C", directory) if directory else ()
    found = _rule(*arguments, rules=(f"folder={rule}",), folder=TREE + b"/" + folder)
    assert (found is not None) == applies


def test_part_of_a_folder_may_travel() -> None:
    rules = ("folder=docs", "!folder=docs/api")
    assert _rule("-C", "docs/man", rules=rules) == "folder=docs"
    assert _rule("-C", "docs/api/c", rules=rules) is None


def test_a_goal_that_is_not_utf8() -> None:
    assert _rule("\udcff") is None
    assert _rule("\udcff", rules=("goal=*",)) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("install", "goal=, folder=, argument="),
        ("=install", "begin with"),
        ("target=install", "begin with"),
        ("goal=", "goal= lacks its pattern"),
        ("!folder=", "folder= lacks its pattern"),
        ("!!goal=x", "begin with"),
    ],
)
def test_what_is_no_rule(text: str, words: str) -> None:
    with pytest.raises(BadRule, match=words):
        Rules([text], TREE)
