"""Negatives and turned X-rays are recognised, whole ones are not; what is found reaches every answer.

The changes here are Pillow's own, not those of scripts/quality_changes.py, which the check was trained on.
"""

from __future__ import annotations

import copy
import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import train_quality
from conftest import ROOT
from PIL import Image, ImageOps

from xray_hf import manifest
from xray_hf.calibration.ood import THUMBNAIL_SIDE, Detector
from xray_hf.data.synthetic import sample_images
from xray_hf.demo import answers, rendering
from xray_hf.demo.models import Model
from xray_hf.demo.uploads import Upload
from xray_hf.inference import Engine, tables
from xray_hf.inference.engine import ADVICE, CAUTIONS, CORRECTIONS, OUTSIDE
from xray_hf.inference.quality import FINDINGS, GRAPH, SIDE, QualityCheck, small_copy
from xray_hf.reading import read_grey, resize
from xray_hf.task import REJECTED

DOCS = ROOT / "docs"
MAX_BYTES = 250_000
RECOGNISED, WRONG_ALARMS = 0.98, 0.01  # the aims
EVERY = 50  # of the real images: 118 of 5,910

Change = Callable[[Image.Image], Image.Image]

CHANGES: dict[str, Change] = {
    "negative": ImageOps.invert,
    "upside down": lambda image: image.rotate(180),
    "turned left": lambda image: image.rotate(90, expand=True),
    "turned right": lambda image: image.rotate(-90, expand=True),
}


@pytest.fixture(scope="module")
def check() -> QualityCheck:
    return QualityCheck()


@pytest.fixture(scope="module")
def synthetic_patients() -> list[Image.Image]:
    return [image for _, image in sample_images(20, seed=5)]


