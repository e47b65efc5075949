"""The page that needs no server, in a real browser: it answers as the engine, and asks no other host."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import build_web
import dicoms
import imagecodecs
import numpy as np
import psutil
import pytest
import test_fuzz
import test_hostile
from browsing import SECONDS, barriers, is_open, paste, running_web, upload
from PIL import ExifTags, Image, ImageOps
from playwright.sync_api import Browser, Page, expect
from pydicom import uid
from running import ROOT
from serve_web import Handler, serving

from xray_hf import manifest
from xray_hf.demo import examples, models, rendering, single_report, table
from xray_hf.demo.answers import answer
from xray_hf.demo.models import Models
from xray_hf.demo.uploads import unpack
from xray_hf.errors import BundleError, ConfigError, OutputError

pytestmark = pytest.mark.slow

if not (ROOT / "web" / "vendor").is_dir() and "CI" not in os.environ:
    pytest.skip("no web/vendor; `make web` fetches the page's libraries", allow_module_level=True)

BUNDLES = [ROOT / "pretrained" / name for name in ("xray-resnet18-multisource", "xray-cnn-multisource")]
# Of a probability: a few pixels of the graph's resize differ from Pillow's by one grey level, which changes
# sure answers by less than 0.001 and the most uncertain example by 0.007.
CLOSE = 1e-2
JPEG = 2e-2  # browsers decode JPEG with other roundings, up to 2 grey levels


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "site"
    build_web.build(BUNDLES, folder)
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with serving(site) as address:
        yield address


def is_kept(page: Page) -> None:
    """Whether the service worker has all files, and answers."""
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")


@pytest.fixture(scope="module")
def served() -> Models:
    return models.load(BUNDLES, backend="onnxruntime")


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def kinds_of(grey: Image.Image) -> dict[str, bytes]:
    """{name of a file: one X-ray as people have it}."""
    eight = np.asarray(grey)
    twelve, sixteen = eight.astype(np.uint16) * 16 + 15, eight.astype(np.uint16) * 257
    half = grey.convert("RGBA")
    half.putalpha(Image.linear_gradient("L").resize(grey.size))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    tinted = ImageOps.colorize(grey, (0, 0, 40), (255, 240, 220))
    return {
        "grey.png": saved(grey, "PNG"),
        "rgb.png": saved(grey.convert("RGB"), "PNG"),
        "rgba.png": saved(half, "PNG"),
        "palette.png": saved(grey.convert("RGB").quantize(64), "PNG"),
        "tinted.png": saved(tinted, "PNG"),
        "grey.jpg": saved(grey, "JPEG", quality=95),
        "turned.jpg": saved(grey.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned, quality=95),
        "progressive.jpg": saved(grey.convert("RGB"), "JPEG", progressive=True, quality=95),
        "grey16_with_12.png": imagecodecs.png_encode(twelve),
        "grey16.png": imagecodecs.png_encode(sixteen),
        "rgb16.png": imagecodecs.png_encode(np.stack([sixteen] * 3, -1)),
        "native8.dcm": dicoms.native(eight, 8),
        "native12.dcm": dicoms.native(twelve, 12),
        "inverted12.dcm": dicoms.native(4095 - twelve, 12, PhotometricInterpretation="MONOCHROME1"),
        "windowed12.dcm": dicoms.native(twelve, 12, WindowCenter=1600, WindowWidth=2600),
        "big_endian.dcm": dicoms.native(twelve, 12, uid.ExplicitVRBigEndian),
        "baseline.dcm": dicoms.compressed(uid.JPEGBaseline8Bit, dicoms.pillow("JPEG", quality=98), eight, 8),
        "lossless12.dcm": dicoms.compressed(
            uid.JPEGLosslessSV1, dicoms.jpeg(lossless=True, predictor=1, bitspersample=12), twelve, 12
        ),
        "j2k12.dcm": dicoms.compressed(uid.JPEG2000Lossless, dicoms.j2k(), twelve, 12),
        "lateral.dcm": dicoms.native(twelve, 12, ViewPosition="LL"),
        "tiny.png": saved(grey.resize((80, 80)), "PNG"),
        "wide.png": saved(grey.resize((900, 200)), "PNG"),
        "black.png": saved(Image.new("L", (300, 300)), "PNG"),
        "letter.png": b"Dear doctor",
        "empty.jpg": b"",
        "cut.png": saved(grey, "PNG")[:-500],
    }


@pytest.fixture(scope="module")
def kinds(patients: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, content in kinds_of(Image.open(patients[2]).convert("L")).items():
        (folder / name).write_bytes(content)
    return [*patients, *sorted(folder.iterdir())]


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with running_web(browser, url) as visitor:
        yield visitor


def rows_of(page: Page) -> list[dict[str, str]]:
    link = page.locator("#table a[download]").get_attribute("href")
    assert link is not None
    return list(csv.DictReader(io.StringIO(b64decode(link.partition("base64,")[2]).decode())))


def expected_rows(served: Models, files: list[Path]) -> list[dict[str, str]]:
    rows = table.collect(served, [str(path) for path in files], lambda *_, **__: None)
    return list(csv.DictReader(io.StringIO(table.as_csv(rows))))


def read_table(page: Page, files: list[Path]) -> list[dict[str, str]]:
    upload(page, *files)
    expect(page.locator("#table .rows tbody tr")).to_have_count(len(files))
    return rows_of(page)


def require_equal(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """Decisions, reasons and files are equal, probabilities close; of an error only that there is one."""
    assert [row["file"] for row in found] == [row["file"] for row in expected]
    for own, other in zip(found, expected, strict=True):
        assert bool(own["error"]) == bool(other["error"]), (own, other)
        if own["error"]:
            continue
        is_jpeg = own["file"].endswith("jpg") or own["file"] == "baseline.dcm"
        for name, value in own.items():
            if re.search(r": (?!decision|reason)", name) and value and other[name]:
                assert float(value) == pytest.approx(float(other[name]), abs=JPEG if is_jpeg else CLOSE), own
            else:
                assert value == other[name], (own["file"], name)


def test_files_of_all_kinds_get_the_decisions_of_the_engine(
    page: Page, served: Models, kinds: list[Path]
) -> None:
    require_equal(read_table(page, kinds), expected_rows(served, kinds))


@pytest.mark.real
@pytest.mark.exhaustive
def test_real_xrays_get_the_decisions_of_the_engine(page: Page, served: Models, real_data: Path) -> None:
    """30, half of them in full resolution."""
    folders = [real_data.with_name("coronahack_fullres"), real_data]
    found = [
        sorted(path for path in each.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))
        for each in folders
    ]
    files = [path for each in found for path in each[:: max(1, len(each) // 15)][:15]]
    own, engine = read_table(page, files), expected_rows(served, files)
    names = [f"{model}: {label}" for model in served for label in models.labels(served)]
    of_model = [[row[f"{model}: decision"] for model in served] for row in own]
    expected = [[row[f"{model}: decision"] for model in served] for row in engine]
    pairs = [(row[name], other[name]) for row, other in zip(own, engine, strict=True) for name in names]
    assert all(bool(one) == bool(other) for one, other in pairs)  # rejected images have none
    differences = [abs(float(one) - float(other)) for one, other in pairs if one]
    above = sum(each > 2e-3 for each in differences)
    print(f"{len(files)} files: largest {max(differences):.4f}, {above} of {len(differences)} above 0.002")
    assert len(files) >= 20
    assert of_model == expected
    assert max(differences) < JPEG


class _Text(HTMLParser):
    """The words of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def words_of(html: str) -> list[str]:
    parser = _Text()
    parser.feed(html)
    return parser.words


