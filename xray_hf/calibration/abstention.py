"""Abstention: the risk-coverage curve, and the confidence below which to give no answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_hf.errors import ConfigError
from xray_hf.evaluation.metrics import Rates
from xray_hf.evaluation.uncertainty import Draws

TARGET_RISK = 0.02  # selective risk: the share of wrong answers among those given

Labels = NDArray[np.integer]


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


def risk_coverage(labels: Labels, probabilities: Rates) -> RiskCoverage:
    """(N,) true classes and (N, C) probabilities -> the curve; rows of equal confidence are one point."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence)
    confidence, wrong = confidence[order], (probabilities.argmax(axis=1) != labels)[order]
    answered = np.arange(1, len(wrong) + 1)
    last_of_equals = np.append(np.diff(confidence) != 0, True)
    curve = (confidence, answered / len(wrong), np.cumsum(wrong) / answered)
    return RiskCoverage(*(values[last_of_equals] for values in curve))


def fit_abstention(labels: Labels, probabilities: Rates, risk: float = TARGET_RISK) -> float:
    """The smallest confidence to answer at, for the largest coverage with at most that selective risk.

    It lies halfway to the next row's confidence, so that rounding in another runtime changes no answer; 0 if
    all may be answered. Only the rows that it is chosen on are sure to have at most that risk.
    Raises ConfigError if even the surest rows have a higher risk: answering nothing would keep it, but be no
    classifier, and answering all would be a lie.
    """
    curve = risk_coverage(labels, probabilities)
    allowed = np.flatnonzero(curve.risk <= risk)
    if not len(allowed):
        best = int(curve.risk.argmin())
        raise ConfigError(
            f"no threshold keeps the selective risk at {risk:.1%}: the lowest is {curve.risk[best]:.1%}, at "
            f"{curve.coverage[best]:.1%} coverage of {len(labels):,} rows; pass a higher --risk."
        )
    last = int(allowed[-1])
    if last == len(curve.risk) - 1:
        return 0.0
    return float(curve.confidence[last : last + 2].mean())


def describe(labels: Labels, probabilities: Rates, abstain_below: float, draws: Draws) -> dict[str, Any]:
    """Coverage and selective risk at a threshold, with their intervals, and AURC."""
    is_answered = probabilities.max(axis=1) >= abstain_below
    is_wrong = probabilities.argmax(axis=1) != labels
    parts = {"coverage": (is_answered, np.ones_like(is_answered)), "risk": (is_wrong, is_answered)}
    return {
        "abstain_below": abstain_below,
        **draws.shares(parts),
        "aurc": risk_coverage(labels, probabilities).area,
    }
