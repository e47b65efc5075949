"""Temperature, abstention and operating points: right on toys, and fitted on validation rows only."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xray_hf import cli, evidence, manifest
from xray_hf.calibration import abstention, calibration, operating_points, temperature
from xray_hf.calibration.abstention import fit_abstention, risk_coverage
from xray_hf.calibration.calibration import Calibration, OperatingPoint
from xray_hf.calibration.fit import describe, fit, fit_bundle
from xray_hf.calibration.ood import Detector
from xray_hf.calibration.operating_points import SPECIFICITIES, fit_operating_points, fit_threshold
from xray_hf.calibration.temperature import (
    brier_score,
    calibrated,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from xray_hf.errors import BundleError, ConfigError
from xray_hf.evaluation.metrics import cross_entropy, losses
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import Draws, interval, share_interval
from xray_hf.files import write_json
from xray_hf.task import PAPER_CLASSES

ROOT = Path(__file__).resolve().parents[1]
PNEUMONIA = 1
FITTED = Calibration(2.0, 0.6, 0.02, (OperatingPoint("Pneumonia", 0.9, 0.5),), {"split": "validation"})


def honest(n: int = 4000, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels and the logits that they were drawn from."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(n, n_classes))
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=1), logits


def table_of(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: tuple[str, ...] = PAPER_CLASSES,
    source: Any = "coronahack",
    split: Any = "validation",
) -> Predictions:
    """Rows of three images a patient."""
    split = np.broadcast_to(split, len(labels))
    return Predictions(
        classes=classes,
        file_name=np.array([f"{row}.jpeg" for row in range(len(labels))]),
        source=np.asarray(source),
        patient_id=np.array([f"p{row // 3}" for row in range(len(labels))]),
        split=split,
        official_split=np.where(split == "test", "TEST", "TRAIN"),
        label=labels,
        logits=logits.astype(np.float32),
    )


def toy(n: int = 600, classes: tuple[str, ...] = PAPER_CLASSES) -> Predictions:
    """Half validation, half test; twice as sure as it should be."""
    labels, logits = honest(n, len(classes))
    split = np.where(np.arange(n) < n // 2, "validation", "test")
    return table_of(labels, 2 * logits, classes, split=split)


def two_sources(large: int = 900, small: int = 100) -> Predictions:
    """Validation rows of a large source, as sure as it should be, and a small one, 5 times as sure."""
    labels, logits = honest(large + small)
    source = np.repeat(["large", "small"], [large, small])
    return table_of(labels, np.where(source == "small", 5, 1)[:, None] * logits, source=source)


def risk_of(rows: Predictions, fitted: Calibration) -> float:
    """The share of wrong answers."""
    is_answered = fitted.probabilities(rows.logits).max(axis=1) >= fitted.abstain_below
    return float((rows.predicted != rows.label)[is_answered].mean())


def two_classes(of_the_first: Any) -> np.ndarray:
    """Probabilities of three classes, the last of which is never meant."""
    first = np.asarray(of_the_first, dtype=float)
    return np.stack([first, 1 - first, 0 * first], axis=1)


# Six rows whose truth is class 0; confidence .95 .9 .8 .8 .7 .6, the third and the last are wrong.
PROBABILITIES = two_classes([0.95, 0.1 + 0.8, 0.2, 0.8, 0.7, 0.4])
LABELS_OF_SIX = np.zeros(6, int)


def test_calibration_errors_have_the_intervals_of_measuring_each_draw() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = (rng.normal(size=(60, 3)) + np.eye(3)[labels]).astype(np.float32)
    names = np.array([f"p{row // 2}" for row in range(60)])
    table = dataclasses.replace(
        toy(60), patient_id=names, split=np.full(60, "test"), label=labels, logits=logits
    )
    fitted = Calibration(1.3, 0.4, 0.1)
    found = describe(table, fitted)["calibration"]["after"]
    probabilities = calibrated(logits, 1.3)
    draws = Draws(names)
    of_draws = []
    for times in np.concatenate(list(draws.times()))[:200]:
        rows = np.repeat(np.arange(60), times[draws.patient].astype(int))
        of_draws.append(expected_calibration_error(labels[rows], probabilities[rows]))
    assert np.quantile(of_draws, [0.025, 0.975]) == pytest.approx(found["intervals"]["ece"], abs=0.02)
    for name, (low, high) in found["intervals"].items():
        assert low < high, name
    assert found["intervals"]["brier"][0] < found["brier"] < found["intervals"]["brier"][1]


def test_the_temperature_that_spoiled_the_logits_is_found() -> None:
    labels, logits = honest()
    assert fit_temperature(labels, logits) == pytest.approx(1, rel=0.05)
    assert fit_temperature(labels, 3 * logits) == pytest.approx(3 * fit_temperature(labels, logits), rel=1e-4)
    assert fit_temperature(labels, logits / 3) == pytest.approx(fit_temperature(labels, logits) / 3, rel=1e-4)


def test_no_other_temperature_has_a_smaller_cross_entropy() -> None:
    labels, logits = honest(200)
    best = fit_temperature(labels, logits)
    losses = [cross_entropy(labels, calibrated(logits, best * factor)) for factor in (0.98, 1, 1.02)]
    assert losses[1] == min(losses)


def test_a_temperature_without_a_best_value_is_the_bound() -> None:
    labels = np.array([0, 1, 2, 0])
    always_right = np.eye(3)[labels]
    assert fit_temperature(labels, always_right) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(labels, -always_right) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1]])
def test_a_temperature_needs_two_classes(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"{len(labels)} rows of {len(set(labels))} classes"):
        fit_temperature(np.array(labels, dtype=int), np.zeros((len(labels), 3)))


def test_brier_score_worked_out_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0, 1, 0]])
    assert brier_score(np.array([0, 2]), probabilities) == pytest.approx((0.09 + 0.04 + 0.01 + 2) / 2)


def test_calibration_error_worked_out_by_hand() -> None:
    # Bins of a fifteenth: .95 and 1 share the last one; 0.8 ends the twelfth and belongs to it.
    probabilities = two_classes([0.95, 1.0, 0.8, 0.79])
    labels = np.array([0, 1, 0, 1])
    n, sure, right = reliability(labels, probabilities)
    assert n.tolist() == [0] * 11 + [2, 0, 0, 2]
    assert [sure[11], right[11]] == pytest.approx([0.795, 0.5])
    assert [sure[14], right[14]] == pytest.approx([0.975, 0.5])
    expected = (2 * 0.295 + 2 * 0.475) / 4
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)


def test_the_first_and_the_last_bin_hold_what_lies_at_the_ends() -> None:
    rounded_up = np.array([[1 + 2e-16, 0]])
    assert reliability(np.array([0]), rounded_up)[0].tolist() == [0] * 14 + [1]
    unsure = np.full((1, 20), 1 / 20)
    assert reliability(np.array([0]), unsure)[0].tolist() == [1] + [0] * 14


def test_the_right_temperature_mends_the_calibration() -> None:
    labels, logits = honest()
    before, after = (expected_calibration_error(labels, calibrated(logits * 3, t)) for t in (1, 3))
    assert after < 0.03 < 0.1 < before


def test_the_risk_coverage_curve_worked_out_by_hand() -> None:
    curve = risk_coverage(LABELS_OF_SIX, PROBABILITIES)
    np.testing.assert_allclose(curve.confidence, [0.95, 0.9, 0.8, 0.7, 0.6])  # .8 and .8 are one point
    np.testing.assert_allclose(curve.coverage, np.array([1, 2, 4, 5, 6]) / 6)
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 4, 1 / 5, 2 / 6])
    assert curve.area == pytest.approx((2 * 1 / 4 + 1 / 5 + 2 / 6) / 6)


@pytest.mark.parametrize(
    ("risk", "threshold"), [(0, 0.85), (0.19, 0.85), (0.2, 0.65), (0.32, 0.65), (0.34, 0)]
)
def test_the_threshold_answers_as_many_as_the_risk_allows(risk: float, threshold: float) -> None:
    assert fit_abstention(LABELS_OF_SIX, PROBABILITIES, risk) == pytest.approx(threshold)


def test_a_risk_that_no_threshold_reaches_is_refused_with_the_lowest() -> None:
    # The surest two are equally sure, and one is wrong.
    probabilities = two_classes([0.9, 0.1, 0.8])
    with pytest.raises(ConfigError, match=r"the lowest is 33\.3%, at 100\.0% coverage of 3 rows; pass a hi"):
        fit_abstention(np.zeros(3, int), probabilities, 0.02)


@pytest.mark.parametrize(
    ("specificity", "threshold"), [(0.5, 0.25), (0.6, 0.35), (0.75, 0.35), (0.9, 0.65), (1, 0.65)]
)
def test_the_threshold_finds_most_cases_at_that_specificity(specificity: float, threshold: float) -> None:
    others, cases = [0.1, 0.2, 0.3, 0.6], [0.4, 0.7, 0.9]
    is_case = np.repeat([False, True], [4, 3])
    scores = np.array(others + cases)
    found = fit_threshold(is_case, scores, specificity)
    assert found == pytest.approx(threshold)
    assert (np.array(others) <= found).mean() >= specificity


def test_scores_that_tell_nothing_call_no_case() -> None:
    threshold = fit_threshold(np.array([False, True]), np.array([0.5, 0.5]), 0.9)
    assert threshold == 0.5  # and above it lies nothing


def test_what_is_measured_on_other_rows_worked_out_by_hand() -> None:
    # Calibrated with T = 2, Pneumonia has .5 exactly in the third row: not above the threshold.
    probabilities = np.array([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1], [0.7, 0.2, 0.1]])
    labels = np.array([1, 0, 1, 0])
    names = np.array(list("abcd"))
    rows = Predictions(
        classes=PAPER_CLASSES,
        file_name=names,
        source=np.asarray("coronahack"),
        patient_id=names,
        split=np.asarray("test"),
        label=labels,
        logits=2 * np.log(probabilities).astype(np.float32),
    )
    found = describe(
        rows, dataclasses.replace(FITTED, operating_points=(OperatingPoint("Pneumonia", 0.9, 0.6),))
    )
    abstention, (point,) = found["abstention"], found["operating_points"]
    assert (abstention["coverage"], abstention["risk"]) == pytest.approx((3 / 4, 1 / 3))
    assert (point["sensitivity"], point["specificity"]) == (0.5, 0.5)
    assert point["sensitivity_on_own_roc"] == pytest.approx(0.5)  # flat at the first of two cases
    before, after = found["calibration"]["before"], found["calibration"]["after"]
    assert after["brier"] == pytest.approx(brier_score(labels, probabilities))
    assert before["brier"] == pytest.approx(brier_score(labels, rows.probabilities))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_who_is_as_sure_as_the_threshold_is_answered() -> None:
    probabilities, patients = two_classes([0.75, 0.5, 0.25, 0.875]), np.array([7, 7, 8, 9])
    is_answered, is_wrong = np.array([True, False, True, True]), np.array([False, False, True, False])
    assert abstention.describe(np.zeros(4, int), probabilities, 0.75, patients) == {
        "abstain_below": 0.75,
        "coverage": 0.75,
        "risk": 1 / 3,
        "intervals": {
            "coverage": share_interval(is_answered, patients),
            "risk": share_interval(is_wrong, patients, is_answered),
        },
        # 1 row without an error, 3 with one, all 4 with one.
        "aurc": pytest.approx(0 / 4 + 2 / 4 / 3 + 1 / 4 / 4),
    }


def test_who_is_as_high_as_an_operating_point_is_no_case() -> None:
    is_case, scores = np.array([True, True, False, False, False]), np.array([0.9, 0.5, 0.5, 0.95, 0.1])
    patients = np.arange(5)
    assert operating_points.describe(is_case, scores, OperatingPoint("Mass", 0.5, 0.5), patients) == {
        "label": "Mass",
        "validation_specificity": 0.5,
        "threshold": 0.5,
        "sensitivity": 1 / 2,
        "specificity": 2 / 3,
        "intervals": {
            "sensitivity": share_interval(scores > 0.5, patients, is_case),
            "specificity": share_interval(scores <= 0.5, patients, ~is_case),
        },
        "sensitivity_on_own_roc": pytest.approx(3 / 4),  # halfway between 1/2 at 1/3 and 1 at 2/3
    }


def test_calibration_is_described_by_three_numbers_and_their_intervals() -> None:
    labels, logits = honest(60)
    probabilities, draws = calibrated(logits, 1), Draws(np.arange(60) // 2)
    found = temperature.describe(labels, probabilities, draws)
    intervals = found.pop("intervals")
    assert found == {
        "ece": expected_calibration_error(labels, probabilities),
        "brier": brier_score(labels, probabilities),
        "cross_entropy": cross_entropy(labels, probabilities),
    }
    assert intervals.keys() == found.keys()
    assert intervals["cross_entropy"] == interval(draws.means(losses(labels, probabilities)))
    assert all(low < high for low, high in intervals.values())


def test_shares_lie_in_their_intervals_and_what_nobody_answers_is_null() -> None:
    test = toy().select("test")
    found = describe(test, FITTED)
    for part in (found["abstention"], *found["operating_points"]):
        assert all(low < part[name] < high for name, (low, high) in part["intervals"].items())
    none = describe(test, dataclasses.replace(FITTED, abstain_below=1.0, temperature=1e3))
    assert (none["abstention"]["coverage"], none["abstention"]["risk"]) == (0, None)
    assert none["abstention"]["intervals"]["risk"] is None


def test_rows_without_pneumonia_have_no_sensitivity() -> None:
    test = toy().select("test")
    found = describe(dataclasses.replace(test, label=test.label * 0), FITTED)["operating_points"][0]
    assert (found["sensitivity"], found["intervals"]["sensitivity"]) == (None, None)
    assert found["sensitivity_on_own_roc"] is None


@pytest.mark.parametrize("n_classes", [2, 5])
def test_any_number_of_classes_can_be_calibrated(n_classes: int) -> None:
    classes = tuple("ABCDE"[:n_classes])
    labels, logits = honest(2000, n_classes)
    fitted = fit(table_of(labels, 3 * logits, classes), 0.1)
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    probabilities = calibrated(3 * logits, fitted.temperature)
    is_answered = probabilities.max(axis=1) >= fitted.abstain_below
    assert 1 / n_classes < fitted.abstain_below < 1
    assert (probabilities.argmax(axis=1) != labels)[is_answered].mean() <= 0.1
    assert [point.label for point in fitted.operating_points] == [name for name in classes for _ in range(2)]
    for label, specificity, threshold in fitted.operating_points:
        index = classes.index(label)
        others = probabilities[labels != index, index]
        assert (others <= threshold).mean() == pytest.approx(specificity, abs=2e-3)


def test_of_two_classes_each_has_the_operating_points_of_its_own_mistakes() -> None:
    first = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1])
    points = fit_operating_points(np.array([0, 0, 0, 1, 1, 1]), np.stack([first, 1 - first], axis=1), "AB")
    assert [(label, threshold) for label, _, threshold in points[::2]] == [
        ("A", pytest.approx(0.75)),  # above the .7 of a B
        ("B", pytest.approx(0.75)),  # above the .7 of an A
    ]


def test_what_is_measured_names_the_class_of_each_operating_point() -> None:
    points = tuple(OperatingPoint(label, 0.9, 0.5) for label in reversed(PAPER_CLASSES))
    test = toy().select("test")
    found = describe(test, dataclasses.replace(FITTED, operating_points=points))["operating_points"]
    probabilities = calibrated(test.logits, FITTED.temperature)
    for point in found:
        index = PAPER_CLASSES.index(point["label"])
        expected = (probabilities[test.label == index, index] > 0.5).mean()
        assert point["sensitivity"] == pytest.approx(expected)


def test_an_operating_point_of_a_class_that_the_rows_do_not_know_is_one_clear_error() -> None:
    strange = dataclasses.replace(FITTED, operating_points=(OperatingPoint("Mass", 0.9, 0.5),))
    with pytest.raises(BundleError, match="an operating point of 'Mass', the predictions have the classes N"):
        describe(toy(), strange)


def test_the_engine_answers_what_the_fit_counted_as_answered() -> None:
    validation = toy().select("validation")
    fitted = fit(validation, 0.15)
    sure = fitted.probabilities(validation.logits).max(axis=1) >= fitted.abstain_below
    is_wrong = validation.predicted != validation.label
    found = describe(validation, fitted)["abstention"]
    assert sure.mean() == found["coverage"]
    assert is_wrong[sure].mean() == found["risk"] <= 0.15
    assert 0.2 < sure.mean() < 0.9


def test_a_fit_survives_json() -> None:
    validation = toy().select("validation")
    fitted = fit(validation)
    assert Calibration.from_dict(json.loads(json.dumps(fitted.as_dict()))) == fitted
    assert fitted.fitted_on == {"split": "validation", "n": 300, "date": fitted.fitted_on["date"]}
    assert abs(datetime.now(UTC) - datetime.fromisoformat(fitted.fitted_on["date"])) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0009}, "temperature is 0.0009; expected 0.001 to a million"),
        ({"temperature": 1e6 + 0.5}, "temperature is 1000000.5; expected"),
        ({"abstain_below": 1.5}, "abstain_below is 1.5; expected 0 to 1"),
        ({"target_risk": -0.1}, "target_risk is -0.1; expected 0 to 1"),
        ({"operating_points": (OperatingPoint("Mass", 0.9, 1.5),)}, "an operating point of Mass is 1.5"),
    ],
)
def test_what_no_fit_gives_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Calibration(**values)
    Calibration(temperature=1e-3, abstain_below=0, target_risk=1)
    Calibration(temperature=1e6, abstain_below=1, target_risk=0)


def test_each_half_survives_json_alone_and_with_the_other() -> None:
    nothing, threshold = Calibration(), fit(toy().select("validation"))
    detector = Detector(np.ones(2, np.float32), np.zeros(1024, np.float32), 0.5)
    both = dataclasses.replace(threshold, detector=detector, ood_report={"test": {"n": 1}})
    only_detector = dataclasses.replace(nothing, detector=detector, ood_report={"test": {"n": 1}})
    assert (nothing.as_dict(), Calibration.from_dict({})) == ({}, nothing)
    assert only_detector.as_dict() == {"ood": detector.as_dict(), "ood_report": {"test": {"n": 1}}}
    assert both.as_dict() == threshold.as_dict() | only_detector.as_dict()
    assert Calibration.from_dict(both.as_dict()).as_dict() == both.as_dict()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a training leaves, without a network."""
    write_json(tmp_path / manifest.TRAINING, {"is_synthetic": True, "history": []})
    write_json(tmp_path / manifest.SPLITS, {"protocol": "grouped"})
    toy().write(tmp_path / manifest.PREDICTIONS)
    return tmp_path


