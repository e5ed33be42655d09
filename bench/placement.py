"""What a decision of the scheduler costs at 1,000 hosts, and what it costs to know the past."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from d1fleet.history import MOST_JOBS, History, job_key
from d1fleet.machines import HostState, Machine
from d1fleet.placement import Scheduler
from d1fleet.waiting import JobState

from . import stats
from .stage import Stage
from .stats import Row, Sample, at_most

HOSTS = 1000


class _Fleet:
    """Hosts of mixed speed, with others' load; all hosts see one tree."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.scheduler = Scheduler()
        self.scheduler.more_to_come = True
        self.number = 0
        self.running: list[JobState] = []
        self.hosts = []
        for order in range(HOSTS):
            cpus = self.draw.choice((4, 8, 16))
            machine = Machine(cpus, cpus=cpus, speed=self.draw.uniform(0.4, 2.5))
            host = HostState(f"h{order}", machine, order, groups=frozenset(["tree"]))
            self.hosts.append(host)
            self.scheduler.join(host, 0.0)
            self.scheduler.loaded(machine, self.draw.uniform(0, cpus), 8 << 30)
        self.slots = sum(host.machine.slots for host in self.hosts)

    def job(self, weight: int = 1, known: bool = True) -> JobState:
        self.number += 1
        return JobState(
            self.number,
            float(self.number) / 1000,
            weight=weight,
            group="tree",
            key=self.number % 5000,
            expected_s=self.draw.lognormvariate(0.0, 1.0) if known else None,
        )

    def fill(self, share: float) -> None:
        """So many of the slots are in use."""
        for _ in range(int(share * self.slots)):
            self.scheduler.ask(self.job())
        self.dispatch()

    def dispatch(self) -> None:
        for verdict in self.scheduler.dispatch(self.number / 1000):
            self.running.append(verdict.job)

    def end_one(self) -> None:
        at = self.draw.randrange(len(self.running))
        self.running[at], self.running[-1] = self.running[-1], self.running[at]
        self.scheduler.ended(self.running.pop(), self.number / 1000, 1.0)


def _each(count: int, prepare: Callable[[], None], decide: Callable[[], object]) -> float:
    """Seconds of a decision; what comes before it is not counted."""
    spent = 0.0
    for _ in range(count):
        prepare()
        began = time.thread_time()
        decide()
        spent += time.thread_time() - began
    return spent / count


def _half_full(count: int, weight: int = 1) -> float:
    fleet = _Fleet(1)
    fleet.fill(0.5)

    def ask() -> None:
        fleet.end_one()
        fleet.scheduler.ask(fleet.job(weight))

    return _each(count, ask, fleet.dispatch)


def _full(count: int, at_the_end: bool = False, known: bool = True) -> float:
    """A job ends, another takes its place; those that wait are few at the end, else many."""
    fleet = _Fleet(2)
    fleet.fill(1.0)
    for _ in range(30 if at_the_end else 3000):
        fleet.scheduler.ask(fleet.job(known=known))
    fleet.scheduler.more_to_come = not at_the_end

    def end() -> None:
        fleet.end_one()
        fleet.scheduler.ask(fleet.job(known=known))

    return _each(count, end, fleet.dispatch)


def _nested(count: int) -> float:
    fleet = _Fleet(3)
    fleet.fill(0.5)
    jobs: list[JobState] = []

    def ask() -> None:
        fleet.end_one()
        jobs.append(fleet.job())

    def decide() -> None:
        job, here = jobs.pop(), fleet.hosts[fleet.number % HOSTS]
        if fleet.scheduler.stay_or_go(job, here, fleet.number / 1000).host is not None:
            fleet.running.append(job)

    return _each(count, ask, decide)


def _history(folder: Path, rounds: int) -> tuple[Sample, Sample]:
    """Loading a full one, and a question."""
    keys = [job_key("p", b"/tree", b"/tree/%d" % number, [b"all"]) for number in range(MOST_JOBS)]
    history = History()
    for key in keys:
        history.ran(key, 1.0, 1 << 20, "h", 1e9)
    path = folder / "history"
    path.write_bytes(History().with_new_of(history))
    loads, questions = [], []
    for _ in range(rounds):
        began = time.thread_time()
        loaded = History(path.read_bytes())
        loads.append(time.thread_time() - began)
        began = time.thread_time()
        for key in keys[:1000]:
            loaded.job(key)
        questions.append((time.thread_time() - began) / 1000)
    return Sample(tuple(loads), "s").scaled(1e3, "ms"), Sample(tuple(questions), "s").scaled(1e6, "us")


def measure(stage: Stage) -> list[Row]:
    rounds, count = stage.few(7, 1), stage.few(3000, 50)
    situations: dict[str, Callable[[], float]] = {
        "half of the slots in use": lambda: _half_full(count),
        "the same, jobs that want 3 slots": lambda: _half_full(count, weight=3),
        "all in use, 3,000 jobs wait": lambda: _full(count),
        "the same, nothing known of them": lambda: _full(count, known=False),
        "all in use, 30 wait, the end of the build": lambda: _full(count, at_the_end=True),
        "asked from a host: stay or go": lambda: _nested(count),
    }
    values: dict[str, list[float]] = {name: [] for name in situations}
    for _ in range(rounds):
        for name, situation in situations.items():
            values[name].append(situation())
    rows = [
        stats.row(name, Sample(tuple(seconds), "s").scaled(1e6, "us"), at_most(100, "us"))
        for name, seconds in values.items()
    ]
    load, question = _history(stage.scratch, stage.few(20, 2))
    return [
        *rows,
        stats.row("history of 20,000 jobs: to load it", load, at_most(5, "ms")),
        stats.row("  a question", question),
    ]
