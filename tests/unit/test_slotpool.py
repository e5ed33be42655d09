"""Slots that are lent while recipes wait: locks follow what runs, and debt is paid before anything new."""

from __future__ import annotations

import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from d1fleet.slotpool import SlotPool
from d1fleet.slots import SlotLocks

SLOTS = 3


class Lending(RuleBasedStateMachine):
    """One process that lends its slots, and another one that takes what it can get."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.pool = SlotPool(SlotLocks(self._folder.name, SLOTS))
        self.others = SlotLocks(self._folder.name, SLOTS)
        self.theirs: list[int] = []
        self.recipes = 0
        self.waiting = 0

    @rule()
    def start(self) -> None:
        free = SLOTS - self.pool.held - len(self.theirs)
        owed = self.pool.debt
        started = self.pool.take()
        assert started == (free > owed)
        self.recipes += started

    @rule()
    def start_by_force(self) -> None:
        """A probe: what has no slot is debt like any other, and is paid first."""
        free = SLOTS - self.pool.held - len(self.theirs)
        owed = self.pool.debt
        assert self.pool.take(force=True)
        self.recipes += 1
        assert self.pool.debt == max(0, owed + 1 - free)

    @precondition(lambda self: self.recipes > self.waiting)
    @rule()
    def end(self) -> None:
        self.recipes -= 1
        self.pool.give()

    @precondition(lambda self: self.recipes > self.waiting)
    @rule()
    def wait(self) -> None:
        self.waiting += 1
        self.pool.lend()

    @precondition(lambda self: self.waiting)
    @rule()
    def go_on(self) -> None:
        self.waiting -= 1
        self.pool.reclaim()

    @precondition(lambda self: self.waiting)
    @rule()
    def end_while_waiting(self) -> None:
        """A make ends whose recipes wait: in which order it is counted must not matter."""
        self.recipes -= 1
        self.waiting -= 1
        self.pool.give()
        self.pool.reclaim()

    @rule(count=st.integers(1, SLOTS))
    def others_take(self, count: int) -> None:
        for _ in range(count):
            slot = self.others.take()
            if slot is not None:
                self.theirs.append(slot)

    @precondition(lambda self: self.theirs)
    @rule()
    def others_give(self) -> None:
        self.others.give(self.theirs.pop())
        self.pool.settle()

    @invariant()
    def locks_follow_what_runs(self) -> None:
        running = self.recipes - self.waiting
        assert self.pool.held <= running
        assert self.pool.debt == running - self.pool.held
        assert self.pool.held + len(self.theirs) <= SLOTS
        if self.pool.debt:
            assert self.pool.held + len(self.theirs) == SLOTS

    @invariant()
    def time_in_debt_is_counted(self) -> None:
        assert self.pool.seconds_in_debt() >= 0
        if not self.pool.debt:
            assert self.pool.seconds_in_debt() == self.pool.seconds_in_debt()

    def teardown(self) -> None:
        self.pool.locks.close()
        self.others.close()
        self._folder.cleanup()


Lending.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_lending = Lending.TestCase