def test_the_answer_has_the_words_of_the_demo(page: Page, served: Models, patients: list[Path]) -> None:
    upload(page, *patients)
    expect(page.locator("#answers .answer")).to_have_count(len(patients))
    found = words_of(page.locator("#answers").inner_html())
    expected = words_of(rendering.as_html(served, answer(served, unpack(map(str, patients)))))
    differing = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    # Only probabilities and the highest tick below the pictures.
    assert all(abs(float(own[:-1]) - float(other[:-1])) < 100 * CLOSE for own, other in differing), differing


def test_the_report_is_the_demos(page: Page, served: Models, patients: list[Path], tmp_path: Path) -> None:
    upload(page, patients[1])
    found = {}
    for form in ("Save report as JSON", "Save report"):
        with page.expect_download() as download:
            page.get_by_role("button", name=form, exact=True).click()
        download.value.save_as(tmp_path / form)
        found[form] = (tmp_path / form).read_text()
    own = json.loads(found["Save report as JSON"])
    [answered] = answer(served, unpack([str(patients[1])]))
    expected = single_report.as_json(served, answered)
    assert own.keys() == expected.keys()
    for name in own.keys() - {"date", "models"}:
        assert own[name] == expected[name]
    for name, model in expected["models"].items():
        assert own["models"][name].keys() == model.keys()
        for key, value in model.items():
            approximate = value is not None and key in ("probabilities", "ood_score", "heat_in_lungs")
            assert own["models"][name][key] == (pytest.approx(value, abs=0.01) if approximate else value)
    html = found["Save report"]
    pictures = single_report.as_html(expected, answered).count("<img")
    assert html.count("<img") == html.count('src="data:image') == pictures


