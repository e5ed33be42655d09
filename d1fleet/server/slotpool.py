"""The slots that this server's makes hold, less those of recipes that wait for jobs elsewhere."""

from __future__ import annotations

from ..loop import Loop
from .slots import SlotLocks


class SlotPool:
    """Counts what makes hold, and keeps as many locks.

    A recipe that waits for a job on another host is idle: its slot is lent, to this build or to others. When
    it goes on and no slot is free, it goes on all the same: that is debt, and whatever comes free next pays
    it before anything new is started.
    """

    def __init__(self, locks: SlotLocks) -> None:
        self.locks = locks
        self.debt = 0
        """Recipes that run without a lock."""
        self.debt_s = 0.0
        """How long there was any debt, up to `_since`."""
        self._since = 0.0
        self._held: list[int] = []

    @property
    def held(self) -> int:
        """Locks that this server holds."""
        return len(self._held)

    def take(self) -> bool:
        """A slot for something new."""
        return self.settle() and self._lock()

    def give(self) -> None:
        """A slot comes back, for good or for as long as its recipe waits."""
        if self.debt:
            self._owe(self.debt - 1)
        else:
            self.locks.give(self._held.pop())

    lend = give

    def reclaim(self) -> None:
        """A recipe whose slot was lent goes on."""
        if not self._lock():
            self._owe(self.debt + 1)

    def settle(self) -> bool:
        """Pay debt from slots that are free; True when none is left."""
        while self.debt and self._lock():
            self._owe(self.debt - 1)
        return not self.debt

    def seconds_in_debt(self) -> float:
        """How long this server has been in debt so far."""
        return self.debt_s + (Loop.now() - self._since if self.debt else 0.0)

    def _lock(self) -> bool:
        slot = self.locks.take()
        if slot is not None:
            self._held.append(slot)
        return slot is not None

    def _owe(self, debt: int) -> None:
        if debt and not self.debt:
            self._since = Loop.now()
        elif self.debt and not debt:
            self.debt_s += Loop.now() - self._since
        self.debt = debt
