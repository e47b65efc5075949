"""Decoded pictures of any mode -> one upright grey image, and how coloured it was."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from xray_hf.reading.containers import check_exif
from xray_hf.reading.levels import strips, to_eight_bits
from xray_hf.reading.limits import check_size, several_pages

_WORTH_SHARING = 300_000  # pixels; a thread costs as much as resizing so many
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Reading:
    """One X-ray, read and checked.

    grey: PIL image of mode "L" (H×W, 0..255), upright.
    colour: 0..1, how coloured the file is: the mean of (largest - smallest channel) / 255 over a grid of
    its pixels. 0 for grey modes; an X-ray saved as RGB has about 0, a photograph 0.1 and more.
    warnings: plain sentences about how the picture was read, or what it may show that it should not.
    """

    grey: Image.Image
    colour: float = 0.0
    warnings: tuple[str, ...] = ()


def reading_of(image: Image.Image, name: str, stated: int | None = None) -> Reading:
    """Turn an opened PIL image of any mode into a Reading.

    name: what errors call it. stated: the bits of a sample that its file states.
    Raises ImageError for wrong sizes, several frames, long EXIF and values that are not finite; whatever
    Pillow raises for damage.
    """
    check_header(image, name)
    return decoded(image, name, stated)


def decoded(image: Image.Image, name: str, stated: int | None = None) -> Reading:
    """`reading_of` an image whose header was checked."""
    image.load()
    check_exif(image.info.get("exif") or image.info.get("Raw profile type exif") or b"", name)
    orientation = _orientation(image.getexif)  # after decoding: a PNG's EXIF may follow the pixels
    warnings: tuple[str, ...] = ()
    if image.mode.startswith("I") or image.mode == "F":  # "I;16", "I;16B" and "I": 16-bit PNG and TIFF
        image, warnings = image_of(np.asarray(image), name, stated)
    return upright(image, orientation, warnings)


def upright(image: Image.Image, orientation: Any = 1, warnings: tuple[str, ...] = ()) -> Reading:
    """A decoded 8-bit image as a Reading. orientation: EXIF's and TIFF's 1 to 8; any other turns nothing."""
    grey, turn = _grey(image), _TURNS.get(orientation)
    grey.info = {}  # EXIF and comments may name the patient
    return Reading(grey if turn is None else grey.transpose(turn), _colour(image), warnings)


def image_of(pixels: np.ndarray, name: str, stated: int | None = None) -> tuple[Image.Image, tuple[str, ...]]:
    """(H, W) or (H, W, 1 to 4 channels) of any type as an 8-bit PIL image: grey, grey and alpha, RGB or RGBA.

    Raises ImageError for values that are not finite numbers.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (1, 3):
        scaled, warnings = to_eight_bits(
            pixels.reshape(pixels.shape[:2]) if channels == 1 else pixels, name, stated
        )
        return Image.fromarray(scaled), warnings
    scaled, warnings = to_eight_bits(pixels[..., :-1], name, stated)
    alpha = _opacity(pixels[..., -1])
    return Image.fromarray(np.concatenate([scaled, alpha[..., None]], axis=2)), warnings


def _opacity(alpha: np.ndarray) -> np.ndarray:
    """Alpha in 8 bits; of more, the largest value counts as opaque, since no file states alpha's depth."""
    if alpha.dtype == np.uint8:
        return alpha
    return np.rint(alpha * (255 / max(alpha.max(), 1))).clip(0, 255).astype(np.uint8)


def resize(image: Image.Image, side: int, helper: Executor | None = None) -> np.ndarray:
    """Squash a grey image to the network's size: (side, side) uint8, 0..255.

    Pillow's bilinear filter (antialiased when it shrinks), as timm's eval transform uses.
    helper: a thread to share the work with, so that a single image is ready sooner; the result is the same.
    """
    if helper is None or side % 2 or image.width * image.height < _WORTH_SHARING:
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    # Pillow's filter looks beyond the edges of the box, so the halves fit without a seam.
    (width, height), size = image.size, (side, side // 2)
    lower_half = (0.0, height / 2, float(width), float(height))
    lower = helper.submit(image.resize, size, Image.Resampling.BILINEAR, lower_half)
    upper = image.resize(size, Image.Resampling.BILINEAR, (0.0, 0.0, float(width), height / 2))
    return np.concatenate([np.asarray(upper), np.asarray(lower.result())])


def check_header(image: Image.Image, name: str) -> None:
    """Raise ImageError unless the opened, not yet decoded image is one picture of an allowed size."""
    check_size(name, *image.size)
    # A JPEG of several pictures (MPO) is a phone's photograph and its depth map; the first is read.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise several_pages(name)


def orientation_of(exif: bytes) -> Any:
    """The EXIF orientation, 1 to 8 (or whatever a damaged file holds there); 1 for EXIF that is damaged."""

    def parsed() -> Image.Exif:
        tags = Image.Exif()
        tags.load(exif)
        return tags

    return _orientation(parsed)


def _orientation(read: Callable[[], Image.Exif]) -> Any:
    try:
        return read().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  damaged EXIF does not spoil intact pixels
        return 1


def _grey(image: Image.Image) -> Image.Image:
    """(H, W) of mode "L", by ITU-R 601 luma, which leaves images whose channels are equal unchanged."""
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
    if image.mode in ("1", "L", "LA"):
        return 0.0
    width, height = image.size
    few = image.resize((min(width, 64), min(height, 64)), Image.Resampling.NEAREST)
    pixels = np.asarray((_on_black(few) if _has_alpha(few) else few).convert("RGB"))
    return float(np.ptp(pixels, axis=2).mean()) / 255


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert an image to mode "L" strip by strip."""
    grey = Image.new("L", image.size)
    for rows in strips(*image.size):
        box = (0, rows.start, image.width, rows.stop)
        grey.paste(convert(image.crop(box)), box)
    return grey