def rgba_of(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(address.partition(",")[2]))).convert("RGBA"))


def test_maps_have_the_colours_of_the_demo(page: Page, served: Models, patients: list[Path]) -> None:
    upload(page, patients[1])
    expect(page.locator("#answers .map").first).to_be_attached()
    found = page.locator("#answers .map").evaluate_all("all => all.map((each) => each.src)")
    html = rendering.as_html(served, answer(served, unpack([str(patients[1])])))
    expected = re.findall(r'class="map"[^>]*src="([^"]*)"', html)
    assert len(found) == len(expected) == 6
    for own, other in zip(found, expected, strict=True):
        images = [
            Image.open(io.BytesIO(b64decode(each.partition(",")[2]))).convert("RGBA") for each in (own, other)
        ]
        shown, meant = (np.asarray(each).astype(int) for each in images)
        # Where a map is nearly transparent, a canvas does not keep its colour.
        blended = [each[..., :3] * each[..., 3:] / 255 for each in (shown, meant)]
        assert np.abs(blended[0] - blended[1]).max() <= 6


WAITING = """async () => {
  const registration = await navigator.serviceWorker.ready;
  await registration.update();
  while (!registration.waiting) await new Promise((next) => setTimeout(next, 100));
}"""


def test_the_first_visit_fetches_every_model_once(browser: Browser, site: Path, tmp_path: Path) -> None:
    served: Counter[str] = Counter()
    get = Handler.do_GET

    def counted(handler: Handler) -> None:
        served[handler.path] += 1
        get(handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "do_GET", counted)
        with serving(site) as address, running_web(browser, address) as visitor:
            is_kept(visitor)
    files = [path for path in site.rglob("*") if path.suffix in (".safetensors", ".onnx", ".wasm")]
    large = [f"/{path.relative_to(site).as_posix()}" for path in files if "openjpeg" not in path.name]
    assert len(large) == 7
    assert {path: served[path] for path in large} == dict.fromkeys(large, 1)


