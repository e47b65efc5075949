"""Counts and lists inside a sentence."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, what: str) -> str:
    """1 image, 2,345 images."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(values: Iterable[object], word: str = "and") -> str:
    """a, b and c."""
    *most, last = [*map(str, values)] or [""]
    return f"{', '.join(most)} {word} {last}" if most else last
