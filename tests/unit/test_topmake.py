"""The build's own make: its slots, what waiting recipes lend, and tokens that look for sub-makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from d1fleet.jobserver import TokenPool
from d1fleet.loop import Loop
from d1fleet.maketokens import TOKEN_TICK_S, TokenPipes
from d1fleet.placement import Machine, Scheduler
from d1fleet.slotpool import SlotPool
from d1fleet.slots import SlotLocks
from d1fleet.tokendesk import PROBE_S
from d1fleet.tokens import PATIENCE_S
from d1fleet.topmake import LOOK_AHEAD, TopMake
from tests.support.modelfleet import VirtualLoop

SOON_S = 2 * TOKEN_TICK_S


class Rig:
    """A make whose recipes are the test's, in virtual time."""

    def __init__(self, folder: Path, slots: int, jobs: int) -> None:
        self.loop = VirtualLoop()
        self.machine = Machine(slots, cpus=slots)
        self.pool = TokenPool(jobs - 1)
        self.locks = SlotPool(SlotLocks(str(folder), slots))
        self.channel = TokenPipes()
        self.placing = Scheduler()
        self.jobs_wait = 0
        self.idle_hosts = self.wanted = False
        self.told_free: list[int] = []
        self.top = TopMake(
            self.loop,
            self.pool,
            self.machine,
            self.placing.use,
            self.locks,
            self.channel,
            jobs_wait=lambda: self.jobs_wait,
            hosts_idle=lambda: self.idle_hosts,
            job_wants_slot=lambda: self.wanted,
            make_wants_slot=lambda: False,
            on_free=lambda: self.told_free.append(self.machine.free),
        )
        os.set_blocking(self.channel.make_read, False)

    def passes(self, seconds: float) -> None:
        over: list[bool] = []
        self.loop.call_later(seconds, lambda: over.append(True))
        while not over:
            self.loop.step()

    def read(self, patience_s: float = SOON_S) -> int:
        """Tokens that make gets within so many seconds, as many as there are."""
        count = 0
        until = self.loop.now() + patience_s
        while self.loop.now() < until:
            try:
                count += len(os.read(self.channel.make_read, 1))
            except BlockingIOError:
                self.passes(TOKEN_TICK_S / 4)
        return count

    def write(self) -> None:
        """A recipe ends that was started with a token."""
        os.write(self.channel.make_write, b"+")
        self.passes(TOKEN_TICK_S / 4)

    def close(self) -> float:
        debt_s = self.top.close()
        self.loop.close()
        return debt_s


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(slots: int, jobs: int) -> Rig:
        made.append(Rig(tmp_path, slots, jobs))
        return made[-1]

    VirtualLoop.time = 100.0
    with mock.patch.object(Loop, "now", staticmethod(VirtualLoop.now)):
        yield make
        for each in made:
            if not each.top._closed:
                each.close()


@pytest.mark.parametrize(("slots", "jobs", "tokens"), [(1, 8, 0), (3, 8, 2), (3, 2, 1)])
def test_no_more_recipes_than_slots_and_jobs(
    rig: Callable[..., Rig], slots: int, jobs: int, tokens: int
) -> None:
    make = rig(slots, jobs)
    assert make.read(5.0) == tokens
    assert make.machine.used == 1 + tokens


def test_jobs_on_this_machine_hold_the_slots_that_make_knew_of(
    rig: Callable[..., Rig], tmp_path: Path
) -> None:
    """It is a host of the build as well, and that says that there are more."""
    make = rig(slots=2, jobs=8)
    assert make.read() == 1
    jobs = SlotLocks(str(tmp_path), 2)
    assert jobs.take() == 0
    make.machine.slots = 4
    assert make.read() == 2
    jobs.close()


def test_what_was_written_back_is_offered_again(rig: Callable[..., Rig]) -> None:
    make = rig(slots=2, jobs=2)
    assert make.read() == 1
    make.write()
    assert make.read() == 1


def test_jobs_that_wait_are_enough_to_choose_from(rig: Callable[..., Rig]) -> None:
    make = rig(slots=2, jobs=8)
    make.jobs_wait = LOOK_AHEAD
    assert make.read(1.0) <= 1  # one was offered before
    make.write()
    assert make.read(1.0) == 0


@pytest.mark.parametrize("waits", [1, 2, 3])
def test_credit_is_never_more_than_its_recipes(rig: Callable[..., Rig], waits: int) -> None:
    """One recipe can wait for several sub-makes."""
    make = rig(slots=1, jobs=1)
    for _ in range(waits):
        make.top.shim_waits()
        assert make.machine.used == 0
        assert make.locks.debt == 0
    for left in reversed(range(waits)):
        make.top.shim_goes_on()
        assert make.machine.used == (0 if left else 1)


def test_a_recipe_that_waits_makes_room_for_another(rig: Callable[..., Rig]) -> None:
    make = rig(slots=1, jobs=8)
    assert make.read(1.0) == 0
    make.top.shim_waits()
    assert make.read() == 1
    assert make.machine.used == 1


