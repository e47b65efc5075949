"""engine.onnx decides as the engine does, on pictures of any size and colour."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import random_bundle
from PIL import Image, ImageOps

from xray_hf import cli, engine_graph, manifest
from xray_hf.calibration.ood import REJECT_ABOVE
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import BundleError, ExportError
from xray_hf.files import write_json
from xray_hf.hub import publish
from xray_hf.inference import Engine, Prediction, quality
from xray_hf.inference.engine import CAUTIONS, NO_LUNGS
from xray_hf.reading import read_grey
from xray_hf.task import PAPER_CLASSES, REJECTED, UNSURE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
# Of a probability or score: resized pixels differ by one grey level at most. If the box around the lungs then
# jumps by a step, a few images differ by more.
TOLERANCE, WITH_A_JUMP = 2e-3, 2e-2
OF_MAPS = 5e-3  # of the largest value of a heatmap or embedding; with a jump, WITH_A_JUMP
REAL = 300  # images
# How the engine's reason begins, or what it contains, for each of engine_graph.REASONS.
WORDS = {
    "": "^$",
    "too small": "^too small",
    "aspect ratio": "times as wide as high",
    "coloured": "it is coloured",
    "uniform": "it is almost uniform",
    "out of distribution": "^outside the training distribution",
    "quality": "^it (looks like|seems)",
    "unsure": "^no class has a probability of",
}


class Graph:
    """engine.onnx of a bundle, run as any program would; on one core, since the tests share them."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / manifest.ENGINE, options)
        self.lists = {
            name: json.loads(text)
            for name, text in self._session.get_modelmeta().custom_metadata_map.items()
            if text.startswith("[")
        }

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {engine_graph.INPUT: image}), strict=True))


