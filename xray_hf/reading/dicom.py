"""DICOM bytes to a grey image, as a radiologist's viewer would show it, if it is a frontal X-ray.

Only the elements that describe the pixels and what they show are parsed. None is kept, logged or quoted in an
error: every message is written in this package.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from pydicom import misc, uid
from pydicom.pixels import utils
from pydicom.pixels.decoders import base

from xray_hf.errors import ImageError
from xray_hf.reading import dicom_content, dicom_display, dicom_pixels, kinds
from xray_hf.reading.dicom_header import (
    FLOAT_PIXELS,
    PIXEL_DATA,
    UNDEFINED,
    File,
    Header,
    open_meta,
    read_header,
)
from xray_hf.reading.dicom_pixels import Format
from xray_hf.reading.grey import Reading, reading_of
from xray_hf.reading.quiet import can_be_quiet, quiet

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio")  # vertical, horizontal; best first
SQUARE = 0.01  # by which a pixel's sides may differ
LONGEST = 4  # the largest ratio of a pixel's sides; no detector exceeds it

FLOATS = "has pixels of floating-point numbers; expected integers. Export it again."
NO_PICTURE = "is DICOM without a picture; choose the file with the X-ray."
NO_SYNTAX = (
    "does not say how its pixels are compressed (it has no transfer syntax); "
    "export it again, as a DICOM file with file meta information."
)
NO_PHOTOMETRIC = (
    "does not say whether low values are black, white or colours (its photometric interpretation is "
    "missing); expected MONOCHROME1 or MONOCHROME2. Export it again."
)
PALETTE = "is a coloured DICOM image (with a palette); export it as MONOCHROME2."
SPACING = "The file states pixels with an aspect ratio that no detector has; the ratio was ignored."


can_be_quiet(misc.LOGGER, utils.LOGGER, base.LOGGER, warns=misc)


def read_dicom(data: bytes, name: str, check_size: Callable[[str, int, int], None]) -> Reading:
    """Decode a DICOM file with one X-ray.

    data: the file; its preamble, and its file meta information if it is uncompressed, may be missing.
    name: what errors call it.
    check_size: called with (name, width, height) before anything is decoded; raises ImageError.
    Grey pictures are shown as xray_hf.reading.dicom_display says; colours (PS3.3, C.7.6.3.1.2)
    become luma, and Reading.colour tells how coloured they were. Pixels whose sides differ by over 1 %
    (10.7.1, C.7.6.3.1.7) are resampled, the coarser side to the finer, so that the body has its true
    proportions.
    Raises ImageError if it is not a single, frontal X-ray of the chest, is damaged, truncated, in an encoding
    that is not supported, or not DICOM despite its first bytes.
    """
    try:
        with quiet():
            return _read(data, name, check_size)
    except ImageError:
        raise
    except Exception:  # noqa: BLE001  whatever pydicom and the codecs raise may quote a tag: none gets out
        raise ImageError(f"{name} is a damaged or incomplete DICOM file; export or copy it again.") from None


def _read(data: bytes, name: str, check_size: Callable[[str, int, int], None]) -> Reading:
    file = _open(data, name)
    warnings = dicom_content.check(file.header, name)
    form = _format(file.header, name)
    ratio, more = _pixel_ratio(file.header)
    size = (round(form.columns * max(1, 1 / ratio)), round(form.rows * max(1, ratio)))
    check_size(name, form.columns, form.rows)
    check_size(name, *size)
    pixels = dicom_pixels.decode(data, file, form, name)
    if form.samples > 1:
        reading = reading_of(Image.fromarray(pixels), name)
    else:
        keeps = dicom_pixels.keeps_unused_bits(pixels, file.syntax, form)
        grey, shown = dicom_display.grey_of(pixels, keeps, form, file.header, name)
        reading = Reading(Image.fromarray(grey), 0.0, shown)
    picture = reading.grey
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return Reading(picture, reading.colour, (*warnings, *more, *reading.warnings))


def _open(data: bytes, name: str) -> File:
    """The file's header. Raises ImageError unless it has pixels that can be decoded."""
    has_preamble = data[128:132] == b"DICM"
    try:
        file = _parse(data, name)
        if not has_preamble and not any(map(file.header.raw, ("SOPClassUID", "Modality", "Rows"))):
            raise ValueError("no DICOM")
    except ImageError:
        raise
    except Exception:
        if has_preamble:
            raise
        raise ImageError(kinds.why_not_read(data, name)) from None
    dicom_content.check_kind(file.header.text("SOPClassUID"), name)
    if file.tag in FLOAT_PIXELS:
        raise ImageError(f"{name} {FLOATS}")
    if file.tag != PIXEL_DATA:
        raise ImageError(f"{name} {NO_PICTURE}")
    if not file.is_stated and file.length == UNDEFINED:
        raise ImageError(f"{name} {NO_SYNTAX}")
    return file


