"""The pixel data of a DICOM file -> words or colours: native by pydicom, compressed by imagecodecs.

A check before each decoder keeps crafted bytes from hanging it and from filling the memory.
pydicom's plug-ins for compressed pixels are not used: gdcm ends the process on damaged JPEG, pyjpegls waits
for ever on truncated JPEG-LS, libjpeg is GPL, Pillow takes 1.7 times as long for JPEG 2000, and pydicom's own
RLE ten times as long.
"""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.pixels import convert_color_space, get_decoder

from xray_hf.errors import ImageError
from xray_hf.reading.containers import is_frame_header
from xray_hf.reading.dicom_header import UNDEFINED, Bounded, File

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_JPEG, _LOSSLESS, _JPEG_LS = (0xC0, 0xC1), (0xC3,), (0xF7,)  # the frame markers that may occur
FRAMES_ARE_JPEG = {
    uid.JPEGBaseline8Bit: _JPEG,
    uid.JPEGExtended12Bit: _JPEG,
    uid.JPEGLossless: _LOSSLESS,
    uid.JPEGLosslessSV1: _LOSSLESS,
    uid.JPEGLSLossless: _JPEG_LS,
    uid.JPEGLSNearLossless: _JPEG_LS,
}
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
SYNTAXES = (*NATIVE, *FRAMES_ARE_JPEG, *JPEG_2000, uid.RLELossless)  # what is read
LOSSLESS_NUMBERS = (uid.JPEGLSLossless, uid.JPEG2000Lossless)
EXACT = (*NATIVE, uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1)

_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"  # how a JP2 file begins
_CODE_STREAM = b"\xff\x4f\xff\x51"
# JFIF and Adobe; libjpeg ignores an Adobe marker that is shorter (pydicom's SC_rgb_jpeg.dcm).
_COLOUR_MARKER = re.compile(rb"\xff\xe0..JFIF\0|\xff\xee\0[\x0e-\xff]Adobe", re.DOTALL)
_FIRST = 4096  # bytes of a JPEG; markers about colours stand at its beginning
_LOSS = 8  # grey levels by which lossy compression moves a sample
_NEARLY_ALL = 0.99  # of the pixels
_SUBSAMPLED = "YBR_FULL_422"  # two pixels share their colour


class Format(NamedTuple):
    """The format of the pixels by the header, checked."""

    rows: int
    columns: int
    photometric: str
    samples: int  # of a pixel: 1, or 3 for colours
    planar: int  # 1: all of a colour's samples lie together
    allocated: int  # bits, 8 or 16
    stored: int  # bits, 1..allocated
    shift: int  # how many bits lie below the stored ones
    signed: bool


def decode(data: bytes, file: File, form: Format, name: str) -> np.ndarray:
    """The decoded pixels: (rows, columns) words of uint8 or uint16, or (rows, columns, 3) RGB of uint8.

    A word holds the stored value and whatever lies in the bits around it. Raises ImageError for missing
    pixels, for a size or depth other than the header's, and for a missing decoder.
    """
    if file.syntax in NATIVE:
        pixels = _native(data, file, form, name)
    elif file.length != UNDEFINED:
        raise ValueError("compressed pixels without fragments")
    else:
        try:
            pixels = _compressed(_frame(data, file), file.syntax, form, name)
        except ImportError:  # of a codec that imagecodecs was built without
            raise ImageError(
                f"{name} is compressed as {file.syntax.name}; to read it, install the package imagecodecs."
            ) from None
    shape = (form.rows, form.columns) + ((3,) if form.samples == 3 else ())
    if pixels.shape != shape or pixels.dtype.kind != "u" or pixels.itemsize > form.allocated // 8:
        raise ValueError("other pixels than announced")
    return pixels


def keeps_unused_bits(words: np.ndarray, syntax: uid.UID, form: Format) -> bool:
    """Whether words have the bits that the file had around the stored ones.

    Other codecs give numbers, and lossy ones numbers a little too large, which would turn black if cut.
    """
    return syntax in EXACT or (syntax in LOSSLESS_NUMBERS and int(words.max()) >= 2**form.stored)


def _native(data: bytes, file: File, form: Format, name: str) -> np.ndarray:
    bits = form.rows * form.columns * form.samples * form.allocated
    expected = bits // 8 * 2 // 3 if form.photometric == _SUBSAMPLED else bits // 8
    there = min(file.length, len(data) - file.place)
    if file.length == UNDEFINED or not expected <= there < 2 * expected:
        raise ImageError(
            f"{name} has {there:,} bytes of pixels; expected {expected:,}. Export or copy it again."
        )
    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "photometric_interpretation": form.photometric,
        "bits_allocated": form.allocated,
        "bits_stored": form.allocated,
        "pixel_representation": 0,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "pixel_vr": file.vr,
        "view_only": True,  # of the file's bytes, where that is enough
    }
    if form.samples > 1:
        options["planar_configuration"] = form.planar
    words = memoryview(data)[file.place : file.place + expected + expected % 2]
    is_whole = form.photometric == "YBR_FULL"
    if is_whole:  # pydicom would convert it even if it is RGB already
        options["photometric_interpretation"] = "RGB"
    pixels = get_decoder(file.syntax).as_array(words, index=0, **options)[0]
    return _as_rgb(pixels, form) if is_whole or form.photometric == "RGB" else pixels


