"""The supervisors of a server: one for each attempt at work, used again and again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..loop import Loop
from . import process, supervisor
from .supervisor import Supervisor

if TYPE_CHECKING:
    from .attempt import Attempt


KEPT_IDLE = 2
"""Idle supervisors that are kept."""

IDLE_S = 5.0
"""After this long with more of them, the surplus goes."""


class SupervisorPool:
    """Hands supervisors to attempts, and knows what runs below them.

    Args:
        complain: prints a line for people.
        spared: another process of the server's own, which lives on when a supervisor's tree is ended; or 0.
        on_end: called before an attempt hears that its make has ended, or that somebody has killed its
            supervisor.
    """

    def __init__(
        self,
        loop: Loop,
        complain: Callable[[str], None],
        spared: Callable[[], int],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._complain = complain
        self._spared = spared
        self._on_end = on_end
        self._all: set[Supervisor] = set()
        self._idle: list[Supervisor] = []
        self._owners: dict[Supervisor, Attempt] = {}
        self._parked: set[Supervisor] = set()
        """Those below which something still runs although its make has ended."""
        self._emptied: set[Supervisor] = set()
        """Those whose last process has ended while the attempt was still being drained."""
        self._until = 0.0
        self._trimming = False
        self._to_kill: set[Supervisor] = set()
        self._when_empty: Callable[[], None] | None = None
        self.unkillable = False
        """Something cannot be killed: it may go on one day."""

    def prepare(self) -> None:
        """Have one ready: the first job should not wait for a fork."""
        self._idle.append(self._new())

    def _new(self) -> Supervisor:
        new = Supervisor(self._loop, self._report, self._death)
        self._all.add(new)
        return new

    def take(self, attempt: Attempt) -> Supervisor:
        """A supervisor for an attempt."""
        found = self._idle.pop() if self._idle else self._new()
        self._owners[found] = attempt
        if self._until:
            found.keep_until(self._until)
        return found

    def give(self, used: Supervisor, left: bool) -> None:
        """The attempt has ended; while something still runs below its supervisor, that takes no other."""
        if used in self._all:
            self._owners.pop(used, None)
            if left and used not in self._emptied:
                self._parked.add(used)
            else:
                self._emptied.discard(used)
                self._idle.append(used)
                if len(self._idle) > KEPT_IDLE and not self._trimming:
                    self._trimming = True
                    self._loop.call_later(IDLE_S, self._trim)

    def _trim(self) -> None:
        """Each supervisor costs 2 MB: a server that has little to do keeps few."""
        self._trimming = False
        for surplus in self._idle[:-KEPT_IDLE]:
            self._all.discard(surplus)
            surplus.close()
            self._loop.call_later(1.0, lambda pid=surplus.pid: process.reap(pid))  # type: ignore[misc]
        del self._idle[:-KEPT_IDLE]

    def keep_until(self, until: float) -> None:
        """The lease lasts until then."""
        self._until = until
        for each in self._all:
            each.keep_until(until)

    def pause(self, on: bool) -> None:
        """Stop or continue everything."""
        for each in self._all:
            each.command(supervisor.PAUSE if on else supervisor.CONTINUE)

    @property
    def busy(self) -> bool:
        """Are attempts at work?"""
        return bool(self._owners)

    def outlived(self) -> int:
        """Processes that still run although their makes have ended."""
        return sum(len(process.descendants(each.pid)) for each in self._parked)

    def terminate(self) -> None:
        """SIGTERM to all makes: they delete half-written targets."""
        for attempt in self._owners.values():
            attempt.terminate()

    def kill_now(self) -> None:
        """SIGKILL all that runs, at once; the supervisors go on until nothing comes back."""
        pids = {each.pid for each in self._all}
        for pid in process.descendants(os.getpid()):
            if pid not in pids:
                process.send(pid, signal.SIGKILL)
        for each in self._all:
            each.command(supervisor.KILL)

    def kill_all(self, when_empty: Callable[[], None]) -> None:
        """End what runs; `when_empty` is called when nothing is left."""
        self._when_empty = when_empty
        self._to_kill = set(self._all)
        for each in self._all:
            each.command(supervisor.KILL)
        self._check_empty()

    def _check_empty(self) -> None:
        if self._when_empty is not None and not self._to_kill:
            done, self._when_empty = self._when_empty, None
            self._end_orphans()
            done()

    def _end_orphans(self) -> None:
        """The tree of a supervisor that somebody killed has become the server's own."""
        if process.kill_descendants(spare={self._spared(), *(each.pid for each in self._all)}):
            self.unkillable = True

    def _report(self, source: Supervisor, verb: bytes, value: int) -> None:
        if verb in (supervisor.EMPTY, supervisor.UNKILLABLE):
            if verb == supervisor.UNKILLABLE:
                self.unkillable = True
                self._complain(f"{value} processes cannot be killed (uninterruptible sleep)")
            self._to_kill.discard(source)
            self._check_empty()
            if verb == supervisor.EMPTY and source in self._parked:
                self._parked.discard(source)
                self._idle.append(source)
            elif source in self._owners:
                if verb == supervisor.EMPTY:
                    self._emptied.add(source)
                self._owners[source].on_report(verb, value)
            return
        if verb == supervisor.ENDED:
            self._on_end()
        attempt = self._owners.get(source)
        if attempt is not None:
            attempt.on_report(verb, value)

    def _death(self, source: Supervisor) -> None:
        self._all.discard(source)
        self._parked.discard(source)
        if source in self._idle:
            self._idle.remove(source)
        self._on_end()
        attempt = self._owners.pop(source, None)
        self._end_orphans()
        if attempt is not None:
            attempt.on_supervisor_death()
        self._to_kill.discard(source)
        self._check_empty()
