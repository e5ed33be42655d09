"""Server-sent events: hosts and projects that change, as those who look on are told.

    data: {"type": "everything"}                          first, and whenever projects have changed: look anew
    data: {"type": "hosts", "hosts": [HOST, ...], "removed": [ID, ...]}
    :                                                     a comment, so that nobody takes silence for the end

Changes are gathered: each host is told of at most once a second, however many check in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from . import views
from .core import Core

BEAT_S = 15.0
"""Of comments; proxies give up connections that are silent for a minute."""

GATHER_S = 1.0
"""People see no more than that."""


class EventStream(Response):
    """An answer that goes on until somebody ends it.

    Args:
        may_go_on: whether whoever looks on still may.
        ending: set when the service is about to end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        core: Core,
        may_go_on: Callable[[], bool],
        ending: asyncio.Event,
        beat_s: float = BEAT_S,
        gather_s: float = GATHER_S,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._core = core
        self._may_go_on = may_go_on
        self._ending = ending
        self._beat_s = beat_s
        self._gather_s = gather_s
        self._changed: set[str] = set()
        self._everything = True
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        watching = [
            asyncio.create_task(each) for each in (self._collect(), _gone(receive), self._ending.wait())
        ]
        for each in watching:
            each.add_done_callback(lambda _: self._over.set())
        try:
            # What changes from now on is collected, so that nothing is missed after a first look.
            await asyncio.sleep(0)
            self._news.set()
            while await self._happens() and self._may_go_on():
                await send({"type": "http.response.body", "body": self._told(), "more_body": True})
                await self._rest()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for each in watching:
                each.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _collect(self) -> None:
        async for news in self._core.feed.subscribe():
            self._changed |= news.hosts
            self._everything = self._everything or news.everything
            self._news.set()

    async def _happens(self) -> bool:
        """Wait for news, or so long as nobody should hear nothing; False when it is over."""
        waiting = [asyncio.create_task(each.wait()) for each in (self._news, self._over)]
        await asyncio.wait(waiting, timeout=self._beat_s, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return not self._over.is_set()

    async def _rest(self) -> None:
        await asyncio.wait([over := asyncio.create_task(self._over.wait())], timeout=self._gather_s)
        over.cancel()

    def _told(self) -> bytes:
        changed, everything = self._changed, self._everything
        self._changed, self._everything = set(), False
        self._news.clear()
        if everything:
            return _event({"type": "everything"})
        if not changed:
            return b":\n\n"
        hosts = self._core.pool.hosts
        known = sorted((hosts[each] for each in changed if each in hosts), key=lambda host: host.name)
        return _event(
            {
                "type": "hosts",
                "hosts": views.hosts(self._core, known),
                "removed": sorted(changed - hosts.keys()),
            }
        )


def _event(data: dict[str, object]) -> bytes:
    # JSON has no line breaks of its own, and only ASCII here: no field can make an event.
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