def saved(folder: Path) -> dict[str, Any]:
    return json.loads((folder / manifest.CALIBRATION).read_text())


def test_calibration_json_says_what_was_fitted_and_where(folder: Path) -> None:
    fitted, validation = fit_bundle(folder, 0.05), toy().select("validation")
    assert calibration.read(folder) == fitted
    expected = fit(validation, 0.05)
    assert dataclasses.replace(fitted, fitted_on=expected.fitted_on) == expected
    assert saved(folder)["fitted_on"].items() >= {"split": "validation", "n": 300}.items()
    assert saved(folder)["temperature"] == fitted.temperature == pytest.approx(2, rel=0.2)
    assert (saved(folder)["abstain_below"], saved(folder)["target_risk"]) == (fitted.abstain_below, 0.05)
    points = [(point["label"], point["specificity"]) for point in saved(folder)["operating_points"]]
    assert points == [(label, wanted) for label in PAPER_CLASSES for wanted in SPECIFICITIES]


def test_names_of_version_0_1_are_read_and_rewritten(folder: Path) -> None:
    share = {"n": 1, "refused": 0.5, "interval": [0, 1], "refused_by_detector": 0.5}
    old = {
        "temperature": 1.5,
        "unsure_below": 0.7,
        "target_risk": 0.02,
        "operating_points": [{"specificity": 0.9, "threshold": 0.3}],
        "fitted_on": {"split": "validation"},
        "foreign": {"embedding": [1.0], "thumbnail": [0.0] * 1024, "bias": 0.5},
        "foreign_report": {"test": share, "kinds": {"refused": share}},
    }
    write_json(folder / manifest.CALIBRATION, old)
    read, mark = calibration.read(folder), manifest.calibration_mark(folder)
    assert (read.temperature, read.abstain_below) == (1.5, 0.7)
    assert read.operating_points == (OperatingPoint("Pneumonia", 0.9, 0.3),)
    assert read.detector is not None
    now = {"n": 1, "rejected": 0.5, "interval": [0, 1], "rejected_by_detector": 0.5}
    assert read.ood_report == {"test": now, "kinds": {"refused": now}}  # a kind is called as its folder

    calibration.update(folder, read)
    assert not set(saved(folder)) & {"foreign", "foreign_report", "unsure_below"}
    assert calibration.read(folder).as_dict() == read.as_dict()
    assert manifest.calibration_mark(folder) == mark