def test_a_new_version_waits_until_the_old_page_is_closed_and_is_never_mixed_with_it(
    browser: Browser, site: Path, patients: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    with serving(folder) as address:
        context = browser.new_context()
        context.set_default_timeout(SECONDS)
        first = context.new_page()
        first.goto(address)
        first.get_by_role("button", name="I understand").click()
        expect(first.locator("#progress")).to_have_text("")
        shutil.rmtree(folder)
        build_web.build(BUNDLES[1:], folder)
        second = context.new_page()
        second.goto(address)
        second.evaluate(WAITING)
        for old in (first, second):  # the update is there, and both pages still have the old files
            upload(old, patients[0])
            expect(old.locator("#answers .decision")).to_have_text(["Normal", "Normal"])
        first.close()
        second.close()
        third = context.new_page()
        third.goto(address)
        third.reload()
        context.set_offline(True)
        upload(third, patients[0])
        expect(third.locator("#answers .decision")).to_have_text(["Normal"])
        context.close()


def test_after_the_first_visit_it_works_without_a_network(page: Page, url: str, patients: list[Path]) -> None:
    is_kept(page)
    page.context.set_offline(True)
    page.goto(f"{url}?__theme=dark")
    upload(page, patients[0])
    expect(page.locator("#answers .decision")).to_have_text(["Normal", "Normal"])
    page.locator('#tabs a[href="#evidence"]').click()
    expect(page.get_by_role("heading", name="External validation")).to_be_visible()


SENDS = """
const address = "ADDRESS";
const said = fetch(address, { mode: "no-cors" }).then(() => "sent", () => "not sent");
self.onmessage = async ({ data }) => { if (!data.settings) postMessage({ refusal: await said }); };
"""


@pytest.mark.parametrize("is_own", [True, False], ids=["the page's own", "another host"])
def test_not_even_the_worker_can_send_to_another_host(
    browser: Browser, url: str, site: Path, patients: list[Path], tmp_path: Path, is_own: bool
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    with serving(folder) as here:
        (folder / "reader.js").write_text(SENDS.replace("ADDRESS", here if is_own else url))
        visitor = browser.new_context().new_page()
        visitor.goto(here)
        visitor.get_by_role("button", name="I understand").click()
        upload(visitor, patients[0])
        expect(visitor.get_by_role("alert")).to_have_text(f"No answer: {'sent' if is_own else 'not sent'}")
        send = "(to) => fetch(to, { mode: 'no-cors' }).then(() => true, () => false)"
        assert visitor.evaluate(send, here if is_own else url) is is_own
        visitor.context.close()


def test_a_page_without_isolation_answers_with_one_thread(
    browser: Browser, site: Path, patients: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_web.HEADERS", {})
    with serving(site) as address, running_web(browser, address) as visitor:
        assert not visitor.evaluate("crossOriginIsolated")
        upload(visitor, patients[0])
        expect(visitor.locator("#answers .decision")).to_have_text(["Normal", "Normal"])


# As Firefox does now and then: whoever starts a thread hangs.
HANGS = "self.Worker = class { constructor() { for (;;); } };\n"


def test_the_page_falls_back_to_one_thread_if_none_starts(
    browser: Browser, site: Path, patients: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    engine, classifier = folder / "engine.js", folder / "page" / "classifier.js"
    engine.write_text(HANGS + engine.read_text())
    classifier.write_text(classifier.read_text().replace("START_PATIENCE = 10_000", "START_PATIENCE = 1_000"))
    with serving(folder) as address, running_web(browser, address) as visitor:
        assert visitor.evaluate("crossOriginIsolated")
        upload(visitor, patients[0])
        expect(visitor.locator("#answers .decision")).to_have_text(["Normal", "Normal"])


def test_examples_pasted_and_several_files_are_answered(page: Page, patients: list[Path]) -> None:
    page.locator("#examples button").nth(1).click()
    expect(page.locator("#answers .decision")).to_have_text(["Pneumonia", "Pneumonia"])
    paste(page, patients[0].read_bytes(), "image.png")
    expect(page.get_by_role("heading", name="pasted-1.png")).to_be_visible()
    upload(page, patients[0], patients[1])
    expect(page.locator("#answers .answer")).to_have_count(2)
    expect(page.locator("#visit li")).to_have_count(4)


def slow(folder: Path) -> Path:
    """An image that takes a second or more to read."""
    Image.new("L", (5900, 5900), 99).save(folder / "huge.png")
    return folder / "huge.png"


def test_files_that_come_while_others_are_read_are_answered_with_them(
    page: Page, patients: list[Path], tmp_path: Path
) -> None:
    later = [*patients, *patients][:8]  # too many for a viewer each
    upload(page, patients[0])
    expect(page.locator("#answers .answer")).to_have_count(1)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    upload(page, slow(tmp_path))
    expect(page.locator("#progress")).to_have_text("Reading 1 of 1 …")
    expect(page.locator("#progress")).to_be_in_viewport()
    upload(page, *later[:3])
    upload(page, *later[3:])
    expect(page.locator("#progress")).to_have_text("Read: 9 files.")
    assert [row["file"] for row in rows_of(page)] == ["huge.png", *(path.name for path in later)]
    expect(page.locator("#answers .answer")).to_have_count(0)


HOLDS_FILES = """() => import("/page/api.js")
    .then(({ call }) => call("picture", ["0"]))
    .then(() => true, () => false)"""


def test_nothing_is_left_of_cleared_files(page: Page, patients: list[Path], tmp_path: Path) -> None:
    clear = page.locator("#visit .clear")
    upload(page, *patients[:2])
    expect(page.locator("#table .rows")).to_be_visible()
    assert page.evaluate(HOLDS_FILES)
    clear.click()
    for id_ in ("answers", "table", "progress"):
        expect(page.locator(f"#{id_}")).to_be_empty()
    expect(clear).to_be_hidden()
    assert not page.evaluate(HOLDS_FILES)
    upload(page, patients[0])
    expect(page.locator("#visit li")).to_have_count(1)
    upload(page, slow(tmp_path))
    expect(page.locator("#progress")).to_have_text("Reading 1 of 1 …")
    clear.click()
    upload(page, patients[1])
    expect(page.locator("#answers h2")).to_have_text([patients[1].name])
    expect(page.locator("#visit .name")).to_have_text([patients[1].name])


def test_a_row_of_the_table_opens_its_answer(page: Page, patients: list[Path]) -> None:
    upload(page, *patients, *patients)
    page.locator("#table .rows .open").first.click()
    expect(page.locator("#one-answer .viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#one-answer")).to_be_hidden()


def test_the_original_resolution_is_shown(page: Page, tmp_path: Path, patients: list[Path]) -> None:
    large = Image.open(patients[0]).resize((2000, 1800))
    large.save(tmp_path / "large.png")
    upload(page, tmp_path / "large.png")
    page.get_by_role("button", name="Original resolution").click()
    expect(page.locator(".viewer-status")).to_have_text("Original resolution: 2,000 × 1,800 pixels.")


def test_it_is_used_by_the_keyboard_alone(page: Page) -> None:
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".upload input")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answers .decision")).to_have_text(["Normal", "Normal"])


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "dark"), pytest.param(1280, "light", marks=pytest.mark.exhaustive)]
)
def test_no_barrier_is_found_and_nothing_runs_over_the_edge(
    browser: Browser, url: str, patients: list[Path], width: int, scheme: str
) -> None:
    window = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    # axe is put into the page, which its policy would refuse.
    with running_web(browser, url, bypass_csp=True, **window) as visitor:
        upload(visitor, *patients[:2])
        expect(visitor.locator("#table .rows")).to_be_visible()
        assert barriers(visitor) == []
        assert visitor.evaluate("document.documentElement.scrollWidth") <= width
        visitor.locator('#tabs a[href="#evidence"]').click()
        is_open(visitor, "evidence")
        expect(visitor.get_by_role("heading", name="External validation")).to_be_visible()
        assert barriers(visitor) == []
        assert visitor.evaluate("document.documentElement.scrollWidth") <= width


