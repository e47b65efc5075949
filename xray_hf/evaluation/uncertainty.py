"""How far a number could be off: 95 % intervals, of one model and of the difference of two.

Percentile bootstrap over patients (Efron and Tibshirani 1993, chapter 13): as many patients as there are,
drawn with replacement, each with all rows, since images of one patient resemble each other. A draw has the
numbers that `metrics` would give for it; where that is NaN the draw is left out. A rate of 0 or 1 is the same
in every draw, and its interval would have no width however few the patients are. A share then has the exact
interval (Clopper and Pearson 1934) of so many patients, all right or all wrong, and enters balanced accuracy,
the mean of several classes, with draws of what it may be (Jeffreys' posterior; Brown et al. 2001). F1
and AUROC of such a class stay without width: read them beside the number of patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from xray_hf.errors import ConfigError
from xray_hf.evaluation import metrics
from xray_hf.evaluation.metrics import Counts, Rates, ratio
from xray_hf.evaluation.predictions import Predictions
from xray_hf.task import LABELS

DRAWS, SEED = 2000, 0
TAILS = (0.025, 0.975)
_AT_ONCE = 100  # draws; each holds a weight for every row

Interval = list[float] | None  # [low, high]; None where no draw has a number


@dataclass(frozen=True, eq=False)
class Draws:
    """The same D draws of patients for every number of a set.

    patient: (N,) int64, which of the P patients each row is of. times: (D, P) float64, how often each patient
    was drawn; rows sum to P.
    """

    patient: NDArray[np.int64]
    times: NDArray[np.float64]

    @classmethod
    def of(cls, patients: NDArray[Any], draws: int = DRAWS, seed: int = SEED) -> Draws:
        """Draw the patients of rows: (N,) whose each is, with N at least 1."""
        names, patient = np.unique(patients, return_inverse=True)
        shape = (draws, len(names))
        drawn = np.random.default_rng(seed).integers(len(names), size=shape)
        cells = drawn + len(names) * np.arange(draws)[:, None]
        return cls(patient, np.bincount(cells.ravel(), minlength=cells.size).reshape(shape).astype(float))

    def totals(self, values: NDArray[Any]) -> Rates:
        """(N, ...) numbers of rows -> (D, ...) their sums over the rows of each draw."""
        by_patient = np.zeros((self.times.shape[1], *values.shape[1:]))
        np.add.at(by_patient, self.patient, values)
        return np.tensordot(self.times, by_patient, axes=1)

    def means(self, values: NDArray[Any], among: NDArray[np.bool_] | None = None) -> Rates:
        """(N,) numbers of rows -> (D,) their means over the rows of each draw, or over those in `among`."""
        chosen = np.ones(len(values), bool) if among is None else among
        return ratio(self.totals(values * chosen), self.totals(chosen))

    def patients(self, among: NDArray[np.bool_]) -> int:
        """How many patients these rows are of: (N,)."""
        return len(np.unique(self.patient[among]))

    def share(self, values: NDArray[np.bool_], among: NDArray[np.bool_] | None = None) -> Interval:
        """The interval of the share of `among` that `values` are true of: (N,) each."""
        chosen = np.ones(len(values), bool) if among is None else among
        return interval_of_rate(self.means(values, chosen), self.patients(chosen))

    def weights(self) -> Iterator[Rates]:
        """(at most 100, N) how often each row is in each draw, until all draws were given."""
        for start in range(0, len(self.times), _AT_ONCE):
            yield self.times[start : start + _AT_ONCE, self.patient]


def interval(drawn: Rates) -> Interval:
    """(D,) what the draws gave -> the middle 95 % of what is a number."""
    numbers = drawn[np.isfinite(drawn)]
    return np.quantile(numbers, TAILS).tolist() if len(numbers) else None


def interval_of_rate(drawn: Rates, patients: int) -> Interval:
    """The same of a rate that is measured on so many patients, exact where every draw gave 0 or 1."""
    found = interval(drawn)
    if found not in ([0, 0], [1, 1]):
        return found
    exact = binomtest(patients * int(found[0]), patients).proportion_ci(method="exact")
    return [float(exact.low), float(exact.high)]


def describe(predictions: Predictions) -> dict[str, Any]:
    """Intervals of all that `metrics.describe` measures, under the same keys, and patients of each class.

    Ready for JSON; the table must have rows.
    """
    draws = Draws.of(predictions.patient_id)
    matrices, areas = confusion_matrices(predictions, draws), aurocs(predictions, draws)
    classes = {name: rates(matrices) for name, rates in metrics.PER_CLASS.items()} | {"auroc": areas}
    label = predictions.label
    patients = {name: draws.patients(label == index) for index, name in enumerate(LABELS)}
    balanced = _balanced_accuracy(matrices, list(patients.values()))
    measured = metrics.balanced_accuracy(metrics.confusion_matrix(label, predictions.predicted))
    overall = {
        "macro_f1": _mean_of_classes(classes["f1"], matrices),
        "macro_auroc": _mean_of_classes(areas, matrices),
        "cross_entropy": draws.means(metrics.losses(label, predictions.probabilities)),
    }
    return {
        "patients_per_class": patients,
        "intervals": {
            "accuracy": draws.share(predictions.predicted == label),
            "balanced_accuracy": _holding(measured, interval_of_rate(balanced, draws.patients(label >= 0))),
            **{name: interval(drawn) for name, drawn in overall.items()},
            "per_class": {
                name: {
                    **{what: interval(drawn[:, index]) for what, drawn in classes.items()},
                    "sensitivity": draws.share(predictions.predicted == index, label == index),
                    "precision": draws.share(label == index, predictions.predicted == index),
                    "specificity": draws.share(predictions.predicted != index, label != index),
                }
                for index, name in enumerate(LABELS)
            },
        },
    }


def compare(a: Predictions, b: Predictions) -> dict[str, Any]:
    """Two models on the same rows, ready for JSON: is b better than a, or is it chance?

    Accuracy and balanced accuracy of each, and the interval of the difference b - a, for which each draw
    gives both the same patients. McNemar's exact test (1947) counts the images that only one of them has
    right. It takes images as independent, which those of one patient are not: p is rather too small.
    Raises ConfigError unless both are of the same rows in the same order.
    """
    _require_same_rows(a, b)
    draws = Draws.of(a.patient_id)
    a_right, b_right = a.predicted == a.label, b.predicted == b.label
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    of_a, of_b = (metrics.describe(each) for each in (a, b))
    patients = [draws.patients(a.label == index) for index in range(len(LABELS))]
    balanced_a, balanced_b = (
        _balanced_accuracy(confusion_matrices(each, draws), patients) for each in (a, b)
    )
    drawn = {
        "accuracy": draws.means(b_right) - draws.means(a_right),
        "balanced_accuracy": balanced_b - balanced_a,
    }
    differences = {
        name: {
            "a": of_a[name],
            "b": of_b[name],
            "difference": of_b[name] - of_a[name],
            "interval": interval(values),
        }
        for name, values in drawn.items()
    }
    disagreements = only_a + only_b
    p_value = float(binomtest(only_a, disagreements).pvalue) if disagreements else 1.0
    mcnemar = {"only_a_right": only_a, "only_b_right": only_b, "p_value": p_value}
    return {"n": len(a), "patients": of_a["patients"], **differences, "mcnemar": mcnemar}


def confusion_matrices(predictions: Predictions, draws: Draws) -> Counts:
    """(D, C, C) int64, the confusion matrix of each draw."""
    one_hot = np.eye(len(LABELS))
    cells = one_hot[predictions.label][:, :, None] * one_hot[predictions.predicted][:, None, :]
    return np.rint(draws.totals(cells)).astype(np.int64)


def aurocs(predictions: Predictions, draws: Draws) -> Rates:
    """(D, C) area under each class's ROC curve in each draw."""
    probabilities = predictions.probabilities
    return np.concatenate(
        [
            np.stack(
                [
                    weighted_auroc(predictions.label == index, probabilities[:, index], weights)
                    for index in range(len(LABELS))
                ],
                axis=1,
            )
            for weights in draws.weights()
        ]
    )


