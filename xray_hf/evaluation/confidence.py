"""How far a probability can be trusted: temperature, when to say "unsure", operating points.

All three are fitted on validation rows, by `fit`, and are part of calibration.json; `describe` then measures
on any rows what they do there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_curve

from xray_hf.errors import ConfigError
from xray_hf.evaluation.metrics import (
    Counts,
    Rates,
    cross_entropy,
    losses,
    null_if_nan,
    ratio,
)
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import Draws, interval
from xray_hf.task import LABELS, PNEUMONIA

TARGET_RISK = 0.02  # share of wrong answers among those given
SPECIFICITIES = (0.90, 0.95)  # of the operating points
TEMPERATURES = (0.05, 20.0)
BINS = 15  # of Guo et al. 2017

Labels = NDArray[np.integer]


class OperatingPoint(NamedTuple):
    """Pneumonia against the rest: a probability above `threshold` is called so.

    specificity: what the threshold was chosen for, on validation. Both 0 to 1.
    """

    specificity: float
    threshold: float


@dataclass(frozen=True)
class Confidence:
    """What was fitted on validation rows.

    temperature: divides the logits. unsure_below: the smallest highest probability that is answered; 0 if all
    are. target_risk: the share of wrong answers that it allows.
    """

    temperature: float
    unsure_below: float
    target_risk: float
    operating_points: tuple[OperatingPoint, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for what no fit gives."""
        numbers = (
            self.unsure_below,
            self.target_risk,
            *(value for p in self.operating_points for value in p),
        )
        if not (0 < self.temperature < math.inf and all(0 <= number <= 1 for number in numbers)):
            raise ValueError(f"{self}: expected a temperature above 0, everything else from 0 to 1")

    def as_dict(self) -> dict[str, Any]:
        """Its part of calibration.json."""
        return asdict(self) | {"operating_points": [point._asdict() for point in self.operating_points]}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Confidence:
        """The reverse, whatever else `saved` holds; raises KeyError, TypeError or ValueError."""
        points = tuple(OperatingPoint(**point) for point in saved["operating_points"])
        return cls(saved["temperature"], saved["unsure_below"], saved["target_risk"], points)


class RiskCoverage(NamedTuple):
    """Points of the risk-coverage curve, from the surest row to all: (K,) each, 0 to 1.

    confidence: the highest probability of the least sure row answered. coverage: share of the rows answered.
    risk: share of the answers that are wrong.
    """

    confidence: Rates
    coverage: Rates
    risk: Rates

    @property
    def area(self) -> float:
        """AURC (Geifman et al. 2019): the risk averaged over all coverages, smaller is better."""
        return float((np.diff(self.coverage, prepend=0) * self.risk).sum())


def fit(validation: Predictions, target_risk: float = TARGET_RISK) -> Confidence:
    """All of it from validation rows.

    Raises ConfigError as threshold_for_risk does, ValueError as fit_temperature does.
    """
    temperature = fit_temperature(validation.label, validation.logits)
    probabilities = calibrated(validation.logits, temperature)
    is_case, score = validation.label == PNEUMONIA, probabilities[:, PNEUMONIA]
    return Confidence(
        temperature=temperature,
        unsure_below=threshold_for_risk(validation.label, probabilities, target_risk),
        target_risk=target_risk,
        operating_points=tuple(
            OperatingPoint(wanted, threshold_for_specificity(is_case, score, wanted))
            for wanted in SPECIFICITIES
        ),
    )


