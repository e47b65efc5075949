"""Numbers as the pages of docs show them, and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines of cells below their heads."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def mean_and_sd(values: Sequence[float]) -> str:
    """In percent; one value has no deviation."""
    deviation = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{deviation}"


def rate(numbers: Mapping[str, Any], key: str) -> str:
    """One share with its interval."""
    return percent(numbers[key], numbers["intervals"][key])


def percent(value: float | None, interval: Sequence[float] | None) -> str:
    """81.3 % (78.2–84.5)."""
    if value is None:
        return "-"
    return f"{value:.1%}" + (f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else "")


def points(value: float, interval: Sequence[float] | None) -> str:
    """+2.4 (−1.3 to +6.0) percentage points."""
    bounds = f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else ""
    return f"{100 * value:+.1f}{bounds}"


def number(value: float | None, interval: Sequence[float] | None) -> str:
    """0.948 (0.930–0.964)."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")
