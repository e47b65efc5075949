"""Code on the page runs as it stands, and gives what the engine gives."""

from __future__ import annotations

import ast
import asyncio
import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from textwrap import indent

import gradio as gr
import imagecodecs
import numpy as np
import pytest
import requests
import tifffile
from conftest import random_bundle
from PIL import ExifTags, Image, ImageOps
from running import App, in_turn, running_app
from test_engine_graph import WORDS as REASONS
from warm_python import WarmPython, warm_python

from xray_hf import engine_graph, manifest, snippets
from xray_hf.demo import page
from xray_hf.demo.rendering import render
from xray_hf.demo.tabs import api_docs, use
from xray_hf.files import write_json
from xray_hf.inference import Engine, Prediction
from xray_hf.manifest import Manifest
from xray_hf.probabilities import softmax
from xray_hf.reading import read_grey
from xray_hf.task import PAPER_CLASSES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DEMO = Path(page.__file__).parent
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def resnet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An xray-resnet18 of random weights with its graphs, in a folder whose name needs care in a text."""
    folder = random_bundle("xray-resnet18", 5, tmp_path_factory.mktemp("bündle 'of' mine"))
    write_json(folder / manifest.CALIBRATION, {"temperature": 2.0, "abstain_below": 0.4})
    engine_graph.export(folder)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """A Python that has imported the libraries of the snippets."""
    # where transformers copies a bundle's code
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules"))}
    modules = ("transformers.pipelines", "timm", "onnxruntime", "gradio_client", "mcp")
    with warm_python(*modules, environment=environment) as warm:
        yield warm


def run(python: WarmPython, codes: list[str], xray: Path) -> list[str]:
    """What each code prints, in a process of their own, of another X-ray than chest.png."""
    assert [code.count(f'"{snippets.FILE}"') for code in codes] == [1] * len(codes)
    named = [code.replace(f'"{snippets.FILE}"', json.dumps(str(xray))) for code in codes]
    done = python.run(in_turn(*named), environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def probabilities(printed: str) -> dict[str, float]:
    """What transformers and timm print, in one form."""
    found = ast.literal_eval(printed)
    return {row["label"]: row["score"] for row in found} if isinstance(found, list) else found


def uncalibrated(found: Prediction) -> dict[str, float]:
    """A softmax of the logits."""
    return dict(zip(found.probabilities, softmax(found.logits[None])[0].tolist(), strict=True))


def assert_same_decision(printed: str, expected: Prediction) -> None:
    """What the code for ONNX Runtime alone prints: decision, reason, calibrated probabilities."""
    decision, words, numbers = re.fullmatch(r"(\S+) (.*) (\{.*\})", printed).groups()  # type: ignore[union-attr]
    assert decision == expected.decision
    assert re.search(REASONS[words], expected.reason)
    assert ast.literal_eval(numbers) == pytest.approx(expected.probabilities, abs=2e-3)


@pytest.fixture
def shipped_cnn() -> Path:
    """The calibrated xray-cnn that ships, by the path that docs/loading.md has."""
    return Path("pretrained/xray-cnn")


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the paths of docs lead to files."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        ("shipped_cnn", ["transformers", "ONNX Runtime alone", "xray_hf"]),
        ("resnet_bundle", ["transformers", "timm", "ONNX Runtime alone", "xray_hf"]),
    ],
)
def test_every_snippet_gives_what_the_engine_gives(
    model: str, titles: list[str], python: WarmPython, xray: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    expected = Engine.from_pretrained(folder).predict(xray)
    found = snippets.of_model(manifest.read(folder))
    assert [each.title for each in found] == titles
    *others, by_graph, own = run(python, [each.code for each in found], xray)
    for printed in others:
        assert probabilities(printed) == pytest.approx(uncalibrated(expected), abs=2e-3)
    assert_same_decision(by_graph, expected)
    assert own.startswith(f"{expected.decision} {expected.reason} {{'Normal': ")


# --- every kind of file

MORE_THAN_8_BITS = "16"  # in the names of the files below that the code has to refuse
TO_CLASSIFY = (
    "rgba.png",
    "cut_out_palette.png",
    "turned_6.jpg",
    "cmyk.jpg",
    "turned.tif",
)  # loading takes long


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def kinds_of(grey: Image.Image) -> dict[str, bytes]:
    """{name of a file: one X-ray as people have it}."""
    eight = np.asarray(grey)
    twelve, sixteen = eight.astype(np.uint16) * 16 + 15, eight.astype(np.uint16) * 257
    veil = Image.linear_gradient("L").resize(grey.size)
    half = grey.convert("RGBA")
    half.putalpha(veil)
    grey_alpha = grey.convert("LA")
    grey_alpha.putalpha(veil)
    palette = grey.convert("RGB").quantize(64)
    cut_out = palette.copy()
    cut_out.info["transparency"] = 0
    tinted = ImageOps.colorize(grey, (0, 0, 40), (255, 240, 220))
    photograph = ImageOps.colorize(grey, (60, 0, 0), (255, 160, 90))
    stained = photograph.copy()
    stained.putalpha(veil)
    return {
        "grey.png": saved(grey, "PNG"),
        "one_bit.png": saved(grey.convert("1"), "PNG"),
        "rgb.png": saved(grey.convert("RGB"), "PNG"),
        "tinted.png": saved(tinted, "PNG"),
        "coloured.png": saved(photograph, "PNG"),
        "coloured_alpha.png": saved(stained, "PNG"),
        "coloured_palette.png": saved(photograph.quantize(64), "PNG"),
        "coloured_turned.jpg": saved(photograph, "JPEG", exif=turned(6)),
        "rgba.png": saved(half, "PNG"),
        "grey_alpha.png": saved(grey_alpha, "PNG"),
        "palette.png": saved(palette, "PNG"),
        "cut_out_palette.png": saved(cut_out, "PNG"),
        **{f"turned_{number}.jpg": saved(grey, "JPEG", exif=turned(number)) for number in (3, 6, 8)},
        "turned.png": saved(grey, "PNG", exif=turned(6)),
        "cmyk.jpg": saved(tinted.convert("CMYK"), "JPEG", quality=95),
        "grey.webp": saved(grey, "WEBP", lossless=True),
        "grey.bmp": saved(grey, "BMP"),
        "white_is_zero.tif": tiff(255 - eight, photometric="miniswhite"),
        "turned.tif": tiff(eight, extratags=[("Orientation", 3, 1, 6, True)]),
        "grey16_with_12.png": imagecodecs.png_encode(twelve),
        "grey16.png": imagecodecs.png_encode(sixteen),
        "grey_alpha16.png": imagecodecs.png_encode(np.stack([sixteen] * 2, -1)),
        "rgb16_with_12.png": imagecodecs.png_encode(np.stack([twelve] * 3, -1)),
        "rgb16.png": imagecodecs.png_encode(np.stack([sixteen] * 3, -1)),
        "rgba16.png": imagecodecs.png_encode(np.stack([sixteen] * 4, -1)),
        "uint16.tif": tiff(twelve),
        "int16.tif": tiff(twelve.astype(np.int16) - 1024),
        "uint16_white_is_zero.tif": tiff(65535 - sixteen, photometric="miniswhite"),
        "rgb16.tif": tiff(np.stack([twelve] * 3, -1), photometric="rgb"),
        "rgb16_deflate.tif": tiff(np.stack([twelve] * 3, -1), photometric="rgb", compression="deflate"),
        "uint32_as_16.tif": tiff(twelve.astype(np.uint32) * 2**16),
        "float_16.tif": tiff(eight.astype(np.float32) / 255),
    }


@pytest.fixture(scope="module")
def kinds(xray: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, content in kinds_of(Image.open(xray).convert("L")).items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def image_of(code: str, file: Path) -> Image.Image | str:
    """`image` as the code that every snippet begins with makes it, or what it stops with."""
    names: dict[str, Image.Image] = {"Image": Image, "ImageOps": ImageOps}
    try:
        exec(code.replace(f'"{snippets.FILE}"', repr(str(file))), names)
    except SystemExit as end:
        return str(end.code)
    return names["image"]


def test_printed_code_reads_the_pixels_that_the_engine_reads(kinds: list[Path]) -> None:
    for file in kinds:
        found = image_of(snippets.READ, file)
        if MORE_THAN_8_BITS in file.name:
            assert found == f"{file} has more than 8 bits a channel: scale it to 8, or use xray_hf."
        else:
            assert isinstance(found, Image.Image), found
            assert np.array_equal(np.asarray(found.convert("L")), np.asarray(read_grey(file))), file.name


def test_all_printed_code_opens_a_file_in_these_lines() -> None:
    assert snippets.READ in (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")
    function = indent(snippets.READ.replace(f'"{snippets.FILE}"', "path"), "    ")
    assert f'def read(path):\n{function}    return image.convert("L")\n' in (
        ROOT / "docs" / "hub.md"
    ).read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("pretrained/*/README.md")]:
        code = path.read_text(encoding="utf-8")
        checks = len(re.findall(r'if image\.mode\[0\] in "IF" or ";16" in str\(image\.tile\):', code))
        assert len(re.findall(r"\bImage\.open\(", code)) == checks, path


def answers(python: WarmPython, codes: list[str], files: list[Path]) -> list[list[dict[str, float] | str]]:
    """What each code prints of each file, or the words that it stops with; all in one process."""
    program = f"""