def calibrated(logits: NDArray[np.floating], temperature: float) -> Rates:
    """(N, C) logits -> (N, C) float64 probabilities; rows sum to 1."""
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def fit_temperature(labels: Labels, logits: NDArray[np.floating]) -> float:
    """The temperature of the smallest cross entropy (Guo et al. 2017), from 0.05 to 20.

    labels: (N,) true classes. logits: (N, C), finite. The cross entropy is convex in 1 / T, so that the
    search over log T finds its only minimum. That lies at 0 where all rows are right, and at infinity where
    the logits are worse than nothing: then the result is the bound.
    Raises ValueError for rows of fewer than two classes: a network that always says the one would be sure.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"{len(labels)} rows of {len(np.unique(labels))} classes; a temperature needs two classes or more"
        )
    rows, exact = np.arange(len(labels)), logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(exact / math.exp(log_temperature), axis=1)[rows, labels].mean())

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


def risk_coverage(labels: Labels, probabilities: Rates) -> RiskCoverage:
    """(N,) true classes and (N, C) probabilities -> the curve; rows of equal confidence are one point."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence)
    confidence, wrong = confidence[order], (probabilities.argmax(axis=1) != labels)[order]
    answered = np.arange(1, len(wrong) + 1)
    last_of_equals = np.append(np.diff(confidence) != 0, True)
    curve = (confidence, answered / len(wrong), np.cumsum(wrong) / answered)
    return RiskCoverage(*(values[last_of_equals] for values in curve))


def threshold_for_risk(labels: Labels, probabilities: Rates, risk: float = TARGET_RISK) -> float:
    """The smallest confidence to answer at, so that as many rows as possible are answered with that risk.

    It lies halfway to the next row's confidence, so that rounding in another runtime changes no answer; 0 if
    all may be answered. The rows it is chosen on have at most that risk; others may have more.
    Raises ConfigError if even the surest rows have a higher risk: answering nothing would keep it, but be no
    classifier, and answering all would be a lie.
    """
    curve = risk_coverage(labels, probabilities)
    allowed = np.flatnonzero(curve.risk <= risk)
    if not len(allowed):
        best = int(curve.risk.argmin())
        raise ConfigError(
            f"no threshold keeps the wrong answers at {risk:.1%}: the lowest is {curve.risk[best]:.1%}, with "
            f"{curve.coverage[best]:.1%} of {len(labels):,} rows answered; pass a higher --risk."
        )
    last = int(allowed[-1])
    if last == len(curve.risk) - 1:
        return 0.0
    return float(curve.confidence[last : last + 2].mean())


def threshold_for_specificity(is_case: NDArray[np.bool_], scores: Rates, specificity: float) -> float:
    """The lowest score above which at most 1 - specificity of the others are called cases.

    is_case: (N,), with one that is none. scores: (N,), higher for cases. Halfway to the next score, as above.
    """
    lowest = np.quantile(scores[~is_case], specificity, method="inverted_cdf")
    above = scores[scores > lowest]
    return float((lowest + above.min()) / 2 if len(above) else lowest)


def brier_score(labels: Labels, probabilities: Rates) -> float:
    """Mean over rows of the squared errors summed over classes (Brier 1950), 0 to 2."""
    return float(_squared_errors(labels, probabilities).mean())


def _squared_errors(labels: Labels, probabilities: Rates) -> Rates:
    """(N,) squared errors of each row, summed over classes."""
    errors: Rates = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    return errors


def reliability(labels: Labels, probabilities: Rates) -> tuple[Counts, Rates, Rates]:
    """Rows by their confidence, in 15 bins of equal width, each without its lower end.

    Returns (15,) each: the number of rows, their mean confidence, their accuracy; NaN for an empty bin.
    """
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = _bins(confidence)
    n = np.bincount(places, minlength=BINS).astype(np.int64)
    confidences, rights = (np.bincount(places, values, BINS) for values in (confidence, is_right))
    return n, ratio(confidences, n), ratio(rights, n)


def _bins(confidence: Rates) -> Counts:
    """(N,) in 0..1 -> (N,) which bin."""
    places: Counts = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return places


def expected_calibration_error(labels: Labels, probabilities: Rates) -> float:
    """ECE (Guo et al. 2017), 0 to 1: how far confidence and accuracy are apart in a bin, mean over rows."""
    n, confidence, accuracy = reliability(labels, probabilities)
    return float(np.nansum(n * abs(confidence - accuracy)) / n.sum())


