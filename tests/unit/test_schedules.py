"""Random builds on random fleets: none hangs, none runs too much at once, and nothing of any is left.

What runs at once is counted as make counts it. A recipe that has two makes in its background (`$(MAKE) a &
$(MAKE) b & wait`) has one right, or one token, for both: under plain make each of them runs one recipe, so
that `-jN` is exceeded there as it is here. They count as one; what they have further tokens for counts in
full.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from d1fleet.placement import Machine
from tests.support.modelfleet import World, world_of
from tests.support.modelplan import HERE, Plan, random_plan

QUICK, FULL, PART = 100, 10_000, 1_000


class Checker:
    """What may never be, looked at whenever anything has happened."""

    def __init__(self, plan: Plan) -> None:
        self.seen: Counter[str] = Counter()
        """What this build had, so that builds without anything of interest do not pass for a proof."""
        self._alone = all(
            len(step) == 1
            for make in plan.makes
            for target in make.targets
            for step in target.steps
            if isinstance(step, list)
        )
        self._used: dict[Machine, int] = {}
        self._credits: dict[object, tuple[Machine, int]] = {}

    def __call__(self, world: World) -> None:
        self._tokens(world)
        self._accounts(world)
        self._recipes(world)

    def _tokens(self, world: World) -> None:
        """No token is lost or made up, whoever holds it."""
        top, jobs = world.coordinator.top, world.plan.jobs
        assert top is not None
        given = sum(job.tokens for job in world.coordinator._attempts.values())
        self.seen["tokens"] += given > 0
        assert top.pool._tokens is not None and top.pool._tokens >= 0
        assert top.pool._tokens + given + top.tokens.total == jobs - 1, "tokens"
        assert world.top.runs <= jobs, "the fleet runs more than -j"

    def _accounts(self, world: World) -> None:
        """A machine's account is that of its jobs; beyond its slots it grows by a probe or by credits that
        end.
        """
        top = world.coordinator.top
        assert top is not None
        used: Counter[Machine] = Counter()
        credits: dict[object, tuple[Machine, int]] = {}
        if not top._closed:
            used[top.machine] += 1 + top.tokens.total - top._credit
            credits[top] = top.machine, top._credit
            assert 0 <= top._lent <= top._credit <= 1 + top.tokens.held
        for job in [*world.coordinator._attempts.values(), *world.coordinator._jobs.values()]:
            host = job.state.host
            if host is None or job in credits:
                continue
            used[host.machine] += job.state.taken + job.tokens - job.credit
            credits[job] = host.machine, job.credit
            assert 0 <= job.credit <= job.state.taken + job.tokens
            self.seen["jobs"] += 1
            self.seen["jobs of hosts"] += job.parent is not None
            self.seen["credit"] += job.credit
        for machine in world.coordinator._machines.values():
            assert machine.used == used[machine], "the account of a machine"
            ended = 0
            for who, (where, before) in self._credits.items():
                if where is machine:
                    ended += max(0, before - credits.get(who, (machine, 0))[1])
            most = max(self._used.get(machine, 0), machine.slots + 1) + ended
            assert machine.used <= most, "more than slots, a probe, and credits that ended"
            self.seen["beyond slots"] += machine.used > machine.slots
            self._used[machine] = machine.used
        self._credits = credits

    def _recipes(self, world: World) -> None:
        """On each machine, and of each job."""
        top = world.coordinator.top
        assert top is not None
        running: Counter[Machine] = Counter()
        running[top.machine] += world.top.runs_here
        credit = 0 if self._alone else top._credit
        assert world.top.runs_here <= 1 + top.tokens.total - top._credit + credit
        for make in world.jobs.values():
            attempt = make.place.attempt  # type: ignore[attr-defined]
            running[make.place.machine] += make.runs_here
            has = attempt.slots + (attempt.tokens.held + attempt.tokens.offered if attempt.tokens else 0)
            assert 0 <= attempt._credit <= has
            credit = 0 if self._alone else attempt._credit
            assert make.runs_here <= has - attempt._credit + credit, "a make runs more than it has"
        for name, machine in world.coordinator._machines.items():
            pools = [pool for pool, where in world.pools.items() if where == name]
            assert sum(pool.held for pool in pools) <= machine.slots
            if name != HERE or world.locks is not None:
                right = 1 if name == HERE else 0  # the first recipe of a build is make's own
                allowed = machine.slots + sum(pool._lent + pool.debt for pool in pools) + right
                assert running[machine] <= allowed, "more than slots, credits and debt"
            self.seen["debt"] += any(pool.debt for pool in pools)
            for pool in pools:
                assert 0 <= pool._lent <= pool._taken == pool._lent + pool.held + pool.debt
                assert pool.seconds_in_debt() == pytest.approx(world.in_debt_s[pool], abs=1e-6)

    def at_end(self, world: World) -> None:
        """All is where it was before the build."""
        found, top = world.coordinator, world.coordinator.top
        assert top is not None
        wrong = any(make.killed_after_s is not None for make in world.plan.makes) or world.plan.lost
        fails = any(target.fails for make in world.plan.makes for target in make.targets)
        if not wrong and not fails:
            assert world.code == 0
            every = {(make.number, at) for make in world.plan.makes for at in range(len(make.targets))}
            assert world.began == Counter(every)
        elif not wrong:
            assert world.code == 2
        assert (
            not found._jobs
            and not found._attempts
            and not any(found._asked.values())
            and not found._placing.waiting
        )
        assert not found._desk._wanting and not world.jobs and not world.running
        assert not any(server._attempts or server._waiting for server in world.servers)
        if not wrong:
            assert top.tokens.held == 0 and top._waiting == 0
        debt_s = top.close()
        if world.locks is not None:
            assert debt_s == pytest.approx(world.in_debt_s[world.locks], abs=1e-3)
        for machine in found._machines.values():
            assert machine.used == 0 and machine.free == machine.slots
            assert all(host.jobs == 0 for host in machine.names)
        for pool in world.pools:
            assert (pool.held, pool.debt, pool._taken, pool._lent) == (0, 0, 0, 0)


def build(plan: Plan, folder: Path) -> Checker:
    """Run one build, looked at all the time."""
    checker = Checker(plan)
    with world_of(plan, str(folder)) as world:
        try:
            world.run(checker)
            checker.at_end(world)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{world.picture()}") from error
    return checker


def test_random_schedules(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(QUICK):
        seen += build(random_plan(seed), tmp_path).seen
    assert min(seen[name] for name in ("tokens", "jobs of hosts", "credit", "beyond slots", "debt")) > 100


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(QUICK, QUICK + FULL, PART))
def test_ten_thousand_random_schedules(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + PART):
        build(random_plan(seed), tmp_path)