import contextlib, io, json
said = []
for program in {codes!r}:
    said.append([])
    for file in {list(map(str, files))!r}:
        named = program.replace({f'"{snippets.FILE}"'!r}, repr(file))
        try:
            with contextlib.redirect_stdout(io.StringIO()) as lines:
                exec(named, {{"__name__": "__main__"}})
            said[-1].append(lines.getvalue().strip().splitlines()[-1])
        except SystemExit as end:
            said[-1].append("SystemExit: " + str(end))
print(json.dumps(said))
"""
    done = python.run(program, environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout.splitlines()[-1])
    return [[each if each.startswith("SystemExit") else probabilities(each) for each in own] for own in lines]


@pytest.mark.parametrize(
    "model", ["shipped_cnn", pytest.param("resnet_bundle", marks=pytest.mark.exhaustive)]
)
def test_no_kind_of_file_gets_another_answer_from_printed_code(
    model: str, kinds: list[Path], python: WarmPython, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    engine = Engine.from_pretrained(folder)
    files = [file for file in kinds if MORE_THAN_8_BITS in file.name or file.name in TO_CLASSIFY]
    *others, _, _ = snippets.of_model(manifest.read(folder))
    printed = answers(python, [each.code for each in others], files)
    for snippet, found in zip(others, printed, strict=True):
        assert snippets.READ in snippet.code
        for file, answer in zip(files, found, strict=True):
            if file.name in TO_CLASSIFY:
                expected = uncalibrated(engine.predict(file))
                assert answer == pytest.approx(expected, abs=2e-3), (snippet.title, file.name)
            else:
                assert isinstance(answer, str), (snippet.title, file.name)
                assert answer.startswith(f"SystemExit: {file} has more than 8 bits a channel: ")


@pytest.mark.parametrize("model", ["shipped_cnn", "resnet_bundle"])
def test_the_engines_graph_decides_about_every_kind_of_file(
    model: str, kinds: list[Path], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(model)
    engine, decisions = Engine.from_pretrained(folder), set()
    *_, snippet, _ = snippets.of_model(manifest.read(folder))
    for file in kinds:
        code = snippet.code.replace(f'"{snippets.FILE}"', repr(str(file)))
        if MORE_THAN_8_BITS in file.name:
            with pytest.raises(SystemExit, match="has more than 8 bits a channel"):
                exec(code, {})
            continue
        exec(code, {})
        expected = engine.predict(file)
        assert_same_decision(capsys.readouterr().out.strip(), expected)
        assert ("it is coloured" in expected.reason) == ("coloured" in file.name)
        decisions.add(expected.decision)
    assert len(decisions) > 1


def test_the_guide_shows_the_code_of_a_card(shipped_cnn: Path) -> None:
    *_, snippet, _ = snippets.of_model(manifest.read(shipped_cnn))
    assert f"```python\n{snippet.code}```\n" in (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")


def test_a_bundle_without_the_engines_graph_has_no_code_for_it(cnn_bundle: Path) -> None:
    titles = [each.title for each in snippets.of_model(manifest.read(cnn_bundle))]
    assert titles == ["transformers", "xray_hf"]


def test_a_model_of_the_hub_is_named_by_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "models--owner--xray-of--mine" / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    (folder / manifest.ENGINE).touch()
    assert snippets.cached_id(folder) == "owner/xray-of--mine"
    assert snippets.cached_id(Path("pretrained/xray-cnn")) is None
    codes = [
        each.code
        for each in snippets.of_model(Manifest(folder, "xray-resnet18", PAPER_CLASSES, 224, False, ()))
    ]
    assert 'model="owner/xray-of--mine")' in codes[0]
    assert 'timm.create_model("hf-hub:owner/xray-of--mine"' in codes[1]
    files = 'allow_patterns=["engine.onnx", "*.safetensors"]'
    assert f'snapshot_download("owner/xray-of--mine", {files})' in codes[2]
    assert 'Engine.from_pretrained("owner/xray-of--mine")' in codes[3]
    for code in codes:
        ast.parse(code)


def shown(html: str) -> list[str]:
    """The code in a part of the page."""
    found = re.findall(r"<pre [^>]*><code>(.*?)</code></pre>", html, re.DOTALL)
    return [unescape(re.sub(r"<[^>]+>", "", code)) for code in found]


def test_the_page_shows_the_code_as_it_is(resnet_bundle: Path) -> None:
    code = snippets.of_model(manifest.read(resnet_bundle))
    assert shown(render("use", models={"one": code}, cards={}, data=[])) == [each.code for each in code]


def parts(app: App) -> Callable[[str], str]:
    """What a page of this app shows in a tab of documentation."""
    return lambda name: requests.get(f"{app.url}/parts/{name}").text


def ran(python: WarmPython, code: str, folder: Path) -> str:
    """What code of the tab API prints, as Python or as a shell's."""
    if code.startswith(("import", "from")):
        done = python.run(code, environment={}, cwd=folder)
    else:
        command = ["bash", "-ec", code]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("password", ["", "user:password"])
