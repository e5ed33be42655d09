"""A lease is counted from the server's own request, so that it ends before the coordinator thinks so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.server.lease import Lease


def test_the_first_lease_begins_without_a_grant() -> None:
    lease = Lease(10.0, 100.0)
    assert not lease.expired(108.9)
    assert lease.expired(109.0)


@pytest.mark.parametrize(("length_s", "margin_s"), [(10.0, 1.0), (60.0, 1.0), (2.0, 0.2), (0.5, 0.05)])
def test_killing_starts_before_the_end(length_s: float, margin_s: float) -> None:
    lease = Lease(length_s, 0.0)
    assert lease.margin_s == pytest.approx(margin_s)
    assert not lease.expired(length_s - margin_s - 0.001)
    assert lease.expired(length_s - margin_s + 0.001)
    assert lease.late_s(length_s - margin_s + 0.001) == 0.0


def test_a_grant_counts_from_its_request() -> None:
    """However long it was on its way."""
    lease = Lease(10.0, 0.0)
    seq = lease.ask(3.0)
    lease.granted(seq)
    assert not lease.expired(11.9)
    assert lease.expired(12.0)


def test_an_older_grant_takes_nothing_away() -> None:
    lease = Lease(10.0, 0.0)
    old, new = lease.ask(1.0), lease.ask(5.0)
    assert lease.granted(new) == 15.0
    assert lease.granted(old) == 15.0


def test_a_grant_that_nobody_asked_for() -> None:
    lease = Lease(10.0, 0.0)
    assert lease.granted(7) is None
    assert lease.expired(9.0)


def test_a_grant_counts_once() -> None:
    lease = Lease(10.0, 0.0)
    seq = lease.ask(1.0)
    assert lease.granted(seq) == 11.0
    assert lease.granted(seq) is None


def test_late_after_a_freeze() -> None:
    lease = Lease(10.0, 0.0)
    assert lease.expired(500.0)
    assert lease.late_s(500.0) == pytest.approx(490.0)


def test_requests_without_answers_do_not_pile_up() -> None:
    lease = Lease(10.0, 0.0)
    first = lease.ask(0.0)
    for number in range(1000):
        last = lease.ask(number / 100)
    assert lease.granted(first) is None
    assert lease.granted(last) == pytest.approx(9.99 + 10.0)


@given(
    length_s=st.floats(0.5, 60),
    beats=st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5), st.booleans()), min_size=1, max_size=30
    ),
)
def test_the_server_ends_before_the_coordinator_gives_up(
    length_s: float, beats: list[tuple[float, float, float, bool]]
) -> None:
    """Whatever delays requests and grants have, and whichever of them are lost.

    The coordinator counts a lease from the moment in which it sends a grant (its clock is another one).
    """
    now = 1000.0
    lease = Lease(length_s, now)
    coordinator_until = now + length_s
    for pause, there, back, arrives in beats:
        now += pause
        if lease.expired(now):
            break
        seq = lease.ask(now)
        now += there
        coordinator_until = max(coordinator_until, now + length_s)
        now += back
        if arrives and not lease.expired(now):
            lease.granted(seq)
    assert lease.until <= coordinator_until
    assert lease.expired(coordinator_until - lease.margin_s)
    assert lease.expired(coordinator_until)
