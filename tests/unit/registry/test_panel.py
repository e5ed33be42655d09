"""The panel: each page, and each thing that can be done there, without JavaScript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d1fleet.registry.gate import TooManyError
from d1fleet.registry.storeerrors import StoreError
from tests.unit.registry.htmlpage import Element
from tests.unit.registry.memory_store import ALDER, BIRCH, CEDAR, SOMEBODY, report
from tests.unit.registry.panelsite import PASSWORD, Site, with_site

NEW = {
    "name": "engine",
    "ranges": "192.0.2.0/24",
    "transport": "tcp",
    "toolchain_mismatch": "exclude",
    "lzo": "1",
}


def messages(page: Element) -> str:
    return page.one(id="messages").text


def row(page: Element, name: str) -> Element:
    return page.one("tr", data_host=name)


def cell(row: Element, label: str) -> str:
    return row.one("td", data_label=label).text


def names(page: Element) -> list[str]:
    """Of the hosts that are shown, in their order."""
    return [each.attributes["data-host"] for each in page.all("tr") if "data-host" in each.attributes]


async def tokens(site: Site) -> list[str]:
    return [token.id for token in site.registry.admin.tokens("engine")]


# Signing in and out


def test_who_is_not_signed_in_is_led_to_it_and_back(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"])
        async with site.browser() as browser:
            await browser.client.get("/")
            answer = await browser.client.get("/projects/engine")
            assert (answer.status_code, answer.headers["location"]) == (
                303,
                "/sign-in?next=%2Fprojects%2Fengine",
            )
            page = await browser.get(answer.headers["location"])
            fields = page.one("form", action="/sign-in").fields()
            await browser.send("/sign-in", {**fields, "name": "ada", "password": PASSWORD})
            assert browser.location == "/projects/engine"
            assert "engine" in (await browser.get("/projects/engine")).one("h1").text
            # Who is signed in already, does not do it again.
            assert (await browser.client.get("/sign-in?next=/people")).headers["location"] == "/people"

    with_site(tmp_path, body)


def test_a_wrong_password_is_said_and_the_name_stays(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser() as browser:
            answer = await browser.send("/sign-in", {"name": "ada", "password": "wrong", "next": "/people"})
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
            page = await browser.get("/sign-in?next=/people")
            assert page.one("input", name="next").attributes["value"] == "/people"
            assert "belong together" in answer.text
            assert 'value="ada"' in answer.text
            assert "wrong" not in answer.text

    with_site(tmp_path, body)


@pytest.mark.parametrize(
    "next_page",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/api/v1/admin/hosts",
        "/projects/engine/delete",
        "/hosts/../x",
        "/people\r\nX: y",
        "/sign-out",
    ],
)
def test_it_leads_to_pages_of_the_panel_alone(tmp_path: Path, next_page: str) -> None:
    async def body(site: Site) -> None:
        async with site.browser() as browser:
            await browser.send("/sign-in", {"name": "ada", "password": PASSWORD, "next": next_page})
            assert browser.location == "/"

    with_site(tmp_path, body)


def test_somebody_signs_out(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            cookies = dict(browser.client.cookies)
            page = await browser.post("/sign-out")
            assert "You are signed out" in page.text
            browser.client.cookies.update(cookies)
            assert (await browser.client.get("/")).status_code == 303  # copies of the cookie are void, too

    with_site(tmp_path, body)


def test_who_tries_too_often_is_told_when_to_try_again(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        site.shared.gate.sign_in = _too_many  # type: ignore[method-assign]
        async with site.browser() as browser:
            answer = await browser.send("/sign-in", {"name": "ada", "password": PASSWORD})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
            assert "try again in 7 s" in answer.text

    with_site(tmp_path, body)


def _too_many(source: str) -> None:
    raise TooManyError("attempts", 7)


def test_where_nobody_can_sign_in_it_is_said_how_somebody_can(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser() as browser:
            assert "operator add" not in (await browser.get("/sign-in")).text
            for name in ("ada", "vera"):
                await site.registry.admin.remove_operator(SOMEBODY, name)
            assert "d1fleet registry operator add NAME" in (await browser.get("/sign-in")).text

    with_site(tmp_path, body)


# The overview


def test_an_empty_overview_says_what_to_do_next(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            page = await browser.get("/")
            assert "There is no project yet" in page.text
            assert "open" in page.one("details", id="new").attributes
        async with site.browser("vera") as browser:
            page = await browser.get("/")
            assert "An operator creates one" in page.text

    with_site(tmp_path, body)


def test_a_project_is_created(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            page = await browser.get("/")
            form = page.one("form", action="/projects").fields()
            assert {**NEW, "name": "", "ranges": "", "csrf": browser.csrf} == form
            page = await browser.post(
                "/projects",
                **{**form, "name": "engine", "ranges": "192.0.2.0/24\r\n198.51.100.0/24, 2001:db8::/48"},
            )
            assert page.one("h1").text == "Project engine"
            assert "Project engine is there" in messages(page)
            # It is said once.
            assert messages(await browser.get(str(browser.last.url))) == ""
            project = site.registry.admin.project("engine")
            assert project.ranges == ("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/48")
            assert (project.transport, project.options, project.old_clients) == ("tcp", ("lzo",), False)
            assert site.registry.store.entries[-1].who == "operator:ada"
            assert site.registry.store.entries[-1].source.startswith("198.51.100.")

    with_site(tmp_path, body)


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("name", "1st", "no digit in front"),
        ("name", "", "letters, digits and _"),
        ("name", "all", "means something else"),
        ("ranges", "0.0.0.0/0", "open to the world"),
        ("ranges", "", "name from 1 to 32 networks"),
        ("ranges", "<b>", "Write networks as 192.0.2.0/24"),
        ("transport", "carrier pigeon", "one of tcp, ssh"),
    ],
)
def test_what_is_wrong_is_said_at_the_field_and_what_was_typed_stays(
    tmp_path: Path, field: str, typed: str, said: str
) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            sent = {**NEW, "ranges": "192.0.2.0/24\n198.51.100.0/24", "cpp": "1", field: typed}
            page = await browser.post("/projects", 422, **sent)
            fault = page.one(class_="fault")
            assert fault.attributes["id"] == f"new-{field}-fault"
            assert said in fault.text
            assert not fault.text.startswith(f"{field}:")
            assert "open" in page.one("details", id="new").attributes
            if field != "transport":
                wrong = page.one("form", action="/projects").one(name=field)
                assert wrong.attributes["aria-invalid"] == "true"
                assert fault.attributes["id"] in wrong.attributes["aria-describedby"].split()
                assert page.one("form", action="/projects").fields() == {"csrf": browser.csrf, **sent}
            assert page.one("body").attributes["data-here"] == "/"
            assert not site.registry.admin.projects()

    with_site(tmp_path, body)


def test_a_project_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            await browser.post("/projects", **NEW)
            page = await browser.post("/projects", 409, **NEW)
            assert "there is a project engine already" in page.one("form", action="/projects").text

    with_site(tmp_path, body)


def test_projects_and_hosts_are_shown_as_they_are(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        alder = await site.registry.joined("alder", ALDER, slots=8, owner="grace")
        birch = await site.registry.joined("birch", BIRCH, toolchain={"cc": "gcc 13"})
        await site.registry.joined("cedar", CEDAR)
        await alder.beat(
            jobs=3,
            load_others_cpus=1.25,
            memory_available_bytes=3 << 30,
            memory_bytes=16 << 30,
            disk_free_bytes=200 << 30,
            error="the disk is full",
        )
        await birch.beat()
        async with site.browser("ada") as browser:
            page = await browser.get("/")
            engine = page.one("tr", id="project-engine")
            assert cell(engine, "Hosts up") == "3 of 3"
            assert cell(engine, "Slots") == "12"
            assert cell(engine, "Jobs now") == "3"
            assert cell(engine, "What is wrong") == "1 left out 1 host with an error"
            assert names(page) == ["alder", "birch", "cedar"]
            shown = row(page, "alder")
            assert shown.one("th").text == "aldergrace · Linux"
            assert cell(shown, "State") == "up"
            assert cell(shown, "Address") == ALDER
            assert cell(shown, "Jobs") == "3 of 8"
            assert cell(shown, "Other load") == "1.2 CPUs"
            assert cell(shown, "Memory free") == "3.0 GiBof 16 GiB"
            assert cell(shown, "What is wrong") == "the disk is full"
            assert cell(row(page, "birch"), "State") == "up left out"
            assert "the project has gcc 12" in cell(row(page, "birch"), "What is wrong")
            assert "differs" in cell(row(page, "birch"), "Toolchain")
            page = await browser.get("/projects/engine")
            assert cell(row(page, "alder"), "Disk free") == "200 GiB"
            site.registry.time.now_s += 39
            page = await browser.get("/")
            assert cell(row(page, "alder"), "State") == "suspect"
            assert cell(row(page, "alder"), "Last contact") == "39 s ago"
            site.registry.time.now_s += 2
            site.registry.core.expire()
            page = await browser.get("/")
            assert cell(row(page, "alder"), "State") == "gone"
            assert cell(row(page, "alder"), "Jobs") == "8 slots"  # what it said does not hold any more
            assert cell(page.one("tr", id="project-engine"), "What is wrong") == "3 gone"

    with_site(tmp_path, body)


def test_a_drained_host_that_would_be_left_out_anyway_is_told_of(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        for name, address in (("alder", ALDER), ("birch", BIRCH)):
            await site.registry.joined(name, address)
        await site.registry.joined("cedar", CEDAR, toolchain={"cc": "gcc 13"})
        await site.registry.admin.drain(SOMEBODY, "cedar")
        async with site.browser("vera") as browser:
            page = await browser.get("/?state=trouble")
            assert names(page) == ["cedar"]
            assert cell(row(page, "cedar"), "State") == "drained left out"
            assert "the project has gcc 12" in cell(row(page, "cedar"), "What is wrong")
            assert "do not get it: cc: gcc 13" in (await browser.get("/hosts/cedar")).text

    with_site(tmp_path, body)


def test_hosts_are_found_and_sorted(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        for number, name in enumerate(["alder", "birch", "cedar"]):
            agent = await site.registry.joined(
                name, f"192.0.2.{30 - number}", owner=["ada", "grace", "ada"][number]
            )
            await agent.beat(jobs=[1, 4, 2][number])
        await site.registry.admin.drain(SOMEBODY, "cedar")
        async with site.browser("vera") as browser:
            for query, wanted in (
                ("", ["alder", "birch", "cedar"]),
                ("?q=GRACE", ["birch"]),
                ("?state=drained", ["cedar"]),
                ("?sort=jobs&down=1", ["birch", "cedar", "alder"]),
                ("?sort=address", ["cedar", "birch", "alder"]),
                ("?sort=owner&q=ada", ["alder", "cedar"]),
                ("?page=7", ["alder", "birch", "cedar"]),
                ("?sort=nonsense&state=nonsense&page=-1&down=x", ["alder", "birch", "cedar"]),
            ):
                for path in ("/", "/projects/engine"):
                    assert names(await browser.get(path + query)) == wanted, query
            page = await browser.get("/?q=nobody")
            assert "No host fits" in page.text
            page = await browser.get("/?sort=jobs&q=a")
            head = page.one("th", aria_sort="ascending")
            assert head.text == "Jobs"
            assert head.one("a").attributes["href"] == "/?q=a&sort=jobs&down=1#hosts"
            assert page.one("input", name="q").attributes["value"] == "a"

    with_site(tmp_path, body)


def test_many_hosts_come_in_pages(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        for number in range(101):
            await site.registry.joined(f"h{number:03}", f"192.0.2.{number + 1}")
        async with site.browser("vera") as browser:
            page = await browser.get("/?q=h")
            assert len(names(page)) == 100
            link = page.one("a", id="page-next").attributes["href"]
            assert link == "/?q=h&page=2#hosts"
            page = await browser.get(link)
            assert names(page) == ["h100"]
            assert page.one("a", id="page-before").attributes["href"] == "/?q=h#hosts"

    with_site(tmp_path, body)


# A project


def test_settings_are_changed(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"])
        async with site.browser("ada") as browser:
            page = await browser.get("/projects/engine")
            form = page.one("form", action="/projects/engine/settings").fields()
            assert form["ranges"] == "192.0.2.0/24"
            form.update(transport="ssh", toolchain_mismatch="ignore", old_clients="1", cpp="1")
            page = await browser.post("/projects/engine/settings", **form)
            assert "The settings are saved" in messages(page)
            project = site.registry.admin.project("engine")
            assert (project.transport, project.options) == ("ssh", ("lzo", "cpp"))
            assert (project.toolchain_mismatch, project.old_clients) == ("ignore", True)
            page = await browser.post(
                "/projects/engine/settings", 422, **{**form, "lzo": "", "ranges": "192.0.2.0/24"}
            )
            assert "cpp wants lzo beside it" in page.text
            assert page.one("body").attributes["data-here"] == "/projects/engine"
            del form["cpp"]
            await browser.post("/projects/engine/settings", **form)
            assert site.registry.admin.project("engine").options == ("lzo",)

    with_site(tmp_path, body)


def test_a_join_token_is_shown_once_in_its_command(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"])
        async with site.browser("ada") as browser, site.browser("vera") as other:
            page = await browser.get("/projects/engine")
            assert "Make a join token" in page.text
            await browser.send("/projects/engine/tokens", {"csrf": browser.csrf, "note": " desks "})
            assert browser.location.endswith("#join-now")
            where = browser.location
            # Neither what looks for news takes it away, nor does anybody else.
            assert not (await browser.get(where, **{"X-D1fleet-Live": "1"})).all(id="join-command")
            assert not (await other.get(where)).all(id="join-command")
            page = await browser.get(where)
            words = page.one(id="join-command").text.split()
            assert words[:4] == ["d1fleet", "join", "http://registry.example:33333", "--pin"]
            assert words[4] == "sha256:" + "ab" * 32
            assert words[5] == "--token"
            assert browser.last.headers["cache-control"] == "no-store"
            assert not (await browser.get(where)).all(id="join-command")
            identity = (await tokens(site))[0]
            assert words[6].startswith(f"d1j_{identity}_")
            assert site.registry.admin.tokens("engine")[0].note == "desks"
            shown = (await other.get("/projects/engine")).one("tr", id=f"token-{identity}")
            assert "desks" in shown.text
            assert words[6] not in (await browser.get("/projects/engine")).text
            # And a host joins with it.
            await site.registry.service.join(words[6], "alder", report(), ALDER)

    with_site(tmp_path, body)


def test_the_command_is_one_that_a_shell_takes_as_it_is_meant(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"])
        async with site.browser("ada") as browser:
            page = await browser.post("/projects/engine/tokens", note="")
            assert "'http://h/;id'" in page.one(id="join-command").text

    with_site(tmp_path, body, public_url="http://h/;id")


def test_an_address_that_leads_hosts_to_themselves_is_said(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"])
        async with site.browser("ada") as browser:
            page = await browser.post("/projects/engine/tokens", note="")
            assert "public_url" in page.one(class_="secret").text

    with_site(tmp_path, body, public_url="http://127.0.0.1:33333")


def test_join_tokens_are_revoked_and_rotated(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"])
        _, first = await site.registry.admin.create_token(SOMEBODY, "engine", "one")
        await site.registry.admin.create_token(SOMEBODY, "engine", "two")
        async with site.browser("ada") as browser:
            where = f"/projects/engine/tokens/{first.id}/revoke"
            page = await browser.get(where)
            assert page.one("h1", id="dialog-title").text == f"Revoke join token {first.id} (one)?"
            assert len(await tokens(site)) == 2  # that one has looked changes nothing
            page = await browser.post(where, **page.one("form", id="confirm").fields())
            assert "The join token is void" in messages(page)
            assert [token.note for token in site.registry.admin.tokens("engine")] == ["two"]
            await browser.get(where, 404)
            page = await browser.post("/projects/engine/tokens/rotate")
            assert "d1j_" in page.one(id="join-command").text
            assert [token.note for token in site.registry.admin.tokens("engine")] == [""]

    with_site(tmp_path, body)


def test_a_project_is_deleted_by_its_name(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        async with site.browser("ada") as browser:
            page = await browser.get("/projects/engine/delete")
            assert "1 host will leave it" in page.text
            page = await browser.post("/projects/engine/delete", 422, typed="engin")
            assert page.one(class_="fault").text == "it is not engine"
            assert page.one("input", name="typed").attributes["value"] == "engin"
            assert site.registry.admin.projects()
            page = await browser.post("/projects/engine/delete", typed="engine")
            assert "Project engine is deleted" in messages(page)
            assert not site.registry.admin.projects()
            assert site.registry.admin.host("alder").projects == ()
            assert "it is in no project" in cell(row(page, "alder"), "What is wrong")
            await browser.get("/projects/engine", 404)

    with_site(tmp_path, body)


def test_old_clients_are_shown(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.admin.create_project(SOMEBODY, "engine", ["192.0.2.0/24"], old_clients=True)
        site.registry.service.old_client("engine", "h" * 32, "grace", "0.0.6", 6, "192.0.2.77")
        async with site.browser("vera") as browser:
            page = await browser.get("/projects/engine")
            shown = page.one(id="old")
            assert "192.0.2.77" in shown.text
            assert "grace" in shown.text
            assert "nothing is known of their compilers" in shown.text

    with_site(tmp_path, body)


# Hosts


@pytest.mark.parametrize(
    ("action", "state", "said"),
    [
        ("drain", "drained", "alder is drained"),
        ("expunge", "expunged", "alder is out until it is re-admitted"),
    ],
)
@pytest.mark.parametrize("back", ["/", "/projects/engine?q=al&sort=state", "/hosts/alder"])
def test_a_host_is_changed_and_the_page_is_the_same_as_before(
    tmp_path: Path, action: str, state: str, said: str, back: str
) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        async with site.browser("ada") as browser:
            page = await browser.get(f"/hosts/alder/{action}?back={back.replace('&', '%26')}")
            form = page.one("form", id="confirm")
            assert form.fields() == {"csrf": browser.csrf, "back": back}
            assert page.one("a", data_close="").attributes["href"] == back
            page = await browser.post(form.attributes["action"], **form.fields())
            assert str(browser.last.url).startswith(f"http://registry.example:33333{back}")
            assert said in messages(page)
            assert page.all(class_=f"state {state}".split()[1])
            assert site.registry.admin.host("alder").name == "alder"
            assert site.registry.store.entries[-1].what == action

    with_site(tmp_path, body)


def test_a_host_comes_back(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        agent = await site.registry.joined("alder", ALDER)
        async with site.browser("ada") as browser:
            await browser.post("/hosts/alder/drain", back="/")
            page = await browser.get("/")
            # That is no trouble; what has to be mended before it is of use again would be.
            assert (cell(row(page, "alder"), "State"), cell(row(page, "alder"), "What is wrong")) == (
                "drained",
                "",
            )
            assert cell(page.one("tr", id="project-engine"), "What is wrong") == ""
            undrain = row(page, "alder").one("form", action="/hosts/alder/undrain")
            page = await browser.post("/hosts/alder/undrain", **undrain.fields())
            assert cell(row(page, "alder"), "State") == "up"
            page = await browser.post("/hosts/alder/expunge", back="/")
            assert cell(row(page, "alder"), "State") == "expunged"
            readmit = row(page, "alder").one(class_="actions").all("a")[0]
            page = await browser.get(readmit.attributes["href"])
            page = await browser.post("/hosts/alder/readmit", **page.one("form", id="confirm").fields())
            assert cell(row(page, "alder"), "State") == "gone"
            await agent.beat()
            assert cell(row(await browser.get("/"), "alder"), "State") == "up"

    with_site(tmp_path, body)


@pytest.mark.parametrize("back", ["/hosts/alder", "/", "//evil.example", "/hosts/alder/expunge"])
def test_a_host_is_forgotten(tmp_path: Path, back: str) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        async with site.browser("ada") as browser:
            await browser.post("/hosts/alder/forget", back=back)
            assert str(browser.last.url).split("?")[0] == "http://registry.example:33333" + (
                "/" if back == "/" else "/projects/engine"
            )
            assert not site.registry.admin.hosts()
            await browser.get("/hosts/alder", 404)

    with_site(tmp_path, body)


def test_all_that_is_known_of_a_host_is_shown(tmp_path: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJpyHUJJC5fIsr5UkWdQ9CNJT7ZPwtMRfSDTu4qmPSMC"

    async def body(site: Site) -> None:
        await site.registry.joined("birch", BIRCH, toolchain={"cc": "gcc 12", "ld": "GNU ld"})
        await site.registry.joined("cedar", CEDAR, toolchain={"cc": "gcc 12", "ld": "GNU ld"})
        agent = await site.registry.joined(
            "alder",
            ALDER,
            host_keys=(key,),
            toolchain={"cc": "gcc 13", "ld": "GNU ld"},
            system="Debian GNU/Linux 12",
        )
        await agent.beat(serving=False, error="bind: address in use")
        await site.registry.admin.create_project(SOMEBODY, "spare", ["192.0.2.0/24"])
        async with site.browser("ada") as browser:
            page = await browser.get("/hosts/alder")
            text = page.text
            # What `ssh-keygen -lf` says of it.
            assert "ssh-ed25519 SHA256:39yMhzRMPRhciwIBWXhs3SZh2u5bpmvt/37gCA52Sgc" in text
            assert key.split()[1] not in text
            assert "Peers in engine do not get it: cc: gcc 13, the project has gcc 12" in text
            assert "port 3632, does not answer" in text
            assert "It says: bind: address in use" in text
            assert "Debian GNU/Linux 12" in text
            parts = {
                each.one("th").text: each for each in page.one("table", class_="parts").one("tbody").all("tr")
            }
            assert cell(parts["cc"], "Most of engine") == "gcc 12"
            assert cell(parts["ld"], "Most of engine") == "the same"
            assert "join" in page.one(id="entries").text
            assert "birch" not in page.one(id="entries").text
            assert page.one("body").attributes["data-watch-name"] == "alder"

    with_site(tmp_path, body)


def test_a_host_is_put_into_other_projects_and_gets_a_fixed_address(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        await site.registry.admin.create_project(SOMEBODY, "spare", ["198.51.100.0/24"])
        async with site.browser("ada") as browser:
            page = await browser.get("/hosts/alder")
            boxes = page.one("form", action="/hosts/alder/change").all("input", name="projects")
            assert [("checked" in each.attributes, each.attributes["value"]) for each in boxes] == [
                (True, "engine"),
                (False, "spare"),
            ]
            page = await browser.post(
                "/hosts/alder/change", projects=["spare", "engine"], address="198.51.100.7"
            )
            assert "Saved" in messages(page)
            host = site.registry.admin.host("alder")
            assert (host.projects, host.address) == (("engine", "spare"), "198.51.100.7")
            page = await browser.post("/hosts/alder/change", 422, projects="engine", address="198.51.100.9")
            assert "is in no range" in page.one(class_="fault").text
            assert page.one("input", name="address").attributes["value"] == "198.51.100.9"
            page = await browser.post("/hosts/alder/change", 422, address="")
            assert "name from 1 to" in page.one(class_="fault").text
            assert site.registry.admin.host("alder").fixed_address == "198.51.100.7"

    with_site(tmp_path, body)


# Audit log, people


def test_the_audit_log_is_shown_the_newest_first_and_searched(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        await site.registry.admin.drain(SOMEBODY, "alder")
        async with site.browser("vera") as browser:
            whats = [
                each.one("td", data_label="What").text
                for each in (await browser.get("/audit")).one("tbody").all("tr")
            ]
            assert whats[:3] == ["drain", "join", "create token"]
            page = await browser.get("/audit?what=join&limit=1000")
            assert [each.one("td", data_label="Whom").text for each in page.one("tbody").all("tr")] == [
                "alder"
            ]
            assert page.one("select", name="what").fields() == {}
            page = await browser.get("/audit?q=nothing+of+it")
            assert "No entry fits" in page.text
            assert (await browser.get("/audit?limit=-5&q=ALDER")).one("tbody").all("tr")

    with_site(tmp_path, body)


def test_operators_come_get_another_password_and_go(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            page = await browser.post("/people/operators", 422, name="grace", password="short", kind="viewer")
            assert page.one(class_="fault").attributes["id"] == "operator-password-fault"
            assert "short" not in page.one("form", action="/people/operators").fields().values()
            assert page.one("input", id="operator-name").attributes["value"] == "grace"
            page = await browser.post("/people/operators", name="grace", password=PASSWORD, kind="viewer")
            assert "grace may sign in" in messages(page)
            page = await browser.post(
                "/people/operators", 409, name="grace", password=PASSWORD * 2, kind="operator"
            )
            assert "there is an operator grace already" in page.one(class_="fault").text
            async with site.browser("grace") as grace:
                page = await browser.get("/people/operators/grace/password")
                assert page.one("input", name="password").attributes["type"] == "password"
                page = await browser.post("/people/operators/grace/password", 422, password="short")
                assert "at least 12 characters" in page.text
                assert page.one("input", name="password").attributes["value"] == ""
                await browser.post("/people/operators/grace/password", password=PASSWORD[::-1])
                assert (await grace.client.get("/")).status_code == 303
                await grace.sign_in("grace", PASSWORD[::-1])
                assert (await grace.get("/people")).all(class_="tag")
                await browser.post("/people/operators/grace/remove")
                assert (await grace.client.get("/")).status_code == 303
            page = await browser.get("/people/operators/ada/remove")
            assert "This is you" in page.text
            await browser.get("/people/operators/nobody/remove", 404)

    with_site(tmp_path, body)


def test_api_keys_are_shown_once_and_removed(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser("ada") as browser:
            page = await browser.post("/people/keys", 422, note="a\tb", kind="viewer")
            assert "can be printed" in page.one(class_="fault").text
            page = await browser.post("/people/keys", note="prometheus", kind="viewer")
            text = page.one(id="key-text").text
            hers = {"Authorization": f"Bearer {text}"}
            assert (await browser.client.get("/api/v1/admin/hosts", headers=hers)).status_code == 200
            assert text not in (await browser.get("/people")).text
            key = site.registry.admin.keys()[0]
            assert (key.kind, key.note) == ("viewer", "prometheus")
            page = await browser.get(f"/people/keys/{key.id}/remove")
            assert "(prometheus)" in page.text
            await browser.post(f"/people/keys/{key.id}/remove")
            assert (await browser.client.get("/api/v1/admin/hosts", headers=hers)).status_code == 401
            await browser.get(f"/people/keys/{key.id}/remove", 404)

    with_site(tmp_path, body)


# Trouble


def test_what_cannot_be_stored_is_said_where_it_was_tried(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        site.registry.store.fault = StoreError("the disk of the database is full", "make room")
        async with site.browser("ada") as browser:
            page = await browser.post("/projects", 503, **{**NEW, "name": "tools"})
            form = page.one("form", action="/projects")
            assert "the disk of the database is full What to do: make room" in form.text
            assert form.fields()["name"] == "tools"
            assert "The database cannot be written" in page.one(id="trouble").text
            page = await browser.post("/hosts/alder/drain", 503)
            assert "the disk of the database is full" in page.one("form", id="confirm").text
            page = await browser.post("/projects/engine/tokens", 503, note="lab")
            assert page.one("input", id="token-note").attributes["value"] == "lab"
            assert not site.registry.admin.host("alder").drained
            site.registry.store.fault = None
            await browser.post("/hosts/alder/drain", back="/")
            assert (await browser.get("/")).one(id="trouble").text == ""

    with_site(tmp_path, body)


def test_an_audit_log_that_cannot_be_read_hides_no_host(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)

        def broken(limit: int) -> Any:
            raise StoreError("the database is locked", "")

        site.registry.store.audit = broken  # type: ignore[method-assign]
        async with site.browser("vera") as browser:
            page = await browser.get("/hosts/alder")
            assert "The audit log cannot be read: the database is locked" in page.text
            assert "the database is locked" in (await browser.get("/audit", 503)).text

    with_site(tmp_path, body)


def test_the_addresses_of_forms_lead_to_their_pages(tmp_path: Path) -> None:
    """A browser shows them after a form was refused; somebody may load that again."""

    async def body(site: Site) -> None:
        async with site.browser() as browser:
            for path, page in (
                ("/projects", "/"),
                ("/projects/engine/settings", "/projects/engine"),
                ("/projects/engine/tokens", "/projects/engine"),
                ("/hosts", "/"),
                ("/hosts/alder/change", "/hosts/alder"),
                ("/people/operators", "/people"),
                ("/hosts/%0d%0aX:%20y/change", "/hosts/%0D%0AX%3A%20y"),
            ):
                answer = await browser.client.get(path)
                assert (answer.status_code, answer.headers["location"]) == (303, page)

    with_site(tmp_path, body)


def test_files_are_kept_by_browsers_as_long_as_they_are_the_same(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        async with site.browser() as browser:
            for name, kind in (
                ("panel.css", "text/css"),
                ("panel.js", "text/javascript"),
                ("mark.svg", "image/svg+xml"),
            ):
                answer = await browser.client.get(f"/static/{name}")
                assert answer.headers["content-type"].startswith(kind)
                assert answer.headers["cache-control"] == "no-cache"
                again = await browser.client.get(
                    f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]}
                )
                assert (again.status_code, again.content) == (304, b"")
            for name in ("panel.py", "..%2fpanel.py", "../panel.py", ".", "%2e%2e/secret", "base.html"):
                assert (await browser.client.get(f"/static/{name}")).status_code == 404, name

    with_site(tmp_path, body)


def test_news_tell_of_what_the_pages_show(tmp_path: Path) -> None:
    """What `live.js` relies on: the events are there for a session, and name hosts and projects."""

    async def body(site: Site) -> None:
        await site.registry.joined("alder", ALDER)
        async with site.browser("vera") as browser:
            answer = await browser.client.get("/api/v1/admin/hosts")
            found = json.loads(answer.text)
            host = (found if isinstance(found, list) else found["hosts"])[0]
            assert (host["name"], host["projects"]) == ("alder", ["engine"])

    with_site(tmp_path, body)
