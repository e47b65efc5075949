"""DICOM bytes to a grey image, as a radiologist's viewer would show it: for `images.py`, the reader.

Only the tags that describe the pixels are parsed. No tag is kept, logged or quoted in an error: all texts
are this file's own. pydicom parses and decodes; before each decoder stands the check that keeps crafted
bytes from crashing it, from hanging it and from filling the memory.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydicom import config, misc, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_modality_lut, apply_windowing, get_decoder
from pydicom.tag import Tag

from xray_hf.errors import ImageError

# pydicom's warnings and log records quote the values of tags. They are turned off here, for good, because
# the filters of `warnings` belong to the whole process and cannot be changed safely while threads run.
vars(misc)["warnings"] = SimpleNamespace(warn=lambda *args, **options: None)
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
logging.getLogger("pydicom").propagate = False
config.settings.reading_validation_mode = config.IGNORE

RADIOGRAPHY = ("CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC")  # OT, SC: digitised films and screenshots
_OTHERS = {
    "CT": "computed tomography",
    "MR": "magnetic resonance",
    "US": "ultrasound",
    "NM": "nuclear medicine",
    "PT": "positron emission tomography",
    "MG": "mammography",
    "SR": "a report",
}
_SHAPE = ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames")
_BITS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
_SHOW = ("RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth", "VOILUTFunction")
_CONTENT = ("Modality", "ViewPosition", "BurnedInAnnotation")
_TABLES = (Tag("ModalityLUTSequence"), Tag("VOILUTSequence"))
_WANTED = [*(Tag(keyword) for keyword in (*_SHAPE, *_BITS, *_SHOW, *_CONTENT)), *_TABLES]
_PIXEL_DATA, _FLOAT_PIXEL_DATA = 0x7FE00010, 0x7FE00008
_UNDEFINED = 0xFFFFFFFF

_MAX_READS = 50_000  # of the header: pydicom keeps up to 2 kB for every element and item it meets
_MAX_HEADER = 32 * 2**20  # bytes
_MAX_TEXT, _MAX_TABLE = 1024, 2**20  # bytes of one value; a lookup table has at most 131,072
_STRIP = 2**20  # pixels looked up at a time

_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_JPEG, _LOSSLESS, _JPEG_LS = (0xC0, 0xC1), (0xC3,), (0xF7,)  # the frame markers that may occur
_FRAMES_ARE_JPEG = {
    uid.JPEGBaseline8Bit: _JPEG,
    uid.JPEGExtended12Bit: _JPEG,
    uid.JPEGLossless: _LOSSLESS,
    uid.JPEGLosslessSV1: _LOSSLESS,
    uid.JPEGLSLossless: _JPEG_LS,
    uid.JPEGLSNearLossless: _JPEG_LS,
}
# pydicom's plug-ins, named so that the result does not depend on what else is installed. Its others are not
# used: gdcm ends the process on damaged JPEG, pyjpegls waits for ever on truncated JPEG-LS, libjpeg is GPL.
_PLUGINS = {uid.JPEG2000Lossless: "pillow", uid.JPEG2000: "pillow", uid.RLELossless: "pydicom"}


class _Format(NamedTuple):
    """What the header says about the pixels, checked."""

    rows: int
    columns: int
    allocated: int  # bits, 8 or 16
    stored: int  # bits, 1..allocated
    signed: bool
    inverted: bool  # MONOCHROME1: the lowest value is white


class _File(NamedTuple):
    """A parsed header and where the pixels are."""

    syntax: uid.UID
    header: Dataset
    place: int  # of the first byte of the pixel data's value
    length: int  # of the value, or _UNDEFINED
    vr: str  # "OW" or "OB"; with big endian, bytes lie in another order in words


def read_dicom(
    data: bytes, name: str, check_size: Callable[[str, int, int], None]
) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a DICOM file with one grey X-ray.

    data: the file, with its 128-byte preamble. name: what errors call it.
    check_size: called with (name, width, height) before anything is decoded; raises ImageError.
    Returns a PIL image of mode "L" (H×W, 0..255) and plain warnings. The values go through the modality
    transform, then the VOI lookup table or else the window, and are scaled to the whole range that gives;
    with neither, from the smallest to the largest value. A table or window that cannot be applied (width 0,
    not a number) is left out, with a warning. A constant image without a window is one shade, 0 or, in
    MONOCHROME1, 255.
    Raises ImageError if it is no single, grey, frontal radiograph, is damaged, truncated or encoded in a way
    that is not supported.
    """
    try:
        file = _parse(data, name)
        warnings = _check_content(file.header, name)
        form = _format(file.header, name)
        check_size(name, form.columns, form.rows)
        pixels = _decode(data, file, form, name)
        if pixels.shape != (form.rows, form.columns):
            raise _damaged(name)
        with np.errstate(all="ignore"):  # of crafted slopes and windows; the results are checked
            shades, more = _shades(pixels, file.header, name)
        return _look_up(pixels, 255 - shades if form.inverted else shades), (*warnings, *more)
    except ImageError:
        raise
    except Exception:  # noqa: BLE001  whatever pydicom and the codecs raise may quote a tag: none gets out
        raise _damaged(name) from None


