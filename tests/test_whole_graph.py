"""engine.onnx decides as the engine does, on pictures of any size and colour."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image, ImageOps

from xray_hf import cli, manifest, whole_graph
from xray_hf.calibration.ood import REJECT_ABOVE
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import BundleError, ExportError
from xray_hf.files import write_json
from xray_hf.hub import publish
from xray_hf.inference import Engine, Prediction, quality
from xray_hf.inference.engine import CAUTIONS, NO_LUNGS
from xray_hf.reading import read_grey
from xray_hf.task import PAPER_CLASSES, REJECTED, UNSURE

ROOT = Path(__file__).resolve().parent.parent
# Of a probability or score: resized pixels differ by one grey level at most. If the box around the lungs then
# jumps by a step, a few images differ by more.
TOLERANCE, WITH_A_JUMP = 2e-3, 2e-2
REAL = 300  # images
# What the engine's reason contains for each of whole_graph.REASONS.
WORDS = {
    "too small": "too small",
    "aspect": "times as wide as high",
    "coloured": "it is coloured",
    "uniform": "it is almost uniform",
    "out of distribution": "outside the training distribution",
    "finding": "it ",
    "unsure": "no class has a probability of",
}


class WholeGraph:
    """engine.onnx of a bundle, run as any program would."""

    def __init__(self, folder: Path) -> None:
        self._session = onnxruntime.InferenceSession(folder / manifest.ENGINE)
        self.lists = {
            name: json.loads(text)
            for name, text in self._session.get_modelmeta().custom_metadata_map.items()
            if text.startswith("[")
        }

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {whole_graph.INPUT: image}), strict=True))


@pytest.fixture(scope="module", params=["xray-cnn", "xray-resnet18-multisource"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle that ships, with its whole graph."""
    folder = tmp_path_factory.mktemp("whole") / request.param
    shutil.copytree(ROOT / "pretrained" / request.param, folder)
    whole_graph.export(folder)
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


def agree(
    graph: WholeGraph, engine: Engine, images: Sequence[np.ndarray]
) -> tuple[dict[str, int], np.ndarray]:
    """Assert that both decide the same.

    Returns how often each reason was given, and (N,) the largest difference of a probability or score.
    """
    count, differences = dict.fromkeys(graph.lists["reasons"], 0), []
    for image in images:
        found, answer = graph.run(image), expected(engine, image)
        difference = np.abs(found["probabilities"] - [*answer.probabilities.values()]).max()
        differences.append(max(difference, abs(found["ood_score"] - (answer.ood_score or 0))))
        reason = graph.lists["reasons"][found["reason"]]
        count[reason] += 1
        if is_close_call(engine, answer, differences[-1]):
            continue
        assert graph.lists["decisions"][found["decision"]] == answer.decision
        assert WORDS[reason] in answer.reason if reason else answer.reason == ""
        findings = zip(graph.lists["findings"], found["findings"], strict=True)
        cautions = {CAUTIONS[name] for name, is_found in findings if is_found and name in CAUTIONS}
        if answer.decision != REJECTED:
            assert cautions == set(answer.warnings) - {NO_LUNGS}
        for name in ("heatmaps", "lungs"):
            if (value := getattr(answer, name)) is not None:
                np.testing.assert_allclose(found[name], value, atol=0.05 * max(1, np.abs(value).max()))
    return count, np.asarray(differences)


def is_close_call(engine: Engine, answer: Prediction, difference: float) -> bool:
    """Whether a probability or score is closer to where the decision changes than both differ."""
    ordered = sorted(answer.probabilities.values())
    margins = [ordered[-1] - ordered[-2], ordered[-1] - engine.calibration.abstain_below]
    margins.append((answer.ood_score or 0) - REJECT_ABOVE)
    return min(map(abs, margins)) <= difference


def test_it_decides_as_the_engine(folder: Path) -> None:
    count, differences = agree(WholeGraph(folder), Engine.from_pretrained(folder), pictures())
    assert np.median(differences) < TOLERANCE
    assert differences.max() < WITH_A_JUMP
    assert all(
        count[reason] for reason in ("too small", "aspect", "coloured", "uniform", "out of distribution")
    )


def test_every_reason_is_given_where_its_turn_comes(folder: Path) -> None:
    """Without detector, a finding decides, and a high threshold makes the rest unsure."""
    plain = folder.parent / "plain"
    shutil.copytree(folder, plain)
    write_json(plain / manifest.CALIBRATION, {"abstain_below": 1.0, "temperature": 2.0})
    whole_graph.export(plain)
    count, _ = agree(WholeGraph(plain), Engine.from_pretrained(plain), pictures())
    assert count["finding"]
    assert count["unsure"]
    assert not count["out of distribution"]
    shutil.rmtree(plain)


def test_it_says_what_its_numbers_mean(folder: Path) -> None:
    lists = WholeGraph(folder).lists
    assert lists["labels"] == list(PAPER_CLASSES)
    assert lists["decisions"] == [*PAPER_CLASSES, UNSURE, REJECTED]
    assert lists["findings"] == list(quality.FINDINGS)
    assert set(lists["reasons"]) == {"", *WORDS}


def test_it_holds_no_weights_of_the_network(folder: Path) -> None:
    graph = onnx.load(folder / manifest.ENGINE, load_external_data=False)
    own = [
        each.name for each in graph.graph.initializer if not each.external_data and np.prod(each.dims) > 2000
    ]
    assert all(name.startswith("quality.") for name in own)
    assert (folder / manifest.ENGINE).stat().st_size < 1_000_000


def test_the_command_writes_it_and_a_calibration_renews_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    (own / manifest.ENGINE).unlink()
    cli.main(["export", str(own), "--whole"])
    assert f"{own / manifest.ENGINE}: " in capsys.readouterr().out
    cli.main(["calibrate", str(own), "--risk", "0.2"])
    manifest.require_current_engine(own)


def test_one_of_another_calibration_is_not_pushed(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    assert manifest.ENGINE in publish.of_bundle(own, "owner/name").files
    saved = json.loads((own / manifest.CALIBRATION).read_text())
    write_json(own / manifest.CALIBRATION, saved | {"temperature": 2 * saved["temperature"]})
    with pytest.raises(BundleError, match=r"made from another network or calibration; run .* --whole"):
        publish.of_bundle(own, "owner/name")


def test_a_bundle_without_graph_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "bundle"
    shutil.copytree(folder, own)
    (own / manifest.GRAPH).unlink()
    with pytest.raises(ExportError, match=r"holds no model\.onnx; run `xray-hf export"):
        whole_graph.export(own)


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
    _, differences = agree(WholeGraph(folder), Engine.from_pretrained(folder), images)
    print(f"{(differences > TOLERANCE).sum()} of {REAL} differ by more; the most by {differences.max():.1e}")
    assert len(differences) == REAL
    assert (differences > TOLERANCE).mean() < (0.02 if manifest.read(folder).sees_lungs else 1e-9)
    assert differences.max() < WITH_A_JUMP
