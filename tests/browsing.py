"""A browser for the tests of the page, and what visitors do with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
SECONDS = 30_000  # milliseconds that a busy machine may take

expect.set_options(timeout=SECONDS)

if CHROMIUM is None and "CI" not in os.environ:
    pytest.skip("no Chromium; `apt-get install chromium-headless-shell` brings it", allow_module_level=True)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # In a container without user namespaces Chromium's sandbox cannot start.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def visit(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """A visitor's page after the first-visit statement; at the end nothing may have gone elsewhere."""
    context = {"viewport": {"width": 1280, "height": 900}, **context}
    visitor = browser.new_context(**context).new_page()
    visitor.set_default_timeout(SECONDS)
    asked: list[str] = []
    errors: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    visitor.on("pageerror", lambda error: errors.append(str(error)))
    visitor.goto(url)
    visitor.get_by_role("button", name="I understand").click()
    yield visitor
    visitor.context.close()
    hosts = {urlparse(each).netloc for each in asked if not each.startswith(("data:", "blob:"))}
    assert hosts == {urlparse(url).netloc}
    assert errors == []


@contextmanager
def running_web(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """A visitor's page that needs no server, with its models loaded."""
    with visit(browser, url, **context) as visitor:
        expect(visitor.locator("#progress")).to_have_text("")
        yield visitor


def upload(page: Page, *files: Path) -> None:
    page.locator('.tab-panel:visible .upload input[type="file"]').set_input_files(list(files))


def paste(page: Page, content: bytes, name: str) -> None:
    page.evaluate(
        """([bytes, name]) => {
            const given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: given, bubbles: true }));
        }""",
        [list(content), name],
    )


def open_tab(page: Page, url: str, name: str) -> None:
    page.goto(f"{url}/#{name}")
    is_open(page, name)


def is_open(page: Page, name: str) -> None:
    """Whether this tab alone is to be seen, and named as the current one."""
    expect(page.locator(".tab-panel:visible")).to_have_id(f"tab-{name}")
    expect(page.locator("#tabs a[aria-current]")).to_have_attribute("href", f"#{name}")


def barriers(page: Page) -> list[str]:
    """Whatever axe finds."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]
