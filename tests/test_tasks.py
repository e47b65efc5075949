"""Ten tasks of new visitors, with the four models that ship: each within three clicks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browsing import visit
from playwright.sync_api import Browser, Locator, Page, expect
from running import ROOT, running_app

pytestmark = pytest.mark.slow

MODELS = ("xray-cnn-multisource", "xray-resnet18-multisource", "xray-cnn", "xray-resnet18")
MOST = 3  # clicks, after the notice of the first visit


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundles = [ROOT / "pretrained" / model for model in MODELS]
    with running_app(bundles, tmp_path_factory.mktemp("demo"), "--rate", "0") as app:
        yield app.url


@dataclass
class Visitor:
    """Who has read the notice, and has some files."""

    page: Page
    patients: list[Path]
    clicks: int = 0

    def click(self, place: Locator) -> None:
        self.clicks += 1
        place.click()


def tab(page: Page, words: str) -> Locator:
    return page.locator("#tabs").get_by_role("link", name=words)


def example(page: Page, words: str) -> Locator:
    return page.locator("#examples").get_by_role("button", name=words)


def how_often_are_healthy_adults_called_covid(visitor: Visitor) -> None:
    visitor.click(tab(visitor.page, "How good is it?"))
    cell = visitor.page.locator('.summary td[data-title^="Normal X-rays of openist called COVID-19"]').first
    expect(cell).to_contain_text("of 275")


def which_maps_do_two_models_draw(visitor: Visitor) -> None:
    visitor.click(example(visitor.page, "compare their heatmaps"))
    expect(visitor.page.locator(".stages figcaption")).to_contain_text(list(MODELS[:2]))
    expect(visitor.page.locator(".stage .map:not([hidden])")).to_have_count(2)


def what_do_the_models_say_of_a_folder_as_csv(visitor: Visitor) -> None:
    visitor.click(tab(visitor.page, "Many at once"))
    with visitor.page.expect_file_chooser() as chooser:
        visitor.click(visitor.page.locator("#tab-many .upload button").first)
    chooser.value.set_files(visitor.patients)
    expect(visitor.page.locator("table.rows tbody tr")).to_have_count(len(visitor.patients))
    with visitor.page.expect_download() as saved:
        visitor.click(visitor.page.get_by_role("link", name="Download as CSV"))
    rows = list(csv.DictReader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [row["file"] for row in rows] == [patient.name for patient in visitor.patients]
    assert {row[f"{MODELS[1]}: decision"] for row in rows} >= {
        "Normal",
        "Pneumonia",
        "COVID-19",
        "unsure",
        "rejected",
    }


def how_is_a_model_loaded_in_timm(visitor: Visitor) -> None:
    visitor.click(tab(visitor.page, "Use it yourself"))
    visitor.click(
        visitor.page.locator("#tab-use .contents").get_by_role("link", name="xray-resnet18", exact=True)
    )
    visitor.click(visitor.page.get_by_role("button", name="Copy the code for xray-resnet18 with timm"))
    assert 'timm.create_model("local-dir:' in visitor.page.evaluate("getSelection().toString()")


def how_does_a_program_ask(visitor: Visitor) -> None:
    visitor.click(tab(visitor.page, "API"))
    visitor.click(
        visitor.page.get_by_role("button", name="Copy the code for this page with gradio_client", exact=True)
    )
    assert "gradio_client" in visitor.page.evaluate("getSelection().toString()")


def why_is_an_image_rejected_and_what_now(visitor: Visitor) -> None:
    visitor.click(example(visitor.page, "Upside down"))
    expect(visitor.page.locator(".reason").first).to_contain_text("rotate it by 180° and try again")


def where_do_the_coronahack_models_fail(visitor: Visitor) -> None:
    visitor.click(example(visitor.page, "they call this healthy adult COVID-19"))
    for model in MODELS[2:]:
        visitor.click(visitor.page.locator("#tab-read").get_by_role("checkbox", name=model, exact=True))
    decisions = {model: "Normal" if "multisource" in model else "COVID-19" for model in MODELS}
    for model, decision in decisions.items():
        own = visitor.page.locator(".model").filter(
            has=visitor.page.get_by_role("heading", name=model, exact=True)
        )
        expect(own.locator(".decision")).to_have_text(decision)


def what_does_it_look_like_close_up(visitor: Visitor) -> None:
    visitor.click(example(visitor.page, "see where their heatmaps"))
    visitor.click(visitor.page.get_by_role("button", name="Zoom in"))
    expect(visitor.page.locator(".viewer .zoom")).to_have_text("125%")


def keep_a_report(visitor: Visitor) -> None:
    visitor.click(example(visitor.page, "does the evidence lie in the lungs"))
    with visitor.page.expect_download() as saved:
        visitor.click(visitor.page.get_by_role("button", name="Save report", exact=True))
    assert saved.value.suggested_filename.endswith("-report.html")


def under_which_licence_are_the_training_data(visitor: Visitor) -> None:
    visitor.click(tab(visitor.page, "Use it yourself"))
    visitor.click(
        visitor.page.locator("#tab-use .contents").get_by_role("link", name="Training data and licences")
    )
    expect(visitor.page.locator("#use-data")).to_be_in_viewport()
    expect(visitor.page.locator("#use-data ~ ul").first).to_contain_text("Kermany: CC BY 4.0")


TASKS = (
    how_often_are_healthy_adults_called_covid,
    which_maps_do_two_models_draw,
    what_do_the_models_say_of_a_folder_as_csv,
    how_is_a_model_loaded_in_timm,
    how_does_a_program_ask,
    why_is_an_image_rejected_and_what_now,
    where_do_the_coronahack_models_fail,
    what_does_it_look_like_close_up,
    keep_a_report,
    under_which_licence_are_the_training_data,
)


@pytest.mark.parametrize("task", TASKS)
def test_a_new_visitor_needs_three_clicks(
    browser: Browser, url: str, patients: list[Path], task: Callable[[Visitor], None]
) -> None:
    with visit(browser, url) as page:
        visitor = Visitor(page, patients)
        task(visitor)
    assert visitor.clicks <= MOST
