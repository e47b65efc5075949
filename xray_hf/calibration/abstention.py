"""Abstention: the risk-coverage curve, and the confidence below which to give no answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_hf.errors import ConfigError
from xray_hf.evaluation.metrics import Rates
from xray_hf.evaluation.uncertainty import shares

TARGET_RISK = 0.02  # selective risk: the share of wrong answers among those given
MIN_SOURCE_ROWS = 50  # among fewer, one wrong answer exceeds TARGET_RISK and sets the threshold

Labels = NDArray[np.integer]


class RiskCoverage(NamedTuple):
    """Points of the risk-coverage curve, from the most confident row to all: (K,) each, 0 to 1.

    confidence: the highest probability of the least confident row answered. coverage: share of the rows
    answered. risk: share of the answers that are wrong.
    """

    confidence: Rates
    coverage: Rates
    risk: Rates

    @property
    def area(self) -> float:
        """AURC (Geifman et al. 2019): the risk averaged over all coverages, smaller is better."""
        return float((np.diff(self.coverage, prepend=0) * self.risk).sum())


def risk_coverage(labels: Labels, probabilities: Rates) -> RiskCoverage:
    """(N,) true classes and (N, C) probabilities -> the curve; rows of equal confidence are one point."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence)
    confidence, wrong = confidence[order], (probabilities.argmax(axis=1) != labels)[order]
    answered = np.arange(1, len(wrong) + 1)
    last_of_equals = np.append(np.diff(confidence) != 0, True)
    curve = (confidence, answered / len(wrong), np.cumsum(wrong) / answered)
    return RiskCoverage(*(values[last_of_equals] for values in curve))


def large_sources(sources: NDArray[np.str_]) -> list[str]:
    """(N,) the source of each row -> those with enough rows for a risk of their own."""
    names, counts = np.unique(sources, return_counts=True)
    return names[counts >= MIN_SOURCE_ROWS].tolist()


def worst_risk_coverage(labels: Labels, probabilities: Rates, sources: NDArray[np.str_]) -> RiskCoverage:
    """The curve of all rows, with the risk of the worst source in place of theirs where that is higher.

    sources: (N,). Only large_sources count on their own. A source without answers has no wrong ones.
    """
    whole = risk_coverage(labels, probabilities)
    risks = [whole.risk]
    for name in large_sources(sources):
        own = risk_coverage(labels[sources == name], probabilities[sources == name])
        points = np.searchsorted(-own.confidence, -whole.confidence, side="right")
        risks.append(np.append(0, own.risk)[points])
    return whole._replace(risk=np.max(risks, axis=0))


def fit_abstention(
    labels: Labels,
    probabilities: Rates,
    risk: float = TARGET_RISK,
    sources: NDArray[np.str_] | None = None,
) -> float:
    """The smallest confidence to answer at, for the largest coverage with at most that selective risk.

    The risk is kept over all rows and in each of large_sources; None for a single source.
    It lies halfway to the next row's confidence, so that rounding in another runtime changes no answer; 0 if
    all may be answered. The risk is only guaranteed on the rows that the threshold was chosen on.
    Raises ConfigError if even the most confident rows have a higher risk: an engine that never answers is
    of no use, and one that always answers would exceed the risk.
    """
    if sources is None:
        sources = np.full(len(labels), "")
    curve = worst_risk_coverage(labels, probabilities, sources)
    allowed = np.flatnonzero(curve.risk <= risk)
    if not len(allowed):
        best = int(curve.risk.argmin())
        of_worst = " of the worst source" if len(np.unique(sources)) > 1 else ""
        raise ConfigError(
            f"no threshold keeps the selective risk{of_worst} at {risk:.1%}: the lowest is "
            f"{curve.risk[best]:.1%}, at {curve.coverage[best]:.1%} coverage of {len(labels):,} rows; pass a "
            "higher --risk."
        )
    last = int(allowed[-1])
    if last == len(curve.risk) - 1:
        return 0.0
    return float(curve.confidence[last : last + 2].mean())


def describe(
    labels: Labels, probabilities: Rates, abstain_below: float, patients: NDArray[Any]
) -> dict[str, Any]:
    """Coverage and selective risk at a threshold, with their intervals, and AURC; patients: (N,)."""
    is_answered = probabilities.max(axis=1) >= abstain_below
    is_wrong = probabilities.argmax(axis=1) != labels
    parts = {"coverage": (is_answered, np.ones_like(is_answered)), "risk": (is_wrong, is_answered)}
    return {
        "abstain_below": abstain_below,
        **shares(parts, patients),
        "aurc": risk_coverage(labels, probabilities).area,
    }