def test_who_asks_the_page_gets_the_engines_answer(
    python: WarmPython, cnn_bundle: Path, xray: Path, tmp_path: Path, password: str
) -> None:
    shutil.copy(xray, tmp_path / snippets.FILE)
    for folder in ("app", "scans"):
        (tmp_path / folder).mkdir()
    for name in ("one.png", "two.png"):
        shutil.copy(xray, tmp_path / "scans" / name)
    decision = Engine.from_pretrained(cnn_bundle).predict(xray).decision
    with running_app([cnn_bundle], tmp_path / "app", XRAY_HF_AUTH=password) as app:
        code = shown(parts(app)("api"))
        assert code == [each.code for each in api_docs.snippets(app.url, bool(password))]
        one, _, curl = (ran(python, each, tmp_path) for each in code)
    for printed in (one, curl):
        assert re.search(f"[\"']decision[\"']: [\"']{decision}[\"']", printed)
    with (tmp_path / "answers.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["xray-cnn: decision"]) for row in rows] == [
        ("one.png", decision),
        ("two.png", decision),
    ]


def test_an_assistant_is_connected_as_the_page_says(
    python: WarmPython, cnn_bundle: Path, xray: Path, tmp_path: Path
) -> None:
    shutil.copy(xray, tmp_path / snippets.FILE)
    (tmp_path / "app").mkdir()
    decision = Engine.from_pretrained(cnn_bundle).predict(xray).decision
    with running_app([cnn_bundle], tmp_path / "app", "--mcp") as app:
        *_, configuration, program = shown(parts(app)("api"))
        assert json.loads(configuration)["mcpServers"]["xray_hf"]["url"] == f"{app.url}/mcp"
        tools, answer = ran(python, program, tmp_path).splitlines()
    assert ast.literal_eval(tools) == ["classify_chest_xray", "describe_models"]
    assert ast.literal_eval(answer)["models"]["xray-cnn"]["decision"] == decision


