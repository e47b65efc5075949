"""Numbers of metrics.json with their intervals, as pages show them; "-" where there is no information."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def rate(numbers: Mapping[str, Any], key: str) -> str:
    """One share, with its interval if `numbers` has one."""
    return percent(numbers[key], numbers.get("intervals", {}).get(key))


def percent(value: float | None, interval: Sequence[float] | None) -> str:
    """A share from 0 to 1, as 81.3% (78.2–84.5)."""
    if value is None:
        return "-"
    return f"{value:.1%}" + (f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else "")


def number(value: float | None, interval: Sequence[float] | None) -> str:
    """0.948 (0.930–0.964)."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def counted(number: int, what: str) -> str:
    """1 image, 2,345 images."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def false_alarms(matrix: Sequence[Sequence[int]]) -> tuple[int, int]:
    """(C, C) counts, rows true -> how many are wrongly called the last class, of how many that could be."""
    return sum(row[-1] for row in matrix[:-1]), sum(map(sum, matrix[:-1]))


def others_called(matrix: Sequence[Sequence[int]]) -> str:
    """80 of 90: how many of the others are called the last class."""
    return "{} of {}".format(*false_alarms(matrix))


def before_and_after(calibration: Mapping[str, Mapping[str, float]], key: str) -> str:
    """0.678 → 0.718: an error of the probabilities, and what the temperature makes of it."""
    return f"{calibration['before'][key]:.3f} → {calibration['after'][key]:.3f}"


def withheld(decisions: Mapping[str, Any]) -> str:
    """not a frontal chest X-ray 8%, unsure 22%: of External.decisions; "-" for none."""
    return ", ".join(f"{what} {share:.0%}" for what, share in decisions["not_decided"].items()) or "-"


def lateral_views(measured: Mapping[str, Any], label: str) -> int:
    """How many test images of a class are known to be lateral views, of metrics.json; 0 without a report."""
    views = measured.get("subgroups", {}).get("view_position", {})
    of_class = views["L"]["classes"].get(label) if "L" in views else None
    return int(of_class["n"]) if of_class else 0


def by_split(called: Mapping[str, Mapping[str, int]]) -> str:
    """10 of 11 in train, 1 of 2 in test: of {split: {images, called}} those with images."""
    parts = [
        f"{own['called']} of {own['images']} in {split}" for split, own in called.items() if own["images"]
    ]
    return ", ".join(parts) or "-"


def listed(values: Iterable[object], word: str = "and") -> str:
    """a, b and c."""
    *most, last = [*map(str, values)] or [""]
    return f"{', '.join(most)} {word} {last}" if most else last
