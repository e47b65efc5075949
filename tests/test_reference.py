"""A bundle's reference predictions can be had without this package, and any other answer is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from xray_hf import cli, manifest
from xray_hf.errors import BundleError
from xray_hf.files import write_json
from xray_hf.inference import reference

Answers = dict[str, dict[str, Any]]


@pytest.fixture
def bundle(cnn_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, with its reference predictions."""
    folder = Path(shutil.copytree(cnn_bundle, tmp_path / "bundle"))
    reference.write(folder)
    return folder


def answers(bundle: Path) -> Answers:
    found: Answers = json.loads((bundle / manifest.REFERENCE).read_text())["answers"]
    return found


def test_the_pixels_of_the_images_give_the_logits_without_this_package(bundle: Path) -> None:
    session = onnxruntime.InferenceSession(bundle / manifest.GRAPH)
    expected = answers(bundle)
    assert list(expected) == [f"SYNTHETIC-{name}.png" for name in ("COVID-19", "Normal", "Pneumonia")]
    for name, answer in expected.items():
        pixels = np.asarray(Image.open(bundle / manifest.REFERENCE_IMAGES / name))
        logits, embedding = session.run(["logits", "embedding"], {"pixels": pixels[None, None]})
        np.testing.assert_allclose(logits[0], answer["logits"], atol=1e-4)
        np.testing.assert_allclose(embedding[0, :8], answer["embedding_begins"], atol=1e-4)


@pytest.mark.parametrize(
    ("backend", "tolerance"), [("onnxruntime", 1e-4), ("torch", 1e-4), ("openvino", 5e-2)]
)
def test_every_backend_agrees(bundle: Path, backend: str, tolerance: float) -> None:
    assert reference.check(bundle, backend, tolerance) <= tolerance


def change_a_logit(found: Answers) -> None:
    found["SYNTHETIC-Normal.png"]["logits"][1] += 0.01


def change_a_score(found: Answers) -> None:
    found["SYNTHETIC-Normal.png"]["ood_score"] = 0.5


def drop_a_class(found: Answers) -> None:
    found["SYNTHETIC-Normal.png"]["probabilities"].pop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_a_logit, "differs from its reference.json by 1.0e-02"),
        (change_a_score, "reference.json is damaged"),
        (drop_a_class, "reference.json is damaged"),
    ],
)
def test_another_answer_is_noticed(bundle: Path, change: Callable[[Answers], None], words: str) -> None:
    found = answers(bundle)
    change(found)
    write_json(bundle / manifest.REFERENCE, {"answers": found})
    with pytest.raises(BundleError, match=words):
        reference.check(bundle)


def test_other_pixels_are_noticed(bundle: Path) -> None:
    images = bundle / manifest.REFERENCE_IMAGES
    shutil.copy(images / "SYNTHETIC-Normal.png", images / "SYNTHETIC-Pneumonia.png")
    with pytest.raises(BundleError, match="differs from its reference"):
        reference.check(bundle, tolerance=1e-4)


@pytest.mark.slow
def test_export_writes_what_check_compares(
    cnn_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(cnn_bundle, tmp_path / "bundle"))
    with pytest.raises(BundleError, match=r"holds no reference\.json; run `xray-hf export"):
        cli.main(["check", str(folder)])
    cli.main(["export", str(folder)])
    cli.main(["check", str(folder), "--backend", "torch"])
    assert "within" in capsys.readouterr().out