def _damaged(name: str) -> ImageError:
    return ImageError(f"{name} is a damaged or not complete DICOM file; export or copy it again.")


class _Bounded(io.BytesIO):
    """A file that refuses to be read in too many pieces or at too great a length."""

    def __init__(self, data: bytes, limit: int) -> None:
        super().__init__(data)
        self.pieces, self.left = _MAX_READS, limit

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.pieces, self.left = self.pieces - 1, self.left - len(part)
        if self.pieces < 0 or self.left < 0:
            raise OSError("too many or too long elements")
        return part


def _parse(data: bytes, name: str) -> _File:
    """The wanted tags, unread until they are asked for, and the place of the pixels.

    Deflated syntaxes end here, before anything is inflated.
    """
    stream = _Bounded(data, _MAX_HEADER)
    stream.seek(132)
    meta = read_dataset(
        stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2, specific_tags=[Tag(0x00020010)]
    )
    syntax = uid.UID(str(meta.get("TransferSyntaxUID", "")).strip(" \0"))
    if syntax not in (*_NATIVE, *_FRAMES_ARE_JPEG, *_PLUGINS):
        known = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "unknown"
        raise ImageError(
            f"{name} has a transfer syntax that is not supported ({known}); "
            "export it as Explicit VR Little Endian."
        )
    found: list[tuple[int, int, int, str]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag >= _FLOAT_PIXEL_DATA:
            found.append((tag, stream.tell(), length, vr or "OW"))
        return tag >= _FLOAT_PIXEL_DATA

    header = read_dataset(
        stream,
        syntax == uid.ImplicitVRLittleEndian,
        syntax != uid.ExplicitVRBigEndian,
        stop_when=at_pixels,
        specific_tags=_WANTED,
    )
    for raw in header.elements():
        limit = _MAX_TABLE if raw.tag in _TABLES else _MAX_TEXT
        if isinstance(raw, RawDataElement) and len(raw.value or b"") > limit:
            raise _damaged(name)
    if not found or found[-1][0] != _PIXEL_DATA:
        raise ImageError(f"{name} is DICOM without a picture of integers; choose the file with the X-ray.")
    return _File(syntax, header, *found[-1][1:])


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword, None) or "").strip(" \0").upper()


def _number(header: Dataset, keyword: str, default: int | None = None) -> int:
    value = header.get(keyword, None)
    return int(default if value in (None, "") and default is not None else value)


