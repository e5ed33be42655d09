"""Guesses about jobs without history: only where their like are alike."""

from __future__ import annotations

import pytest

from d1fleet.estimates import Estimates


def test_the_median_of_the_same_goal() -> None:
    estimates = Estimates()
    learned = [estimates.saw("all", 1.0 + number / 100) for number in range(20)]
    assert learned.count(True) == 1
    assert estimates.guess("all") == pytest.approx(1.1, rel=0.02)
    assert estimates.guess("check") is None


def test_no_guess_where_they_differ_widely() -> None:
    estimates = Estimates()
    for number in range(100):
        estimates.saw("all", 1.0 if number % 2 else 10.0)
    assert estimates.guess("all") is None


def test_those_that_end_first_say_nothing_of_all_that_run() -> None:
    estimates = Estimates()
    estimates.began("all", 100)
    for _ in range(20):
        estimates.began("all", -1)
        assert not estimates.saw("all", 1.0)
    assert estimates.guess("all") is None


def test_a_build_may_change_its_ways() -> None:
    estimates = Estimates()
    for seconds in [1.0] * 1000 + [5.0] * 200:
        estimates.saw("all", seconds)
    assert estimates.guess("all") == 5.0


def test_what_counts_as_long() -> None:
    estimates = Estimates()
    assert estimates.long_one == 0.0
    for number in range(100):
        estimates.expect(float(number))
    assert 88 <= estimates.long_one <= 91
