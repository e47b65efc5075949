"""From finished runs to a release: the median of them, complete, and the page that says what it says."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import release
import write_results
from opening import open_coronahack
from PIL import Image
from running import run_training

from xray_hf import manifest
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import BundleError, ConfigError, DataError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.inference import Engine, reference
from xray_hf.report.report import Report
from xray_hf.task import PAPER_CLASSES

SIDE = 64


def finished(folder: Path, seed: int, balanced: float, loss: float = 0.5) -> Path:
    """What `median` looks at of a run."""
    bundle = folder / f"seed-{seed}" / "bundle"
    write_json(
        bundle / manifest.METRICS, {"validation": {"balanced_accuracy": balanced, "cross_entropy": loss}}
    )
    return bundle


def test_the_median_run_is_taken_and_of_an_even_number_the_worse(tmp_path: Path) -> None:
    scores = [0.91, 0.95, 0.93, 0.99, 0.90]
    bundles = [finished(tmp_path, seed, score) for seed, score in enumerate(scores)]
    assert release.median(bundles) == bundles[2]
    assert release.median(bundles[:4]) == bundles[2]
    equal = [finished(tmp_path / "equal", seed, 0.9, loss) for seed, loss in enumerate((0.1, 0.3, 0.2))]
    assert release.median(equal) == equal[2]


@pytest.fixture(scope="module")
def runs(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One short run of the CNN, where reproduce.py would have left it."""
    out = tmp_path_factory.mktemp("reproduce")
    options = ["--preset", "smoke", "--model", "xray-cnn", "--side", str(SIDE), "--epochs", "3"]
    more = ["--batch-size", "8", "--device", "cpu", "--precision", "fp32", "--data-dir", str(synthetic)]
    run_training(*options, *more, "--out", out / "robust" / "xray-cnn" / "seed-0", draws=False)
    return out