def _check_content(header: Dataset, name: str) -> tuple[str, ...]:
    """Raise ImageError if the header says that this is no frontal radiograph; return warnings."""
    modality = _text(header, "Modality")
    if modality and modality not in RADIOGRAPHY:
        kind = _OTHERS.get(modality, "no radiography")
        raise ImageError(
            f"{name} is {kind} by its modality; expected a chest radiograph ({', '.join(RADIOGRAPHY)})."
        )
    view = _text(header, "ViewPosition")
    if view in ("LL", "RL") or ("LAT" in view and "DEC" not in view):  # LLD, RLD: decubitus, frontal
        raise ImageError(f"{name} is a lateral view; choose the frontal one (PA or AP).")
    if _text(header, "BurnedInAnnotation") == "YES":
        return ("The file says that text is burned into the picture; it may name the patient.",)
    return ()


def _format(header: Dataset, name: str) -> _Format:
    frames, samples = _number(header, "NumberOfFrames", 1), _number(header, "SamplesPerPixel", 1)
    if frames > 1:
        raise ImageError(f"{name} has {frames} frames; expected one. Export the X-ray alone.")
    photometric = _text(header, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"{name} is a coloured DICOM image; expected MONOCHROME1 or MONOCHROME2.")
    allocated = _number(header, "BitsAllocated")
    if allocated not in (8, 16):
        raise ImageError(f"{name} has {allocated} bits per pixel; expected 8 or 16. Export it again.")
    stored = _number(header, "BitsStored", allocated)
    if not 1 <= stored <= allocated or _number(header, "HighBit", stored - 1) != stored - 1:
        raise ImageError(f"{name} has {stored} bits in an unusual place of {allocated}; export it again.")
    # What pydicom's windowing reads, as it wants it.
    header.BitsStored, header.PhotometricInterpretation = stored, photometric
    header.PixelRepresentation = _number(header, "PixelRepresentation", 0)
    if header.PixelRepresentation not in (0, 1):
        raise _damaged(name)
    rows, columns = _number(header, "Rows"), _number(header, "Columns")
    return _Format(
        rows, columns, allocated, stored, header.PixelRepresentation == 1, photometric == "MONOCHROME1"
    )


def _decode(data: bytes, file: _File, form: _Format, name: str) -> np.ndarray:
    """The stored values: (rows, columns) of uint8, int8, uint16 or int16."""
    if file.syntax in _NATIVE:
        expected, there = (
            form.rows * form.columns * form.allocated // 8,
            min(file.length, len(data) - file.place),
        )
        if file.length == _UNDEFINED or not expected <= there < 2 * expected:
            raise ImageError(
                f"{name} has {there:,} bytes of pixels; expected {expected:,}. Export or copy it again."
            )
        padded = expected + expected % 2
        return _pydicom(memoryview(data)[file.place : file.place + padded], file, form)
    if file.length != _UNDEFINED:
        raise _damaged(name)
    stream = _Bounded(data, 2 * len(data))
    stream.seek(file.place)
    frame = get_frame(stream, 0, number_of_frames=1)
    if file.syntax == uid.RLELossless:
        _check_rle(frame, form, name)
        return _pydicom(_items(frame), file, form)
    if file.syntax in _PLUGINS:
        _check_size_in_stream(_j2k_size(frame), form, name)
        return _used_bits(_pydicom(_items(frame), file, form), file, form)
    _check_size_in_stream(_jpeg_size(frame, _FRAMES_ARE_JPEG[file.syntax]), form, name)
    frame = frame.rstrip(b"\0\xff")
    if not frame.endswith(b"\xff\xd9"):  # JPEG-LS decoders look for it beyond the end, for ever
        raise _damaged(name)
    return _used_bits(_jpeg(frame, file.syntax, name), file, form)


def _pydicom(pixels: bytes | memoryview, file: _File, form: _Format) -> np.ndarray:
    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": form.allocated,
        "bits_stored": form.stored,
        "pixel_representation": int(form.signed),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "pixel_vr": file.vr,
    }
    plugin = _PLUGINS.get(file.syntax, "")
    return get_decoder(file.syntax).as_array(pixels, index=0, decoding_plugin=plugin, **options)[0]


def _items(frame: bytes) -> bytes:
    """A frame as the only fragment of pixel data: an empty offset table, then one item."""
    return struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(frame)) + frame


