"""What operators ask for, over HTTP."""

from __future__ import annotations

import base64
from typing import Any

from d1fleet.registry.model import Host
from d1fleet.registry.store import StoreError

from .memory_store import ALDER, BIRCH, SOMEBODY
from .web import ADMIN, PASSWORD, SECRET, URL, Web, refusal, stored_nothing, with_web

WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/projects", {"name": "game", "ranges": ["192.0.2.0/24"]}),
    ("PATCH", "/projects/engine", {"transport": "ssh"}),
    ("DELETE", "/projects/engine?with_hosts=true", None),
    ("POST", "/projects/engine/tokens", {}),
    ("POST", "/projects/engine/tokens/rotate", None),
    ("DELETE", "/projects/engine/tokens/00000000", None),
    ("PATCH", "/hosts/alder", {"address": "192.0.2.99"}),
    ("POST", "/hosts/alder/drain", None),
    ("POST", "/hosts/alder/undrain", None),
    ("POST", "/hosts/alder/expunge", None),
    ("POST", "/hosts/alder/readmit", None),
    ("POST", "/hosts/alder/forget", None),
    ("POST", "/operators", {"name": "bob", "password": "a long enough one"}),
    ("DELETE", "/operators/ada", None),
    ("POST", "/keys", {"kind": "viewer"}),
    ("DELETE", "/keys/00000000", None),
]

READS = [
    "/projects",
    "/projects/engine",
    "/projects/engine/tokens",
    "/hosts",
    "/hosts/alder",
    "/operators",
    "/keys",
    "/audit",
    "/inventory",
    "/events",
]


async def _set_up(web: Web) -> None:
    await web.host()
    await web.registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)


@with_web
async def test_projects(web: Web) -> None:
    operator = await web.operator()
    body = {"name": "engine", "ranges": ["192.0.2.0/24", "2001:db8::/48"], "transport": "ssh"}
    made = await operator.post(f"{ADMIN}/projects", json=body)
    assert made.status_code == 201
    assert made.json() == {
        "name": "engine",
        "ranges": ["192.0.2.0/24", "2001:db8::/48"],
        "options": ["lzo"],
        "transport": "ssh",
        "toolchain_mismatch": "exclude",
        "old_clients": False,
        "created_at": web.registry.core.clocks.wall(),
        "hosts": 0,
        "states": {},
        "peers": 0,
        "slots": 0,
        "old_client_count": 0,
    }
    refusal(await operator.post(f"{ADMIN}/projects", json=body), 409, "exists")
    changed = await operator.patch(f"{ADMIN}/projects/engine", json={"old_clients": True})
    assert changed.json() == {**made.json(), "old_clients": True}
    assert (await operator.get(f"{ADMIN}/projects")).json() == [changed.json()]
    assert (await operator.get(f"{ADMIN}/projects/engine")).json() == changed.json()
    await web.host(slots=7)
    shown = (await operator.get(f"{ADMIN}/projects/engine")).json()
    assert (shown["hosts"], shown["states"], shown["peers"], shown["slots"]) == (1, {"up": 1}, 1, 7)
    error = refusal(await operator.delete(f"{ADMIN}/projects/engine"), 409, "not_empty")
    assert "1 hosts" in error["message"]
    assert (await operator.delete(f"{ADMIN}/projects/engine?with_hosts=true")).status_code == 204
    assert (await operator.get(f"{ADMIN}/projects")).json() == []
    refusal(await operator.get(f"{ADMIN}/projects/engine"), 404, "unknown")


@with_web
async def test_join_tokens(web: Web) -> None:
    operator = await web.operator()
    await operator.post(f"{ADMIN}/projects", json={"name": "engine", "ranges": ["192.0.2.0/24"]})
    path = f"{ADMIN}/projects/engine/tokens"
    made = (await operator.post(path, json={"note": "lab"})).json()
    assert made["token"].startswith(f"d1j_{made['id']}_") and made["note"] == "lab"
    # All that a join command needs.
    assert made["url"] == URL and made["pin"] == "sha256:" + "0" * 64
    listed = (await operator.get(path)).json()
    assert listed == [{name: each for name, each in made.items() if name not in ("token", "url", "pin")}]
    local = await web.client(local=True)
    assert (await local.post(path, json={})).json()["url"] == ""
    await operator.delete(f"{path}/{(await operator.get(path)).json()[1]['id']}")
    rotated = await operator.post(f"{path}/rotate")
    assert rotated.status_code == 201 and rotated.json()["id"] != made["id"]
    assert [each["id"] for each in (await operator.get(path)).json()] == [rotated.json()["id"]]
    assert (await operator.delete(f"{path}/{rotated.json()['id']}")).status_code == 204
    refusal(await operator.delete(f"{path}/{rotated.json()['id']}"), 404, "unknown")
    assert (await operator.get(path)).json() == []
    refusal(await operator.get(f"{ADMIN}/projects/nothing/tokens"), 404, "unknown")


