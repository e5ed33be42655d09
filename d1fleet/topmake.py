"""The make of a build on this machine, with the makes that it runs here: its tokens and its slots.

Its jobserver is ours. So it runs no more recipes at once than this machine has slots, however high the -j for
the whole fleet is, and yet may start as many sub-makes as hosts can take: a recipe that waits for one is
idle, and its slot is free for the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from . import protocol
from .jobserver import TokenPool
from .loop import Loop
from .maketokens import TOKEN_TICK_S, MakeTokens, TokenFifo, TokenPipes
from .placement import Machine
from .slotpool import SlotPool
from .tokendesk import PROBE_S
from .tokens import Account

OWN_RANK = -1
"""The build's own make has its tokens before all others: what it starts may be a sub-make, which runs a
recipe by right, while a token for a make on a host adds one at most.
"""

LOOK_AHEAD = 8
"""Sub-makes that may wait for a host while others are sought: some to choose from, few to be surprised by
when they have to run here after all.
"""


class TopMake:
    """Serves one build's own make.

    Args:
        pool: all tokens of the build.
        machine: this one.
        use: told of slots of it that are used (> 0), or no longer (< 0).
        locks: its slots, shared with other builds; None leaves them out.
        channel: how make gets at its tokens.
        jobs_wait: tells how many sub-makes wait for a host.
        hosts_idle: tells whether a host would take one now.
        job_wants_slot: tells whether a waiting job could use a slot of this machine.
        make_wants_slot: tells whether a make on a host that is this machine could. Those come last: a token
            for them adds one recipe at most, one for this make may bring forth a sub-make.
        on_free: called when a slot of this machine has come back.
    """

    def __init__(
        self,
        loop: Loop,
        pool: TokenPool,
        machine: Machine,
        use: Callable[[Machine, int], None],
        locks: SlotPool | None,
        channel: TokenPipes | TokenFifo,
        jobs_wait: Callable[[], int],
        hosts_idle: Callable[[], bool],
        job_wants_slot: Callable[[], bool],
        make_wants_slot: Callable[[], bool],
        on_free: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.machine = machine
        self._use = use
        self.channel = channel
        self.pool = pool
        self._locks = locks
        self._jobs_wait = jobs_wait
        self._hosts_idle = hosts_idle
        self._job_wants_slot = job_wants_slot
        self._make_wants_slot = make_wants_slot
        self._on_free = on_free
        self._waiting = 0
        """Shims that wait for a sub-make which is not run here."""
        self._credit = 0
        """Recipes that do nothing but wait."""
        self._lent = 0
        """Locks that are free for others meanwhile; the first recipe has none."""
        self._wanting_since = -1.0
        """Since when make could use a token for which there is no slot; negative when it could not."""
        self._in_line = False
        self._probe_after_s = PROBE_S
        self._closed = False
        use(machine, 1)
        self.tokens = MakeTokens(self, 0, channel, self._settle, Account(loop.now(), first_want_s=0.0))
        self._tick()

    # -- what its account asks for --------------------------------------------------------------------

    def send(self, message: protocol.Message) -> None:
        """What a server would tell its coordinator."""
        if isinstance(message, protocol.Want):
            self._wanting_since = self.loop.now()
            self.serve()
        elif isinstance(message, protocol.Return):
            self._use(self.machine, -message.count)
            self.pool.give(message.count)
            self._on_free()

    def serve(self) -> None:
        """Slots or tokens have become free: give make one, if it wants one."""
        if self._wanting_since < 0 or self._closed or self._jobs_wait() >= LOOK_AHEAD:
            return
        has_slot = self.machine.free >= 1 and not self._job_wants_slot()
        if not has_slot and not self._may_probe():
            return
        if self.pool.take():
            self._wanting_since = -1.0
            self._probe_after_s = self._probe_after_s if has_slot else PROBE_S
            self._use(self.machine, 1)
            self.tokens.granted(1, probe=not has_slot)
        elif not self._in_line:
            self._in_line = True
            self.pool.wait(self._called, OWN_RANK)

    def _called(self) -> None:
        self._in_line = False
        self.serve()

    def _may_probe(self) -> bool:
        waited_s = self.loop.now() - self._wanting_since
        return self.machine.free >= 0 and waited_s >= self._probe_after_s and self._hosts_idle()

    def take_slot(self, force: bool) -> bool:
        """A slot for what a token is offered for. The first recipe has no lock, so the account counts too:
        without it, the token of a probe would start one plain recipe after the other.
        """
        if not force and self.machine.free < 0:
            return False
        if self._locks is None:
            return True
        # This machine may be a host of the build too, which says how many slots it has: all of them are ours
        # as well, or jobs there could hold those that we know of and wait for us to ask for more.
        self._locks.locks.count = max(self._locks.locks.count, self.machine.slots)
        return self._locks.take(force)

    def give_slot(self) -> None:
        if self._locks is not None:
            self._locks.give()

    @property
    def wants_slot(self) -> bool:
        """Could make start another recipe if there were a slot and a token?"""
        return self._wanting_since >= 0

    @property
    def has_more(self) -> bool:
        """May it have more sub-makes to ask for? Not when it leaves a token alone."""
        return self.tokens.offered == 0

    # -- shims ------------------------------------------------------------------------------------------

    def is_ours(self, pair: tuple[int, int] | None, fifo: bytes | None) -> bool:
        """Does a sub-make have its tokens from us? One that was told of none has them from nobody else."""
        if pair is not None:
            return isinstance(self.channel, TokenPipes) and os.path.sameopenfile(
                pair[0], self.channel.make_read
            )
        return fifo is None or (
            isinstance(self.channel, TokenFifo) and os.fsencode(self.channel.path) == fifo
        )

    def shim_waits(self) -> None:
        """A recipe waits for a sub-make."""
        self._waiting += 1
        self._probe_after_s = 0.0  # where one is there may be more
        if isinstance(self.channel, TokenFifo):
            self.tokens.tick(patient=True)  # the recipe was started with what lay there
        self._settle()

    def shim_goes_on(self) -> None:
        """Its sub-make has ended, or runs here."""
        self._waiting -= 1
        self._settle()

    def _settle(self) -> None:
        """Count as idle what waits; one recipe can wait for several sub-makes."""
        if self._closed:
            return
        held = self.tokens.held
        credit, lent = min(self._waiting, 1 + held), min(self._waiting, held)
        idle_more, self._credit = credit - self._credit, credit
        if idle_more:
            self._use(self.machine, -idle_more)
        while self._locks is not None and self._lent < lent:
            self._lent += 1
            self._locks.lend()
        while self._locks is not None and self._lent > lent:
            self._lent -= 1
            self._locks.reclaim()
        if idle_more > 0:
            self._on_free()  # nothing else may ever happen that would let the jobs in line have it
        self.serve()

    # -- time -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._closed:
            return
        if self._locks is not None:
            self._locks.settle()
        # An offer that make leaves alone keeps a token and a slot from others; a job that was placed on this
        # machine and waits for that very slot shows only in the account.
        wanted = self.pool.short or self._job_wants_slot() or self._make_wants_slot() or self.machine.free < 0
        self.tokens.tick(patient=not wanted)
        self.serve()
        self.loop.call_later(TOKEN_TICK_S, self._tick)

    def close(self) -> float:
        """Make has ended: give everything back; returns for how many seconds too many recipes ran."""
        if self._closed:
            return 0.0
        self._waiting = 0
        self._settle()
        self._closed = True
        self._use(self.machine, -1 - self.tokens.total)
        self.tokens.close()
        if self._locks is None:
            return 0.0
        self._locks.locks.close()
        return round(self._locks.seconds_in_debt(), 3)
