"""The metrics against values worked out by hand, against scikit-learn, and where there is no information."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from xray_hf.evaluation import metrics
from xray_hf.evaluation.predictions import SUBSETS, Predictions
from xray_hf.task import PAPER_CLASSES

# By hand: 10 Normal of which 8 are found, 20 Pneumonia of which 15, 5 COVID-19 of which 2.
HAND = np.array([[8, 2, 0], [4, 15, 1], [1, 2, 2]])


def rows_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions that count up to `matrix`."""
    cells = np.repeat(np.arange(matrix.size), matrix.ravel())
    return cells // len(matrix), cells % len(matrix)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 labels with all classes, predictions and probabilities that know a little."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=300, p=[0.3, 0.6, 0.1])
    logits = rng.normal(size=(300, 3))
    logits[np.arange(300), labels] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


def predictions_of(labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
    """A table whose first half is validation and second half test, two images a patient."""
    n = len(labels)
    split = np.where(np.arange(n) < n // 2, "validation", "test")
    official = np.where(split == "validation", "TRAIN", np.where(labels == 2, "TRAIN", "TEST"))
    names = np.array([f"{row}.jpeg" for row in range(n)])
    patients = np.array([f"p{row // 2}" for row in range(n)])
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=names,
        source=np.array("coronahack"),
        patient_id=patients,
        split=split,
        official_split=official,
        label=labels,
        logits=np.log(probabilities).astype(np.float32),
    )


def measure(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None = None
) -> dict[str, Any]:
    return metrics.measure(labels, predicted, probabilities, PAPER_CLASSES)


def summarise(predictions: Predictions) -> dict[str, dict[str, Any]]:
    parts = {subset: predictions.select(subset) for subset in SUBSETS}
    return {subset: metrics.describe(part) for subset, part in parts.items() if len(part)}


def test_rows_are_the_truth_and_columns_the_prediction() -> None:
    assert metrics.confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 1]), 3).tolist() == [
        [1, 1, 0],
        [0, 0, 0],
        [0, 1, 0],
    ]
    np.testing.assert_array_equal(metrics.confusion_matrix(*rows_of(HAND), 3), HAND)


def test_rates_worked_out_by_hand() -> None:
    assert metrics.accuracy(HAND) == pytest.approx(25 / 35)
    np.testing.assert_allclose(metrics.sensitivity(HAND), [8 / 10, 15 / 20, 2 / 5])
    np.testing.assert_allclose(metrics.specificity(HAND), [20 / 25, 11 / 15, 29 / 30])
    np.testing.assert_allclose(metrics.precision(HAND), [8 / 13, 15 / 19, 2 / 3])
    np.testing.assert_allclose(metrics.f1(HAND), [16 / 23, 30 / 39, 4 / 8])
    assert metrics.balanced_accuracy(HAND) == pytest.approx((0.8 + 0.75 + 0.4) / 3)
    assert metrics.macro_f1(HAND) == pytest.approx((16 / 23 + 30 / 39 + 4 / 8) / 3)


def test_the_papers_test_accuracy_is_508_of_638() -> None:
    matrix = np.diag([234, 260, 14])
    matrix[1, 0] = 130
    assert f"{metrics.accuracy(matrix):.5f}" == "0.79624"


@pytest.mark.parametrize("name", [*metrics.PER_CLASS, *metrics.OVERALL])
def test_the_rates_of_many_matrices_are_those_of_each(name: str) -> None:
    rate = (metrics.PER_CLASS | metrics.OVERALL)[name]
    matrices = np.random.default_rng(0).integers(1, 50, size=(2, 5, 3, 3))
    expected = [[rate(matrix) for matrix in row] for row in matrices]
    np.testing.assert_allclose(rate(matrices), expected)


def test_a_class_of_one_case_counts_in_means_over_classes() -> None:
    assert metrics.balanced_accuracy(np.array([[0, 1], [0, 3]])) == 1 / 2