def _frame(data: bytes, file: File) -> bytes:
    """Join all fragments. Offset tables are skipped: some list each fragment of one frame (PS3.5, A.4)."""
    stream = Bounded(data, 2 * len(data))
    stream.seek(file.place)
    parse_basic_offsets(stream)
    return b"".join(generate_fragments(stream))


def _compressed(frame: bytes, syntax: uid.UID, form: Format, name: str) -> np.ndarray:
    """Decode one frame."""
    if syntax == uid.RLELossless:
        return _rle(frame, form)
    if syntax in JPEG_2000:
        if frame.startswith(_JP2):  # an encoder's whole file instead of its code stream: pydicom#2074
            frame = frame[frame.index(_CODE_STREAM) :]
        _check_stream(_j2k_header(frame), form, name)
        return _j2k(frame, form)
    _check_stream(_jpeg_header(frame, FRAMES_ARE_JPEG[syntax]), form, name)
    frame = frame.rstrip(b"\0\xff")
    if not frame.endswith(b"\xff\xd9"):  # JPEG-LS decoders look for it beyond the end, for ever
        raise ValueError("no end")
    return _jpeg(frame, FRAMES_ARE_JPEG[syntax], form)


def _rle(frame: bytes, form: Format) -> np.ndarray:
    """Decode into an array of the announced size, so that crafted bytes cannot expand beyond it."""
    size = form.rows * form.columns * form.samples * form.allocated // 8
    room: Any = np.empty(size, np.uint8)  # Any: imagecodecs' types allow no array here
    if len(imagecodecs.dicomrle_decode(frame, f"<u{form.allocated // 8}", out=room)) != size:
        raise ValueError("too few pixels")
    if form.samples == 1:
        return room.view(f"<u{form.allocated // 8}").reshape(form.rows, form.columns)
    planes = room.reshape(
        form.samples, form.rows, form.columns
    )  # one after the other, whatever `planar` says
    return _as_rgb(np.ascontiguousarray(planes.transpose(1, 2, 0)), form)


def _j2k(frame: bytes, form: Format) -> np.ndarray:
    array = imagecodecs.jpeg2k_decode(frame)
    if array.dtype.kind == "u":
        return _as_rgb(array, form)
    # The bits that an uncompressed file would have, at the header's depth; the header decides about the sign.
    return array.view(f"u{array.itemsize}") & (2**form.stored - 1)


def _jpeg(frame: bytes, markers: tuple[int, ...], form: Format) -> np.ndarray:
    if markers is _JPEG_LS:
        return _as_rgb(imagecodecs.jpegls_decode(frame), form)
    if form.samples == 1:
        return imagecodecs.jpeg8_decode(frame)
    if markers is _JPEG and _COLOUR_MARKER.search(frame, 0, _FIRST):
        return imagecodecs.jpeg8_decode(frame)  # the stream itself says how to make it RGB
    return _as_rgb(imagecodecs.jpeg8_decode(frame, colorspace="rgb", outcolorspace="rgb"), form)


def _as_rgb(samples: np.ndarray, form: Format) -> np.ndarray:
    """Samples as they were coded; colours as RGB (PS3.3, C.7.6.3.1.2).

    The samples of a grey picture show which colour space they are in; the header is often wrong about it.
    """
    if form.samples == 1:
        return samples
    first, *others = (samples[..., channel].astype(np.int16) for channel in range(3))
    if all(_are_near(other, first) for other in others):
        return samples
    if all(_are_near(other, 128) for other in others):
        return np.repeat(samples[..., :1], 3, axis=2)
    if not form.photometric.startswith("YBR_FULL"):
        return samples
    return convert_color_space(samples, "YBR_FULL", "RGB")


def _are_near(samples: np.ndarray, others: np.ndarray | int) -> bool:
    return bool((np.abs(samples - others) <= _LOSS).mean() > _NEARLY_ALL)


def _check_stream(found: tuple[int, int, int, int], form: Format, name: str) -> None:
    """Raise ImageError unless a frame's own (columns, rows, components, bits) fit the header's."""
    columns, rows, components, bits = found
    if (columns, rows) != (form.columns, form.rows):
        raise ImageError(
            f"{name} holds {columns}×{rows} compressed pixels but announces {form.columns}×{form.rows}; "
            "export it again."
        )
    if components != form.samples or not 1 <= bits <= form.allocated:
        raise ImageError(
            f"{name} holds compressed pixels of {components} × {bits} bits; "
            f"expected {form.samples} × {form.allocated}. Export it again."
        )


def _jpeg_header(frame: bytes, markers: tuple[int, ...]) -> tuple[int, int, int, int]:
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
        if is_frame_header(kind) or kind == 0xF7:
            break
        place += 2 + length
    if kind not in markers:
        raise ValueError("another kind of JPEG")
    bits, rows, columns, components = struct.unpack_from(">BHHB", frame, place + 4)
    return columns, rows, components, bits


def _j2k_header(frame: bytes) -> tuple[int, int, int, int]:
    """Columns, rows, components and bits by the SIZ segment of a JPEG 2000 code stream."""
    if not frame.startswith(_CODE_STREAM):
        raise ValueError("no JPEG 2000 code stream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    (components,) = struct.unpack_from(">H", frame, 40)
    each = [struct.unpack_from(">3B", frame, 42 + 3 * number) for number in range(min(components, 4))]
    if len(set(each)) != 1 or each[0][1:] != (1, 1):
        raise ValueError("sub-sampled, or components of several depths")
    return right - left, bottom - top, components, (each[0][0] & 0x7F) + 1