def _jpeg(frame: bytes, syntax: uid.UID, name: str) -> np.ndarray:
    try:
        import imagecodecs

        is_ls = _FRAMES_ARE_JPEG[syntax] is _JPEG_LS
        return np.asarray(imagecodecs.jpegls_decode(frame) if is_ls else imagecodecs.jpeg8_decode(frame))
    except ImportError:  # of the package, or of a codec that it was built without
        raise ImageError(
            f"{name} is compressed as {syntax.name}; to read it, install the package imagecodecs."
        ) from None


def _used_bits(pixels: np.ndarray, file: _File, form: _Format) -> np.ndarray:
    """Decoded values as stored ones, in place: unused high bits filled with the sign, or dropped.

    Not dropped after the codecs that may have lost a little: the brightest values would turn black.
    """
    wide = pixels.astype(f"{'i' if form.signed else 'u'}{form.allocated // 8}", copy=False)
    unused = form.allocated - form.stored
    if unused and (form.signed or _FRAMES_ARE_JPEG.get(file.syntax) is _LOSSLESS):
        np.left_shift(wide, unused, out=wide)
        np.right_shift(wide, unused, out=wide)
    return wide


def _check_size_in_stream(found: tuple[int, int, int, int], form: _Format, name: str) -> None:
    """Raise ImageError unless a frame's own (columns, rows, components, bits) fit the header's."""
    columns, rows, components, bits = found
    if (columns, rows) != (form.columns, form.rows):
        raise ImageError(
            f"{name} holds {columns}×{rows} compressed pixels but announces {form.columns}×{form.rows}; "
            "export it again."
        )
    if components != 1 or not 1 <= bits <= form.allocated:
        raise ImageError(
            f"{name} holds compressed pixels of {components} × {bits} bits; expected 1 × {form.allocated}."
        )


def _jpeg_size(frame: bytes, markers: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Columns, rows, components and bits by the frame header of a JPEG or JPEG-LS stream.

    Raises ValueError if it is of another kind than `markers`, struct.error if there is none.
    """
    if frame[:2] != b"\xff\xd8":
        raise ValueError("no JPEG")
    place = 2
    while True:
        start, kind, length = struct.unpack_from(">BBH", frame, place)
        if start != 0xFF or length < 2 or kind in (0xD8, 0xD9, 0xDA):
            raise ValueError("no frame header")
        if (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)) or kind == 0xF7:
            break
        place += 2 + length
    if kind not in markers:
        raise ValueError("another kind of JPEG")
    bits, rows, columns, components = struct.unpack_from(">BHHB", frame, place + 4)
    return columns, rows, components, bits


def _j2k_size(frame: bytes) -> tuple[int, int, int, int]:
    """Columns, rows, components and bits by the SIZ segment of a JPEG 2000 code stream."""
    if frame[:4] != b"\xff\x4f\xff\x51":
        raise ValueError("no JPEG 2000 code stream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    components, bits, step_x, step_y = struct.unpack_from(">HBBB", frame, 40)
    if (step_x, step_y) != (1, 1):
        raise ValueError("sub-sampled")
    return right - left, bottom - top, components, (bits & 0x7F) + 1


def _check_rle(frame: bytes, form: _Format, name: str) -> None:
    """Raise ImageError for segments that decode to more than the image: 2 bytes can become 128."""
    size = form.rows * form.columns
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != form.allocated // 8 or len(frame) > 2 * count * size + _MAX_TEXT:  # no encoder doubles
        raise _damaged(name)
    ends = [*offsets[1:count], len(frame)]
    for start, end in zip(offsets, ends, strict=False):
        place, decoded, end = start, 0, min(end, len(frame))
        while decoded < size and place < end:
            run = frame[place]
            decoded += run + 1 if run < 128 else 257 - run if run > 128 else 0
            place += run + 2 if run < 128 else 2 if run > 128 else 1
        if end - place > _MAX_TEXT:  # what is left after the image: padding has a few bytes
            raise ImageError(f"{name} has more compressed pixels than it announces; export it again.")


def _shades(pixels: np.ndarray, header: Dataset, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The shade of every stored value from the smallest to the largest present: (N,) uint8; and warnings."""
    stored = np.arange(int(pixels.min()), int(pixels.max()) + 1, dtype=np.int64)
    values = _modality(stored, header)
    if not np.isfinite(values).all():
        raise ImageError(f"{name} has a rescale slope or intercept that is no number; export it again.")
    given = {
        _voi_table: _has(header, "VOILUTSequence"),
        _window: _has(header, "WindowCenter") and _has(header, "WindowWidth"),
    }
    tried = [_tried(transform, values, header) for transform, there in given.items() if there]
    shown = [share for share in tried if share is not None]
    share = shown[0] if shown else _ramp(values, values.min(), values.max())
    warnings = (
        ()
        if shown or not tried
        else ("The file's window cannot be used; its whole range of values is shown.",)
    )
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8), warnings


