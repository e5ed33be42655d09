"""Each field of each request: missing, of another type, huge, negative, with control characters, in other
alphabets. All of it is refused, by a message that names the field, and nothing is stored.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from d1fleet.registry import schemas
from d1fleet.registry.service import LONGEST_WAIT_S

from .memory_store import ALDER, SOMEBODY, report
from .web import ADMIN, Web, as_json, refusal, stored_nothing, with_web

REPORT = as_json(
    report("alder", addresses=(ALDER,), version="0.1.0", system="Debian GNU/Linux 12", error="disk is full")
)


@dataclass(frozen=True)
class Request:
    """One kind of request, and a body of it that is all right."""

    name: str
    method: str
    path: str
    body: dict[str, Any]
    optional: tuple[str, ...] = ()
    by_host: bool = False


REQUESTS = [
    Request("join", "POST", "/api/v1/join", {"token": "", "name": "birch", "report": REPORT}),
    Request("checkin", "POST", "/api/v1/checkin", {"report": REPORT, "known": {"engine": "0"}}, by_host=True),
    Request("wait", "POST", "/api/v1/wait", {"known": {"engine": "0"}, "wait_s": 5}, by_host=True),
    Request("leave", "POST", "/api/v1/leave", {"for_good": False}, by_host=True),
    Request(
        "create project",
        "POST",
        f"{ADMIN}/projects",
        {
            "name": "game",
            "ranges": ["192.0.2.0/24"],
            "options": ["lzo"],
            "transport": "tcp",
            "toolchain_mismatch": "ignore",
            "old_clients": True,
        },
        ("options", "transport", "toolchain_mismatch", "old_clients"),
    ),
    Request(
        "change project",
        "PATCH",
        f"{ADMIN}/projects/engine",
        {
            "ranges": ["192.0.2.0/24"],
            "options": ["lzo", "cpp"],
            "transport": "ssh",
            "toolchain_mismatch": "ignore",
            "old_clients": True,
        },
        ("ranges", "options", "transport", "toolchain_mismatch", "old_clients"),
    ),
    Request("create token", "POST", f"{ADMIN}/projects/engine/tokens", {"note": "for the lab"}, ("note",)),
    Request(
        "change host",
        "PATCH",
        f"{ADMIN}/hosts/alder",
        {"projects": ["engine"], "address": "192.0.2.77"},
        ("projects", "address"),
    ),
    Request(
        "put operator",
        "POST",
        f"{ADMIN}/operators",
        {"name": "bob", "password": "a long enough one", "kind": "viewer"},
        ("kind",),
    ),
    Request("create key", "POST", f"{ADMIN}/keys", {"kind": "viewer", "note": "a note"}, ("note",)),
]

TEXTS = ["a\x00b", "a\nb", "a\x1b[31mb", "a\u202eb", "a\u2028b", "\x7f", "x" * 100_000]
OTHER_ALPHABETS = ["алдер", "ålder", "楓", "\uff11", "\uff41lder", "\u0130"]
NUMBERS = [-1, -(10**30), 10**30, 10**400, 1.5, "5", "5\n", "٣", True, None, [], {}]
NOT_TEXTS: list[Any] = [5, 1.5, True, None, [], {}]
NOT_FLAGS: list[Any] = ["true", 1, 0, None, "yes", [], {}]

FREE_TEXTS = ("note", "password", "error", "revision")
"""Texts for people, in whatever alphabet; control characters are refused there, too (but in a password, of
which a digest alone is kept).
"""


def wrong_values(path: tuple[str, ...], good: Any) -> Iterator[Any]:
    """What may not stand in place of a value."""
    name = path[-1]
    if isinstance(good, bool):
        yield from NOT_FLAGS
    elif isinstance(good, int | float):
        numbers = [each for each in NUMBERS if not (isinstance(good, float) and each == 1.5)]
        yield from (each for each in numbers if not (name == "wait_s" and each == 1.5))
    elif isinstance(good, str):
        yield from NOT_TEXTS
        yield from [each for each in TEXTS if name != "password" or len(each) > 1000]
        if name not in FREE_TEXTS:
            yield from OTHER_ALPHABETS
        if name == "password":
            yield "short"
    elif isinstance(good, list):
        yield from [
            "x",
            5,
            None,
            {},
            True,
            [5],
            [None],
            [[]],
            ["a\nb"],
            ["x" * 100_000],
            ["楓"],
            ["x"] * 1000,
        ]
    elif name == "report":
        yield from ["x", 5, None, [], True]
    elif name == "toolchain":
        yield from ["x", 5, None, [], {"cc": 5}, {"cc": None}, {"cc": "a\nb"}, {"c\nc": "x"}, {"": "x"}]
        yield from [{"cc": "x" * 1000}, {"c" * 1000: "x"}, {f"c{number}": "x" for number in range(1000)}]
    elif name == "known":
        yield from ["x", 5, None, [], {"engine": 5}, {"engine": None}, {"": "x"}, {"a\nb": "x"}, {"楓": "x"}]
        yield from [{"engine": "x" * 1000}, {"e" * 1000: "x"}, {f"e{number}": "x" for number in range(1000)}]
    else:
        raise AssertionError(path)


def fields(body: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in body.items():
        yield (*above, name), value
        if name == "report":
            yield from fields(value, (*above, name))


def changed(body: dict[str, Any], path: tuple[str, ...], value: Any = ...) -> dict[str, Any]:
    """A body with another value at a place, or (...) without it."""
    found = copy.deepcopy(body)
    at = found
    for each in path[:-1]:
        at = at[each]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return found


Send = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


async def sender(web: Web, request: Request) -> tuple[Send, dict[str, Any]]:
    """What sends a body, and one that would be taken."""
    alder = await web.host()
    body = copy.deepcopy(request.body)
    if request.name == "join":
        body["token"] = await web.token()
    if request.by_host:
        client, headers = alder.client, alder.bearer
        if "report" in body:
            # Of the same machine; it would be the next one.
            body["report"] = {**alder.next(), **{name: REPORT[name] for name in ("addresses", "error")}}
    else:
        client, headers = await web.operator(), {}
        if request.name == "join":
            client = await web.client("192.0.2.12")
            body["report"]["machine"] = "b" * 64

    async def send(each: dict[str, Any]) -> httpx.Response:
        # Not by httpx, which would not write all of it; ASCII alone, as any client may.
        return await client.request(
            request.method,
            request.path,
            content=json.dumps(each).encode(),
            headers={**headers, "content-type": "application/json"},
        )

    return send, body


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_wrong_fields(request_: Request) -> None:
    @with_web
    async def run(web: Web) -> None:
        send, body = await sender(web, request_)
        tried = 0
        for path, good in fields(body):
            name = ".".join(path)
            if path[-1] not in request_.optional:
                with stored_nothing(web):
                    refusal(await send(changed(body, path)), 422, "field", name)
            for wrong in wrong_values(path, good):
                with stored_nothing(web):
                    answer = await send(changed(body, path, wrong))
                _names(answer, name, wrong)
                tried += 1
            with stored_nothing(web):
                answer = await send(changed(body, (*path[:-1], "x\n\u202e"), 1))
            refusal(answer, 422, "field", ".".join((*path[:-1], "x??")))
        # All that was said before is because of those values alone.
        answer = await send(body)
        assert answer.status_code in (200, 201, 204), (tried, answer.text)

    run()


def _names(answer: httpx.Response, name: str, wrong: Any) -> None:
    """It is a refusal that names the field, or an element of it, and does not repeat what was sent."""
    if answer.status_code == 413:
        # Larger than any body may be; there is no field of it then.
        refusal(answer, 413, "too_large")
        return
    if name == "token" and answer.status_code == 403:
        # A text that could be one, and is none.
        refusal(answer, 403, "token")
        return
    field = answer.json()["error"].get("field", "")
    assert field == name or field.startswith(f"{name}."), (name, wrong, answer.text)
    error = refusal(answer, 422, "field", field)
    for text in (*TEXTS, *OTHER_ALPHABETS):
        assert text not in error["message"]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_bodies_that_are_none(request_: Request) -> None:
    @with_web
    async def run(web: Web) -> None:
        alder = await web.host()
        client = alder.client if request_.by_host else await web.operator()
        headers = alder.bearer if request_.by_host else {}

        async def send(content: bytes, kind: str = "application/json") -> httpx.Response:
            with stored_nothing(web):
                return await client.request(
                    request_.method, request_.path, content=content, headers={**headers, "content-type": kind}
                )

        for content in (b"", b"{", b"\xff\xfe", b"nul", b'{"a":"\\ud800"}', b"[" * 10_000, b"{} {}", b"NaN,"):
            refusal(await send(content), 400, "json")
        for content in (b"[]", b"null", b'"x"', b"5", b"NaN"):
            refusal(await send(content), 422, "field")
        good = json.dumps(request_.body).encode()
        for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x" * 500):
            refusal(await send(good, kind), 415, "content_type")

    run()


@with_web
async def test_numbers_that_json_does_not_know(web: Web) -> None:
    alder = await web.host()
    for text in (b"NaN", b"Infinity", b"-Infinity", b"1e400"):
        raw = json.dumps({"report": alder.next(), "known": {}}).encode()
        raw = raw.replace(b'"load_1min": 0.0', b'"load_1min": ' + text)
        assert text in raw
        answer = await alder.client.post(
            "/api/v1/checkin", content=raw, headers={**alder.bearer, "content-type": "application/json"}
        )
        assert answer.status_code in (400, 422), answer.text
        if answer.status_code == 422:
            refusal(answer, 422, "field", "report.load_1min")


@with_web
async def test_parameters_of_paths_and_queries(web: Web) -> None:
    operator = await web.operator()
    await web.host()
    for path, field in (
        ("/projects/a%0Ab", "project"),
        (f"/projects/{'x' * 64}", "project"),
        ("/projects/1engine", "project"),
        ("/projects/%D0%B0", "project"),
        ("/hosts/a%0Ab", "host"),
        (f"/hosts/{'x' * 101}", "host"),
        ("/hosts/ALDER", "host"),
        ("/audit?limit=0", "limit"),
        ("/audit?limit=-1", "limit"),
        ("/audit?limit=1001", "limit"),
        ("/audit?limit=x", "limit"),
        ("/audit?limit=1%0A2", "limit"),
        (f"/hosts?project={'x' * 64}", "project"),
    ):
        error = refusal(await operator.get(ADMIN + path), 422, "field", field)
        assert "\n" not in error["message"]
    refusal(await operator.delete(f"{ADMIN}/projects/engine?with_hosts=perhaps"), 422, "field", "with_hosts")
    refusal(await operator.delete(f"{ADMIN}/projects/engine/tokens/xyz"), 422, "field", "token")
    refusal(await operator.delete(f"{ADMIN}/keys/0000000G"), 422, "field", "key")
    refusal(await operator.delete(f"{ADMIN}/operators/%C3%A4"), 422, "field", "operator")
    assert web.registry.core.pool.named("alder") is not None


def test_the_table_has_all_requests() -> None:
    assert {request.name.replace(" ", "") for request in REQUESTS} == {
        each.__name__.lower() for each in schemas.REQUESTS
    }
    assert set(REPORT) == set(schemas.ReportBody.model_fields)
    for request in REQUESTS:
        model = next(
            each for each in schemas.REQUESTS if each.__name__.lower() == request.name.replace(" ", "")
        )
        assert set(request.body) == set(model.model_fields), request.name
        wanted = {name for name, field in model.model_fields.items() if field.is_required()}
        assert wanted == set(request.body) - set(request.optional), request.name


@with_web
async def test_bounds_are_where_they_are_said_to_be(web: Web) -> None:
    alder = await web.host()
    operator = await web.operator()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"slots": 4097}, "slots"),
        ({"port": 65536}, "port"),
        ({"sequence": 2**53 + 1}, "sequence"),
        ({"jobs": 1_000_001}, "jobs"),
        ({"memory_bytes": 2**50 + 1}, "memory_bytes"),
        ({"load_1min": 1_000_001}, "load_1min"),
        ({"error": "x" * 401}, "error"),
        ({"owner": "x" * 65}, "owner"),
        ({"host_keys": ["ssh-ed25519 " + "A" * 40] * 9}, "host_keys"),
        ({"addresses": ["192.0.2.1"] * 17}, "addresses"),
        ({"addresses": ["192.0.2.256"]}, "addresses"),
        ({"addresses": ["2001:DB8::1"]}, "addresses"),
    ]
    for values, field in wrong:
        body = {"report": {**alder.next(), **values}, "known": {}}
        answer = await alder.client.post("/api/v1/checkin", json=body, headers=alder.bearer)
        refusal(answer, 422, "field", f"report.{field}")
    refusal(await alder.wait({}, LONGEST_WAIT_S + 1), 422, "field", "wait_s")
    refusal(await alder.wait({}, 0.5), 422, "field", "wait_s")
    wrong = [
        ({"name": "all", "ranges": ["192.0.2.0/24"]}, "name"),
        ({"name": "x", "ranges": ["0.0.0.0/0"]}, "ranges"),
        ({"name": "x", "ranges": ["127.0.0.0/8"]}, "ranges"),
        ({"name": "x", "ranges": ["192.0.2.1/24"]}, "ranges"),
        ({"name": "x", "ranges": ["192.0.2.0/24"], "options": ["cpp"]}, "options"),
        ({"name": "x", "ranges": ["192.0.2.0/24"], "options": ["lzo", "lzo"]}, "options"),
    ]
    for values, field in wrong:
        refusal(await operator.post(f"{ADMIN}/projects", json=values), 422, "field", field)
    await web.registry.admin.create_project(SOMEBODY, "game", ("198.51.100.0/24",))
    wrong = [
        ({"address": "203.0.113.1"}, "address"),
        ({"address": "127.0.0.1"}, "address"),
        ({"projects": ["nothing"]}, "projects"),
        ({"projects": ["engine", "engine"]}, "projects"),
        ({"projects": []}, "projects"),
    ]
    for values, field in wrong:
        refusal(await operator.patch(f"{ADMIN}/hosts/alder", json=values), 422, "field", field)