@pytest.mark.parametrize(
    ("name", "mark"), [("xray-resnet18", "5ad6406a8f838094"), ("xray-cnn", "92bed12bce6edf0d")]
)
def test_decisions_recorded_for_the_shipped_models_still_count(name: str, mark: str) -> None:
    assert manifest.calibration_mark(ROOT / "pretrained" / name) == mark


@pytest.mark.slow
@pytest.mark.parametrize("classes", [("Normal", "Mass"), ("Normal", "Mass", "Nodule", "Edema", "Effusion")])
def test_a_bundle_of_any_classes_has_operating_points_of_each(folder: Path, classes: tuple[str, ...]) -> None:
    toy(classes=classes).write(folder / manifest.PREDICTIONS)
    fitted = fit_bundle(folder, 0.1)
    expected = [(label, wanted) for label in classes for wanted in SPECIFICITIES]
    assert [(label, wanted) for label, wanted, _ in calibration.read(folder).operating_points] == expected
    test = evidence.draw(folder)["test"]
    points = test["operating_points"]
    assert [(point["label"], point["validation_specificity"]) for point in points] == expected
    assert all(abs(point["specificity"] - point["validation_specificity"]) < 0.1 for point in points)
    assert test["abstention"]["abstain_below"] == fitted.abstain_below > 1 / len(classes)
    assert 0 < test["abstention"]["coverage"] < 1


