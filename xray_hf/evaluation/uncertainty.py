"""95 % intervals of the numbers of one model and of the difference between two.

Percentile bootstrap over patients (Efron and Tibshirani 1993, chapter 13): each draw takes as many patients
as there are, with replacement, and all rows of each, since images of one patient resemble each other. A draw
in which a number is NaN is left out. A rate of 0 or 1 is the same in every draw, so its interval would have
no width, however few the patients. A share then gets the exact interval (Clopper and Pearson 1934) for that
many patients, all right or all wrong, and enters balanced accuracy, the mean over classes, with draws from
its posterior (Jeffreys' prior; Brown et al. 2001). F1 and AUROC of such a class stay without width: read them
beside the number of patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

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

    def means(self, values: NDArray[Any], among: NDArray[np.bool_] | None = None) -> Rates:
        """(N,) numbers of rows -> (D,) their means over the rows of each draw, or over those in `among`."""
        chosen = np.ones(len(values), bool) if among is None else among
        return ratio(*self.totals(np.stack([values * chosen, chosen], axis=1)).T)

    def count(self, among: NDArray[np.bool_]) -> int:
        """How many patients these rows are of: (N,)."""
        return len(np.unique(self.patient[among]))

    def share(self, values: NDArray[np.bool_], among: NDArray[np.bool_] | None = None) -> Interval:
        """The interval of the share of `among` that `values` are true of: (N,) each."""
        chosen = np.ones(len(values), bool) if among is None else among
        return interval(self.means(values, chosen), self.count(chosen))

    def shares(self, named: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> dict[str, Any]:
        """{name: (which rows, among which)} -> {name: share, "intervals": {name: interval}}."""
        found = {name: ratio((own & among).sum(), among.sum()) for name, (own, among) in named.items()}
        return {
            **{name: metrics.null_if_nan(float(share)) for name, share in found.items()},
            "intervals": {name: self.share(own, among) for name, (own, among) in named.items()},
        }


def interval(drawn: Rates, patients: int | None = None) -> Interval:
    """(D,) what the draws gave -> the middle 95 % of what is a number.

    patients: how many a rate is measured on; the interval is then exact where every draw gave 0 or 1.
    """
    numbers = drawn[np.isfinite(drawn)]
    found = np.quantile(numbers, TAILS).tolist() if len(numbers) else None
    if patients is None or found not in ([0, 0], [1, 1]):
        return found
    exact = binomtest(patients * int(found[0]), patients).proportion_ci(method="exact")
    return [float(exact.low), float(exact.high)]


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
    matrices = confusion_matrices(predictions, draws)
    rankings = [[Ranking.of(label == index, scores)] for index, scores in enumerate(probabilities.T)]
    drawn_auroc = drawn_areas(rankings, draws)
    drawn = {name: rates(matrices) for name, rates in metrics.PER_CLASS.items()} | {"auroc": drawn_auroc}
    patients = {name: draws.count(label == index) for index, name in enumerate(names)}
    balanced = _balanced_accuracy(matrices, list(patients.values()))
    measured = float(metrics.balanced_accuracy(metrics.confusion_matrix(label, predicted, len(names))))

    def of_class(index: int) -> dict[str, Interval]:
        among = {
            "sensitivity": label == index,
            "precision": predicted == index,
            "specificity": label != index,
        }
        return {
            what: interval(values[:, index], draws.count(among[what]) if what in among else None)
            for what, values in drawn.items()
        }

    return {
        "patients_per_class": patients,
        "intervals": {
            **{name: interval(rate(matrices)) for name, rate in metrics.OVERALL.items()},
            "accuracy": interval(metrics.accuracy(matrices), draws.patients),
            "balanced_accuracy": _holding(measured, interval(balanced, draws.patients)),
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
    patients = [draws.count(a.label == index) for index in range(len(a.classes))]
    balanced_a, balanced_b = (
        _balanced_accuracy(confusion_matrices(each, draws), patients) for each in (a, b)
    )
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


def _holding(value: float, found: Interval) -> Interval:
    """The interval, widened to the value: of a perfect class all posterior draws lie below it."""
    return found and [min(found[0], value), max(found[1], value)]


def _balanced_accuracy(matrices: Counts, patients: Sequence[int]) -> Rates:
    """(D, C, C) and the patients of each class -> (D,).

    A class gets the same posterior draws each time, so that two models that are all right differ by 0.
    One class alone gets none: its balanced accuracy is the accuracy, with the same draws.
    """
    found = metrics.sensitivity(matrices)
    for index, count in enumerate(patients if np.count_nonzero(patients) > 1 else ()):
        drawn = found[:, index]
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) and drawn.min() == drawn.max() and drawn[0] in (0, 1):
            right = count * int(drawn[0])
            rng = np.random.default_rng([SEED, index])
            found[:, index] = rng.beta(right + 0.5, count - right + 0.5, len(found))
    return metrics.mean_of_classes(found, matrices)


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
