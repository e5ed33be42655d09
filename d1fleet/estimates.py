"""How long a job will take of which history knows nothing: as long as its like, if those are alike. Pure."""

from __future__ import annotations

from collections import deque

_KEPT = 100
"""Durations kept of each goal: enough for quantiles, and they follow a build that changes its ways."""

_FEW = 10
"""A goal with fewer durations is not known."""

_ENDED_A_RUNNING = 2
"""Nor is one of which fewer have ended for each that runs: those that end first are the short ones."""

_ALIKE = 3.0
"""Jobs are alike when nine of ten take no more than this many times what one of ten takes. Where they are
not, it is worse to wait for a fast host because of a guess, or to judge hosts by it, than to do neither: so
the simulator says.
"""

_RENEWED = 8
"""Quantiles are taken anew after this many more durations."""


class Estimates:
    """Learns from jobs that end, or whose durations are known from before."""

    def __init__(self) -> None:
        self._by_goal: dict[str, _Quantiles] = {}
        self._all = _Quantiles()

    def began(self, goal: str, jobs: int = 1) -> None:
        """A job of which nothing is known has begun; -1: it has ended, in whatever way."""
        self._of(goal).running += jobs

    def saw(self, goal: str, seconds: float) -> bool:
        """A job with this goal takes so long at speed 1. True: from now on there is a guess for its like."""
        self._all.add(seconds)
        same = self._of(goal)
        before = same.alike
        same.add(seconds)
        return same.alike and not before

    def _of(self, goal: str) -> _Quantiles:
        same = self._by_goal.get(goal)
        if same is None:
            same = self._by_goal[goal] = _Quantiles()
        return same

    def guess(self, goal: str) -> float | None:
        """The median of jobs with this goal; None while too few are known, or when they are not alike."""
        same = self._by_goal.get(goal)
        return same.middle if same is not None and same.alike else None

    @property
    def long_one(self) -> float:
        """What nine of ten jobs do not exceed; 0 while nothing is known."""
        return self._all.high


class _Quantiles:
    """Of the last values."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_KEPT)
        self._new = self._count = 0
        self.running = 0
        self.middle = self.high = 0.0
        self.alike = False

    def add(self, value: float) -> None:
        self._values.append(value)
        self._new += 1
        self._count += 1
        count = len(self._values)
        if count < _FEW or self._new >= _RENEWED:
            self._new = 0
            ordered = sorted(self._values)
            low, self.middle, self.high = (ordered[int(share * (count - 1))] for share in (0.1, 0.5, 0.9))
            enough = count >= _FEW and self._count >= _ENDED_A_RUNNING * self.running
            self.alike = enough and self.high <= _ALIKE * low
