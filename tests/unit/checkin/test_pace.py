"""When a host checks in. Pure: no clock, no chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.checkin import pace
from d1fleet.checkin.pace import Pace


def beat(found: Pace, now_s: float, beat_s: float = 15.0) -> None:
    found.asked(now_s)
    found.answered(now_s + 0.1, beat_s, 0.2, 40.0)


def test_the_first_is_at_once() -> None:
    assert Pace(100.0, lambda: 0.5).due_s == 100.0


@given(st.floats(0, 1))
def test_beats_vary_by_the_jitter(chance: float) -> None:
    found = Pace(0.0, lambda: chance)
    beat(found, 0.0)
    assert 15 * 0.9 - 1e-6 <= found.due_s <= 15 * 1.1 + 1e-6


def test_while_one_is_under_way_none_is_due() -> None:
    found = Pace(0.0, lambda: 0.5)
    found.asked(0.0)
    assert found.due_s == float("inf")


def test_pauses_double_up_to_what_finds_the_registry_within_two_beats() -> None:
    found = Pace(0.0, lambda: 1.0)
    beat(found, 0.0)
    pauses, now_s = [], 15.0
    for _ in range(9):
        found.asked(now_s)
        found.failed(now_s)
        pauses.append(found.due_s - now_s)
        now_s = found.due_s
    assert pauses == [1, 2, 4, 8, 16, 18, 18, 18, 18]


@given(st.floats(0, 1), st.integers(1, 200), st.floats(1, 3600))
def test_a_registry_that_is_back_is_noticed_within_two_beats(
    chance: float, failures: int, beat_s: float
) -> None:
    found = Pace(0.0, lambda: chance)
    beat(found, 0.0, beat_s)
    for _ in range(failures):
        found.asked(10.0)
        found.failed(10.0)
    assert pace.SHORTEST_GAP_S <= found.due_s - 10.0 <= max(pace.SHORTEST_GAP_S, min(60.0, 2 * beat_s))


def test_who_is_refused_asks_each_minute() -> None:
    found = Pace(0.0, lambda: 1.0)
    for _ in range(20):
        found.asked(10.0)
        found.failed(10.0, refused=True)
    assert found.due_s == 70.0


def test_pauses_are_spread() -> None:
    dues = []
    for chance in (0.0, 0.5, 1.0):
        found = Pace(0.0, lambda chance=chance: chance)  # type: ignore[misc]
        for _ in range(4):
            found.asked(0.0)
            found.failed(0.0)
        dues.append(found.due_s)
    assert dues == [4.0, 6.0, 8.0]


def test_a_change_is_said_at_once_but_not_twice_in_a_second() -> None:
    found = Pace(0.0, lambda: 0.5)
    beat(found, 0.0)
    found.hurry(5.0)
    assert found.due_s == 5.0
    beat(found, 5.0)
    found.hurry(5.2)
    assert found.due_s == 6.0


@pytest.mark.parametrize("good", [True, False])
def test_a_change_while_one_is_under_way_is_said_next(good: bool) -> None:
    found = Pace(0.0, lambda: 1.0)
    found.asked(0.0)
    found.hurry(0.05)
    if good:
        found.answered(0.1, 15.0, 0.2, 40.0)
    else:
        found.failed(0.1, refused=True)
    assert found.due_s == 1.0
    beat(found, 1.0)
    assert found.due_s > 10


def test_a_registry_that_hangs_up_is_asked_again_within_a_second() -> None:
    found = Pace(0.0, lambda: 0.7)
    beat(found, 0.0)
    found.scatter(5.0)
    assert found.due_s == pytest.approx(5.7)
    found.asked(5.7)
    found.failed(5.7)
    due_s = found.due_s
    found.scatter(5.8)  # its pauses are longer already
    assert found.due_s == due_s


def test_away_is_as_long_as_the_registry_says() -> None:
    found = Pace(0.0, lambda: 0.5)
    assert not found.is_away(40.0)
    assert found.is_away(40.1)
    found.asked(50.0)
    found.answered(50.0, 15.0, 0.2, 100.0)
    assert not found.is_away(150.0)
    assert found.is_away(150.1)


def test_failures_are_forgotten_with_their_reason() -> None:
    found = Pace(0.0, lambda: 1.0)
    for _ in range(9):
        found.asked(0.0)
        found.failed(0.0)
    before = found.is_failing
    found.forget_failures()
    assert (before, found.is_failing) == (True, False)
    found.asked(0.0)
    found.failed(0.0)
    assert found.due_s == 1.0
