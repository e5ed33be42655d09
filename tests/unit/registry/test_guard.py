"""What stands before the application: headers, sizes, times, and who is believed to ask."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import httpx
import pytest

from d1fleet.registry import guard
from d1fleet.registry.app import OPENAPI
from d1fleet.registry.guard import Guard

from .memory_store import ALDER
from .web import ADMIN, PATIENT, Call, Web, refusal, stored_nothing, web_with, with_web

PATHS = ["/healthz", "/metrics", f"{ADMIN}/hosts", "/api/v1/checkin", "/nothing", "/sign-in", OPENAPI, "/"]


def _headers(answer: httpx.Response, tls: bool = False) -> None:
    given = answer.headers
    policy = {each.split()[0]: each.split()[1:] for each in given["content-security-policy"].split("; ")}
    assert policy["default-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == ["'none'"]
    assert policy["form-action"] == ["'self'"]
    assert "unsafe" not in given["content-security-policy"]
    assert given["x-content-type-options"] == "nosniff"
    assert given["x-frame-options"] == "DENY"
    assert given["referrer-policy"] == "same-origin"
    assert ("strict-transport-security" in given) == tls
    assert "server" not in given and "x-powered-by" not in given
    assert len(given.get_list("cache-control")) == 1


@with_web
async def test_headers_that_all_answers_have(web: Web) -> None:
    for tls in (False, True):
        client = await web.client(url="https://registry.example" if tls else "http://registry.example")
        for path in PATHS:
            for method in ("GET", "POST", "HEAD", "PUT", "OPTIONS"):
                _headers(await client.request(method, path), tls)
    answer = await client.get("/healthz")
    assert answer.headers["cache-control"] == "no-store"


@with_web
async def test_head_says_what_get_would(web: Web) -> None:
    operator = await web.operator()
    for path in ("/healthz", f"{ADMIN}/hosts", f"{ADMIN}/hosts/nobody", "/nothing", "/api/v1/checkin"):
        got, head = await operator.get(path), await operator.head(path)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        assert head.headers["content-length"] == str(len(got.content)) != "0"
        assert head.headers["content-type"] == got.headers["content-type"]


@with_web
async def test_paths_and_methods_that_are_not_there(web: Web) -> None:
    client = await web.client()
    for path in (
        "/nothing",
        "/api",
        "/api/v1/",
        "/api/v1/checkin/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/%00",
    ):
        refusal(await client.get(path), 404, "path")
    for path in ("/..%2f..%2fetc/passwd", "/static/..%2f..%2f..%2fsecret", "//etc/passwd", "/static/%2e%2e"):
        assert (await client.get(path)).status_code == 404
    for method, path, allowed in (
        ("GET", "/api/v1/checkin", "POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("PUT", f"{ADMIN}/projects", "GET, HEAD, POST"),
        ("POST", f"{ADMIN}/projects/engine", "DELETE, GET, HEAD, PATCH"),
        ("TRACE", f"{ADMIN}/hosts/alder", "GET, HEAD, PATCH"),
    ):
        answer = await client.request(method, path)
        refusal(answer, 405, "method")
        assert answer.headers["allow"] == allowed


@with_web
async def test_bodies_that_are_too_large(web: Web) -> None:
    alder = await web.host()
    operator = await web.operator()

    async def parts(size: int) -> Any:
        for _ in range(0, size, 1000):
            yield b" " * 1000

    kind = {"content-type": "application/json"}
    host_size, operator_size = web.limits.host_body_bytes, web.limits.operator_body_bytes
    assert (host_size, operator_size) == (65536, 16384)
    cases = [
        *(
            (alder.client, f"/api/v1/{name}", host_size, alder.bearer)
            for name in ("checkin", "wait", "leave")
        ),
        (alder.client, "/api/v1/join", host_size, {}),
        (operator, f"{ADMIN}/projects", operator_size, {}),
        (operator, f"{ADMIN}/operators", operator_size, {}),
    ]
    for client, path, most, headers in cases:
        with stored_nothing(web):
            sent = {**kind, **headers}
            refusal(await client.post(path, content=b" " * (most + 1), headers=sent), 413, "too_large")
            # In pieces, without a length in front.
            answer = await client.post(path, content=parts(most + 2000), headers=sent)
            refusal(answer, 413, "too_large")
            refusal(await client.post(path, content=b" " * most, headers=sent), 400, "json")


@with_web
async def test_a_body_that_is_announced_too_large_is_not_waited_for(web: Web) -> None:
    alder = await web.host()
    for length in ("65537", "99999999999999999999999", "1" * 5000):
        headers = {**alder.bearer, "content-type": "application/json", "content-length": length}
        call = Call(web.app, "POST", "/api/v1/checkin", headers, None, ALDER)
        start = await call.message(0)
        assert start["status"] == 413
        assert (b"connection", b"close") in start["headers"]
        call.leave()
        await call.task


@web_with(limits=replace(PATIENT, body_s=0.05))
async def test_a_body_that_comes_too_slowly(web: Web) -> None:
    alder = await web.host()
    headers = {**alder.bearer, "content-type": "application/json", "content-length": "1000"}
    call = Call(web.app, "POST", "/api/v1/checkin", headers, None, ALDER)
    call.incoming.put_nowait({"type": "http.request", "body": b'{"report"', "more_body": True})
    await asyncio.wait_for(call.task, 20)
    assert call.sent[0]["status"] == 408
    assert (b"connection", b"close") in call.sent[0]["headers"]
    assert json.loads(call.sent[1]["body"])["error"]["code"] == "slow"


@with_web
async def test_who_goes_in_the_middle_of_a_body(web: Web) -> None:
    alder = await web.host()
    headers = {**alder.bearer, "content-type": "application/json", "content-length": "1000"}
    call = Call(web.app, "POST", "/api/v1/checkin", headers, None, ALDER)
    call.incoming.put_nowait({"type": "http.request", "body": b'{"report"', "more_body": True})
    call.leave()
    await asyncio.wait_for(call.task, 20)
    assert web.registry.core.pool.named("alder") is not None


@with_web
async def test_what_is_left_of_a_body_is_let_in_before_the_connection_ends(web: Web) -> None:
    """Else the answer could be lost: a connection that is closed with something unread is reset."""
    headers = {"content-type": "application/json", "content-length": "20"}
    call = Call(web.app, "POST", "/api/v1/checkin", headers, None, ALDER)
    start, first = await call.message(0), await call.message(1)
    assert start["status"] == 401 and first["more_body"]
    call.incoming.put_nowait({"type": "http.request", "body": b" " * 20, "more_body": False})
    await asyncio.wait_for(call.task, 20)
    assert call.sent[2] == {"type": "http.response.body", "body": b"", "more_body": False}


@with_web
async def test_a_mistake_of_ours_says_nothing_outside(web: Web) -> None:
    alder = await web.host()
    operator = await web.operator()

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret of the house")

    web.shared.hosts.check_in = broken  # type: ignore[method-assign]
    web.shared.administration.projects = broken  # type: ignore[method-assign]
    for answer in (await alder.beat(), await operator.get(f"{ADMIN}/projects")):
        error = refusal(answer, 500, "internal")
        assert "secret" not in json.dumps(error)
        _headers(answer)
    assert (await operator.get("/healthz")).status_code == 200


@with_web
async def test_on_tcp_somebody_has_an_address(web: Web) -> None:
    """Without one, it would be taken for the socket of this machine."""
    call = Call(web.app, "GET", "/healthz", source="")
    await call.task
    assert call.sent[0]["status"] == 400


async def _source(web: Web, client: str, **headers: str) -> str:
    """Whom the application believes to ask."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope["client"][0], scope["scheme"]])

    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    await Call(Guard(app, web.shared, {}), "GET", "/", sent, source=client).task
    return " ".join(seen)


