"""Take the pictures of docs/demo.md: every tab of the running demo, on a desktop, on a phone, in the dark.

python app.py --rate 0 &
python scripts/take_screenshots.py http://127.0.0.1:7860

Needs Chromium. The X-rays are of synthetic patients.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from xray_hf.demo.page import TABS
from xray_hf.errors import ConfigError, exit_on_error
from xray_hf.files import atomic_file

OUT = Path(__file__).resolve().parent.parent / "docs" / "demo"
SCREENS = {
    "desktop": {"width": 1280, "height": 1000},
    "dark": {"width": 1280, "height": 1000},
    "phone": {"width": 390, "height": 1400},
}
WIDEST = 900  # pixels in docs
COLOURS = 128  # a page has few; this makes the files small


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="where the demo runs")
    url = parser.parse_args().url.rstrip("/")
    chromium = shutil.which("chromium")
    if chromium is None:
        raise ConfigError("there is no chromium on the path; install it first.")
    with sync_playwright() as playwright:
        # In a container without user namespaces Chromium's sandbox cannot start.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for screen in SCREENS:
            for tab in TABS:
                take(browser, url, screen, tab)
        browser.close()


def take(browser: Browser, url: str, screen: str, tab: str) -> None:
    """One tab on one screen, from its top to as far as the screen goes."""
    width, height = SCREENS[screen].values()
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)
    page.goto(f"{url}/?__theme={'dark' if screen == 'dark' else 'light'}#{tab}")
    page.get_by_role("button", name="I understand").click()
    fill(page, tab)
    save(page.screenshot(), OUT / f"{tab}_{screen}.png")
    page.close()


def fill(page: Page, tab: str) -> None:
    """Show answers on the tabs that have some."""
    examples = page.locator("#examples img")
    if tab == "read":
        examples.nth(1).click()
        expect(page.locator(".answer .stage img.xray").first).to_be_visible(timeout=60_000)
    elif tab == "many":
        sources = [page.request.get(each.evaluate("(image) => image.src")).body() for each in examples.all()]
        files = [
            {"name": f"SYNTHETIC-{number}.png", "mimeType": "image/png", "buffer": content}
            for number, content in enumerate([*sources, b"no image"])
        ]
        page.locator('.upload input[type="file"]').nth(1).set_input_files(files)  # type: ignore[arg-type]
        expect(page.locator("table.rows tbody tr")).to_have_count(len(files), timeout=60_000)
    page.wait_for_timeout(1000)  # pictures and fonts


def save(content: bytes, path: Path) -> None:
    """Small enough for a repository."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.thumbnail((WIDEST, 10_000))
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as temporary:
        picture.quantize(COLOURS).save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