def test_small_integers_do_not_overflow() -> None:
    labels, predicted = np.array([19], np.uint8), np.array([18], np.uint8)
    assert metrics.confusion_matrix(labels, predicted, 20)[19, 18] == 1


def test_cross_entropy_worked_out_by_hand() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    expected = -(np.log(0.25) + np.log(0.8)) / 2
    assert metrics.cross_entropy(np.array([2, 1]), probabilities) == pytest.approx(expected)


def test_a_probability_of_zero_costs_much_but_not_infinitely() -> None:
    assert 700 < metrics.cross_entropy(np.array([0]), np.array([[0.0, 1.0, 0.0]])) < 709


def test_auroc_worked_out_by_hand() -> None:
    # Of the 2 x 2 pairs of a Normal and another image, 3 are ranked right.
    scores = np.array([0.9, 0.3, 0.5, 0.1])
    probabilities = np.stack([scores, 1 - scores, 0 * scores], axis=1)
    areas = metrics.auroc(np.array([0, 0, 1, 1]), probabilities)
    np.testing.assert_allclose(areas, [0.75, 0.75, np.nan])


@pytest.mark.parametrize("seed", range(5))
def test_everything_agrees_with_scikit_learn(seed: int) -> None:
    labels, predicted, probabilities = random_case(seed)
    found = measure(labels, predicted, probabilities)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "macro_auroc": sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "cross_entropy": sk.log_loss(labels, probabilities),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["confusion_matrix"] == sk.confusion_matrix(labels, predicted).tolist()
    for index, label in enumerate(PAPER_CLASSES):
        ones, called = labels == index, predicted == index
        assert found["per_class"][label] == pytest.approx(
            {
                "sensitivity": sk.recall_score(ones, called),
                "specificity": sk.recall_score(~ones, ~called),
                "precision": sk.precision_score(ones, called),
                "f1": sk.f1_score(ones, called),
                "auroc": sk.roc_auc_score(ones, probabilities[:, index]),
            }
        )


def test_a_class_absent_from_the_truth_is_no_information_and_outside_every_mean() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    found = measure(labels, predicted, np.eye(3)[predicted])
    assert found["class_counts"] == {"Normal": 2, "Pneumonia": 2, "COVID-19": 0}
    assert found["per_class"]["COVID-19"] == {
        "sensitivity": None,
        "specificity": 0.75,
        "precision": 0.0,
        "f1": 0.0,
        "auroc": None,
    }
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_auroc"] == pytest.approx((0.75 + 1) / 2)


def test_a_class_never_predicted_has_no_precision_but_an_f1_of_zero() -> None:
    found = measure(np.array([0, 1, 2]), np.array([0, 1, 1]))["per_class"]["COVID-19"]
    assert (found["precision"], found["f1"], found["sensitivity"]) == (None, 0.0, 0.0)


def test_one_class_alone_has_neither_specificity_nor_auroc() -> None:
    labels = np.zeros(4, dtype=np.int64)
    found = measure(labels, labels, np.eye(3)[labels])
    assert (found["per_class"]["Normal"]["specificity"], found["macro_auroc"]) == (None, None)


def test_no_cases_at_all_are_null_everywhere() -> None:
    nothing = np.array([], dtype=np.int64)
    found = measure(nothing, nothing, np.empty((0, 3)))
    assert found["n"] == 0
    assert {found[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "cross_entropy")} == {None}