@web_with(options={"forwarded_from": ("10.0.0.1/32", "fd00::/64")})
async def test_proxies_are_believed_and_nobody_else(web: Web) -> None:
    assert await _source(web, "192.0.2.1", x_forwarded_for="192.0.2.9") == "192.0.2.1 http"
    assert await _source(web, "192.0.2.1", x_forwarded_proto="https") == "192.0.2.1 http"
    assert await _source(web, "10.0.0.1") == "10.0.0.1 http"
    assert await _source(web, "10.0.0.1", x_forwarded_for="192.0.2.9") == "192.0.2.9 http"
    both = {"x_forwarded_for": "192.0.2.9", "x_forwarded_proto": "https"}
    assert await _source(web, "10.0.0.1", **both) == "192.0.2.9 https"
    assert await _source(web, "fd00::7", **both) == "192.0.2.9 https"
    # What somebody has invented stands to the left of what the proxy has seen.
    assert await _source(web, "10.0.0.1", x_forwarded_for="127.0.0.1, 192.0.2.9") == "192.0.2.9 http"
    assert await _source(web, "10.0.0.1", x_forwarded_for="192.0.2.9, 10.0.0.1") == "192.0.2.9 http"
    assert await _source(web, "10.0.0.1", x_forwarded_for="192.0.2.9, x") == "10.0.0.1 http"
    assert await _source(web, "10.0.0.1", x_forwarded_for="") == "10.0.0.1 http"
    assert await _source(web, "10.0.0.1", x_forwarded_for="2001:DB8::1") == "2001:db8::1 http"
    assert await _source(web, "10.0.0.1", x_forwarded_proto="ftp") == "10.0.0.1 http"


@with_web
async def test_without_proxies_nobody_is_believed(web: Web) -> None:
    for client in ("192.0.2.1", "127.0.0.1", "::1"):
        both = {"x_forwarded_for": "192.0.2.9", "x_forwarded_proto": "https", "forwarded": "for=192.0.2.9"}
        assert await _source(web, client, **both) == f"{client} http"


@with_web
async def test_addresses_as_sockets_show_them(web: Web) -> None:
    assert await _source(web, "::ffff:192.0.2.1") == "192.0.2.1 http"
    assert await _source(web, "fe80::1%eth0") == "fe80::1 http"


def test_requests_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "d1fleet.registry.http")

    @web_with(limits=replace(PATIENT, loud_a_minute=3))
    async def run(web: Web) -> None:
        alder = await web.host()
        operator = await web.operator()
        caplog.clear()
        await alder.beat()
        await operator.get("/healthz")
        assert caplog.records == []  # no news
        await operator.get(f"{ADMIN}/hosts?project=engine&x=secret-of-a-query")
        (record,) = caplog.records
        fields = vars(record)
        assert (fields["method"], fields["path"], fields["status"]) == ("GET", f"{ADMIN}/hosts", 200)
        assert fields["source"] == "198.51.100.1"
        assert "secret" not in json.dumps({name: str(value) for name, value in fields.items()})
        caplog.clear()
        stranger = await web.client("203.0.113.9")
        for _ in range(10):
            await stranger.get("/nothing")
        assert len(caplog.records) == 3  # the disk is everybody's
        caplog.clear()
        await (await web.client("203.0.113.10")).get("/nothing")
        assert len(caplog.records) == 1

    run()


def test_it_waits_for_the_rest_of_a_body_not_for_long() -> None:
    assert guard.LINGER_S <= 2 and guard.LINGER_BYTES <= 1 << 20
