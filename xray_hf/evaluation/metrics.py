"""One function counts; every rate is a pure function of those counts.

A ratio without cases is NaN here and null in JSON: "no information", never 0. So a class that is absent from
the truth has no sensitivity and stays out of every mean. Rates take many matrices at once, (..., C, C), as
the bootstrap of `uncertainty` needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from xray_hf.evaluation.predictions import Predictions

Counts = NDArray[np.int64]
Rates = NDArray[np.float64]


def confusion_matrix(labels: NDArray[np.integer], predicted: NDArray[np.integer], size: int) -> Counts:
    """(N,) and (N,) class indexes -> (C, C) int64 counts; rows are the true class, columns the predicted.

    size: C, the number of classes. Raises ValueError for unequal lengths and for indexes outside 0 to C - 1.
    """
    if np.shape(labels) != np.shape(predicted) or np.ndim(labels) != 1:
        raise ValueError(f"labels {np.shape(labels)}, predicted {np.shape(predicted)}: expected (N,) each")
    both = np.concatenate([labels, predicted])
    if ((both < 0) | (both >= size)).any():
        raise ValueError(f"class indexes from {both.min()} to {both.max()}, expected 0 to {size - 1}")
    cells = np.asarray(labels, dtype=np.int64) * size + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def accuracy(matrix: Counts) -> Rates:
    """(...) share of all cases that are right, 0 to 1; NaN without cases."""
    return ratio(matrix.trace(axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def sensitivity(matrix: Counts) -> Rates:
    """(..., C) share of each class's cases predicted as it (recall); NaN for a class without cases."""
    return ratio(_hits(matrix), matrix.sum(axis=-1))


def specificity(matrix: Counts) -> Rates:
    """(..., C) share of the other classes' cases that are not predicted as it; NaN if there are none."""
    others = matrix.sum(axis=(-2, -1))[..., None] - matrix.sum(axis=-1)
    false_positives = matrix.sum(axis=-2) - _hits(matrix)
    return ratio(others - false_positives, others)


def precision(matrix: Counts) -> Rates:
    """(..., C) share of the cases predicted as a class that are of it; NaN without such predictions."""
    return ratio(_hits(matrix), matrix.sum(axis=-2))


def f1(matrix: Counts) -> Rates:
    """(..., C) harmonic mean of precision and sensitivity, 2 TP / (2 TP + FP + FN); NaN if those are 0."""
    return ratio(2 * _hits(matrix), matrix.sum(axis=-2) + matrix.sum(axis=-1))


# Metrics of each class that need only counts, by their names in JSON.
PER_CLASS = {"sensitivity": sensitivity, "specificity": specificity, "precision": precision, "f1": f1}


def balanced_accuracy(matrix: Counts) -> Rates:
    """(...) mean sensitivity over the classes that have cases; NaN without cases."""
    return mean_of_classes(sensitivity(matrix), matrix)


def macro_f1(matrix: Counts) -> Rates:
    """(...) mean F1 over the classes that have cases; NaN without cases."""
    return mean_of_classes(f1(matrix), matrix)


# Metrics of all classes together that need only counts, by their names in JSON.
OVERALL = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1}


def mean_of_classes(rates: Rates, matrix: Counts) -> Rates:
    """(..., C) rates and the (..., C, C) counts that they are of -> (...) means over the classes with cases.

    Of many matrices, the mean is over the classes that any of them has; a matrix that lacks one of these gets
    NaN, not a mean of fewer.
    """
    has_cases = matrix.sum(axis=-1) > 0
    present = has_cases.reshape(-1, has_cases.shape[-1]).any(axis=0)
    is_whole = has_cases[..., present].all(axis=-1) & present.any()
    return np.where(is_whole, rates[..., present].sum(axis=-1) / max(present.sum(), 1), math.nan)[()]


def auroc(labels: NDArray[np.integer], probabilities: Rates) -> Rates:
    """(N,) class indexes and (N, C) probabilities -> (C,) area under each class's ROC curve against the rest.

    NaN where the truth has no case of the class, or only such cases.
    """
    truths = [labels == index for index in range(probabilities.shape[1])]
    return np.asarray(
        [
            roc_auc_score(truth, probabilities[:, index]) if truth.any() and not truth.all() else math.nan
            for index, truth in enumerate(truths)
        ]
    )


def losses(labels: NDArray[np.integer], probabilities: Rates) -> Rates:
    """(N,) -log(probability of the true class), in nats.

    A probability of 0 counts as the smallest normal float64, so that one row adds at most 708.
    """
    of_truth = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))


def cross_entropy(labels: NDArray[np.integer], probabilities: Rates) -> float:
    """Mean of `losses`, not weighted; NaN without cases."""
    return float(losses(labels, probabilities).mean()) if len(labels) else math.nan


def measure(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    probabilities: Rates | None,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Every metric of (N,) class indexes, ready for JSON; (N, C) probabilities add AUROC and cross entropy.

    classes: the C names. Raises ValueError for shapes or values that do not fit.
    """
    matrix = confusion_matrix(labels, predicted, len(classes))
    per_class = {name: rates(matrix) for name, rates in PER_CLASS.items()}
    overall = {name: float(rate(matrix)) for name, rate in OVERALL.items()}
    if probabilities is not None:
        if np.shape(probabilities) != (shape := (len(labels), len(classes))):
            raise ValueError(f"probabilities of shape {np.shape(probabilities)}, expected {shape}")
        # A NaN fails the comparisons too. The tolerance lets half precision pass, but not logits.
        if not ((probabilities >= 0).all() and (abs(probabilities.sum(axis=1) - 1) < 1e-2).all()):
            raise ValueError("probabilities must be at least 0 and sum to 1 in each row; are these logits?")
        areas = per_class["auroc"] = auroc(labels, probabilities)
        known = areas[np.isfinite(areas)]
        overall["macro_auroc"] = float(ratio(known.sum(), len(known)))
        overall["cross_entropy"] = cross_entropy(labels, probabilities)
    return {
        "n": int(matrix.sum()),
        "class_counts": dict(zip(classes, matrix.sum(axis=1).tolist(), strict=True)),
        "confusion_matrix": matrix.tolist(),
        **{name: null_if_nan(value) for name, value in overall.items()},
        "per_class": {
            label: {name: null_if_nan(values[index]) for name, values in per_class.items()}
            for index, label in enumerate(classes)
        },
    }


def describe(predictions: Predictions) -> dict[str, Any]:
    """Every number of one set of predictions, ready for JSON: `measure` and the number of patients."""
    measured = measure(
        predictions.label, predictions.predicted, predictions.probabilities, predictions.classes
    )
    return {"patients": len(np.unique(predictions.patient_id)), **measured}


def ratio(parts: Any, wholes: Any) -> Rates:
    """parts / wholes, of one shape; NaN where the whole is 0. Scalars give a scalar."""
    wholes = np.asarray(wholes, dtype=np.float64)
    return np.divide(parts, wholes, out=np.full_like(wholes, math.nan), where=wholes > 0)[()]


def null_if_nan(value: float) -> float | None:
    """A number as JSON can hold it: None for NaN."""
    return None if math.isnan(value) else float(value)


def _hits(matrix: Counts) -> Counts:
    return matrix.diagonal(axis1=-2, axis2=-1)
