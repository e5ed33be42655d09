"""A registry that is served over TCP by a thread of this process, for those who have no loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .test_connections import running
from .web import Web, with_web

T = TypeVar("T")


class InThread:
    """The other thread's registry, and how to have something done there."""

    def __init__(self, web: Web, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.web = web
        self._loop = loop
        self.url = f"http://127.0.0.1:{port}"

    def do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have something done where the registry is."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(60)


@contextmanager
def in_thread() -> Iterator[InThread]:
    """A registry in another thread; it has ended afterwards."""
    ready = threading.Event()
    found: list[InThread] = []
    over: list[Callable[[], object]] = []

    @with_web
    async def run(web: Web) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        async with running(web) as server:
            found.append(InThread(web, loop, server.port))
            over.append(lambda: loop.call_soon_threadsafe(end.set))
            ready.set()
            await end.wait()

    def whole() -> None:
        try:
            run()
        finally:
            ready.set()

    thread = threading.Thread(target=whole)
    thread.start()
    try:
        ready.wait(60)
        yield found[0]
    finally:
        for each in over:
            each()
        thread.join(60)
