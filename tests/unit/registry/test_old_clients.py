"""The plain listener for clients of dyndistcc."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from d1fleet.registry.old_clients import OldClients

from .memory_store import ALDER, BIRCH, CEDAR, RANGES, SOMEBODY
from .web import ADMIN, PATIENT, Web, web_with

GOOD = {"hash": "a1B2" * 8, "project": "engine", "username": "ada", "swVersion": "0.0.6", "threads": "8"}
MANY = replace(PATIENT, old_clients_a_minute=10_000)


async def _client(web: Web, source: str = CEDAR) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(OldClients(web.shared), client=(source, 40000))
    return await web.stack.enter_async_context(
        httpx.AsyncClient(transport=transport, base_url="http://192.0.2.1:33333")
    )


async def _turned_on(web: Web, **settings: Any) -> None:
    await web.registry.admin.create_project(SOMEBODY, "engine", RANGES, old_clients=True, **settings)


@web_with(limits=MANY)
async def test_what_a_client_gets(web: Web) -> None:
    await _turned_on(web)
    await web.host(slots=4)
    client = await _client(web)
    answer = await client.get("/api/checkin", params=GOOD)
    assert answer.status_code == 200
    assert answer.text == f"localhost/8 {ALDER}/4\n"
    assert answer.headers["content-type"] == "text/plain; charset=us-ascii"
    other = await _client(web, BIRCH)
    assert (await other.get("/api/checkin", params={**GOOD, "threads": "2"})).text == (
        f"localhost/2 {ALDER}/4 {CEDAR}/8\n"
    )
    head = await client.head("/api/checkin", params=GOOD)
    assert (head.status_code, head.content) == (200, b"")


@web_with(limits=MANY)
async def test_off_there_is_nothing(web: Web) -> None:
    client = await _client(web)
    assert (await client.get("/api/checkin", params=GOOD)).status_code == 404
    await web.registry.admin.create_project(SOMEBODY, "engine", RANGES)
    assert (await client.get("/api/checkin", params=GOOD)).status_code == 404
    await web.registry.admin.create_project(SOMEBODY, "game", RANGES, old_clients=True)
    # Another project is none of theirs.
    answer = await client.get("/api/checkin", params=GOOD)
    assert answer.status_code == 403 and "engine" in answer.text
    assert (await client.get("/api/checkin", params={**GOOD, "project": "game"})).status_code == 200
    assert web.registry.core.pool.old_clients("engine") == []


@web_with(limits=MANY)
async def test_an_unknown_project_is_one_without_others(web: Web) -> None:
    await _turned_on(web)
    await web.host()
    answer = await (await _client(web)).get("/api/checkin", params={**GOOD, "project": "nothing"})
    assert (answer.status_code, answer.text) == (200, "localhost/8\n")


@web_with(limits=MANY)
async def test_from_elsewhere_nobody_is_taken(web: Web) -> None:
    await _turned_on(web)
    for source in ("198.51.100.1", "127.0.0.1", "::1", "2001:db8::1", "::ffff:198.51.100.1"):
        answer = await (await _client(web, source)).get("/api/checkin", params=GOOD)
        assert answer.status_code == 403, source
    assert web.registry.core.pool.old_clients("engine") == []
    assert (await (await _client(web, f"::ffff:{CEDAR}")).get("/api/checkin", params=GOOD)).status_code == 200


@pytest.mark.parametrize("name", GOOD)
def test_fields(name: str) -> None:
    @web_with(limits=MANY)
    async def run(web: Web) -> None:
        await _turned_on(web)
        client = await _client(web)
        values = [
            "",
            " ",
            "a\nb",
            "a\x00b",
            "алдер",
            "٣",
            "x" * 65,
            "x" * 5000,
            "-1",
            "@evil",
            "#",
            "a b\n",
            "../x",
        ]
        values += ["0", "1025", "99999", "1.5", "+5", "0x10", "5 "] if name == "threads" else []
        values += ["1engine", "a-b", "all/../b"] if name == "project" else []
        values += ["short", "a" * 65, "a!" * 10] if name == "hash" else []
        if name == "username":
            # An owner is for people; what cannot change a line may stand in it.
            values.remove("x" * 65)
        for value in values:
            answer = await client.get("/api/checkin", params={**GOOD, name: value})
            assert answer.status_code == 400, (value, answer.text)
            assert name in answer.text or "query" in answer.text
            assert value.strip() == "" or len(value) < 4 or value not in answer.text
        missing = {each: value for each, value in GOOD.items() if each != name}
        answer = await client.get("/api/checkin", params=missing)
        assert answer.status_code == 400 and name in answer.text
        twice = [*GOOD.items(), (name, GOOD[name])]
        answer = await client.get("/api/checkin", params=urlencode(twice))
        assert answer.status_code == 400 and f"{name}: it is there twice" in answer.text
        assert web.registry.core.pool.old_clients("engine") == []

    run()


@web_with(limits=MANY)
async def test_what_is_unknown(web: Web) -> None:
    await _turned_on(web)
    client = await _client(web)
    for extra in ({"ip": "192.0.2.9"}, {"x" * 50: "1"}, {"a\nb": "1"}):
        answer = await client.get("/api/checkin", params={**GOOD, **extra})
        assert (
            answer.status_code == 400
            and "no such field" in answer.text
            and "\n" not in answer.text.rstrip("\n")
        )
    answer = await client.get("/api/checkin?" + "&".join(f"a{number}=1" for number in range(100)))
    assert answer.status_code == 400


@web_with(limits=MANY)
async def test_nothing_else_is_there(web: Web) -> None:
    """What the old server served, and what the new one does elsewhere."""
    await _turned_on(web)
    await web.host()
    client = await _client(web)
    for path in (
        *(
            "/",
            "/index.html",
            "/api",
            "/api/checkin/",
            "/API/checkin",
            "/api/getAllHosts",
            "/api/getProjectList",
        ),
        *("/api/deleteProject?name=engine", "/api/createProject?name=x", "/api/expungeHost?hash=x"),
        *("/healthz", "/metrics", "/api/v1/checkin", "/api/v1/openapi.json", f"{ADMIN}/hosts", "/sign-in"),
        *("/../etc/passwd", "/..%2f..%2fetc/passwd", "/static/app.css"),
    ):
        answer = await client.get(path)
        assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/plain"), path
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert (await client.request(method, "/api/checkin", params=GOOD)).status_code == 404
    assert [host.name for host in web.registry.core.pool.hosts.values()] == ["alder"]
    assert web.registry.core.pool.old_clients("engine") == []


@web_with(limits=replace(PATIENT, old_clients_a_minute=2))
async def test_who_comes_too_often(web: Web) -> None:
    await _turned_on(web)
    client = await _client(web)
    assert [(await client.get("/api/checkin", params=GOOD)).status_code for _ in range(3)] == [200, 200, 429]
