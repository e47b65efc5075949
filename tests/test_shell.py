"""The HTML around Gradio's part: link preview, header, what is sent and how."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlparse

import pytest
import requests
from PIL import Image
from running import ROOT, App, running_app
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from xray_hf.demo.page import TABS
from xray_hf.demo.shell import PLACE, PREVIEW, PREVIEW_SIZE, STATIC, Shell

pytestmark = pytest.mark.slow

MAX_PREVIEW = 60_000  # bytes
MAX_PAGE = 30_000  # bytes of HTML as sent
PAGE = """<html><head><meta charset="utf-8" />
<meta property="og:image"
  content="https://elsewhere.example/a.jpg" /><meta name="twitter:creator" content="@Gradio" />
<link rel="manifest" href="/manifest.json" />
<script>window.gradio_config = 1;</script><script type="module" src="a.js"></script>
<link rel="stylesheet" href="a.css"></head><body><gradio-app></gradio-app></body></html>"""


class Meta(HTMLParser):
    """The meta tags of a page, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As HTMLParser says."""
        given = {name: value or "" for name, value in attrs}
        if tag == "meta" and (name := given.get("property") or given.get("name")):
            self.found.append((name, given.get("content", "")))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The demo as it ships: its page is the heaviest."""
    bundles = sorted(path.parent for path in (ROOT / "pretrained").glob("*/config.json"))
    with running_app(bundles, tmp_path_factory.mktemp("demo")) as running:
        yield running


def shell(root_path: str = "") -> TestClient:
    inside = Starlette(routes=[Route("/", lambda request: HTMLResponse(PAGE))])
    inside.add_middleware(
        Shell, title="A & B", description='"C"', header="<header>D</header>", root_path=root_path
    )
    return TestClient(inside, base_url="http://here.example:7860")


def test_a_link_preview_is_ours_alone(app: App) -> None:
    found = Meta(requests.get(app.url).text).found
    preview = [(name, text) for name, text in found if name.startswith(("og:", "twitter:"))]
    assert len(dict(preview)) == len(preview)
    said = dict(found)
    assert said["og:title"] == "Chest X-ray classifier"
    assert "For research and teaching only, not a medical device." in said["og:description"]
    assert said["description"] == said["og:description"]
    assert said["og:url"] == f"{app.url}/"
    assert said["twitter:card"] == "summary_large_image"
    assert not re.search("gradio", str(preview), re.IGNORECASE)
    assert {urlparse(text).netloc for _, text in preview if "://" in text} == {urlparse(app.url).netloc}
    picture = requests.get(said["og:image"])
    assert picture.headers["content-type"] == "image/png"
    assert len(picture.content) <= MAX_PREVIEW


def test_the_preview_has_the_size_that_it_names(app: App) -> None:
    with Image.open(STATIC / PREVIEW) as picture:
        assert picture.size == PREVIEW_SIZE


@pytest.mark.parametrize(
    ("root_path", "headers", "address"),
    [
        ("", {}, "http://here.example:7860"),
        ("/xray", {}, "http://here.example:7860/xray"),
        ("/xray/", {"x-forwarded-host": "there.example, inner"}, "http://there.example/xray"),
        ("", {"x-forwarded-host": '"><script>'}, "http://&#34;&gt;&lt;script&gt;"),
    ],
)
def test_addresses_are_those_that_the_visitor_sees(
    root_path: str, headers: dict[str, str], address: str
) -> None:
    html = shell(root_path).get("/", headers=headers).text
    assert f'<meta property="og:url" content="{address}/">' in html
    assert f'<meta property="og:image" content="{address}/{PLACE}/{PREVIEW}">' in html


def test_the_header_comes_before_all_that_holds_up_painting() -> None:
    html = shell().get("/").text
    assert "elsewhere" not in html
    assert "@Gradio" not in html
    assert "manifest" not in html
    assert "<title>A &amp; B</title>" in html
    order = ("</head>", "<header>D</header>", "gradio_config", "a.css", "<gradio-app>")
    places = [html.index(each) for each in order]
    assert places == sorted(places)
    assert html.index('<script type="module" src="a.js">') < places[0]


