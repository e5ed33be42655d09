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


class Estimates:
    """Learns from jobs that end, and from what is known of those that are asked for."""

    def __init__(self) -> None:
        self._by_goal: dict[str, _Quantiles] = {}
        self._all = _Quantiles()

    def expect(self, seconds: float) -> None:
        """A job of which this is known has been asked for."""
        self._all.add(seconds)

    def began(self, goal: str, jobs: int = 1) -> None:
        """A job has begun; -1: it has ended, in whatever way."""
        self._of(goal).running += jobs

    def saw(self, goal: str, seconds: float) -> bool:
        """A job with this goal takes so long at speed 1. True: from now on there is a guess for its like."""
        same = self._of(goal)
        before = same.alike
        same.add(seconds)
        same.judge()
        return same.alike and not before

    def _of(self, goal: str) -> _Quantiles:
        same = self._by_goal.get(goal)
        if same is None:
            same = self._by_goal[goal] = _Quantiles()
        return same

    def guess(self, goal: str) -> float | None:
        """The median of jobs with this goal; None while too few are known, or when they are not alike."""
        same = self._by_goal.get(goal)
        return same.at(0.5) if same is not None and same.alike else None

    @property
    def long_one(self) -> float:
        """What nine of ten jobs do not exceed; 0 while nothing is known."""
        return self._all.at(0.9)


class _Quantiles:
    """Of the last values."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_KEPT)
        self._ordered: list[float] | None = []
        self._count = 0
        self.running = 0
        self.alike = False

    def add(self, value: float) -> None:
        self._values.append(value)
        self._count += 1
        self._ordered = None

    def at(self, share: float) -> float:
        """The value that this share of all does not exceed; 0 while there is none."""
        if self._ordered is None:
            self._ordered = sorted(self._values)
        return self._ordered[int(share * (len(self._ordered) - 1))] if self._ordered else 0.0

    def judge(self) -> None:
        """Look whether all are alike."""
        enough = self._count >= max(_FEW, _ENDED_A_RUNNING * self.running)
        self.alike = enough and self.at(0.9) <= _ALIKE * self.at(0.1)
