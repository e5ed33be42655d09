"""Somebody at a browser: what they do, and what must not happen meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request

from .running import PASSWORD, Registry

CHROMIUM = Path("/usr/bin/chromium")
LIMIT_MS = 15_000
MOST_TABS = 400

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 360, "height": 740}

_REPORT_VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (event) => {
  console.error(`violation of ${event.violatedDirective}: ${event.blockedURI}`);
});
"""


def missing_reason() -> str:
    """Why there is no browser; empty where there is one."""
    return "" if CHROMIUM.exists() or shutil.which("chromium") else f"there is no {CHROMIUM}"


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])


@dataclass
class Person:
    """One tab.

    Attributes:
        wrong: what a browser complained about, and requests that left the registry.
        expected: parts of complaints that are meant to come.
    """

    page: Page
    registry: Registry
    wrong: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._complained)
        self.page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._asked)
        self.page.add_init_script(_REPORT_VIOLATIONS)

    def _complained(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        found = urlsplit(request.url)
        if f"{found.scheme}://{found.netloc}" != self.registry.url:
            self.wrong.append(f"a request of elsewhere: {request.url}")

    def complaints(self) -> list[str]:
        return [each for each in self.wrong if not any(part in each for part in self.expected)]

    # What people do

    def go(self, path: str) -> None:
        self.page.goto(self.registry.url + path)

    def sign_in(self, name: str = "ada") -> None:
        self.go("/sign-in")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/")

    def row(self, name: str) -> Any:
        return self.page.locator(f"[data-host='{name}']")

    def wait_state(self, name: str, state: str) -> None:
        """Until the host is shown in that state."""
        self.page.locator(f"[data-host='{name}'] .state.{state}").first.wait_for()

    def message(self) -> str:
        return str(self.page.locator("#messages .message").inner_text())

    def connected(self) -> None:
        """Until the page hears of news."""
        self.page.locator("html[data-live=on]").wait_for(state="attached")

    # By keyboard alone

    def tab_to(self, selector: str, key: str = "Tab") -> None:
        """Go on until the focus is there. Wherever it comes by, it can be seen."""
        for _ in range(MOST_TABS):
            self.page.keyboard.press(key)
            found = self.page.evaluate(_FOCUS, selector)
            assert found["seen"], f"the focus cannot be seen on {found['what']}"
            if found["there"]:
                return
        raise AssertionError(f"the focus never comes to {selector}")


_FOCUS = """(selector) => {
  const at = document.activeElement;
  const box = at.getBoundingClientRect();
  const style = getComputedStyle(at);
  const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
  const seen = at === document.body || (outlined && box.width > 1 && box.height > 1);
  return { there: at.matches(selector), seen, what: at.outerHTML.slice(0, 200) };
}"""


@contextmanager
def person(browser: Browser, registry: Registry, **settings: Any) -> Iterator[Person]:
    """Somebody new, with a browser of their own; at the end nothing may have gone wrong."""
    settings = {"viewport": DESK, **settings}
    context = browser.new_context(**settings)
    try:
        context.set_default_timeout(LIMIT_MS)
        found = Person(context.new_page(), registry)
        found.watch()
        yield found
        assert found.complaints() == []
    finally:
        context.close()
