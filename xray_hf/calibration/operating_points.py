"""Operating points: for each class against the rest, thresholds that keep a specificity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from xray_hf.calibration.calibration import OperatingPoint
from xray_hf.evaluation.metrics import Rates, null_if_nan
from xray_hf.evaluation.uncertainty import shares

SPECIFICITIES = (0.90, 0.95)


def fit_operating_points(
    labels: NDArray[np.integer], probabilities: Rates, classes: Sequence[str]
) -> tuple[OperatingPoint, ...]:
    """One for each class and specificity; (N,) true classes, of two or more, and (N, C) probabilities."""
    return tuple(
        OperatingPoint(name, wanted, fit_threshold(labels == index, probabilities[:, index], wanted))
        for index, name in enumerate(classes)
        for wanted in SPECIFICITIES
    )


def fit_threshold(is_case: NDArray[np.bool_], scores: Rates, specificity: float) -> float:
    """The lowest score above which at most 1 - specificity of the others are positive.

    is_case: (N,), not all True. scores: (N,), higher for cases. The threshold lies halfway to the next score,
    so that rounding in another runtime changes nothing.
    """
    lowest = np.quantile(scores[~is_case], specificity, method="inverted_cdf")
    above = scores[scores > lowest]
    return float((lowest + above.min()) / 2 if len(above) else lowest)


def describe(
    is_case: NDArray[np.bool_], scores: Rates, point: OperatingPoint, patients: NDArray[Any]
) -> dict[str, Any]:
    """Sensitivity and specificity at an operating point, with intervals; patients: (N,).

    sensitivity_on_own_roc is read off the ROC of these very rows at exactly the wanted specificity, which no
    threshold chosen beforehand can promise.
    """
    is_called = scores > point.threshold
    on_own_roc = math.nan
    if is_case.any() and not is_case.all():
        false_positives, found, _ = roc_curve(is_case, scores, drop_intermediate=False)
        on_own_roc = float(np.interp(1 - point.specificity, false_positives, found))
    return {
        "label": point.label,
        "validation_specificity": point.specificity,
        "threshold": point.threshold,
        **shares({"sensitivity": (is_called, is_case), "specificity": (~is_called, ~is_case)}, patients),
        "sensitivity_on_own_roc": null_if_nan(on_own_roc),
    }