@with_web
async def test_hosts(web: Web) -> None:
    operator = await web.operator()
    alder = await web.host(slots=4, owner="ada", error="it hurts")
    await web.host("birch", BIRCH, serving=False)
    web.registry.time.now_s += 3
    listed = (await operator.get(f"{ADMIN}/hosts?project=engine")).json()
    assert [each["name"] for each in listed] == ["alder", "birch"]
    shown = (await operator.get(f"{ADMIN}/hosts/alder")).json()
    assert shown == listed[0]
    assert (shown["state"], shown["address"], shown["slots"], shown["owner"]) == ("up", ALDER, 4, "ada")
    assert shown["error"] == "it hurts" and shown["notes"] == {} and shown["last_contact_s"] == 4.0
    assert shown["jobs"] == 0 and shown["load_1min"] == 0.0
    assert listed[1]["notes"] == {"engine": "its compile server does not answer"}
    await alder.join("game")
    assert [each["name"] for each in (await operator.get(f"{ADMIN}/hosts?project=game")).json()] == ["alder"]
    refusal(await operator.get(f"{ADMIN}/hosts?project=nothing"), 404, "unknown")
    refusal(await operator.get(f"{ADMIN}/hosts/cedar"), 404, "unknown")
    path = f"{ADMIN}/hosts/alder"
    fixed = (await operator.patch(path, json={"address": "192.0.2.200"})).json()
    assert (fixed["address"], fixed["fixed_address"]) == ("192.0.2.200", "192.0.2.200")
    seen = (await operator.patch(path, json={"address": "", "projects": ["game"]})).json()
    assert (seen["fixed_address"], seen["projects"]) == ("", ["game"])
    for verb, state, field in (
        ("drain", "drained", "drained"),
        ("undrain", "up", "drained"),
        ("expunge", "expunged", "expunged"),
        ("readmit", "gone", "expunged"),
    ):
        answer = await operator.post(f"{path}/{verb}")
        assert answer.status_code == 200
        assert answer.json()["state"] == state
        assert answer.json()[field] == (verb in ("drain", "expunge"))
    assert (await operator.post(f"{path}/forget")).status_code == 204
    refusal(await operator.post(f"{path}/forget"), 404, "unknown")


@with_web
async def test_a_host_that_was_not_heard_of_since_the_start(web: Web) -> None:
    await web.host(jobs=3)
    web.registry.core.pool.live[next(iter(web.registry.core.pool.hosts))].report = None
    web.registry.time.now_s += 100
    shown = (await (await web.operator()).get(f"{ADMIN}/hosts/alder")).json()
    assert shown["jobs"] is None and shown["memory_bytes"] is None and shown["error"] == ""
    assert shown["last_contact_s"] == 100.0


@with_web
async def test_nothing_that_lets_in_is_shown(web: Web) -> None:
    """Digests, hashes, what tells machines apart and sessions never leave the registry."""
    alder = await web.host(machine="c0ffee" + "0" * 58)
    operator = await web.operator()
    token = await web.token()
    await web.registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)
    core = web.registry.core
    host = core.pool.named("alder")
    assert isinstance(host, Host)
    secrets = [
        *(each.digest for each in core.tokens.values()),
        *(each.digest for each in core.keys.values()),
        *(each.password_hash for each in core.operators.values()),
        *(host.machine, host.session, token, web.key, alder.credential, PASSWORD),
    ]
    assert all(len(each) > 8 for each in secrets)
    local = await web.client(local=True)
    for path in [ADMIN + each for each in READS if each != "/events"] + ["/metrics", "/healthz"]:
        for client in (operator, local):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            for secret in secrets:
                assert secret not in answer.text, path


@with_web
async def test_people(web: Web) -> None:
    operator = await web.operator()
    body = {"name": "ada", "password": PASSWORD}
    made = await operator.post(f"{ADMIN}/operators", json=body)
    assert made.status_code == 201 and made.json()["kind"] == "operator"
    assert (await operator.get(f"{ADMIN}/operators")).json() == [made.json()]
    assert (await operator.delete(f"{ADMIN}/operators/ada")).status_code == 204
    refusal(await operator.delete(f"{ADMIN}/operators/ada"), 404, "unknown")
    key = (await operator.post(f"{ADMIN}/keys", json={"kind": "viewer", "note": "prometheus"})).json()
    assert key["key"].startswith(f"d1k_{key['id']}_")
    del key["key"]
    assert key in (await operator.get(f"{ADMIN}/keys")).json()
    assert (await operator.delete(f"{ADMIN}/keys/{key['id']}")).status_code == 204


@with_web
async def test_audit_log(web: Web) -> None:
    operator = await web.operator(source="198.51.100.7")
    await web.host()
    await operator.post(f"{ADMIN}/hosts/alder/drain")
    entries = (await operator.get(f"{ADMIN}/audit?limit=2")).json()
    assert len(entries) == 2
    assert entries[0]["what"] == "drain" and entries[0]["whom"] == "alder"
    assert entries[0]["source"] == "198.51.100.7"
    assert entries[0]["who"] == f"key:{web.key.split('_')[1]}"
    assert entries[1]["what"] == "join" and entries[1]["source"] == ALDER