@pytest.fixture(scope="module")
def shipped(runs: Path, synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pretrained/ and docs/, made by release.py and write_results.py."""
    root = tmp_path_factory.mktemp("release")
    rng = np.random.default_rng(0)
    for kind in ("ood/noise", "ood/stripes", "elsewhere"):
        (root / kind).mkdir(parents=True)
        for number in range(4):
            noise = rng.integers(0, 256, (80, 80), np.uint8)
            image = noise.repeat(3, axis=0) if kind == "ood/stripes" else noise
            Image.fromarray(image).save(root / kind / f"{number}.png")
    labels = "file_name,label\n0.png,Normal\n1.png,Pneumonia\n2.png,COVID-19\n3.png,Normal\n"
    (root / "elsewhere" / "labels.csv").write_text(labels)
    (root / "docs" / "figures").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "PRETRAINED", root / "pretrained")
        patch.setattr(write_results, "PRETRAINED", root / "pretrained")
        patch.setattr(write_results, "DOCS", root / "docs")
        data = ["--data-dir", str(synthetic), "--ood-dir", str(root / "ood"), "--risk", "0.99"]
        external = ["--external", f"else-where={root / 'elsewhere'}"]
        release.main(["--runs", str(runs), "--models", "xray-cnn", *data, *external])
        write_results.main(["--runs", str(runs)])
    return root


def test_a_release_is_complete_and_answers(shipped: Path, runs: Path) -> None:
    bundle = shipped / "pretrained" / "xray-cnn"
    whole = runs / "robust" / "xray-cnn" / "seed-0" / "bundle" / manifest.WEIGHTS
    assert (bundle / manifest.WEIGHTS).stat().st_size < 0.55 * whole.stat().st_size
    measured = json.loads((bundle / manifest.METRICS).read_text())
    assert {"test", "external", "controls", "subgroups", "source"} <= measured.keys()
    assert measured["external"]["else-where"]["n"] == 4
    assert Engine.from_pretrained(bundle).calibration.detector is not None
    assert reference.check(bundle) < reference.TOLERANCE  # of what was calibrated after the export


def test_a_cropped_network_of_several_sources_and_another_side_is_released_under_its_own_name(
    shipped: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = tmp_path / "ward"
    for number, (finding, image) in enumerate(sample_images(20, seed=5)):
        (ward / finding).mkdir(parents=True, exist_ok=True)
        image.save(ward / finding / f"{number}.png")
    sources = [f"--source=coronahack={synthetic}", f"--source=folder:ward={ward}"]
    run = tmp_path / "runs" / "multisource" / "xray-cnn" / "seed-0"
    options = [
        "--preset",
        "multisource",
        "--model",
        "xray-cnn",
        "--crop",
        "lungs",
        "--side",
        "96",
        "--epochs",
    ]
    run_training(*sources, *options, "1", "--device", "cpu", "--precision", "fp32", "--out", run, draws=False)
    monkeypatch.setattr(release, "PRETRAINED", tmp_path / "pretrained")
    given = ["--recipe", "multisource", "--models", "xray-cnn", "--runs", str(tmp_path / "runs")]
    given += ["--ood-dir", str(shipped / "ood"), "--risk", "0.99"]
    away = [f"{name}={shipped / 'elsewhere'}" for name in ("near", "far")]
    patients = ["--patient", "far=^[0-9]"]
    with pytest.raises(DataError, match="also has images of coronahack, ward; pass --source for each"):
        release.main([*given, f"--source=folder:other={ward}"])
    assert not (tmp_path / "pretrained" / "xray-cnn-multisource").exists()
    release.main([*given, *sources, "--external", *away, *patients])

    bundle = tmp_path / "pretrained" / "xray-cnn-multisource"
    measured, fitted = (manifest.read_json(bundle / name) for name in ("metrics.json", "calibration.json"))
    assert measured["external"].keys() == {"near", "far"}
    assert measured["by_source"].keys() == measured["validation_by_source"].keys() == {"coronahack", "ward"}
    assert fitted["ood_report"]["test_by_source"].keys() == {"coronahack", "ward"}
    assert manifest.read(bundle).side == manifest.read(run / "bundle").side != SIDE
    answer = Engine.from_pretrained(bundle).predict([shipped / "elsewhere" / "0.png"])[0]
    assert answer.lungs is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--external", "data/nih"], "'data/nih' lacks a name or a value; expected NAME=VALUE"),
        (["--external", "a=x", "--patient", "b=^1"], "--patient names b, which is no --external"),
    ],
)
def test_externals_are_named(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        release.main(["--data-dir", "d", "--ood-dir", "o", *given])


def test_the_page_shows_figures_that_are_there(shipped: Path) -> None:
    page = (shipped / "docs" / "results.md").read_text(encoding="utf-8")
    figures = re.findall(r"\]\((\.\./pretrained/[^)]+)\)", page)
    assert len(figures) >= 7
    assert [name for name in figures if not (shipped / "docs" / name).is_file()] == []
    assert "xray-cnn, **as shipped**" in page


def test_the_page_says_what_became_of_the_model_elsewhere(shipped: Path) -> None:
    page = (shipped / "docs" / "results.md").read_text(encoding="utf-8")
    metrics = json.loads((shipped / "pretrained" / "xray-cnn" / "metrics.json").read_text())
    own = metrics["external"]["else-where"]
    alarms = own["confusion_matrix"][0][2] + own["confusion_matrix"][1][2]
    opening = page[: page.index("## ")]
    said = " ".join(opening.split())
    assert "**External validation of xray-cnn on else-where (4 images): balanced accuracy" in said
    assert f"{own['balanced_accuracy']:.1%}" in said
    assert f"COVID-19 {alarms} of 3." in said
    after = own["calibration"]["after"]
    assert f"→ {after['ece']:.3f} |" in page[page.index("## Calibration and abstention") :]


def test_the_page_counts_the_likely_label_errors(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Report.read(shipped / "pretrained" / "xray-cnn")
    page = (shipped / "docs" / "results.md").read_text(encoding="utf-8")
    joint = np.asarray(json.loads((bundle.folder / "metrics.json").read_text())["label_noise"]["joint"])
    assert f"| xray-cnn | {joint.sum() - joint.trace()} | " in page
    assert write_results.errors_for_all([bundle]) == ""
    test = write_results.test_rows(bundle)
    right = replace_logits(test, 9 * np.eye(3)[test.label])
    wrong = replace_logits(test, 9 * np.eye(3)[(test.label + 1) % 3])
    rows = iter([right, wrong])
    monkeypatch.setattr(write_results, "test_rows", lambda _: next(rows))
    assert write_results.errors_for_all([bundle, bundle]) == "Likely label errors for every model: 0."


def replace_logits(table: Predictions, logits: np.ndarray) -> Predictions:
    return replace(table, logits=logits.astype(np.float32))


@pytest.mark.parametrize("missing", ["label_noise", "ood_report"])
def test_a_bundle_that_is_no_release_is_an_error(
    shipped: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(shipped / "pretrained" / "xray-cnn", tmp_path / "xray-cnn"))
    for name in ("metrics.json", "calibration.json"):
        values = json.loads((folder / name).read_text())
        write_json(folder / name, {key: value for key, value in values.items() if key != missing})
    monkeypatch.setattr(write_results, "PRETRAINED", tmp_path)
    with pytest.raises(BundleError, match=r"is no release: .*scripts/release.py"):
        write_results.read_shipped()


def difference(low: float, high: float, p: float) -> dict[str, Any]:
    return {"accuracy": {"difference": (low + high) / 2, "interval": [low, high]}, "mcnemar": {"p_value": p}}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(-0.2, -0.1), (-0.1, -0.02)], "the CNN is better with every seed"),
        ([(0.1, 0.2), (0.02, 0.1)], "ResNet18 is better with every seed"),
        ([(-0.1, 0.2), (-0.2, 0.1)], "no seed shows a difference that chance would not"),
        ([(-0.1, 0.2), (0.1, 0.2)], "it depends on the seed"),
    ],
)
def test_the_verdict_follows_the_intervals(rows: list[tuple[float, float]], says: str) -> None:
    text = write_results.survives("ours", [difference(*row, p=0.04) for row in rows])
    assert says in text
    assert "2 seeds" in text


def test_validation_rows_with_a_twin_or_their_patient_in_training_are_left_out() -> None:
    rows = [("a", "p1", "train", 0), ("b", "p2", "train", 1), ("a", "p9", "validation", 0)]
    rows += [("c", "p2", "validation", 1), ("d", "p3", "validation", 1), ("e", "p4", "validation", 0)]
    names, patients, split, labels = (np.asarray(column) for column in zip(*rows, strict=True))
    logits = np.eye(3, dtype=np.float32)[[0, 1, 0, 1, 1, 1]]  # of the last row it is wrong
    table = Predictions(
        classes=PAPER_CLASSES,
        file_name=names,
        source=np.asarray("coronahack"),
        patient_id=patients,
        split=split,
        label=labels,
        logits=logits,
    )
    assert write_results.unleaked(table) == {"n": 2, "accuracy": 0.5}


def test_the_page_can_be_written_again_without_the_runs(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (shipped / "docs" / "results.md").read_text(encoding="utf-8")
    monkeypatch.setattr(write_results, "PRETRAINED", shipped / "pretrained")
    monkeypatch.setattr(write_results, "DOCS", shipped / "docs")
    write_results.main([])
    assert (shipped / "docs" / "results.md").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("change", ["a decision", "a logit"])
def test_weights_stay_whole_where_half_precision_would_matter(
    runs: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source = runs / "robust" / "xray-cnn" / "seed-0" / "bundle"
    folder = Path(shutil.copytree(source, tmp_path / "bundle"))

    table = Predictions.read(folder / manifest.PREDICTIONS)
    logits, test = table.logits.copy(), np.flatnonzero(table.split == "test")[0]
    logits[test] = logits[test][[1, 2, 0]] * 1e-3 if change == "a decision" else logits[test] + 0.02
    monkeypatch.setattr(release, "predict_rows", lambda *_, **__: logits)
    assert not release.shrink(folder, open_coronahack(synthetic, SIDE))
    assert (folder / manifest.WEIGHTS).read_bytes() == (source / manifest.WEIGHTS).read_bytes()
