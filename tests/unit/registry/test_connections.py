"""Connections over real sockets: how many, how slow, how large their heads may be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from d1fleet.registry import place
from d1fleet.registry.certificate import make_certificate
from d1fleet.registry.connections import Connections, Server
from d1fleet.registry.limits import Limits
from d1fleet.registry.protocol import HttpProtocol

from .web import PATIENT, Web, settled, until, web_with, with_web

QUICK = replace(PATIENT, head_s=0.2, body_s=0.2, idle_s=0.2)
"""Nobody waits for long here."""

CHECKIN = (
    b"POST /api/v1/checkin HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n"
    b"content-type: application/json\r\n"
)


class Running:
    """A server on a port of its own."""

    def __init__(self, server: Server, connections: Connections, port: int) -> None:
        self.server = server
        self.connections = connections
        self.port = port

    async def open(
        self, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "127.0.0.1" if tls else None
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name)

    async def say(self, *parts: bytes, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
        """Send something, and read until the other side closes. (status, body), status 0 for no answer."""
        reader, writer = await self.open(tls)
        try:
            for part in parts:
                writer.write(part)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            return _answer(await asyncio.wait_for(reader.read(), 20))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


def _answer(raw: bytes) -> tuple[int, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head else (0, b"")


@contextlib.asynccontextmanager
async def running(
    web: Web, tls: ssl.SSLContext | None = None, app: Any = None, most: int = 1000
) -> AsyncIterator[Running]:
    sock = place.tcp_socket("127.0.0.1", 0, "the test")
    connections = Connections(web.limits, most, turned_away=web.shared.metrics.turned_away.inc)
    config = uvicorn.Config(
        app or web.app,
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(web.limits.idle_s)),
        timeout_graceful_shutdown=3,
    )
    server = Server(config, sock, connections, tls)
    serving = asyncio.create_task(server.serve())
    await server.begun.wait()
    try:
        yield Running(server, connections, sock.getsockname()[1])
    finally:
        server.should_exit = True
        web.shared.end()
        await asyncio.wait_for(serving, 20)


def _error(body: bytes) -> str:
    found: str = json.loads(body)["error"]["code"]
    return found


@with_web
async def test_what_is_no_http(web: Web) -> None:
    async with running(web) as server:
        for raw in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET \xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
            b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",  # TLS, where there is none
        ):
            status, body = await server.say(raw)
            assert (status, _error(body)) == (400, "request"), raw


@with_web
async def test_heads_that_are_too_large(web: Web) -> None:
    most = web.limits.head_bytes
    async with running(web) as server:
        status, body = await server.say(b"GET /" + b"a" * most + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (status, _error(body)) == (414, "too_large")
        status, body = await server.say(b"GET / HTTP/1.1\r\nhost: x\r\ncookie: " + b"a" * most + b"\r\n\r\n")
        assert (status, _error(body)) == (431, "too_large")
        many = b"".join(b"x-%d: y\r\n" % number for number in range(most // 4))
        status, body = await server.say(b"GET / HTTP/1.1\r\nhost: x\r\n" + many + b"\r\n")
        assert (status, _error(body)) == (431, "too_large")
        # A credential of the longest kind finds room.
        head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
        assert (await server.say(head + b"a" * 8192 + b"\r\n\r\n"))[0] == 200


@web_with(limits=QUICK)
async def test_slow_heads(web: Web) -> None:
    async with running(web) as server:
        for raw in (b"", b"GET /healthz HTTP/1.1\r\nhost:", b"\r\n\r\n\r\n"):
            status, body = await server.say(raw)
            assert (status, _error(body)) == (408, "slow"), raw
        await until(lambda: server.connections.count == 0)


@web_with(limits=QUICK)
async def test_a_head_that_comes_byte_by_byte_for_ever(web: Web) -> None:
    async with running(web) as server:
        reader, writer = await server.open()
        reading = asyncio.create_task(reader.read())
        writer.write(b"GET /")
        while not reading.done():
            writer.write(b"x")
            await asyncio.wait([reading], timeout=0.02)
        status, body = _answer(await reading)
        assert (status, _error(body)) == (408, "slow")
        writer.close()
        await until(lambda: server.connections.count == 0)


@web_with(limits=QUICK)
async def test_slow_bodies(web: Web) -> None:
    async with running(web) as server:
        for raw in (
            CHECKIN + b"content-length: 100\r\n\r\n{",
            CHECKIN + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        ):
            status, body = await server.say(raw)
            assert (status, _error(body)) == (408, "slow")


@web_with(limits=QUICK)
async def test_connections_that_nobody_uses(web: Web) -> None:
    """One that has had an answer and asks nothing more; then one that only sends empty lines."""
    async with running(web) as server:
        request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        assert (await server.say(request))[0] == 200  # `say` ends when the server closes
        reader, writer = await server.open()
        writer.write(request)
        await asyncio.wait_for(reader.readuntil(b'"ok"}'), 20)
        writer.write(b"\r\n")
        assert _answer(await asyncio.wait_for(reader.read(), 20))[0] == 408
        writer.close()
        await until(lambda: server.connections.count == 0)


@with_web
async def test_bodies_that_are_too_large_are_answered(web: Web) -> None:
    """The answer arrives although more was sent than was read."""
    async with running(web) as server:
        size = web.limits.host_body_bytes
        body = b" " * (4 * size)
        status, answer = await server.say(CHECKIN + b"content-length: %d\r\n\r\n" % len(body), body)
        assert (status, _error(answer)) == (413, "too_large")
        pieces = b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(4 * size // 4096))
        status, answer = await server.say(
            CHECKIN + b"transfer-encoding: chunked\r\n\r\n", pieces + b"0\r\n\r\n"
        )
        assert (status, _error(answer)) == (413, "too_large")


@with_web
async def test_what_follows_a_refused_body_is_no_request(web: Web) -> None:
    async with running(web) as server:
        hidden = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        raw = b"POST /api/v1/checkin HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(hidden)
        status, body = await server.say(raw + hidden + hidden)
        assert status == 401 and body.count(b"HTTP/1.1") == 0


@web_with(limits=replace(PATIENT, connections_a_source=3))
async def test_so_many_connections_of_one_address(web: Web) -> None:
    async with running(web) as server:
        opened = [await server.open() for _ in range(3)]
        await until(lambda: server.connections.count == 3)
        reader, writer = await server.open()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        opened.pop()[1].close()
        await until(lambda: server.connections.count == 2)
        assert (await server.say(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))[0] == 200
        assert b"d1fleet_connections_turned_away_total 1.0" in web.shared.metrics.text()
        for _, writer in opened:
            writer.close()


@with_web
async def test_so_many_connections_of_all(web: Web) -> None:
    async with running(web, most=2) as server:
        opened = [await server.open() for _ in range(2)]
        await until(lambda: server.connections.count == 2)
        reader, writer = await server.open()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        for _, each in [*opened, (reader, writer)]:
            each.close()


def test_who_is_counted() -> None:
    connections = Connections(Limits(connections_a_source=1), 100, lambda source: source == "10.0.0.1")
    first = connections.enter("192.0.2.1")
    assert first is not None and connections.enter("192.0.2.1") is None
    assert connections.enter("192.0.2.2") is not None
    first()
    first()  # once is enough
    assert connections.count == 1
    assert connections.enter("192.0.2.1") is not None
    # Proxies, and the socket of this machine.
    assert all(connections.enter("10.0.0.1") and connections.enter("") for _ in range(10))
    six = Connections(Limits(connections_a_source=1), 100)
    assert six.enter("2001:db8::1") is not None and six.enter("2001:db8::2") is None
    full = Connections(Limits(), 1)
    assert full.enter("192.0.2.1") is not None
    assert full.enter("192.0.2.2") is None
    assert full.enter("") is not None  # an operator on this machine gets in


def _tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    file, key = make_certificate(["127.0.0.1"], folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file, key)
    client = ssl.create_default_context(cafile=str(file))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    return server, client


def test_tls(tmp_path: Path) -> None:
    server_side, client_side = _tls(tmp_path)

    @web_with(limits=replace(QUICK, connections_a_source=2))
    async def run(web: Web) -> None:
        async with running(web, server_side) as server:
            request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            assert (await server.say(request, tls=client_side))[0] == 200
            # Whoever does not shake hands is counted, and goes.
            silent = [await server.open() for _ in range(2)]
            await until(lambda: server.connections.count == 2)
            assert await server.say(request) == (0, b"")
            for reader, writer in silent:
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 20) == b""
                writer.close()
            await until(lambda: server.connections.count == 0)
            # Whoever speaks something else, too.
            assert (await server.say(request))[0] == 0
            await until(lambda: server.connections.count == 0)
            assert (await server.say(request, tls=client_side))[0] == 200

    run()


@with_web
async def test_a_host_that_waits_and_goes_is_forgotten(web: Web) -> None:
    alder = await web.host("alder", "192.0.2.11")
    known = {"engine": (await alder.beat()).json()["projects"]["engine"]["revision"]}
    await settled(web)
    async with running(web) as server:
        body = json.dumps({"known": known, "wait_s": 60}).encode()
        reader, writer = await server.open()
        writer.write(
            b"POST /api/v1/wait HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (alder.credential.encode(), len(body))
        )
        writer.write(body)
        await until(lambda: web.registry.core.waiters == 1)
        writer.close()
        await until(lambda: web.registry.core.waiters == 0)
        await until(lambda: server.connections.count == 0)
        assert reader is not None


@with_web
async def test_one_connection_for_many_requests(web: Web) -> None:
    async with running(web) as server:
        reader, writer = await server.open()
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(16) == b'{"status": "ok"}'
        assert server.connections.count == 1
        writer.close()
