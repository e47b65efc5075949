"""Limits on the size of any image, whatever its kind; checked before anything is decoded."""

from __future__ import annotations

from xray_hf.errors import ImageError

MAX_BYTES = 128 * 2**20
MIN_SIDE = 32  # pixels; below this there is nothing to diagnose
MAX_PIXELS = 36_000_000  # the largest detectors (43×43 cm at 0.1 mm) give 18 million
MAX_ASPECT = 8  # longer side to shorter side

SEVERAL = "has several pages or frames; expected one. Save the X-ray alone, as PNG."


def check_size(name: str, width: int, height: int) -> None:
    """Raise ImageError unless an image of that size, in pixels, may be decoded. name: what errors call it."""
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name} is {width}×{height} pixels; at least {MIN_SIDE}×{MIN_SIDE} are needed.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{name} is {width}×{height} pixels; no side may be over {MAX_ASPECT} times the other. Crop it."
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width}×{height} pixels; the limit is {MAX_PIXELS:,} in all. Shrink it."
        )


def several_pages(name: str) -> ImageError:
    """The error for a file of several pictures."""
    return ImageError(f"{name} {SEVERAL}")
