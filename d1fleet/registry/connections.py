"""Connections: not too many, of nobody too many, and none that only takes up room.

uvicorn would count connections only once TLS has shaken hands; so they are accepted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from .gate import party
from .limits import Limits
from .protocol import HttpProtocol

log = logging.getLogger("d1fleet.registry.http")

BACKLOG = 2048
"""Connections that the kernel keeps until we come to accept them: a fleet comes at once after a restart."""

_GONE = (errno.ECONNABORTED, errno.EPROTO)
"""Whoever wanted to come has gone meanwhile: accept(2). Everything else lasts, as too many open files do."""
_NO_ROOM_S = 0.5
_TLS_END_S = 2.0
"""For a peer to say that TLS ends; most do not."""


class Connections:
    """How many there are, and of whom.

    Args:
        most: at once, of all.
        unbounded: whether an address may have as many as it likes: a proxy that is believed.
        turned_away: called for each that finds no room.
    """

    def __init__(
        self,
        limits: Limits,
        most: int,
        unbounded: Callable[[str], bool] = lambda address: False,
        turned_away: Callable[[], object] = lambda: None,
    ) -> None:
        self.limits = limits
        self._most = most
        self._unbounded = unbounded
        self._turned_away = turned_away
        self._of: Counter[str] = Counter()
        self.count = 0

    def enter(self, source: str) -> Callable[[], None] | None:
        """Let one in; the socket of this machine has the source "".

        Returns:
            What to call, once or more, when it has gone; None where there is no room.
        """
        whom = "" if not source or self._unbounded(source) else party(source)
        full = self.count >= self._most and source != ""
        if full or (whom and self._of[whom] >= self.limits.connections_a_source):
            self._turned_away()
            log.debug("connection turned away", extra={"source": source})
            return None
        self.count += 1
        if whom:
            self._of[whom] += 1
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self.count -= 1
                if whom:
                    self._of[whom] -= 1
                    if not self._of[whom]:
                        del self._of[whom]

        return leave


class Listener:
    """Accepts connections on a socket, until it is closed.

    Args:
        make: a protocol for a connection of that address.
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[tuple[str, int] | None, Callable[[], None]], asyncio.Protocol],
        connections: Connections,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._sock = sock
        self._make = make
        self._connections = connections
        self._tls = tls
        self._taking: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        for each in (self._accepting, *self._taking):
            each.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._accepting, *self._taking, return_exceptions=True)
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as error:
                if error.errno not in _GONE:
                    log.error("no connection can be accepted: %s", error.strerror)
                    await asyncio.sleep(_NO_ROOM_S)
                continue
            source = (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
            leave = self._connections.enter(source[0].partition("%")[0] if source else "")
            if leave is None:
                sock.close()
                continue
            task = loop.create_task(self._take(sock, source, leave))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _take(
        self, sock: socket.socket, source: tuple[str, int] | None, leave: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        times: dict[str, Any] = {}
        if self._tls is not None:
            times = {
                "ssl_handshake_timeout": self._connections.limits.head_s,
                "ssl_shutdown_timeout": _TLS_END_S,
            }
        try:
            sock.setblocking(False)
            if source is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: self._make(source, leave), sock, ssl=self._tls, **times
            )
        except (OSError, asyncio.CancelledError) as error:
            # ssl's errors are of that kind, too: whoever speaks no TLS, or not for long.
            leave()
            sock.close()
            if isinstance(error, asyncio.CancelledError):
                raise


class Server(uvicorn.Server):
    """uvicorn's, on a socket that is open already, and which leaves signals to others."""

    def __init__(
        self,
        config: uvicorn.Config,
        sock: socket.socket,
        connections: Connections,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(config)
        self._sock = sock
        self._connections = connections
        self._tls = tls
        self.begun = asyncio.Event()
        """Set once connections are accepted."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self._sock.listen(BACKLOG)
        self._sock.setblocking(False)
        listener: Any = Listener(self._sock, self._protocol, self._connections, self._tls)
        self.servers = [listener]
        self.started = True
        self.begun.set()

    def _protocol(self, source: tuple[str, int] | None, leave: Callable[[], None]) -> asyncio.Protocol:
        protocol = HttpProtocol(self.config, self.server_state, self.lifespan.state)
        protocol.limits = self._connections.limits
        protocol.source = source
        protocol.leave = leave
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