# -- probes ----------------------------------------------------------------------------------------


def test_no_probe_where_nobody_is_idle(rig: Callable[..., Rig]) -> None:
    make = rig(slots=1, jobs=8)
    assert make.read(20 * PROBE_S) == 0


def test_one_probe_at_a_time(rig: Callable[..., Rig]) -> None:
    make = rig(slots=1, jobs=8)
    make.idle_hosts = True
    assert make.read(0.9 * PROBE_S) == 0
    assert make.read(20 * PROBE_S) == 1
    assert make.machine.used == 2
    assert make.top.tokens.total == 1


def test_after_a_probe_that_was_a_plain_recipe_it_takes_a_while(rig: Callable[..., Rig]) -> None:
    make = rig(slots=1, jobs=8)
    make.idle_hosts = True
    assert make.read(PROBE_S + SOON_S) == 1
    probed_s = make.loop.now() - SOON_S
    make.write()
    while not make.read(TOKEN_TICK_S):
        assert make.machine.used <= 2
    assert make.loop.now() - probed_s >= PROBE_S


def test_after_a_probe_that_went_elsewhere_the_next_follows(rig: Callable[..., Rig]) -> None:
    make = rig(slots=1, jobs=8)
    make.idle_hosts = True
    assert make.read(PROBE_S + SOON_S) == 1
    for _ in range(3):
        make.top.shim_waits()
        assert make.read(SOON_S) == 1
    assert make.machine.used == 2


def test_a_probe_is_one_recipe_not_a_slot_more(rig: Callable[..., Rig]) -> None:
    """The first recipe has no lock, so there is one for whatever the token of a probe starts next."""
    make = rig(slots=1, jobs=8)
    make.idle_hosts = True
    assert make.read(PROBE_S + SOON_S) == 1
    make.idle_hosts = False
    make.write()
    assert make.read(1.0) == 0
    assert make.machine.used == 1


# -- debt, and the end -------------------------------------------------------------------------------


def test_an_offer_lies_there_as_long_as_nobody_wants_it(rig: Callable[..., Rig]) -> None:
    make = rig(slots=2, jobs=8)
    make.passes(5.0)
    assert (make.top.tokens.offered, make.locks.held) == (1, 1)
    make.wanted = True
    make.passes(PATIENCE_S + SOON_S)
    assert (make.top.tokens.total, make.locks.held) == (0, 0)


def test_an_offer_does_not_keep_its_slot_from_a_job_that_was_placed_here(rig: Callable[..., Rig]) -> None:
    """That job waits on its host for the slot, and nobody else knows: make may be waiting for the job."""
    make = rig(slots=1, jobs=8)
    make.top.shim_waits()
    make.passes(SOON_S)
    assert (make.top.tokens.offered, make.locks.held) == (1, 1)
    make.placing.use(make.machine, 1)
    make.passes(PATIENCE_S + SOON_S)
    assert (make.top.tokens.total, make.locks.held) == (0, 0)
    assert make.machine.used == 1


def test_the_time_in_debt_is_told(rig: Callable[..., Rig], tmp_path: Path) -> None:
    make = rig(slots=1, jobs=3)
    make.idle_hosts = True
    assert make.read(PROBE_S + SOON_S) == 1
    make.idle_hosts = False
    make.top.shim_waits()
    other = SlotLocks(str(tmp_path), 1)
    slot = other.take()
    assert slot is not None
    make.top.shim_goes_on()
    assert make.locks.debt == 1
    make.passes(0.5)
    other.give(slot)
    make.passes(SOON_S)
    assert make.locks.debt == 0
    other.close()
    assert make.close() == pytest.approx(0.5, abs=SOON_S)


def test_nothing_is_left_at_its_end(rig: Callable[..., Rig]) -> None:
    """Whatever its make had in hand when it was killed."""
    make = rig(slots=3, jobs=3)
    assert make.read(1.0) == 2
    make.top.shim_waits()
    make.close()
    assert make.machine.used == 0
    assert (make.locks.held, make.locks.debt) == (0, 0)
    assert make.top.close() == 0.0


def test_jobs_hear_of_a_slot_when_its_token_is_seen_to_be_taken(rig: Callable[..., Rig]) -> None:
    """make reads it and its recipe is a sub-make, before anybody has looked whether it is gone."""
    make = rig(slots=2, jobs=4)
    while not make.top.tokens.offered:
        make.passes(TOKEN_TICK_S)
    os.read(make.channel.make_read, 1)
    make.top.shim_waits()
    make.top.shim_waits()
    assert make.machine.used == 1  # it is not known yet that both are recipes of their own
    make.wanted = True  # two jobs wait for a host that is this machine
    make.told_free.clear()
    make.passes(2 * TOKEN_TICK_S)
    assert make.machine.used == 0
    assert make.told_free == [2]
