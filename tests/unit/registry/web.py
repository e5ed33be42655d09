"""A registry that is asked over HTTP, without a network: `with_web` gives a test one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import httpx

from d1fleet.registry.app import build_app
from d1fleet.registry.gate import Gate
from d1fleet.registry.limits import Limits
from d1fleet.registry.model import Report
from d1fleet.registry.options import Options
from d1fleet.registry.shared import Shared, share

from .memory_store import ALDER, SOMEBODY, MemoryStore, Registry, Time, report

URL = "http://registry.example:33333"
SECRET = b"s" * 32
ADMIN = "/api/v1/admin"
ADA = "198.51.100.1"
"""From where the operator comes."""

PASSWORD = "correct horse battery"

PATIENT = Limits(
    failures_a_minute=10_000,
    joins_a_minute=10_000,
    sign_ins_a_minute=10_000,
    checkins_a_second=10_000,
    waits_a_second=10_000,
)
"""Time stands still in tests, so that all of a test is one second."""


def as_json(found: Report) -> dict[str, Any]:
    """A report as a host sends it."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(found)))
    return values


@dataclass
class Web:
    """A registry, and those who ask it."""

    registry: Registry
    options: Options
    limits: Limits
    gate: Gate = field(init=False)
    shared: Shared = field(init=False, repr=False)
    app: Any = field(init=False)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    store: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = self.registry.store
        self.gate = Gate(self.limits, lambda: self.registry.time.now_s)
        self.shared = share(self.registry.core, SECRET, self.options, self.gate, lambda: "sha256:" + "0" * 64)
        self.app = build_app(self.shared)
        self.key = ""

    async def client(self, source: str = ADA, local: bool = False, **values: Any) -> httpx.AsyncClient:
        """Somebody who asks from that address, or by the socket of this machine."""
        app = build_app(self.shared, local=True) if local else self.app
        transport = httpx.ASGITransport(app, client=(source, 40000), raise_app_exceptions=True)
        return await self.stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url=values.pop("url", URL), **values)
        )

    async def operator(self, kind: str = "operator", source: str = ADA) -> httpx.AsyncClient:
        """One with an API key."""
        self.key, _ = await self.registry.admin.create_key(SOMEBODY, kind)
        return await self.client(source, headers={"Authorization": f"Bearer {self.key}"})

    async def host(self, name: str = "alder", source: str = ALDER, **values: Any) -> HostClient:
        """One that has joined the project engine."""
        self.registry.time.now_s += 1  # peers stand in the order in which they joined
        host = HostClient(self, await self.client(source), name, report(name, **values))
        await host.join()
        return host

    async def token(self, project: str = "engine") -> str:
        if project not in self.registry.core.pool.projects:
            await self.registry.admin.create_project(SOMEBODY, project, ("192.0.2.0/24",))
        return (await self.registry.admin.create_token(SOMEBODY, project))[0]


@dataclass
class HostClient:
    """What checks in for one host, over HTTP."""

    web: Web
    client: httpx.AsyncClient
    name: str
    report: Report
    credential: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    def next(self, **values: Any) -> dict[str, Any]:
        self.report = dataclasses.replace(self.report, **{"sequence": self.report.sequence + 1, **values})
        return as_json(self.report)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.credential}"}

    async def join(self, project: str = "engine") -> httpx.Response:
        body = {"token": await self.web.token(project), "name": self.name, "report": self.next()}
        answer = await self.client.post(
            "/api/v1/join", json=body, headers=self.bearer if self.credential else {}
        )
        assert answer.status_code == 201, answer.text
        self.answer = answer.json()
        self.credential = self.answer["credential"]
        return answer

    async def beat(self, known: dict[str, str] | None = None, **values: Any) -> httpx.Response:
        body = {"report": self.next(**values), "known": known or {}}
        return await self.client.post("/api/v1/checkin", json=body, headers=self.bearer)

    async def wait(self, known: dict[str, str], wait_s: float = 60) -> httpx.Response:
        return await self.client.post(
            "/api/v1/wait", json={"known": known, "wait_s": wait_s}, headers=self.bearer
        )

    def known(self) -> dict[str, str]:
        return {name: each["revision"] for name, each in self.answer["projects"].items()}


Test = Callable[[Web], Awaitable[None]]


def with_web(test: Test) -> Callable[[], None]:
    """Run a test in a loop, with a registry that has started."""
    return web_with()(test)


def web_with(
    limits: Limits = PATIENT, options: Mapping[str, Any] | None = None
) -> Callable[[Test], Callable[[], None]]:
    """The same, with other limits or options."""

    def take(test: Test) -> Callable[[], None]:
        async def whole() -> None:
            registry = Registry(Time(), MemoryStore())
            await registry.core.start()
            web = Web(registry, Options(Path("/nowhere"), **(options or {})), limits)
            try:
                async with web.stack:
                    await test(web)
            finally:
                await registry.core.stop()

        @wraps(test)
        def run() -> None:
            asyncio.run(whole())

        del run.__wrapped__  # else pytest would look for a fixture `web`
        return run

    return take


def refusal(answer: httpx.Response, status: int, code: str, field: str = "") -> dict[str, str]:
    """An answer is a refusal of that kind, in the form that all have; what is in it."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) <= {"code", "message", "field", "mend"}, body
    error: dict[str, str] = body["error"]
    assert error["code"] == code, error
    assert error["message"] and error["message"].isprintable() and error["message"].isascii(), error
    assert error.get("field", "") == field, error
    if field:
        assert error["message"].startswith(f"{field}: "), error
    return error


@contextmanager
def stored_nothing(web: Web) -> Iterator[None]:
    """What happens inside changes nothing that is stored."""
    before, writes = dict(web.store.records), len(web.store.writes)
    yield
    assert web.store.records == before
    assert len(web.store.writes) == writes


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def settled(web: Web) -> None:
    """Until all have been told of what has happened so far: nobody is woken by that any more."""
    await until(lambda: web.registry.core._calling is None)


class Call:
    """One request, step by step, as a server would hand it to the application."""

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = b"",
        source: str = ADA,
    ) -> None:
        """body: None leaves it to the test to send parts: `self.incoming`."""
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.come = asyncio.Event()
        if body is not None:
            self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        given = {"host": "registry.example", **(headers or {})}
        if body:
            given["content-length"] = str(len(body))
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "client": (source, 40000) if source else None,
            "server": ("registry.example", 33333),
        }
        self.task = asyncio.ensure_future(app(self.scope, self.incoming.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.come.set()

    def leave(self) -> None:
        """Whoever asks has gone."""
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def message(self, number: int) -> dict[str, Any]:
        """What was sent as the so-many-th part of the answer."""
        async with asyncio.timeout(20):
            while len(self.sent) <= number:
                self.come.clear()
                await self.come.wait()
        return self.sent[number]
