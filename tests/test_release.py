"""From finished runs to a release: the median of them, complete, and the page that says what it says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import aims
import collect_results
import external_sets
import numpy as np
import pytest
import release
import write_results
from opening import open_coronahack
from PIL import Image
from running import run_training, without_figures

from xray_hf import manifest
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import BundleError, ConfigError, DataError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.inference import Engine, reference
from xray_hf.report.report import Report
from xray_hf.task import PAPER_CLASSES

pytestmark = pytest.mark.slow

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
        patch.setattr(write_results, "README", root / "README.md")
        (root / "README.md").write_text("\n".join(["before", *write_results.MARKS, "after"]))
        data = ["--data-dir", str(synthetic), "--ood-dir", str(root / "ood"), "--risk", "0.99"]
        external = ["--external", f"else-where={root / 'elsewhere'}"]
        with without_figures():
            release.main(["--runs", str(runs), "--models", "xray-cnn", *data, *external])
        collect_results.main([str(runs), "--record", str(root / "docs" / write_results.RECORD)])
        write_results.main([])
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
    assert (bundle / manifest.ENGINE).is_file()
    manifest.require_current_engine(bundle)


def test_recorded_logits_are_those_of_the_stored_weights(shipped: Path, synthetic: Path) -> None:
    bundle = shipped / "pretrained" / "xray-cnn"
    table = Predictions.read(bundle / manifest.PREDICTIONS)
    files = {path.name: path for path in synthetic.rglob("*.jpeg")}
    found = Engine.from_pretrained(bundle).predict([files[name] for name in table.file_name[:4]])
    np.testing.assert_allclose([each.logits for each in found], table.logits[:4], atol=1e-4)


@pytest.mark.exhaustive
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
    with without_figures():
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
        (["--external", "a=x", "--patient", "b=^1"], "--patient names b, which is not an --external"),
    ],
)
def test_externals_are_named(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        release.main(["--data-dir", "d", "--ood-dir", "o", *given])


def test_the_page_has_the_run_and_the_bundle(shipped: Path) -> None:
    page = (shipped / "docs" / "results.md").read_text(encoding="utf-8")
    assert "xray-cnn from random weights, **our recipe** | 1 |" in page
    assert (shipped / "docs" / "results" / "external.png").is_file()
    own = json.loads((shipped / "pretrained" / "xray-cnn" / "metrics.json").read_text())
    assert f"→ {own['external']['else-where']['calibration']['after']['ece']:.3f} |" in page


def external_table(name: str, labels: list[int], said: list[int], decisions: list[str]) -> Predictions:
    """An external set; every image is of a patient of its own, and the network is sure of what it says."""
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=np.asarray([f"image-{number}" for number in range(len(labels))]),
        source=np.asarray(name),
        patient_id=np.asarray([f"patient-{number}" for number in range(len(labels))]),
        split=np.asarray("external"),
        label=np.asarray(labels),
        logits=9 * np.eye(3, dtype=np.float32)[said],
        decision=np.asarray(decisions),
    )


@pytest.fixture
def with_external(shipped: Path, tmp_path: Path) -> Path:
    """A bundle with the three external sets."""
    normal, _, covid = PAPER_CLASSES
    bundle = Path(shutil.copytree(shipped / "pretrained" / "xray-cnn", tmp_path / "xray-cnn"))
    answers = [normal, covid, "unsure", external_sets.REJECTED]
    for table in (
        external_table("openist", [0, 0, 0, 0], [0, 2, 2, 0], answers),
        external_table("spain_twitter", [2, 2], [2, 0], [covid, "unsure"]),
        external_table("nih_figure1", [0, 1, 2, 2], [0, 1, 1, 2], [normal] * 4),
    ):
        table.write(bundle / "external" / f"{table.source[0]}.parquet")
    return bundle


def test_a_bundle_without_these_sets_has_no_such_numbers(shipped: Path) -> None:
    assert external_sets.measure(shipped / "pretrained" / "xray-cnn") == {}


def test_the_page_compares_internal_and_external_performance(with_external: Path) -> None:
    report = Report.read(with_external)
    picture, table = write_results.glance([report])
    assert "external 70.0%" in picture
    row = table.splitlines()[-1]
    assert row.startswith("| xray-cnn | ")
    cells = [cell.split("%")[0].strip() for cell in row.split("|")]
    assert cells[3:9] == ["70.0", "83.3", "50.0", "50.0", "50.0", "25.0"]
    assert write_results.in_short([report]).endswith("| 70% | 83% | 50% | 0% |")
    drawn = write_results.internal_and_external([report])
    assert len(drawn.axes[0].patches) == 3


def test_missed_aims_are_named(with_external: Path) -> None:
    report = Report.read(with_external)
    said = aims.missed(report)
    assert any(line.startswith("openist: healthy adults called COVID-19 50.0%") for line in said)
    assert "| **" not in aims.of_networks({}, [report]).splitlines()[3]  # 50 % where 3 % were wanted
    several = replace(report, name="xray-cnn-multisource")
    assert f"as shipped misses {len(said)} of {aims.COUNT} aims" in write_results.what_fails([several])
    assert "finds 1 of 1 Pneumonia" in write_results.answer_fails([several])[0]


def test_what_more_sources_change_is_said_where_both_ship(with_external: Path, tmp_path: Path) -> None:
    several = Path(shutil.copytree(with_external, tmp_path / "xray-cnn-multisource"))
    reports = [Report.read(each) for each in (with_external, several)]
    assert write_results.answer_sources(reports[:1]) == []
    assert "balanced accuracy goes from 70% to 70%" in write_results.answer_sources(reports)[0]


def test_intervals_of_shares_are_over_patients() -> None:
    table = external_table("openist", [0] * 40, [0] * 20 + [2] * 20, ["x"] * 40)
    of_two = replace(table, patient_id=np.repeat(["a", "b"], 20))
    of_many, of_few = (
        external_sets.share(each, each.predicted == 2, np.ones(40, bool))["interval"]
        for each in (table, of_two)
    )
    assert of_few[0] < 0.01 < 0.99 < of_few[1]
    assert 0.2 < of_many[0] < 0.5 < of_many[1] < 0.8


def test_external_sets_are_measured_together(with_external: Path) -> None:
    found = external_sets.measure(with_external)
    counts = {name: own["counts"] for name, own in found.items() if "counts" in own}
    assert counts == {"covid_false_positives": [2, 4], "covid_sensitivity": [1, 2]}
    assert {name: own["counts"] for name, own in found["engine"].items()} == {
        "covid_false_positives": [1, 4],
        "covid_sensitivity": [1, 2],
        "decided": [2, 4],
        "covid_among_decided": [1, 2],
        "rejected": [1, 6],
    }
    assert {name: own["counts"] for name, own in found["mixed"].items() if "counts" in own} == {
        "pneumonia_sensitivity": [1, 1],
        "covid_false_positives": [0, 1],
    }
    assert found["balanced_accuracy"]["value"] == pytest.approx((3 / 5 + 1 + 2 / 4) / 3)
    # Pairs of one COVID-19 and one Normal image: the sure COVID-19 wins 2 of 4 and ties 2, the other ties 2.
    assert found["covid_auroc"]["value"] == pytest.approx((2 + 2 / 2 + 2 / 2) / 8)


def test_patients_of_two_sets_are_not_the_same(shipped: Path) -> None:
    one, other = (external_table(name, [0, 0], [0, 0], ["", ""]) for name in ("openist", "spain_twitter"))
    assert len(set(external_sets.pool([one, other]).patient_id)) == 4


def test_an_aim_is_bold_where_it_is_reached() -> None:
    aim = next(each for each in aims.NETWORKS if each.limit == 0.03)
    runs = [{"external_sets": {"covid_false_positives": {"value": value}}} for value in (0.01, 0.03)]
    assert aim.over_seeds(runs) == "**2.0% ± 1.4%**"
    assert (
        aim.over_seeds([*runs, {"external_sets": {"covid_false_positives": {"value": 0.09}}}])
        == "4.3% ± 4.2%"
    )
    assert aim.over_seeds([{"external_sets": {}}]) == "-"


def test_a_record_keeps_what_is_not_collected_again(tmp_path: Path) -> None:
    def row(recipe: str, seed: int, value: int) -> dict[str, Any]:
        return {"recipe": recipe, "model": "m", "initial_weights": "random", "seed": seed, "value": value}

    known, new = [row("robust", 0, 1), row("paper", 0, 1)], [row("robust", 0, 2), row("robust", 1, 2)]
    merged = collect_results.merge(known, new, collect_results.RUN_KEYS)
    assert merged == [row("paper", 0, 1), row("robust", 0, 2), row("robust", 1, 2)]
    with pytest.raises(DataError, match=r"has no finished run of reproduce\.py"):
        collect_results.collect(tmp_path)


@pytest.mark.parametrize("missing", ["label_noise", "ood_report"])
def test_a_bundle_that_is_no_release_is_an_error(
    shipped: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(shipped / "pretrained" / "xray-cnn", tmp_path / "xray-cnn"))
    for name in ("metrics.json", "calibration.json"):
        values = json.loads((folder / name).read_text())
        write_json(folder / name, {key: value for key, value in values.items() if key != missing})
    monkeypatch.setattr(write_results, "PRETRAINED", tmp_path)
    with pytest.raises(BundleError, match=r"is not a release: .*scripts/release.py"):
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
    assert collect_results.unleaked(table) == {"n": 2, "accuracy": 0.5}


def test_the_page_can_be_written_again_without_the_runs(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (shipped / "docs" / "results.md").read_text(encoding="utf-8")
    monkeypatch.setattr(write_results, "PRETRAINED", shipped / "pretrained")
    monkeypatch.setattr(write_results, "DOCS", shipped / "docs")
    monkeypatch.setattr(write_results, "README", shipped / "README.md")
    write_results.main([])
    readme = (shipped / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("before\n")
    assert readme.endswith("after")
    assert readme.count("| `xray-cnn` | 1 source | ") == 1
    (shipped / "README.md").write_text("no table")
    with pytest.raises(BundleError, match="put them back around its table"):
        write_results.main([])
    (shipped / "README.md").write_text(readme)
    assert (shipped / "docs" / "results.md").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("change", ["a decision", "a logit"])
def test_weights_stay_whole_where_half_precision_would_matter(
    runs: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source = runs / "robust" / "xray-cnn" / "seed-0" / "bundle"
    folder = Path(shutil.copytree(source, tmp_path / "bundle"))

    table = Predictions.read(folder / manifest.PREDICTIONS)
    whole, test = table.logits.copy(), np.flatnonzero(table.split == "test")[0]
    whole[test] = [1e-3, 0, 0]
    half = whole.copy()
    half[test] = [0, 1e-3, 0] if change == "a decision" else whole[test] + 0.02
    found = iter([whole, half])
    monkeypatch.setattr(release, "predict_rows", lambda *_, **__: next(found))
    assert not release.predict_and_round(folder, open_coronahack(synthetic, SIDE))
    assert (folder / manifest.WEIGHTS).read_bytes() == (source / manifest.WEIGHTS).read_bytes()
    assert np.array_equal(Predictions.read(folder / manifest.PREDICTIONS).logits, whole)
