"""Stored values of a grey DICOM picture -> shades, in the order of the standard (PS3.3, C.11; PS3.4, N.2).

Each step is a function of the values that are present, at most 65,536, and not of the pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from xray_hf.errors import ImageError
from xray_hf.reading.dicom_header import Header
from xray_hf.reading.dicom_pixels import Format
from xray_hf.reading.levels import strips

_DARK = 2  # bits: a table that leaves three quarters of its range unused holds fewer than it states
MAX_TRIED = 16  # tables and windows: each takes as long as the pixels
_MOST, _MANY = 0.99, 255  # the share of entries that decides a table's depth, if it has so many entries
_DAMAGED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, struct.error)

NO_RESCALE = "has a rescale slope or intercept that is not a number; export it again."
NO_SLOPE = "The file's rescale slope is 0, so it was left out."
NEXT_WINDOW = "The file's first window cannot be used or shows none of its values; the next one is shown."
NO_WINDOW = "The file's window cannot be used; its whole range of values is shown."
_BITS = "The file's lookup table does not have the bit depth that it states; that of its entries was used."
SHAPE = "The file's header contradicts itself about black and white; check the picture."


def grey_of(
    words: np.ndarray, keeps_unused_bits: bool, form: Format, header: Header, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture as a viewer shows it: (H, W) uint8, 0 black to 255 white; and warnings.

    words: (H, W) uint8 or uint16. keeps_unused_bits: whether they have bits around the stored values.

    1. Stored values are cut from the words; overlays in unused bits fall away (C.7.6.3.1.1).
    2. Padding (C.7.5.1.1.2) is black in the end, and counts nowhere else.
    3. The modality table, or slope and intercept, 1 and 0 where missing (C.11.1).
    4. The first VOI table, or else window (C.11.2), that shows any value neither black nor white; without
       one, from the smallest to the largest value that is present. A constant picture is then black.
    5. MONOCHROME1 is inverted (C.7.6.3.1.2).

    Raises ImageError if the values cannot be computed from the header's numbers.
    """
    present = _present(words, form, header)
    stored = _stored(present, form, keeps_unused_bits)
    picture = ~_is_padding(present, stored, form, header)
    picture |= not picture.any()  # a picture of nothing but padding is shown as one of values
    is_inverted = form.photometric == "MONOCHROME1"
    table = np.zeros(2**form.allocated, np.uint8)

    def shown(shares: np.ndarray) -> np.ndarray:
        shades = np.rint(shares.clip(0, 1) * 255).astype(np.uint8)
        table[present[picture]] = 255 - shades if is_inverted else shades
        return _look_up(words, table)

    with np.errstate(all="ignore"):  # crafted slopes and windows may overflow; the results are checked
        values, warnings = _modality(stored[picture], form, header, name)
        grey, more = _show(values, shown, form, header)
    # INVERSE belongs to MONOCHROME1 and IDENTITY to the other (C.11.6): they say the same, so invert once.
    contradicts = header.text("PresentationLUTShape") == ("IDENTITY" if is_inverted else "INVERSE")
    return grey, (*warnings, *more, *((SHAPE,) if contradicts else ()))


def _present(words: np.ndarray, form: Format, header: Header) -> np.ndarray:
    """The words that occur, (N,), in order; or all between the least and the greatest, where that is enough.

    It is enough where greater words always stand for greater values, and halves the time for a native file.
    """
    low, high = int(words.min()), int(words.max())
    is_ordered = not form.signed and high < 2 ** (form.stored + form.shift)
    if is_ordered and not header.raw("PixelPaddingValue") and not header.items("ModalityLUTSequence"):
        return np.arange(low, high + 1)
    counts = np.zeros(2**form.allocated, np.intp)
    for rows in strips(*words.shape[::-1]):
        counts += np.bincount(words[rows].ravel(), minlength=len(counts))
    return np.flatnonzero(counts)


