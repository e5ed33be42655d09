"""Who asks: sessions of the panel, and what protects them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from d1fleet.registry import access, credentials
from d1fleet.registry.access import COOKIE, SECURE_COOKIE, SESSION_S
from d1fleet.registry.administration import By
from d1fleet.registry.guard import Guard
from d1fleet.registry.reading import form
from d1fleet.registry.refusals import Refused

from .memory_store import SOMEBODY
from .web import ADMIN, PASSWORD, URL, Web, refusal, web_with, with_web

CREATE = f"{ADMIN}/projects"
BODY = {"name": "engine", "ranges": ["192.0.2.0/24"]}


@dataclass
class Person:
    """Somebody with a browser, at a small panel of this test's own."""

    client: httpx.AsyncClient
    csrf: str = ""

    async def sign_in(
        self, name: str = "ada", password: str = PASSWORD, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        answer = await self.client.post(
            "/test/in", data={"name": name, "password": password}, headers=headers or {}
        )
        self.csrf = answer.text if answer.status_code == 200 else ""
        return answer

    async def create(self, name: str = "engine", **headers: str) -> httpx.Response:
        sent = {"X-CSRF-Token": self.csrf, **{each.replace("_", "-"): text for each, text in headers.items()}}
        return await self.client.post(CREATE, json={**BODY, "name": name}, headers=sent)


def _add_panel(web: Web) -> None:
    """Signing in and out, as the panel does it."""
    panel = FastAPI(exception_handlers=web.shared.failures.handlers())
    look = web.shared.access

    async def sign_in(request: Request) -> Response:
        fields = await form(request)
        session = await look.sign_in(request, fields["name"], fields["password"])
        response = Response(session.csrf)
        look.set_cookie(request, response, session)
        return response

    async def sign_out(request: Request) -> Response:
        response = Response("")
        look.sign_out(request, response, (await form(request)).get("csrf", ""))
        return response

    panel.add_route("/test/in", sign_in, ["POST"])
    panel.add_route("/test/out", sign_out, ["POST"])
    whole = web.app

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (panelled if scope["path"].startswith("/test/") else whole)(scope, receive, send)

    panelled = Guard(panel, web.shared, {})
    web.app = app


async def _person(web: Web, source: str = "198.51.100.1", name: str = "ada", **values: Any) -> Person:
    if name not in web.registry.core.operators:
        await web.registry.admin.put_operator(SOMEBODY, name, PASSWORD)
    if isinstance(web.app, Guard):
        _add_panel(web)
    return Person(await web.client(source, **values))


@with_web
async def test_who_has_signed_in_may_do_everything(web: Web) -> None:
    ada = await _person(web)
    answer = await ada.sign_in()
    assert answer.status_code == 200
    assert (await ada.client.get(CREATE)).status_code == 200
    assert (await ada.create()).status_code == 201
    entry = (await ada.client.get(f"{ADMIN}/audit")).json()[0]
    assert (entry["who"], entry["source"]) == ("operator:ada", "198.51.100.1")


@with_web
async def test_the_cookie(web: Web) -> None:
    ada = await _person(web)
    cookie = (await ada.sign_in()).headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        "httponly",
        "samesite=strict",
        "path=/",
        f"max-age={SESSION_S}",
    }
    bob = await _person(web, url="https://registry.example:33333")
    cookie = (await bob.sign_in()).headers["set-cookie"]
    assert cookie.startswith(f"{SECURE_COOKIE}=") and "; Secure" in cookie and "Domain" not in cookie
    for text in (PASSWORD, "argon2", web.registry.core.operators["ada"].password_hash[-20:]):
        assert text not in cookie


@with_web
async def test_a_wrong_password_and_a_wrong_name_look_alike(web: Web) -> None:
    ada = await _person(web)
    wrong = refusal(await ada.sign_in(password="nothing like it"), 403, "sign_in")
    unknown = refusal(await ada.sign_in(name="bob"), 403, "sign_in")
    assert wrong == unknown
    refusal(await ada.client.get(CREATE), 401, "key")


