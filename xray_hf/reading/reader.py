"""Bytes of any kind to one checked grey image: the only reader, for training, engine and demo.

The content decides what a file is, never its suffix: CoronaHack holds PNG bytes under `.jpg` names.

What comes may be hostile, so sizes are checked before anything is decoded, nothing is decoded that a known
crafted file could turn into gigabytes, and errors name sizes and formats only, never a file's metadata.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from xray_hf.errors import ImageError
from xray_hf.reading import containers, kinds
from xray_hf.reading.grey import Reading, check_header, image_of, orientation_of, reading_of, upright
from xray_hf.reading.limits import MAX_BYTES, MAX_PIXELS, check_size

READER_VERSION = 2  # raise it when the same bytes would give other pixels: caches depend on it

_BY_PILLOW = (0xC0, 0xC1, 0xC2, 0)  # frame headers of the JPEGs that Pillow reads, where they have 8 bits
# What Pillow, tifffile, the codecs and the EXIF reader raise on damaged files.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read(source: Path | str | bytes) -> Reading:
    """Decode an X-ray.

    source: a path, or the bytes of a PNG, JPEG, TIFF, WebP, BMP or DICOM file.
    The image comes upright by its EXIF orientation; files of more than 8 bits are scaled to 0..255, not
    clipped (xray_hf.reading.levels), DICOM by its own window.
    Raises ImageError if the file is missing, empty, not an image, truncated, too small, too large, too long,
    of several pages, or carries another file after its end.
    """
    name, data = _load(source)
    kind = kinds.kind_of(data)
    if kind is None:
        raise ImageError(kinds.why_not_read(data, name))
    try:
        return _READERS[kind](data, name)
    # The warning is Pillow's, above its own limit; it is raised only where warnings are errors. Silencing it
    # here would change the filters of the whole process, which is not safe in threads.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels; the limit is {MAX_PIXELS:,}. Shrink it.") from error
    except _DAMAGE as error:
        raise ImageError(
            f"{name} is a damaged or incomplete {kind} file; copy or download it again."
        ) from error


def read_grey(source: Path | str | bytes) -> Image.Image:
    """As `read`, but return only the grey image (mode "L", H×W, 0..255). Raises ImageError as `read` does."""
    return read(source).grey


def from_image(image: Image.Image, name: str = "the image") -> Reading:
    """Turn a PIL image of any mode into a Reading; the same limits as for files.

    For a file use `read`: Pillow opens 16-bit RGB with 8 bits, and 16-bit TIFF with white as 0 as a negative.
    name: what errors call it.
    Raises ImageError if it is not a PIL image, or is too small, large or long, animated, or undecodable.
    """
    if not isinstance(image, Image.Image):
        raise ImageError(f"{name} is a {type(image).__name__}; expected a PIL image.")
    try:
        reading = reading_of(image, name)
        return replace(reading, grey=reading.grey.copy())  # the caller may change its image later
    except _DAMAGE as error:
        raise ImageError(
            f"{name} cannot be decoded or made grey (mode {image.mode}); convert it to RGB."
        ) from error


def from_array(values: np.ndarray, name: str = "the image") -> Reading:
    """Turn pixels into a Reading; the same limits as for files.

    values: (H, W) grey or (H, W, 3) RGB, of integers or floats; more than 8 bits, and floats, are scaled as
    xray_hf.reading.levels says.
    name: what errors call it.
    Raises ImageError for any other shape, type, range or size.
    """
    if not isinstance(values, np.ndarray):
        raise ImageError(f"{name} is a {type(values).__name__}; expected a NumPy array.")
    shape = values.shape
    if len(shape) != 2 and shape[2:] != (3,):
        raise ImageError(
            f"{name} has the shape {shape}; expected (H, W) or (H, W, 3). Squeeze or convert it."
        )
    if values.dtype.kind == "b":
        raise ImageError(f"{name} has values of type {values.dtype}; expected integers or floats.")
    check_size(name, shape[1], shape[0])
    image, warnings = image_of(values.copy(), name)
    return upright(image, warnings=warnings)


def _load(source: Path | str | bytes) -> tuple[str, bytes]:
    """The source's name for errors, and its bytes. Raises ImageError before more than MAX_BYTES are read."""
    if isinstance(source, bytes):
        name, size = "the image", len(source)
    else:
        name, size = Path(source).name, _file_size(Path(source))
    if size > MAX_BYTES:
        raise ImageError(f"{name} has {size:,} bytes; the limit is {MAX_BYTES:,}. Save it smaller, as PNG.")
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}.") from error
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again.")
    return name, data


def _file_size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError(f"{path.name} cannot be opened: {error.strerror}.") from error
    except ValueError as error:  # a NUL in the name
        raise ImageError("the image's file name is not valid; rename the file.") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path.name} cannot be opened: Is a directory; choose an image in it.")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise ImageError(f"{path.name} cannot be opened: it is a pipe or device; expected an image file.")
    return status.st_size


def _read_png(data: bytes, name: str) -> Reading:
    png = containers.png(data, name)
    with Image.open(io.BytesIO(png.data), formats=("PNG",)) as header:
        if png.depth < 16 or header.mode.startswith("I"):
            return reading_of(header, name, png.stated)
        check_header(header, name)
    import imagecodecs  # Pillow drops the low byte of colours, and of grey with transparency

    image, warnings = image_of(imagecodecs.png_decode(png.data), name, png.stated)
    return upright(image, orientation_of(png.exif), warnings)


def _read_jpeg(data: bytes, name: str) -> Reading:
    jpeg = containers.jpeg(data, name)
    if jpeg.precision == 8 and jpeg.process in _BY_PILLOW:
        return _read_by_pillow(data, name)
    import imagecodecs  # 12 bits, or lossless

    check_size(name, jpeg.width, jpeg.height)
    if not jpeg.is_whole or jpeg.components not in (1, 3):  # the decoder would show the missing part grey
        raise ValueError("not complete, or CMYK")
    image, warnings = image_of(imagecodecs.jpeg8_decode(data), name, jpeg.precision)
    return upright(image, orientation_of(jpeg.exif), warnings)


def _read_tiff(data: bytes, name: str) -> Reading:
    from xray_hf.reading.tiff import read_tiff  # here, because importing tifffile takes longer than reading

    return read_tiff(data, name)


def _read_webp(data: bytes, name: str) -> Reading:
    containers.check_webp(data, name)
    return _read_by_pillow(data, name)


def _read_by_pillow(data: bytes, name: str) -> Reading:
    with Image.open(io.BytesIO(data), formats=("JPEG", "WEBP", "BMP")) as image:
        return reading_of(image, name)


def _read_dicom(data: bytes, name: str) -> Reading:
    if kinds.is_also_another_kind(data):
        raise ImageError(f"{name} {kinds.TWO_KINDS}")
    from xray_hf.reading.dicom import read_dicom  # here, because importing pydicom takes longer than a JPEG

    return read_dicom(data, name, check_size)


_READERS: dict[str, Callable[[bytes, str], Reading]] = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "TIFF": _read_tiff,
    "WEBP": _read_webp,
    "BMP": _read_by_pillow,
    "DICOM": _read_dicom,
}