@pytest.fixture(scope="module")
def real_patients(real_data: Path) -> list[Image.Image]:
    files = sorted(path for path in real_data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [read_grey(file) for file in files[::EVERY]]


def found(check: QualityCheck, images: list[Image.Image]) -> list[tuple[str, ...]]:
    return check.findings(np.stack([small_copy(resize(image, 224)) for image in images]))


def share(found: list[tuple[str, ...]], finding: str) -> float:
    return float(np.mean([finding in each for each in found]))


def test_the_graph_is_small_and_has_an_output_for_each_finding(check: QualityCheck) -> None:
    assert GRAPH.stat().st_size <= MAX_BYTES
    assert check.logits(np.zeros((3, SIDE, SIDE), np.uint8)).shape == (3, len(FINDINGS))
    assert {*CORRECTIONS, *CAUTIONS} == {*FINDINGS}


def test_an_image_is_judged_alike_alone_and_among_others(
    check: QualityCheck, synthetic_patients: list[Image.Image]
) -> None:
    images = np.stack([small_copy(resize(image, 224)) for image in synthetic_patients])
    alone = np.concatenate([check.logits(image[None]) for image in images])
    np.testing.assert_allclose(check.logits(images), alone, atol=1e-4)


def test_the_page_of_the_docs_shows_what_was_measured_of_this_graph() -> None:
    report = manifest.read_json(DOCS / "quality.json")
    assert report["graph"] == manifest.digest(GRAPH)
    assert train_quality.as_table(report) in (DOCS / "quality.md").read_text(encoding="utf-8")


def test_the_aims_were_reached_on_images_that_set_no_threshold() -> None:
    sets = manifest.read_json(DOCS / "quality.json")["test"].values()
    images = sum(each["images"] for each in sets)
    assert all(sum(each["found"][name] for each in sets) >= RECOGNISED * images for name in CORRECTIONS)
    assert all(each["alarms"]["any"] <= WRONG_ALARMS * each["images"] for each in sets)


@pytest.mark.parametrize("finding", CHANGES)
def test_a_changed_synthetic_patient_is_recognised(
    check: QualityCheck, synthetic_patients: list[Image.Image], finding: str
) -> None:
    assert share(found(check, [*map(CHANGES[finding], synthetic_patients)]), finding) >= RECOGNISED


def test_whole_synthetic_patients_raise_no_alarm(
    check: QualityCheck, synthetic_patients: list[Image.Image]
) -> None:
    assert found(check, synthetic_patients) == [()] * len(synthetic_patients)


@pytest.mark.real
@pytest.mark.parametrize("finding", CHANGES)
def test_a_changed_real_xray_is_recognised(
    check: QualityCheck, real_patients: list[Image.Image], finding: str
) -> None:
    assert len(real_patients) >= 60
    assert share(found(check, [*map(CHANGES[finding], real_patients)]), finding) >= RECOGNISED


@pytest.mark.real
def test_whole_real_xrays_raise_few_alarms(check: QualityCheck, real_patients: list[Image.Image]) -> None:
    assert np.mean([bool(each) for each in found(check, real_patients)]) <= WRONG_ALARMS


def test_a_turned_file_is_rejected_with_advice_in_every_answer(
    engine: Engine, synthetic_patients: list[Image.Image], tmp_path: Path
) -> None:
    file = tmp_path / "turned.png"
    synthetic_patients[0].rotate(180).save(file)
    alone, many = engine.predict(file), engine.predict([file, synthetic_patients[0]])
    advice = f"it {CORRECTIONS['upside down']}"
    assert (alone.decision, alone.reason) == (many[0].decision, many[0].reason) == (REJECTED, advice)
    assert many[1].decision != REJECTED
    row = tables.to_row("turned.png", alone, engine.labels)
    assert (row["decision"], row["reason"]) == (REJECTED, advice)
    served = {"model": Model.of(engine, "model")}
    (answer,) = answers.answer(served, [Upload("turned.png", lambda: file)])
    assert rendering.as_json(answer)["models"]["model"]["reason"] == advice
    assert f"Why: {advice}." in html.unescape(rendering.as_html(served, [answer]))


def test_two_images_in_a_file_are_rejected_with_advice(
    engine: Engine, synthetic_patients: list[Image.Image], tmp_path: Path
) -> None:
    file = tmp_path / "pair.png"
    pair = np.concatenate([resize(image, 300) for image in synthetic_patients[:2]], axis=1)
    Image.fromarray(pair).save(file)
    advice = CORRECTIONS["side by side"]
    found = engine.predict(file)
    assert found.decision == REJECTED
    assert advice in found.reason
    assert advice in tables.to_row("pair.png", found, engine.labels)["reason"]
    served = {"model": Model.of(engine, "model")}
    (answer,) = answers.answer(served, [Upload("pair.png", lambda: file)])
    assert advice in html.unescape(rendering.as_html(served, [answer]))


def test_a_photograph_gets_a_warning_in_every_answer(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "chest.png"
    sample_images(1, 0)[0][1].save(file)
    warned = copy.copy(engine)
    warned._quality = SimpleNamespace(findings=lambda pixels: [("photograph",)] * len(pixels))
    caution = CAUTIONS["photograph"]
    found = warned.predict(file)
    assert caution in found.warnings
    assert found.decision != REJECTED
    assert caution in tables.to_row("chest.png", found, engine.labels)["warnings"]
    served = {"model": Model.of(warned, "model")}
    (answer,) = answers.answer(served, [Upload("chest.png", lambda: file)])
    assert caution in rendering.as_json(answer)["warnings"]
    assert caution in rendering.as_html(served, [answer])


def test_what_the_detector_rejects_gets_the_advice_as_a_guess(
    engine: Engine, synthetic_patients: list[Image.Image]
) -> None:
    strict = copy.copy(engine)
    size = engine.predict(synthetic_patients[0]).embedding.size
    always = Detector(np.zeros(size, np.float32), np.zeros(THUMBNAIL_SIDE**2, np.float32), bias=9.0)
    strict.calibration = replace(engine.calibration, detector=always)
    assert strict.predict(synthetic_patients[0]).reason == f"{OUTSIDE}; {ADVICE}"
    turned = strict.predict(synthetic_patients[0].rotate(180))
    assert turned.reason == f"{OUTSIDE}; if the image is a chest X-ray, it {CORRECTIONS['upside down']}"
