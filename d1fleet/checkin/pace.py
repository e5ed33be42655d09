"""When to check in next, and whether the registry counts as away. Pure: the time and chance are given."""

from __future__ import annotations

from collections.abc import Callable

BEAT_S = 15.0
JITTER = 0.2
GONE_AFTER_S = 40.0
"""Until a registry has said what it wants."""

FIRST_PAUSE_S = 1.0
"""After the first failure; each further one doubles it."""

LONGEST_PAUSE_S = 60.0

LATE = 1.2
"""Beats, at most, between two tries of a registry that is away: its return is noticed within two."""

SHORTEST_GAP_S = 1.0
"""Between two check-ins, whatever happens here."""

SCATTER_S = 1.0
"""All hosts notice at once that a registry has hung up. They come again within this time, not together."""


class Pace:
    """The beat of one host.

    Attributes:
        due_s: when to check in next.
        heard_s: when the registry was last heard of; at first, when this began.
        beat_s, jitter, gone_after_s: as the registry wants it.
    """

    def __init__(self, now_s: float, chance: Callable[[], float]) -> None:
        """Args:
        chance: from 0 to 1, another number each time.
        """
        self.beat_s, self.jitter, self.gone_after_s = BEAT_S, JITTER, GONE_AFTER_S
        self.due_s = now_s
        self.heard_s = now_s
        self._asked_s = now_s - SHORTEST_GAP_S
        self._failures = 0
        self._again = False
        self._chance = chance

    @property
    def is_failing(self) -> bool:
        """Has the last try failed, or been refused?"""
        return self._failures > 0

    def asked(self, now_s: float) -> None:
        """A check-in is under way; the next one waits for its end."""
        self._asked_s = now_s
        self.due_s = float("inf")

    def answered(self, now_s: float, beat_s: float, jitter: float, gone_after_s: float) -> None:
        """It was answered, and this is what the registry wants."""
        self.beat_s, self.jitter, self.gone_after_s = beat_s, jitter, gone_after_s
        self.heard_s = now_s
        self._failures = 0
        interval_s = beat_s * (1 + jitter * (self._chance() - 0.5))
        self._set_due(self._asked_s + interval_s)

    def failed(self, now_s: float, *, refused: bool = False) -> None:
        """It was not answered.

        Args:
            refused: it was, by a no that will last.
        """
        self._failures += 1
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 30), LONGEST_PAUSE_S)
        if not refused:
            pause_s = min(pause_s, LATE * self.beat_s)
        self._set_due(now_s + pause_s * (1 + self._chance()) / 2)

    def hurry(self, now_s: float) -> None:
        """Something here is another than it was. What is under way already may not say so yet."""
        if self.due_s == float("inf"):
            self._again = True
        else:
            self.due_s = min(self.due_s, max(now_s, self._earliest_s))

    def scatter(self, now_s: float) -> None:
        """The registry has hung up, as when it is started anew."""
        if self.due_s != float("inf") and not self.is_failing:
            self.due_s = min(self.due_s, max(now_s + SCATTER_S * self._chance(), self._earliest_s))

    def forget_failures(self) -> None:
        """What made them is another now: a new credential, another configuration."""
        self._failures = 0

    def is_away(self, now_s: float) -> bool:
        """Was the registry not heard of for so long that it would have given up this host?"""
        return now_s - self.heard_s > self.gone_after_s

    def _set_due(self, due_s: float) -> None:
        self.due_s = self._earliest_s if self._again else max(due_s, self._earliest_s)
        self._again = False

    @property
    def _earliest_s(self) -> float:
        return self._asked_s + SHORTEST_GAP_S
