"""What anybody in the network could do to dyndistcc's server, done to this one: no harm comes of it.

The numbers are those of the attacks in FEATURES, 5.5. The listener for old clients is off; what stays
possible where a project has it on is tested at the end.
"""

from __future__ import annotations

import asyncio
import html
import json
from typing import Any
from urllib.parse import quote

import httpx

from d1fleet.hostsfile import HostsFile, Peer, parse
from d1fleet.registry.credentials import Credentials
from d1fleet.registry.model import Host
from d1fleet.registry.old_clients import OldClients

from .memory_store import ALDER, BIRCH, CEDAR, SOMEBODY, report
from .web import ADMIN, PASSWORD, PATIENT, Call, Web, as_json, refusal, stored_nothing, web_with, with_web

EVIL = "192.0.2.66"
"""An attacker in the project's own network."""

OLD = "/api/checkin?hash=a1b2c3d4e5f6&project=engine&username=eve&swVersion=0.0.6&threads=999"


async def _peers(web: Web, host: Any) -> list[dict[str, Any]]:
    peers: list[dict[str, Any]] = (await host.beat()).json()["projects"]["engine"]["peers"]
    return peers


# 1. Become a compile server for any project


@with_web
async def test_1_nobody_becomes_a_compile_server_without_a_token(web: Web) -> None:
    alder = await web.host()
    stranger = await web.client(EVIL)
    body = {"name": "evil", "report": as_json(report("evil", slots=999))}
    with stored_nothing(web):
        for token in ("", "x", "d1j_", "d1j_00000000_" + "A" * 43, "null", "engine", "*", "' OR 1=1 --"):
            answer = await stranger.post("/api/v1/join", json={**body, "token": token})
            assert answer.status_code in (403, 422)
        real = await web.token()
        web.store.writes.pop()  # that of the token
        web.store.records.popitem()
        for token in (real[:-1], real[:-1] + ("A" if real[-1] != "A" else "B"), real.upper(), real + "\n"):
            answer = await stranger.post("/api/v1/join", json={**body, "token": token})
            assert answer.status_code == 403
        refusal(await stranger.post("/api/v1/join", json=body), 422, "field", "token")
        assert (await stranger.get(OLD)).status_code == 404
    assert [peer["name"] for peer in await _peers(web, alder)] == ["alder"]


@with_web
async def test_1_a_revoked_or_rotated_token_lets_nobody_in(web: Web) -> None:
    token = await web.token()
    await web.registry.admin.rotate_tokens(SOMEBODY, "engine")
    stranger = await web.client(EVIL)
    body = {"token": token, "name": "evil", "report": as_json(report("evil"))}
    refusal(await stranger.post("/api/v1/join", json=body), 403, "token")


@with_web
async def test_1_a_token_is_for_its_own_project(web: Web) -> None:
    await web.host()
    host = await web.host("evil", EVIL)
    await host.join("game")
    assert {each["name"] for each in await _peers(web, host)} == {"alder", "evil"}
    other = await web.client(EVIL)
    token = await web.token("game")
    body = {"token": token, "name": "second", "report": as_json(report("second"))}
    told = (await other.post("/api/v1/join", json=body)).json()
    assert told["all"] == ["game"] and set(told["projects"]) == {"game"}


