"""A whole build in one process and in virtual time: the coordinator, servers and token pipes are the real
ones; makes, recipes, shims and connections are models.

A make behaves to its jobserver as GNU make does: one recipe by right, a token is read for each further one
that is ready, and written back when a recipe ends while others go on. Everything follows from one seed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from d1fleet import coordinator, words
from d1fleet.coordinator import Coordinator
from d1fleet.experience import Experience
from d1fleet.history import History, Known
from d1fleet.loop import Loop, Timer
from d1fleet.maketokens import TokenFifo, TokenPipes
from d1fleet.model import Host
from d1fleet.policy import Policy
from d1fleet.record import Record
from d1fleet.slotpool import SlotPool
from d1fleet.slots import SlotLocks
from tests.support.modelhosts import DEVICE, ENVIRONMENT, FakeHosts, FakeLink, FakeListener, FakeServer
from tests.support.modelmakes import Desk, RunningMake
from tests.support.modelplan import HERE, Plan
from tests.support.noaftermath import NoAftermath


class NeverEndsError(AssertionError):
    """Nothing will ever happen again, or only ticks do."""


class VirtualLoop(Loop):
    """Where nothing is left to do, the next timer is due at once."""

    time = 0.0

    @staticmethod
    def now() -> float:
        return VirtualLoop.time

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """No two at the same moment: so whoever looks on sees the state between any two."""
        self._called += 1
        return super().call_at(max(when, self.now()) + self._called * 1e-10, callback)

    _called = 0

    def step(self) -> None:
        """Serve what is there to be served; else let the time pass until something is due."""
        if not self._posted and not self._epoll.poll(0):
            timers = [when for when, _, timer in self._timers if timer.callback is not None]
            if not timers:
                raise NeverEndsError("nothing is left to happen")
            VirtualLoop.time = max(VirtualLoop.time, min(timers))
        self.run_once(0)


class World:
    """One build of a plan.

    Args:
        folder: of slots and fifos; builds one after the other may share it.
    """

    def __init__(self, plan: Plan, folder: str) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self._folder = folder
        VirtualLoop.time = 100.0
        self.loop = VirtualLoop()
        self.running: list[RunningMake] = []
        self.jobs: dict[int, RunningMake] = {}
        """Those that run on hosts as jobs of their own, by their number."""
        self.pools: dict[SlotPool, str] = {}
        """The slots of each process, with the name of their machine."""
        self.in_debt_s: dict[SlotPool, float] = {}
        """For how long each of them ran too many recipes, as far as can be seen."""
        self.began: Counter[tuple[int, int]] = Counter()
        """How often each recipe was started, by its make and its number there."""
        self._fifos = 0
        self.code: int | None = None
        """Of the build's own make; None while it runs."""
        self.servers: list[FakeServer] = []
        experience = _Experience(plan)
        hosts = [
            Host(f"h{order}", slots=slots, max_jobs=most)
            for order, (_, slots, most, _) in enumerate(plan.hosts)
        ]
        with mock.patch.multiple(
            coordinator,
            ShimListener=FakeListener,
            Hosts=FakeHosts,
            Experience=lambda *_: experience,
            machine_identity=lambda: HERE,
        ):
            self.coordinator = Coordinator(
                self.loop,
                "",
                b"/",
                hosts,
                Policy("build", local_slots=plan.local_slots, trust_hosts=plan.trust_hosts),
                (ENVIRONMENT, ENVIRONMENT),
                Record(None),
                NoAftermath(self.loop),
            )
        found = self.coordinator.hosts
        assert isinstance(found, FakeHosts)
        self.hosts = found
        self.hosts.trusted = plan.trust_hosts
        for order, host in enumerate(hosts):
            self.hosts._members.append(SimpleNamespace(link=_Coming(host)))  # type: ignore[arg-type]
            self.loop.call_later(self.rng.choice([0, 0, 0.2]), functools.partial(self._join, order))
        for when_s, order, back_s in plan.lost:
            self.loop.call_later(when_s, functools.partial(self._lose, order, back_s))
        self.channel = self.fifo() if plan.fifo else TokenPipes()
        self.locks = self.pool(HERE, plan.local_slots) if plan.locks else None
        self.coordinator.serve_tokens(plan.jobs, self.channel, self.locks)
        self.desk = Desk(self)
        self.top = RunningMake(self, plan.makes[0], self.desk, self.channel, self._top_ended)
        self.limit = 100.0 + 60.0 + 2 * plan.work_s + 8.0 * len(plan.makes)

    def soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_later(self.rng.choice([0, 0, 0.0003, 0.002]), callback)

    def pool(self, machine: str, slots: int) -> SlotPool:
        folder = os.path.join(self._folder, machine)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        pool = SlotPool(SlotLocks(folder, slots))
        self.pools[pool] = machine
        self.in_debt_s[pool] = 0.0
        return pool

    def fifo(self) -> TokenFifo:
        self._fifos += 1
        return TokenFifo(os.path.join(self._folder, f"fifo.{self._fifos}"))

    def _top_ended(self, code: int) -> None:
        self.code = code

    # -- hosts come and go --

    def _join(self, order: int) -> None:
        machine, slots, _, fifo = self.plan.hosts[order]
        link = FakeLink(self, self.hosts._members[order].link.host, machine, slots, order, fifo)
        self.servers.append(link.server)
        self.hosts._members[order].link = link  # type: ignore[assignment]
        self.coordinator._placing.join(link.placement, self.loop.now())
        self.coordinator._host_ready()

    def _lose(self, order: int, back_s: float | None) -> None:
        link: Any = self.hosts._members[order].link
        if link.placement is None or not link.open:
            return
        link.open = False
        self.loop.call_later(self.rng.uniform(0, 0.19), link.server.die)
        self.coordinator._placing.leave(link.placement)
        self.coordinator._host_left(link, "lost", 0.2)
        if back_s is not None:
            self.loop.call_later(back_s, lambda: self._join(order))

    # -- run --

    def run(self, each_step: Callable[[World], None]) -> None:
        """To the end of the build's own make, and until everything has come to rest.

        Raises:
            NeverEndsError: it does not end.
        """
        while self.code is None:
            self._step(each_step)
            if self.loop.now() > self.limit:
                raise NeverEndsError(self.picture())
        until = self.loop.now() + 3.0  # what is under way arrives, offers go back
        while self.loop.now() < until:
            self._step(each_step)

    def _step(self, each_step: Callable[[World], None]) -> None:
        in_debt, before_s = [pool for pool in self.pools if pool.debt], self.loop.now()
        self.loop.step()
        for pool in in_debt:
            self.in_debt_s[pool] += self.loop.now() - before_s
        each_step(self)

    def close(self) -> None:
        """Give descriptors and files back, however it went."""
        for make in list(self.running):
            if not make.over:
                make.kill(quiet=True)
        for server in self.servers:
            server.die()
        self.coordinator.close()
        for pool in self.pools:
            pool.locks.close()
        self.loop.close()

    def picture(self) -> str:
        """What there is, for whoever reads a failure."""
        plan = self.plan
        lines = [f"seed {plan.seed}: -j{plan.jobs}, {len(plan.makes)} makes, hosts {plan.hosts}"]
        lines.append(f"at {self.loop.now() - 100:.3f} s")
        for make in self.running:
            where = getattr(getattr(make.place, "attempt", None), "id", HERE)
            recipes = [(r.target, r.works, [s.make.number for s in r.shims]) for r in make.recipes]
            lines.append(f"make {make.make.number} in {where}: left {make._left} recipes {recipes}")
        for machine in self.coordinator._machines.values():
            lines.append(f"{machine.used} of {machine.slots} {[host.name for host in machine.names]}")
        for job in self.coordinator._jobs.values():
            lines.append(f"job {job.request.folder!r} {job.phase} tokens {job.tokens} credit {job.credit}")
        return "\n".join(lines)


class _Coming:
    """A host that is not up yet."""

    open = True
    placement = None
    hello = None

    def __init__(self, host: Host) -> None:
        self.host = host


class _Experience(Experience):
    """Knows of some sub-makes how long they take, rightly or not; keeps nothing."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("", b"/", History())
        self._known = plan.known_s

    def key(self, folder: bytes, arguments: Any) -> bytes:
        return folder

    def of_job(self, key: bytes) -> Known | None:
        seconds = self._known.get(int(key[1:]))
        return Known(seconds, None, None, 0) if seconds is not None else None

    def keep(self, machines: Any) -> None:
        pass


@contextlib.contextmanager
def world_of(plan: Plan, folder: str) -> Iterator[World]:
    """A world on the virtual clock; nothing of it is left behind."""
    with (
        mock.patch.object(Loop, "now", staticmethod(VirtualLoop.now)),
        mock.patch.object(coordinator, "_device", lambda folder: DEVICE),
        mock.patch.object(words, "say", lambda *_: None),
    ):
        world = World(plan, folder)
        try:
            yield world
        finally:
            world.close()
