"""Where pool, database and those who wait for news meet.

The pool in memory is what counts; the database is its durable copy, written by one thread. What must not be
lost is written before the pool has it (`write`); what hosts say again and again is written behind (`note`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from .credentials import Credentials
from .feed import Feed
from .model import AuditEntry, Host, Key, Operator, Record, Token
from .pool import Pool, Timing
from .refusals import Refused
from .store import Snapshot, Store, StoreError, StoreGoneError

log = logging.getLogger("d1fleet.registry")

FLUSH_EACH_S = 2.0
"""What hosts say is in the database so much later; after a crash they say it again."""

LOOK_EACH_S = 1.0
"""How often silent hosts are looked for, and the database's file."""

GATHER_S = 0.2
"""Changes within this time are one piece of news: fifty hosts that come at once would be fifty."""

T = TypeVar("T")
P = ParamSpec("P")

_UNDER_WAY: set[asyncio.Future[Any]] = set()


def whole(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """For what writes and then tells the pool: it is done to its end, also where nobody waits any more."""

    @functools.wraps(method)
    async def done(*args: P.args, **values: P.kwargs) -> T:
        task = asyncio.ensure_future(method(*args, **values))
        _UNDER_WAY.add(task)
        task.add_done_callback(_UNDER_WAY.discard)
        return await asyncio.shield(task)

    return done


@dataclass(frozen=True)
class Clocks:
    """Monotonic seconds, and seconds since the epoch."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Core:
    """The registry's state.

    Args:
        store: not opened yet.
        own_addresses: those of this machine.
    """

    def __init__(
        self,
        store: Store,
        credentials: Credentials,
        timing: Timing = Timing(),  # noqa: B008 frozen
        clocks: Clocks = Clocks(),
        own_addresses: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.credentials = credentials
        self.timing = timing
        self.clocks = clocks
        self.own_addresses = own_addresses
        self.epoch = secrets.token_hex(8)
        """Of this start."""
        self.feed = Feed()
        self.lock = asyncio.Lock()
        """Held by whoever changes something that is written at once."""
        self.pool = Pool((), (), timing, clocks.monotonic())
        self.tokens: dict[str, Token] = {}
        self.operators: dict[str, Operator] = {}
        self.keys: dict[str, Key] = {}
        self.made_at = 0.0
        self.trouble = ""
        """Why the database cannot be written at this moment."""
        self._store = store
        self._writer = ThreadPoolExecutor(1, "d1fleet-store")
        self._unwritten: set[str] = set()
        self._changed: set[str] = set()
        self._calling: asyncio.TimerHandle | None = None
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    # Start and end

    async def start(self) -> None:
        """Read everything, and begin to look after hosts.

        Raises:
            StoreError: the database cannot be used.
        """
        snapshot = await self._in_writer(self._store.open)
        self.pool = Pool(snapshot.projects, snapshot.hosts, self.timing, self.clocks.monotonic())
        self.tokens = {token.id: token for token in snapshot.tokens}
        self.operators = {operator.name: operator for operator in snapshot.operators}
        self.keys = {key.id: key for key in snapshot.keys}
        self.made_at = snapshot.made_at
        self._tasks = [
            asyncio.create_task(self._look_after_hosts()),
            asyncio.create_task(self._flush_each()),
        ]

    async def stop(self) -> None:
        """Write what is not written yet, and let those go who wait."""
        if self._stopped:
            return
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._calling is not None:
            self._calling.cancel()
            self._calling = None
        self.wake(self._waiting, for_news=False)
        self.feed.close()
        with contextlib.suppress(StoreError):
            await self.flush()
        await self._in_writer(self._store.close)
        self._writer.shutdown()

    # The database

    async def write(
        self,
        puts: Sequence[Record] = (),
        deletes: Sequence[Record] = (),
        audit: Sequence[AuditEntry] = (),
    ) -> None:
        """Have something in the database for good; the lock is held. The pool gets it afterwards.

        Raises:
            Refused: 503, and nothing of it is stored.
        """
        try:
            await self._store_it(functools.partial(self._store.apply, puts, deletes, audit))
        except StoreError as error:
            raise Refused(503, "database", error.message, error.mend) from error
        for entry in audit:
            log.info("audit", extra={"audit": entry})

    def note(self, host: Host) -> None:
        """Have a host written some time soon."""
        self._unwritten.add(host.id)

    async def flush(self) -> None:
        """Write what was noted.

        Raises:
            StoreError: it cannot be written; it stays noted.
        """
        async with self.lock:
            noted, self._unwritten = self._unwritten, set()
            hosts = [self.pool.hosts[identity] for identity in noted if identity in self.pool.hosts]
            try:
                if hosts:
                    await self._store_it(functools.partial(self._store.apply, hosts))
            except StoreError:
                self._unwritten |= noted
                raise

    async def audit(self, limit: int) -> list[AuditEntry]:
        """The newest entries first.

        Raises:
            Refused: 503.
        """
        try:
            return await self._in_writer(functools.partial(self._store.audit, limit))
        except StoreError as error:
            raise Refused(503, "database", error.message, error.mend) from error

    def snapshot(self) -> Snapshot:
        """All that is known, as the database has it."""
        return Snapshot(
            tuple(self.pool.projects.values()),
            tuple(self.pool.hosts.values()),
            tuple(self.tokens.values()),
            tuple(self.operators.values()),
            tuple(self.keys.values()),
            self.made_at,
        )

    async def _store_it(self, what: Callable[[], None]) -> None:
        """Raises:
        StoreError: it is not stored.
        """
        try:
            try:
                await self._in_writer(what)
            except StoreGoneError as error:
                await self._rewrite(error.message)
                await self._in_writer(what)
        except StoreError as error:
            self._say(error.message)
            raise
        self._say("")

    async def _rewrite(self, why: str) -> None:
        log.error("the database is gone; it is written anew from memory: %s", why)
        entry = AuditEntry(self.clocks.wall(), "registry", "rewrite database", "", "", why)
        await self._in_writer(functools.partial(self._store.rewrite, self.snapshot(), [entry]))

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.error("the database cannot be written: %s", trouble)
        elif self.trouble and not trouble:
            log.warning("the database can be written again")
        self.trouble = trouble

    async def _in_writer(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, what)

    # News

    def news(self, projects: Iterable[str] = (), hosts: Iterable[Host] = ()) -> None:
        """Tell those who wait, soon, that projects have another document, and hosts another fate."""
        for host in hosts:
            self._changed.add(host.id)
        for project in projects:
            self._changed.update(host.id for host in self.pool.members(project))
        if self._changed and self._calling is None:
            self._calling = asyncio.get_running_loop().call_later(GATHER_S, self._tell)

    def _tell(self) -> None:
        self._calling = None
        changed, self._changed = self._changed, set()
        self.wake(changed)
        self.feed.hosts(changed)

    def wake(self, hosts: Iterable[str], for_news: bool = True) -> None:
        """End the waiting of those of these that wait."""
        for identity in list(hosts):
            waiting = self._waiting.pop(identity, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(for_news)

    async def wait(self, host: Host, limit_s: float) -> bool:
        """Until there may be news for a host, or so many seconds. One waits at a time: one before is let go.

        Returns:
            Whether there may be news.
        """
        self.wake([host.id], for_news=False)
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[host.id] = waiting
        try:
            return await asyncio.wait_for(waiting, limit_s)
        except TimeoutError:
            return False
        finally:
            if self._waiting.get(host.id) is waiting:
                del self._waiting[host.id]

    @property
    def waiters(self) -> int:
        """How many hosts wait for news."""
        return len(self._waiting)

    # What has to be done again and again

    async def _look_after_hosts(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EACH_S)
            self.expire()
            with contextlib.suppress(StoreError):
                if not await self._in_writer(self._store.is_there):
                    async with self.lock:
                        await self._rewrite("its file was removed")

    def expire(self) -> None:
        """Give up those that were not heard of for too long."""
        now_s = self.clocks.monotonic()
        gone, projects = self.pool.expire(now_s)
        for host in gone:
            log.warning("host gone", extra={"host": host.name})
            self.note(host)
        self.news(projects, gone)
        self.feed.hosts(host.id for host in self.pool.silent(now_s))

    async def _flush_each(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EACH_S)
            with contextlib.suppress(StoreError):
                await self.flush()