def test_behind_a_proxy_of_https_addresses_are_https(app: App) -> None:
    """uvicorn trusts a proxy on this computer."""
    page = requests.get(app.url, headers={"x-forwarded-proto": "https", "x-forwarded-host": "there.example"})
    assert dict(Meta(page.text).found)["og:url"] == "https://there.example/"


def sent(address: str) -> tuple[int, str]:
    """How many bytes an answer has on the wire, and how they are encoded."""
    with requests.get(address, headers={"Accept-Encoding": "gzip"}, stream=True) as answer:
        assert answer.status_code == 200
        return len(answer.raw.read(decode_content=False)), answer.headers.get("content-encoding", "")


def test_text_is_compressed_and_pictures_are_not(app: App) -> None:
    size, encoding = sent(app.url)
    assert (size < MAX_PAGE, encoding) == (True, "gzip"), size
    texts = ["config", "gradio_api/info", *(f"{PLACE}/{name}" for name in ("style.css", "navigation.js"))]
    texts += [f"parts/{name}" for name in ("evidence", "use", "api", "use-card-0")]
    assert {name: sent(f"{app.url}/{name}")[1] for name in texts} == dict.fromkeys(texts, "gzip")
    figure = next((ROOT / "pretrained").glob("*/figures/*.png"))
    for picture in (f"{PLACE}/{PREVIEW}", f"figures/0/{figure.name}"):
        assert sent(f"{app.url}/{picture}")[1] == ""


def test_an_answer_still_streams(app: App, xray: Path) -> None:
    [path] = requests.post(
        f"{app.url}/gradio_api/upload", files={"files": (xray.name, xray.read_bytes())}
    ).json()
    functions = requests.get(f"{app.url}/config").json()["dependencies"]
    number = next(each["id"] for each in functions if each["api_name"] == "read_many")
    files = [{"path": path, "meta": {"_type": "gradio.FileData"}}] * 100
    call = {"fn_index": number, "session_hash": "streams", "data": [files]}
    assert requests.post(f"{app.url}/gradio_api/queue/join", json=call).ok
    times = []
    address = f"{app.url}/gradio_api/queue/data?session_hash=streams"
    with requests.get(address, headers={"Accept-Encoding": "gzip"}, stream=True) as stream:
        assert "content-encoding" not in stream.headers
        for line in stream.iter_lines(chunk_size=1):
            if line:
                times.append((time.monotonic(), line))
    (first, start), (last, end) = next(each for each in times if b"process_starts" in each[1]), times[-2]
    assert b"process_starts" in start
    assert b"process_completed" in end
    assert last - first > 0.2  # a hundred X-rays take longer than that; held back, both would come at once


def test_every_tab_has_its_panel_and_its_link(app: App) -> None:
    html = requests.get(app.url).text
    assert re.findall(r'<a href="#(\w+)">', html.partition("<nav")[2].partition("</nav>")[0]) == list(TABS)
    for name in TABS:
        assert f'"elem_id":"tab-{name}"' in html


def test_a_part_that_does_not_exist_is_refused(app: App) -> None:
    for name in ("nothing", "../server.py", "%2e%2e/server.py"):
        assert requests.get(urljoin(app.url, f"/parts/{name}")).status_code == 404


@pytest.mark.exhaustive
def test_two_batches_of_200_files_within_a_minute_are_answered(app: App, xray: Path, tmp_path: Path) -> None:
    """gradio_client uploads each file in its own request."""
    from gradio_client import Client, handle_file

    files = [tmp_path / f"{number}.png" for number in range(200)]
    for file in files:
        file.write_bytes(xray.read_bytes())
    program = Client(app.url, verbose=False)
    started = time.monotonic()
    jobs = [program.submit([handle_file(file) for file in files], api_name="/read_many") for _ in range(2)]
    answers = [job.result() for job in jobs]
    program.close()
    assert [len(rows) for rows in answers] == [200, 200]
    assert not any(row["error"] for rows in answers for row in rows)
    assert time.monotonic() - started < 60