def test_a_file_that_takes_too_long_is_given_up_and_the_next_is_answered(
    browser: Browser, url: str, patients: list[Path], tmp_path: Path
) -> None:
    with running_web(browser, url, bypass_csp=True) as visitor:
        visitor.clock.install()
        upload(visitor, slow(tmp_path))
        expect(visitor.locator("#progress")).to_have_text("Reading 1 of 1 …")
        visitor.clock.fast_forward(61_000)
        expect(visitor.get_by_role("alert")).to_contain_text("it took over a minute, so it was given up")
        upload(visitor, patients[0])
        expect(visitor.locator("#answers .decision")).to_have_text(["Normal", "Normal"])


# --- hostile files, and many

HOSTILE = 200
NAMES = (
    "<img src=x onerror=alert(1)>.png",
    "'\"><script>alert(1)<script>.png",
    "{{ 7 * 7 }}.png",
    "=HYPERLINK(1).png",
)


def hostile() -> dict[str, bytes]:
    """{file name: its bytes}."""
    named = {**test_hostile.strangers(test_hostile.png(300, 300)), **test_hostile.bombs()}
    files = test_fuzz.originals()
    damaged = (test_fuzz.damaged(number, files)[1] for number in range(HOSTILE - len(named) - len(NAMES)))
    return {
        **{f"{number:03}.png": data for number, data in enumerate((*named.values(), *damaged))},
        **dict.fromkeys(NAMES, test_hostile.PAGE),
    }


