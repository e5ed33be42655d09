"""What hosts ask for, over HTTP."""

from __future__ import annotations

import asyncio
import json

from d1fleet.registry.store import StoreError

from .memory_store import ALDER, BIRCH, SOMEBODY, report
from .web import Call, Web, as_json, refusal, settled, stored_nothing, until, with_web


@with_web
async def test_a_host_joins_and_is_told_all(web: Web) -> None:
    client = await web.client(ALDER)
    body = {"token": await web.token(), "name": "alder", "report": as_json(report("alder"))}
    answer = await client.post("/api/v1/join", json=body)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    host = web.registry.core.pool.named("alder")
    assert host is not None and host.address == ALDER
    assert told["id"] == host.id and told["name"] == "alder" and told["state"] == "up"
    assert told["all"] == ["engine"]
    assert [peer["name"] for peer in told["projects"]["engine"]["peers"]] == ["alder"]
    assert told["projects"]["engine"]["members"] == [ALDER]
    assert told["beat_s"] == 15.0 and told["gone_after_s"] == 40.0 and told["jitter"] == 0.2
    assert told["epoch"] == web.registry.core.epoch
    assert web.registry.core.credentials.read(told["credential"]).id == host.id


@with_web
async def test_a_host_with_a_credential_joins_a_further_project(web: Web) -> None:
    alder = await web.host()
    await alder.join("game")
    assert alder.answer["all"] == ["engine", "game"]
    body = {"token": await web.token("third"), "name": "birch", "report": alder.next()}
    refusal(await alder.client.post("/api/v1/join", json=body, headers=alder.bearer), 409, "name_taken")


@with_web
async def test_an_empty_header_is_no_host_that_joins_anew(web: Web) -> None:
    client = await web.client(ALDER)
    body = {"token": await web.token(), "name": "alder", "report": as_json(report("alder"))}
    for value in ("", "Bearer", "Bearer ", "Basic YTpi"):
        answer = await client.post("/api/v1/join", json=body, headers={"Authorization": value})
        refusal(answer, 401, "credential")


@with_web
async def test_a_void_token_is_refused_before_anything_is_told(web: Web) -> None:
    await web.host()
    client = await web.client(BIRCH)
    for name in ("alder", "engine", "birch"):
        body = {"token": "d1j_00000000_" + "A" * 43, "name": name, "report": as_json(report(name))}
        with stored_nothing(web):
            error = refusal(await client.post("/api/v1/join", json=body), 403, "token")
        assert "mend" in error and name not in error["message"]


@with_web
async def test_a_check_in_tells_what_is_not_known_yet(web: Web) -> None:
    alder = await web.host()
    birch = await web.host("birch", BIRCH)
    answer = await alder.beat(alder.known())
    assert answer.status_code == 200
    told = answer.json()
    assert [peer["name"] for peer in told["projects"]["engine"]["peers"]] == ["alder", "birch"]
    assert "credential" not in told
    again = await birch.beat({"engine": told["projects"]["engine"]["revision"]})
    assert again.json()["projects"] == {}
    assert again.json()["all"] == ["engine"]


@with_web
async def test_a_host_speaks_for_itself_alone(web: Web) -> None:
    await web.host()
    birch = await web.host("birch", BIRCH)
    pool = web.registry.core.pool
    before = pool.named("alder")
    for extra in ("id", "name", "address", "projects", "machine_id", "state"):
        body = {"report": birch.next(), "known": {}, extra: "alder"}
        answer = await birch.client.post("/api/v1/checkin", json=body, headers=birch.bearer)
        refusal(answer, 422, "field", extra)
    assert (await birch.beat(addresses=(ALDER,), slots=64)).status_code == 200
    assert pool.named("alder") == before
    host = pool.named("birch")
    assert host is not None and (host.address, host.slots) == (BIRCH, 64)


@with_web
async def test_credentials_that_are_void(web: Web) -> None:
    alder = await web.host()
    good = alder.credential
    head, _, signature = good.rpartition(".")
    for text in ("", "x", good[:-1], f"{head}x.{signature}", f"{head}.{'A' * 43}", "ü" * 40, "A" * 9000):
        alder.credential = text
        with stored_nothing(web):
            body = {"report": alder.next(), "known": {}}
            answer = await alder.client.post(
                "/api/v1/checkin", json=body, headers={b"authorization": b"Bearer " + text.encode("latin-1")}
            )
            refusal(answer, 401, "credential")
            assert answer.headers["www-authenticate"] == "Bearer"


@with_web
async def test_without_a_credential_nothing_of_hosts_is_answered(web: Web) -> None:
    client = await web.client(ALDER)
    for name in ("checkin", "wait", "leave"):
        refusal(await client.post(f"/api/v1/{name}", json={}), 401, "credential")
    # An operator's key is no host.
    operator = await web.operator()
    for name, body in (
        ("checkin", {"report": as_json(report()), "known": {}}),
        ("leave", {"for_good": True}),
    ):
        refusal(await operator.post(f"/api/v1/{name}", json=body), 401, "credential")


