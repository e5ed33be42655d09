"""A registry with its panel, and a browser without JavaScript."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from d1fleet.registry.app import build_app
from d1fleet.registry.limits import Limits
from d1fleet.registry.model import Host
from d1fleet.registry.options import Options
from d1fleet.registry.shared import Shared, share
from tests.unit.registry.htmlpage import Element, read
from tests.unit.registry.memory_store import SOMEBODY, Registry

ADDRESS = "http://registry.example:33333"
PASSWORD = "correct horse battery"

PIN = "sha256:" + "ab" * 32

_SOURCES = itertools.count(1)


@dataclass
class Browser:
    """One who looks on; keeps cookies, and follows nothing by itself."""

    client: httpx.AsyncClient
    csrf: str = ""
    last: httpx.Response = field(default_factory=lambda: httpx.Response(0))

    async def get(self, path: str, status: int = 200, /, **headers: str) -> Element:
        self.last = await self.client.get(path, headers=headers)
        assert self.last.status_code == status, (path, self.last.status_code, self.last.text[:2000])
        return read(self.last.text)

    async def send(self, path: str, fields: Mapping[str, Any] = {}, **headers: str) -> httpx.Response:
        """A POST, with nothing added."""
        self.last = await self.client.post(path, data=dict(fields), headers=headers)
        return self.last

    async def post(self, path: str, status: int = 303, /, **fields: Any) -> Element:
        """What a form sends; the page that it leads to, or that comes instead."""
        await self.send(path, {"csrf": self.csrf, **fields})
        assert self.last.status_code == status, (path, self.last.status_code, self.last.text[:2000])
        return await self.get(self.location) if status == 303 else read(self.last.text)

    @property
    def location(self) -> str:
        return self.last.headers["location"]

    async def sign_in(self, name: str = "ada", password: str = PASSWORD, **fields: str) -> Element:
        await self.send("/sign-in", {"name": name, "password": password, **fields})
        page = await self.get(self.location)
        self.csrf = page.one("form", action="/sign-out").fields()["csrf"]
        return page


@dataclass
class Site:
    """A registry that is served."""

    registry: Registry
    shared: Shared
    app: Any

    @asynccontextmanager
    async def browser(self, name: str = "") -> AsyncIterator[Browser]:
        """Somebody who has signed in by that name, or nobody."""
        source = f"198.51.100.{next(_SOURCES) % 250 + 1}"
        transport = httpx.ASGITransport(self.app, client=(source, 40000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            browser = Browser(client)
            if name:
                await browser.sign_in(name)
            yield browser

    def put(self, name: str, **values: Any) -> Host:
        """Give a host values that no report could bring."""
        pool = self.registry.core.pool
        host = pool.named(name)
        assert host is not None
        host = replace(host, **values)
        pool.put_host(host, self.registry.core.clocks.monotonic())
        return host

    def put_report(self, name: str, **values: Any) -> None:
        """The same for its report, unchecked."""
        host = self.registry.core.pool.named(name)
        assert host is not None
        live = self.registry.core.pool.live[host.id]
        assert live.report is not None
        report = object.__new__(type(live.report))
        report.__dict__.update({**live.report.__dict__, **values})
        live.report = report


@asynccontextmanager
async def site(folder: Path, **options: Any) -> AsyncIterator[Site]:
    """A registry with operators ada (operator) and vera (viewer)."""
    registry = Registry()
    await registry.core.start()
    limits = Limits(sign_ins_a_minute=1000)
    shared = share(registry.core, b"s" * 32, Options(folder, limits=limits, **options), pin=lambda: PIN)
    try:
        await registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)
        await registry.admin.put_operator(SOMEBODY, "vera", PASSWORD, "viewer")
        yield Site(registry, shared, build_app(shared))
    finally:
        shared.end()
        await registry.core.stop()


def with_site(folder: Path, body: Callable[[Site], Awaitable[None]], **options: Any) -> None:
    """Run a test's body."""

    async def run() -> None:
        async with site(folder, **options) as found:
            await body(found)

    asyncio.run(run())


NASTY: Sequence[str] = (
    "<img src=x onerror=alert(1)>",
    "{{7*7}}{% raw %}",
    "\"' onmouseover='alert(1)' x=\"",
    "</script><script>alert(1)</script>",
    "&lt;b&gt; ]]> --> javascript:alert(1)",
)
"""What somebody may write where a word is expected."""
