"""Bytes of any kind to one checked grey image: the only reader, for training, engine and demo.

The content decides what a file is, never its suffix: CoronaHack holds PNG bytes under `.jpg` names.
Grey means ITU-R 601 luma, which leaves images whose channels are equal unchanged.

What comes may be hostile, so sizes are checked before anything is decoded, nothing is decoded that a known
crafted file could turn into gigabytes, and errors name sizes and formats only, never a file's metadata.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from xray_hf.errors import ImageError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")  # Pillow's; DICOM is the sixth
MAX_BYTES = 128 * 2**20
MIN_SIDE = 32  # pixels; below this there is nothing to diagnose
MAX_PIXELS = 36_000_000  # the largest detectors (43×43 cm at 0.1 mm) give 18 million
MAX_ASPECT = 8  # longer side to shorter side
READER_VERSION = 1  # raise it when the same bytes would give other pixels: caches depend on it

_WORTH_SHARING = 300_000  # pixels; a thread costs as much as resizing so many
_STRIP = 2**20  # pixels converted at a time; copies of a whole image would cost hundreds of MB
_MAX_EXIF = 2**16  # bytes, one JPEG segment; Pillow may keep a copy of all of it per entry
_MAX_PARTS = 200_000  # chunks of a PNG, segments of a JPEG: each costs Pillow microseconds
_MAX_SCANS = 100  # a progressive JPEG has about 10; each costs a pass over the whole image
# By any of these Pillow's decoders and its EXIF reader report damage.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# How files begin that are often taken for X-rays, what they are and what to do with them.
_STRANGERS = tuple(
    (re.compile(start, re.DOTALL), advice)
    for start, advice in (
        (rb"PK[\x03\x05\x07]", "a ZIP archive; unpack it and choose an image in it"),
        (rb"Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|\xfd7zXZ|BZh", "an archive; unpack it and choose an image in it"),
        (rb"\x1f\x8b", "compressed with gzip; unpack it, and export a slice of a NIfTI volume as PNG"),
        (rb".{344}(n\+1|ni1)\0", "a NIfTI volume; export the X-ray as PNG"),
        (rb"%PDF", "a PDF; export the page with the X-ray as PNG"),
        (rb"GIF8", "a GIF; save the X-ray as PNG"),
        (rb".{4}ftyp(hei|hev|mif|msf|avi)", "HEIC or AVIF; save the photo as JPEG or PNG"),
        (rb".{4}ftyp", "a video; save one picture of it as PNG"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image without DICOM; save it as PNG"),
        (
            rb"(\xef\xbb\xbf)?\s*(?i:<\?xml|<svg|<!doctype|<html|<\?php)",
            "a web page or drawing; export a PNG",
        ),
        (rb"MZ|\x7fELF|#!|[\xce\xcf]\xfa\xed\xfe", "a program and will not be opened; choose an image"),
        (
            rb"Salted__|-----BEGIN (PGP|CMS|PKCS7)|age-encryption\.org|[\x84\x85\xc1].{1,2}\x03"
            rb"|\x30.{1,5}\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07",
            "encrypted; decrypt it first",
        ),
    )
)
# Not TIFF: the DICOM standard lets its preamble hold one's header, and common writers do that.
_IMAGE_STARTS = re.compile(rb"\x89PNG|\xff\xd8\xff|RIFF|BM")
# What must not follow an image: a second reader would open the file as that.
_STOWAWAYS = re.compile(
    rb"(?P<ZIP>PK(\x03\x04|\x05\x06|\x01\x02))|(?P<PDF>%PDF-)|(?P<RAR>Rar!\x1a\x07)|(?P<a7z>7z\xbc\xaf\x27\x1c)"
    rb"|(?P<script>(?i:<\?php|<script|<html|<!doctype|<svg)|\A[\0\s]*#!)"
    rb"|(?P<program>\x7fELF|This program cannot be run|\A\0*MZ)"
)
_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte nor a restart


@dataclass(frozen=True)
class Reading:
    """One X-ray, read and checked.

    grey: PIL image of mode "L" (H×W, 0..255), upright.
    colour: 0..1, how coloured the file is: the mean of (largest - smallest channel) / 255 over a grid of
    its pixels. 0 for grey modes; an X-ray saved as RGB has about 0, a photograph 0.1 and more.
    warnings: plain sentences about what the picture may show that it should not.
    """

    grey: Image.Image
    colour: float = 0.0
    warnings: tuple[str, ...] = ()


def read(source: Path | str | bytes) -> Reading:
    """Decode an X-ray.

    source: a path, or the bytes of a PNG, JPEG, TIFF, WebP, BMP or DICOM file.
    The image comes upright by its EXIF orientation; files of more than 8 bits are scaled to 0..255, not
    clipped, DICOM by its own window.
    Raises ImageError if the file is missing, empty, no image, truncated, too small, too large, too long, of
    several pages, or carries another file behind its end.
    """
    name, data = _load(source)
    if data[128:132] == b"DICM":
        return _read_dicom(data, name)
    _check_container(data, name)
    try:
        stream = _Metered(data)
        with Image.open(stream, formats=FORMATS) as image:
            stream.left = float("inf")
            _check_header(image, name)  # before anything is decoded
            return Reading(to_grey(image, name), _colour(image))
    except Image.UnidentifiedImageError as error:
        raise ImageError(_not_an_image(data, name)) from error
    # The warning is Pillow's, above its own limit; it is raised only where warnings are errors. Silencing it
    # here would change the filters of the whole process, which is not safe in threads.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels; the limit is {MAX_PIXELS:,}. Shrink it.") from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged or not complete; copy or download it again.") from error


def read_grey(source: Path | str | bytes) -> Image.Image:
    """`read`, the grey image (mode "L", H×W, 0..255) alone. Raises ImageError as `read` does."""
    return read(source).grey


def from_image(image: Image.Image, name: str = "the image") -> Reading:
    """Make a PIL image of any mode a Reading; the same limits as for files.

    name: what errors call it.
    Raises ImageError if it is too small, too large, too long, animated, or cannot be decoded.
    """
    try:
        _check_header(image, name)
        return Reading(to_grey(image, name), _colour(image))
    except _DAMAGE as error:
        raise ImageError(f"{name} cannot be made grey (mode {image.mode}); convert it to RGB.") from error


def from_array(values: np.ndarray, name: str = "the image") -> Reading:
    """Make pixels a Reading; the same limits as for files.

    values: (H, W) grey or (H, W, 3) RGB; uint8, uint16 (scaled from 16, 14 or 12 bits, the fewest that hold
    the largest value; from 16 if that is below 256) or float in 0..1 or 0..255.
    name: what errors call it.
    Raises ImageError for any other shape, type, range or size.
    """
    shape: tuple[int, ...] = getattr(values, "shape", ())
    if not (isinstance(values, np.ndarray) and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))):
        raise ImageError(
            f"{name} has the shape {shape}; expected (H, W) or (H, W, 3). Squeeze or convert it."
        )
    if values.dtype.kind != "f" and values.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} has values of type {values.dtype}; expected uint8, uint16 or float.")
    check_size(name, shape[1], shape[0])
    image = Image.fromarray(_eight_bits(values, name))
    return Reading(to_grey(image, name), _colour(image))


def to_grey(image: Image.Image, name: str = "the image") -> Image.Image:
    """Make a decoded image of any mode an upright grey one (mode "L"); of an upright grey one no copy.

    name: what errors call it.
    Integer modes are scaled from 16 bits to 8, or from 12 or 14 if they use no more; float ones must lie in
    0..1 or 0..255.
    Raises ImageError for float images outside that range, OSError if the pixels are truncated.
    """
    image.load()
    turn = _TURNS.get(_orientation(image, name))
    grey = _grey(image, name)
    grey.info = {}  # EXIF and comments may name the patient
    return grey if turn is None else grey.transpose(turn)


def resize(image: Image.Image, side: int, helper: Executor | None = None) -> np.ndarray:
    """Squash a grey image to the network's size: (side, side) uint8, 0..255.

    Pillow's bilinear filter (antialiased when it shrinks), as timm's eval transform uses.
    helper: a thread to share the work with, where one image shall be ready soonest; the result is the same.
    """
    if helper is None or side % 2 or image.width * image.height < _WORTH_SHARING:
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    # Pillow's filter looks beyond the edges of the box, so the halves fit without a seam.
    (width, height), size = image.size, (side, side // 2)
    lower_half = (0.0, height / 2, float(width), float(height))
    lower = helper.submit(image.resize, size, Image.Resampling.BILINEAR, lower_half)
    upper = image.resize(size, Image.Resampling.BILINEAR, (0.0, 0.0, float(width), height / 2))
    return np.concatenate([np.asarray(upper), np.asarray(lower.result())])


def check_size(name: str, width: int, height: int) -> None:
    """Raise ImageError unless an image of that size, in pixels, may be decoded."""
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


class _Metered(io.BytesIO):
    """A file that may be read a little over twice before `left` is raised.

    Every entry of a TIFF directory may name the whole file as its value, and Pillow copies each.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.left: float = 2 * len(data) + 2**20

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.left -= len(part)
        if self.left < 0:
            raise EOFError("the tables are larger than the file")  # an OSError Pillow would pass over
        return part