def describe(predictions: Predictions, confidence: Confidence) -> dict[str, Any]:
    """What the fit does on some rows, ready for JSON; the table must have rows.

    calibration: before and after the temperature, with intervals; that of ECE, which any sampling makes
    larger, lies high. abstention: coverage and risk at the threshold, with their intervals, and AURC.
    operating_points: sensitivity and specificity for Pneumonia at the thresholds, with intervals;
    sensitivity_on_own_roc is read off the ROC of these very rows at exactly the wanted specificity, which
    no threshold chosen beforehand can promise.
    """
    draws = Draws.of(predictions.patient_id)
    labels, probabilities = predictions.label, calibrated(predictions.logits, confidence.temperature)
    return {
        "calibration": {
            "before": _quality(labels, predictions.probabilities, draws),
            "after": _quality(labels, probabilities, draws),
        },
        "abstention": _abstention(labels, probabilities, confidence.unsure_below, draws),
        "operating_points": [
            _operating_point(labels == PNEUMONIA, probabilities[:, PNEUMONIA], point, draws)
            for point in confidence.operating_points
        ],
    }


def _quality(labels: Labels, probabilities: Rates, draws: Draws) -> dict[str, Any]:
    return {
        "ece": expected_calibration_error(labels, probabilities),
        "brier": brier_score(labels, probabilities),
        "cross_entropy": cross_entropy(labels, probabilities),
        "intervals": {
            "ece": interval(_drawn_errors(labels, probabilities, draws)),
            "brier": interval(draws.means(_squared_errors(labels, probabilities))),
            "cross_entropy": interval(draws.means(losses(labels, probabilities))),
        },
    }


def _drawn_errors(labels: Labels, probabilities: Rates, draws: Draws) -> Rates:
    """(D,) the expected calibration error of each draw."""
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    in_bin = np.eye(BINS)[_bins(confidence)]
    # A bin's part of the error is |sum of its confidences - number right|, over all rows.
    gaps = draws.totals(in_bin * (confidence - is_right)[:, None])
    errors: Rates = np.abs(gaps).sum(axis=1) / draws.totals(np.ones(len(labels)))
    return errors


def _abstention(labels: Labels, probabilities: Rates, unsure_below: float, draws: Draws) -> dict[str, Any]:
    is_answered = probabilities.max(axis=1) >= unsure_below
    is_wrong = probabilities.argmax(axis=1) != labels
    return {
        "unsure_below": unsure_below,
        **_shares(
            {"coverage": (is_answered, np.ones_like(is_answered)), "risk": (is_wrong, is_answered)}, draws
        ),
        "aurc": risk_coverage(labels, probabilities).area,
    }


def _operating_point(
    is_case: NDArray[np.bool_], scores: Rates, point: OperatingPoint, draws: Draws
) -> dict[str, Any]:
    is_called = scores > point.threshold
    on_own_roc = math.nan
    if is_case.any() and not is_case.all():
        false_positives, found, _ = roc_curve(is_case, scores, drop_intermediate=False)
        on_own_roc = float(np.interp(1 - point.specificity, false_positives, found))
    return {
        "label": LABELS[PNEUMONIA],
        "validation_specificity": point.specificity,
        "threshold": point.threshold,
        **_shares({"sensitivity": (is_called, is_case), "specificity": (~is_called, ~is_case)}, draws),
        "sensitivity_on_own_roc": null_if_nan(on_own_roc),
    }


def _shares(named: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], draws: Draws) -> dict[str, Any]:
    """{name: (which rows, among which)} -> {name: share, "intervals": {name: interval}}."""
    return {
        **{
            name: null_if_nan(float(ratio((own & among).sum(), among.sum())))
            for name, (own, among) in named.items()
        },
        "intervals": {name: draws.share(own, among) for name, (own, among) in named.items()},
    }