@pytest.mark.parametrize(
    ("labels", "predicted", "probabilities", "message"),
    [
        ([0, 3], [0, 1], None, "from 0 to 3, expected 0 to 2"),
        ([0, -1], [0, 1], None, "from -1 to 1, expected 0 to 2"),
        ([0, 1], [0], None, r"^labels \(2,\), predicted \(1,\): expected \(N,\) each$"),
        ([0, 1], [0, 1], [[1.0, 0.0, 0.0]], r"shape \(1, 3\), expected \(2, 3\)"),
        ([0], [0], [[4.0, -2.0, 1.0]], "^probabilities must be at least 0 .*; are these logits"),
        ([0], [0], [[1.0, -1.0, 1.0]], "are these logits"),
        ([0], [0], [[0.5, 0.5, 0.5]], "are these logits"),
        ([0], [0], [[np.nan, 0.5, 0.5]], "sum to 1"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    labels: list[int], predicted: list[int], probabilities: Any, message: str
) -> None:
    scores = None if probabilities is None else np.array(probabilities)
    with pytest.raises(ValueError, match=message):
        measure(np.array(labels), np.array(predicted), scores)


def test_a_summary_is_json_and_has_the_splits_that_have_rows() -> None:
    labels, _, probabilities = random_case(0)
    predictions = predictions_of(labels, probabilities)
    summary = summarise(predictions)
    assert list(summary) == ["validation", "test", "test_official"]
    assert summary["validation"] == metrics.describe(predictions.select("validation"))
    assert (summary["test"]["n"], summary["test"]["patients"]) == (150, 75)
    assert summary["test_official"]["class_counts"]["COVID-19"] == 0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("classes", [("Normal", "Tuberculosis"), ("A", "B", "C", "D", "E")])
def test_any_number_of_classes_is_measured_under_their_names(classes: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % len(classes)
    probabilities = rng.dirichlet(np.ones(len(classes)), size=60)
    predicted = probabilities.argmax(axis=1)
    found = metrics.measure(labels, predicted, probabilities, classes)
    assert tuple(found["class_counts"]) == tuple(found["per_class"]) == classes
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert found["per_class"][classes[-1]]["auroc"] == pytest.approx(
        sk.roc_auc_score(labels == len(classes) - 1, probabilities[:, -1])
    )


@pytest.mark.slow
def test_metrics_and_figures_import_no_torch() -> None:
    code = "import sys, xray_hf.report.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def offline_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as `evaluate.load` finds it by its path, where every connection fails."""
    evaluate = pytest.importorskip("evaluate")

    def refuse(*_: object) -> None:
        raise AssertionError("the metric must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    script = Path(metrics.__file__).with_name("chest_xray_metrics.py")
    return evaluate.load(str(script), cache_dir=str(tmp_path / "metrics"))


def test_the_evaluate_module_says_the_same_offline(offline_metric: Any) -> None:
    labels, predicted, probabilities = random_case(1)
    plain = offline_metric.compute(predictions=predicted, references=labels)
    assert plain == measure(labels, predicted)
    scored = offline_metric.compute(
        predictions=predicted, references=labels, prediction_scores=probabilities.tolist()
    )
    assert scored == measure(labels, predicted, probabilities)


def test_the_evaluate_module_takes_the_names_of_other_classes(offline_metric: Any) -> None:
    classes = ["Normal", "Tuberculosis"]
    found = offline_metric.compute(predictions=[0, 1, 1], references=[0, 1, 0], classes=classes)
    assert list(found["per_class"]) == classes


def test_the_evaluate_module_adds_up_batches(offline_metric: Any) -> None:
    labels, predicted, _ = random_case(2)
    for rows in np.array_split(np.arange(len(labels)), 4):
        offline_metric.add_batch(predictions=predicted[rows], references=labels[rows])
    assert offline_metric.compute() == measure(labels, predicted)


def test_the_evaluate_module_is_a_class_too_and_documents_itself(tmp_path: Path) -> None:
    from xray_hf.evaluation.chest_xray_metrics import ChestXrayMetrics

    metric = ChestXrayMetrics(cache_dir=str(tmp_path))
    assert metric.compute(predictions=[0, 1], references=[0, 1])["accuracy"] == 1
    assert all(label in metric.description for label in PAPER_CLASSES)
    assert "prediction_scores" in metric.inputs_description
    assert "10.1016/j.cell.2018.02.010" in metric.citation