def test_every_source_counts_the_same_in_the_temperature() -> None:
    rows = two_sources()
    repeated = rows.take(np.concatenate([np.arange(1000), np.tile(np.arange(900, 1000), 8)]))
    balanced = fit_temperature(rows.label, rows.logits, rows.source)
    assert balanced == pytest.approx(fit_temperature(repeated.label, repeated.logits), rel=1e-4)
    assert fit(rows, 0.1).temperature == balanced > 1.2 * fit_temperature(rows.label, rows.logits)


def test_the_curve_of_the_worst_source_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source a is right at .9 and wrong at .7, b right at .8 and .6."""
    monkeypatch.setattr(abstention, "MIN_SOURCE_ROWS", 2)
    probabilities = two_classes([0.9, 0.8, 0.3, 0.6])
    curve = abstention.worst_risk_coverage(np.zeros(4, int), probabilities, np.array([*"abab"]))
    assert curve.confidence.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.risk.tolist() == [0, 0, 1 / 2, 1 / 2]


def test_the_risk_is_kept_in_every_source_with_enough_rows() -> None:
    rows = two_sources()
    fitted, parts = fit(rows, 0.1), rows.by_source()
    pooled = fit_abstention(rows.label, calibrated(rows.logits, fitted.temperature), 0.1)
    assert risk_of(rows, fitted) <= 0.1
    assert (
        risk_of(parts["small"], fitted)
        <= 0.1
        < risk_of(parts["small"], dataclasses.replace(fitted, abstain_below=pooled))
    )
    assert fitted.fitted_on["risk_kept_in"] == ["large", "small"]


def test_the_risk_of_a_source_of_few_rows_is_not_kept_there() -> None:
    few = abstention.MIN_SOURCE_ROWS - 1
    rows = two_sources(900, few)
    fitted = fit(rows, 0.1)
    assert fitted.fitted_on["risk_kept_in"] == ["large"]
    assert max(risk_of(part, fitted) for part in (rows, rows.by_source()["large"])) <= 0.1
    assert fit(two_sources(900, few + 1), 0.1).fitted_on["risk_kept_in"] == ["large", "small"]


def test_a_source_that_is_always_wrong_is_named_as_the_reason() -> None:
    rows = two_sources()
    logits = np.where((rows.source == "small")[:, None], 99 * np.eye(3)[(rows.label + 1) % 3], rows.logits)
    with pytest.raises(
        ConfigError, match=r"no threshold keeps the selective risk of the worst source at 2\.0%"
    ):
        fit(dataclasses.replace(rows, logits=logits.astype(np.float32)), 0.02)


@pytest.mark.parametrize("name", ["xray-resnet18", "xray-cnn"])
def test_one_source_is_fitted_to_the_bit_as_it_was_shipped(name: str) -> None:
    bundle = ROOT / "pretrained" / name
    shipped = calibration.read(bundle)
    again = fit(Predictions.read(bundle / manifest.PREDICTIONS).select("validation"), shipped.target_risk)
    assert (again.temperature, again.abstain_below) == (shipped.temperature, shipped.abstain_below)
    assert set(shipped.operating_points) <= set(again.operating_points)
    assert again.fitted_on.keys() == shipped.fitted_on.keys()


def test_no_wrong_answer_at_all_may_be_allowed(folder: Path) -> None:
    fitted, validation = fit_bundle(folder, 0.0), toy().select("validation")
    assert (fitted.target_risk, risk_of(validation, fitted)) == (0, 0)


def test_test_rows_do_not_matter(folder: Path) -> None:
    def fitted() -> str:
        fit_bundle(folder)
        return re.sub(r'"date": "[^"]*"', "", (folder / manifest.CALIBRATION).read_text())

    before, predictions = fitted(), toy()
    is_test = predictions.split == "test"
    changed = dataclasses.replace(
        predictions,
        label=np.where(is_test, PNEUMONIA, predictions.label),
        logits=np.where(is_test[:, None], np.float32(-7), predictions.logits),
    )
    changed.write(folder / manifest.PREDICTIONS)
    assert fitted() == before
    dataclasses.replace(changed, logits=changed.logits / 2).write(folder / manifest.PREDICTIONS)
    assert fitted() != before


def test_calibrating_again_keeps_the_other_half(folder: Path) -> None:
    write_json(folder / manifest.CALIBRATION, {"ood": {"kept": 1}, "temperature": 9.0})
    for risk in (0.1, 0.05):
        fit_bundle(folder, risk)
        assert saved(folder)["ood"] == {"kept": 1}
        assert saved(folder)["target_risk"] == risk
    assert saved(folder)["temperature"] != 9


def test_validation_rows_that_were_trained_on_calibrate_nothing(folder: Path) -> None:
    write_json(folder / manifest.SPLITS, {"protocol": "paper"})
    with pytest.raises(BundleError, match=r"splits\.json has protocol 'paper'; .* copies of training rows"):
        fit_bundle(folder)
    assert not (folder / manifest.CALIBRATION).exists()


@pytest.mark.parametrize(
    ("damage", "risk", "error", "message"),
    [
        ("", -0.1, ConfigError, r"--risk is -0\.1; expected 0 to below 1"),
        ("", 1.0, ConfigError, r"--risk is 1\.0"),
        ("", float("nan"), ConfigError, "--risk is nan"),
        ("no predictions", 0.02, BundleError, r"there is no .*predictions\.parquet"),
        ("no splits", 0.02, BundleError, r"splits\.json is missing"),
        ("no validation", 0.02, BundleError, "0 rows of 0 classes; .* train with more data"),
        ("always wrong", 0.02, ConfigError, r"no threshold keeps the selective risk at 2\.0%"),
    ],
)
def test_bad_input_is_one_clear_error_and_writes_nothing(
    folder: Path, damage: str, risk: float, error: type[Exception], message: str
) -> None:
    predictions = toy()
    if damage == "no predictions":
        (folder / manifest.PREDICTIONS).unlink()
    elif damage == "no splits":
        (folder / manifest.SPLITS).unlink()
    elif damage == "no validation":
        predictions.select("test").write(folder / manifest.PREDICTIONS)
    elif damage == "always wrong":
        wrong = np.eye(3, dtype=np.float32)[(predictions.label + 1) % 3]
        dataclasses.replace(predictions, logits=wrong).write(folder / manifest.PREDICTIONS)
    with pytest.raises(error, match=message):
        fit_bundle(folder, risk)
    assert not (folder / manifest.CALIBRATION).exists()


@pytest.mark.slow
def test_metrics_and_figures_show_the_calibration_once_there_is_one(folder: Path) -> None:
    before = evidence.draw(folder)
    fit_bundle(folder)
    after = evidence.draw(folder)
    assert list(after) == ["classes", "validation", "test", "test_official"]
    for subset in ("validation", "test", "test_official"):
        numbers = after[subset]
        new = {"calibration", "abstention", "operating_points"}
        assert {name: value for name, value in numbers.items() if name not in new} == before[subset]
        assert new | {"intervals", "patients_per_class"} <= set(numbers)
    assert json.loads((folder / manifest.METRICS).read_text()) == after
    drawn = {path.name for path in (folder / manifest.FIGURES).iterdir()}
    assert {"reliability_test.png", "risk_coverage.png"} <= drawn


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"abstain_below": 2}, {"operating_points": [{}]}, {"target_risk": None}]
)
def test_views_of_a_damaged_calibration_are_one_clear_error(folder: Path, change: dict[str, Any]) -> None:
    fit_bundle(folder)
    write_json(folder / manifest.CALIBRATION, saved(folder) | change)
    with pytest.raises(BundleError, match=r"calibration\.json is damaged .* run `xray-hf calibrate` again"):
        evidence.draw(folder)


@pytest.mark.slow
def test_the_command_fits_prints_and_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["calibrate", str(folder), "--risk", "0.1"])
    printed = capsys.readouterr().out
    assert printed.startswith("SYNTHETIC patients")
    assert "internal test set" in printed
    assert f"temperature {saved(folder)['temperature']:.3f}" in printed
    assert "ood" not in saved(folder)
    assert (folder / manifest.FIGURES / "risk_coverage.png").exists()


def test_the_command_has_the_fits_own_default() -> None:
    (risk,) = (option for option in cli.calibrate.params if option.name == "risk")
    assert risk.default == abstention.TARGET_RISK


@pytest.mark.parametrize("option", ["--data-dir", "--ood-dir"])
def test_the_command_wants_both_folders_or_none(folder: Path, option: str) -> None:
    with pytest.raises(ConfigError, match="fitted with both --source and --ood-dir; pass both or neither"):
        cli.main(["calibrate", str(folder), option, str(folder)])
    assert not (folder / manifest.CALIBRATION).exists()
