"""Bytes of any kind to one checked grey image: the only reader, for training as for inference.

The content decides what a file is, never its suffix: CoronaHack holds PNG bytes under `.jpg` names.
Grey means ITU-R 601 luma, which leaves images whose channels are equal unchanged.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from xray_hf.errors import ImageError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
MIN_SIDE = 32  # pixels; below this there is nothing to diagnose
MAX_PIXELS = 64_000_000  # the largest detectors (43×43 cm at 0.1 mm) give 18 million
# By any of these Pillow's decoders and its EXIF reader report damage.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    AttributeError,
    LookupError,
    struct.error,
    zlib.error,
)
READER_VERSION = 1  # raise it when the same bytes would give other pixels: caches depend on it


def read_grey(source: Path | str | bytes) -> Image.Image:
    """Decode an X-ray into a grey image.

    source: a path, or the bytes of a PNG, JPEG, TIFF, WebP or BMP file.
    Returns a PIL image of mode "L" (H×W, 0..255), upright by its EXIF orientation. 16-bit files are
    scaled to 0..255, not clipped.
    Raises ImageError if the file is missing, empty, not an image, truncated, too small or too large.
    """
    name = "the image" if isinstance(source, bytes) else Path(source).name
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}.") from error
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(name, image)  # before anything is decoded
            return to_grey(image, name)
    except Image.UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ImageError(f"{name} is not an image that can be read; expected one of {kinds}.") from error
    # The warning is Pillow's, above its own limit; it is raised only where warnings are errors. Silencing it
    # here would change the filters of the whole process, which is not safe in threads.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels; the limit is {MAX_PIXELS:,}.") from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged ({error}); copy or download it again.") from error


def to_grey(image: Image.Image, name: str = "the image") -> Image.Image:
    """Make a decoded image of any mode an upright grey one (mode "L").

    name: what errors call it.
    Integer modes are scaled from 16 bits to 8, or from 12 or 14 if they use no more; float ones must lie in
    0..1 or 0..255.
    Raises ImageError for float images outside that range, OSError if the pixels are truncated.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # "I;16", "I;16B" and "I": 16-bit PNG and TIFF
        return _grey_from_wide(np.asarray(upright).astype(np.int64).clip(0, 65535))
    if upright.mode == "F":
        return _grey_from_float(np.asarray(upright), name)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        # Transparent parts hold arbitrary colours; black is what lies outside an X-ray.
        rgba = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")
    if upright.mode == "CMYK":
        return upright.convert("RGB").convert("L")
    return upright.convert("L")


def resize(image: Image.Image, side: int) -> np.ndarray:
    """Squash a grey image to the network's size: (side, side) uint8, 0..255.

    Pillow's bilinear filter (antialiased when it shrinks), as timm's eval transform uses.
    """
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _grey_from_wide(values: np.ndarray) -> Image.Image:
    # Detectors give 12 or 14 bits, and exports keep them as they are: black, if taken for 16.
    highest = int(values.max())
    full = next(scale for scale in (4095, 16383, 65535) if highest <= scale) if highest > 255 else 65535
    return Image.fromarray(((values * 255 + full // 2) // full).astype(np.uint8))


def _grey_from_float(values: np.ndarray, name: str) -> Image.Image:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also false for NaN
        raise ImageError(
            f"{name} is a float image with values {low:g} to {high:g}; expected 0..1 or 0..255. "
            "Scale it, or save it as a 16-bit PNG."
        )
    scale = 255 if high <= 1 else 1
    return Image.fromarray(np.rint(values * scale).astype(np.uint8))


def _check_size(name: str, image: Image.Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name} is {width}×{height} pixels; at least {MIN_SIDE}×{MIN_SIDE} are needed.")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} has {width}×{height} pixels; the limit is {MAX_PIXELS:,} in all.")
