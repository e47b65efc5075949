"""The page's evidence: the numbers of the bundle's own files, and words where there are none."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest

from xray_hf import evidence, manifest
from xray_hf.demo import measured, measured_bundle, measured_tables
from xray_hf.evaluation import confidence, controls
from xray_hf.evaluation.predictions import Predictions, write_columns
from xray_hf.evaluation.words import rate
from xray_hf.files import write_json
from xray_hf.manifest import Manifest
from xray_hf.task import LABELS, PAPER_CLASSES, PNEUMONIA
from xray_hf.views import VIEWS

ROWS = 24  # of each split


def predictions_of(splits: tuple[str, ...], seed: int, shift: float = 2.0) -> Predictions:
    """Logits that are right more often than not; every second image is of the same patient."""
    rng = np.random.default_rng(seed)
    n = ROWS * len(splits)
    label = np.arange(n) % len(LABELS)
    split = np.repeat(splits, ROWS)
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=np.asarray([f"{row}.png" for row in range(n)]),
        source=np.asarray("coronahack"),
        patient_id=np.asarray([f"p{row // 6}-{row % 3}" for row in range(n)]),
        split=split,
        official_split=np.where(split == "test", "TEST", "TRAIN"),
        label=label,
        logits=(rng.normal(size=(n, 3)) + shift * np.eye(3)[label]).astype(np.float32),
    )


def share(n: int, refused: float) -> dict[str, object]:
    return {"n": n, "refused": refused, "interval": [0.0, 1.0], "refused_by_detector": refused}


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder with every record that evidence.draw knows, and what it makes of them."""
    folder = tmp_path_factory.mktemp("complete")
    predictions = predictions_of(("train", "validation", "test"), seed=0)
    predictions.write(folder / manifest.PREDICTIONS)
    history = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "train_accuracy": 0.5,
            "validation_loss": 1.0,
            "validation_accuracy": 0.25 * epoch,
            "validation_balanced_accuracy": 0.25 * epoch,
        }
        for epoch in (1, 2, 3)
    ]
    training = {
        "config": {"data": {"protocol": "grouped"}, "run": {"seed": 7}},
        "initial_weights": "random",
        "device": "CPU, 2 threads",
        "seconds": 90.0,
        "history": history,
        "is_synthetic": True,
    }
    write_json(folder / manifest.TRAINING, training)
    test = predictions.select("test")
    scores = {"test": [-1.0] * ROWS, "knee_xray": [1.0] * 4}
    report = {
        "test": share(ROWS, 0.125),
        "test_by_class": {label: share(8, 0.125) for label in LABELS},
        "kinds": {"knee_xray": share(4, 1.0)},
        "scores": scores,
    }
    fitted = confidence.fit(predictions.select("validation"), target_risk=0.2)
    write_json(folder / manifest.CALIBRATION, {**fitted.as_dict(), "foreign_report": report})
    mark = manifest.calibration_mark(folder)
    far = predictions_of(("external",), seed=1, shift=0.3)
    decision = np.where(np.arange(ROWS) < 6, "unsure", np.asarray(LABELS)[far.predicted])
    record = replace(far, decision=decision, calibration=mark)
    record.write(folder / manifest.EXTERNAL / "far <away>.parquet")
    for view in VIEWS:
        test.write(folder / manifest.CONTROLS / f"{view}.parquet")
    rows = {
        "file_name": test.file_name.tolist(),
        "view_position": ["PA"] * ROWS,
        "pathogen": ["bacteria"] * ROWS,
        "same_as": [str(test.file_name[0])] * 2 + [""] * (ROWS - 2),
        "heat_lungs": [0.5] * ROWS,
        "heat_border": [0.25] * ROWS,
    }
    controls.write_test_rows(folder / manifest.CONTROLS / controls.TEST_TABLE, rows)
    ill = np.flatnonzero(predictions.label == PNEUMONIA)
    source = {
        "file_name": predictions.file_name[ill].tolist(),
        "patient": list(range(len(ill))),
        "is_web": [row % 4 == 0 for row in range(len(ill))],
        **{name: [float(row % 5) for row in range(len(ill))] for name in controls.FEATURES},
    }
    write(folder / manifest.CONTROLS / controls.SITE_TABLE, controls.SITE_ROWS, source)
    evidence.draw(folder)
    return folder


def write(path: Path, schema: pa.Schema, columns: dict[str, list]) -> None:
    write_columns(path, schema, columns)


def page(*folders: Path, synthetic: bool = False) -> str:
    """The evidence of bundles that are called a, b and so on, as text without mark-up's entities."""
    models = {
        name: Manifest(folder, "xray-cnn", LABELS, 224, synthetic)
        for name, folder in zip("ab", folders, strict=False)
    }
    return unescape(measured.as_html(models))


