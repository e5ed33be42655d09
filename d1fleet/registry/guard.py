"""What stands before the application: who asks, how much they may send, and what every answer has.

A plain ASGI application. Requests of hosts go from here straight to what answers them: they come by the
hundred each second, and nothing of FastAPI's is needed for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusals import Refused
from .shared import Shared

log = logging.getLogger("d1fleet.registry.http")

Endpoint = Callable[[Request], Awaitable[Response]]

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not `no-referrer`: then browsers would not say where forms come from, either.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

HSTS = (b"strict-transport-security", b"max-age=86400")
"""It holds for all ports of a host, others' services too: so not for long."""

NO_STORE = (b"cache-control", b"no-store")

_QUIET = frozenset(["/api/v1/checkin", "/api/v1/wait", "/healthz", "/metrics"])
"""Where all is well, these are no news."""

_LONGEST_FORWARDED = 1024

LINGER_S = 1.0
LINGER_BYTES = 1 << 20
"""So long, and so much, of a body that is not wanted is waited for (guesses)."""


class Guard:
    """Stands before an application.

    Args:
        direct: path -> what answers a POST to it.
        local: this is the socket of this machine, where nobody has an address.
    """

    def __init__(
        self, app: ASGIApp, shared: Shared, direct: Mapping[str, Endpoint], local: bool = False
    ) -> None:
        self._app = app
        self._shared = shared
        self._direct = direct
        self._local = local
        self._proxies = [ipaddress.ip_network(each) for each in shared.options.forwarded_from]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # uvicorn is told to take nothing else
        began_s = time.monotonic()
        source = "" if self._local else self._name_source(scope)
        limits = self._shared.gate.limits
        of_hosts = scope["path"] in self._direct
        most = limits.host_body_bytes if of_hosts else limits.operator_body_bytes
        body = _Body(receive, scope, most, limits.body_s)
        answer = _Answer(scope, send, body)
        if scope["method"] == "HEAD":
            # What is asked for is what GET would say; answer leaves its body out.
            scope = {**scope, "method": "GET"}
        try:
            if not source and not self._local:
                raise Refused(400, "source", "nobody can be answered who has gone already")
            direct = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
            if direct is None:
                await self._app(scope, body.receive, answer.send)
            else:
                await self._straight(direct, scope, body.receive, answer.send)
        except Exception as error:
            if answer.status == 0:
                await self._shared.failures.answer(error)(scope, receive, answer.send)
            elif not answer.complete:
                log.error("an answer was broken off", exc_info=error)
        finally:
            self._tell(scope, source, answer.status, time.monotonic() - began_s)

    async def _straight(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await endpoint(Request(scope, receive))
        except Exception as error:
            response = self._shared.failures.answer(error)
        await response(scope, receive, send)

    def _name_source(self, scope: Scope) -> str:
        """Who asks, also behind a proxy that is believed; the application finds it in the scope."""
        client = scope.get("client")
        if not client:
            return ""
        source = _plain_address(client[0])
        if self._proxies and self._is_proxy(source):
            source = self._forwarded(scope, source)
        scope["client"] = (source, client[1])
        return source

    def _forwarded(self, scope: Scope, proxy: str) -> str:
        for name, value in scope["headers"]:
            if name == b"x-forwarded-proto" and value in (b"http", b"https"):
                scope["scheme"] = value.decode()
        chain = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        # Each proxy adds the one who asked it: the first from the right that is no proxy is meant. What
        # stands further to the left can be anybody's invention.
        for part in reversed(chain[-_LONGEST_FORWARDED:].decode("latin-1").split(",")):
            try:
                source = _plain_address(str(ipaddress.ip_address(part.strip())))
            except ValueError:
                return proxy
            if not self._is_proxy(source):
                return source
        return proxy

    def _is_proxy(self, source: str) -> bool:
        address = ipaddress.ip_address(source)
        return any(address in network for network in self._proxies if network.version == address.version)

    def _tell(self, scope: Scope, source: str, status: int, took_s: float) -> None:
        level = logging.INFO
        if status < 400:
            if scope["path"] in _QUIET:
                level = logging.DEBUG
        elif source and not self._shared.gate.may_be_logged(source):
            level = logging.DEBUG
        if log.isEnabledFor(level):
            fields = {
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "source": source,
                "took_s": round(took_s, 4),
            }
            log.log(level, "request", extra=fields)


def _plain_address(text: str) -> str:
    """Without the interface, and IPv4 as IPv4: a socket of both versions shows it as IPv6."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class _Body:
    """A body, bounded in size and in time, whoever reads it."""

    def __init__(self, receive: Receive, scope: Scope, most_bytes: int, limit_s: float) -> None:
        self._receive = receive
        self._most_bytes = most_bytes
        self._limit_s = limit_s
        self._until_s = 0.0
        self._bytes = 0
        self._announced_bytes = 0
        self.whole = True
        """Nothing of it is left to be read."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value != b"0":
                self.whole = False
                # A longer number is none that could be read in time.
                self._announced_bytes = int(value) if value.isdigit() and len(value) < 20 else 1 << 62
            elif name == b"transfer-encoding":
                self.whole = False

    async def receive(self) -> Message:
        """Raises:
        Refused: it is too large, or comes too slowly.
        """
        if self.whole:
            return await self._receive()  # that they are gone
        self._check(self._announced_bytes)
        self._until_s = self._until_s or asyncio.get_running_loop().time() + self._limit_s
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            raise Refused(
                408, "slow", f"the body was not there within {self._limit_s:g} s", "try again"
            ) from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._check(self._bytes)
            self.whole = not message.get("more_body", False)
        return message

    def _check(self, count: int) -> None:
        if count > self._most_bytes:
            raise Refused(413, "too_large", f"a body may have {self._most_bytes} bytes here")

    async def linger(self) -> None:
        """Let what is under way arrive, and forget it: a connection that is closed before would be reset, and
        the answer lost.
        """
        count = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.whole and count < LINGER_BYTES:
                    message = await self._receive()
                    count += len(message.get("body", b""))
                    self.whole = not message.get("more_body", False)


class _Answer:
    """Adds to an answer what all have."""

    def __init__(self, scope: Scope, send: Send, body: _Body) -> None:
        self._send = send
        self._scope = scope
        self._is_head = scope["method"] == "HEAD"
        self._body = body
        self._closes = False
        self.status = 0
        """0 as long as there is none."""
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # What is not read of a request could be taken for the next one.
            self._closes = not self._body.whole
            await self._send({**message, "headers": self._headers(message.get("headers", ()))})
            if self._is_head:
                await self._end(b"")
        elif not self._is_head:
            if message.get("more_body", False):
                await self._send(message)
            else:
                await self._end(message.get("body", b""))

    async def _end(self, body: bytes) -> None:
        if self._closes and self.status != 408:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._body.linger()
            body = b""
        self.complete = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        names = {name.lower() for name, _ in given}
        headers = [*given, *(each for each in HEADERS if each[0] not in names)]
        if NO_STORE[0] not in names:
            headers.append(NO_STORE)
        if self._scope["scheme"] == "https":
            headers.append(HSTS)
        if self._closes:
            headers.append((b"connection", b"close"))
        return headers