def test_the_page_documents_every_public_function_and_no_other(cnn_bundle: Path, tmp_path: Path) -> None:
    with running_app([cnn_bundle], tmp_path) as app:
        html = parts(app)("api")
        info = requests.get(f"{app.url}/gradio_api/info").json()["named_endpoints"]
    assert re.findall(r"<h3><code>(/\w+)</code></h3>", html) == list(info)
    for function in info.values():
        assert unescape(html).count(function["description"]) == 1
        for each in function["parameters"]:
            words = re.search(rf"<code>{each['parameter_name']}</code>.*?<dd>(.*?)</dd>", html, re.DOTALL)
            assert words
            assert len(words[1]) > 10
    assert "python app.py --mcp" in html


def test_a_functions_documentation_is_its_docstring() -> None:
    def read(file: str, model: str = "all") -> None:
        """Read it.

        Args:
            file: an X-ray,
                of any kind.
            model: its name.

        Returns:
            {"a": 1,
            "b": 2}
        """

    async def document() -> list[api_docs.Function]:  # outside a loop, Gradio leaves loops open
        with gr.Blocks(analytics_enabled=False) as page:
            gr.Button().click(read, [gr.File(), gr.Textbox("all")], gr.JSON(), api_name="read")
            gr.Button().click(lambda: 1, None, gr.JSON(), api_name="hidden", api_visibility="private")
        return list(api_docs.functions(page))

    assert asyncio.run(document()) == [
        api_docs.Function(
            "/read",
            "Read it.",
            [("file", "file", "an X-ray, of any kind."), ("model", "str, optional", "its name.")],
            '{"a": 1,\n"b": 2}',
        )
    ]


def test_a_card_comes_without_its_front_matter_and_with_its_figures(tmp_path: Path) -> None:
    text = "---\nlicense: apache-2.0\n---\n# Model\n\n---\n\n![curves](figures/curves.png)\n\n<script>\n"
    (tmp_path / manifest.CARD).write_text(text, encoding="utf-8")
    card = use.card_of(tmp_path, 1)
    assert "license" not in card
    assert "<h1>Model</h1>\n<hr />\n" in card
    assert '<img src="figures/1/curves.png" alt="curves" />' in card
    assert "<script" not in card


def test_a_bundle_without_a_readable_card_has_none(tmp_path: Path) -> None:
    assert use.card_of(tmp_path, 0) == ""
    (tmp_path / manifest.CARD).write_bytes(b"\xff\xfe\x00")
    assert use.card_of(tmp_path, 0) == ""


def test_links_within_the_page_lead_to_its_tabs() -> None:
    templates = [path.read_text(encoding="utf-8") for path in (DEMO / "templates").glob("*.html")]
    linked = {name for text in templates for name in re.findall(r'href="#(\w+)"', text)}
    assert linked - {"skip"} <= page.TABS.keys()