def _load(source: Path | str | bytes) -> tuple[str, bytes]:
    """What errors call the source, and its bytes. Raises ImageError before more than MAX_BYTES are read."""
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


def _read_dicom(data: bytes, name: str) -> Reading:
    start = data[:128]
    if _IMAGE_STARTS.match(start) or any(pattern.match(start) for pattern, _ in _STRANGERS):
        raise ImageError(
            f"{name} is DICOM and, by its first bytes, another kind of file too; export the X-ray as PNG."
        )
    from xray_hf.dicom import read_dicom  # here, because importing pydicom takes longer than reading a JPEG

    grey, warnings = read_dicom(data, name, check_size)
    return Reading(grey, 0.0, warnings)


def _not_an_image(data: bytes, name: str) -> str:
    expected = f"expected one of {', '.join(FORMATS)}, DICOM"
    for pattern, advice in _STRANGERS:
        if pattern.match(data[:512]):
            return f"{name} is not an image that can be read ({expected}): it is {advice}."
    return f"{name} is not an image that can be read; {expected}. Export the X-ray as PNG."


def _check_container(data: bytes, name: str) -> None:
    """Raise ImageError if a PNG, JPEG or WebP has absurdly many parts, or another file behind its end."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        end = _png_end(data, name)
    elif data.startswith(b"\xff\xd8\xff"):
        end = _jpeg_end(data, name)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        end = 8 + int.from_bytes(data[4:8], "little")
    else:
        return
    if end < len(data) and (found := _STOWAWAYS.search(data[end:])):
        kind = "7z" if found.lastgroup == "a7z" else found.lastgroup
        raise ImageError(
            f"{name} carries another file behind the image's end ({kind}); open it in an image viewer, "
            "save it again as PNG and use that."
        )


def _png_end(data: bytes, name: str) -> int:
    """Where the bytes end that belong to the PNG, or, if it is not complete, where its last chunk begins."""
    place = 8
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, place) if place + 8 <= len(data) else (len(data), b"")
        if place + 12 + length > len(data):
            return place
        place += 12 + length
        if kind == b"IEND":
            return place
    raise _too_many(name, "chunks")


def _jpeg_end(data: bytes, name: str) -> int:
    """Where the bytes end that belong to the JPEG; without an end marker, where its pixels begin.

    Raises ImageError for more scans or more EXIF than any camera writes.
    """
    place, scans, exif, pixels = 2, 0, 0, len(data)
    for _ in range(_MAX_PARTS):
        found = _MARKER.match(data, place)
        if found is None:
            return min(place, pixels)
        kind, start = data[found.end() - 1], found.end()
        if kind == 0xD9:
            return start
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # markers without a length
            place = start
            continue
        place = start + int.from_bytes(data[start : start + 2], "big")
        if kind == 0xE1 and data[start + 2 : start + 6] == b"Exif":
            exif += place - start
        if kind == 0xDA:
            scans, pixels = scans + 1, min(pixels, place)
            after = _AFTER_SCAN.search(data, place)
            place = after.start() if after else len(data)
        if scans > _MAX_SCANS:
            raise _too_many(name, "scans")
        if exif > _MAX_EXIF:
            raise _too_many(name, "bytes of EXIF")
    raise _too_many(name, "segments")


def _too_many(name: str, what: str) -> ImageError:
    return ImageError(
        f"{name} has more {what} than any X-ray; open it in an image viewer and save it as PNG."
    )


def _check_header(image: Image.Image, name: str) -> None:
    """Raise ImageError unless the opened, not yet decoded image is one picture of an allowed size."""
    check_size(name, *image.size)
    # A JPEG of several pictures (MPO) is a phone's photograph and its depth map; the first is read.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError(f"{name} has several pages or frames; expected one. Save the X-ray alone, as PNG.")
    tags = getattr(image, "tag_v2", {})
    if tags.get(322, 1) * tags.get(323, 1) > MAX_PIXELS:  # TileWidth × TileLength, decoded as a whole
        raise ImageError(f"{name} has tiles larger than any image; save it as PNG.")


def _orientation(image: Image.Image, name: str) -> int:
    """The EXIF orientation, 1 to 8 (or whatever a damaged file holds there)."""
    exif = image.info.get("exif") or image.info.get("Raw profile type exif") or b""
    if len(exif) > _MAX_EXIF:
        raise _too_many(name, "bytes of EXIF")
    orientation: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation


def _grey(image: Image.Image, name: str) -> Image.Image:
    """(H, W) of mode "L", not yet upright."""
    if image.mode.startswith("I") or image.mode == "F":  # "I;16", "I;16B" and "I": 16-bit PNG and TIFF
        return Image.fromarray(_eight_bits(_values(image), name))
    if _has_alpha(image):
        return _in_strips(image, lambda strip: _on_black(strip).convert("L"))
    if image.mode == "CMYK":
        return _in_strips(image, lambda strip: strip.convert("RGB").convert("L"))
    # Already grey, as most X-rays: the same pixels in a plain image, since a copy costs a third of decoding.
    return image._new(image.im) if image.mode == "L" else image.convert("L")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _on_black(image: Image.Image) -> Image.Image:
    """Transparent parts hold arbitrary colours; black is what lies outside an X-ray."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