def _has(header: Dataset, keyword: str) -> bool:
    """Whether an element is there and not empty; its value is not parsed."""
    return keyword in header and bool(header.get_item(keyword).value)


def _modality(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored values to the modality's: by its table, by slope and intercept, or unchanged."""
    if _has(header, "ModalityLUTSequence"):
        return _table(stored, header.ModalityLUTSequence[0], header)[0].astype(np.float64)
    return apply_modality_lut(stored, header)


def _tried(
    transform: Callable[[np.ndarray, Dataset], np.ndarray], values: np.ndarray, header: Dataset
) -> np.ndarray | None:
    """The transform's result, or None if the header's numbers make none."""
    try:
        share = transform(values, header)
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, struct.error):
        return None
    return share if np.isfinite(share).all() else None


def _voi_table(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Shares 0..1 of the VOI lookup table's range."""
    shown, bits = _table(values, header.VOILUTSequence[0], header)
    return shown / (2**bits - 1)


def _window(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Shares 0..1 of the window's output range, which two values far outside it show."""
    if not np.isfinite([_first(header.WindowCenter), _first(header.WindowWidth)]).all():
        raise ValueError("no number")
    if not header.get("VOILUTFunction", None):
        header.VOILUTFunction = "LINEAR"
    shown = apply_windowing(np.concatenate([values, [-1e30, 1e30]]), header)
    return _ramp(shown[:-2], shown[-2], shown[-1])


def _first(value: Any) -> float:
    return float(value if isinstance(value, (int, float)) else value[0])


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.zeros(len(values)) if low == high else (values - low) / (high - low)


def _table(values: np.ndarray, item: Dataset, header: Dataset) -> tuple[np.ndarray, int]:
    """Look values up in a table of the header: the entries, and how many bits they have.

    Not pydicom's `apply_voi`, which wraps around in tables of more than 256 entries of 8 bits. The bytes are
    taken as they are because the type of the descriptor's second number depends on the values.
    Raises ValueError or struct.error if the table is not complete.
    """
    order = "<" if header.original_encoding[1] else ">"
    descriptor, entries = (item.get_item(keyword).value for keyword in ("LUTDescriptor", "LUTData"))
    count, first, bits = struct.unpack(f"{order}3H", descriptor[:6])
    count = count or 2**16
    if first >= 2**15 and values.min() < 0:
        first -= 2**16
    if not 8 <= bits <= 16 or len(entries) < count:
        raise ValueError("no table")
    wide = len(entries) >= 2 * count
    table = np.frombuffer(entries, f"{order}u2" if wide else "u1", count)
    return table[np.clip(np.rint(values) - first, 0, count - 1).astype(np.intp)], bits


def _look_up(pixels: np.ndarray, shades: np.ndarray) -> Image.Image:
    low, rows = int(pixels.min()), max(1, _STRIP // pixels.shape[1])
    grey = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), rows):
        strip = slice(top, top + rows)
        grey[strip] = shades[pixels[strip].astype(np.intp) - low]
    return Image.fromarray(grey)
