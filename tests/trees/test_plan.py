"""Bounds and schedules of plans."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trees.plan import Make, Step, bound_s, figures, longest_s, makes, order, scaled, schedule_s, work_s

LEAF = Make("leaf", (Step("a", 2.0), Step("b", 3.0), Step("c", 1.0, frozenset([0, 1]))))
TWO = Make("two", (Step("x", 1.0, calls=((LEAF,),)), Step("y", 0.5, calls=((LEAF,),))))
LOOP = Make("loop", (Step("x", 0.0, calls=((LEAF,), (LEAF,))),))
SHIMS = Make("shims", (Step("x", 0.0, calls=((LEAF, LEAF),)),))


@pytest.mark.parametrize(
    ("make", "work", "longest", "longest_on_one_slot"),
    [(LEAF, 6.0, 4.0, 6.0), (TWO, 13.5, 5.0, 7.0), (LOOP, 12.0, 8.0, 12.0), (SHIMS, 12.0, 4.0, 6.0)],
)
def test_work_and_critical_path(make: Make, work: float, longest: float, longest_on_one_slot: float) -> None:
    assert work_s(make) == pytest.approx(work)
    assert longest_s(make) == pytest.approx(longest)
    assert longest_s(make, 1) == pytest.approx(longest_on_one_slot)


@pytest.mark.parametrize(
    ("make", "hosts", "slots", "bound", "schedule"),
    [
        (LEAF, 1, 1, 6.0, 6.0),
        (LEAF, 8, 1, 6.0, 6.0),  # no second host may have recipes of the same make
        (LEAF, 1, 2, 4.0, 4.0),
        (TWO, 1, 1, 13.5, 13.5),
        (TWO, 2, 1, 7.0, 7.5),  # what starts y runs after what starts x, on their make's one slot
        (LOOP, 9, 9, 8.0, 8.0),
        (SHIMS, 2, 1, 6.0, 6.0),
    ],
)
def test_makespan(make: Make, hosts: int, slots: int, bound: float, schedule: float) -> None:
    assert bound_s(make, hosts, slots) == pytest.approx(bound)
    assert schedule_s(make, hosts, slots) == pytest.approx(schedule)


def test_order_names_what_has_to_end_before() -> None:
    inner = Make("m", (Step("a", 1.0), Step("b", 1.0), Step("link", 1.0, frozenset([0, 1]))))
    other = Make("n", (Step("o", 1.0),))
    top = Make(
        "t",
        (
            Step("first", 1.0),
            Step("all", 0.0, frozenset([0]), ((inner,), (other,))),
            Step("end", 1.0, frozenset([1])),
        ),
    )
    assert order(top) == {
        "first": frozenset(),
        "a": {"first"},
        "b": {"first"},
        "link": {"a", "b"},
        "o": {"link"},
        "end": {"o"},
    }


def _plans(depth: int) -> st.SearchStrategy[Make]:
    calls: st.SearchStrategy[list[tuple[Make, ...]]] = st.just([])
    if depth:
        calls = st.lists(st.lists(_plans(depth - 1), min_size=1, max_size=2).map(tuple), max_size=2)
    parts = st.tuples(st.floats(0, 10), st.sets(st.integers(0, 1)), calls)
    return st.lists(parts, min_size=1, max_size=3).map(
        lambda chosen: Make(
            "m",
            tuple(
                Step(f"s{number}", own_s, frozenset(each for each in after if each < number), tuple(calls))
                for number, (own_s, after, calls) in enumerate(chosen)
            ),
        )
    )


@settings(deadline=None, max_examples=50)
@given(_plans(2), st.integers(1, 4), st.integers(1, 3))
def test_a_schedule_keeps_the_bounds(make: Make, hosts: int, slots: int) -> None:
    bound, schedule, work = bound_s(make, hosts, slots), schedule_s(make, hosts, slots), work_s(make)
    assert bound <= schedule + 1e-6
    # List scheduling is never idle while a host's own recipes wait there: one slot is always at work.
    assert schedule <= work + 1e-6
    assert schedule_s(make, 1, 1) == pytest.approx(work)


@settings(deadline=None, max_examples=50)
@given(_plans(2))
def test_without_limits_the_critical_path_is_all(make: Make) -> None:
    assert schedule_s(make, 50, 1000) == pytest.approx(longest_s(make))


@settings(deadline=None, max_examples=50)
@given(_plans(2), st.floats(0.1, 10))
def test_scaling_scales_everything(make: Make, factor: float) -> None:
    assert work_s(scaled(make, factor)) == pytest.approx(work_s(make) * factor)
    assert longest_s(scaled(make, factor), 2) == pytest.approx(longest_s(make, 2) * factor)


def test_figures() -> None:
    shown = figures(TWO, 2, 1)
    assert (shown["makes"], shown["recipes"], shown["work_s"]) == (3, 8, 13.5)
    assert shown["speed_up_bound"] == pytest.approx(13.5 / 7)
    assert len(list(makes(TWO))) == 3
