"""The viewer of an answer in a real browser: pictures, maps, report, history of the visit."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import pytest
from browsing import barriers, paste, upload, visit
from conftest import random_bundle
from PIL import Image
from playwright.sync_api import Browser, Download, Locator, Page, expect
from running import proxy, running_app

from xray_hf.demo.shell import PLACE
from xray_hf.task import PAPER_CLASSES

pytestmark = pytest.mark.slow

MODELS = ("xray-cnn-one", "xray-cnn-two")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WIDE, HIGH = 2000, 1800  # pixels of an X-ray larger than the preview


@pytest.fixture(scope="module")
def bundles(cnn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models of random weights, which reject nothing that looks like an X-ray."""
    one, two = (tmp_path_factory.mktemp("bundles") / name for name in MODELS)
    return [Path(shutil.copytree(cnn_bundle, one)), random_bundle("xray-cnn", 0, two)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def url(bundles: list[Path], folder: Path) -> Iterator[str]:
    with running_app(bundles, folder, "--rate", "0") as app:
        yield app.url


@pytest.fixture(scope="module")
def large(patients: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.png"
    with Image.open(patients[1]) as image:
        image.convert("L").resize((WIDE, HIGH)).save(path)
    return path


def viewer_of(page: Page, *files: Path) -> Locator:
    upload(page, *files)
    found = page.locator(".answer .viewer").last
    expect(found.locator(".stage").first).to_be_visible()
    page.wait_for_timeout(500)  # Gradio fades answers in
    return found


def transforms(viewer: Locator) -> list[str]:
    scenes = viewer.locator(".scene")
    found: list[str] = scenes.evaluate_all("(all) => all.map((each) => each.style.transform)")
    return found


def box_of(shown: Locator) -> tuple[float, float, float, float]:
    """Left, top, right and bottom on the screen, in CSS pixels."""
    box = shown.bounding_box()
    assert box
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def middle_of(shown: Locator) -> tuple[float, float]:
    left, top, right, bottom = box_of(shown)
    return (left + right) / 2, (top + bottom) / 2


def scale_of(viewer: Locator) -> float:
    """The one scale of all pictures."""
    [transform] = set(transforms(viewer))
    return float(transform.partition("scale(")[2].rstrip(")")) if transform else 1.0


def pixels(stage: Locator) -> np.ndarray:
    """(H, W) grey levels on the screen, without the edge."""
    shown = np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("L")).astype(int)
    return shown[4:-4, 4:-4]


def drag(page: Page, stage: Locator, right: int, down: int) -> None:
    x, y = middle_of(stage)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()


def test_the_maps_of_all_models_are_shown_at_once_for_one_class(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    for label in PAPER_CLASSES:
        viewer.locator(".choose-map").select_option(label)
        captions = viewer.locator("figcaption .of-map:visible")
        expect(captions).to_have_text([f"{model}: evidence for {label}" for model in MODELS])
        shown = viewer.locator(".map:visible")
        assert shown.evaluate_all("(all) => all.map((each) => each.dataset.label)") == [label] * len(MODELS)
    left, right = map(box_of, viewer.locator(".stage").all())
    assert left[1] == right[1]
    assert left[2] < right[0]
    viewer.locator(".choose-map").select_option("X-ray only")
    expect(viewer.locator(".stage:visible")).to_have_count(1)
    expect(viewer.locator(".map:visible")).to_have_count(0)
    expect(viewer.locator(".legend")).to_be_hidden()
    assert viewer.locator(".xray").evaluate_all("(all) => new Set(all.map((each) => each.src)).size") == 1


def test_one_legend_in_logits_says_what_the_colours_are_not(page: Page, patients: list[Path]) -> None:
    legend = viewer_of(page, patients[1]).locator(".legend")
    expect(legend).to_contain_text("Evidence for the class, not where disease is.")
    expect(legend).to_contain_text("logits")
    expect(legend.locator(".bar")).to_have_count(1)
    ticks = [int(each) for each in legend.locator(".ticks span").all_inner_texts()]
    assert ticks == sorted(ticks)
    assert ticks[0] == 0
    assert len(ticks) > 2


def test_opacity_and_wipe_change_all_maps(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    viewer.get_by_label("Heatmap opacity").fill("20")
    viewer.get_by_label("Compare: wipe heatmap").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    for shown in viewer.locator(".map:visible").all():
        expect(shown).to_have_css("opacity", "0.2")
        expect(shown).to_have_css("clip-path", "inset(0px 0px 0px 5%)")


def test_wheel_and_buttons_zoom_all_pictures_together(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    stage = viewer.locator(".stage").last
    stage.hover(position={"x": 10, "y": 10})
    page.wait_for_timeout(600)  # since the answer scrolled into view
    page.mouse.wheel(0, -100)
    expect(viewer.locator(".zoom")).to_have_text("140%")
    [transform] = set(transforms(viewer))
    assert scale_of(viewer) > 1
    x, y = map(float, re.findall(r"translate\((.+)%, (.+)%\)", transform)[0])
    assert -3 < x <= 0  # about the pointer, near the upper left corner
    assert -3 < y <= 0
    viewer.get_by_role("button", name="Zoom in").click()
    expect(viewer.locator(".zoom")).to_have_text("174%")
    viewer.get_by_role("button", name="Zoom out").click()
    expect(viewer.locator(".zoom")).to_have_text("140%")
    viewer.get_by_role("button", name="Reset zoom").click()
    assert scale_of(viewer) == 1


def test_a_wheel_on_a_picture_of_its_own_size_scrolls_the_page(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    viewer.locator(".stage").first.hover(position={"x": 10, "y": 10})
    page.wait_for_timeout(600)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, 300)
    page.wait_for_function(f"scrollY > {before} + 200")
    page.mouse.wheel(0, -300)  # the same scrolling goes on
    page.wait_for_function(f"scrollY < {before} + 50")
    assert scale_of(viewer) == 1


def test_the_keyboard_alone_zooms_pans_and_sets_the_window(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    page.locator(".answer h2").click()  # where the answer begins
    buttons = [f'[data-do="zoom-{what}"]' for what in ("out", "in", "reset")]
    for tool in (".choose-map", *buttons, ".drag"):
        page.keyboard.press("Tab")
        expect(viewer.locator(tool).first).to_be_focused()
    page.keyboard.press("Tab")
    stage = viewer.locator(".stage").first
    expect(stage).to_be_focused()
    described = stage.get_attribute("aria-describedby")
    expect(page.locator(f"[id='{described}']")).to_contain_text("+ and − zoom, arrows pan, 0 resets")
    for key in ("+", "+", "+", "-"):
        page.keyboard.press(key)
    expect(viewer.locator(".zoom")).to_have_text("156%")
    [before] = set(transforms(viewer))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    [after] = set(transforms(viewer))
    assert before != after
    page.keyboard.press("0")
    assert scale_of(viewer) == 1
    viewer.get_by_label("Window width").focus()
    page.keyboard.press("ArrowLeft")
    expect(viewer.locator(".width-value")).to_have_text("254")


def test_dragging_sets_the_window_exactly_and_pans_if_chosen(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    viewer.locator(".choose-map").select_option("X-ray only")
    page.add_style_tag(content="#statement { display: none }")  # it would cover parts of the picture
    stage = viewer.locator(".stage").first
    expect(stage).to_have_css("cursor", "crosshair")
    grey = pixels(stage)
    drag(page, stage, -100, 20)
    expect(viewer.locator(".width-value")).to_have_text("155")
    expect(viewer.locator(".centre-value")).to_have_text("147.5")
    windowed = np.clip(255 * ((grey - 147.5) / 155 + 0.5), 0, 255)
    assert np.abs(pixels(stage) - windowed).max() <= 1
    viewer.get_by_label("Invert").check()
    assert np.abs(pixels(stage) - (255 - windowed)).max() <= 1
    viewer.get_by_role("button", name="Reset window").click()
    assert np.array_equal(pixels(stage), grey)
    for _ in range(3):
        viewer.get_by_role("button", name="Zoom in").click()
    viewer.get_by_label("pan", exact=True).check()
    before = transforms(viewer)
    drag(page, stage, -30, -40)
    assert transforms(viewer) != before
    expect(viewer.locator(".width-value")).to_have_text("255")
    page.keyboard.down("Shift")
    drag(page, stage, 10, 0)
    page.keyboard.up("Shift")
    expect(viewer.locator(".width-value")).to_have_text("265")


def test_two_fingers_zoom_and_pictures_are_stacked_on_a_phone(
    browser: Browser, url: str, patients: list[Path]
) -> None:
    with visit(browser, url, **PHONE) as phone:
        viewer = viewer_of(phone, patients[1])
        upper, lower = map(box_of, viewer.locator(".stage").all())
        assert upper[3] < lower[1]
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        stage = viewer.locator(".stage").first
        stage.scroll_into_view_if_needed()
        phone.wait_for_timeout(800)
        expect(stage).to_have_css("touch-action", "pan-y")  # one finger scrolls the page
        x, y = middle_of(stage)
        device = phone.context.new_cdp_session(phone)
        for distance in (40, 50, 60, 80):
            points = [{"x": x - distance / 2, "y": y, "id": 0}, {"x": x + distance / 2, "y": y, "id": 1}]
            kind = "touchStart" if distance == 40 else "touchMove"
            device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(viewer.locator(".zoom")).to_have_text("200%")
        assert scale_of(viewer) == pytest.approx(2, abs=0.05)
        expect(stage).to_have_css("touch-action", "none")  # now one finger pans
        assert phone.evaluate("visualViewport.scale") == 1


def test_the_tools_stay_in_sight_while_a_phone_scrolls_through_the_pictures(
    browser: Browser, url: str, patients: list[Path]
) -> None:
    with visit(browser, url, **PHONE) as phone:
        viewer = viewer_of(phone, patients[1])
        phone.wait_for_timeout(1000)  # the answer comes into view
        viewer.locator(".stage").last.evaluate("(stage) => stage.scrollIntoView({block: 'center'})")
        above = box_of(phone.locator("#statement"))[3]
        tools = box_of(viewer.locator(".toolbar"))
        assert above - 2 <= tools[1] < above + 20
        viewer.get_by_role("button", name="Zoom in").click()
        expect(viewer.locator(".zoom")).to_have_text("125%")


def test_the_original_resolution_comes_when_somebody_looks_closer(
    page: Page, large: Path, tmp_path: Path
) -> None:
    with ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(large, "ward 1/large.png")
    viewer = viewer_of(page, tmp_path / "scans.zip")
    xray = viewer.locator(".xray").last
    assert xray.evaluate("(image) => image.naturalWidth") == 768
    viewer.get_by_role("button", name="Zoom in").click()
    expect(viewer.locator(".viewer-status")).to_have_text("Original resolution: 2,000 × 1,800 pixels.")
    sizes = viewer.locator(".xray").evaluate_all("(all) => all.map((each) => each.naturalWidth)")
    assert sizes == [WIDE] * len(MODELS)


def test_who_zooms_into_a_deleted_file_is_told_so(page: Page, large: Path, folder: Path) -> None:
    viewer = viewer_of(page, large)
    for path in folder.rglob("large.png"):
        path.unlink()
    viewer.get_by_role("button", name="Original resolution").click()
    expect(viewer.locator(".viewer-status")).to_have_text(
        "Only the small picture can be shown: large.png is too old and was deleted here; upload it again."
    )
    assert viewer.locator(".xray").first.evaluate("(image) => image.naturalWidth") == 768


def test_the_viewer_works_below_a_path_and_behind_a_password(
    browser: Browser, bundles: list[Path], large: Path, tmp_path: Path
) -> None:
    secret = {"XRAY_HF_AUTH": "reader:secret"}
    with running_app(bundles, tmp_path, "--root-path", "/xray", **secret) as app, proxy(app.url) as address:
        visitor = browser.new_context().new_page()
        login = visitor.request.post(f"{address}/login", form={"username": "reader", "password": "secret"})
        assert login.ok
        visitor.goto(f"{address}/")
        visitor.get_by_role("button", name="I understand").click()
        viewer = viewer_of(visitor, large)
        viewer.get_by_role("button", name="Zoom in").click()
        expect(viewer.locator(".viewer-status")).to_have_text("Original resolution: 2,000 × 1,800 pixels.")
        visitor.context.close()


def saved(page: Page, button: Locator) -> Download:
    with page.expect_download() as download:
        button.click()
    return download.value


def pixels_of(download: Download) -> np.ndarray:
    """(H, W) grey levels of a saved picture."""
    with Image.open(download.path()) as image:
        return np.asarray(image.convert("L"))


WRITTEN = """() => {
    window.written = [];
    const draw = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (words, ...rest) {
        window.written.push(words);
        draw.call(this, words, ...rest);
    };
}"""


def test_a_saved_picture_is_what_is_shown_with_its_words(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[1])
    viewer.get_by_label("Window width").fill("1")
    page.evaluate(WRITTEN)
    save = viewer.get_by_role("button", name="Save picture")
    with_maps = saved(page, save)
    assert with_maps.suggested_filename == f"{patients[1].stem}-viewer.png"
    words = " ".join(page.evaluate("window.written"))
    for each in (patients[1].name, *MODELS, "Not a medical device", "logits", "not where disease is"):
        assert each in words
    viewer.locator(".choose-map").select_option("X-ray only")
    sheet = pixels_of(saved(page, save))
    inner = sheet[200:900, 100:900]
    assert set(np.unique(inner)) == {0, 255}  # a window of one grey level
    assert pixels_of(with_maps).shape[1] > 1.9 * 1024 > sheet.shape[1] - 100


def test_a_report_is_a_page_of_its_own_without_a_request(
    page: Page, browser: Browser, url: str, patients: list[Path], tmp_path: Path
) -> None:
    viewer = viewer_of(page, patients[1])
    report = saved(page, viewer.get_by_role("button", name="Save report", exact=True))
    assert report.suggested_filename == f"{patients[1].stem}-report.html"
    report.save_as(tmp_path / "report.html")
    ElementTree.parse(tmp_path / "report.html")  # well-formed
    reader = browser.new_context().new_page()
    asked: list[str] = []
    reader.on("request", lambda request: asked.append(request.url))
    address = (tmp_path / "report.html").as_uri()
    reader.goto(address)
    versions = json.loads(urlopen(f"{url}/health").read())["models"]
    for name in MODELS:
        expect(reader.locator("section", has_text=name)).to_contain_text(versions[name]["version"])
    expect(reader.locator("body")).to_contain_text("Not a medical device")
    expect(reader.locator(".maps figure img")).to_have_count(len(MODELS) * len(PAPER_CLASSES))
    for image in reader.locator("img").all():
        assert image.evaluate("(image) => image.complete && image.naturalWidth > 0")
    assert barriers(reader) == []
    assert [each for each in asked if not each.startswith("data:")] == [address]
    assert len(reader.pdf(format="A4")) > 10_000
    reader.context.close()
    data = saved(page, viewer.get_by_role("button", name="Save report as JSON"))
    content = json.loads(Path(data.path()).read_text(encoding="utf-8"))
    assert content["file"] == patients[1].name
    assert {name: own["version_hash"] for name, own in content["models"].items()} == {
        name: versions[name]["version"] for name in MODELS
    }


def test_answers_of_this_visit_can_be_seen_again_and_are_kept_nowhere_else(
    page: Page, patients: list[Path]
) -> None:
    strip = page.get_by_role("region", name="This visit")
    expect(strip).to_be_hidden()
    viewer_of(page, patients[0])
    viewer_of(page, patients[1])
    page.locator(".upload").get_by_label("Clear").click()
    expect(page.locator("#answers .answer")).to_have_count(0)
    expect(strip.locator("li")).to_have_count(2)
    expect(strip.locator("li .name").first).to_have_text(patients[1].name)  # the newest first
    expect(strip.locator("li .said").first).not_to_be_empty()
    strip.locator("li button").last.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h2")).to_have_text(patients[0].name)
    dialog.get_by_role("button", name="Zoom in").click()
    expect(dialog.locator(".zoom")).to_have_text("125%")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert patients[0].name not in page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })")
    strip.get_by_role("button", name="Clear").click()
    expect(strip).to_be_hidden()
    viewer_of(page, patients[2])
    expect(strip.locator("li")).to_have_count(1)


def test_pasted_pictures_are_numbered_and_more_can_be_added(page: Page, patients: list[Path]) -> None:
    more = page.get_by_role("button", name="Add more X-rays")
    expect(more.locator("visible=true")).to_have_count(0)
    for number in (1, 2):
        paste(page, patients[number].read_bytes(), "image.png")
        expect(page.locator(".answer h2")).to_have_count(number)
    expect(page.locator(".answer h2")).to_have_text(["pasted-1.png", "pasted-2.png"])
    with page.expect_file_chooser() as chooser:
        more.locator("visible=true").click()
    chooser.value.set_files(patients[0])
    expect(page.locator(".answer h2")).to_have_text(["pasted-1.png", "pasted-2.png", patients[0].name])


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_the_newest_answer_comes_into_view(
    browser: Browser, url: str, patients: list[Path], device: dict[str, Any]
) -> None:
    with visit(browser, url, **device) as visitor:
        visitor.wait_for_timeout(500)
        assert visitor.evaluate("scrollY") == 0
        viewer_of(visitor, patients[0])
        heading = visitor.locator(".answer h2")
        expect(heading).to_be_in_viewport()
        upload(visitor, patients[1])
        expect(heading).to_have_count(2)
        expect(heading.last).to_be_in_viewport()
        visitor.wait_for_timeout(1500)  # it scrolls smoothly
        _, top, _, bottom = box_of(heading.last)
        assert box_of(visitor.locator("#statement"))[3] <= top  # not behind it
        assert bottom < 300
        expect(visitor.locator(".answer.newest h2")).to_have_text([patients[1].name])


def test_who_wants_no_motion_gets_none(browser: Browser, url: str, patients: list[Path]) -> None:
    with visit(browser, url, reduced_motion="reduce") as visitor:
        visitor.evaluate(
            """() => {
                const scroll = Element.prototype.scrollIntoView;
                Element.prototype.scrollIntoView = function (options) {
                    window.behavior = options.behavior;
                    scroll.call(this, options);
                };
            }"""
        )
        viewer_of(visitor, patients[0])
        viewer_of(visitor, patients[1])
        assert visitor.evaluate("window.behavior") == "auto"


def test_an_answer_in_place_of_another_has_all_its_pictures_and_its_place_in_the_history(page: Page) -> None:
    """Gradio puts it into the elements of the last one."""
    for number in (0, 1):
        page.locator("#examples button").nth(number).click()
        expect(page.locator("#visit li")).to_have_count(number + 1)
        viewer = page.locator("#answers .viewer")
        expect(viewer.locator(".zoom")).to_have_text("100%")
        expect(viewer.locator(".opacity")).to_have_value("65")
        for picture in viewer.locator(".xray").all():
            page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture.element_handle())
        viewer.get_by_role("button", name="Zoom in").click()
        viewer.locator(".opacity").fill("20")


def test_each_model_shows_its_own_class_first(page: Page, patients: list[Path]) -> None:
    viewer = viewer_of(page, patients[0])
    for figure in viewer.locator(".stages figure").all():
        own = figure.get_attribute("data-own")
        expect(figure.locator(".label")).to_have_text(own or "")
        expect(figure.locator(".map:visible")).to_have_attribute("data-label", own or "")


OPEN = "([from, row]) => import(from).then((own) => own.openAnswer(row))"


def test_a_row_opens_its_answer_in_a_dialog(page: Page, url: str, large: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(large, "large.png")
    place = viewer_of(page, tmp_path / "scans.zip").evaluate("({ dataset }) => ({ ...dataset })")
    row = {"path": place["path"], "member": place["member"], "models": [MODELS[1]]}
    page.evaluate(OPEN, [f"{url}/{PLACE}/dialog.js", row])
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".model h3")).to_have_text([MODELS[1]])
    dialog.get_by_role("button", name="Original resolution").click()
    expect(dialog.locator(".viewer-status")).to_have_text("Original resolution: 2,000 × 1,800 pixels.")
    assert barriers(page) == []
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    page.evaluate(OPEN, [f"{url}/{PLACE}/dialog.js", {**row, "path": "/etc/hostname"}])
    expect(dialog).to_contain_text("a file was not uploaded here; upload it first.")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_barrier_is_found_in_a_viewer_that_is_used(
    browser: Browser, url: str, patients: list[Path], theme: str
) -> None:
    with visit(browser, f"{url}/?__theme={theme}") as visitor:
        viewer_of(visitor, patients[0])
        viewer = viewer_of(visitor, patients[1])
        viewer.get_by_role("button", name="Zoom in").click()
        visitor.wait_for_timeout(1000)
        assert barriers(visitor) == []