@with_web
async def test_1_nobody_learns_which_projects_and_hosts_there_are(web: Web) -> None:
    await web.host()
    await web.registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)
    stranger = await web.client(EVIL)
    pairs = [
        ("GET", "/api/getProjectList", "/api/getNothing", None),
        ("GET", f"{ADMIN}/projects/engine", f"{ADMIN}/projects/nothing", None),
        ("GET", f"{ADMIN}/hosts/alder", f"{ADMIN}/hosts/nothing", None),
        ("POST", f"{ADMIN}/hosts/alder/drain", f"{ADMIN}/hosts/nothing/drain", None),
    ]
    for method, there, nowhere, body in pairs:
        one, other = [await stranger.request(method, path, json=body) for path in (there, nowhere)]
        assert (one.status_code, one.text) == (other.status_code, other.text)
    for path in ("/hosts/alder", "/hosts/nothing", "/projects/engine", "/projects/nothing"):
        answer = await stranger.get(path)
        assert (
            answer.status_code == 303
            and answer.headers["location"] == f"/sign-in?next={quote(path, safe='')}"
        )
    for path in ("/", "/healthz", "/sign-in", "/api/v1/openapi.json"):
        text = (await stranger.get(path, follow_redirects=True)).text
        assert "engine" not in text and "alder" not in text and ALDER not in text
    token = "d1j_00000000_" + "A" * 43
    answers = {
        (
            await stranger.post(
                "/api/v1/join", json={"token": token, "name": name, "report": as_json(report())}
            )
        ).text
        for name in ("alder", "engine", "nobody")
    }
    assert len(answers) == 1


# 2. Inject entries into others' hosts files

ENTRIES = [
    "4 @root@evil.example:cmd",
    "8\n@evil",
    "8 #",
    "8/8,lzo evil/64",
    "--randomize",
    "localhost/4 evil/9",
    "$(id)",
    "{{ lookup('pipe', 'id') }}",
    "evil.example",
    "8\u2028evil/1",
]


@with_web
async def test_2_nothing_that_a_host_says_changes_the_meaning_of_a_hosts_file(web: Web) -> None:
    birch = await web.host("birch", BIRCH)
    eve = await web.host("evil", EVIL)
    for text in ENTRIES:
        for field in ("slots", "port", "ssh_port", "version", "machine", "session"):
            with stored_nothing(web):
                body = {"report": {**eve.next(), field: text}, "known": {}}
                answer = await eve.client.post("/api/v1/checkin", json=body, headers=eve.bearer)
                refusal(answer, 422, "field", f"report.{field}")
        for field in ("addresses", "host_keys"):
            with stored_nothing(web):
                several = {"report": {**eve.next(), field: [text]}, "known": {}}
                answer = await eve.client.post("/api/v1/checkin", json=several, headers=eve.bearer)
                assert answer.status_code == 422
        for field in ("system", "owner"):  # for people; some of these could be one
            body = {"report": {**eve.next(), field: text}, "known": {}}
            await eve.client.post("/api/v1/checkin", json=body, headers=eve.bearer)
    token = await web.token()
    for text in ENTRIES:
        joining = {"token": token, "name": text, "report": as_json(report("other"))}
        answer = await eve.client.post("/api/v1/join", json=joining)
        if text == "evil.example":  # a name, as hosts have
            assert answer.status_code == 201
        else:
            refusal(answer, 422, "field", "name")
    await web.registry.admin.forget(SOMEBODY, "evil.example")
    # What peers get are names, addresses and numbers; the file that is made of them has two entries.
    peers = await _peers(web, birch)
    made = HostsFile(4, tuple(Peer(each["name"], each["address"], each["slots"]) for each in peers))
    assert [peer.address for peer in parse(made.text()).peers] == [BIRCH, EVIL]
    for peer in peers:
        assert set(peer) == {
            *("name", "address", "slots", "port", "options", "transport", "ssh_port", "host_keys")
        }
        assert all(isinstance(peer[name], int) for name in ("slots", "port", "ssh_port"))


@with_web
async def test_2_a_host_cannot_say_how_it_is_reached(web: Web) -> None:
    """Transport and options are the project's, an address is the one that it comes from."""
    birch = await web.host("birch", BIRCH)
    eve = await web.host("evil", EVIL, addresses=(CEDAR, "127.0.0.1"))
    for field, value in (("transport", "ssh"), ("options", ["cpp"]), ("address", CEDAR)):
        body = {"report": {**eve.next(), field: value}, "known": {}}
        answer = await eve.client.post("/api/v1/checkin", json=body, headers=eve.bearer)
        refusal(answer, 422, "field", f"report.{field}")
    assert [(peer["address"], peer["transport"]) for peer in await _peers(web, birch)] == [
        (BIRCH, "tcp"),
        (EVIL, "tcp"),
    ]


