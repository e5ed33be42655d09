"""Lines of waiting jobs: their order, and who goes to a slow host."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from d1fleet.waiting import JobState, Line


def _line(*seconds: float | None, longest_first: bool = True) -> Line:
    jobs = [JobState(number, 0.0, guess_s=each) for number, each in enumerate(seconds)]
    line = Line(jobs[0], longest_first)
    for job in jobs:
        line.add(job)
    return line


def _taken(line: Line) -> list[int]:
    order = []
    while (head := line.head()) is not None:
        order.append(head[1])
        line.remove(head[2])
    return order


def test_without_foresight_in_the_order_of_asking() -> None:
    assert _taken(_line(1.0, 9.0, None, 3.0, longest_first=False)) == [0, 1, 2, 3]


def test_the_longest_first_and_the_unknown_where_they_are_said_to_belong() -> None:
    line = _line(1.0, None, 9.0, 3.0, None)
    line.unknown_s = 5.0
    assert _taken(line) == [2, 1, 4, 3, 0]


def test_who_would_wait_too_long_for_a_fast_host_takes_a_slow_one() -> None:
    line = _line(8.0, 4.0, 4.0, 1.0)
    for pressure, number in ((0.0, 0), (0.1, 0), (0.5, 1), (0.9, 3), (3.9, 3), (4.0, None)):
        chosen = line.next(pressure, 0.0, more_to_come=False)
        assert (chosen.number if chosen else None) == number, pressure
        assert line.next(pressure, 0.0, more_to_come=True) is not None


def test_the_shortest_goes_when_none_would_and_more_is_to_come() -> None:
    chosen = _line(8.0, 4.0, 1.0).next(99.0, 0.0, more_to_come=True)
    assert chosen is not None and chosen.number == 2


def test_patience_has_an_end() -> None:
    line = _line(8.0, 4.0)
    (first, _) = line.heads()
    first.patient_until = 3.0
    assert line.next(99.0, 2.9, more_to_come=False) is None
    assert line.next(99.0, 3.0, more_to_come=False) is first


def test_what_is_learned_moves_those_that_wait() -> None:
    line = _line(None, 2.0, None)
    line.reconsider("", 7.0)
    assert _taken(line) == [0, 2, 1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "take", "remove", "learn"]),
            st.sampled_from([None, 0.0, 0.001, 0.5, 4.0, 3000.0]),
            st.integers(0, 5),
        ),
        min_size=15,
        max_size=60,
    )
)
def test_no_job_is_lost(steps: list[tuple[str, float | None, int]]) -> None:
    line = Line(JobState(0, 0.0), longest_first=True)
    inside: dict[int, JobState] = {}
    for number, (what, seconds, which) in enumerate(steps):
        if what == "add":
            inside[number] = JobState(number, float(number), guess_s=seconds, goal=str(which))
            line.add(inside[number])
        elif what == "take" and inside:
            head = line.head()
            assert head is not None
            line.remove(inside.pop(head[1]))
        elif what == "remove" and inside:
            line.remove(inside.pop(list(inside)[which % len(inside)]))
        elif what == "learn":
            line.reconsider(str(which), seconds or 1.0)
        assert line.count == len(inside)
        assert {job.number for job in line.jobs()} == inside.keys()
        assert (line.head() is None) == (not inside)
    assert sorted(_taken(line)) == sorted(inside)
