"""Server-sent events: what those who look on are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from d1fleet.registry import events
from d1fleet.registry.model import FieldError

from .memory_store import ALDER, BIRCH, SOMEBODY
from .web import ADMIN, Call, Web, until, with_web

EVENTS = f"{ADMIN}/events"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are told of at once."""
    defaults = events.EventStream.__init__.__defaults__
    assert defaults == (events.BEAT_S, events.GATHER_S)
    monkeypatch.setattr(events.EventStream.__init__, "__defaults__", (events.BEAT_S, 0.0))


def _data(message: dict[str, Any]) -> dict[str, Any]:
    """What one event says."""
    assert message["type"] == "http.response.body" and message["more_body"]
    text = message["body"].decode("ascii")
    assert text.startswith("data: ") and text.endswith("\n\n") and text.count("\n") == 2
    found: dict[str, Any] = json.loads(text.removeprefix("data: "))
    return found


async def _stream(web: Web, **headers: str) -> Call:
    await web.operator("viewer")
    call = Call(web.app, "GET", EVENTS, headers or {"authorization": f"Bearer {web.key}"})
    await call.message(0)
    return call


async def _end(call: Call) -> None:
    call.leave()
    await asyncio.wait_for(call.task, 20)


@with_web
async def test_hosts_that_change_are_shown(web: Web) -> None:
    alder = await web.host(owner="ada")
    call = await _stream(web)
    start = call.sent[0]
    assert start["status"] == 200
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers and headers[b"cache-control"] == b"no-store"
    # Whoever begins to look on looks at everything, after that nothing is missed.
    assert _data(await call.message(1)) == {"type": "everything"}
    await alder.beat(slots=9)
    told = _data(await call.message(2))
    assert told["type"] == "hosts" and told["removed"] == []
    (host,) = told["hosts"]
    assert (host["name"], host["slots"], host["state"]) == ("alder", 9, "up")
    shown = (await (await web.operator()).get(f"{ADMIN}/hosts/alder")).json()
    assert host == shown
    await _end(call)


@with_web
async def test_what_changes_at_once_is_one_piece_of_news(web: Web) -> None:
    alder, birch = await web.host(), await web.host("birch", BIRCH)
    call = await _stream(web)
    await call.message(1)
    core = web.registry.core
    core.feed.hosts([next(iter(core.pool.hosts))])
    core.feed.hosts([*core.pool.hosts, "no host any more"])
    told = _data(await call.message(2))
    assert [host["name"] for host in told["hosts"]] == ["alder", "birch"]
    assert told["removed"] == ["no host any more"]
    assert alder and birch
    await _end(call)


@with_web
async def test_hosts_that_go(web: Web) -> None:
    await web.host()
    identity = next(iter(web.registry.core.pool.hosts))
    call = await _stream(web)
    await call.message(1)
    await web.registry.admin.forget(SOMEBODY, "alder")
    seen: list[dict[str, Any]] = []
    while not any(identity in each.get("removed", ()) or each["type"] == "everything" for each in seen):
        seen.append(_data(await call.message(2 + len(seen))))
    await _end(call)


@with_web
async def test_projects_that_change_are_a_reason_to_look_anew(web: Web) -> None:
    call = await _stream(web)
    await call.message(1)
    await web.registry.admin.create_project(SOMEBODY, "engine", ("192.0.2.0/24",))
    assert _data(await call.message(2)) == {"type": "everything"}
    await _end(call)


@with_web
async def test_silence_is_broken_by_a_comment(web: Web) -> None:
    events.EventStream.__init__.__defaults__ = (0.01, 0.0)
    call = await _stream(web)
    await call.message(1)
    assert (await call.message(2))["body"] == b":\n\n"
    await _end(call)


@with_web
async def test_who_has_gone_is_forgotten(web: Web) -> None:
    call = await _stream(web)
    await until(lambda: len(web.registry.core.feed) == 1)
    await _end(call)
    assert len(web.registry.core.feed) == 0


@with_web
async def test_it_ends_with_the_service(web: Web) -> None:
    call = await _stream(web)
    await call.message(1)
    web.shared.end()
    await asyncio.wait_for(call.task, 20)
    assert call.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert len(web.registry.core.feed) == 0
    # And does not begin any more.
    late = Call(web.app, "GET", EVENTS, {"authorization": f"Bearer {web.key}"})
    await asyncio.wait_for(late.task, 20)


@with_web
async def test_who_may_not_look_any_more_is_told_nothing_more(web: Web) -> None:
    alder = await web.host()
    call = await _stream(web)
    await call.message(1)
    await web.registry.admin.remove_key(SOMEBODY, web.key.split("_")[1])
    await alder.beat(slots=9)
    await asyncio.wait_for(call.task, 20)
    assert len(call.sent) == 3 and not call.sent[2]["more_body"]


@with_web
async def test_head_of_a_stream_ends(web: Web) -> None:
    await web.operator("viewer")
    call = Call(web.app, "HEAD", EVENTS, {"authorization": f"Bearer {web.key}"})
    await call.message(1)
    assert call.sent[0]["status"] == 200 and not call.sent[1].get("more_body")
    await _end(call)
    assert len(call.sent) == 2


@with_web
async def test_no_field_can_make_an_event(web: Web) -> None:
    try:
        alder = await web.host(error='x\n\ndata: {"type":"everything"}')
    except FieldError:
        alder = await web.host(error='x\\n\\ndata: {"type":"everything"} \u0085'.replace("\u0085", "é"))
    call = await _stream(web)
    await call.message(1)
    await alder.beat()
    told = _data(await call.message(2))
    assert told["hosts"][0]["error"].startswith("x")
    assert told["hosts"][0]["address"] == ALDER
    await _end(call)
