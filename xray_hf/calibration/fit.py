"""Fit a bundle's temperature, abstention and operating points, and measure what they do.

Fitted on the validation rows of its own predictions; neither the network nor the images are needed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from xray_hf import manifest
from xray_hf.calibration import abstention, calibration, operating_points, temperature
from xray_hf.calibration.abstention import TARGET_RISK
from xray_hf.calibration.calibration import Calibration
from xray_hf.calibration.temperature import calibrated
from xray_hf.errors import BundleError, ConfigError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import Draws


def fit_bundle(folder: Path, target_risk: float = TARGET_RISK) -> Calibration:
    """Fit a bundle's part of calibration.json, write it and return it.

    target_risk: the share of its answers on validation that may be wrong, 0 to below 1.
    Raises ConfigError for another risk, or one that no threshold reaches; BundleError for a bundle whose
    validation rows cannot be used; OutputError.
    """
    if not 0 <= target_risk < 1:
        raise ConfigError(f"--risk is {target_risk}; expected 0 to below 1, as 0.02 for 2 % of the answers.")
    path = folder / manifest.SPLITS
    if (protocol := manifest.read_json(path).get("protocol")) != "grouped":
        raise BundleError(
            f"{path} has protocol {protocol!r}; expected 'grouped'. The validation rows of `paper` are "
            "copies of training rows and say nothing of new images: train with --protocol grouped."
        )
    validation = Predictions.read(folder / manifest.PREDICTIONS).select("validation")
    try:
        found = fit(validation, target_risk)
    except ValueError as error:
        raise BundleError(f"validation of {folder}: {error}; train with more data.") from error
    calibration.update(folder, found)
    return found


def fit(validation: Predictions, target_risk: float = TARGET_RISK) -> Calibration:
    """Fit temperature, abstention and operating points on validation rows.

    `fitted_on` says in which sources the risk is kept, where there are several.
    Raises ConfigError as fit_abstention does, ValueError as fit_temperature does.
    """
    labels, sources = validation.label, validation.source
    best = temperature.fit_temperature(labels, validation.logits, sources)
    probabilities = calibrated(validation.logits, best)
    has_several = len(np.unique(sources)) > 1
    return Calibration(
        temperature=best,
        abstain_below=abstention.fit_abstention(labels, probabilities, target_risk, sources),
        target_risk=target_risk,
        operating_points=operating_points.fit_operating_points(labels, probabilities, validation.classes),
        fitted_on={
            "split": "validation",
            "n": len(labels),
            **({"risk_kept_in": abstention.large_sources(sources)} if has_several else {}),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def describe(predictions: Predictions, fitted: Calibration) -> dict[str, Any]:
    """Measure the effect of the fit on some rows, ready for JSON; the table must have rows.

    calibration: before and after the temperature. abstention: at its threshold. operating_points: each of
    them. Raises BundleError for an operating point of a class that the rows do not know.
    """
    draws, labels, classes = Draws(predictions.patient_id), predictions.label, predictions.classes
    if unknown := [point.label for point in fitted.operating_points if point.label not in classes]:
        raise BundleError(
            f"{manifest.CALIBRATION} has an operating point of {unknown[0]!r}, the predictions have the "
            f"classes {', '.join(classes)}; run `xray-hf calibrate` again."
        )
    probabilities = calibrated(predictions.logits, fitted.temperature)
    return {
        "calibration": {
            "before": temperature.describe(labels, predictions.probabilities, draws),
            "after": temperature.describe(labels, probabilities, draws),
        },
        "abstention": abstention.describe(labels, probabilities, fitted.abstain_below, draws.patient),
        "operating_points": [
            operating_points.describe(labels == index, probabilities[:, index], point, draws.patient)
            for point in fitted.operating_points
            for index in [classes.index(point.label)]
        ],
    }
