"""Numbers over seeds and tables as Markdown, for the pages of docs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def points(value: float, interval: Sequence[float] | None) -> str:
    """+2.4 (−1.3 to +6.0) percentage points."""
    bounds = f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else ""
    return f"{100 * value:+.1f}{bounds}"