@with_web
async def test_2_loopback_and_foreign_networks_are_never_handed_out(web: Web) -> None:
    birch = await web.host("birch", BIRCH)
    web.registry.own_addresses = ("127.0.0.1", "::1", "198.51.100.5")
    for number, source in enumerate(
        ("127.0.0.1", "::1", "203.0.113.5", "169.254.0.1", "fe80::1", "::ffff:127.0.0.1")
    ):
        await web.host(f"evil{number}", source, addresses=("127.0.0.1", "::1", "198.51.100.5"))
    answer = (await birch.beat()).json()["projects"]["engine"]
    assert [peer["address"] for peer in answer["peers"]] == [BIRCH]
    assert answer["members"] == [BIRCH]


# 3. Hijack a host


@with_web
async def test_3_who_knows_all_that_is_public_of_a_host_is_not_it(web: Web) -> None:
    alder = await web.host()
    eve = await web.host("evil", EVIL)
    core = web.registry.core
    host = core.pool.named("alder")
    assert isinstance(host, Host)
    before = host
    forged = Credentials(b"e" * 32).issue(host, core.clocks.wall())
    for credential in (host.id, host.name, forged, forged.rpartition(".")[0] + "." + "A" * 43):
        eve.credential, kept = credential, eve.credential
        with stored_nothing(web):
            refusal(await eve.beat(), 401, "credential")
            refusal(await eve.wait({}), 401, "credential")
            answer = await eve.client.post("/api/v1/leave", json={"for_good": True}, headers=eve.bearer)
            refusal(answer, 401, "credential")
        eve.credential = kept
    # By its own credential it is itself, whatever it calls itself; and a name that is taken is taken.
    body: dict[str, Any] = {"token": await web.token(), "name": "alder", "report": eve.next()}
    refusal(await eve.client.post("/api/v1/join", json=body, headers=eve.bearer), 409, "name_taken")
    refusal(await eve.client.post("/api/v1/join", json=body), 409, "name_taken")
    assert core.pool.named("alder") == before
    assert (await alder.beat()).status_code == 200


@with_web
async def test_3_a_stolen_credential_is_noticed_on_another_machine(web: Web) -> None:
    alder = await web.host()
    eve = await web.host("evil", EVIL)
    eve.credential = alder.credential
    with stored_nothing(web):
        refusal(await eve.beat(), 403, "cloned")
    # Also where the other machine is a perfect copy: two sessions are two machines.
    copy = await web.host("copy", CEDAR)
    copy.credential = alder.credential
    copy.report = report("alder")
    codes = []
    for _ in range(4):
        for each in (copy, alder):
            answer = await each.beat()
            codes.append("" if answer.status_code == 200 else answer.json()["error"]["code"])
    assert codes[-1] == codes[-2] == "cloned"
    host = web.registry.core.pool.named("alder")
    assert host is not None and host.cloned


@with_web
async def test_3_a_check_in_that_was_recorded_is_worth_nothing(web: Web) -> None:
    """Replay: by the same session, and by one that has ended."""
    alder = await web.host()
    old = {"report": alder.next(slots=64), "known": {}}
    assert (await alder.client.post("/api/v1/checkin", json=old, headers=alder.bearer)).status_code == 200
    assert (await alder.beat(slots=4)).status_code == 200
    eve = await web.client(EVIL)
    headers = alder.bearer
    refusal(await eve.post("/api/v1/checkin", json=old, headers=headers), 409, "replayed")
    host = web.registry.core.pool.named("alder")
    assert host is not None and (host.slots, host.address) == (4, ALDER)