@pytest.mark.exhaustive
def test_hostile_files_run_nothing_and_hold_nothing_up(
    browser: Browser, url: str, patients: list[Path], tmp_path: Path
) -> None:
    given = hostile()
    assert len(given) == HOSTILE
    with running_web(browser, url) as visitor:
        visitor.on("dialog", lambda dialog: pytest.fail(f"something ran: {dialog.message}"))
        seconds = []
        for content, name in zip(given.values(), given, strict=True):
            asked = [{"name": name, "mimeType": "image/png", "buffer": content}]
            began = time.perf_counter()
            visitor.locator(".upload input").set_input_files(asked)
            expect(visitor.locator("#answers .answer h2")).to_have_text(name)
            seconds.append(time.perf_counter() - began)
            visitor.evaluate("document.querySelector('#answers').replaceChildren()")
        assert max(seconds) < 5
        upload(visitor, patients[0])
        expect(visitor.locator("#answers .decision")).to_have_text(["Normal", "Normal"])


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_the_files(browser: Browser, url: str, patients: list[Path]) -> None:
    def megabytes() -> float:
        own = [each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()]
        return sum(each.memory_info().rss for each in own) / 1e6

    with running_web(browser, url) as visitor:
        used = []
        for _ in range(3):
            read_table(visitor, [*patients, *patients] * 8)
            used.append(megabytes())
            visitor.evaluate("document.querySelector('#table').replaceChildren()")
    assert used[2] < 1.1 * used[0], used


# --- building


def test_the_page_holds_what_it_needs_and_names_no_other_host(site: Path) -> None:
    listed = json.loads((site / "files.json").read_text())
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert set(listed) == {"./", *there} - {"files.json", "sw.js"}
    index = (site / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(https?:)?//", index)
    assert len(json.loads((site / "site.json").read_text())["models"]) == len(BUNDLES)


def test_a_change_of_any_file_gives_another_version(site: Path, tmp_path: Path) -> None:
    before = (site / "sw.js").read_text()
    assert re.search(r'VERSION = "[0-9a-f]{12}"', before)
    build_web.build([BUNDLES[1]], tmp_path / "other")
    assert (tmp_path / "other" / "sw.js").read_text() != before


def test_what_cannot_be_built_says_why(
    tmp_path: Path, cnn_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=r"has no engine\.onnx; run `xray-hf export .* --whole` first"):
        build_web.build([cnn_bundle], tmp_path / "site")
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        build_web.build([BUNDLES[1]], ROOT / "web")
    monkeypatch.setattr(build_web, "WEB", tmp_path)
    with pytest.raises(ConfigError, match="does not hold the libraries; run `make web`, which needs npm"):
        build_web.build([BUNDLES[1]], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_every_synthetic_example_is_offered_but_the_one_about_other_models(site: Path) -> None:
    names = json.loads((site / "site.json").read_text())["examples"]
    assert len(names) == len(examples.OUTCOMES) - 1
    assert all((site / "examples" / name).is_file() for name in names)


def test_the_words_come_from_the_engine(site: Path) -> None:
    told = json.loads((site / "site.json").read_text())
    assert told["models"][0]["version_hash"] == manifest.version(BUNDLES[0])
    assert {"out of distribution", "unsure", "quality"} <= set(told["models"][0]["reasons"])
