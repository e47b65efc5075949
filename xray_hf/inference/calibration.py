"""calibration.json: what turns logits into probabilities and decisions.

temperature, unsure_below, target_risk, operating_points, fitted_on   by `calibrate_confidence`
foreign, foreign_report                                               by `calibrate_foreign`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xray_hf.errors import BundleError
from xray_hf.files import write_json
from xray_hf.inference.foreign import Detector
from xray_hf.manifest import CALIBRATION, Manifest, read_json


@dataclass(frozen=True)
class Calibration:
    """How to read a network's answers; the defaults take them as they are.

    temperature: divides the logits (Guo et al. 2017). unsure_below: the smallest probability of the label
    that is no "unsure", None for never. detector: of foreign input, None for none.
    """

    temperature: float = 1.0
    unsure_below: float | None = None
    detector: Detector | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what no file should say."""
        if not 1e-3 <= self.temperature <= 1e6:
            raise ValueError(f"temperature is {self.temperature}; expected 0.001 to a million")
        if self.unsure_below is not None and not 0 <= self.unsure_below <= 1:
            raise ValueError(f"unsure_below is {self.unsure_below}; expected 0 to 1")

    @property
    def lacks(self) -> str:
        """What a bundle is that was not fitted whole, and what follows, in words; empty for others."""
        parts = []
        if self.unsure_below is None:
            parts.append("nothing is unsure")
        if self.detector is None:
            parts.append("foreign images are refused by rules only")
        how = "not" if len(parts) == 2 else "not fully"
        return f"{how} calibrated: {', '.join(parts)}" if parts else ""

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(B, C) logits -> (B, C) probabilities, float32."""
        scaled = logits / np.float32(self.temperature)
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def update(folder: Path, part: Mapping[str, Any]) -> None:
    """Write some of a bundle's calibration.json; the rest stays. Raises BundleError, OutputError."""
    path = folder / CALIBRATION
    before = read_json(path) if path.exists() else {}
    write_json(path, {**before, **part})


def read(manifest: Manifest) -> Calibration:
    """The calibration of a bundle, or the defaults where it has none; raises BundleError if it is damaged."""
    path = manifest.folder / CALIBRATION
    if not path.exists():
        return Calibration()
    saved = read_json(path)
    try:
        foreign = saved.get("foreign")
        return Calibration(
            temperature=float(saved.get("temperature", 1.0)),
            unsure_below=saved.get("unsure_below"),
            detector=Detector.from_dict(foreign) if foreign else None,
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path} is damaged ({error}); run `xray-hf calibrate` again.") from error
