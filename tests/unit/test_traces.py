"""Builds to simulate: made up the same each time, or what a record says."""

from __future__ import annotations

from typing import Any

import pytest

from d1fleet.errors import UsageError
from d1fleet.traces import FAMILIES, TraceJob, critical_path_s, made_up, recorded


@pytest.mark.parametrize("family", FAMILIES)
def test_made_up_builds(family: str) -> None:
    trace = made_up(family, 500, seed=7)
    assert len(trace) == 500
    assert trace == made_up(family, 500, seed=7)
    assert trace != made_up(family, 500, seed=8)
    for number, job in enumerate(trace):
        assert job.work_s > 0 and job.delay_s >= 0
        assert all(before < number for before in job.after)
    assert made_up(family, 1, seed=0)


def test_an_unknown_family() -> None:
    with pytest.raises(UsageError, match="no family"):
        made_up("royal", 1, 0)


def test_the_critical_path() -> None:
    trace = [
        TraceJob(1.0),
        TraceJob(5.0),
        TraceJob(2.0, after=(0,), delay_s=3.0),
        TraceJob(1.0, after=(1, 2)),
    ]
    assert critical_path_s(trace) == 7.0
    assert critical_path_s([]) == 0.0


def _event(asked_s: float, placed_s: float, ran_s: float, **more: Any) -> dict[str, Any]:
    fields = {
        "event": "job",
        "host": "a",
        "asked_s": asked_s,
        "placed_s": placed_s,
        "waited_s": 0.0,
        "ran_s": ran_s,
        "dir": "/t/d",
        "argv": ["make", "-C", "x", "V=1", "lib"],
    }
    return {**fields, **more}


def test_a_record_tells_what_was_asked_for_after_which_end() -> None:
    trace = recorded(
        [
            {"event": "host-up", "host": "a"},
            _event(100.0, 100.1, 2.0),  # ends at 102.1
            _event(100.5, 100.5, 3.0, waited_s=1.0),  # at 104.5
            _event(102.2, 102.2, 1.0),  # at 103.2
            _event(105.0, 105.0, 1.0, host="b"),
            {**_event(106.0, 106.0, 9.0), "host": None, "ran_s": None, "waited_s": None},
            _event(106.0, 106.0, 9.0, parent=1),
        ],
        speeds={"b": 2.0},
    )
    assert [(job.after, round(job.delay_s, 3), job.work_s) for job in trace] == [
        ((), 0.0, 2.0),
        ((), 0.5, 3.0),
        ((0,), 0.1, 1.0),
        ((1,), 0.5, 2.0),
    ]
    assert {job.goal for job in trace} == {"lib"}


def test_records_are_sorted_by_what_was_asked_first() -> None:
    """A record has its jobs in the order in which they ended."""
    trace = recorded([_event(3.0, 3.0, 1.0), _event(1.0, 1.0, 1.5)])
    assert [(job.after, job.delay_s) for job in trace] == [((), 0.0), ((0,), 0.5)]


def test_clocks_that_disagree_make_no_circle() -> None:
    """By its times the second one had ended before it was asked for, even before the first one was."""
    trace = recorded([_event(1.0, 1.0, 5.0), _event(3.0, 0.0, 0.5), _event(3.0, 3.0, 1.0)])
    assert [job.after for job in trace] == [(), (), (1,)]


@pytest.mark.parametrize(
    "event", [{"event": "job"}, {"no": 1}, [1], 3, {**_event(1.0, 2.0, 3.0), "asked_s": "x"}]
)
def test_what_is_no_record(event: Any) -> None:
    with pytest.raises(UsageError, match="no record"):
        recorded([event])
