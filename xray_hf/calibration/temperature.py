"""Temperature scaling (Guo et al. 2017), expected calibration error and Brier score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from xray_hf.evaluation.metrics import Counts, Rates, cross_entropy, losses, ratio
from xray_hf.evaluation.uncertainty import Draws, interval
from xray_hf.probabilities import softmax

TEMPERATURES = (0.05, 20.0)
BINS = 15  # of Guo et al.

Labels = NDArray[np.integer]


def fit_temperature(
    labels: Labels, logits: NDArray[np.floating], sources: NDArray[np.str_] | None = None
) -> float:
    """The temperature of the smallest cross entropy, from 0.05 to 20.

    labels: (N,) true classes. logits: (N, C), finite. sources: (N,) collections, which all count the same,
    however many rows each has; None for a single one. Within a source every row counts the same: the rarest
    class can have five rows of 760, and a temperature that gave it the weight of the others would fit noise.
    The cross entropy is convex in 1 / T, so that the search over log T finds its only minimum. That lies at 0
    where all rows are right, and at infinity where the logits are worse than uniform ones: then the result is
    the bound.
    Raises ValueError for rows of fewer than two classes: a network that always names the one would be sure.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"{len(labels)} rows of {len(np.unique(labels))} classes; a temperature needs two classes or more"
        )
    rows, exact = np.arange(len(labels)), logits.astype(np.float64)
    parts = [rows] if sources is None else [rows[sources == name] for name in np.unique(sources)]

    def loss(log_temperature: float) -> float:
        likelihoods = log_softmax(exact / math.exp(log_temperature), axis=1)[rows, labels]
        return -float(np.mean([likelihoods[part].mean() for part in parts]))

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


def calibrated(logits: NDArray[np.floating], temperature: float) -> Rates:
    """(N, C) logits -> (N, C) float64 probabilities; rows sum to 1."""
    return softmax(logits.astype(np.float64), temperature)


def brier_score(labels: Labels, probabilities: Rates) -> float:
    """Mean over rows of the squared errors summed over classes (Brier 1950), 0 to 2."""
    return float(_squared_errors(labels, probabilities).mean())


def _squared_errors(labels: Labels, probabilities: Rates) -> Rates:
    """(N,) squared errors of each row, summed over classes."""
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)


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
    """(N,) in 0..1 -> (N,) the bin of each."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def expected_calibration_error(labels: Labels, probabilities: Rates) -> float:
    """ECE (Guo et al. 2017), 0 to 1: how far confidence and accuracy are apart in a bin, mean over rows."""
    n, confidence, accuracy = reliability(labels, probabilities)
    return float(np.nansum(n * abs(confidence - accuracy)) / n.sum())


def describe(labels: Labels, probabilities: Rates, draws: Draws) -> dict[str, Any]:
    """ECE, Brier score and cross entropy with intervals; sampling enlarges ECE, so its interval lies high."""
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
    return np.abs(gaps).sum(axis=1) / draws.totals(np.ones(len(labels)))
