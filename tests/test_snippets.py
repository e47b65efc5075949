"""Code on the page runs as it stands, and gives what the engine gives."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from conftest import random_bundle
from running import in_turn, running_app

from xray_hf import manifest, snippets
from xray_hf.demo import layout, usage
from xray_hf.inference import Engine
from xray_hf.manifest import Manifest
from xray_hf.task import PAPER_CLASSES

DEMO = Path(usage.__file__).parent
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def resnet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An xray-resnet18 of random weights with its graph, in a folder whose name needs care in a text."""
    return random_bundle("xray-resnet18", 5, tmp_path_factory.mktemp("bündle 'of' mine"))


def run(codes: list[str], xray: Path, modules: Path) -> list[str]:
    """What each code prints, in a process of their own, of another X-ray than chest.png."""
    assert [code.count(f'"{snippets.FILE}"') for code in codes] == [1] * len(codes)
    named = [code.replace(f'"{snippets.FILE}"', json.dumps(str(xray))) for code in codes]
    # where transformers copies a bundle's code
    environment = {**os.environ, "HF_MODULES_CACHE": str(modules)}
    done = subprocess.run(
        [sys.executable, "-c", in_turn(*named)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def probabilities(printed: str) -> dict[str, float]:
    """What transformers, timm and ONNX Runtime print, in one form."""
    found = ast.literal_eval(printed)
    return {row["label"]: row["score"] for row in found} if isinstance(found, list) else found


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        ("cnn_bundle", ["transformers", "ONNX Runtime alone", "xray_hf"]),
        ("resnet_bundle", ["transformers", "timm", "ONNX Runtime alone", "xray_hf"]),
    ],
)
def test_every_snippet_gives_what_the_engine_gives(
    model: str, titles: list[str], xray: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    expected = Engine.from_pretrained(folder).predict(xray)
    found = snippets.of_model(manifest.read(folder))
    assert [each.title for each in found] == titles
    *others, own = run([each.code for each in found], xray, tmp_path)
    for printed in others:
        assert probabilities(printed) == pytest.approx(expected.probabilities, abs=2e-3)
    assert own.startswith(f"{expected.decision} {expected.reason} {{'Normal': ")


def test_a_model_of_the_hub_is_named_by_its_id() -> None:
    folder = Path("/cache/hub/models--owner--xray-of--mine/snapshots/0123abc")
    assert snippets.cached_id(folder) == "owner/xray-of--mine"
    assert snippets.cached_id(Path("pretrained/xray-cnn")) is None
    codes = [
        each.code
        for each in snippets.of_model(Manifest(folder, "xray-resnet18", PAPER_CLASSES, 224, False, ()))
    ]
    assert 'model="owner/xray-of--mine")' in codes[0]
    assert 'timm.create_model("hf-hub:owner/xray-of--mine"' in codes[1]
    files = 'allow_patterns=["model.onnx", "*.safetensors"]'
    assert f'snapshot_download("owner/xray-of--mine", {files})' in codes[2]
    assert 'Engine.from_pretrained("owner/xray-of--mine")' in codes[3]
    for code in codes:
        ast.parse(code)


def test_the_page_shows_the_code_as_it_is(resnet_bundle: Path) -> None:
    description = manifest.read(resnet_bundle)
    html = usage.as_html({"one": description}, ADDRESS)
    shown = [
        unescape(re.sub(r"<[^>]+>", "", code))
        for code in re.findall(r"<pre [^>]*><code>(.*?)</code></pre>", html, re.S)
    ]
    assert shown == [each.code for each in [*snippets.of_model(description), *usage.of_page(ADDRESS)]]
    assert html.count(f'<span class="address">{ADDRESS}</span>') == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_who_asks_the_page_gets_the_engines_answer(cnn_bundle: Path, xray: Path, tmp_path: Path) -> None:
    shutil.copy(xray, tmp_path / snippets.FILE)
    decision = Engine.from_pretrained(cnn_bundle).predict(xray).decision
    (tmp_path / "app").mkdir()
    with running_app([cnn_bundle], tmp_path / "app") as app:
        python, shell = usage.of_page(app.url)
        for command in ([sys.executable, "-c", python.code], ["bash", "-ec", shell.code]):
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
            assert re.search(f"[\"']decision[\"']: [\"']{decision}[\"']", done.stdout)


def test_a_card_comes_without_its_front_matter_and_with_its_figures(tmp_path: Path) -> None:
    text = "---\nlicense: apache-2.0\n---\n# Model\n\n---\n\n![curves](figures/curves.png)\n"
    (tmp_path / manifest.CARD).write_text(text, encoding="utf-8")
    assert usage.card_of(tmp_path, 1) == "# Model\n\n---\n\n![curves](figures/1/curves.png)\n"


def test_a_bundle_without_a_readable_card_has_none(tmp_path: Path) -> None:
    assert usage.card_of(tmp_path, 0) == ""
    (tmp_path / manifest.CARD).write_bytes(b"\xff\xfe\x00")
    assert usage.card_of(tmp_path, 0) == ""


def test_links_within_the_page_lead_to_its_tabs() -> None:
    templates = [path.read_text(encoding="utf-8") for path in (DEMO / "templates").glob("*.html")]
    linked = {name for text in templates for name in re.findall(r'href="#(\w+)"', text)}
    # In the source: a page that is built and never launched leaves event loops of Gradio open.
    source = Path(layout.__file__).read_text(encoding="utf-8")
    built = re.findall(r'gr\.Tab\(TABS\["(\w+)"\], id="\1"\)', source)
    assert linked <= layout.TABS.keys() == set(built)