@with_web
async def test_inventory(web: Web) -> None:
    operator = await web.operator()
    await web.host(owner="ada", version="0.2.0")
    await web.host("birch", BIRCH)
    await web.registry.admin.expunge(SOMEBODY, "birch")
    found = (await operator.get(f"{ADMIN}/inventory")).json()
    assert found["projects"] == {
        "engine": {"transport": "tcp", "options": ["lzo"], "ranges": ["192.0.2.0/24"]}
    }
    assert found["hosts"] == {
        "alder": {
            "address": ALDER,
            "slots": 4,
            "port": 3632,
            "ssh_port": 22,
            "projects": ["engine"],
            "owner": "ada",
            "version": "0.2.0",
            "state": "up",
            "host_keys": ["ssh-ed25519 " + "A" * 40 + "alder"],
        }
    }


@with_web
async def test_nobody_in_particular_is_let_in_nowhere(web: Web) -> None:
    await _set_up(web)
    client = await web.client()
    key = "d1k_00000000_" + "A" * 43
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": "Basic YWRhOmE="}):
        for path in [*(ADMIN + each for each in READS), "/metrics"]:
            refusal(await client.get(path, headers=headers), 401, "key")
        for method, path, body in WRITES:
            with stored_nothing(web):
                answer = await client.request(method, ADMIN + path, json=body, headers=headers)
                refusal(answer, 401, "key")


@with_web
async def test_a_host_is_no_operator(web: Web) -> None:
    await _set_up(web)
    alder = await web.host("cedar", "192.0.2.13")
    token = await web.token()
    for text in (alder.credential, token):
        for path in READS:
            answer = await alder.client.get(ADMIN + path, headers={"Authorization": f"Bearer {text}"})
            refusal(answer, 401, "key")


@with_web
async def test_a_viewer_looks_and_changes_nothing(web: Web) -> None:
    await _set_up(web)
    viewer = await web.operator("viewer")
    for path in [*(ADMIN + each for each in READS if each != "/events"), "/metrics"]:
        assert (await viewer.get(path)).status_code == 200, path
    for method, path, body in WRITES:
        with stored_nothing(web):
            refusal(await viewer.request(method, ADMIN + path, json=body), 403, "viewer")


@with_web
async def test_a_key_that_was_removed(web: Web) -> None:
    operator = await web.operator()
    key = web.key.split("_")[1]
    assert (await operator.delete(f"{ADMIN}/keys/{key}")).status_code == 204
    refusal(await operator.get(f"{ADMIN}/hosts"), 401, "key")


@with_web
async def test_by_the_socket_of_this_machine_everything_may_be_done(web: Web) -> None:
    local = await web.client(local=True)
    body = {"name": "engine", "ranges": ["192.0.2.0/24"]}
    assert (await local.post(f"{ADMIN}/projects", json=body)).status_code == 201
    entry = (await local.get(f"{ADMIN}/audit")).json()[0]
    assert (entry["who"], entry["what"], entry["source"]) == ("socket", "create project", "")
    assert (await local.get("/metrics")).status_code == 200
    # There is no panel, which would show what browsers may see.
    assert (await local.get("/sign-in")).status_code == 404


@with_web
async def test_reading_changes_nothing(web: Web) -> None:
    await _set_up(web)
    operator = await web.operator()
    with stored_nothing(web):
        for path in [*(ADMIN + each for each in READS if each != "/events"), "/healthz", "/metrics"]:
            for method in ("GET", "HEAD"):
                assert (await operator.request(method, path)).status_code == 200, path
        for method, path, _ in WRITES:
            if method == "POST" and path not in READS:
                answer = await operator.get(ADMIN + path)
                assert answer.status_code in (404, 405, 422), path


@with_web
async def test_what_cannot_be_stored_was_not_done(web: Web) -> None:
    await _set_up(web)
    operator = await web.operator()
    token = (await operator.post(f"{ADMIN}/projects/engine/tokens", json={})).json()["id"]
    key = web.key.split("_")[1]
    web.store.fault = StoreError("the database /x has no space left", "free some space")
    before = web.registry.core.snapshot()
    for method, path, body in WRITES:
        path = path.replace("tokens/00000000", f"tokens/{token}").replace("keys/00000000", f"keys/{key}")
        answer = await operator.request(method, ADMIN + path, json=body)
        error = refusal(answer, 503, "database")
        assert error["mend"] == "free some space"
    assert web.registry.core.snapshot() == before
    assert (await operator.get("/healthz")).status_code == 503
    assert (await operator.get("/healthz")).json() == {"status": "degraded"}


@with_web
async def test_a_backup_is_given_by_the_socket_of_this_machine_alone(web: Web) -> None:
    """Whoever has one can speak for every host."""
    await _set_up(web)
    local = await web.client(local=True)
    answer = await local.get(f"{ADMIN}/backup")
    assert answer.status_code == 200
    found = answer.json()
    assert found["secret"] == base64.b64encode(SECRET).decode()
    assert [each["name"] for each in found["hosts"]] == ["alder"]
    assert [each["name"] for each in found["projects"]] == ["engine"]
    assert found["audit"][0]["what"] == "put operator"
    refusal(await (await web.operator()).get(f"{ADMIN}/backup"), 404, "path")
