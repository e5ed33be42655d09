"""A browser and a registry for each test: what a browser starts later on would count as left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from .person import LIMIT_MS, Person, launch, missing_reason, person
from .running import Registry

expect.set_options(timeout=LIMIT_MS)


@pytest.fixture
def chromium() -> Iterator[Browser]:
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """With operators ada and, a viewer, vera."""
    found = Registry(tmp_path)
    try:
        found.operator("ada")
        found.operator("vera", "viewer")
        yield found
    finally:
        found.stop()


@pytest.fixture
def ada(chromium: Browser, registry: Registry) -> Iterator[Person]:
    """Signed in, at a desk."""
    with person(chromium, registry) as found:
        found.sign_in()
        yield found
