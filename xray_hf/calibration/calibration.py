"""calibration.json: what turns logits into probabilities and decisions.

temperature, abstain_below, target_risk, operating_points, fitted_on   by `fit`
ood, ood_report                                                        by `fit_ood`

The engine reads it, so neither SciPy nor scikit-learn is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xray_hf.calibration.ood import Detector
from xray_hf.errors import BundleError
from xray_hf.files import write_json
from xray_hf.manifest import CALIBRATION, read_calibration
from xray_hf.probabilities import softmax

_NUMBERS = ("temperature", "abstain_below", "target_risk")


class OperatingPoint(NamedTuple):
    """One class against the rest: a probability of `label` above `threshold` is positive.

    specificity: what the threshold was chosen for, on validation. Both 0 to 1.
    """

    label: str
    specificity: float
    threshold: float


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities and decisions; the defaults are a plain softmax.

    temperature: divides the logits. abstain_below: the engine abstains where the highest probability is
    smaller; 0 for never. target_risk: the share of wrong answers that this allows on validation.
    fitted_on: the rows that these and operating_points were fitted on; empty if they were not fitted.
    detector: of OOD input, None if it was not fitted. ood_report: its results on held-out images.
    """

    temperature: float = 1.0
    abstain_below: float = 0.0
    target_risk: float = 1.0
    operating_points: tuple[OperatingPoint, ...] = ()
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    detector: Detector | None = None
    ood_report: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for values that no fit gives."""
        if not 1e-3 <= self.temperature <= 1e6:
            raise ValueError(f"temperature is {self.temperature}; expected 0.001 to a million")
        shares = [("abstain_below", self.abstain_below), ("target_risk", self.target_risk)]
        shares += [
            (f"an operating point of {label}", number)
            for label, *numbers in self.operating_points
            for number in numbers
        ]
        for name, share in shares:
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; expected 0 to 1")

    @property
    def lacks(self) -> str:
        """Which parts of a calibration are missing, and the consequence, in words; empty if none is."""
        parts = []
        if not self.fitted_on:
            parts.append("it is never unsure")
        if self.detector is None:
            parts.append("only rules reject OOD images")
        how = "not" if len(parts) == 2 else "not fully"
        return f"{how} calibrated: {', '.join(parts)}" if parts else ""

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(B, C) logits -> (B, C) probabilities, float32."""
        return softmax(logits, self.temperature)

    def as_dict(self) -> dict[str, Any]:
        """The fitted values, ready for JSON."""
        parts: dict[str, Any] = {}
        if self.fitted_on:
            parts |= {name: getattr(self, name) for name in _NUMBERS}
            parts["operating_points"] = [point._asdict() for point in self.operating_points]
            parts["fitted_on"] = dict(self.fitted_on)
        if self.detector is not None:
            parts |= {"ood": self.detector.as_dict(), "ood_report": dict(self.ood_report)}
        return parts

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Calibration:
        """Invert as_dict; raises ValueError, LookupError, TypeError, AttributeError or OverflowError."""
        return cls(
            **{name: float(saved[name]) for name in _NUMBERS if name in saved},
            operating_points=tuple(OperatingPoint(**point) for point in saved.get("operating_points", ())),
            fitted_on=dict(saved.get("fitted_on", {})),
            detector=Detector.from_dict(saved["ood"]) if saved.get("ood") else None,
            ood_report=dict(saved.get("ood_report", {})),
        )


def read(folder: Path) -> Calibration:
    """The calibration of a bundle, or the defaults where it has none; raises BundleError if it is damaged."""
    saved = read_calibration(folder)
    try:
        return Calibration.from_dict(saved)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(
            f"{folder / CALIBRATION} is damaged ({error}); run `xray-hf calibrate` again."
        ) from error


def update(folder: Path, part: Calibration) -> None:
    """Write what was fitted of `part` into a bundle; the rest stays. Raises BundleError, OutputError."""
    write_json(folder / CALIBRATION, {**read_calibration(folder), **part.as_dict()})
