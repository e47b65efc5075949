"""Pixel values of any type -> 8 bits.

A 16-bit file often holds fewer bits: detectors give 10, 12 or 14. The depth is the one that the
file states, if that is below 16 and its values agree; otherwise it follows from all values, never from one:

1. Whole numbers from 0 to 65,535 have the fewest of 8, 10, 12, 14 and 16 bits that hold 95 % of the picture.
   The rest may be hot pixels, burned-in markers, and overshoot from resizing and sharpening. The lowest
   value, the background, does not count, nor does the highest if it stands alone: a white border or marker.
2. Floats that reach to about 1, or to about 255, are what their range says.
3. All others (signed, wider, other floats, and a picture far from black in a small part of its range) have no
   black and white of their own: the picture's lowest value becomes black, its highest white. A lowest or
   highest value that stands alone, and hot and dead pixels, do not count.

Where fewer than 16 bits are found, and for every image of the third kind, there is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from xray_hf.errors import ImageError

BITS = (8, 10, 12, 14)
BEYOND = 0.05  # the share of the picture that may lie beyond its values
_HOT = 0.0002  # the share of the pixels that may be hot or dead
GAP = 1 / 8  # of the picture's range: a value without a neighbour within it stands alone
NARROW = 1 / 8  # of all values: a picture that spans less, and begins above that, has its own black
_FEW = 2**20  # pixels sampled to find the ends
_STRIP = 2**20  # pixels converted at a time; copies of a whole image would cost hundreds of MB


def to_eight_bits(
    values: np.ndarray, name: str, stated: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scale integers or floats of any shape (H, W, ...) to uint8, 0..255; and warnings.

    name: what errors call the image. stated: the bits that its file states, None if it states none.
    Raises ImageError for values that are not finite, or not numbers.
    """
    if values.dtype == np.uint8 and stated in (None, 8):
        return values, ()
    if values.dtype.kind not in "buif":
        raise ImageError(f"{name} has values of type {values.dtype}; expected integers or floats.")
    if values.dtype.kind == "b":
        return values * np.uint8(255), ()
    if values.dtype in (np.uint8, np.uint16):
        return _by_depth(values, stated, BITS)
    return _by_range(values, name, stated)


def strips(width: int, height: int) -> Iterator[slice]:
    """The rows 0..height in slices of about a million pixels."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _by_range(values: np.ndarray, name: str, stated: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """For signed and wider integers, and floats."""
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ImageError(f"{name} has values that are not finite numbers; replace them and save it again.")
    kind, size = values.dtype.kind, values.dtype.itemsize
    few = _few(values)
    low, high = _ends(few)
    for white in (1, 255) if kind == "f" else ():
        if low >= -white * GAP and white / 2 <= high <= white * (1 + GAP):
            return _linear(values, 0, white), ()
    if low < 0 or high >= 2**16 or (few != np.rint(few)).any():
        return _from_end_to_end(values, low, high)
    without_sign = {8 * size - 1} if kind == "i" and size <= 2 else set()
    return _by_depth(_as_16_bits(values), stated, sorted({*BITS, *without_sign}))


def _as_16_bits(values: np.ndarray) -> np.ndarray:
    return _mapped(values, lambda strip: np.rint(strip.astype(np.float64)).clip(0, 65535), np.uint16)


def _mapped(
    values: np.ndarray, scale: Callable[[np.ndarray], np.ndarray], kind: type[np.generic] = np.uint8
) -> np.ndarray:
    """The values of another type, made strip by strip."""
    made = np.empty(values.shape, kind)
    for rows in strips(values.shape[1], values.shape[0]):
        made[rows] = scale(values[rows])
    return made


def _by_depth(
    values: np.ndarray, stated: int | None, possible: Sequence[int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """For uint8 and uint16. possible: bit depths, ascending."""
    counts = np.zeros(2**16, np.int64)
    for rows in strips(values.shape[1], values.shape[0]):
        counts += np.bincount(values[rows].ravel(), minlength=2**16)
    picture = _without_ends(counts)
    # A PNG that states 12 bits may hold them scaled to 16, as its standard has it, or as they are.
    if stated is not None and 0 < stated < 16 and _holds(picture, stated):
        return _from_black(values, stated), ()
    bits = next((bits for bits in possible if _holds(picture, bits)), 16)
    there = np.flatnonzero(picture)
    low, high = (int(there[0]), int(there[-1])) if len(there) else (0, 2**16)
    if high - low < NARROW * 2**bits < low:
        return _from_end_to_end(values, low, high)
    warning = f"The image does not state how many bits its values have; they suggest {bits}."
    return _from_black(values, bits), (warning,) if bits < 16 else ()


def _without_ends(counts: np.ndarray) -> np.ndarray:
    """A histogram without its background and, if it stands alone, its highest value."""
    there = np.flatnonzero(counts)
    picture = counts.copy()
    picture[there[0]] = 0
    if len(there) > 2 and there[-1] - there[-2] > GAP * (there[-2] - there[1]):
        picture[there[-1]] = 0
    return picture


def _holds(picture: np.ndarray, bits: int) -> bool:
    """Whether the picture of a histogram (65536,) has at most so many bits."""
    return picture.sum() > 0 and picture[2**bits :].sum() <= BEYOND * picture.sum()


def _few(values: np.ndarray) -> np.ndarray:
    """At most about a million values of all channels, sorted float64; with the least and the greatest."""
    pixels = values.reshape(values.shape[0] * values.shape[1], -1)
    chosen = pixels[:: -(-pixels.size // _FEW)].ravel()
    return np.sort(np.concatenate([chosen, [values.min(), values.max()]]).astype(np.float64))


def _ends(few: np.ndarray) -> tuple[float, float]:
    """The lowest and highest value of the picture, of sorted values."""
    few = _without_lone_highest(-_without_lone_highest(-few[::-1])[::-1])
    return -_end(-few[::-1]), _end(few)


def _without_lone_highest(few: np.ndarray) -> np.ndarray:
    """Without the highest value if it stands alone; border, padding or marker have one, however large."""
    rest = few[: np.searchsorted(few, few[-1])]
    return rest if len(rest) and few[-1] - rest[-1] > GAP * (rest[-1] - rest[0]) > 0 else few


def _end(few: np.ndarray) -> float:
    """The highest value of the picture: the first beyond 95 % with almost none in the gap above it."""
    last = len(few) - 1
    body = int((1 - BEYOND) * last)
    gap = (few[body] - few[last - body]) * GAP
    near = np.searchsorted(few, few[body:] + gap, side="right") - np.arange(body + 1, last + 2)
    end = float(few[body + int(np.argmax(near <= max(1, _HOT * last)))])
    return float(few[-1]) if few[-1] <= end + gap else end


def _from_black(values: np.ndarray, bits: int) -> np.ndarray:
    """0 becomes black and the largest value of so many bits white; for uint8 and uint16."""
    full = 2**bits - 1
    table = ((np.arange(2**16).clip(max=full) * 255 + full // 2) // full).astype(np.uint8)
    return _mapped(values, lambda strip: table[strip])


def _from_end_to_end(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, tuple[str, ...]]:
    warning = f"The image does not state which values are black and white; {low:g} and {high:g} were taken."
    return _linear(values, low, high), (warning,)


def _linear(values: np.ndarray, low: float, high: float) -> np.ndarray:
    factor = 255 / (high - low) if high > low else 0.0
    return _mapped(values, lambda strip: np.rint(((strip - np.float64(low)) * factor).clip(0, 255)))