@pytest.fixture(scope="module", params=["xray-cnn", "xray-resnet18-multisource"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle that ships, with its whole graph."""
    folder = tmp_path_factory.mktemp("whole") / request.param
    shutil.copytree(ROOT / "pretrained" / request.param, folder)
    engine_graph.export(folder)
    return folder


def pictures() -> list[np.ndarray]:
    """(H, W, 1 or 3) uint8: patients of all classes as they are and spoilt in each way that has a reason."""
    patients = [image for _, image in sample_images(4, seed=3)]
    first = patients[0]
    tinted = np.asarray(first)[..., None] * np.array([1, 0.8, 0.4])
    changed: list[Image.Image | np.ndarray] = [
        *patients,
        first.convert("RGB"),
        first.resize((90, 120)),
        first.resize((800, 150)),
        first.resize((1500, 1201)),
        first.resize((97, 193)),
        tinted.astype(np.uint8),
        Image.new("L", (300, 300), 99),
        ImageOps.invert(first),
        first.rotate(180),
        patients[5].rotate(90, expand=True),
        np.random.default_rng(0).integers(0, 256, (260, 240, 1), dtype=np.uint8),
    ]
    arrays = [np.asarray(each) for each in changed]
    return [each if each.ndim == 3 else each[..., None] for each in arrays]


def expected(engine: Engine, image: np.ndarray) -> Prediction:
    return engine.predict(image[..., 0] if image.shape[2] == 1 else image)


def agree(graph: Graph, engine: Engine, images: Sequence[np.ndarray]) -> tuple[dict[str, int], np.ndarray]:
    """Assert that both decide the same.

    Returns how often each reason was given, and (N,) the largest difference of a probability or score.
    """
    count, differences = dict.fromkeys(graph.lists["reasons"], 0), []
    of_maps = WITH_A_JUMP if engine.manifest.sees_lungs else OF_MAPS
    for image in images:
        found, answer = graph.run(image), expected(engine, image)
        difference = np.abs(found["probabilities"] - [*answer.probabilities.values()]).max()
        differences.append(max(difference, abs(found["ood_score"] - (answer.ood_score or 0))))
        assert not differences[-1] > WITH_A_JUMP
        reason = graph.lists["reasons"][found["reason"]]
        count[reason] += 1
        if is_close_call(engine, answer, differences[-1]):
            continue
        assert graph.lists["decisions"][found["decision"]] == answer.decision
        assert re.search(WORDS[reason], answer.reason)
        findings = zip(graph.lists["findings"], found["findings"], strict=True)
        cautions = {CAUTIONS[name] for name, is_found in findings if is_found and name in CAUTIONS}
        if answer.decision != REJECTED:
            assert cautions == set(answer.warnings) - {NO_LUNGS}
        for name in ("heatmaps", "embedding", "lungs"):
            if (value := getattr(answer, name)) is not None:
                np.testing.assert_allclose(
                    found[name], value, rtol=0, atol=of_maps * max(1, np.abs(value).max())
                )
    return count, np.asarray(differences)


def is_close_call(engine: Engine, answer: Prediction, difference: float) -> bool:
    """Whether a probability or score is closer to where the decision changes than both differ."""
    ordered = sorted(answer.probabilities.values())
    margins = [ordered[-1] - ordered[-2], ordered[-1] - engine.calibration.abstain_below]
    margins.append((answer.ood_score or 0) - REJECT_ABOVE)
    return min(map(abs, margins)) <= difference


def test_it_decides_as_the_engine(folder: Path) -> None:
    count, differences = agree(Graph(folder), Engine.from_pretrained(folder, threads=1), pictures())
    assert np.median(differences) < TOLERANCE
    reasons = ("", "too small", "aspect ratio", "coloured", "uniform", "out of distribution")
    assert all(count[reason] for reason in reasons)


def test_the_one_that_ships_decides_as_the_engine(folder: Path) -> None:
    """If this fails after a change of the engine, run `xray-hf export BUNDLE --whole`."""
    shipped = ROOT / "pretrained" / folder.name
    agree(Graph(shipped), Engine.from_pretrained(shipped, threads=1), pictures())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "has_heatmaps"), [("xray-cnn", True), ("timm:convnext_atto", False)])
def test_two_classes_and_a_network_without_heatmaps(name: str, has_heatmaps: bool, tmp_path: Path) -> None:
    own = random_bundle(name, 0, tmp_path, classes=("Normal", "Größer"))
    write_json(own / manifest.CALIBRATION, {"abstain_below": 0.5, "temperature": 2.0})
    engine_graph.export(own)
    graph, engine = Graph(own), Engine.from_pretrained(own)
    agree(graph, engine, pictures())
    assert graph.lists["decisions"] == ["Normal", "Größer", UNSURE, REJECTED]
    assert engine.has_heatmaps == has_heatmaps == ("heatmaps" in graph.run(pictures()[0]))
    manifest.require_current_engine(own)


def test_without_a_detector_the_quality_check_and_the_threshold_decide(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "bundle"
    shutil.copytree(folder, plain)
    write_json(plain / manifest.CALIBRATION, {"abstain_below": 1.0, "temperature": 2.0})
    engine_graph.export(plain)
    count, _ = agree(Graph(plain), Engine.from_pretrained(plain), pictures())
    assert count["quality"]
    assert count["unsure"]
    assert not count["out of distribution"]


def test_logits_that_are_not_finite_are_no_answer(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    spoil_bias(own / manifest.WEIGHTS)
    graph = Graph(own)
    found = graph.run(pictures()[0])
    assert graph.lists["reasons"][found["reason"]] == "not finite"
    assert graph.lists["decisions"][found["decision"]] == REJECTED


def spoil_bias(weights: Path) -> None:
    """Make the bias of the last layer NaN, in place."""
    content = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    [bias] = [entry for entry in header.values() if entry.get("shape") == [len(PAPER_CLASSES)]]
    nan = {"F16": np.float16, "F32": np.float32}[bias["dtype"]]("nan").tobytes()
    begin, end = (start + each for each in bias["data_offsets"])
    content[begin:end] = nan * len(PAPER_CLASSES)
    weights.write_bytes(content)


def test_it_says_what_its_numbers_mean(folder: Path) -> None:
    lists = Graph(folder).lists
    assert lists["labels"] == list(PAPER_CLASSES)
    assert lists["decisions"] == [*PAPER_CLASSES, UNSURE, REJECTED]
    assert lists["findings"] == list(quality.FINDINGS)
    assert lists["reasons"] == [*WORDS, "not finite"]


def test_the_code_of_the_documentation_decides_as_the_engine(
    folder: Path, xray: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "engine.onnx" in block
    ]
    exec(code.replace("chest.png", str(xray)).replace("pretrained/xray-cnn", str(folder)), {})
    printed = capsys.readouterr().out
    assert printed.startswith(f"{Engine.from_pretrained(folder).predict(xray).decision} ")


def test_it_holds_no_weights_of_the_network(folder: Path) -> None:
    graph = onnx.load(folder / manifest.ENGINE, load_external_data=False)
    own = [
        each.name for each in graph.graph.initializer if not each.external_data and np.prod(each.dims) > 2000
    ]
    assert all(name.startswith("quality.") for name in own)
    assert (folder / manifest.ENGINE).stat().st_size < 1_000_000


def test_the_command_writes_it_and_a_calibration_updates_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    (own / manifest.ENGINE).unlink()
    cli.main(["export", str(own), "--whole"])
    assert f"{own / manifest.ENGINE}: " in capsys.readouterr().out
    cli.main(["calibrate", str(own), "--risk", "0.2"])
    manifest.require_current_engine(own)


@pytest.mark.exhaustive
def test_so_does_another_network(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    (own / manifest.ENGINE).write_bytes(b"of another network")
    with pytest.raises(BundleError, match="is of another network, calibration or list of classes"):
        cli.main(["check", str(own)])
    cli.main(["export", str(own)])
    manifest.require_current_engine(own)


def test_a_stale_one_is_not_pushed(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    assert manifest.ENGINE in publish.of_bundle(own, "owner/name").files
    saved = json.loads((own / manifest.CALIBRATION).read_text())
    write_json(own / manifest.CALIBRATION, saved | {"temperature": 2 * saved["temperature"]})
    with pytest.raises(
        BundleError, match=r"is of another network, calibration or list of classes; run .* --whole"
    ):
        publish.of_bundle(own, "owner/name")


def test_one_is_stale_once_classes_are_renamed(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    exchange = {"Normal": "Pneumonia", "Pneumonia": "Normal"}
    text = (own / manifest.CONFIG).read_text()
    renamed = re.sub("Normal|Pneumonia", lambda found: exchange[found[0]], text)
    (own / manifest.CONFIG).write_text(renamed)
    for command in (["check", str(own)], ["push", str(own), "--repo-id", "owner/name", "--dry-run"]):
        with pytest.raises(BundleError, match=r"is of another network, calibration or list of classes; run"):
            cli.main(command)
    cli.main(["export", str(own), "--whole"])
    manifest.require_current_engine(own)


def test_a_bundle_that_the_engine_cannot_load_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    (own / manifest.GRAPH).unlink()
    with pytest.raises(BundleError, match=r"holds no model\.onnx; run `xray-hf export"):
        engine_graph.export(own)


def test_weights_that_are_links_are_one_clear_error(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    (own / manifest.WEIGHTS).rename(tmp_path / "blob")
    (own / manifest.WEIGHTS).symlink_to(tmp_path / "blob")
    (own / manifest.GRAPH).rename(tmp_path / "graph")
    (own / manifest.GRAPH).symlink_to(tmp_path / "graph")
    with pytest.raises(ExportError, match=r"are links, as in the Hub's cache.* cp -rL"):
        engine_graph.export(own)


def test_a_graph_that_answers_otherwise_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    before = (own / manifest.ENGINE).read_bytes()
    monkeypatch.setattr(engine_graph, "_WEIGHTS", np.zeros_like(engine_graph._WEIGHTS))
    with pytest.raises(ExportError, match="differs from the engine by"):
        engine_graph.export(own)
    assert (own / manifest.ENGINE).read_bytes() == before


def evenly(folder: Path, number: int) -> list[Path]:
    """At most so many of the images below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return files[:: max(1, len(files) // number)][:number]


@pytest.mark.real
@pytest.mark.exhaustive
def test_it_decides_as_the_engine_on_real_images(folder: Path, real_data: Path) -> None:
    """Half of them in their full resolution, where that is at hand."""
    large = evenly(real_data.with_name("coronahack_fullres"), REAL // 2)
    files = [*large, *evenly(real_data, REAL - len(large))]
    images = [np.asarray(read_grey(path))[..., None] for path in files]
    _, differences = agree(Graph(folder), Engine.from_pretrained(folder, threads=1), images)
    print(f"{(differences > TOLERANCE).sum()} of {REAL} differ by more; the most by {differences.max():.1e}")
    assert len(differences) == REAL
    assert (differences > TOLERANCE).sum() <= (0.02 * REAL if manifest.read(folder).sees_lungs else 0)
