"""Ten tasks of new visitors, with the four models that ship: each within three clicks of the first page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import visit
from playwright.sync_api import Browser, Locator, Page, expect
from running import ROOT, running_app

MODELS = ("xray-cnn-multisource", "xray-resnet18-multisource", "xray-cnn", "xray-resnet18")
LAST = 3  # the number of clicks that are allowed


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundles = [ROOT / "pretrained" / model for model in MODELS]
    with running_app(bundles, tmp_path_factory.mktemp("demo"), "--rate", "0") as app:
        yield app.url


def tab(page: Page, words: str) -> Locator:
    return page.locator("#tabs").get_by_role("link", name=words)


def example(page: Page, words: str) -> Locator:
    return page.locator("#examples").get_by_role("button", name=words)


def how_often_are_healthy_adults_called_covid(page: Page, click: Callable[[Locator], None]) -> None:
    click(tab(page, "How good is it?"))
    cell = page.locator('.summary td[data-title^="Normal X-rays of openist called COVID-19"]').first
    expect(cell).to_contain_text("of 275")


def which_maps_do_two_models_draw(page: Page, click: Callable[[Locator], None]) -> None:
    click(example(page, "compare their heatmaps"))
    expect(page.locator(".stages figcaption")).to_contain_text(list(MODELS[:2]))
    expect(page.locator(".stage .map:not([hidden])")).to_have_count(2)


def what_do_the_models_say_of_a_folder_as_csv(page: Page, click: Callable[[Locator], None]) -> None:
    click(tab(page, "Many at once"))
    example_files = sorted((ROOT / "docs" / "demo").glob("*.png"))
    with page.expect_file_chooser() as chooser:
        click(page.locator("#tab-many .upload button").first)
    chooser.value.set_files(example_files)
    expect(page.locator("table.rows tbody tr")).to_have_count(len(example_files))
    with page.expect_download() as saved:
        click(page.get_by_role("link", name="Download as CSV"))
    rows = list(csv.DictReader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [row["file"] for row in rows] == [file.name for file in example_files]


def how_is_a_model_loaded_in_timm(page: Page, click: Callable[[Locator], None]) -> None:
    click(tab(page, "Use it yourself"))
    click(page.locator("#tab-use .contents").get_by_role("link", name="xray-resnet18", exact=True))
    click(page.get_by_role("button", name="Copy the code for xray-resnet18 with timm"))
    assert 'timm.create_model("local-dir:' in page.evaluate("getSelection().toString()")


def how_does_a_program_ask(page: Page, click: Callable[[Locator], None]) -> None:
    click(tab(page, "API"))
    click(page.get_by_role("button", name="Copy the code for this page with gradio_client", exact=True))
    assert "gradio_client" in page.evaluate("getSelection().toString()")


def why_is_an_image_rejected_and_what_now(page: Page, click: Callable[[Locator], None]) -> None:
    click(example(page, "Upside down"))
    expect(page.locator(".reason").first).to_contain_text("rotate it by 180° and try again")


def where_do_the_papers_models_fail(page: Page, click: Callable[[Locator], None]) -> None:
    click(example(page, "they call this healthy adult COVID-19"))
    for model in MODELS[2:]:
        click(page.locator("#tab-read").get_by_role("checkbox", name=model, exact=True))
    decisions = {model: "Normal" if "multisource" in model else "COVID-19" for model in MODELS}
    for model, decision in decisions.items():
        own = page.locator(".model").filter(has=page.get_by_role("heading", name=model, exact=True))
        expect(own.locator(".decision")).to_have_text(decision)


def what_does_it_look_like_close_up(page: Page, click: Callable[[Locator], None]) -> None:
    click(example(page, "see where their heatmaps"))
    click(page.get_by_role("button", name="Zoom in"))
    expect(page.locator(".viewer .zoom")).to_have_text("125%")


def keep_a_report(page: Page, click: Callable[[Locator], None]) -> None:
    click(example(page, "does the evidence lie in the lungs"))
    with page.expect_download() as saved:
        click(page.get_by_role("button", name="Save report", exact=True))
    assert saved.value.suggested_filename.endswith("-report.html")


def under_which_licence_are_the_training_data(page: Page, click: Callable[[Locator], None]) -> None:
    click(tab(page, "Use it yourself"))
    click(page.locator("#tab-use .contents").get_by_role("link", name="Training data and licences"))
    expect(page.locator(".use li", has_text="Licence:").first).to_be_visible()


TASKS = (
    how_often_are_healthy_adults_called_covid,
    which_maps_do_two_models_draw,
    what_do_the_models_say_of_a_folder_as_csv,
    how_is_a_model_loaded_in_timm,
    how_does_a_program_ask,
    why_is_an_image_rejected_and_what_now,
    where_do_the_papers_models_fail,
    what_does_it_look_like_close_up,
    keep_a_report,
    under_which_licence_are_the_training_data,
)


@pytest.mark.parametrize("task", TASKS)
def test_a_new_visitor_needs_three_clicks(
    browser: Browser, url: str, task: Callable[[Page, Callable[[Locator], None]], None]
) -> None:
    clicks: list[Locator] = []

    def click(place: Locator) -> None:
        clicks.append(place)
        place.click()

    with visit(browser, url) as page:
        task(page, click)
    assert len(clicks) <= LAST
