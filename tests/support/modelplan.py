"""Made-up builds for the model of a fleet: what is built, by whom, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

HERE = "here"
"""The coordinator's machine."""


@dataclass
class Target:
    """A recipe: steps one after the other, each some seconds of work or sub-makes that run side by side."""

    steps: list[float | list[Make]]
    after: list[int]
    """Targets of its make that it needs."""
    fails: bool = False


@dataclass
class Make:
    """A sub-make, or the build's own."""

    number: int
    targets: list[Target] = field(default_factory=list)
    own_jobs: int | None = None
    """-j in its own argv."""
    killed_after_s: float | None = None


@dataclass
class Plan:
    """One build on one fleet."""

    seed: int
    jobs: int = 4
    """-j."""
    keep_going: bool = False
    fifo: bool = False
    locks: bool = True
    local_slots: int = 1
    trust_hosts: bool = False
    hosts: list[tuple[str, int, int | None, bool]] = field(default_factory=list)
    """Machine, its slots, max_jobs, and whether its make knows fifos."""
    lost: list[tuple[float, int, float | None]] = field(default_factory=list)
    """When which host is lost, and when it is back."""
    makes: list[Make] = field(default_factory=list)
    """By number; the first is the build's own."""
    known_s: dict[int, float] = field(default_factory=dict)
    """What history says of some."""
    refuses: float = 0.0
    """How likely it is that a host does not start a job."""

    @property
    def work_s(self) -> float:
        """Seconds of all recipes one after the other."""
        steps = [step for make in self.makes for target in make.targets for step in target.steps]
        return sum(step for step in steps if not isinstance(step, list))


def random_plan(seed: int) -> Plan:
    """Any build: most are small, for what goes wrong does so there as well."""
    rng = random.Random(seed)
    plan = Plan(
        seed,
        jobs=rng.choice([2, 2, 3, 4, 5, 8, 100]),
        keep_going=rng.random() < 0.5,
        fifo=rng.random() < 0.4,
        locks=rng.random() < 0.8,
        local_slots=rng.choice([1, 1, 2, 3]),
        trust_hosts=rng.random() < 0.3,
    )
    slots: dict[str, int] = {HERE: plan.local_slots}
    for number in range(rng.choice([0, 1, 2, 2, 3, 3, 4])):
        machine = f"m{number}"
        if number and rng.random() < 0.2:
            machine = rng.choice([*slots, HERE])  # another name of one, or this very machine
        slots.setdefault(machine, rng.choice([1, 1, 2, 3]))
        most = rng.choice([None, None, None, 1, 2])
        plan.hosts.append((machine, slots[machine], most, rng.random() < 0.7))
    troubles = rng.random()
    budget = rng.choice([2, 6, 12, 25])
    _grow(plan, rng, _new_make(plan), depth=0, budget=[budget], trouble=0.15 if troubles < 0.4 else 0.0)
    if troubles > 0.7 and plan.hosts:
        for _ in range(rng.choice([1, 1, 2])):
            back = rng.uniform(0.3, 1.0) if rng.random() < 0.5 else None
            plan.lost.append((rng.uniform(0.0, 1.0), rng.randrange(len(plan.hosts)), back))
    plan.refuses = 0.2 if rng.random() < 0.1 else 0.0
    for make in plan.makes[1:]:
        if rng.random() < 0.3:
            plan.known_s[make.number] = rng.choice([0.01, 0.2, 1.0])
        if troubles < 0.2 and rng.random() < 0.2:
            make.killed_after_s = rng.uniform(0.0, 0.4)
    return plan


def _new_make(plan: Plan) -> Make:
    make = Make(len(plan.makes))
    plan.makes.append(make)
    return make


def _grow(plan: Plan, rng: random.Random, make: Make, depth: int, budget: list[int], trouble: float) -> None:
    for number in range(rng.randint(1, 5)):
        after = [rng.randrange(number)] if number and rng.random() < 0.25 else []
        steps: list[float | list[Make]] = []
        for _ in range(rng.choice([1, 1, 2])):
            calls = depth < 3 and budget[0] > 0 and rng.random() < (0.8 if depth == 0 else 0.45)
            if not calls:
                steps.append(rng.choice([0.001, 0.03, 0.1, 0.3]) * rng.uniform(0.5, 1.5))
                continue
            together = []
            for _ in range(rng.choice([1, 1, 1, 2])):
                budget[0] -= 1
                called = _new_make(plan)
                together.append(called)
                if rng.random() < 0.06:
                    called.own_jobs = rng.choice([1, 2, 4])
                    _grow(plan, rng, called, 3, budget, trouble)
                else:
                    _grow(plan, rng, called, depth + 1, budget, trouble)
            steps.append(together)
        make.targets.append(Target(steps, after, fails=rng.random() < trouble))
