"""The slots that makes of this process hold, less those of recipes that wait for jobs elsewhere."""

from __future__ import annotations

from .loop import Loop
from .slots import SlotLocks


class SlotPool:
    """Counts what makes hold, and keeps as many locks.

    A recipe that waits for a job on another host is idle: its slot is lent, to this build or to others. When
    it goes on and no slot is free, it goes on all the same: that is debt, and whatever comes free next pays
    it before anything new is started.
    """

    def __init__(self, locks: SlotLocks) -> None:
        self.locks = locks
        self._taken = 0
        self._lent = 0
        self._held: list[int] = []
        self._debt_s = 0.0
        self._since = -1.0
        """When the debt began; negative when there is none."""

    @property
    def held(self) -> int:
        """Locks that this process holds."""
        return len(self._held)

    @property
    def debt(self) -> int:
        """Recipes that run without a lock."""
        return max(0, self._taken - self._lent - len(self._held))

    def take(self, force: bool = False) -> bool:
        """A slot for something new; with `force` also when there is none."""
        if not force and not (self.settle() and self._lock()):
            return False
        self._taken += 1
        self._adjust()
        return True

    def give(self) -> None:
        """A slot that was taken comes back."""
        self._taken -= 1
        self._adjust()

    def lend(self) -> None:
        """A recipe waits: others may have its slot."""
        self._lent += 1
        self._adjust()

    def reclaim(self) -> None:
        """A recipe whose slot was lent goes on."""
        self._lent -= 1
        self._adjust()

    def settle(self) -> bool:
        """Pay debt from slots that are free; True when none is left."""
        self._adjust()
        return not self.debt

    def seconds_in_debt(self) -> float:
        """How long there was any debt so far."""
        return self._debt_s + (Loop.now() - self._since if self._since >= 0 else 0.0)

    def _adjust(self) -> None:
        while len(self._held) > max(0, self._taken - self._lent):
            self.locks.give(self._held.pop())
        while self.debt and self._lock():
            pass
        if self.debt and self._since < 0:
            self._since = Loop.now()
        elif self._since >= 0 and not self.debt:
            self._debt_s += Loop.now() - self._since
            self._since = -1.0

    def _lock(self) -> bool:
        slot = self.locks.take()
        if slot is not None:
            self._held.append(slot)
        return slot is not None
