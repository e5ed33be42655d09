"""What a person does: a project; hosts that come, are drained, thrown out and taken back; its end."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from .person import PHONE, Person, person
from .running import PASSWORD, Host, Registry

pytestmark = pytest.mark.full


def join_command(text: str) -> tuple[str, str]:
    """URL and token of the command that the panel shows."""
    found = re.fullmatch(r"d1fleet join (\S+) --token (d1j_\S+)", text)
    assert found, text
    return found[1], found[2]


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_the_whole_walk(chromium: Browser, registry: Registry, size: str) -> None:
    settings = {"viewport": PHONE, "is_mobile": True, "has_touch": True} if size == "phone" else {}
    with person(chromium, registry, **settings) as ada:
        page = ada.page
        ada.sign_in()
        expect(page.get_by_text("There is no project yet")).to_be_visible()
        # The form is open already. First a mistake: what was typed stays.
        page.get_by_label("Name").fill("engine")
        page.get_by_label("Networks").fill("0.0.0.0/0")
        ada.expected.append("422")
        page.get_by_role("button", name="Create project").click()
        expect(page.locator(".fault")).to_contain_text("open to the world")
        expect(page.get_by_label("Networks")).to_be_focused()
        expect(page.get_by_label("Name")).to_have_value("engine")
        page.get_by_label("Networks").fill("192.0.2.0/24")
        page.get_by_role("button", name="Create project").click()
        page.wait_for_url("**/projects/engine")
        assert "Project engine is there" in ada.message()

        page.get_by_label("Note").fill("desks")
        page.get_by_role("button", name="Make a join token").click()
        url, token = join_command(page.locator("#join-command").inner_text())
        assert url == registry.url
        expect(page).to_have_url(re.compile(r"/projects/engine#join-now$"))
        page.reload()
        expect(page.locator("#join-command")).to_have_count(0)

        # From here on the page is never loaded anew.
        ada.connected()
        page.evaluate("window.same = 'yes'")
        alder = Host(registry, "alder", "192.0.2.11").join(token)
        ada.wait_state("alder", "up")
        birch = Host(registry, "birch", "192.0.2.12").join(token)
        ada.wait_state("birch", "up")
        alder.beat(jobs=5)
        expect(ada.row("alder").locator("[data-label=Jobs]")).to_contain_text("5 of 8")

        drain = ada.row("alder").get_by_role("button", name="Drain alder")
        drain.click()
        ada.wait_state("alder", "drained")
        assert "alder is drained" in ada.message()
        undrain = ada.row("alder").get_by_role("button", name="Undrain alder")
        expect(undrain).to_be_focused()
        assert birch.beat()["projects"]["engine"]["left_out"] == {"alder": "drained by an operator"}
        undrain.click()
        ada.wait_state("alder", "up")

        ada.row("birch").locator("summary").click()
        ada.row("birch").get_by_role("link", name="Expunge").click()
        dialog = page.get_by_role("dialog", name="Expunge birch?")
        expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
        dialog.get_by_role("button", name="Expunge").click()
        ada.wait_state("birch", "expunged")
        expect(dialog).to_be_hidden()
        expect(ada.row("birch").locator("summary")).to_be_focused()
        assert birch.beat(403)["error"]["code"] == "expunged"
        assert alder.beat()["projects"]["engine"]["members"] == ["192.0.2.11"]

        ada.row("birch").get_by_role("link", name="Re-admit birch").click()
        page.get_by_role("dialog").get_by_role("button", name="Re-admit").click()
        ada.wait_state("birch", "gone")
        birch.beat()
        ada.wait_state("birch", "up")

        # A dialog that is left changes nothing.
        ada.row("birch").locator("summary").click()
        ada.row("birch").get_by_role("link", name="Forget").click()
        expect(page.get_by_role("dialog", name="Forget birch?")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(ada.row("birch").locator("summary")).to_be_focused()
        assert page.evaluate("window.same") == "yes"

        ada.row("alder").get_by_role("link", name="alder", exact=True).click()
        page.wait_for_url("**/hosts/alder")
        expect(page.get_by_role("heading", name="Host alder")).to_be_visible()
        expect(page.locator("#entries")).to_contain_text("undrain")
        page.go_back()

        page.get_by_text("Delete this project").click()
        page.get_by_role("link", name="Delete… engine").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("2 hosts will leave it")
        dialog.get_by_label("type its name").fill("engin")
        dialog.get_by_role("button", name="Delete project").click()
        expect(page.locator(".fault")).to_contain_text("it is not engine")
        page.get_by_label("type its name").fill("engine")
        page.get_by_role("button", name="Delete project").click()
        page.wait_for_url(f"{registry.url}/")
        assert "Project engine is deleted" in ada.message()
        assert registry.ask("GET", "/projects") in ([], {"projects": []})

        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out")).to_be_visible()


def test_the_walk_by_keyboard_alone(chromium: Browser, registry: Registry) -> None:
    with person(chromium, registry) as ada:
        page, keys = ada.page, ada.page.keyboard
        ada.go("/")
        keys.type("ada")
        ada.tab_to("#sign-in-password")
        keys.type(PASSWORD)
        keys.press("Enter")
        page.wait_for_url(f"{registry.url}/")

        # The first stop leads past the head of the page.
        ada.tab_to("a.skip")
        keys.press("Enter")
        ada.tab_to("#new-name")
        keys.type("engine")
        ada.tab_to("#new-ranges")
        keys.type("192.0.2.0/24")
        ada.tab_to("#new-transport-tcp")
        keys.press("ArrowDown")
        keys.press("ArrowUp")
        ada.tab_to("#new button.main")
        keys.press("Enter")
        page.wait_for_url("**/projects/engine")

        ada.tab_to("#token-note")
        keys.type("desks")
        keys.press("Enter")
        _, token = join_command(page.locator("#join-command").inner_text())
        ada.connected()
        Host(registry, "alder", "192.0.2.11").join(token)
        birch = Host(registry, "birch", "192.0.2.12").join(token)
        ada.wait_state("birch", "up")

        # What is sorted keeps the focus.
        ada.tab_to("#sort-name")
        keys.press("Enter")
        expect(page.locator("th[aria-sort=descending]")).to_have_text("Host")
        expect(page.locator("#sort-name")).to_be_focused()
        keys.press("Enter")
        expect(page.locator("th[aria-sort=ascending]")).to_have_text("Host")

        ada.tab_to("[data-host=birch] form button")
        keys.press("Enter")
        ada.wait_state("birch", "drained")
        expect(page.locator("[data-host=birch] form button")).to_be_focused()
        keys.press("Space")
        ada.wait_state("birch", "up")

        ada.tab_to("[data-host=birch] summary")
        keys.press("Enter")
        keys.press("Escape")
        expect(page.locator("[data-host=birch] .menu > ul")).to_be_hidden()
        expect(page.locator("[data-host=birch] summary")).to_be_focused()
        keys.press("Enter")
        ada.tab_to("[data-host=birch] .menu a")
        keys.press("Enter")
        expect(page.get_by_role("dialog", name="Expunge birch?")).to_be_visible()
        # The focus stays in the dialog.
        ada.tab_to("dialog button.danger", "Shift+Tab")
        keys.press("Enter")
        ada.wait_state("birch", "expunged")
        expect(page.locator("[data-host=birch] summary")).to_be_focused()

        ada.tab_to("[data-host=birch] .actions > a", "Shift+Tab")
        keys.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("button", name="Re-admit")).to_be_focused()
        keys.press("Enter")
        ada.wait_state("birch", "gone")
        birch.beat()
        ada.wait_state("birch", "up")

        ada.tab_to("#filter-q", "Shift+Tab")
        keys.type("ald")
        expect(page.locator("tr[data-host]")).to_have_count(1)
        expect(page.locator("#filter-q")).to_be_focused()
        assert page.url.endswith("/projects/engine?q=ald")

        ada.tab_to("#settings details:last-child summary")
        keys.press("Enter")
        ada.tab_to("#settings a.danger")
        keys.press("Enter")
        expect(page.locator("dialog #confirm-typed")).to_be_focused()
        keys.type("engine")
        keys.press("Enter")
        page.wait_for_url(f"{registry.url}/")
        assert "Project engine is deleted" in ada.message()


def test_the_walk_without_scripts(chromium: Browser, registry: Registry) -> None:
    with person(chromium, registry, java_script_enabled=False) as ada:
        page = ada.page
        ada.sign_in()
        page.get_by_label("Name").fill("engine")
        page.get_by_label("Networks").fill("192.0.2.0/24")
        page.get_by_role("button", name="Create project").click()
        page.get_by_role("button", name="Make a join token").click()
        _, token = join_command(page.locator("#join-command").inner_text())
        expect(page.get_by_role("button", name="Copy")).to_have_count(0)
        birch = Host(registry, "birch", "192.0.2.12").join(token)
        page.reload()
        ada.wait_state("birch", "up")
        ada.row("birch").get_by_role("button", name="Drain").click()
        assert "birch is drained" in ada.message()
        ada.wait_state("birch", "drained")
        ada.row("birch").locator("summary").click()
        ada.row("birch").get_by_role("link", name="Expunge").click()
        page.get_by_role("button", name="Expunge").click()
        assert "birch is out" in ada.message()
        ada.row("birch").get_by_role("link", name="Re-admit").click()
        page.get_by_role("link", name="Cancel").click()
        ada.wait_state("birch", "expunged")
        ada.row("birch").get_by_role("link", name="Re-admit").click()
        page.get_by_role("button", name="Re-admit").click()
        birch.beat()
        page.get_by_role("searchbox").fill("nobody")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.get_by_text("No host fits")).to_be_visible()
        page.get_by_role("link", name="Show all 1").click()
        ada.wait_state("birch", "drained")
        page.get_by_text("Delete this project").click()
        page.get_by_role("link", name="Delete… engine").click()
        page.get_by_label("type its name").fill("engine")
        page.get_by_role("button", name="Delete project").click()
        assert "Project engine is deleted" in ada.message()


def test_what_is_done_on_the_page_of_a_host(ada: Person, registry: Registry) -> None:
    registry.project("engine")
    registry.project("spare")
    alder = Host(registry, "alder", "192.0.2.11").join(registry.token("engine"))
    page = ada.page
    ada.go("/hosts/alder")
    ada.connected()
    page.get_by_role("button", name="Drain").click()
    expect(page.locator(".state.drained")).to_be_visible()
    expect(page.locator("#entries")).to_contain_text("drain")
    page.get_by_text("Change projects or address").click()
    page.get_by_label("spare").check()
    page.get_by_label("Fixed address").fill("203.0.113.1")
    ada.expected.append("422")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".fault")).to_contain_text("is in no range")
    expect(page.get_by_label("spare")).to_be_checked()
    page.get_by_label("Fixed address").fill("192.0.2.99")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#messages")).to_contain_text("Saved")
    assert alder.beat()["all"] == ["engine", "spare"]
    page.locator("summary", has_text="More for alder").click()
    page.get_by_role("link", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    page.wait_for_url("**/projects/engine")
    assert "alder is forgotten" in ada.message()


def test_people_and_keys(ada: Person) -> None:
    page = ada.page
    page.get_by_role("link", name="People").click()
    page.get_by_text("New API key").click()
    page.get_by_label("Note").fill("prometheus")
    page.get_by_role("button", name="Make an API key").click()
    assert page.locator("#key-text").inner_text().startswith("d1k_")
    page.get_by_role("link", name="Remove", exact=False).last.click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No program has a key")).to_be_visible()
    page.get_by_text("New operator").click()
    page.get_by_label("Name").fill("grace")
    page.get_by_label("Password").fill("short")
    ada.expected.append("422")
    page.get_by_role("button", name="Add operator").click()
    expect(page.locator("#operator-password")).to_be_focused()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Add operator").click()
    assert "grace may sign in" in ada.message()
    page.get_by_role("link", name="Audit log").click()
    expect(page.locator("tbody tr").first).to_contain_text("grace")
    page.get_by_role("searchbox").fill("remove key")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_viewer_only_looks(chromium: Browser, registry: Registry) -> None:
    registry.project("engine")
    with person(chromium, registry) as vera:
        vera.sign_in("vera")
        vera.page.get_by_role("link", name="engine", exact=True).click()
        vera.connected()
        alder = Host(registry, "alder", "192.0.2.11").join(registry.token("engine"))
        vera.wait_state("alder", "up")
        alder.beat(jobs=3)
        expect(vera.row("alder").locator("[data-label=Jobs]")).to_contain_text("3 of 8")
        expect(vera.page.locator("main button:visible")).to_have_count(0)
        expect(vera.page.locator("main form[method=post]")).to_have_count(0)