def _colour(image: Image.Image) -> float:
    """Reading.colour of a decoded image, from a grid of at most 64×64 of its pixels."""
    if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
        return 0.0
    width, height = image.size
    few = image.resize((min(width, 64), min(height, 64)), Image.Resampling.NEAREST)
    pixels = np.asarray((_on_black(few) if _has_alpha(few) else few).convert("RGB"))
    return float(np.ptp(pixels, axis=2).mean()) / 255


def _strips(width: int, height: int) -> Iterator[slice]:
    """The rows 0..height in slices of about _STRIP pixels."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert an image to mode "L" strip by strip."""
    grey = Image.new("L", image.size)
    for rows in _strips(*image.size):
        box = (0, rows.start, image.width, rows.stop)
        grey.paste(convert(image.crop(box)), box)
    return grey


def _values(image: Image.Image) -> np.ndarray:
    """The pixels of an integer or float mode: (H, W) uint16, clipped, or float32."""
    whole = np.empty((image.height, image.width), np.float32 if image.mode == "F" else np.uint16)
    for rows in _strips(*image.size):
        strip = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        whole[rows] = strip if image.mode == "F" else strip.clip(0, 65535)
    return whole


def _eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Scale uint8, uint16 or float values of any shape to uint8."""
    if values.dtype == np.uint8:
        return values
    convert = _float_scale(values, name) if values.dtype.kind == "f" else _integer_scale(values)
    scaled = np.empty(values.shape, np.uint8)
    for rows in _strips(values.shape[1], values.shape[0]):
        scaled[rows] = convert(values[rows])
    return scaled


def _integer_scale(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    # Detectors give 12 or 14 bits, and exports keep them as they are: black, if taken for 16.
    highest = int(values.max())
    full = next(scale for scale in (4095, 16383, 65535) if highest <= scale) if highest > 255 else 65535
    table = ((np.arange(65536) * 255 + full // 2) // full).astype(np.uint8)
    return lambda strip: table[strip]


def _float_scale(values: np.ndarray, name: str) -> Callable[[np.ndarray], np.ndarray]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also false for NaN
        raise ImageError(
            f"{name} is a float image with values {low:g} to {high:g}; expected 0..1 or 0..255. "
            "Scale it, or save it as a 16-bit PNG."
        )
    scale = 255 if high <= 1 else 1
    return lambda strip: np.rint(strip * scale)
