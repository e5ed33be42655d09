"""What a file of history holds, and that anything else is found out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet import history
from d1fleet.history import DamagedHistoryError, History, job_key

NOW = 1_800_000_000.0


def _key(number: int) -> bytes:
    return job_key("p", b"/tree", b"/tree/%d" % number, [b"all"])


def _some() -> History:
    some = History()
    some.ran(_key(1), 1.5, 3 << 20, "fast", NOW)
    some.ran(_key(2), 0.25, None, "b\udcff", NOW)
    some.is_fast("fast", 2.0, 7.0, NOW)
    some.is_fast("b\udcff", 0.5, 1.0, NOW)
    return some


def test_what_was_written_is_read() -> None:
    read = History(History().with_new_of(_some()))
    assert read.job(_key(1)) == (1.5, 3 << 20, "fast", NOW)
    assert read.job(_key(2)) == (0.25, None, "b\udcff", NOW)
    assert read.job(_key(3)) is None
    host = read.host("fast")
    assert host is not None and (host.speed, host.sureness) == (2.0, 7.0)
    assert read.host("slow") is None


def test_no_command_line_in_clear() -> None:
    some = History()
    some.ran(job_key("p", b"/tree", b"/tree/secret", [b"PASSWORD=x"]), 1.0, None, "h", NOW)
    data = History().with_new_of(some)
    assert b"secret" not in data and b"PASSWORD" not in data


def test_keys_tell_jobs_apart_and_not_checkouts() -> None:
    assert job_key("p", b"/1/a", b"/1/a/x", [b"all"]) == job_key("p", b"/2/a", b"/2/a/x", [b"all"])
    different = [
        job_key("p", b"/b", b"/b/x", [b"all"]),
        job_key("", b"/a", b"/a/x", [b"all"]),
        job_key("", b"/1/a", b"/1/a/x", [b"all"]),
        job_key("q", b"/a", b"/a/x", [b"all"]),
        job_key("p", b"/a", b"/a/y", [b"all"]),
        job_key("p", b"/a", b"/a/x", [b"check"]),
        job_key("p", b"/a", b"/a/x", [b"a", b"ll"]),
        job_key("p", b"/a", b"/a/x", [b"a", b"l", b"l"]),
    ]
    assert len({job_key("p", b"/a", b"/a/x", [b"all"]), *different}) == 9


def test_a_new_run_and_old_ones_are_weighed() -> None:
    first = History(History().with_new_of(_some()))
    first.ran(_key(1), 0.5, None, "slow", NOW + 5)
    second = History(first.with_new_of(first))
    assert second.job(_key(1)) == (1.0, 3 << 20, None, NOW + 5)  # of `slow` no speed is known
    assert second.job(_key(2)) == (0.25, None, "b\udcff", NOW)


def test_runs_that_found_nearly_all_made_hardly_count() -> None:
    """A hundred builds in which nothing of it had changed, and then a clean one: it still is a long one."""
    history = History(History().with_new_of(_some()))
    for number in range(100):
        history.ran(_key(1), 0.02, None, "h", NOW + number)
        history = History(history.with_new_of(history))
    known = history.job(_key(1))
    assert known is not None and known.seconds > 1.3
    history.ran(_key(1), 0.2, None, "h", NOW)  # much less work than it was, for good
    known = History(history.with_new_of(history)).job(_key(1))
    assert known is not None and known.seconds < 0.9


def test_what_is_called_twice_in_a_build_has_done_its_work_once() -> None:
    some = History()
    for seconds in (0.1, 3.0, 0.003):
        some.ran(_key(1), seconds, None, "h", NOW)
    known = History(History().with_new_of(some)).job(_key(1))
    assert known is not None and known.seconds == 3.0


def test_one_build_does_not_add_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_JOBS", 3)
    some = History()
    for number in range(10):
        some.ran(_key(number), 1.0, None, "h", NOW)
    some.ran(_key(2), 2.0, None, "h", NOW)
    assert len(some.new_jobs) == 3 and some.new_jobs[_key(2)].seconds == 2.0


def test_two_builds_that_end_at_once_both_count() -> None:
    one, other = History(), History()
    one.ran(_key(1), 1.0, None, "h", NOW)
    other.ran(_key(2), 2.0, None, "h", NOW)
    both = History(History(History().with_new_of(one)).with_new_of(other))
    assert both.job(_key(1)) is not None and both.job(_key(2)) is not None


def test_speeds_stay_around_one() -> None:
    some = History()
    for number in range(5):
        some.is_fast(f"h{number}", 4.0 * 2**number, 1.0, NOW)
    read = History(History().with_new_of(some))
    speeds = [host.speed for number in range(5) if (host := read.host(f"h{number}"))]
    assert speeds == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])


def test_the_longest_unused_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_JOBS", 10)
    monkeypatch.setattr(history, "MOST_HOSTS", 2)
    some = History()
    for number in range(20):
        some.ran(_key(number), 1.0, None, "h", NOW - number)
        some.is_fast(f"h{number}", 1.0, 1.0, NOW - number)
    read = History(History().with_new_of(some))
    assert [number for number in range(20) if read.job(_key(number))] == list(range(10))
    assert [number for number in range(20) if read.host(f"h{number}")] == [0, 1]


@given(data=st.data())
def test_any_damage_is_found(data: st.DataObject) -> None:
    whole = History().with_new_of(_some())
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [whole[:at] or b"x", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole + b"x"]
        )
    )
    with pytest.raises(DamagedHistoryError):
        History(damaged)


@given(
    st.dictionaries(
        st.integers(0, 50),
        st.tuples(st.floats(0.001, 1e6), st.none() | st.integers(1024, 1 << 50), st.sampled_from("abc")),
    )
)
def test_all_jobs_are_found_again(jobs: dict[int, tuple[float, int | None, str]]) -> None:
    some = History()
    for name in "abc":
        some.is_fast(name, 1.0, 1.0, NOW)
    for number, (seconds, memory, host) in jobs.items():
        some.ran(_key(number), seconds, memory, host, NOW)
    read = History(History().with_new_of(some))
    for number in range(51):
        known = read.job(_key(number))
        if number not in jobs:
            assert known is None
            continue
        seconds, memory, host = jobs[number]
        assert known is not None
        assert known.seconds == pytest.approx(seconds, rel=1e-6) and known.host == host
        assert (known.memory_bytes is None) == (memory is None)
        if memory is not None:
            assert known.memory_bytes == min(memory // 1024, 0xFFFFFFFF) * 1024