# 4. Delete projects and hosts by GET, also from any web page


@with_web
async def test_4_a_get_changes_nothing(web: Web) -> None:
    await web.host()
    operator = await web.operator()
    stranger = await web.client(EVIL)
    with stored_nothing(web):
        for path in (
            "/api/deleteProject?name=engine",
            "/api/createProject?name=x",
            "/api/expungeHost?hash=x",
            f"{ADMIN}/projects/engine?_method=DELETE",
            f"{ADMIN}/hosts/alder/expunge",
            f"{ADMIN}/hosts/alder/forget",
            f"{ADMIN}/projects/engine/tokens/rotate",
            "/hosts/alder/expunge",
            "/projects/engine/delete",
        ):
            for client in (operator, stranger):
                for method in ("GET", "HEAD"):
                    answer = await client.request(method, path, headers={"X-HTTP-Method-Override": "DELETE"})
                    assert answer.status_code != 204
    assert web.registry.core.pool.named("alder") is not None


@with_web
async def test_4_another_site_cannot_act_for_who_has_signed_in(web: Web) -> None:
    """A page elsewhere can have a browser send forms and images, with cookies where SameSite did not help."""
    await web.host()
    await web.registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)
    ada = await web.client()
    answer = await ada.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/"})
    assert answer.status_code == 303 and "d1fleet" in ada.cookies
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert (await ada.get(f"{ADMIN}/hosts")).status_code == 200
    paths = [("POST", f"{ADMIN}/hosts/alder/expunge"), ("DELETE", f"{ADMIN}/projects/engine?with_hosts=true")]
    with stored_nothing(web):
        for method, path in paths:
            for headers in (
                {},
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Sec-Fetch-Site": "cross-site"},
                {"X-CSRF-Token": "0" * 64},
            ):
                refusal(await ada.request(method, path, headers=headers), 403, "csrf")
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = await ada.post(
                f"{ADMIN}/projects", content=json.dumps({"name": "x"}), headers={"content-type": kind}
            )
            assert answer.status_code in (403, 415)
    answer = await ada.options(f"{ADMIN}/projects", headers={"Origin": "https://evil.example"})
    assert not {name for name in answer.headers if name.startswith("access-control-")}


# 5. Stored XSS in the panel

SCRIPTS = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "'+alert(1)+'",
    "javascript:alert(1)",
]


@with_web
async def test_5_what_a_host_says_is_text(web: Web) -> None:
    await web.registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)
    eve = await web.host("evil", EVIL)
    for script in SCRIPTS:
        for field in ("owner", "version", "system", "session"):
            body = {"report": {**eve.next(), field: script}, "known": {}}
            answer = await eve.client.post("/api/v1/checkin", json=body, headers=eve.bearer)
            refusal(answer, 422, "field", f"report.{field}")
    ada = await web.client()
    await ada.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/"})
    for script in SCRIPTS:
        # These two are free text.
        assert (await eve.beat(error=script, toolchain={script: script})).status_code == 200
        for path in ("/", "/hosts/evil", "/projects/engine"):
            page = await ada.get(path)
            assert page.status_code == 200 and page.headers["content-type"].startswith("text/html"), path
            if html.escape(script) != script:
                assert script not in page.text, path
            assert "script-src" not in page.headers["content-security-policy"]
        shown = await ada.get(f"{ADMIN}/hosts/evil")
        assert shown.headers["content-type"] == "application/json"
        assert shown.headers["x-content-type-options"] == "nosniff"
    # What was refused is not in an answer either.
    answer = await eve.client.get(f"/<script>alert(1)</script>?{SCRIPTS[0]}")
    assert "script" not in answer.text and answer.headers["content-type"] == "application/json"


