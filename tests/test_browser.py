"""The page in a real browser, with the models that ship: every flow, keyboard, phone, dark, no other host."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse
from zipfile import ZipFile

import pytest
from browsing import barriers, is_open, open_tab, paste, upload
from playwright.sync_api import Browser, Page, expect
from running import ROOT, running_app

from xray_hf.demo.page import TABS
from xray_hf.task import PAPER_CLASSES

pytestmark = pytest.mark.slow

MODELS = ("xray-resnet18", "xray-cnn")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundles = [ROOT / "pretrained" / model for model in MODELS]
    with running_app(bundles, tmp_path_factory.mktemp("demo"), "--rate", "0") as app:
        yield app.url


def test_the_first_visit_is_told_what_this_is_and_only_the_first(browser: Browser, url: str) -> None:
    visitor = browser.new_context().new_page()
    visitor.goto(url)
    dialog = visitor.get_by_role("dialog")
    expect(dialog).to_contain_text("not a medical device")
    expect(dialog).to_contain_text("Children and adults come from different sources")
    visitor.keyboard.press("Enter")  # the button has the focus
    expect(dialog).to_be_hidden()
    visitor.reload()
    expect(visitor.locator("#examples")).to_be_visible()
    expect(dialog).to_be_hidden()
    visitor.close()


def test_an_example_is_answered_by_both_models_with_a_heatmap(page: Page) -> None:
    page.locator("#examples button").nth(1).click()
    for model in MODELS:
        expect(page.locator(".model", has_text=model).locator(".decision")).not_to_be_empty()
    expect(page.locator(".stage .xray").first).to_be_visible()
    assert page.locator(".choose-map option").count() in (0, 2 + len(PAPER_CLASSES))


def test_a_bad_file_says_why_and_the_others_keep_their_answers(
    page: Page, patients: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "letter.png").write_text("Dear doctor")
    upload(page, patients[0], tmp_path / "letter.png", patients[2])
    expect(page.get_by_role("alert")).to_contain_text("letter.png is not a readable image")
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
    expect(page.locator("table.rows tbody tr")).to_have_count(len(patients) + 1)
    expect(page.locator("td.error")).to_contain_text("letter.png is not a readable image")
    for is_descending in (False, True):
        page.locator("table.rows").get_by_role("button", name="Normal").first.click()
        shares = page.locator("table.rows tbody td:nth-child(6)").all_inner_texts()
        values = [float(share.strip().rstrip("%")) for share in shares if share.strip()]
        assert values == sorted(values, reverse=is_descending)
        expect(page.locator("table.rows tbody tr").last.locator("td.error")).to_be_visible()
    expect(page.locator("table.counts tbody tr")).to_have_count(len(PAPER_CLASSES) + 3)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download as CSV").click()
    with Path(saved.value.path()).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {"letter.png", *(path.name for path in patients)}


def test_a_row_of_the_table_opens_the_viewer_on_that_xray(
    page: Page, url: str, patients: list[Path], tmp_path: Path
) -> None:
    """Also of a ZIP's member, with the models that made the table."""
    with ZipFile(tmp_path / "patients.zip", "w") as archive:
        for patient in patients[:2]:
            archive.write(patient, f"scans/{patient.name}")
    open_tab(page, url, "many")
    upload(page, tmp_path / "patients.zip")
    button = page.locator("table.rows").get_by_role("button", name=patients[1].name)
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="One answer")
    expect(dialog.locator(".answer h2")).to_have_text(patients[1].name)
    expect(dialog.locator(".model h3")).to_have_text(list(MODELS))
    expect(dialog.locator(".viewer .xray").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    is_open(page, "many")
    page.locator("table.rows tbody tr").first.locator("img").click()
    expect(dialog.locator(".answer h2")).to_have_text(patients[0].name)
    page.go_back()
    expect(dialog).to_be_hidden()
    is_open(page, "many")
    expect(page.locator("table.rows")).to_be_visible()


def test_a_click_enlarges_a_figure_and_escape_closes_it(page: Page, url: str) -> None:
    open_tab(page, url, "evidence")
    figure = page.locator(".figures a").first
    figure.click()
    large = page.locator("dialog.enlarged img")
    expect(large).to_be_visible()
    assert large.get_attribute("src") == figure.locator("img").evaluate("(image) => image.src")
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)


def test_a_link_opens_its_tab(page: Page, url: str) -> None:
    for name in TABS:
        open_tab(page, url, name)
    page.goto(url)
    is_open(page, next(iter(TABS)))