def _look_up(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    grey = np.empty(words.shape, np.uint8)
    for rows in strips(*words.shape[::-1]):
        np.take(table, words[rows], out=grey[rows], mode="clip")  # all are in range; "raise" would copy
    return grey


def _stored(words: np.ndarray, form: Format, keeps_unused_bits: bool) -> np.ndarray:
    """Stored values (N,) int64, with their sign."""
    if keeps_unused_bits:
        words = words >> form.shift & 2**form.stored - 1
    elif form.signed:
        words = words & 2**form.stored - 1
    return words - (words >> form.stored - 1 << form.stored) if form.signed else words


def _is_padding(words: np.ndarray, stored: np.ndarray, form: Format, header: Header) -> np.ndarray:
    """Which words stand for no part of the picture: (N,) bool.

    The padding value may need bits that the stored values do not have, so words are compared too.
    """
    first = _padding(header, "PixelPaddingValue", form.signed)
    if first is None:
        return np.zeros(len(words), bool)
    last = _padding(header, "PixelPaddingRangeLimit", form.signed)
    low, high = sorted((first, first if last is None else last))
    whole = words - (words >> form.allocated - 1 << form.allocated) if form.signed else words
    return ((low <= stored) & (stored <= high)) | ((low <= whole) & (whole <= high))


def _padding(header: Header, keyword: str, signed: bool) -> int | None:
    """A padding value, signed as the pixels are (C.7.5.1.1.2); None if it is missing or not a number."""
    raw = header.raw(keyword)
    return struct.unpack(f"{header.order}{'h' if signed else 'H'}", raw)[0] if len(raw) == 2 else None


def _modality(
    stored: np.ndarray, form: Format, header: Header, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Stored values to the modality's, (N,) float64: by its table, or by slope and intercept.

    Not by pydicom's `apply_modality_lut`, which takes a slope only with an intercept, fails on empty ones,
    and gives a table's first value the sign of the values present (tests/test_dicom_cases.py: 01c, 03, 04).
    """
    if items := header.items("ModalityLUTSequence"):
        try:
            entries, first, _, _ = _table(items[0], stored, _stored_range(form)[0])
        except _DAMAGED:
            raise ImageError(f"{name} has an incomplete modality table; export it again.") from None
        return _looked_up(stored, entries, first).astype(np.float64), ()
    try:
        slope, intercept = _rescale(header)
    except _DAMAGED:
        slope = intercept = np.nan
    values = stored * (slope or 1.0) + intercept
    if not np.isfinite(values).all():
        raise ImageError(f"{name} {NO_RESCALE}")
    return values, () if slope else (NO_SLOPE,)


def _rescale(header: Header) -> tuple[float, float]:
    slope, intercept = header.numbers("RescaleSlope"), header.numbers("RescaleIntercept")
    return slope[0] if slope else 1.0, intercept[0] if intercept else 0.0


def _stored_range(form: Format) -> tuple[float, float]:
    """The least and the greatest possible stored value."""
    half = 2 ** (form.stored - 1)
    return (-half, half - 1) if form.signed else (0, 2 * half - 1)


def _lowest_of_modality(form: Format, header: Header) -> float:
    """The least value that the modality transform can give."""
    if header.items("ModalityLUTSequence"):
        return 0  # tables give unsigned values (C.11.1.1)
    slope, intercept = _rescale(header)
    return min(value * (slope or 1.0) + intercept for value in _stored_range(form))


def _show(
    values: np.ndarray, shown: Callable[[np.ndarray], np.ndarray], form: Format, header: Header
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture by the first table or window that shows anything neither black nor white; and warnings.

    values: (N,). shown: makes the picture (H, W) uint8 of the values' shares 0..1 of white.
    """
    tried = 0
    for tried, transform in enumerate(islice(_transforms(form, header), MAX_TRIED), start=1):
        try:
            shares, warnings = transform(values)
        except _DAMAGED:
            continue
        if np.isfinite(shares).all() and _has_shades(grey := shown(shares)):
            return grey, (*warnings, *((NEXT_WINDOW,) if tried > 1 else ()))
    low, high = values.min(), values.max()
    grey = shown(np.zeros(len(values)) if low == high else (values - low) / (high - low))
    return grey, (NO_WINDOW,) if tried else ()


def _has_shades(grey: np.ndarray) -> bool:
    return any(((grey[rows] > 0) & (grey[rows] < 255)).any() for rows in strips(*grey.shape[::-1]))


_Transform = Callable[[np.ndarray], tuple[np.ndarray, tuple[str, ...]]]


def _transforms(form: Format, header: Header) -> Iterator[_Transform]:
    """The header's tables and windows, best first: each maps (N,) to shares 0..1 of white, with warnings."""
    lowest = _lowest_of_modality(form, header)
    for item in header.items("VOILUTSequence"):
        yield partial(_voi_table, item=item, lowest=lowest)
    if header.raw("WindowCenter") and header.raw("WindowWidth"):
        for number in range(len(header.texts("WindowCenter"))):
            yield partial(_window, header=header, number=number)


def _window(values: np.ndarray, header: Header, number: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """C.11.2.1.2 and C.11.2.1.3, by pydicom."""
    window = Dataset()  # without what makes pydicom's result depend on a rescale that was already done
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0
    window.VOILUTFunction = header.text("VOILUTFunction") or "LINEAR"
    for keyword in ("WindowCenter", "WindowWidth"):
        window.add_new(keyword, "FD", float(header.texts(keyword)[number]))  # each alone: one may be empty
    return apply_windowing(values, window), ()


def _voi_table(values: np.ndarray, item: Header, lowest: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """C.11.2.1.1. Not by pydicom's `apply_voi`, which wraps around in 8-bit tables of over 256 entries."""
    entries, first, stated, held = _table(item, values, lowest)
    if not 8 <= stated <= 16:
        raise ValueError("no depth of a VOI table")
    is_wrong = held > stated or held <= stated - _DARK
    bits = max(8, held) if is_wrong else stated
    return _looked_up(values, entries, first) / (2**bits - 1), (_BITS,) if bits != stated else ()


def _looked_up(values: np.ndarray, entries: np.ndarray, first: int) -> np.ndarray:
    """Values below the table's first and above its last get the entry there (C.11.1.1.1)."""
    return entries[(np.rint(values) - first).clip(0, len(entries) - 1).astype(np.intp)]


def _table(item: Header, values: np.ndarray, lowest: float) -> tuple[np.ndarray, int, int, int]:
    """A table's entries (N,), the value that the first belongs to, the bits it states, and those it needs.

    values: those to look up. lowest: the least possible one. The first value is signed where that is
    negative (C.11.1.1), even if the file stores it as unsigned; read so that the table meets the values.
    Raises ValueError or struct.error for a table with fewer entries than it states.
    """
    count, first, bits = struct.unpack(f"{item.order}3H", item.raw("LUTDescriptor"))
    count, data = count or 2**16, item.raw("LUTData")
    if first >= 2**15:
        readings = (first - 2**16, first) if lowest < 0 else (first, first - 2**16)
        low, high = values.min(), values.max()
        first = next((each for each in readings if each <= high and each + count > low), readings[0])
    if len(data) >= 2 * count:
        entries = np.frombuffer(data, f"{item.order}u2", count)
    elif len(data) in (count, count + 1):  # bytes, the first of two in the low half of a word
        words = np.frombuffer(data.ljust(count + count % 2, b"\0"), f"{item.order}u2")
        entries = words.astype("<u2").view(np.uint8)[:count]
    else:
        raise ValueError("too few entries")
    held = int(entries.max()).bit_length()
    if held > bits and count >= _MANY:  # if only a few entries need more bits, they are clipped
        held = max(bits, int(np.quantile(entries, _MOST)).bit_length())
    return entries, first, bits, held