@with_web
async def test_those_who_were_thrown_out_are_told_so(web: Web) -> None:
    alder = await web.host()
    await web.registry.admin.expunge(SOMEBODY, "alder")
    error = refusal(await alder.beat(), 403, "expunged")
    assert "readmit alder" in error["mend"]
    refusal(await alder.wait({}), 403, "expunged")


@with_web
async def test_a_report_is_taken_once(web: Web) -> None:
    alder = await web.host()
    body = {"report": alder.next(), "known": {}}
    assert (await alder.client.post("/api/v1/checkin", json=body, headers=alder.bearer)).status_code == 200
    slots = web.registry.core.pool.named("alder")
    body["report"]["slots"] = 4000
    again = await alder.client.post("/api/v1/checkin", json=body, headers=alder.bearer)
    refusal(again, 409, "replayed")
    assert web.registry.core.pool.named("alder") == slots


@with_web
async def test_another_host_key_is_pinned(web: Web) -> None:
    alder = await web.host()
    refusal(await alder.beat(host_keys=("ssh-ed25519 " + "B" * 40,)), 409, "host_key")


@with_web
async def test_waiting_ends_with_news(web: Web) -> None:
    alder = await web.host()
    answer = await alder.beat()
    known = {"engine": answer.json()["projects"]["engine"]["revision"]}
    await settled(web)
    waiting = asyncio.create_task(alder.wait(known))
    await until(lambda: web.registry.core.waiters == 1)
    assert not waiting.done()
    await web.host("birch", BIRCH)
    told = (await waiting).json()
    assert [peer["name"] for peer in told["projects"]["engine"]["peers"]] == ["alder", "birch"]
    assert web.registry.core.waiters == 0


@with_web
async def test_who_waits_and_leaves_is_forgotten(web: Web) -> None:
    alder = await web.host()
    known = {"engine": (await alder.beat()).json()["projects"]["engine"]["revision"]}
    await settled(web)
    body = json.dumps({"known": known, "wait_s": 60}).encode()
    headers = {**alder.bearer, "content-type": "application/json"}
    call = Call(web.app, "POST", "/api/v1/wait", headers, body, ALDER)
    await until(lambda: web.registry.core.waiters == 1)
    call.leave()
    await call.task
    assert web.registry.core.waiters == 0


@with_web
async def test_at_the_end_those_who_wait_are_answered(web: Web) -> None:
    alder = await web.host()
    known = {"engine": (await alder.beat()).json()["projects"]["engine"]["revision"]}
    await settled(web)
    waiting = asyncio.create_task(alder.wait(known))
    await until(lambda: web.registry.core.waiters == 1)
    web.shared.end()
    assert (await waiting).status_code == 200
    # Nobody begins to wait any more, either.
    assert (await asyncio.wait_for(alder.wait(known), 10)).status_code == 200


@with_web
async def test_who_is_thrown_out_while_it_waits_is_told_so(web: Web) -> None:
    alder = await web.host()
    known = {"engine": (await alder.beat()).json()["projects"]["engine"]["revision"]}
    await settled(web)
    waiting = asyncio.create_task(alder.wait(known))
    await until(lambda: web.registry.core.waiters == 1)
    await web.registry.admin.expunge(SOMEBODY, "alder")
    refusal(await waiting, 403, "expunged")


@with_web
async def test_a_host_leaves_and_comes_back(web: Web) -> None:
    alder = await web.host()
    answer = await alder.client.post("/api/v1/leave", json={"for_good": False}, headers=alder.bearer)
    assert (answer.status_code, answer.content) == (204, b"")
    host = web.registry.core.pool.named("alder")
    assert host is not None and host.left
    assert (await alder.beat()).json()["state"] == "up"


@with_web
async def test_a_host_leaves_for_good(web: Web) -> None:
    alder = await web.host()
    answer = await alder.client.post("/api/v1/leave", json={"for_good": True}, headers=alder.bearer)
    assert answer.status_code == 204
    assert web.registry.core.pool.named("alder") is None
    refusal(await alder.beat(), 401, "credential")


@with_web
async def test_what_cannot_be_stored_is_not_acknowledged(web: Web) -> None:
    token = await web.token()
    web.store.fault = StoreError("the database /x has no space left", "free some space")
    client = await web.client(ALDER)
    body = {"token": token, "name": "alder", "report": as_json(report("alder"))}
    answer = await client.post("/api/v1/join", json=body)
    error = refusal(answer, 503, "database")
    assert error["mend"] == "free some space" and answer.headers["retry-after"] == "5"
    assert web.registry.core.pool.named("alder") is None


@with_web
async def test_a_check_in_goes_on_without_a_database(web: Web) -> None:
    alder = await web.host()
    web.store.fault = StoreError("the database /x has no space left")
    assert (await alder.beat(slots=7)).status_code == 200


@with_web
async def test_by_the_socket_of_this_machine_a_host_has_no_address(web: Web) -> None:
    web.registry.own_addresses = (BIRCH,)
    client = await web.client(local=True)
    body = {
        "token": await web.token(),
        "name": "birch",
        "report": as_json(report("birch", addresses=(BIRCH,))),
    }
    assert (await client.post("/api/v1/join", json=body)).status_code == 201
    host = web.registry.core.pool.named("birch")
    assert host is not None and host.address == BIRCH