def test_back_forward_and_reload_keep_the_tab(page: Page, url: str) -> None:
    page.goto(f"{url}/?__theme=light")
    page.get_by_role("link", name="How good is it?").first.click()  # the introduction's
    is_open(page, "evidence")
    for name in ("many", "api"):
        page.locator(f'#tabs a[href="#{name}"]').click()
    page.go_back()
    is_open(page, "many")
    page.go_back()
    is_open(page, "evidence")
    page.reload()
    is_open(page, "evidence")
    page.go_forward()
    is_open(page, "many")
    assert page.url == f"{url}/?__theme=light#many"


def test_a_link_to_a_heading_opens_its_tab_and_scrolls_there(page: Page, url: str) -> None:
    """Though the tab's text is fetched only then."""
    page.goto(f"{url}/#api-limits")
    page.reload()
    is_open(page, "api")
    heading = page.locator("#api-limits")
    expect(heading).to_be_in_viewport()
    # below the statement, which stays in sight
    below = page.locator("#statement").evaluate("(it) => it.getBoundingClientRect().bottom")
    assert heading.evaluate("(it) => it.getBoundingClientRect().top") >= below
    page.goto(f"{url}/#nothing-of-ours")
    page.reload()
    is_open(page, next(iter(TABS)))


def test_no_tab_is_out_of_sight_on_a_phone(browser: Browser, url: str) -> None:
    phone = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True)
    phone.goto(url)
    phone.get_by_role("button", name="I understand").click()
    for name in TABS:
        expect(phone.locator(f'#tabs a[href="#{name}"]')).to_be_in_viewport(ratio=1)
    phone.close()


def test_the_statement_is_one_line_after_the_first_look_and_stays_in_sight(page: Page, url: str) -> None:
    statement = page.locator("#statement")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        open_tab(page, url, "evidence")
        expect(page.locator("#tab-evidence h2").first).to_be_visible()
        page.mouse.wheel(0, 3000)
        page.wait_for_function("scrollY > 1000")
        expect(statement).to_be_in_viewport(ratio=1)
        expect(statement).to_contain_text("Not a medical device.")
        assert statement.evaluate("(it) => it.clientHeight") < 40
        assert statement.evaluate("(it) => it.getBoundingClientRect().top") == 0
    statement.locator("summary").click()
    expect(statement.locator("p")).to_be_visible()
    expect(statement.locator("p")).to_contain_text("COVID-19 images are mostly of adults")


def test_a_tab_that_nobody_opens_is_not_sent(browser: Browser, url: str) -> None:
    visitor = browser.new_page()
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(urlparse(request.url).path))
    visitor.goto(url)
    visitor.get_by_role("button", name="I understand").click()
    expect(visitor.locator("#examples")).to_be_visible()
    assert [path for path in asked if path.startswith("/parts/")] == []
    visitor.locator('#tabs a[href="#use"]').click()
    expect(visitor.locator(".snippet").first).to_be_visible()
    visitor.get_by_text("The model card of").first.click()
    expect(visitor.locator(".card h1").first).to_be_visible()
    assert [path for path in asked if path.startswith("/parts/")] == ["/parts/use", "/parts/use-card-0"]
    visitor.close()


def test_a_part_that_cannot_be_fetched_says_so_and_is_tried_again(page: Page, url: str) -> None:
    page.route("**/parts/evidence", lambda route: route.abort())
    open_tab(page, url, "evidence")
    expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    page.unroute("**/parts/evidence")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#tab-evidence h2").first).to_be_visible()


def test_the_header_is_painted_within_three_seconds_of_a_slow_connection(browser: Browser, url: str) -> None:
    """Chromium's slow 3G: 400 kbit/s, 400 ms; nothing in the browser's cache. And it stays where it is."""
    visitor = browser.new_page(viewport={"width": 390, "height": 844})
    network = visitor.context.new_cdp_session(visitor)
    slow = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    visitor.goto(url, wait_until="commit")
    heading = visitor.get_by_role("heading", name="Chest X-ray classifier", include_hidden=True)
    heading.wait_for()
    expect(visitor.locator("#statement")).to_contain_text("Not a medical device.")
    before = heading.bounding_box()
    painted = visitor.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    assert painted < 3000
    assert visitor.locator("#examples").count() == 0  # Gradio's part has not come yet
    network.send("Network.emulateNetworkConditions", {**slow, "latency": 0, "downloadThroughput": -1})
    visitor.locator("#examples").wait_for()
    assert heading.bounding_box() == before
    visitor.close()


# Hosts whose pages document something: the data, papers, libraries, licences.
DOCUMENTATION = (
    "arxiv.org",
    "creativecommons.org",
    "data.mendeley.com",
    "doi.org",
    "github.com",
    "huggingface.co",
)
DOCUMENTATION += ("kaggle.com", "www.kaggle.com", "www.rsna.org")


