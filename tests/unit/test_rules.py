"""Which goals stay here."""

from __future__ import annotations

import pytest

from d1fleet.rules import LOCAL_GOALS, stays_here


def _reason(*arguments: str, goals: tuple[str, ...] = LOCAL_GOALS) -> str | None:
    return stays_here([b"make", *(argument.encode() for argument in arguments)], goals)


@pytest.mark.parametrize("goal", ["install", "install-strip", "uninstall", "menuconfig", "flash", "release"])
def test_goals_that_stay(goal: str) -> None:
    assert _reason("-C", "sub", goal) == f"the goal {goal} runs here by rule"


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
    assert _reason(*arguments) is None


def test_one_of_several_goals_is_enough() -> None:
    assert _reason("all", "check", "install", "release") == "the goal install runs here by rule"


def test_goals_behind_two_dashes() -> None:
    assert _reason("--", "install") is not None


def test_own_patterns_replace_the_usual_ones() -> None:
    assert _reason("install", goals=()) is None
    assert _reason("deploy-test", goals=("deploy-*",)) is not None


def test_a_goal_that_is_not_utf8() -> None:
    assert stays_here([b"make", b"\xff"]) is None
    assert stays_here([b"make", b"\xff"], ["*"]) is not None
