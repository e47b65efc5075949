"""The detector of OOD input is fitted on what may be used for it, and its report counts the rest."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from opening import open_coronahack
from PIL import Image

from xray_hf import cli, evidence, manifest
from xray_hf.calibration import fit_ood
from xray_hf.calibration.fit_ood import Features
from xray_hf.calibration.ood import THUMBNAIL_SIDE, Detector, rule_against, thumbnail_of
from xray_hf.data import splits
from xray_hf.data.dataset import XrayData, split_data
from xray_hf.errors import BundleError, ConfigError, DataError, ImageError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.inference import Engine
from xray_hf.inference.backends import load_embedder
from xray_hf.reading import read, resize
from xray_hf.task import PAPER_CLASSES, REJECTED

KINDS = ("noise", "stripes")
FILES = 8  # of each kind


@pytest.fixture(scope="module")
def data(synthetic: Path) -> XrayData:
    return open_coronahack(synthetic, 224)


@pytest.fixture
def folder(cnn_bundle: Path, data: XrayData, tmp_path: Path) -> Path:
    """A bundle that was, as far as its splits.json says, trained on the synthetic set."""
    folder = Path(shutil.copytree(cnn_bundle, tmp_path / "bundle"))
    split = split_data(data, "grouped", 0)
    write_json(folder / manifest.SPLITS, splits.as_dict(split, data.samples, data.classes, data.groups))
    return folder


@pytest.fixture
def ood(tmp_path: Path) -> Path:
    """Two kinds of images, all grey and of the size of X-rays, so that no rule rejects them."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (tmp_path / "ood" / kind).mkdir(parents=True)
        for number in range(FILES):
            image = rng.integers(0, 256, (16, 16), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
            if kind == "stripes":
                image = (128 + 100 * np.sin(np.arange(256) / (8 + number)) * np.ones((256, 1))).astype(
                    np.uint8
                )
            Image.fromarray(image).save(tmp_path / "ood" / kind / f"{number}.png")
    return tmp_path / "ood"


def calibrate(folder: Path, data: XrayData, ood: Path) -> dict:
    return fit_ood.fit_bundle(folder, data, ood, load_embedder(folder))


def detector_of(folder: Path) -> dict:
    return json.loads((folder / manifest.CALIBRATION).read_text())["ood"]


def test_held_out_images_are_rejected_and_xrays_are_not(folder: Path, data: XrayData, ood: Path) -> None:
    report = calibrate(folder, data, ood)
    assert {name: row["n"] for name, row in report["kinds"].items()} == dict.fromkeys(KINDS, FILES // 2)
    assert all(row["rejected"] == row["rejected_by_detector"] == 1 for row in report["kinds"].values())
    assert report["test"]["rejected"] < 0.5  # of seven images, with a threshold from as few

    engine = Engine.from_pretrained(folder)
    assert all(found.decision == REJECTED for found in engine.predict(sorted(ood.rglob("*.png"))))
    test = [data.samples[row].path for row in split_data(data, "grouped", 0).rows("test")]
    rejected = np.mean([found.decision == REJECTED for found in engine.predict(test)])
    assert rejected == pytest.approx(report["test"]["rejected"])


def test_no_rule_rejects_the_kinds_of_these_tests(ood: Path) -> None:
    readings = [read(file) for file in sorted(ood.rglob("*.png"))]
    found = [rule_against(each, thumbnail_of(resize(each.grey, 224))) for each in readings]
    assert found == [None] * (2 * FILES)


def test_data_of_another_size_are_an_error(folder: Path, synthetic: Path, ood: Path) -> None:
    with pytest.raises(ConfigError, match=r"opened at 64 pixels, .* takes 224; pass --side 224"):
        calibrate(folder, open_coronahack(synthetic, 64), ood)


def test_data_of_other_classes_are_an_error(folder: Path, data: XrayData, ood: Path) -> None:
    turned = replace(data, classes=data.classes[::-1])
    with pytest.raises(ConfigError, match=r"for the classes COVID-19, Pneumonia, Normal, .* names Normal, P"):
        calibrate(folder, turned, ood)


def test_the_report_counts_its_own_scores(folder: Path, data: XrayData, ood: Path) -> None:
    report = calibrate(folder, data, ood)
    for name, row in {"test": report["test"], **report["kinds"]}.items():
        scores = np.asarray(report["scores"][name])
        assert len(scores) == row["n"]
        assert row["rejected_by_detector"] == (scores > 0).mean()
        assert row["interval"][0] <= row["rejected"] <= row["interval"][1]


@pytest.mark.slow
def test_images_that_are_reported_on_take_no_part_in_the_fit(folder: Path, data: XrayData, ood: Path) -> None:
    calibrate(folder, data, ood)
    before = detector_of(folder)
    for number in range(1, FILES, 2):
        Image.fromarray(np.full((200, 200), 10 * number, np.uint8)).save(ood / "noise" / f"{number}.png")
    calibrate(folder, data, ood)
    assert detector_of(folder) == before
    Image.fromarray(np.full((200, 200), 90, np.uint8)).save(ood / "noise" / "0.png")
    calibrate(folder, data, ood)
    assert detector_of(folder) != before


def test_what_else_calibrates_the_bundle_stays(folder: Path, data: XrayData, ood: Path) -> None:
    write_json(folder / manifest.CALIBRATION, {"temperature": 1.5})
    calibrate(folder, data, ood)
    assert json.loads((folder / manifest.CALIBRATION).read_text())["temperature"] == 1.5


@pytest.mark.slow
def test_the_roc_is_drawn_with_the_other_views(folder: Path, data: XrayData, ood: Path) -> None:
    calibrate(folder, data, ood)
    one = np.asarray(["test"] * 3)
    Predictions(
        classes=PAPER_CLASSES,
        file_name=np.asarray(["a", "b", "c"]),
        source=np.asarray("coronahack"),
        patient_id=one,
        split=one,
        official_split=np.asarray(["TEST"] * 3),
        label=np.arange(3),
        logits=np.eye(3, dtype=np.float32),
    ).write(folder / manifest.PREDICTIONS)
    evidence.draw(folder)
    assert (folder / manifest.FIGURES / "ood_roc.png").stat().st_size > 1000


def drawn_images() -> Callable[[int, float], Features]:
    """What draws the features of n images around a mean."""
    rng = np.random.default_rng(0)

    def images(n: int, mean: float) -> Features:
        embedding, small = rng.normal(mean, 1, (n, 8)), rng.normal(size=(n, 1024))
        return Features(embedding.astype(np.float32), small.astype(np.float32), np.zeros(n, bool))

    return images


def test_a_score_does_not_depend_on_the_other_images() -> None:
    rng = np.random.default_rng(0)
    weights, thumbnail = rng.standard_normal(512), rng.standard_normal(THUMBNAIL_SIDE**2)
    detector = Detector(weights.astype(np.float32), thumbnail.astype(np.float32), 0.0)
    embedding = rng.standard_normal((16, 512)).astype(np.float32)
    thumbnails = rng.integers(0, 256, (16, THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.uint8)
    together = detector.scores(embedding, thumbnails)
    for size in (1, 2, 3, 5, 7):
        parts = [slice(start, start + size) for start in range(0, 16, size)]
        scores = [detector.scores(embedding[part], thumbnails[part]) for part in parts]
        np.testing.assert_array_equal(np.concatenate(scores), together)


def test_the_threshold_lets_the_images_of_every_source_through() -> None:
    images = drawn_images()
    train, ood = images(400, 0), [images(50, 4)]
    children, adults = images(900, 0), images(100, 1)
    fitted = {
        name: fit_ood.fit(train, np.zeros(400), validation, ood)
        for name, validation in {
            "pooled": [joined(children, adults)],
            "by source": [children, adults],
            "adults": [adults],
        }.items()
    }
    assert fitted["by source"].bias == fitted["adults"].bias
    kinds = {"adults": adults}
    sources = np.repeat(["children", "adults"], [900, 100])
    rejected = {
        name: fit_ood.measure(
            detector, joined(children, adults), np.zeros(1000, int), ("Normal",), sources, kinds
        )["test_by_source"]["adults"]["rejected"]
        for name, detector in fitted.items()
    }
    assert rejected["by source"] == fit_ood.VALIDATION_REJECTED < 0.03 < rejected["pooled"]


def test_a_small_group_counts_as_much_as_a_large_one() -> None:
    """Adults that resemble OOD images are few; as a group of their own they are not OOD images."""
    images = drawn_images()
    children, adults, ood = images(1000, 0), images(20, 2), images(50, 4)
    train = joined(children, adults)

    def score(groups: np.ndarray) -> float:
        detector = fit_ood.fit(train, groups, [children], [ood])
        return float(detector.logits(adults.embedding, adults.thumbnail).mean() - detector.bias)

    assert score(np.repeat(["children", "adults"], [1000, 20])) < score(np.zeros(1020)) - 0.1


def joined(*parts: Features) -> Features:
    columns = ("embedding", "thumbnail", "by_rule")
    return Features(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_detector_of_any_number_of_classes_reports_on_each(n_classes: int) -> None:
    images = drawn_images()
    classes, labels = tuple("ABCDE"[:n_classes]), np.arange(200) % n_classes
    detector = fit_ood.fit(images(200, 0), labels, [images(200, 0)], [images(50, 4)])
    sources, kinds = np.full(200, "clinic"), {"noise": images(50, 4)}
    report = fit_ood.measure(detector, images(200, 0), labels, (*classes, "absent"), sources, kinds)
    assert "test_by_source" not in report
    assert {name: row["n"] for name, row in report["test_by_class"].items()} == {
        name: int((labels == index).sum()) for index, name in enumerate(classes)
    }
    assert report["kinds"]["noise"]["rejected"] > 0.9 > 0.2 > report["test"]["rejected"]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("no folder", DataError, "is not a folder; expected one with a folder of images for each kind"),
        ("no kind", DataError, "too few images to tune on half and report on half: no folder"),
        ("one image", DataError, r"noise \(1\); expected a folder of two or more"),
        ("bad image", ImageError, r"3\.png is"),
        ("no splits", DataError, r"splits\.json does not exist; write one with"),
        ("no graph", BundleError, r"holds no model\.onnx"),
    ],
)
def test_bad_input_is_one_clear_error_and_writes_nothing(
    folder: Path, data: XrayData, ood: Path, damage: str, error: type[Exception], message: str
) -> None:
    if damage in ("no folder", "no kind"):
        shutil.rmtree(ood)
    if damage == "no kind":
        ood.mkdir()
    elif damage == "one image":
        for number in range(1, FILES):
            (ood / "noise" / f"{number}.png").unlink()
    elif damage == "bad image":
        (ood / "noise" / "3.png").write_bytes(b"no image")
    elif damage == "no splits":
        (folder / manifest.SPLITS).unlink()
    elif damage == "no graph":
        (folder / manifest.GRAPH).unlink()
    with pytest.raises(error, match=message):
        calibrate(folder, data, ood)
    assert not (folder / manifest.CALIBRATION).exists()


def test_what_is_no_image_among_the_kinds_is_left_out_and_counted(ood: Path) -> None:
    expected, left_out = fit_ood.find(ood)
    assert left_out == {}
    for name in ("noise/Thumbs.db", "noise/.DS_Store", "stripes/desktop.ini", "stray.png", "README.md"):
        (ood / name).write_bytes(b"x")
    (ood / "__MACOSX").mkdir()
    (ood / "__MACOSX" / "a.png").write_bytes(b"x")
    found, left_out = fit_ood.find(ood)
    assert found == expected
    assert left_out == {"thumbs.db": 1, "hidden": 1, "desktop.ini": 1, "beside the folders": 2}


def test_kinds_may_be_links_and_have_folders(ood: Path, tmp_path: Path) -> None:
    (ood / "noise").rename(tmp_path / "elsewhere")
    (ood / "noise").symlink_to(tmp_path / "elsewhere")
    (ood / "stripes" / "more").mkdir()
    (ood / "stripes" / "0.png").rename(ood / "stripes" / "more" / "0.png")
    found, _ = fit_ood.find(ood)
    assert {name: len(files) for name, files in found.items()} == dict.fromkeys(KINDS, FILES)


@pytest.mark.slow
def test_the_command_fits_both_halves_and_prints_their_tables(
    folder: Path, synthetic: Path, ood: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = np.asarray(["a", "b", "c"])
    Predictions(
        classes=PAPER_CLASSES,
        file_name=three,
        source=np.asarray("coronahack"),
        patient_id=three,
        split=np.asarray(["validation"] * 3),
        official_split=np.asarray(["TRAIN"] * 3),
        label=np.arange(3),
        logits=np.eye(3, dtype=np.float32),
    ).write(folder / manifest.PREDICTIONS)
    (ood / "noise" / "Thumbs.db").write_bytes(b"x")
    cli.main(["calibrate", str(folder), "--data-dir", str(synthetic), "--ood-dir", str(ood)])
    printed = capsys.readouterr().out
    assert f"files in {ood} that are not OOD images: 1 thumbs.db\n" in printed
    assert re.search(r"noise +4 of 4 +100\.0%", printed)
    assert "temperature 0.050" in printed  # of three rows that are right
    assert str(folder / manifest.CALIBRATION) in printed
    assert Engine.from_pretrained(folder).calibration.temperature < 0.051
    assert detector_of(folder)
