"""The page in a real browser, with the models that ship: every flow, keyboard, phone, dark, no other host."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from browsing import open_tab, paste, running_chromium, serious, upload, visit
from playwright.sync_api import Browser, Page, expect
from running import ROOT, running_app

from xray_hf.demo import examples
from xray_hf.demo.page import TABS
from xray_hf.task import PAPER_CLASSES

MODELS = ("xray-resnet18", "xray-cnn")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundles = [ROOT / "pretrained" / model for model in MODELS]
    with running_app(bundles, tmp_path_factory.mktemp("demo"), "--rate", "0") as app:
        yield app.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with visit(browser, url) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [each.file for each in examples.find(None, tmp_path_factory.mktemp("patients"))]


def test_the_first_visit_is_told_what_this_is_and_only_the_first(browser: Browser, url: str) -> None:
    visitor = browser.new_context().new_page()
    visitor.goto(url)
    dialog = visitor.get_by_role("dialog")
    expect(dialog).to_contain_text("not a medical device")
    expect(dialog).to_contain_text("Children and adults come from different sources")
    visitor.keyboard.press("Enter")  # the button has the focus
    expect(dialog).to_be_hidden()
    visitor.reload()
    expect(visitor.get_by_role("tab").first).to_be_visible()
    expect(dialog).to_be_hidden()
    visitor.close()


def test_an_example_is_answered_by_both_models_with_a_heatmap(page: Page) -> None:
    page.locator("#examples button").nth(1).click()
    for model in MODELS:
        expect(page.locator(".model", has_text=model).locator(".decision")).not_to_be_empty()
    expect(page.locator(".stage .xray").first).to_be_visible()
    assert page.locator(".choose-map option").count() in (0, 1 + len(PAPER_CLASSES))


def test_a_bad_file_says_why_and_the_others_keep_their_answers(
    page: Page, patients: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "letter.png").write_text("Dear doctor")
    upload(page, patients[0], tmp_path / "letter.png", patients[2])
    expect(page.get_by_role("alert")).to_contain_text("letter.png is not an image that can be read")
    expect(page.locator(".answer .viewer")).to_have_count(2)


def test_a_pasted_xray_is_read(page: Page, patients: list[Path]) -> None:
    paste(page, patients[0].read_bytes(), "copied.png")
    expect(page.locator(".answer h2")).to_have_text("copied.png")


def test_a_file_dropped_beside_the_field_joins_the_others(page: Page, patients: list[Path]) -> None:
    upload(page, patients[0])
    expect(page.locator(".answer")).to_have_count(1)
    page.evaluate(
        """(bytes) => {
            const given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            const event = { dataTransfer: given, bubbles: true, cancelable: true };
            document.querySelector("h1").dispatchEvent(new DragEvent("drop", event));
        }""",
        list(patients[1].read_bytes()),
    )
    expect(page.locator(".answer h2")).to_have_text([patients[0].name, "dropped.png"])


def test_many_files_are_a_table_that_can_be_sorted_and_taken_along(
    page: Page, url: str, patients: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "letter.png").write_text("Dear doctor")
    with ZipFile(tmp_path / "patients.zip", "w") as archive:
        for patient in patients:
            archive.write(patient, patient.name)
    open_tab(page, url, "many")
    upload(page, tmp_path / "patients.zip", tmp_path / "letter.png")
    expect(page.locator("table.rows tbody tr")).to_have_count(4)
    expect(page.locator("td.error")).to_contain_text("letter.png is not an image")
    for is_descending in (False, True):
        page.locator("table.rows").get_by_role("button", name="Normal").first.click()
        shares = page.locator("table.rows tbody td:nth-child(6)").all_inner_texts()
        values = [float(share.split()[0]) for share in shares if share.strip()]
        assert values == sorted(values, reverse=is_descending)
        expect(page.locator("table.rows tbody tr").last.locator("td.error")).to_be_visible()
    expect(page.locator("table.counts tbody tr")).to_have_count(len(PAPER_CLASSES) + 3)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download as CSV").click()
    with Path(saved.value.path()).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {"letter.png", *(path.name for path in patients)}


def test_a_link_opens_its_tab(page: Page, url: str) -> None:
    for name in TABS:
        open_tab(page, url, name)
    page.get_by_role("tab").first.click()
    assert page.url.endswith("#read")


def test_the_statement_stays_in_sight(page: Page, url: str) -> None:
    open_tab(page, url, "evidence")
    page.mouse.wheel(0, 3000)
    expect(page.locator("#statement p")).to_be_in_viewport()
    expect(page.locator("#statement p")).to_contain_text("COVID-19 are mostly adults from other sources")


def fill(page: Page, name: str, patient: Path) -> None:
    """Give the open tab the answers that it can have."""
    expect(page.locator('[role="tabpanel"]:visible')).to_have_count(1)
    if name in ("read", "many"):
        upload(page, patient)
        answers = page.locator(".answer .viewer, table.rows tbody tr").locator("visible=true")
        expect(answers).to_have_count(1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_barrier_is_found(page: Page, url: str, patients: list[Path], theme: str) -> None:
    page.goto(f"{url}/?__theme={theme}")
    found = {}
    for name in TABS:
        page.locator(f'button[role="tab"][data-tab-id="{name}"]').click()
        fill(page, name, patients[1])
        page.wait_for_timeout(1000)  # Gradio fades answers in, pale at first
        found[name] = serious(page)
    assert found == {name: [] for name in TABS}


def test_nothing_runs_over_the_edge_of_a_phone(browser: Browser, url: str, patients: list[Path]) -> None:
    phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    phone.goto(url)
    phone.get_by_role("button", name="I have understood").click()
    widths = {}
    for name in TABS:
        phone.goto(f"{url}/#{name}")
        phone.reload()
        fill(phone, name, patients[1])
        widths[name] = phone.evaluate("document.documentElement.scrollWidth")
    assert max(widths.values()) <= 390, widths
    phone.close()


def test_the_table_of_two_models_fits_a_window_of_1200_pixels(
    browser: Browser, url: str, patients: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "letter.png").write_text("Dear doctor")
    visitor = browser.new_page(viewport={"width": 1200, "height": 900})
    visitor.goto(f"{url}/#many")
    visitor.get_by_role("button", name="I have understood").click()
    upload(visitor, *patients, tmp_path / "letter.png")
    table = visitor.get_by_role("region", name="Answers")
    expect(table.locator("tbody tr")).to_have_count(4)
    assert table.evaluate("(box) => box.scrollWidth - box.clientWidth") == 0
    expect(table.locator(".error")).to_have_css("color", "rgb(153, 27, 27)")
    visitor.close()


def test_the_page_can_be_used_without_a_mouse(page: Page) -> None:
    page.locator('button[role="tab"]').first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator('button[role="tab"][data-tab-id="many"]')).to_have_attribute("aria-selected", "true")
