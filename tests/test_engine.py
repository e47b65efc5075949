"""The engine answers as the network does, for any input, from any thread, and rejects OOD input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from xray_hf import bundle, manifest
from xray_hf.calibration.calibration import Calibration
from xray_hf.calibration.ood import NO_CHEST, THUMBNAIL_SIDE, Detector, standardised
from xray_hf.errors import BundleError, ConfigError, ImageError
from xray_hf.files import write_json
from xray_hf.inference import Engine, Prediction, backends
from xray_hf.inference.backends import Outputs
from xray_hf.models import create_model
from xray_hf.reading import read_grey
from xray_hf.task import PAPER_CLASSES, REJECTED, UNSURE

EMBEDDING = 256  # xray-cnn's
TOLERANCES = [("onnxruntime", 1e-3), ("torch", 1e-6), ("openvino", 2e-2)]  # the last computes in bfloat16
HEAVY = {"torch", "transformers", "timm", "datasets", "sklearn", "scipy", "matplotlib", "pydicom", "openvino"}


@pytest.fixture
def calibrated(cnn_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be given a calibration.json."""
    return Path(shutil.copytree(cnn_bundle, tmp_path / "bundle"))


def direct(folder: Path, xray: Path) -> list[float]:
    """The probabilities, computed with nothing but Pillow and torch."""
    network = bundle.load(folder)
    grey = Image.open(xray).convert("L").resize((224, 224), Image.Resampling.BILINEAR)
    with torch.inference_mode():
        inputs = network.preprocessing.normalise(torch.tensor(np.asarray(grey))[None])
        return network.module(inputs).logits.softmax(1)[0].tolist()


def values(prediction: Prediction) -> list[float]:
    return list(prediction.probabilities.values())


def test_engine_knows_what_the_bundle_says(engine: Engine) -> None:
    assert (engine.name, engine.labels, engine.manifest.is_synthetic) == ("xray-cnn", PAPER_CLASSES, True)


@pytest.mark.parametrize(("backend", "tolerance"), TOLERANCES)
def test_every_backend_answers_as_direct_computation(
    cnn_bundle: Path, xray: Path, backend: str, tolerance: float
) -> None:
    if util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = Engine.from_pretrained(cnn_bundle, backend=backend).predict(xray)
    assert values(found) == pytest.approx(direct(cnn_bundle, xray), abs=tolerance)
    assert found.heatmap is not None
    assert found.heatmap.shape == (7, 7)
    assert found.embedding.shape == (EMBEDDING,)


def test_a_prediction_fits_together(engine: Engine, xray: Path) -> None:
    found = engine.predict(xray)
    assert list(found.probabilities) == list(PAPER_CLASSES)
    assert sum(values(found)) == pytest.approx(1)
    assert (
        found.decision == found.label == max(found.probabilities, key=lambda name: found.probabilities[name])
    )
    assert found.reason == ""
    assert found.ood_score is None
    assert found.warnings == ()
    assert found.read_ms > 0
    assert found.network_ms > 0


def test_path_text_bytes_image_and_array_give_the_same(engine: Engine, xray: Path) -> None:
    image = Image.open(xray)
    sources = [xray, str(xray), xray.read_bytes(), image, np.asarray(image)]
    answers = [values(engine.predict(source)) for source in sources]
    assert all(answer == answers[0] for answer in answers)


def test_16_bit_is_scaled_and_not_clipped(engine: Engine, xray: Path, tmp_path: Path) -> None:
    wide = np.asarray(Image.open(xray)).astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert values(engine.predict(tmp_path / "wide.png")) == values(engine.predict(xray))
    assert values(engine.predict(wide)) == values(engine.predict(xray))


def test_many_images_come_back_in_their_order(engine: Engine, xray: Path) -> None:
    grey = np.asarray(read_grey(xray))
    sources = [np.roll(grey, 9 * k, axis=1) for k in range(21)]
    alone = [values(engine.predict(source)) for source in sources]
    for batch_size in (1, 4, 100):
        together = [values(found) for found in engine.predict(sources, batch_size=batch_size)]
        np.testing.assert_allclose(together, alone, atol=1e-5)
    assert engine.predict([]) == []


