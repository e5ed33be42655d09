"""How it looks: on a desk and on a phone, light and dark; that it can be read, and that nothing hangs over.

Screenshots are left in pytest's folder of the test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from .person import DESK, PHONE, Person, person
from .running import Host, Registry

pytestmark = pytest.mark.full

PAGES = {
    "overview": "/",
    "project": "/projects/engine",
    "empty": "/projects/docs",
    "host": "/hosts/hazel",
    "audit": "/audit",
    "people": "/people",
    "question": "/projects/engine/delete",
}
SIZES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": DESK},
    "laptop": {"viewport": {"width": 1280, "height": 800}},
    "tablet": {"viewport": {"width": 820, "height": 1180}, "has_touch": True},
    "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
}
LEAST_TARGET_PX = 24
"""Of what is touched (2.5.8 of WCAG), where it does not stand in a text."""


def furnish(registry: Registry) -> None:
    """Hosts in every state, and words as long as they may be."""
    registry.project("engine")
    registry.project("firmware", ranges=["192.0.2.0/24", "2001:db8:17::/48"], transport="ssh")
    registry.project("docs", old_clients=True)
    engine, firmware = registry.token("engine"), registry.token("firmware")
    long = "a-very-long-name-of-a-host-that-somebody-has-given.in-a-department.of-a-large-house.example"
    names = ["alder", "aspen", "birch", "cedar", "elder", "hazel", "juniper", "larch", "maple", "oak", long]
    for number, name in enumerate(names):
        values: dict[str, Any] = {"slots": 4 + 4 * (number % 4), "jobs": number % 5, "owner": "grace"}
        if name in ("hazel", "oak"):
            values["toolchain"] = {
                "machine": "x86_64",
                "cc": "cc (Debian 14.2.0-19) 14.2.0 [cc1 5555aa22bb33]",
            }
        if name == "maple":
            values |= {"serving": False, "error": "distccd: bind of 192.0.2.19:3632 failed: " + "x" * 300}
        host = Host(registry, name, f"192.0.2.{number + 11}", **values).join(engine)
        if number % 3 == 0:
            host.join(firmware)
        if name == "juniper":
            host.leave()
    registry.ask("POST", "/hosts/cedar/drain")
    registry.ask("POST", "/hosts/larch/expunge")
    registry.ask("POST", "/keys", {"kind": "viewer", "note": "prometheus"})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_can_be_read(
    chromium: Browser, registry: Registry, tmp_path: Path, size: str, scheme: str
) -> None:
    furnish(registry)
    with person(chromium, registry, color_scheme=scheme, **SIZES[size]) as ada:
        ada.go("/sign-in")
        look_at(ada, tmp_path / f"sign-in-{size}-{scheme}.png")
        ada.sign_in()
        for name, path in PAGES.items():
            ada.go(path)
            look_at(ada, tmp_path / f"{name}-{size}-{scheme}.png")
        ada.go("/projects/docs")
        ada.page.get_by_role("button", name="Make a join token").click()
        ada.page.locator("#join-command").wait_for()
        look_at(ada, tmp_path / f"command-{size}-{scheme}.png")
        ada.page.locator("#settings-title").click()
        look_at(ada, tmp_path / f"settings-{size}-{scheme}.png")
        ada.go("/projects/engine")
        ada.row("oak").locator("summary").click()
        look_at(ada, tmp_path / f"menu-{size}-{scheme}.png")
        seen = ada.page.evaluate(_ON_TOP, "[data-host=oak] .menu > ul")
        assert seen, "the menu is covered"
        ada.row("oak").get_by_role("link", name="Expunge").click()
        ada.page.locator("dialog form").wait_for()
        look_at(ada, tmp_path / f"dialog-{size}-{scheme}.png")


def look_at(ada: Person, picture: Path) -> None:
    ada.page.screenshot(path=picture, full_page="dialog" not in picture.name)
    over = ada.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 0, f"{picture.name}: {over} px hang over"
    cut = ada.page.locator(".scroll").evaluate_all(
        "(all) => all.some((each) => each.scrollWidth > each.clientWidth)"
    )
    assert not cut, f"{picture.name}: a table is wider than its place"
    assert ada.page.evaluate(_PALE) == [], picture.name
    if "tablet" in picture.name or "phone" in picture.name:
        assert ada.page.evaluate(_SMALL, LEAST_TARGET_PX) == [], picture.name


def test_on_a_phone_rows_are_cards(chromium: Browser, registry: Registry) -> None:
    furnish(registry)
    with person(chromium, registry, **SIZES["phone"]) as ada:
        ada.sign_in()
        ada.go("/projects/engine")
        expect(ada.page.locator("thead").first).to_be_hidden()
        row = ada.row("alder")
        label = row.locator("[data-label=Address]").evaluate(
            "(cell) => getComputedStyle(cell, '::before').content"
        )
        assert label == '"Address"'
        assert row.evaluate("(row) => row.getBoundingClientRect().width") > 300
        # To whom it is read, it is a table all the same.
        expect(ada.page.get_by_role("rowheader", name="alder")).to_be_visible()
        expect(ada.page.get_by_role("table", name="Hosts of engine")).to_be_visible()
        ada.page.get_by_label("Sort by").select_option("jobs")
        expect(ada.page.locator("tr[data-host]").first).to_have_attribute("data-host", "juniper")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_those_who_do_not_want_it(
    chromium: Browser, registry: Registry, motion: str
) -> None:
    registry.project("engine")
    Host(registry, "alder", "192.0.2.11").join(registry.token("engine"))
    with person(chromium, registry, reduced_motion=motion) as ada:
        ada.sign_in()
        ada.go("/projects/engine")
        ada.connected()
        ada.wait_state("alder", "up")
        ada.page.evaluate("addEventListener('animationstart', () => { window.moved = true; })")
        Host(registry, "birch", "192.0.2.12").join(registry.token("engine"))
        ada.wait_state("birch", "up")
        if motion == "reduce":
            registry.ask("POST", "/hosts/birch/drain")
            ada.wait_state("birch", "drained")
            assert ada.page.evaluate("document.getAnimations().length === 0 && window.moved !== true")
            expect(ada.page.locator(".news")).to_have_count(0)
        else:
            ada.page.locator("[data-host=birch].news").wait_for()
            ada.page.locator("[data-host=birch]:not(.news)").wait_for()
            assert ada.page.evaluate("window.moved === true")


_PALE = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(parse(getComputedStyle(each).backgroundColor));
      if (each.localName === 'dialog') break;
    }
    const base = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((below, top) => over(top, below), base);
  };
  const pale = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.nodeValue.trim() || element.closest('noscript, option, .unseen')) continue;
    if (!element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    const style = getComputedStyle(element);
    const below = ground(element);
    const [a, b] = [light(over(parse(style.color), below)), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) pale.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 120)}`);
  }
  return pale;
}"""
"""Texts that are too pale to be read: the contrast to what is below them is less than 4.5 (1.4.3 of WCAG)."""

_SMALL = """(least) => {
  const isSmall = (each) => {
    const box = (each.closest('.choice') || each).getBoundingClientRect();
    return box.width > 1 && (box.width < least || box.height < least);
  };
  const all = document.querySelectorAll('button, .button, summary, .pager a, .top a, .menu a, input, select');
  return [...all]
    .filter((each) => each.checkVisibility() && !each.closest('.unseen') && isSmall(each))
    .map((each) => each.outerHTML.slice(0, 120));
}"""

_ON_TOP = """(selector) => {
  const menu = document.querySelector(selector);
  const box = menu.getBoundingClientRect();
  return [[8, 8], [box.width - 8, 8], [8, box.height - 8], [box.width - 8, box.height - 8]].every(
    ([x, y]) => menu.contains(document.elementFromPoint(box.left + x, box.top + y)));
}"""