def changed(bundle: Path, target: Path, **sections: object) -> Path:
    """A copy of a bundle in whose metrics.json sections are others, or gone where None is given."""
    folder = Path(shutil.copytree(bundle, target))
    metrics = json.loads((folder / manifest.METRICS).read_text()) | sections
    kept = {name: section for name, section in metrics.items() if section is not None}
    write_json(folder / manifest.METRICS, kept)
    return folder


def numbers(folder: Path) -> dict:
    return json.loads((folder / manifest.METRICS).read_text())


def test_a_complete_bundle_has_every_table_and_every_figure(complete: Path) -> None:
    text = page(complete)
    assert "Not measured" not in text
    for topic in measured_tables.TOPICS.values():
        assert [kind.caption for kind in topic.kinds if f"<caption>{kind.caption}" not in text] == []
    shown = set(re.findall(r'<img loading="lazy" src="figures/0/([^"]+)\.png"', text))
    drawn = {path.stem for path in (complete / manifest.FIGURES).glob("*.png")}
    assert shown == {quote(name) for name in drawn}


def test_the_external_test_stands_before_every_number_of_our_own(complete: Path) -> None:
    own = numbers(complete)
    found = own["external"]["far <away>"]
    low, high = found["intervals"]["balanced_accuracy"]
    words = (
        f"a has a balanced accuracy of {found['balanced_accuracy']:.1%} ({100 * low:.1f}–{100 * high:.1f})"
    )
    matrix = found["confusion_matrix"]
    wrongly = f"{matrix[0][2] + matrix[1][2]} of 16 without COVID-19 are called so."
    text = page(complete)
    assert "far <away>, 24 images" in text
    assert 0 < text.index(words) < text.index(wrongly) < text.index("<table>")


def test_names_from_outside_are_escaped(complete: Path) -> None:
    models = {"<b>": Manifest(complete, "xray-cnn", LABELS, 224, False)}
    html = measured.as_html(models)
    assert "<b>" not in html
    assert "far <away>" not in html


def test_a_figure_says_its_numbers_to_who_does_not_see_it(complete: Path) -> None:
    matrix = numbers(complete)["test"]["confusion_matrix"]
    normal = ", ".join(f"{n} were called {label}" for label, n in zip(LABELS, matrix[0], strict=True))
    alts = re.findall(r'alt="([^"]*)"', page(complete))
    assert sum(f"a: confusion matrix on test. Of 8 Normal, {normal}." in alt for alt in alts) == 1
    assert len(alts) == len(set(alts))
    assert not any("not in the bundle's files" in alt for alt in alts)


def test_two_models_stand_below_each_other_for_each_thing_measured(complete: Path) -> None:
    table = page(complete, complete).split("<caption>All classes together</caption>")[1].split("</table>")[0]
    titles = re.findall(r'scope="rowgroup"[^>]*>([^<]+)', table)
    assert titles == ["test", "official test"]
    assert re.findall(r'scope="row">([^<]+)', table) == ["a", "b", "a", "b"]


def test_a_bundle_without_controls_says_so(complete: Path, tmp_path: Path) -> None:
    sections = ("controls", "subgroups", "duplicates", "heatmap", "source", "label_noise", "external")
    folder = changed(complete, tmp_path / "bundle", **dict.fromkeys(sections))
    text = page(complete, folder)
    said = re.findall(r"for (\w+);\s*<code>([^<]+)</code>", text)
    assert said == [("b", "xray-hf evaluate --external"), ("b", "xray-hf report"), ("b", "xray-hf report")]
    alone = page(folder)
    assert "On X-rays from elsewhere" not in alone
    assert "<caption>Parts of test" not in alone


def test_an_older_bundle_shows_its_numbers_without_intervals(complete: Path, tmp_path: Path) -> None:
    test = numbers(complete)["test"]
    for key in ("intervals", "patients_per_class", "calibration", "abstention", "operating_points"):
        del test[key]
    folder = changed(complete, tmp_path / "bundle", test=test, test_official=test)
    table = page(folder).split("<caption>All classes together</caption>")[1].split("</table>")[0]
    assert f"<td>{test['accuracy']:.1%}</td>" in table
    assert "Those of a\n  have no intervals" in page(folder)


def test_a_bundle_without_metrics_says_so(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    text = page(tmp_path / "bundle")
    assert "a came without <code>metrics.json</code>" in text
    assert "<table>" not in text
    assert "children of one hospital" in text
    assert "docs/limitations.md" in text
    assert "b came without" in page(complete, tmp_path / "bundle")


@pytest.mark.parametrize("damage", ["[]", "{", '{"test": 3}', '{"test": {"accuracy": "high"}}', "{}"])
def test_damaged_numbers_are_no_numbers(complete: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "bundle"))
    for name in (manifest.METRICS, manifest.CALIBRATION, manifest.TRAINING):
        (folder / name).write_text(damage)
    assert "<td>" not in page(folder)


