"""When slots of faster machines become free, and so whether to wait for one pays. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .machines import CLASS_WIDTH, Machine, cost_class

_SOONEST_S = 0.001
"""The least that running jobs are taken to go on for in the mean: those that are overdue end any moment."""


@dataclass(slots=True)
class _Class:
    """Running jobs with foreseen ends, on machines that are equally fast when full."""

    pace: float
    jobs: int = 0
    ends_sum: float = 0.0


@dataclass(slots=True)
class _Account:
    """What of one machine is in its class."""

    number: int
    jobs: int = 0
    ends_sum: float = 0.0


class Foresight:
    """Sums over running jobs, kept as they begin and end, so that no question has to look at all of them."""

    def __init__(self) -> None:
        self._classes: dict[int, _Class] = {}
        self._accounts: dict[Machine, _Account] = {}

    def began(self, machine: Machine, ends_at: float) -> None:
        """A job that is expected to end then has begun."""
        self._count(machine, 1, ends_at)

    def ended(self, machine: Machine, ends_at: float) -> None:
        """The same job has ended, whenever that was."""
        self._count(machine, -1, -ends_at)

    def changed(self, machine: Machine) -> None:
        """It may be slower or faster now."""
        account = self._accounts.get(machine)
        number = cost_class(machine.full_pace)
        if account is None:
            self._accounts[machine] = _Account(number)
        elif number != account.number:
            if account.jobs:
                self._add(account.number, -account.jobs, -account.ends_sum)
                self._add(number, account.jobs, account.ends_sum)
            account.number = number

    def pressure(self, pace: float, now: float) -> float:
        """How many jobs, for each second of their expected run time, had better wait for faster machines than
        go to one of this pace.

        Machines that are faster have n running jobs, of which the k-th ends in about 2 * mean * k / (n + 1)
        seconds. To wait for that pays for a job of s seconds when it is less than what the job would run
        longer here: s * (difference of the paces). All limits of "faster" are tried.
        """
        own = cost_class(pace)
        jobs, ends_sum, most = 0, 0.0, 0.0
        for number in sorted(self._classes):
            if number >= own:
                break
            sums = self._classes[number]
            jobs += sums.jobs
            ends_sum += sums.ends_sum
            mean_s = ends_sum / jobs - now
            found = (pace - sums.pace) * (jobs + 1) / (2 * (mean_s if mean_s > _SOONEST_S else _SOONEST_S))
            if found > most:
                most = found
        return most

    def gain(self, pace: float) -> float:
        """Seconds that a second's work can gain at most by waiting, against a machine of this pace."""
        fastest = min(self._classes, default=None)
        return 0.0 if fastest is None else max(0.0, pace - self._classes[fastest].pace)

    def _count(self, machine: Machine, jobs: int, ends: float) -> None:
        account = self._accounts[machine]
        account.jobs += jobs
        account.ends_sum += ends
        self._add(account.number, jobs, ends)

    def _add(self, number: int, jobs: int, ends: float) -> None:
        sums = self._classes.get(number)
        if sums is None:
            sums = self._classes[number] = _Class(CLASS_WIDTH**number)
        sums.jobs += jobs
        sums.ends_sum += ends
        if not sums.jobs:
            del self._classes[number]
