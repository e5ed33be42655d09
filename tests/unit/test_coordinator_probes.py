"""Who on a host is given a probe: makes that call sub-makes, at once; others after a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet import protocol
from d1fleet.jobserver import TokenPool
from d1fleet.tokendesk import PROBE_S, UNPROVEN_S
from tests.support.desk import STRANGER, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("calls", [False, True])
def test_a_make_that_has_called_a_sub_make_is_given_one_soon(desk: Desk, calls: bool) -> None:
    """Its host is full, and others are idle. What it has called stays, for it runs nothing."""
    parent = desk.begin(tokens=TokenPool(4))
    if calls:
        desk.say(STRANGER, desk.ask(parent, "-n"))
    desk.say(STRANGER, protocol.Want(parent.attempt, 1))
    desk.loop.pass_s(2 * PROBE_S)
    probe = protocol.Offer(parent.attempt, 1, probe=True)
    assert (probe in desk.heard(STRANGER)) == calls
    desk.loop.pass_s(UNPROVEN_S)
    assert (probe in desk.heard(STRANGER)) == (not calls)