@with_web
async def test_5_a_template_in_what_a_host_says_reaches_nobody_as_one(web: Web) -> None:
    eve = await web.host("evil", EVIL)
    for text in ("{{ 7*7 }}", "{% raw %}", "{{ lookup('pipe','id') }}"):
        for field in ("owner", "version", "system"):
            body = {"report": {**eve.next(), field: text}, "known": {}}
            answer = await eve.client.post("/api/v1/checkin", json=body, headers=eve.bearer)
            refusal(answer, 422, "field", f"report.{field}")
        assert (await eve.beat(error=text)).status_code == 200
        found = (await (await web.operator()).get(f"{ADMIN}/inventory")).text
        assert text not in found and "{{" not in found


# 6. Read files of the server


@with_web
async def test_6_no_path_leads_to_a_file(web: Web) -> None:
    stranger = await web.client(EVIL)
    for path in (
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/../../../etc/passwd",
        "/static/..%2f..%2fschema.py",
        "/static/%2e%2e/%2e%2e/model.py",
        "/static/....//....//etc/passwd",
        "/static//etc/passwd",
        "/static/%00",
        "/static/..\\..\\model.py",
        "//etc/passwd",
        "/etc/passwd",
        "/%2fetc%2fpasswd",
        "/secret",
        "/registry.db",
        "/admin.sock",
        f"{ADMIN}/projects/..%2f..%2fsecret",
    ):
        for app in (web.app, OldClients(web.shared)):
            for raw in (path, httpx.URL(path).path):
                call = Call(app, "GET", raw, source=EVIL)
                await call.task
                assert call.sent[0]["status"] in (401, 404, 422), path
                body = b"".join(each.get("body", b"") for each in call.sent[1:])
                assert b"root:" not in body and b"import" not in body
        assert (await stranger.get(path)).status_code in (401, 404, 422)


# 7. Crash it


@with_web
async def test_7_a_check_in_from_loopback_is_answered_once(web: Web) -> None:
    host = await web.host("alder", "127.0.0.1")
    body = json.dumps({"report": host.next(), "known": {}}).encode()
    headers = {**host.bearer, "content-type": "application/json"}
    call = Call(web.app, "POST", "/api/v1/checkin", headers, body, "127.0.0.1")
    await call.task
    assert [each["type"] for each in call.sent] == ["http.response.start", "http.response.body"]


@with_web
async def test_7_whatever_comes_the_service_goes_on(web: Web) -> None:
    stranger = await web.client(EVIL)
    alder = await web.host()
    for path in (
        "/api/v1/join",
        "/api/v1/checkin",
        "/api/v1/wait",
        "/api/v1/leave",
        f"{ADMIN}/projects",
        "/sign-in",
    ):
        for body in (b"", b"\x00" * 1000, b"[" * 60_000, b'{"a":' * 2000, b"\xff" * 1000, b"1e999999", b'""'):
            for kind in (
                "application/json",
                "application/x-www-form-urlencoded",
                "multipart/form-data",
                "x" * 300,
            ):
                headers = {**alder.bearer, "content-type": kind}
                answer = await stranger.post(path, content=body, headers=headers)
                assert 300 <= answer.status_code < 500, (path, body[:20], kind, answer.text)
    assert (await stranger.get("/healthz")).json() == {"status": "ok"}
    assert (await alder.beat()).status_code == 200


@web_with(limits=PATIENT)
async def test_7_what_strangers_send_takes_up_no_room(web: Web) -> None:
    """Nothing that nobody has vouched for is stored, and what is counted of it is bounded."""
    stranger = await web.client(EVIL)
    with stored_nothing(web):
        for number in range(300):
            body = {
                "token": f"d1j_{number:08x}_" + "A" * 43,
                "name": f"h{number}",
                "report": as_json(report()),
            }
            await stranger.post("/api/v1/join", json=body)
            await stranger.get(f"{ADMIN}/hosts/h{number}", headers={"Authorization": f"Bearer {number}"})
            await stranger.get(f"/sign-in?next=/{number}")
    assert web.registry.core.pool.hosts == {} and web.store.entries == []
    assert len(web.gate.counters) < 10


