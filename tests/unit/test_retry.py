"""When a host that is out is tried again: soon where that bothers nobody, seldom where it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.errors import (
    ConnectError,
    D1fleetError,
    HostError,
    HostKeyError,
    LoginError,
    ProtocolError,
    ServerStartError,
    ToolError,
    UnfitError,
)
from d1fleet.retry import LONGEST_CONNECT_S, LONGEST_S, LOOK_S, REFUSED_S, STEADY_S, TROUBLED_S, Retry

REACHABLE_S = 5.0
"""A host that is reachable again shall have work within this time."""

PASSING = (ConnectError, ServerStartError, UnfitError, HostError)
REFUSING = (LoginError, HostKeyError)


def failures(retry: Retry, *kinds: type[D1fleetError]) -> list[float | None]:
    return [retry.failed(kind("x")) for kind in kinds]


def test_where_nothing_answers_looks_are_frequent_and_stay_so() -> None:
    retry = Retry()
    assert {retry.absent() for _ in range(1000)} == {LOOK_S}
    assert LOOK_S < REACHABLE_S / 2


def test_a_lost_host_is_tried_at_once_and_less_often_when_that_goes_on() -> None:
    retry, now, found = Retry(), 0.0, []
    for _ in range(12):
        retry.up(now)
        now += 1.0
        found.append(retry.lost(now))
    assert found[:4] == [LOOK_S, 2 * LOOK_S, 4 * LOOK_S, 8 * LOOK_S]
    assert found[-1] == LONGEST_S


def test_a_host_that_was_steady_is_forgiven() -> None:
    retry = Retry()
    failures(retry, *[UnfitError] * 6, *[LoginError] * 3)
    retry.up(100.0)
    assert retry.lost(100.0 + STEADY_S) == LOOK_S
    assert failures(retry, LoginError) == [REFUSED_S]


@pytest.mark.parametrize("kind", [ProtocolError, ToolError, D1fleetError])
def test_who_breaks_the_protocol_is_out_for_good(kind: type[D1fleetError]) -> None:
    assert failures(Retry(), kind) == [None]


@pytest.mark.parametrize(
    ("kind", "first_s", "longest_s"),
    [
        (ConnectError, LOOK_S, LONGEST_CONNECT_S),
        (ServerStartError, TROUBLED_S, LONGEST_S),
        (UnfitError, TROUBLED_S, LONGEST_S),
        (LoginError, REFUSED_S, LONGEST_S),
        (HostKeyError, REFUSED_S, LONGEST_S),
    ],
)
def test_one_that_answers_is_bothered_less_and_less(
    kind: type[D1fleetError], first_s: float, longest_s: float
) -> None:
    found = failures(Retry(), *[kind] * 20)
    assert (found[0], found[1], found[-1]) == (first_s, 2 * first_s, longest_s)
    assert found == sorted(found, key=lambda each: each or 0.0)


_EVENTS = st.lists(st.sampled_from(["absent", *PASSING, *REFUSING]), min_size=1, max_size=60)


@given(_EVENTS)
def test_fail2ban_has_no_cause(events: list[str | type[D1fleetError]]) -> None:
    """Whatever happens between them, at most four refused logins fall into any ten minutes (it acts at five),
    and no two tries of any kind are closer than the looks.
    """
    retry, now, refused = Retry(), 0.0, []
    for event in events:
        if isinstance(event, str):
            pause_s: float | None = retry.absent()
        else:
            pause_s = retry.failed(event("x"))
            if event in REFUSING:
                refused.append(now)
        assert pause_s is not None and LOOK_S <= pause_s <= LONGEST_S
        now += pause_s
    for at in refused:
        assert sum(at <= other < at + 600.0 for other in refused) <= 4
