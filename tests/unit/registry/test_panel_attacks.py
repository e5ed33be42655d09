"""What must not be possible at the panel: changes that nobody meant, and words that are more than words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.routing import Route

from d1fleet.registry import panel
from d1fleet.registry.documents import OldClient
from d1fleet.registry.model import AuditEntry, Key, Token
from tests.unit.registry.htmlpage import Element, read
from tests.unit.registry.memory_store import ALDER, BIRCH, SOMEBODY
from tests.unit.registry.panelsite import ADDRESS, NASTY, PASSWORD, Browser, Site, with_site

FIELDS: dict[str, dict[str, Any]] = {
    "/projects": {
        "name": "tools",
        "ranges": "192.0.2.0/24",
        "transport": "tcp",
        "toolchain_mismatch": "exclude",
    },
    "/projects/{name}/settings": {
        "ranges": "192.0.2.0/24",
        "transport": "ssh",
        "toolchain_mismatch": "ignore",
        "old_clients": "1",
    },
    "/projects/{name}/delete": {"typed": "engine"},
    "/projects/{name}/tokens": {"note": "x"},
    "/hosts/{name}/change": {"projects": ["engine", "spare"], "address": ""},
    "/people/operators": {"name": "eve", "password": PASSWORD, "kind": "operator"},
    "/people/operators/{name}/password": {"password": "another horse battery"},
    "/people/keys": {"note": "", "kind": "operator"},
}
"""What a form sends, by its address; others send nothing but the token."""


def routes(site: Site, method: str) -> list[str]:
    """All addresses of the panel, as patterns."""
    found = [route for route in panel.router(site.shared).routes if isinstance(route, Route)]
    return [route.path for route in found if route.methods and method in route.methods]


def filled(path: str, site: Site) -> str:
    """An address of that pattern, where something is."""
    core = site.registry.core
    if path.startswith("/hosts/"):
        path = path.replace("{name}", "alder")
    elif path.startswith("/people/"):
        path = path.replace("{name}", "vera")
    return (
        path.replace("{name}", "engine")
        .replace("{token}", next(iter(core.tokens), ""))
        .replace("{key}", next(iter(core.keys), ""))
    )


async def furnished(site: Site) -> None:
    """Something of everything."""
    agent = await site.registry.joined("alder", ALDER)
    await agent.beat(error="the disk is full", memory_bytes=1 << 34, disk_free_bytes=1 << 35, jobs=1)
    await site.registry.joined("birch", BIRCH, toolchain={"cc": "gcc 13"})
    await site.registry.admin.create_project(SOMEBODY, "spare", ["192.0.2.0/24"])
    await site.registry.admin.create_key(SOMEBODY, "viewer", "prometheus")


def records(site: Site) -> Any:
    store = site.registry.store
    return dict(store.records), len(store.entries)


def test_there_is_a_form_for_each_change_that_is_tried_below(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        every = set(routes(site, "POST"))
        assert every >= FIELDS.keys()
        assert len(every) >= 18
        # Whatever asks before a change is known as such.
        assert {path for path in routes(site, "GET") if path in every and path != "/sign-in"} == {
            *(path for path in every if path.endswith(panel.QUESTIONS)),
            *panel.FORMS.keys() & every,
        }

    with_site(tmp_path, body)


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, "\u00e9", "another session's"])
def test_nothing_is_changed_without_the_sessions_own_token(tmp_path: Path, csrf: str | None) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("ada") as browser, site.browser("ada") as other:
            sent = other.csrf if csrf == "another session's" else csrf
            before = records(site)
            for path in routes(site, "POST"):
                if path == "/sign-in":
                    continue
                fields = FIELDS.get(path, {}) | ({"x": "y"} if sent is None else {"csrf": sent})
                answer = await browser.send(filled(path, site), fields)
                assert answer.status_code == 403, path
                assert "does not come from a page of this session" in answer.text, path
                assert records(site) == before, path
            assert (await browser.client.get("/")).status_code == 200  # still signed in

    with_site(tmp_path, body)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_nothing_is_changed_by_pages_of_others(tmp_path: Path, headers: dict[str, str]) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("ada") as browser:
            before = records(site)
            for path in routes(site, "POST"):
                fields = FIELDS.get(path, {"name": "ada", "password": PASSWORD})
                fields = {key: value for key, value in fields.items()} | {"csrf": browser.csrf}
                answer = await browser.send(filled(path, site), fields, **headers)
                assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path
                assert records(site) == before, path

    with_site(tmp_path, body)


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("ada") as browser:
            before = records(site)
            for path in {*routes(site, "POST"), *routes(site, "GET")}:
                for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
                    answer = await browser.client.request(
                        method, filled(path, site), params={**FIELDS.get(path, {}), "csrf": browser.csrf}
                    )
                    assert answer.status_code < 500, path
                    assert records(site) == before, (method, path)

    with_site(tmp_path, body)


def test_nobody_sees_or_changes_anything_without_signing_in(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser() as browser:
            before = records(site)
            for path in routes(site, "POST"):
                if path == "/sign-in":
                    continue
                answer = await browser.send(filled(path, site), {**FIELDS.get(path, {}), "csrf": ""})
                assert answer.status_code == 303, path
                assert answer.headers["location"].startswith("/sign-in"), path
                assert records(site) == before, path
            for path in routes(site, "GET"):
                if path.startswith(("/static/", "/sign-in")) or path in panel.FORMS:
                    continue
                answer = await browser.client.get(filled(path, site))
                assert (answer.status_code, answer.content) == (303, b""), path

    with_site(tmp_path, body)


def test_a_viewer_sees_no_buttons_and_changes_nothing(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("vera") as browser:
            before = records(site)
            for path in routes(site, "POST"):
                if path in ("/sign-in", "/sign-out"):
                    continue
                fields = FIELDS.get(path, {}) | {"csrf": browser.csrf}
                answer = await browser.send(filled(path, site), fields)
                assert answer.status_code == 403, path
                assert "may look, and change nothing" in answer.text, path
                assert records(site) == before, path
            for path in ("/", "/projects/engine", "/hosts/alder", "/audit", "/people"):
                page = await browser.get(path)
                assert "viewer" in page.one("header").text
                for form in page.all("form"):
                    assert form.attributes["method"] == "get" or form.attributes["action"] == "/sign-out", (
                        path
                    )
                assert not page.all("a", data_dialog=""), path
            for path in routes(site, "GET"):
                if path in FIELDS or path.rsplit("/", 1)[1] not in (
                    "delete",
                    "rotate",
                    "revoke",
                    "remove",
                    "password",
                ):
                    continue
                await browser.get(filled(path, site), 403)

    with_site(tmp_path, body)


# Words


def furnish_with(site: Site, nasty: str) -> None:
    """Whatever somebody says of himself holds this, as if nothing had been checked before."""
    core = site.registry.core
    now_at = core.clocks.wall()
    site.put(
        "alder",
        owner=nasty,
        system=nasty,
        version=nasty,
        note=nasty,
        address="",
        host_keys=(f"{nasty} AAAA", "ssh-ed25519 " + nasty),
        toolchain={"cc": nasty, nasty: "x"},
    )
    site.put_report("alder", error=nasty, addresses=(nasty,))
    site.put("birch", toolchain={"cc": "gcc 12", nasty: nasty})
    core.tokens["00000000"] = Token("00000000", "engine", "", nasty, now_at)
    core.keys["00000000"] = Key("00000000", "", "viewer", nasty, now_at)
    core.pool.put_old_client(
        OldClient("engine", "192.0.2.77", 2, nasty, nasty, nasty, core.clocks.monotonic())
    )
    site.registry.store.entries.append(AuditEntry(now_at, nasty, nasty, "alder", nasty, nasty))
    core.trouble = nasty


PAGES = ("/", "/projects/engine", "/hosts/alder", "/audit", "/people")
QUESTIONS = (
    "/projects/engine/delete",
    "/projects/engine/tokens/00000000/revoke",
    "/people/keys/00000000/remove",
    "/hosts/alder/expunge",
)


@pytest.mark.parametrize("nasty", NASTY)
def test_words_of_others_are_shown_as_they_are(tmp_path: Path, nasty: str) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("ada") as browser:
            plain = {path: counted(await browser.get(path)) for path in PAGES}
            furnish_with(site, nasty)
            seen = " ".join(nasty.split())
            for path in PAGES:
                page = await browser.get(path)
                assert seen in page.text, path
                looked_at(page, browser.last.text)
                # No element has come that is none of ours, however much of them there is.
                assert counted(page).keys() - plain[path].keys() <= {
                    "section",
                    "ul",
                    "li",
                    "b",
                    "p",
                    "code",
                    "span",
                }
            for path in QUESTIONS:
                page = await browser.get(path)
                looked_at(page, browser.last.text)
            await site.registry.admin.change_project(SOMEBODY, "engine", toolchain_mismatch="ignore")
            looked_at(await browser.get("/projects/engine"), browser.last.text)

    with_site(tmp_path, body)


def counted(page: Element) -> dict[str, int]:
    tags = [each.tag for each in page.all()]
    return {tag: tags.count(tag) for tag in tags}


@pytest.mark.parametrize("nasty", NASTY)
def test_what_is_typed_is_shown_as_it_is(tmp_path: Path, nasty: str) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("ada") as browser:
            for path, fields in FIELDS.items():
                wrong = {name: nasty for name in fields}
                await browser.send(filled(path, site), {**wrong, "csrf": browser.csrf})
                if browser.last.status_code == 303:
                    # A note may hold anything, and so may a password.
                    assert path in ("/projects/{name}/tokens", "/people/operators/{name}/password"), path
                    await browser.get(browser.location)
                assert browser.last.status_code in (200, 422), path
                page = _page(browser)
                looked_at(page, browser.last.text)
            page = await browser.get(
                "/?" + "&".join(f"{name}={_quoted(nasty)}" for name in ("q", "sort", "state"))
            )
            looked_at(page, browser.last.text)
            assert page.one("input", name="q").attributes["value"] == nasty.strip()
            page = await browser.get(
                "/audit?" + "&".join(f"{name}={_quoted(nasty)}" for name in ("q", "what"))
            )
            looked_at(page, browser.last.text)
            name = _quoted(nasty.replace("/", "|"))
            for path in (f"/projects/{name}", f"/hosts/{name}/drain", f"/hosts/{name}"):
                page = _page(await _got(browser, path))
                assert browser.last.status_code == 404
                looked_at(page, browser.last.text)
            async with site.browser() as stranger:
                await stranger.send("/sign-in", {"name": nasty, "password": nasty, "next": nasty})
                page = _page(stranger)
                looked_at(page, stranger.last.text)
                assert page.one("input", name="name").attributes["value"] == nasty

    with_site(tmp_path, body)


def _quoted(text: str) -> str:
    return quote(text, safe="")


async def _got(browser: Browser, path: str) -> Browser:
    browser.last = await browser.client.get(path)
    return browser


def _page(browser: Browser) -> Element:
    return read(browser.last.text)


# Every page


def test_every_page_is_sound_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    """From the overview on, all that can be reached by links: for an operator, and for a viewer."""

    async def body(site: Site) -> None:
        await furnished(site)
        await site.registry.admin.expunge(SOMEBODY, "birch")
        for name, least in (("ada", 25), ("vera", 8)):
            async with site.browser(name) as browser:
                seen: set[str] = set()
                left = {"/"}
                while left:
                    path = left.pop()
                    seen.add(path)
                    page = await browser.get(path)
                    looked_at(page, browser.last.text)
                    left |= set(own_links(page)) - seen
                assert len(seen) >= least, seen

    with_site(tmp_path, body)


def own_links(page: Element) -> Iterable[str]:
    ids = {each.attributes["id"] for each in page.all() if "id" in each.attributes}
    for link in page.all("a"):
        path, _, part = link.attributes["href"].partition("#")
        if not path:
            assert part in ids, f"#{part} leads nowhere"
        elif path.startswith("/"):
            yield path


def looked_at(page: Element, text: str) -> None:
    """What holds for every page."""
    every = page.all()
    ids = [each.attributes["id"] for each in every if "id" in each.attributes]
    assert len(ids) == len(set(ids)), {each for each in ids if ids.count(each) > 1}
    for each in every:
        for name, value in each.attributes.items():
            assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]*", name), (each.tag, name)
            assert not name.startswith("on") and name != "style", (each.tag, name)
            if name in ("href", "src", "action", "formaction"):
                assert re.match(r"(/(?!/)|#)", value) or value == "", (each.tag, value)
            if name in ("aria-labelledby", "aria-describedby", "for"):
                assert set(value.split()) <= set(ids), (each.tag, name, value)
        assert each.tag not in ("style", "img", "iframe", "object", "embed", "base"), each.tag
        if each.tag == "script":
            assert each.attributes == {"type": "module", "src": "/static/panel.js"}
            assert each.text == ""
        if each.tag in ("input", "select", "textarea") and each.attributes.get("type") != "hidden":
            assert "id" in each.attributes, each
            assert page.all("label", for_=each.attributes["id"]), each.attributes
        if each.tag == "table":
            assert each.all("caption")
            assert each.all("th", scope="col")
        if each.tag == "form" and each.attributes["method"] == "post":
            assert "csrf" in each.fields() or each.attributes["action"] == "/sign-in", each.attributes
        if each.tag in ("button", "a", "summary"):
            assert each.text, each
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text.endswith(" · d1fleet registry")
    assert len(page.all("h1")) == 1
    assert page.one("main").attributes["id"] == "main"
    assert page.all("body")[0].all("a")[0].attributes["href"] == "#main"
    assert "Undefined" not in text


def test_every_answer_says_what_browsers_may_do_with_it(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await furnished(site)
        async with site.browser("ada") as browser:
            for path in routes(site, "GET"):
                answer = await browser.client.get(filled(path, site))
                assert answer.headers["content-security-policy"].startswith("default-src 'self'"), path
                assert "unsafe" not in answer.headers["content-security-policy"]
                assert answer.headers["x-content-type-options"] == "nosniff"
                if not path.startswith("/static/"):
                    assert answer.headers["cache-control"] == "no-store", path

    with_site(tmp_path, body)


def test_files_hold_nothing_of_elsewhere() -> None:
    """No script, style or template names another origin, evaluates text, or writes HTML from text."""
    folder = Path(panel.__file__).parent
    for path in [*(folder / "static").iterdir(), *(folder / "templates").iterdir()]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", text
        ), path
        assert "|safe" not in text and "autoescape" not in text and "Markup" not in text, path


def test_an_address_of_elsewhere_is_no_session_of_this_one(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            answer = await browser.client.get("/", headers={"Cookie": "d1fleet=forged"})
            assert answer.status_code in (200, 303)
            browser.client.cookies.clear()
            answer = await browser.client.get("/", headers={"Cookie": "d1fleet=forged"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
            assert ADDRESS not in answer.headers["location"]

    with_site(tmp_path, body)
