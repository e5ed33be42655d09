"""What is seen of news: at once, in place, and honestly where there are none."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from .person import Person, person
from .running import Host, Registry

pytestmark = pytest.mark.full

NASTY = "<img src=x onerror=alert(1)> {{7*7}} \"' onmouseover='alert(1)'"


def hosts(registry: Registry, *names: str, project: str = "engine") -> list[Host]:
    registry.project(project)
    token = registry.token(project)
    return [Host(registry, name, f"192.0.2.{number + 11}").join(token) for number, name in enumerate(names)]


_COUNT_CHANGES = """() => {
  window.rows = [...document.querySelectorAll('tr[data-host]')];
  const changes = window.changes = { gone: [], come: [] };
  const named = (nodes) => [...nodes].filter((each) => each.nodeType === 1).map((each) => each.id);
  new MutationObserver((all) => {
    for (const { addedNodes, removedNodes } of all) {
      changes.come.push(...named(addedNodes));
      changes.gone.push(...named(removedNodes));
    }
  }).observe(document.getElementById('hosts'), { childList: true, subtree: true });
}"""


def test_news_change_what_has_changed_and_nothing_else(ada: Person, registry: Registry) -> None:
    alder, birch, _ = hosts(registry, "alder", "birch", "cedar")
    page = ada.page
    ada.go("/projects/engine")
    ada.connected()
    # Somebody is in the middle of several things.
    page.get_by_label("Note").fill("half a no")
    page.locator("#settings-title").click()
    page.get_by_label("Networks").fill("198.51.100.0/24")
    page.evaluate(_COUNT_CHANGES)
    page.get_by_label("Networks").focus()
    alder.beat(jobs=7, load_others_cpus=2.5, memory_available_bytes=5 << 30)
    jobs = ada.row("alder").locator("[data-label=Jobs]")
    expect(jobs).to_contain_text("7 of 8")
    expect(ada.row("alder")).to_contain_text("5.0 GiB")
    birch.beat(jobs=1)
    expect(ada.row("birch").locator("[data-label=Jobs]")).to_contain_text("1 of 8")
    assert page.evaluate("window.changes") == {"gone": [], "come": []}
    assert page.evaluate("window.rows.every((row) => row.isConnected)")
    expect(page.get_by_label("Networks")).to_be_focused()
    expect(page.get_by_label("Networks")).to_have_value("198.51.100.0/24")
    expect(page.get_by_label("Note")).to_have_value("half a no")
    ada.row("cedar").locator("summary").click()
    alder.beat(jobs=2)
    expect(jobs).to_contain_text("2 of 8")
    expect(ada.row("cedar").locator(".menu > ul")).to_be_visible()
    expect(ada.row("cedar").locator("summary")).to_be_focused()

    # What is being typed into a part that news change, and is not asked for yet, stays as well.
    page.evaluate("document.getElementById('filter-q').value = 'be'")

    # A host that comes does not move the focus, nor does one that goes.
    page.get_by_role("link", name="birch", exact=True).focus()
    Host(registry, "aspen", "192.0.2.40").join(registry.token("engine"))
    ada.wait_state("aspen", "up")
    names = [each.get_attribute("data-host") for each in page.locator("tr[data-host]").all()]
    assert names == ["alder", "aspen", "birch", "cedar"]
    expect(page.locator("#hosts-count")).to_have_text("4")
    expect(page.get_by_role("searchbox")).to_have_value("be")
    page.evaluate(_COUNT_CHANGES)
    registry.ask("POST", "/hosts/alder/forget")
    expect(ada.row("alder")).to_have_count(0)
    assert page.evaluate("window.changes") == {"gone": ["host-alder"], "come": []}
    expect(page.get_by_role("link", name="birch", exact=True)).to_be_focused()


def test_a_filter_holds_while_news_come(ada: Person, registry: Registry) -> None:
    alder, _, cedar = hosts(registry, "alder", "birch", "cedar")
    page = ada.page
    ada.go("/")
    ada.connected()
    page.get_by_role("searchbox").fill("ced")
    expect(page.locator("tr[data-host]")).to_have_count(1)
    alder.beat(jobs=2)
    cedar.beat(jobs=3)
    expect(ada.row("cedar").locator("[data-label=Jobs]")).to_contain_text("3 of 8")
    expect(page.locator("tr[data-host]")).to_have_count(1)
    expect(page.get_by_role("searchbox")).to_have_value("ced")
    page.get_by_label("State").select_option("drained")
    expect(page.get_by_text("No host fits")).to_be_visible()
    page.get_by_role("link", name="Show all", exact=True).click()
    expect(page.locator("tr[data-host]")).to_have_count(3)
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.get_by_role("link", name="Jobs").click()
    expect(page.locator("tr[data-host]").first).to_have_attribute("data-host", "birch")
    # The order is kept up to date as well.
    Host(registry, "zero", "192.0.2.60", jobs=0).join(registry.token("engine"))
    expect(page.locator("tr[data-host]").nth(1)).to_have_attribute("data-host", "zero")
    page.reload()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Jobs")


def test_time_goes_on_without_news(ada: Person, registry: Registry) -> None:
    hosts(registry, "alder")
    ada.go("/hosts/alder")
    contact = ada.page.locator("time[data-at]").first
    contact.get_by_text("3 s ago").wait_for()
    contact.get_by_text("5 s ago").wait_for()


def test_what_hosts_say_is_only_words(chromium: Browser, registry: Registry) -> None:
    (alder,) = hosts(registry, "alder")
    with person(chromium, registry) as ada:
        ada.sign_in()
        for path in ("/", "/projects/engine", "/hosts/alder"):
            ada.go(path)
            ada.connected()
            alder.beat(error="")
            alder.beat(error=NASTY, toolchain={"cc": NASTY, NASTY: "x"})
            expect(ada.page.locator("main")).to_contain_text(NASTY)
            assert ada.page.locator("main img").count() == 0
            ada.page.mouse.move(400, 400)


def test_a_lost_registry_is_said_and_what_was_missed_is_caught_up(ada: Person, registry: Registry) -> None:
    (alder,) = hosts(registry, "alder")
    page = ada.page
    ada.go("/projects/engine")
    ada.connected()
    ada.expected += ["ERR_", "Failed to load resource"]
    registry.stop()
    band = page.locator("#lost")
    expect(band).to_contain_text("No connection to the registry")
    expect(band).to_have_attribute("role", "status")
    ada.row("alder").get_by_role("button", name="Drain").click()
    expect(page.locator("#messages")).to_contain_text("The registry does not answer")
    registry.start()
    alder.beat(jobs=6)
    expect(ada.row("alder").locator("[data-label=Jobs]")).to_contain_text("6 of 8")
    expect(band).to_be_hidden()
    ada.row("alder").get_by_role("button", name="Drain").click()
    ada.wait_state("alder", "drained")


def test_who_is_signed_out_elsewhere_is_told(ada: Person, registry: Registry) -> None:
    (alder,) = hosts(registry, "alder")
    ada.go("/projects/engine")
    ada.connected()
    other = ada.page.context.new_page()
    other.goto(registry.url)
    other.get_by_role("button", name="Sign out").click()
    ada.expected.append("401")
    alder.beat(jobs=1)
    expect(ada.page.locator("#lost")).to_contain_text("You are signed out")
    expect(ada.page.get_by_role("link", name="Sign in again")).to_have_attribute(
        "href", "/sign-in?next=%2Fprojects%2Fengine"
    )


def test_a_page_of_what_is_gone_says_so(ada: Person, registry: Registry) -> None:
    hosts(registry, "alder")
    ada.go("/hosts/alder")
    ada.connected()
    ada.expected.append("404")
    registry.ask("POST", "/hosts/alder/forget")
    expect(ada.page.locator("#lost")).to_contain_text("is not there any more")


def test_a_page_that_nobody_sees_keeps_no_connection(ada: Person, registry: Registry) -> None:
    """Browsers have six to one server, for all of their tabs."""
    (alder,) = hosts(registry, "alder")
    ada.go("/projects/engine")
    ada.connected()
    others = [ada.page.context.new_page() for _ in range(7)]
    for each in others:
        each.goto(f"{registry.url}/projects/engine")
        each.evaluate(_HIDE)
    for each in others:
        each.locator("html[data-live=off]").wait_for(state="attached")
    alder.beat(jobs=4)
    expect(ada.row("alder").locator("[data-label=Jobs]")).to_contain_text("4 of 8")
    # Without a screen no tab is ever hidden: they say that they are.
    others[0].evaluate(_SHOW)
    expect(others[0].locator("[data-host=alder] [data-label=Jobs]")).to_contain_text("4 of 8")


_HIDE = """() => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""
_SHOW = """() => {
  delete document.hidden;
  document.dispatchEvent(new Event('visibilitychange'));
}"""