def test_every_link_leads_somewhere(page: Page, url: str, patients: list[Path]) -> None:
    wrong = []
    for name in TABS:
        open_tab(page, url, name)
        fill(page, name, patients[1])
        for card in page.locator(".card-of summary").locator("visible=true").all():
            card.click()
            expect(page.locator("page-part[aria-busy]:visible")).to_have_count(0)
        links = page.locator("a:visible").evaluate_all("(all) => all.map((link) => link.href)")
        assert links
        for link in set(links):
            address = urlparse(link)
            if address.scheme == "data":
                continue
            if address.netloc != urlparse(url).netloc:
                if address.netloc not in DOCUMENTATION:
                    wrong.append((name, link))
            elif address.fragment:
                there = f'#tab-{address.fragment}, [id="{address.fragment}"]'
                if page.locator(there).count() == 0:
                    wrong.append((name, link))
            elif not page.request.get(link).ok:
                wrong.append((name, link))
    assert wrong == []


def test_gradios_own_page_of_its_api_cannot_be_reached(page: Page, url: str) -> None:
    for view in ("api", "api-recorder"):
        page.goto(f"{url}/?view={view}")
        expect(page.locator("#examples")).to_be_visible()
        assert page.locator("footer").count() == 0
        expect(page.get_by_text("API documentation")).to_have_count(0)


def fill(page: Page, name: str, patient: Path) -> None:
    """Give the open tab the answers that it can have."""
    expect(page.locator(".tab-panel:visible")).to_have_count(1)
    expect(page.locator("page-part[aria-busy]:visible")).to_have_count(0)
    if name in ("read", "many"):
        upload(page, patient)
        answers = page.locator(".answer .viewer, table.rows tbody tr").locator("visible=true")
        expect(answers).to_have_count(1)


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("dark", 390),
        pytest.param("light", 1280, marks=pytest.mark.exhaustive),
        pytest.param("light", 390, marks=pytest.mark.exhaustive),
        pytest.param("dark", 1280, marks=pytest.mark.exhaustive),
    ],
)
def test_no_barrier_is_found(page: Page, url: str, patients: list[Path], theme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{url}/?__theme={theme}")
    page.locator("#statement summary").click()
    found = {}
    for name in TABS:
        page.locator(f'#tabs a[href="#{name}"]').click()
        is_open(page, name)
        fill(page, name, patients[1])
        for card in page.locator(".card-of summary").locator("visible=true").all():
            card.click()
        page.wait_for_timeout(1000)  # Gradio fades answers in, pale at first
        found[name] = barriers(page)
    assert found == {name: [] for name in TABS}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barrier_is_found_in_the_welcome(browser: Browser, url: str, theme: str) -> None:
    visitor = browser.new_page()
    visitor.goto(f"{url}/?__theme={theme}")
    expect(visitor.get_by_role("dialog")).to_be_visible()
    assert barriers(visitor) == []
    visitor.close()


def test_nothing_runs_over_the_edge_of_a_phone(browser: Browser, url: str, patients: list[Path]) -> None:
    phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    phone.goto(url)
    phone.get_by_role("button", name="I understand").click()
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
    visitor.get_by_role("button", name="I understand").click()
    upload(visitor, *patients, tmp_path / "letter.png")
    table = visitor.get_by_role("region", name="Answers")
    expect(table.locator("tbody tr")).to_have_count(len(patients) + 1)
    assert table.evaluate("(box) => box.scrollWidth - box.clientWidth") == 0
    expect(table.locator(".error")).to_have_css("color", "rgb(153, 27, 27)")
    visitor.close()


def test_the_keyboard_skips_to_the_content_and_goes_on_at_the_answer(
    page: Page, url: str, patients: list[Path]
) -> None:
    open_tab(page, url, "read")
    page.reload()  # the keyboard starts at the top of a page that was just loaded
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("gradio-app")).to_be_focused()
    expect(page.locator("#tab-read")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#tab-read :focus")).to_have_count(1)
    for name, start in (("read", ".answer h2"), ("many", '#table [role="status"]')):
        page.locator(f'#tabs a[href="#{name}"]').click()
        is_open(page, name)
        page.evaluate("document.activeElement.blur()")
        upload(page, patients[0])
        expect(page.locator(start)).to_be_focused()


def test_whoever_uses_a_model_finds_the_licences_of_its_training_data(page: Page, url: str) -> None:
    open_tab(page, url, "use")
    page.get_by_role("navigation", name="Contents").get_by_role(
        "link", name="Training data and licences"
    ).click()
    expect(page.locator("#use-data")).to_be_in_viewport()
    expect(page.locator(".use li", has_text="Licence:").first).to_contain_text("CoronaHack")


def test_the_page_can_be_used_without_a_mouse(page: Page) -> None:
    page.locator("#tabs a").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    is_open(page, "many")