def weighted_auroc(is_case: NDArray[np.bool_], scores: Rates, weights: Rates) -> Rates:
    """(N,) truth, (N,) scores, (D, N) weights of rows -> (D,) areas under the ROC curve.

    The share of the pairs of a case and another row where the case has the higher score; equal scores count
    half (Mann and Whitney 1947). NaN where either has no weight.
    """
    rows = np.flatnonzero(~is_case)
    rows = rows[np.argsort(scores[rows])]
    others = scores[rows]
    below = np.zeros((len(weights), len(rows) + 1))  # weight of the k others with the lowest scores
    np.cumsum(weights[:, rows], axis=1, out=below[:, 1:])
    of_cases = weights[:, is_case]
    less, at_most = (below[:, np.searchsorted(others, scores[is_case], side)] for side in ("left", "right"))
    wins = (of_cases * (less + at_most)).sum(axis=1) / 2
    return ratio(wins, of_cases.sum(axis=1) * below[:, -1])


def _holding(value: float, found: Interval) -> Interval:
    """The interval, up to the value itself: where a class is all right, what it may be is below that."""
    return found and [min(found[0], value), max(found[1], value)]


def _balanced_accuracy(matrices: Counts, patients: Sequence[int]) -> Rates:
    """(D, C, C) and the patients of each class -> (D,).

    A class gets the same draws of what it may be each time, so that two models that find all differ by 0.
    One class alone gets none: its balanced accuracy is the accuracy, and has the same draws.
    """
    found = metrics.sensitivity(matrices)
    for index, count in enumerate(patients if np.count_nonzero(patients) > 1 else ()):
        drawn = found[:, index]
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) and drawn.min() == drawn.max() and drawn[0] in (0, 1):
            right = count * int(drawn[0])
            rng = np.random.default_rng([SEED, index])
            found[:, index] = rng.beta(right + 0.5, count - right + 0.5, len(found))
    return _mean_of_classes(found, matrices)


def _mean_of_classes(rates: Rates, matrices: Counts) -> Rates:
    """(D, C) -> (D,) mean over the set's classes; NaN, not a mean of fewer, for a draw that lacks one."""
    drawn = matrices.sum(axis=-1) > 0
    present = drawn.any(axis=0)
    return np.where(drawn[:, present].all(axis=1), rates[:, present].mean(axis=1), np.nan)


def _require_same_rows(a: Predictions, b: Predictions) -> None:
    if len(a) != len(b) or not len(a):
        raise ConfigError(
            f"{len(a):,} rows against {len(b):,}; expected the same images, at least one. "
            "Compare the same subset of two bundles with the same split."
        )
    same = (a.file_name == b.file_name) & (a.patient_id == b.patient_id) & (a.label == b.label)
    if not same.all():
        first = int(np.flatnonzero(~same)[0])
        raise ConfigError(
            f"{(~same).sum():,} of {len(a):,} rows are of different images, patients or labels, first: "
            f"{a.file_name[first]} and {b.file_name[first]}. Compare two bundles with the same split."
        )
