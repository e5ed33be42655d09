"""A store in memory, which can be told to fail, and what tests of the service start from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from d1fleet.registry.administration import Administration, By
from d1fleet.registry.core import Clocks, Core
from d1fleet.registry.credentials import Credentials
from d1fleet.registry.model import AuditEntry, Host, Key, Operator, Project, Record, Report, Token
from d1fleet.registry.pool import Timing
from d1fleet.registry.service import HostService
from d1fleet.registry.store import Snapshot, Store, StoreError

SOMEBODY = By("operator:ada", True, "192.0.2.99")
ALDER, BIRCH, CEDAR = "192.0.2.11", "192.0.2.12", "192.0.2.13"
RANGES = ("192.0.2.0/24",)

_KINDS = {"projects": Project, "hosts": Host, "tokens": Token, "operators": Operator, "keys": Key}


class MemoryStore(Store):
    """Keeps records in dictionaries.

    Attributes:
        fault: what the next writes fail with; None for nothing.
        there: whether its "file" is.
        writes: what was applied, in order.
    """

    def __init__(self, made_at: float = 0.0) -> None:
        self.records: dict[tuple[type, str], Record] = {}
        self.entries: list[AuditEntry] = []
        self.made_at = made_at
        self.fault: StoreError | None = None
        self.there = True
        self.writes: list[tuple[list[Record], list[Record]]] = []

    def open(self) -> Snapshot:
        found: dict[str, Any] = {
            name: tuple(record for (each, _), record in self.records.items() if each is kind)
            for name, kind in _KINDS.items()
        }
        return Snapshot(**found, made_at=self.made_at)

    def apply(
        self,
        puts: Sequence[Record] = (),
        deletes: Sequence[Record] = (),
        audit: Sequence[AuditEntry] = (),
    ) -> None:
        if self.fault is not None:
            raise self.fault
        self.writes.append((list(puts), list(deletes)))
        for record in puts:
            self.records[type(record), _key(record)] = record
        for record in deletes:
            self.records.pop((type(record), _key(record)), None)
        self.entries += audit

    def rewrite(self, snapshot: Snapshot, audit: Sequence[AuditEntry] = ()) -> None:
        self.records.clear()
        self.there = True
        self.fault = None
        self.made_at = snapshot.made_at
        self.apply([record for name in _KINDS for record in getattr(snapshot, name)], audit=audit)

    def is_there(self) -> bool:
        return self.there

    def audit(self, limit: int) -> list[AuditEntry]:
        return self.entries[::-1][:limit]

    def close(self) -> None:
        pass


def _key(record: Record) -> str:
    return record.name if isinstance(record, Project | Operator) else record.id


@dataclass
class Time:
    """Goes on when it is told to."""

    now_s: float = 1000.0

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now_s, lambda: 1_700_000_000 + self.now_s)


@dataclass
class Registry:
    """A registry whose clock and store the test has in its hands."""

    time: Time = field(default_factory=Time)
    store: MemoryStore = field(default_factory=MemoryStore)
    own_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        """As after a start: what is not in the store is forgotten. `core.start()` is the test's."""
        self.core = Core(
            self.store, Credentials(b"s" * 32), Timing(), self.time.clocks(), lambda: self.own_addresses
        )
        self.service = HostService(self.core)
        self.admin = Administration(self.core)

    async def joined(self, name: str, source: str, project: str = "engine", **values: Any) -> Agent:
        """A host that has joined a project, which is made if need be."""
        if project not in self.core.pool.projects:
            await self.admin.create_project(SOMEBODY, project, RANGES)
        token, _ = await self.admin.create_token(SOMEBODY, project)
        self.time.now_s += 1  # peers stand in the order in which they joined
        agent = Agent(self, name, source, report(name, **values))
        agent.credential, host, _ = await self.service.join(token, name, agent.next(), source)
        agent.id = host.id
        return agent


@dataclass
class Agent:
    """What checks in for one host."""

    registry: Registry
    name: str
    source: str
    report: Report
    credential: str = ""
    id: str = ""

    def next(self, **values: Any) -> Report:
        """The next report; `values` stay."""
        self.report = replace(self.report, **{"sequence": self.report.sequence + 1, **values})
        return self.report

    async def beat(self, **values: Any) -> dict[str, Any]:
        """Check in; returns the answer as a host reads it."""
        found = await self.registry.service.check_in(self.credential, self.next(**values), {}, self.source)
        return dict(json.loads(found.body()))

    async def peers(self, project: str = "engine") -> list[str]:
        """Names of those that it may send work to."""
        answer = await self.beat()
        return [peer["name"] for peer in answer["projects"][project]["peers"] if peer["name"] != self.name]


_SESSIONS = itertools.count(1)


def report(name: str = "alder", **values: Any) -> Report:
    """What a host says of itself, with a session of its own."""
    return Report(
        **{
            "session": f"{next(_SESSIONS):032x}",
            "sequence": 1,
            "slots": 4,
            "owner": "ada",
            "machine": name.encode().hex().ljust(64, "0")[:64],
            "host_keys": (f"ssh-ed25519 {'A' * 40}{name.replace('.', '').replace('-', '')}",),
            "toolchain": {"cc": "gcc 12.2.0"},
            **values,
        }
    )
