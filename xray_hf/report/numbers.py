"""How a number is written, with its interval; "-" where there is no information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UNKNOWN = "-"


class Rate(NamedTuple):
    """A number and its 95 % interval; None for what is not known."""

    value: float | None = None
    interval: tuple[float, float] | None = None


def percent(rate: Rate, digits: int = 1) -> str:
    """A share from 0 to 1, as 81.3% (78.2–84.5)."""
    if rate.value is None:
        return UNKNOWN
    bounds = " ({:.1f}–{:.1f})".format(*(100 * end for end in rate.interval)) if rate.interval else ""
    return f"{rate.value:.{digits}%}{bounds}"


def decimal(rate: Rate, digits: int = 3) -> str:
    """0.948 (0.930–0.964)."""
    if rate.value is None:
        return UNKNOWN
    bounds = " ({:.3f}–{:.3f})".format(*rate.interval) if rate.interval else ""
    return f"{rate.value:.{digits}f}{bounds}"


def count(value: int | None) -> str:
    """2,345."""
    return UNKNOWN if value is None else f"{value:,}"


def part_of(counts: tuple[int, int] | None) -> str:
    """182 of 200."""
    return "{:,} of {:,}".format(*counts) if counts else UNKNOWN


def change(before: float | None, after: float | None) -> str:
    """0.678 → 0.718."""
    return UNKNOWN if before is None or after is None else f"{before:.3f} → {after:.3f}"


def mean_and_sd(values: Sequence[float]) -> str:
    """92.3 ± 0.6, in percent; one value has no deviation."""
    deviation = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{deviation}"


def points(rate: Rate) -> str:
    """+2.4 (-1.3 to +6.0) percentage points."""
    if rate.value is None:
        return UNKNOWN
    bounds = " ({:+.1f} to {:+.1f})".format(*(100 * end for end in rate.interval)) if rate.interval else ""
    return f"{100 * rate.value:+.1f}{bounds}"