# 8, 10. Man in the middle: TLS, which test_serve and test_options see to. Answers are checked by hosts, too.
# 9. Use every client's distccd: who may connect is told by name, never by network.


@with_web
async def test_9_only_members_are_let_in(web: Web) -> None:
    alder = await web.host()
    await web.host("birch", BIRCH)
    document = (await alder.beat()).json()["projects"]["engine"]
    assert document["members"] == [ALDER, BIRCH]
    operator = await web.operator()
    for ranges in (["0.0.0.0/0"], ["::/0"], ["192.0.2.0/24", "0.0.0.0/1"], ["10.0.0.0/7"]):
        error = refusal(
            await operator.post(f"{ADMIN}/projects", json={"name": "open", "ranges": ranges}),
            422,
            "field",
            "ranges",
        )
        assert "open to the world" in error["message"]


# The same with old clients on: what stays possible, and what does not.


async def _old(web: Web, source: str, query: str = OLD) -> httpx.Response:
    transport = httpx.ASGITransport(OldClients(web.shared), client=(source, 40000))
    async with httpx.AsyncClient(transport=transport, base_url="http://192.0.2.1:33333") as client:
        return await client.get(query)


@with_web
async def test_with_old_clients_what_stays_possible(web: Web) -> None:
    """Anybody in the ranges of that project learns its hosts' addresses, and is let in by them as a client.
    As a peer it is only where the operator has turned the comparison of toolchains off, too.
    """
    await web.registry.admin.create_project(SOMEBODY, "engine", ("192.0.2.0/24",), old_clients=True)
    alder = await web.host()
    assert (await _old(web, EVIL)).text == f"localhost/999 {ALDER}/4\n"
    document = (await alder.beat()).json()["projects"]["engine"]
    assert document["members"] == [ALDER, EVIL]
    assert [peer["name"] for peer in document["peers"]] == ["alder"]
    await web.registry.admin.change_project(SOMEBODY, "engine", toolchain_mismatch="ignore")
    document = (await alder.beat()).json()["projects"]["engine"]
    assert [peer["address"] for peer in document["peers"]] == [ALDER, EVIL]


@with_web
async def test_with_old_clients_what_does_not(web: Web) -> None:
    await web.registry.admin.create_project(
        SOMEBODY, "engine", ("192.0.2.0/24",), old_clients=True, toolchain_mismatch="ignore"
    )
    alder = await web.host()
    await alder.join("game")
    before = (await alder.beat()).json()["projects"]["game"]
    # No other project, no other network, nobody's name, no entry but addresses and numbers.
    for project in ("game", "nothing"):
        answer = await _old(web, EVIL, OLD.replace("engine", project))
        assert ALDER not in answer.text
    for source in ("198.51.100.9", "127.0.0.1", "203.0.113.1"):
        assert (await _old(web, source)).status_code == 403
    for bad in ("threads=8%20@evil:cmd", "threads=8%0A@evil", "threads=%23", "threads=1e3", "threads=-1"):
        assert (await _old(web, EVIL, OLD.replace("threads=999", bad))).status_code == 400
    await _old(web, EVIL, OLD.replace("username=eve", "username=alder"))
    documents = (await alder.beat()).json()["projects"]
    assert documents["game"] == before
    assert {peer["name"] for peer in documents["engine"]["peers"]} == {"alder", "old-client-192.0.2.66"}
    # A hash names nobody: with that of another one it is still the one that it comes from.
    await _old(web, CEDAR)
    peers = (await alder.beat()).json()["projects"]["engine"]["peers"]
    assert {peer["address"] for peer in peers} == {ALDER, EVIL, CEDAR}
    host = web.registry.core.pool.named("alder")
    assert host is not None and host.address == ALDER
    await asyncio.sleep(0)