@with_web
async def test_a_session_ends_after_a_day(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    web.registry.time.now_s += SESSION_S - 1
    assert (await ada.client.get(CREATE)).status_code == 200
    web.registry.time.now_s += 2
    refusal(await ada.client.get(CREATE), 401, "key")


@with_web
async def test_a_session_ends_with_its_operator_or_its_password(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    await web.registry.admin.put_operator(SOMEBODY, "ada", PASSWORD)
    # Even the same one, given anew, is another one: whoever does so wants sessions to end.
    refusal(await ada.client.get(CREATE), 401, "key")
    await ada.sign_in()
    assert (await ada.client.get(CREATE)).status_code == 200
    await web.registry.admin.remove_operator(SOMEBODY, "ada")
    refusal(await ada.client.get(CREATE), 401, "key")


@with_web
async def test_a_session_has_the_rights_that_its_operator_has_now(web: Web) -> None:
    await web.registry.admin.put_operator(SOMEBODY, "eve", PASSWORD, "viewer")
    eve = await _person(web, name="eve")
    await eve.sign_in("eve")
    assert (await eve.client.get(CREATE)).status_code == 200
    refusal(await eve.create(), 403, "viewer")


@with_web
async def test_who_has_signed_out_is_out_with_every_copy(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    copy = await web.client()
    copy.cookies.set(COOKIE, ada.client.cookies[COOKIE], domain="registry.example")
    assert (await copy.get(CREATE)).status_code == 200
    refusal(await ada.client.post("/test/out", data={"csrf": "x"}), 403, "csrf")
    assert (await copy.get(CREATE)).status_code == 200
    answer = await ada.client.post("/test/out", data={"csrf": ada.csrf})
    assert answer.status_code == 200 and "Max-Age=0" in answer.headers["set-cookie"]
    refusal(await copy.get(CREATE), 401, "key")
    refusal(await ada.client.get(CREATE), 401, "key")
    # Once more is no mistake.
    assert (await ada.client.post("/test/out", data={"csrf": ""})).status_code == 200


@with_web
async def test_forged_cookies(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    good = ada.client.cookies[COOKIE]
    payload, _, signature = good.rpartition(".")
    other = credentials.Credentials(b"s" * 32)  # the same secret, for another use
    host = await web.host()
    for text in ("", "x", f"{payload}x.{signature}", f"{payload}.{'A' * 43}", payload, good * 20):
        refusal(await ada.client.get(CREATE, headers={"Cookie": f"{COOKIE}={text}"}), 401, "key")
    assert other.read(host.credential)
    refusal(await ada.client.get(CREATE, headers={"Cookie": f"{COOKIE}={host.credential}"}), 401, "key")
    refusal(await ada.client.get(CREATE, headers={"Cookie": f"{SECURE_COOKIE}={good}"}), 401, "key")
    answer = await ada.client.get(CREATE, headers={"Cookie": f"{COOKIE}={good}"})
    assert answer.status_code == 200


@with_web
async def test_a_change_needs_the_token_of_its_session(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    bob = await _person(web, name="bob")
    await bob.sign_in("bob")
    assert ada.csrf != bob.csrf
    good = ada.csrf
    for ada.csrf in ("", "x", bob.csrf, good[:-1], "ü" * 10):
        answer = await ada.client.post(
            CREATE, json=BODY, headers={b"x-csrf-token": ada.csrf.encode("latin-1")}
        )
        refusal(answer, 403, "csrf")
    assert web.registry.core.pool.projects == {}
    ada.csrf = good
    assert (await ada.create()).status_code == 201


@with_web
async def test_other_sites_change_nothing(web: Web) -> None:
    """Even if they had the token."""
    ada = await _person(web)
    await ada.sign_in()
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "http://registry.example"},
        {"Origin": "https://registry.example:33333"},
        {"Origin": "http://registry.example.evil.example:33333"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "\x7f"},
        {"Origin": "http://registry.example:99999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": URL, "Sec-Fetch-Site": "cross-site"},
    ):
        answer = await ada.client.post(CREATE, json=BODY, headers={"X-CSRF-Token": ada.csrf, **headers})
        refusal(answer, 403, "csrf")
        assert web.registry.core.pool.projects == {}
        # Nor can they have somebody signed in as somebody else.
        bob = await _person(web, name="bob")
        refusal(await bob.sign_in("bob", headers=headers), 403, "csrf")


@with_web
async def test_its_own_pages_may(web: Web) -> None:
    ada = await _person(web)
    assert (await ada.sign_in(headers={"Origin": URL, "Sec-Fetch-Site": "same-origin"})).status_code == 200
    assert (await ada.create(Origin=URL, Sec_Fetch_Site="same-origin")).status_code == 201


@web_with(options={"public_url": "https://fleet.example"})
async def test_behind_a_proxy_its_public_address_counts(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    assert (await ada.create(Origin="https://fleet.example")).status_code == 201
    refusal(await ada.create("other", Origin="http://fleet.example"), 403, "csrf")


@with_web
async def test_a_key_needs_no_token(web: Web) -> None:
    """No browser sends it by itself."""
    operator = await web.operator()
    assert (await operator.post(CREATE, json=BODY)).status_code == 201


@with_web
async def test_a_wrong_key_is_not_made_good_by_a_session(web: Web) -> None:
    ada = await _person(web)
    await ada.sign_in()
    refusal(await ada.client.get(CREATE, headers={"Authorization": "Bearer x"}), 401, "key")


@with_web
async def test_passwords_are_looked_at_few_at_a_time(web: Web) -> None:
    ada = await _person(web)
    now, most = 0, 0
    right = asyncio.Event()

    async def slow(name: str, password: str, source: str) -> Any:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await right.wait()
        now -= 1
        raise Refused(403, "sign_in", "no")

    web.shared.administration.sign_in = slow  # type: ignore[method-assign]
    tries = [asyncio.create_task(ada.sign_in()) for _ in range(access.MOST_WAITING_SIGN_INS)]
    while now < web.limits.sign_ins_at_once:
        await asyncio.sleep(0)
    refusal(await ada.sign_in(), 429, "rate")
    right.set()
    assert {(await each).status_code for each in tries} == {403}
    assert most == web.limits.sign_ins_at_once == 2


@web_with(options={"public_url": "https://fleet.example", "listen": "127.0.0.1", "port": 1234})
async def test_its_own_address(web: Web) -> None:
    look = web.shared.access
    assert look.url(_request({"host": "anything"})) == "https://fleet.example"


@web_with(options={"listen": "::1", "port": 1234})
async def test_its_own_address_as_it_was_asked(web: Web) -> None:
    look = web.shared.access
    assert look.url(_request({"host": "fleet.example:8443"})) == "http://fleet.example:8443"
    assert look.url(_request({"host": "[2001:db8::1]:8443"})) == "http://[2001:db8::1]:8443"
    for bad in ("a b", "a/b", "a@b", 'a"><script>', "", "ü", "a:123456"):
        assert look.url(_request({"host": bad})) == "http://[::1]:1234"


def _request(headers: dict[str, str]) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "scheme": "http", "headers": raw, "client": ("192.0.2.1", 1)})


def test_who_signed_in_is_told_of_without_secrets() -> None:
    session = access.Session("i", "ada", "operator", 0.0, "csrf-token", By("operator:ada", True), "cookie")
    assert repr(session) == "<Session of ada>"


@with_web
async def test_the_secret_is_not_shown(web: Web) -> None:
    assert "s" * 32 not in repr(web.shared)
