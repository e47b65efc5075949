"""95 % intervals of the numbers of one model and of the difference between two.

Images of one patient resemble each other, so patients are the sample. A share has Wilson's interval for the
effective number of its images, and balanced accuracy combines those of the classes. All else has the
percentile bootstrap over patients (Efron and Tibshirani 1993, chapter 13): each draw takes as many patients
as there are, with replacement, and all rows of each; one in which a number is NaN is left out. F1 and AUROC
that are 1 in every draw have no width: read them together with the number of patients.
docs/intervals.md has the simulation that decided this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from xray_hf.errors import ConfigError
from xray_hf.evaluation import metrics
from xray_hf.evaluation.metrics import Counts, Rates, ratio
from xray_hf.evaluation.predictions import Predictions

DRAWS, SEED = 2000, 0
TAILS = (0.025, 0.975)
BLOCK = 500_000  # numbers in each array of a block of draws, 4 MB of float64

Interval = list[float] | None  # [low, high]; None where no draw has a number


class Draws:
    """DRAWS draws of patients, the same for every number of a set.

    They are drawn again, block by block, at every pass: all at once they would take
    8 D P bytes, 1.6 GB for 100,000 patients.
    patient: (N,) int64, which of the P patients each row is of.
    """

    def __init__(self, patients: NDArray[Any]) -> None:
        """patients: (N,) the patient of each row, with N at least 1."""
        names, self.patient = np.unique(patients, return_inverse=True)
        self.patients = len(names)

    def times(self) -> Iterator[Rates]:
        """(B, P) how often each patient was drawn, in blocks of the D draws; rows sum to P."""
        generator = np.random.default_rng(SEED)
        at_once = max(1, BLOCK // len(self.patient))
        for start in range(0, DRAWS, at_once):
            shape = (min(at_once, DRAWS - start), self.patients)
            cells = generator.integers(self.patients, size=shape)
            cells += self.patients * np.arange(len(cells))[:, None]
            counts = np.bincount(cells.ravel(), minlength=cells.size)
            yield counts.reshape(shape).astype(np.float64)

    def weights(self) -> Iterator[Rates]:
        """(B, N) how often each row is in each draw, in the same blocks."""
        for times in self.times():
            yield times[:, self.patient]

    def totals(self, values: NDArray[Any]) -> Rates:
        """(N, ...) numbers of rows -> (D, ...) their sums over the rows of each draw."""
        columns = values.reshape(len(values), -1).T
        by_patient = np.stack(
            [np.bincount(self.patient, column, self.patients) for column in columns], axis=1
        )
        drawn = np.concatenate([times @ by_patient for times in self.times()])
        return drawn.reshape(DRAWS, *values.shape[1:])

    def means(self, values: NDArray[Any]) -> Rates:
        """(N,) numbers of rows -> (D,) their means over the rows of each draw."""
        return ratio(*self.totals(np.stack([values, np.ones(len(values))], axis=1)).T)


def share_interval(
    are_true: NDArray[np.bool_], patients: NDArray[Any], among: NDArray[np.bool_] | None = None
) -> Interval:
    """The interval of the share of rows, or of those in `among`, that are true: (N,) each; None without any.

    Wilson's, with Student's t for that many patients and the number of independent images that would vary as
    these do (Rao and Scott 1992), at most as many as there are. Where all or none are true, nothing shows how
    much images of a patient resemble each other, and each patient counts as one.
    """
    chosen = np.ones(len(are_true), bool) if among is None else among
    _, patient, images = np.unique(patients[chosen], return_inverse=True, return_counts=True)
    if not (count := len(images)):
        return None
    true, total = np.bincount(patient, are_true[chosen]), images.sum()
    rate, degrees = true.sum() / total, max(count - 1, 1)
    # Whole numbers, so that the sum is exactly 0 where all patients have the same share.
    squares = ((total * true - true.sum() * images) ** 2).sum()
    variance = count / degrees * squares / float(total) ** 4
    effective = min(rate * (1 - rate) / variance, total) if variance else count
    spread = student.ppf(TAILS[1], degrees) ** 2 / effective

    def lower(rate: float) -> float:
        return rate**2 / (rate + spread / 2 + math.sqrt(spread * (rate * (1 - rate) + spread / 4)))

    return [float(lower(rate)), float(1 - lower(1 - rate))]


def shares(
    named: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], patients: NDArray[Any]
) -> dict[str, Any]:
    """{name: (which rows, among which)} -> {name: share, "intervals": {name: interval}}; (N,) each."""
    found = {name: ratio((own & among).sum(), among.sum()) for name, (own, among) in named.items()}
    return {
        **{name: metrics.null_if_nan(float(value)) for name, value in found.items()},
        "intervals": {name: share_interval(own, patients, among) for name, (own, among) in named.items()},
    }


def balanced_accuracy_interval(
    are_right: NDArray[np.bool_], labels: NDArray[np.integer], patients: NDArray[Any]
) -> Interval:
    """The interval of the mean over classes of the share of right answers: (N,) each, with N at least 1.

    From the intervals of the classes by the method of variance estimates recovery (Zou and Donner 2008).
    """
    classes = [labels == index for index in np.unique(labels)]
    rates = np.asarray([are_right[own].mean() for own in classes])
    ends = np.asarray([share_interval(are_right, patients, own) for own in classes]).T
    below, above = np.linalg.norm(rates - ends, axis=1) / len(classes)
    return [float(rates.mean() - below), float(rates.mean() + above)]


def interval(drawn: Rates) -> Interval:
    """(D,) the values of the draws -> the middle 95 % of the finite ones."""
    numbers = drawn[np.isfinite(drawn)]
    return np.quantile(numbers, TAILS).tolist() if len(numbers) else None


@dataclass(frozen=True, eq=False)
class Ranking:
    """Cases and other rows by their scores, so that many draws can be weighed at once.

    cases, others: (K,) and (M,) row numbers. below, at_most: (K,) how many of the others have a score below
    that of each case, and at most its score; they stand first in `others`.
    """

    cases: NDArray[np.int64]
    others: NDArray[np.int64]
    below: NDArray[np.int64]
    at_most: NDArray[np.int64]

    @classmethod
    def of(cls, is_case: NDArray[np.bool_], scores: Rates, among: NDArray[np.bool_] | None = None) -> Ranking:
        """Rank the rows, or those in `among`: (N,) each."""
        chosen = np.ones(len(is_case), bool) if among is None else among
        cases, others = np.flatnonzero(is_case & chosen), np.flatnonzero(~is_case & chosen)
        others = others[np.argsort(scores[others])]
        below, at_most = (np.searchsorted(scores[others], scores[cases], side) for side in ("left", "right"))
        return cls(cases, others, below, at_most)

    def wins(self, weights: Rates) -> tuple[Rates, Rates]:
        """(D, N) weights of all rows -> (D,) pairs that the case wins, and (D,) all pairs of case and other.

        It wins where it has the higher score; equal scores count half (Mann and Whitney 1947).
        """
        # The weight of the k others with the lowest scores, for every k.
        lowest = np.zeros((len(weights), len(self.others) + 1))
        np.cumsum(weights[:, self.others], axis=1, out=lowest[:, 1:])
        of_cases = weights[:, self.cases]
        won = (of_cases * (lowest[:, self.below] + lowest[:, self.at_most])).sum(axis=1) / 2
        return won, of_cases.sum(axis=1) * lowest[:, -1]


def describe(predictions: Predictions) -> dict[str, Any]:
    """Intervals of all that `metrics.describe` measures, under the same keys, and patients of each class.

    Ready for JSON; the table must have rows.
    """
    draws, names = Draws(predictions.patient_id), predictions.classes
    label, predicted, probabilities = predictions.label, predictions.predicted, predictions.probabilities
    are_right, matrices = predicted == label, confusion_matrices(predictions, draws)
    rankings = [[Ranking.of(label == index, scores)] for index, scores in enumerate(probabilities.T)]
    drawn_auroc, drawn_f1 = drawn_areas(rankings, draws), metrics.f1(matrices)

    def of_class(index: int) -> dict[str, Interval]:
        is_case, is_called = label == index, predicted == index
        return {
            "sensitivity": share_interval(is_called, draws.patient, is_case),
            "specificity": share_interval(~is_called, draws.patient, ~is_case),
            "precision": share_interval(is_case, draws.patient, is_called),
            "f1": interval(drawn_f1[:, index]),
            "auroc": interval(drawn_auroc[:, index]),
        }

    return {
        "patients_per_class": {
            name: len(np.unique(draws.patient[label == index])) for index, name in enumerate(names)
        },
        "intervals": {
            "accuracy": share_interval(are_right, draws.patient),
            "balanced_accuracy": balanced_accuracy_interval(are_right, label, draws.patient),
            "macro_f1": interval(metrics.macro_f1(matrices)),
            "macro_auroc": interval(metrics.mean_of_classes(drawn_auroc, matrices)),
            "cross_entropy": interval(draws.means(metrics.losses(label, probabilities))),
            "per_class": {name: of_class(index) for index, name in enumerate(names)},
        },
    }


def within_source(predictions: Predictions) -> dict[str, Any]:
    """{class: auroc, interval, sources, pairs} against the rest, over pairs of rows of the same source only.

    Where classes come from different hospitals, a model that recognises the hospital has a high AUROC over
    all rows: a pooled AUROC measures the hospital (Zech et al. 2018, PLoS Medicine 15, e1002683). It can't
    win a pair of the same source that way. Sources count by their pairs.
    sources: how many have a case and another row. pairs: of these. auroc is None without any. Ready for JSON.
    """
    draws, probabilities = Draws(predictions.patient_id), predictions.probabilities
    by_class = [
        [
            Ranking.of(predictions.label == index, probabilities[:, index], predictions.source == name)
            for name in np.unique(predictions.source)
        ]
        for index in range(len(predictions.classes))
    ]
    drawn, found = drawn_areas(by_class, draws), areas(by_class, np.ones((1, len(predictions))))[0]
    return {
        name: {
            "auroc": metrics.null_if_nan(found[index]),
            "interval": interval(drawn[:, index]),
            "sources": sum(len(each.cases) > 0 and len(each.others) > 0 for each in by_class[index]),
            "pairs": sum(len(each.cases) * len(each.others) for each in by_class[index]),
        }
        for index, name in enumerate(predictions.classes)
    }


def compare(a: Predictions, b: Predictions) -> dict[str, Any]:
    """Two models on the same rows, ready for JSON: is b better than a, or is it chance?

    Accuracy and balanced accuracy of each, and the interval of the difference b - a, for which each draw
    gives both the same patients. McNemar's exact test (1947) counts the images that only one of them has
    right. It treats images as independent, which those of one patient are not, so p is optimistic.
    Raises ConfigError unless both are of the same rows in the same order.
    """
    _require_same_rows(a, b)
    draws = Draws(a.patient_id)
    a_right, b_right = a.predicted == a.label, b.predicted == b.label
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    of_a, of_b = (metrics.describe(each) for each in (a, b))
    balanced_a, balanced_b = (metrics.balanced_accuracy(confusion_matrices(each, draws)) for each in (a, b))
    drawn = {
        "accuracy": draws.means(b_right) - draws.means(a_right),
        "balanced_accuracy": balanced_b - balanced_a,
    }
    disagreements = only_a + only_b
    p_value = float(binomtest(only_a, disagreements).pvalue) if disagreements else 1.0
    return {
        "n": len(a),
        "patients": of_a["patients"],
        **{
            name: {
                "a": of_a[name],
                "b": of_b[name],
                "difference": of_b[name] - of_a[name],
                "interval": interval(values),
            }
            for name, values in drawn.items()
        },
        "mcnemar": {"only_a_right": only_a, "only_b_right": only_b, "p_value": p_value},
    }


def confusion_matrices(predictions: Predictions, draws: Draws) -> Counts:
    """(D, C, C) int64, the confusion matrix of each draw."""
    size = len(predictions.classes)
    cells = predictions.label * size + predictions.predicted
    counted = [np.bincount(cells, row, size**2) for weights in draws.weights() for row in weights]
    return np.rint(counted).astype(np.int64).reshape(-1, size, size)


def drawn_areas(rankings: Sequence[Sequence[Ranking]], draws: Draws) -> Rates:
    """(D, K), `areas` of each draw."""
    return np.concatenate([areas(rankings, weights) for weights in draws.weights()])


def areas(rankings: Sequence[Sequence[Ranking]], weights: Rates) -> Rates:
    """K times the rankings of one or more sources, (D, N) weights of rows -> (D, K) areas under the ROC.

    The share of all pairs of a case and another row of its ranking that the case wins. NaN without any.
    """
    sums = [np.sum([each.wins(weights) for each in own], axis=0) for own in rankings]
    return np.stack([ratio(won, pairs) for won, pairs in sums], axis=1)


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