def _parse(data: bytes, name: str) -> File:
    stream, meta = open_meta(data)
    syntax = uid.UID(meta.text("TransferSyntaxUID"))
    if syntax and not syntax.is_valid:
        raise ValueError("no UID")
    dicom_content.check_kind(meta.text("MediaStorageSOPClassUID"), name)
    if syntax and syntax not in dicom_pixels.SYNTAXES:
        known = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "unknown"
        raise ImageError(
            f"{name} has a transfer syntax that is not supported ({known}); "
            "export it as Explicit VR Little Endian."
        )
    return read_header(stream, syntax)


def _format(header: Header, name: str) -> Format:
    frames = header.whole("NumberOfFrames", 1)
    if frames > 1:
        raise ImageError(f"{name} has {frames} frames; expected one. Export the X-ray alone.")
    photometric = header.text("PhotometricInterpretation")
    if not photometric:
        raise ImageError(f"{name} {NO_PHOTOMETRIC}")
    if photometric == "PALETTE COLOR":
        raise ImageError(f"{name} {PALETTE}")
    is_grey = photometric in ("MONOCHROME1", "MONOCHROME2")
    if not is_grey and photometric not in _COLOURS:
        raise ImageError(
            f"{name} is a DICOM image in colours other than RGB and YBR; export it as MONOCHROME2."
        )
    samples, expected = header.whole("SamplesPerPixel", 1 if is_grey else 3), 1 if is_grey else 3
    if samples != expected:
        raise ImageError(
            f"{name} has {samples} samples per pixel; expected {expected} by its photometric interpretation. "
            "Export it again."
        )
    allocated = header.whole("BitsAllocated")
    if allocated not in ((8, 16) if is_grey else (8,)):
        raise ImageError(
            f"{name} has {allocated} bits per {'pixel' if is_grey else 'colour'}; "
            f"expected 8{' or 16' if is_grey else ''}. Export it again."
        )
    stored = header.whole("BitsStored", allocated)
    shift = header.whole("HighBit", stored - 1) - stored + 1
    if not 1 <= stored <= allocated or not 0 <= shift <= allocated - stored:
        raise ImageError(f"{name} has {stored} bits in an unusual place of {allocated}; export it again.")
    sign, planar = header.whole("PixelRepresentation", 0), header.whole("PlanarConfiguration", 0)
    if sign not in (0, 1) or planar not in (0, 1):
        raise ValueError("no sign or planes")
    rows, columns = header.whole("Rows"), header.whole("Columns")
    return Format(rows, columns, photometric, samples, planar, allocated, stored, shift, sign == 1)


def _pixel_ratio(header: Header) -> tuple[float, tuple[str, ...]]:
    """A pixel's height over its width, 1 if these are about equal or unknown; and warnings."""
    for keyword in SPACINGS:
        try:
            vertical, horizontal = header.numbers(keyword)
            ratio = vertical / horizontal
        except (ValueError, ArithmeticError):
            continue
        if not 1 / LONGEST <= ratio <= LONGEST:
            return 1, (SPACING,)
        return (1, ()) if abs(ratio - 1) <= SQUARE else (ratio, ())
    return 1, ()
