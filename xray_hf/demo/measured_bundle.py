"""A bundle's own files, as the page of evidence reads them: any number may be missing in an older one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_hf import manifest
from xray_hf.errors import BundleError

SUBSETS = {"validation": "validation", "test": "test", "test_official": "official test"}
VIEWS = {
    "whole": "whole image",
    "centre_masked": "lungs blacked out",
    "border": "outer frame only",
    "blurred": "low frequencies only",
    "histogram": "histogram only",
}
# What files raise that lack a number, or hold something else in its place.
GAPS = (LookupError, TypeError, AttributeError, ValueError)

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """A bundle as this page sees it.

    name: the model's on the page. number: its place there, in the figures' addresses, too. The rest are the
    bundle's files; {} for one that is missing or damaged.
    """

    name: str
    number: int
    folder: Path
    metrics: Numbers
    calibration: Numbers
    training: Numbers

    @classmethod
    def read(cls, name: str, number: int, folder: Path) -> Measured:
        """Read what is there."""
        metrics = _read(manifest.read_json, folder / manifest.METRICS)
        training = _read(manifest.read_json, folder / manifest.TRAINING)
        return cls(name, number, folder, metrics, _read(manifest.read_calibration, folder), training)


def interval(numbers: Numbers, label: str, key: str) -> Sequence[float] | None:
    """The interval of a number of one class, in a bundle that has intervals."""
    found: Sequence[float] | None = numbers.get("intervals", {}).get("per_class", {}).get(label, {}).get(key)
    return found


def view_title(name: str) -> str:
    return VIEWS.get(name) or name.replace("_", " ")


def _read(reader: Callable[[Path], Numbers], path: Path) -> Numbers:
    try:
        return reader(path)
    except BundleError:
        return {}
