"""A user's program, read only by mypy (test_typing.py): a missing or wrong public annotation is an error."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_hf import PAPER_CLASSES, __version__, manifest
from xray_hf.calibration.calibration import Calibration
from xray_hf.errors import BundleError, ConfigError, ImageError, XrayHFError, exit_on_error
from xray_hf.evaluation import metrics
from xray_hf.inference import Engine, Prediction
from xray_hf.inference.overlay import overlay
from xray_hf.manifest import Manifest
from xray_hf.reading import Reading, from_array, from_image, read, read_grey, resize

assert_type(PAPER_CLASSES, tuple[str, str, str])
assert_type(__version__, str)


def classify(path: Path, picture: Image.Image, pixels: np.ndarray) -> None:
    engine = Engine.from_pretrained("owner/name", backend="openvino", threads=2)
    assert_type(engine, Engine)
    assert_type(engine.name, str)
    assert_type(engine.labels, tuple[str, ...])
    assert_type(engine.manifest, Manifest)
    assert_type(engine.calibration, Calibration)
    assert_type(engine.predict(path), Prediction)
    assert_type(engine.predict([b"", picture, pixels, "file.png"]), list[Prediction])
    assert_type(engine.predict_batch([path]), list[Prediction | ImageError])
    assert_type(engine.stream((path for _ in "ab"), batch_size=2), Iterator[Prediction | ImageError])

    found = engine.predict(path)
    assert_type(found.probabilities, dict[str, float])
    assert_type(found.label, str)
    assert_type(found.decision, str)
    assert_type(found.reason, str)
    assert_type(found.logits, np.ndarray)
    assert_type(found.heatmap, np.ndarray | None)
    assert_type(found.heat_in_lungs, float | None)
    assert_type(found.ood_score, float | None)
    assert_type(found.warnings, tuple[str, ...])
    assert_type(overlay(picture, found.logits, 1.0), Image.Image)

    found.label = "Normal"  # type: ignore[misc]
    Engine.from_pretrained(3)  # type: ignore[arg-type]
    engine.predict(path, 2, 3)  # type: ignore[call-overload]
    Engine.from_pretrained(path, "openvino")  # type: ignore[call-arg]


def reading(path: Path, picture: Image.Image, pixels: np.ndarray) -> None:
    assert_type(read(path), Reading)
    assert_type(read(b"").grey, Image.Image)
    assert_type(read("file.dcm").warnings, tuple[str, ...])
    assert_type(read_grey(path), Image.Image)
    assert_type(from_image(picture), Reading)
    assert_type(from_array(pixels), Reading)
    assert_type(resize(picture, 224), np.ndarray)
    read(3)  # type: ignore[arg-type]


def bundles(path: Path) -> None:
    assert_type(manifest.locate("owner/name"), Path)
    assert_type(manifest.read(path).labels, tuple[str, ...])
    assert_type(manifest.read(path).side, int)


def measuring(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> None:
    matrix = metrics.confusion_matrix(labels, labels, 3)
    assert_type(matrix, NDArray[np.int64])
    assert_type(metrics.sensitivity(matrix), NDArray[np.float64])
    assert_type(metrics.auroc(labels, probabilities), NDArray[np.float64])
    assert_type(metrics.cross_entropy(labels, probabilities), float)


def failing(error: XrayHFError) -> None:
    assert_type(error.exit_code, int)
    assert_type(exit_on_error(lambda: None), int)
    errors: list[type[XrayHFError]] = [BundleError, ConfigError, ImageError]
    assert_type(errors[0]("text"), XrayHFError)
