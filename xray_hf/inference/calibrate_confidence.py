"""Fit what a bundle's probabilities need: temperature, when to say "unsure", operating points.

From its own predictions, validation rows only; neither the network nor the images are needed.
"""

from __future__ import annotations

import time
from pathlib import Path

from xray_hf import manifest
from xray_hf.errors import BundleError, ConfigError
from xray_hf.evaluation.confidence import TARGET_RISK, Confidence, fit
from xray_hf.evaluation.predictions import Predictions
from xray_hf.inference import calibration


def calibrate(folder: Path, target_risk: float = TARGET_RISK) -> Confidence:
    """Fit a bundle's part of calibration.json, write it and return it.

    target_risk: the share of its answers on validation that may be wrong, 0 to below 1.
    Raises ConfigError for another risk, or one that no threshold reaches; BundleError for a bundle whose
    validation rows say nothing; OutputError.
    """
    if not 0 <= target_risk < 1:
        raise ConfigError(f"--risk is {target_risk}; expected 0 to below 1, as 0.02 for 2 % of the answers.")
    _require_honest_validation(folder)
    validation = Predictions.read(folder / manifest.PREDICTIONS).select("validation")
    try:
        found = fit(validation, target_risk)
    except ValueError as error:
        raise BundleError(f"validation of {folder}: {error}; train with more data.") from error
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    fitted_on = {"split": "validation", "n": len(validation), "date": date}
    calibration.update(folder, {**found.as_dict(), "fitted_on": fitted_on})
    return found


def _require_honest_validation(folder: Path) -> None:
    """Raise BundleError unless the validation rows were kept apart from the training rows."""
    path = folder / manifest.SPLITS
    protocol = manifest.read_json(path).get("protocol")
    if protocol != "grouped":
        raise BundleError(
            f"{path} has protocol {protocol!r}; expected 'grouped'. The validation rows of `paper` are "
            "copies of training rows and say nothing of new images: train with --protocol grouped."
        )
