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