def test_synthetic_models_are_marked(complete: Path) -> None:
    assert "trained and tested on synthetic patients" in page(complete, synthetic=True)
    assert "synthetic patients" not in page(complete).split("<table>")[0]


def test_every_table_is_named_and_has_heads_with_a_scope(complete: Path) -> None:
    text = page(complete, complete)
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert len(tables) == sum(len(topic.kinds) for topic in measured_tables.TOPICS.values())
    for table in tables:
        assert table.count("<caption>") == 1
        assert re.findall(r"<th(?!ead| scope=)", table) == []


def cells(text: str, caption: str, line: str) -> list[str]:
    """Of the table with this caption, the cells of a line."""
    table = text.split(f"<caption>{caption}")[1].split("</table>")[0]
    row = next(each for each in table.split("<tr>") if f'scope="row">{line}<' in each)
    return re.findall(r"<td>([^<]*)</td>", row)


FOUND = "What is found of each class there"
TRUST = "What probabilities and answers are worth there"
SOURCES = "How well the two sources"


def others_called(own: dict) -> str:
    matrix = own["confusion_matrix"]
    return f"{matrix[0][2] + matrix[1][2]} of {sum(matrix[0]) + sum(matrix[1])}"


def test_each_class_elsewhere_stands_beside_what_is_called_covid_anyway(complete: Path) -> None:
    own = numbers(complete)["external"]["far <away>"]
    found = cells(page(complete), FOUND, "elsewhere: far <away>")
    for label, cell in zip(LABELS, found, strict=False):
        assert cell.startswith(f"{own['per_class'][label]['sensitivity']:.1%} (")
    assert found[3] == others_called(own)


def test_what_confidence_is_worth_elsewhere_stands_beside_home(complete: Path) -> None:
    metrics = numbers(complete)
    own = metrics["external"]["far <away>"]
    text = page(complete)
    far, home = (cells(text, TRUST, line) for line in ("elsewhere: far <away>", "its own test"))
    before, after = own["calibration"]["before"], own["calibration"]["after"]
    assert far[:2] == [f"{before[key]:.3f} → {after[key]:.3f}" for key in ("ece", "brier")]
    assert far[2].startswith(f"{own['abstention']['coverage']:.1%} (")
    assert far[3].startswith(f"{own['abstention']['risk']:.1%} (")
    assert far[4:] == ["unsure 25%", "18", rate(own["decisions"], "accuracy_of_decided")]
    assert "(" in far[-1]
    assert home[3].startswith(f"{metrics['test']['abstention']['risk']:.1%} (")
    assert home[4:] == ["-"] * 3
    assert f"It gives 18 of these images a class, and {far[-1]} of those classes are right." in text


def test_an_older_external_test_shows_what_it_has(complete: Path, tmp_path: Path) -> None:
    own = numbers(complete)["external"]["far <away>"]
    kept = {k: v for k, v in own.items() if k not in ("calibration", "abstention", "decisions", "intervals")}
    text = page(changed(complete, tmp_path / "bundle", external={"far": kept}))
    assert cells(text, TRUST, "elsewhere: far") == ["-"] * 7
    assert cells(text, FOUND, "elsewhere: far")[0] == f"{own['per_class']['Normal']['sensitivity']:.1%}"
    assert "It gives" not in text
    assert "Not measured" not in text


def test_views_show_what_is_called_covid_anyway(complete: Path) -> None:
    metrics = numbers(complete)
    text = page(complete)
    for view, own in {"whole": metrics["test"], **metrics["controls"]}.items():
        assert cells(text, "The test images in views", measured_bundle.VIEWS[view])[5] == others_called(own)


def test_every_split_that_has_images_of_the_web_is_shown(complete: Path, tmp_path: Path) -> None:
    called = {
        "train": {"images": 11, "called": 10},
        "validation": {"images": 0, "called": 0},
        "test": {"images": 2, "called": 1},
    }
    source = {
        **numbers(complete)["source"],
        "web": {"images": 13, "patients": 6},
        "web_called_covid": called,
    }
    text = page(changed(complete, tmp_path / "bundle", source=source))
    assert cells(text, SOURCES, "a")[-1] == "10 of 11 in train, 1 of 2 in test"
    assert "a was trained on 11 of these 13 images of 6 patients." in text
    called["train"]["images"] = called["test"]["images"] = 0
    text = page(changed(complete, tmp_path / "none", source={**source, "web_called_covid": called}))
    assert cells(text, SOURCES, "a")[-1] == "-"