def test_a_bad_file_is_its_error_in_its_place(engine: Engine, xray: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    found = list(engine.stream([xray, tmp_path / "bad.png", xray], batch_size=2))
    assert [type(each) for each in found] == [Prediction, ImageError, Prediction]
    with pytest.raises(ImageError, match=r"bad\.png"):
        engine.predict([xray, tmp_path / "bad.png"])
    with pytest.raises(ImageError, match=r"bad\.png"):
        engine.predict(tmp_path / "bad.png")


def test_a_stream_holds_only_a_few_and_can_be_left(cnn_bundle: Path, xray: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield xray

    stream = Engine.from_pretrained(cnn_bundle, threads=2).stream(endless(), batch_size=2)
    for _ in range(5):
        next(stream)
    stream.close()
    assert taken <= 4 + 2 * (2 * 2 + 1)  # what was given, and two batches for each thread and one more


def test_many_threads_share_one_engine(engine: Engine, xray: Path) -> None:
    grey = np.asarray(read_grey(xray))
    sources = [np.roll(grey, 7 * k, axis=0) for k in range(8)] * 4
    expected = [values(engine.predict(source)) for source in sources]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(engine.predict, sources))
    np.testing.assert_allclose([values(each) for each in found], expected, atol=1e-6)


def test_answering_imports_neither_torch_nor_transformers_nor_datasets(cnn_bundle: Path, xray: Path) -> None:
    code = (
        "import sys; from xray_hf.inference import Engine; "
        f"print(Engine.from_pretrained({str(cnn_bundle)!r}).predict({str(xray)!r}).decision); "
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    decision, modules = run.stdout.splitlines()
    assert decision in PAPER_CLASSES
    assert not HEAVY & set(modules.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["onnxruntime", "openvino", pytest.param("torch", marks=pytest.mark.exhaustive)]
)
def test_answering_asks_nobody_on_the_network(cnn_bundle: Path, xray: Path, backend: str) -> None:
    code = f"""
import sys
def hook(event, arguments):
    if event.startswith("socket."):
        print(event, file=sys.stderr)
sys.addaudithook(hook)
from xray_hf.inference import Engine
print(Engine.from_pretrained({str(cnn_bundle)!r}, backend={backend!r}).predict({str(xray)!r}).label)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() in PAPER_CLASSES
    assert "socket.connect" not in run.stderr
    assert "socket.getaddrinfo" not in run.stderr


@pytest.mark.parametrize(
    ("shape", "fill", "reason"),
    [
        ((300, 300, 3), "colour", f"{NO_CHEST}: it is coloured; if it is an X-ray, export it in greyscale"),
        ((300, 1400), "noise", f"{NO_CHEST}: it is 4.7 times as wide as high"),
        ((90, 90), "noise", "too small: it has 90×90 pixels, fewer than 96 on a side"),
        ((300, 300), "plain", f"{NO_CHEST}: it is almost uniform"),
    ],
)
def test_what_looks_like_no_xray_is_rejected(
    engine: Engine, shape: tuple[int, ...], fill: str, reason: str
) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if fill == "plain":
        image[:] = 90
    elif fill == "colour":
        image[..., 2] = 0
    found = engine.predict(image)
    assert (found.decision, found.reason) == (REJECTED, reason)
    assert sum(values(found)) == pytest.approx(1)  # what the network would have said stays known


@pytest.mark.parametrize(("bias", "is_ood"), [(3.0, True), (-3.0, False)])
def test_the_detector_decides_above_one_half(calibrated: Path, xray: Path, bias: float, is_ood: bool) -> None:
    nothing = {"embedding": [0.0] * EMBEDDING, "thumbnail": [0.0] * THUMBNAIL_SIDE**2}
    write_json(calibrated / manifest.CALIBRATION, {"ood": {**nothing, "bias": bias}})
    found = Engine.from_pretrained(calibrated).predict(xray)
    assert found.ood_score == pytest.approx(1 / (1 + np.exp(-bias)))
    assert (found.decision == REJECTED) is is_ood
    assert bool(found.reason) is is_ood


def test_a_detector_is_the_same_after_saving() -> None:
    rng = np.random.default_rng(1)
    detector = Detector(
        rng.normal(size=EMBEDDING).astype(np.float32),
        rng.normal(size=THUMBNAIL_SIDE**2).astype(np.float32),
        0.3,
    )
    again = Detector.from_dict(json.loads(json.dumps(detector.as_dict())))
    embedding, small = rng.normal(size=(4, EMBEDDING)), rng.integers(0, 256, (4, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(again.scores(embedding, small), detector.scores(embedding, small), atol=1e-5)


def test_thumbnails_do_not_know_brightness_nor_contrast() -> None:
    pixels = np.random.default_rng(2).integers(0, 100, (1, 32, 32), dtype=np.uint8).repeat(2, axis=0)
    pixels[1] = pixels[1] * 2 + 50
    first, second = standardised(pixels)
    assert np.corrcoef(first, second)[0, 1] > 0.99
    assert abs(first.mean()) < 1e-5


def test_temperature_and_abstention_are_applied(calibrated: Path, xray: Path) -> None:
    write_json(calibrated / manifest.CALIBRATION, {"temperature": 1000.0, "abstain_below": 0.4})
    found = Engine.from_pretrained(calibrated).predict(xray)
    assert values(found) == pytest.approx([1 / 3] * 3, abs=1e-2)
    assert (found.decision, found.reason) == (UNSURE, "no class has a probability of 40.0% or more")


@pytest.mark.parametrize("n_classes", [2, 5])
def test_an_engine_of_any_number_of_classes_decides_or_abstains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, xray: Path, n_classes: int
) -> None:
    classes = tuple("ABCDE"[:n_classes])
    logits = np.zeros((1, n_classes), np.float32)

    class Network:
        def run(self, pixels: np.ndarray) -> Outputs:
            return Outputs(
                logits.repeat(len(pixels), axis=0), None, np.zeros((len(pixels), 3), np.float32), None
            )

    monkeypatch.setattr(backends, "load", lambda *_, **__: Network())
    description = manifest.Manifest(tmp_path, "tiny", classes, 64, is_synthetic=True, sources=())
    engine = Engine(description, Calibration(abstain_below=0.7), "onnxruntime", threads=1)
    found = engine.predict(xray)
    assert (found.decision, values(found)) == (UNSURE, pytest.approx([1 / n_classes] * n_classes))
    logits[0, -1] = 5
    found = engine.predict(xray)
    assert found.decision == found.label == classes[-1]


@pytest.mark.parametrize(
    "damage",
    [
        {"temperature": 0},
        {"temperature": "hot"},
        {"temperature": 1e-46},
        {"temperature": 10**400},
        {"abstain_below": 2},
        {"unsure_below": 2},
        {"operating_points": [{}]},
        {"operating_points": [{"label": "Mass", "specificity": 0.9, "threshold": 9}]},
        {"ood": {"embedding": [1.0]}},
        {"ood": {"embedding": [1.0], "thumbnail": [0.0], "bias": 0}},
        {"ood": {"embedding": [0.0] * EMBEDDING, "thumbnail": [0.0] * THUMBNAIL_SIDE**2, "bias": "NaN"}},
        {"ood": {"embedding": [0.0] * 7, "thumbnail": [0.0] * THUMBNAIL_SIDE**2, "bias": 0}},
    ],
)
def test_a_damaged_calibration_is_one_clear_error(calibrated: Path, damage: dict) -> None:
    write_json(calibrated / manifest.CALIBRATION, damage)
    with pytest.raises(BundleError, match=r"calibration\.json"):
        Engine.from_pretrained(calibrated)


def test_a_bundle_without_graph_says_how_to_make_one(calibrated: Path, xray: Path) -> None:
    (calibrated / manifest.GRAPH).unlink()
    with pytest.raises(BundleError, match=r"holds no model\.onnx; run `xray-hf export"):
        Engine.from_pretrained(calibrated)
    assert Engine.from_pretrained(calibrated, backend="torch").predict(xray).label in PAPER_CLASSES


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_damaged_graph_is_one_clear_error(calibrated: Path, backend: str) -> None:
    graph = (calibrated / manifest.GRAPH).read_bytes()
    (calibrated / manifest.GRAPH).write_bytes(graph[: len(graph) // 2])
    with pytest.raises(BundleError, match=r"model\.onnx was not made from the model\.safetensors"):
        Engine.from_pretrained(calibrated, backend=backend)
    (calibrated / manifest.GRAPH).write_bytes(b"no graph" + graph)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded"):
        Engine.from_pretrained(calibrated, backend=backend)


def cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-1000])


def replace_by_others_of_the_same_shape(weights: Path) -> None:
    torch.manual_seed(9)
    bundle.save_network(create_model("xray-cnn", pretrained=False), weights.parent)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("change", [cut, replace_by_others_of_the_same_shape, Path.unlink])
def test_a_graph_without_its_own_weights_is_one_clear_error(
    calibrated: Path, backend: str, change: Callable[[Path], None]
) -> None:
    change(calibrated / manifest.WEIGHTS)
    with pytest.raises(BundleError, match=r"model\.safetensors.*Fetch the bundle again"):
        Engine.from_pretrained(calibrated, backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_a_bundle_in_the_hubs_cache_is_read_through_its_links(
    calibrated: Path, engine: Engine, xray: Path, tmp_path: Path, backend: str
) -> None:
    blobs, snapshot = tmp_path / "models--o--n" / "blobs", tmp_path / "models--o--n" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in calibrated.iterdir():
        blob = file.rename(blobs / manifest.digest(file))
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    found = Engine.from_pretrained(snapshot, backend=backend).predict(xray)
    assert values(found) == pytest.approx(values(engine.predict(xray)), abs=dict(TOLERANCES)[backend])


def test_an_unknown_or_missing_backend_is_a_clear_error(
    cnn_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="there is no backend 'tensorflow'"):
        Engine.from_pretrained(cnn_bundle, backend="tensorflow")
    monkeypatch.setattr("xray_hf.inference.backends.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"backend openvino is not installed; run `pip install 'xray_hf\[openvino\]'`"
    ):
        Engine.from_pretrained(cnn_bundle, backend="openvino")


def rewritten(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """The bundle with its graph changed."""
    graph = onnx.load(folder / manifest.GRAPH)
    change(graph)
    onnx.save(graph, folder / manifest.GRAPH)
    return folder


def rename_logits(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].name = "out"
    for node in graph.graph.node:
        node.output[:] = ["out" if name == "logits" else name for name in node.output]


def fix_the_batch(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def shrink_the_input(graph: onnx.ModelProto) -> None:
    for place in (2, 3):
        graph.graph.input[0].type.tensor_type.shape.dim[place].dim_value = 64


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("change", [rename_logits, fix_the_batch, shrink_the_input])
def test_another_graph_is_one_clear_error(
    calibrated: Path, change: Callable[[onnx.ModelProto], None], backend: str
) -> None:
    with pytest.raises(BundleError, match=r"run `xray-hf export|cannot be loaded"):
        Engine.from_pretrained(rewritten(calibrated, change), backend=backend)


def test_what_is_no_number_is_no_answer(engine: Engine, xray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine._alone.run

    def broken(pixels: np.ndarray) -> Outputs:
        return replace(run(pixels), logits=np.full((len(pixels), 3), np.nan, np.float32))

    monkeypatch.setattr(engine._alone, "run", broken)
    with pytest.raises(ImageError, match="give logits that are not finite"):
        engine.predict(xray)


@pytest.mark.parametrize("source", [None, 3, [None], [3], object()])
def test_what_can_be_no_image_is_said_to_be_none(engine: Engine, source: Any) -> None:
    with pytest.raises(
        ImageError, match=r"(NoneType|int|object) is not an image; expected a path, a file's bytes"
    ):
        engine.predict(source)


def test_an_error_in_the_place_of_an_image_comes_back_in_its_place(engine: Engine, xray: Path) -> None:
    error = ImageError("it was not to be had")
    found = list(engine.stream([xray, error, xray]))
    assert found[1] is error
    assert [type(each) for each in found] == [Prediction, ImageError, Prediction]


def test_a_bundle_says_what_of_its_calibration_it_lacks(calibrated: Path) -> None:
    rules_only = "only rules reject OOD images"
    lacks = f"not calibrated: it is never unsure, {rules_only}"
    assert Engine.from_pretrained(calibrated).calibration.lacks == lacks
    write_json(calibrated / manifest.CALIBRATION, {"temperature": 1.5, "fitted_on": {"n": 9}})
    assert Engine.from_pretrained(calibrated).calibration.lacks == f"not fully calibrated: {rules_only}"
    detector = {"embedding": [0.0] * EMBEDDING, "thumbnail": [0.0] * THUMBNAIL_SIDE**2, "bias": 0}
    write_json(calibrated / manifest.CALIBRATION, {"fitted_on": {"n": 9}, "ood": detector})
    assert Engine.from_pretrained(calibrated).calibration.lacks == ""


def test_a_batch_of_nothing_is_refused(engine: Engine, xray: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        engine.predict([xray], batch_size=0)


def test_a_hub_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    code = "from xray_hf.inference import Engine; Engine.from_pretrained('owner/name')"
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
    }
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    said = "xray_hf.errors.BundleError: there is no folder owner/name, and that repository cannot be fetched"
    assert said in run.stderr
    assert ". Check the name and the network." in run.stderr


@pytest.mark.parametrize("source", ["no/such/folder/here", "nowhere", "owner/name", "tests/typo"])
def test_a_source_that_is_nothing_is_a_clear_error(source: str) -> None:
    with pytest.raises(BundleError, match=source):
        Engine.from_pretrained(source)


@pytest.mark.parametrize(
    ("training", "config", "message"),
    [
        ({}, {}, "has is_synthetic None"),
        ({"is_synthetic": False, "sources": [{"name": "clinic"}]}, {}, "malformed sources"),
        ({"is_synthetic": False, "sources": ["clinic"]}, {}, "malformed sources"),
        ({"is_synthetic": False}, {"id2label": {"0": "x", "1": "y"}}, "names the classes"),
        ({"is_synthetic": False}, {"id2label": {"0": 1, "1": 2, "2": 3}}, "expected two or more different"),
        (
            {"is_synthetic": False},
            {"id2label": {"0": "A", "1": "A", "2": "C"}},
            "expected two or more different",
        ),
        ({"is_synthetic": False}, {"id2label": None}, "lacks an entry"),
    ],
)
def test_a_bundle_that_does_not_fit_together_is_refused(
    calibrated: Path, training: dict, config: dict, message: str
) -> None:
    write_json(calibrated / manifest.TRAINING, training)
    write_json(calibrated / manifest.CONFIG, {**manifest.read_json(calibrated / manifest.CONFIG), **config})
    with pytest.raises(BundleError, match=message):
        Engine.from_pretrained(calibrated)


def test_torch_gives_heatmaps_where_the_graph_has_none(tmp_path: Path, xray: Path) -> None:
    bundle.save_network(create_model("timm:convnext_atto", pretrained=False), tmp_path)
    write_json(tmp_path / manifest.TRAINING, {"is_synthetic": True})
    found = Engine.from_pretrained(tmp_path, backend="torch").predict(xray)
    assert found.heatmap is not None
    assert found.heatmap.shape == (7, 7)
