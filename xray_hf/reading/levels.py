"""Pixel values of any type -> 8 bits.

A 16-bit file often holds fewer bits: detectors give 10, 12 or 14. How many is taken from what the file
states, as far as its values agree, or else from the histogram:

1. Unsigned values up to 65,535 have the fewest of 8, 10, 12, 14 and 16 bits that hold the picture. Hot
   pixels and burned-in markers may lie above: at most 2 % of the pixels, and at most a tenth of these in the
   eighth of the range just above. The tail of a real histogram is dense there.
2. Float values from 0 to 1, and from 0 to 255, are what their range says.
3. All others (signed, 32 bits and more) have no black and white of their own: the picture's lowest value
   becomes black, its highest white, and its ends are found in the same way.

Each guess gives a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from xray_hf.errors import ImageError

_BITS = (8, 10, 12, 14)
_MARKERS = 0.02  # the share of the pixels that may lie beyond the picture's values
_NEXT = 8  # the part just beyond the picture's values is their range divided by this
_DENSE = 0.1  # the share of what lies beyond that makes this part the histogram's tail
_HOT = 0.0002  # the share of the pixels that may be hot or dead, wherever they lie
_FEW = 2**20  # pixels that the range of signed and wide values is found from
_STRIP = 2**20  # pixels converted at a time; copies of a whole image would cost hundreds of MB


def to_eight_bits(
    values: np.ndarray, name: str, stated: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scale integers or floats of any shape (H, W, ...) to uint8, 0..255; and warnings.

    name: what errors call the image. stated: the bits that its file says it has, None if it says nothing.
    Raises ImageError for values that are not finite.
    """
    if values.dtype == np.uint8 and stated in (None, 8):
        return values, ()
    scale, warnings = _scale(values, name, stated)
    scaled = np.empty(values.shape, np.uint8)
    for rows in strips(values.shape[1], values.shape[0]):
        scaled[rows] = scale(values[rows])
    return scaled, warnings


def strips(width: int, height: int) -> Iterator[slice]:
    """The rows 0..height in slices of about a million pixels."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


_Scale = Callable[[np.ndarray], np.ndarray]


def _scale(values: np.ndarray, name: str, stated: int | None) -> tuple[_Scale, tuple[str, ...]]:
    if values.dtype.kind == "b":
        return lambda strip: strip * np.uint8(255), ()
    if values.dtype in (np.uint8, np.uint16):
        return _of_depth(values, stated)
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ImageError(f"{name} has values that are not finite numbers; replace them and save it again.")
    low, high = _ends(values)
    if low < 0 or high >= 2**16:
        return _linear(low, high), (
            f"The image does not state which values are black and white; {low:g} and {high:g} were taken.",
        )
    if values.dtype.kind == "f" and high <= 255:
        return _linear(0, 1 if high <= 1 else 255), ()
    return _of_depth(_as_16_bits(values), stated)


def _as_16_bits(values: np.ndarray) -> np.ndarray:
    whole = np.empty(values.shape, np.uint16)
    for rows in strips(values.shape[1], values.shape[0]):
        whole[rows] = np.rint(values[rows]).clip(0, 65535)
    return whole


def _of_depth(values: np.ndarray, stated: int | None) -> tuple[_Scale, tuple[str, ...]]:
    """For uint8 and uint16."""
    counts = np.zeros(2**16, np.int64)
    for rows in strips(values.shape[1], values.shape[0]):
        counts += np.bincount(values[rows].ravel(), minlength=2**16)
    # A PNG that states 12 bits may hold them scaled to 16, as its standard has it, or as they are.
    fits = stated is not None and _holds(counts, stated)
    bits = stated if fits and stated is not None else _bits(counts)
    full = 2**bits - 1
    table = ((np.arange(2**16).clip(max=full) * 255 + full // 2) // full).astype(np.uint8)
    warnings = (
        ()
        if fits or bits == 16
        else (f"The image does not state how many bits its values have; they suggest {bits}.",)
    )
    # Integers of more bits come here converted, so a strip may be of another type.
    return lambda strip: table[_indices(strip)], warnings


def _indices(strip: np.ndarray) -> np.ndarray:
    if strip.dtype in (np.uint8, np.uint16):
        return strip
    return np.rint(strip).clip(0, 65535).astype(np.uint16)


def _bits(counts: np.ndarray) -> int:
    return next((bits for bits in _BITS if _holds(counts, bits)), 16)


def _holds(counts: np.ndarray, bits: int) -> bool:
    """Whether the picture of a histogram (65536,) of uint16 has at most so many bits."""
    full = 2**bits - 1
    picture = int(counts.sum() - counts[np.flatnonzero(counts)[0]])  # the lowest value is the background
    above, near = int(counts[full + 1 :].sum()), int(counts[full + 1 : full + 1 + full // _NEXT].sum())
    return above <= _MARKERS * picture and near <= max(1, _HOT * picture, _DENSE * above)


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The lowest and highest value of the picture, without hot or dead pixels and burned-in markers."""
    few = np.sort(values.ravel()[:: -(-values.size // _FEW)].astype(np.float64))
    low, high = float(values.min()), float(values.max())
    return -_end(-few[::-1], -low), _end(few, high)


def _end(few: np.ndarray, highest: float) -> float:
    """The highest value of the picture, of which `few` are sorted; `highest`: of all."""
    last = len(few) - 1
    first, body = int(_MARKERS * last), int((1 - _MARKERS) * last)
    step = (few[body] - few[first]) / _NEXT
    above = last - np.arange(body, last + 1)
    near = np.searchsorted(few, few[body:] + step, side="right") - np.arange(body + 1, last + 2)
    end = float(few[body + int(np.argmax(near <= np.maximum(max(1, _HOT * last), _DENSE * above)))])
    return highest if highest <= end + step else end


def _linear(low: float, high: float) -> _Scale:
    factor = 255 / (high - low) if high > low else 0.0
    return lambda strip: np.rint(((strip - np.float64(low)) * factor).clip(0, 255)).astype(np.uint8)
