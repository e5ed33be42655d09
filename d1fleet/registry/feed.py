"""News for those who look on, such as the panel: which hosts and projects have changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

MOST_WAITING = 1000
"""Pieces of news for one who does not read them; then it is told to look at everything anew."""


@dataclass(frozen=True)
class News:
    """Ids of hosts that have changed, come or gone; `everything` where that is too much to say."""

    hosts: frozenset[str] = frozenset()
    everything: bool = False


class Feed:
    """Hands news to all who subscribe."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[News | None]] = set()

    def __len__(self) -> int:
        return len(self._queues)

    def hosts(self, changed: Iterable[str]) -> None:
        """These hosts are not as they were."""
        if self._queues:
            self._tell(News(frozenset(changed)))

    def everything(self) -> None:
        """Projects have come or gone."""
        self._tell(News(everything=True))

    def _tell(self, news: News) -> None:
        if not news.hosts and not news.everything:
            return
        for queue in self._queues:
            piece = news
            if queue.qsize() >= MOST_WAITING:
                while not queue.empty():
                    queue.get_nowait()
                piece = News(everything=True)
            queue.put_nowait(piece)

    async def subscribe(self) -> AsyncIterator[News]:
        """What happens from now on, until the feed is closed."""
        queue: asyncio.Queue[News | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while (news := await queue.get()) is not None:
                yield news
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Nothing happens any more."""
        for queue in self._queues:
            queue.put_nowait(None)
