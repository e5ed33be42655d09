"""Sums of what runs, and what they say about waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.foresight import Foresight
from d1fleet.machines import Machine


def test_when_to_wait() -> None:
    foresight = Foresight()
    fast, slow = Machine(1, speed=4.0), Machine(1, speed=0.5)
    for machine in (fast, slow):
        foresight.changed(machine)
    assert foresight.pressure(slow.full_pace, 0.0) == 0.0  # nothing runs: nothing to wait for
    foresight.began(fast, 3.0)
    # A job of 2 s takes 4 s on the slow one, on the fast one 0.5 s, which is free in 3 s.
    assert foresight.pressure(slow.full_pace, 0.0) * 2.0 == pytest.approx(3.5 / 3.0, rel=0.05)
    assert foresight.gain(slow.full_pace) == pytest.approx(1.75, rel=0.05)
    assert foresight.pressure(fast.full_pace, 0.0) == 0.0
    assert foresight.pressure(slow.full_pace, 9.0) > 100.0  # overdue
    foresight.ended(fast, 3.0)
    assert foresight.pressure(slow.full_pace, 0.0) == foresight.gain(slow.full_pace) == 0.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["began", "ended", "changed"]),
            st.integers(0, 3),
            st.sampled_from([0.25, 1.0, 3.0]),
        ),
        min_size=10,
        max_size=40,
    )
)
def test_sums_are_those_of_what_runs(steps: list[tuple[str, int, float]]) -> None:
    """However it came about: the same as if all had just begun."""
    machines = [Machine(1) for _ in range(4)]
    running: list[tuple[int, float]] = []
    foresight = Foresight()
    for machine in machines:
        foresight.changed(machine)
    for time, (what, number, value) in enumerate(steps):
        if what == "began":
            running.append((number, time + value))
            foresight.began(machines[number], time + value)
        elif what == "ended" and running:
            which, end = running.pop(number % len(running))
            foresight.ended(machines[which], end)
        elif what == "changed":
            machines[number].speed = value
            foresight.changed(machines[number])
    fresh = Foresight()
    for machine in machines:
        fresh.changed(machine)
    for number, end in running:
        fresh.began(machines[number], end)
    for pace in (0.5, 2.0, 9.0):
        assert foresight.pressure(pace, -1.0) == pytest.approx(fresh.pressure(pace, -1.0))
        assert foresight.gain(pace) == fresh.gain(pace)
