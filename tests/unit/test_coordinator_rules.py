"""Rules where they are followed: at the desk, on hosts, and when a sub-make was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet import protocol
from tests.support.desk import STRANGER, Desk, desks

Make = Callable[..., Desk]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with desks(tmp_path) as found:
        yield found


def test_a_rule_keeps_a_sub_make_where_it_is_called(make: Make) -> None:
    desk = make(keep_local=["folder=docs"])
    desk.come(STRANGER)
    assert desk.job("-C", "docs").link is None
    assert desk.job("-C", "lib").link is desk.link(STRANGER)
    assert dict(desk.coordinator.counts.here) == {"by the rule folder=docs": 1}


def test_also_on_a_host(make: Make) -> None:
    desk = make(keep_local=["goal=docs"])
    parent = desk.begin()
    ask = desk.ask(parent, "docs")
    desk.say(STRANGER, ask)
    assert protocol.Stay(ask.attempt) in desk.heard(STRANGER)
    assert desk.reasons() == ["by the rule goal=docs"]


def test_also_of_one_that_stayed_in_what_was_lost(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    desk = make(not_repeatable=["goal=stamp"], keep_local=["goal=stamp"])
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, "stamp"))
    desk.say(STRANGER, protocol.Exit(parent.attempt, infrastructure=protocol.LOST, text="gone"))
    assert "it must not be done twice (rule goal=stamp)" in capfd.readouterr().err


@pytest.mark.parametrize(("rules", "warned"), [(["goal=stamp"], True), (["goal=other"], False)])
def test_what_must_not_be_done_twice_is_said_when_it_is_lost(
    make: Make, capfd: pytest.CaptureFixture[str], rules: list[str], warned: bool
) -> None:
    desk = make(not_repeatable=rules)
    desk.come(STRANGER)
    job = desk.job("stamp")
    desk.say(STRANGER, protocol.Exit(job.attempt, infrastructure=protocol.LOST, text="gone"))
    words = capfd.readouterr().err
    assert "lost: make stamp on host mallory: gone" in words
    assert ("it must not be done twice (rule goal=stamp)" in words) == warned
