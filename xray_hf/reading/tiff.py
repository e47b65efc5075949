"""TIFF of any depth, sign, byte order, compression, planes and tiles: decoded by tifffile, or by Pillow."""

from __future__ import annotations

import io
import math
import re
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from tifffile import (
    COMPRESSION,
    EXTRASAMPLE,
    PHOTOMETRIC,
    PLANARCONFIG,
    TiffFile,
    TiffPage,
    logger,
)

from xray_hf.errors import ImageError
from xray_hf.reading.grey import Reading, decoded, image_of, upright
from xray_hf.reading.limits import MAX_PIXELS, check_size, several_pages
from xray_hf.reading.quiet import can_be_quiet, quiet

_PLAIN = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
_COLOURS = (PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED, PHOTOMETRIC.YCBCR)
# tifffile limits how much comes out of these decoders. It does not limit JPEG; Pillow's libtiff does.
_BOUNDED = tuple(
    COMPRESSION[each] for each in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD")
)
_BY_PILLOW = tuple(COMPRESSION[each] for each in ("JPEG", "CCITTRLE", "CCITT_T4", "CCITT_T6"))
_MAX_PAGES = 64  # of all sizes; a pyramid has about 10
_MAX_SAMPLES = 5  # of a pixel
_MAX_DECODED = 8 * MAX_PIXELS  # bytes
_LARGEST_VALUE = ("MaxSampleValue", "SMaxSampleValue")
_MAX_TEXT = 4096  # characters of ImageDescription that are looked at
# How ImageJ and OME-TIFF state the number of images and the largest value in ImageDescription.
_IMAGEJ = re.compile(r"\AImageJ=")
_IMAGES, _MAX = re.compile(r"^images=(\d{1,9})$", re.MULTILINE), re.compile(r"^max=(\d{1,9})", re.MULTILINE)
_OME = re.compile(r"<Pixels [^<>]{0,1000}SignificantBits=\"(\d{1,2})\"")

can_be_quiet(logger())


def read_tiff(data: bytes, name: str) -> Reading:
    """Decode a TIFF (6.0, BigTIFF) with one picture; smaller versions of it and masks beside it are left out.

    WhiteIsZero is inverted. Bits a sample below 16, (S)MaxSampleValue, and the ImageDescription of ImageJ and
    OME say how many bits hold the picture.
    Raises ImageError for wrong sizes, several pages, kinds and compressions that cannot be decoded safely,
    and values that are not finite; whatever tifffile and Pillow raise for damage.
    """
    with quiet(), TiffFile(_Metered(data)) as file:
        page = _only_page(file, name)
        text = page.description[:_MAX_TEXT]
        _check_kind(page, text, name)
        if _is_for_pillow(page):
            return _by_pillow(data, page.index, name)
        _check_complete(page, len(data))
        image, warnings = image_of(_pixels(page), name, _stated_bits(page, text))
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            image = ImageChops.invert(image)
        return upright(image, _number(page, "Orientation", 1), warnings)


class _Metered(io.BytesIO):
    """A file that may be read a little over three times.

    Every entry of a TIFF directory may name the whole file as its value, and its reader copies each.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.left = 3 * len(data) + 2**20

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.left -= len(part)
        if self.left < 0:
            raise EOFError("the tables are larger than the file")
        return part


def _only_page(file: TiffFile, name: str) -> TiffPage:
    pages = [page for page in islice(file.pages, _MAX_PAGES) if isinstance(page, TiffPage)]
    whole = [page for page in pages if not page.subfiletype & 5]  # 1: reduced, 4: mask
    if len(whole) > 1 or len(pages) == _MAX_PAGES:
        raise several_pages(name)
    if not whole:
        raise ImageError(f"{name} holds only a smaller version of its picture; export the picture as PNG.")
    return whole[0]


def _check_kind(page: TiffPage, text: str, name: str) -> None:
    """Raise ImageError for anything but a single picture of grey or usual colours, or too large."""
    if not page.imagewidth or not page.imagelength:
        raise ValueError("no size")
    check_size(name, page.imagewidth, page.imagelength)
    images = _IMAGES.search(text) if _IMAGEJ.match(text) else None
    if page.imagedepth != 1 or (images and int(images[1]) > 1):
        raise several_pages(name)
    if "PhotometricInterpretation" not in page.tags:
        raise ImageError(f"{name} does not say whether low values are black or white; save it as PNG.")
    if page.compression not in (*_BOUNDED, *_BY_PILLOW) or (_is_for_pillow(page) and page.bitspersample > 8):
        raise ImageError(f"{name} is a TIFF with a compression that is not supported; save it as PNG.")
    is_strange = page.photometric not in (*_PLAIN, *_COLOURS) or page.samplesperpixel > _MAX_SAMPLES
    if is_strange or (page.photometric == PHOTOMETRIC.RGB and page.samplesperpixel < 3):
        raise ImageError(f"{name} is a TIFF in colours that are not supported; save it as PNG.")
    tile = page.tilewidth * page.tilelength  # decoded as a whole
    if tile > MAX_PIXELS or page.nbytes > _MAX_DECODED:
        raise ImageError(f"{name} has more bytes of pixels, or larger tiles, than any X-ray; save it as PNG.")


def _check_complete(page: TiffPage, size: int) -> None:
    """Raise ValueError for parts that are missing, which tifffile would show black, and for wrong depths."""
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(parts) != math.prod(page.chunked):
        raise ValueError("fewer parts than the picture has")
    if any(not offset or not count or offset + count > size for offset, count in parts):
        raise ValueError("not complete")
    bits = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    is_plain = page.compression == COMPRESSION.NONE and not page.is_tiled
    if is_plain and sum(page.databytecounts) > bits // 4 + page.imagelength:
        raise ValueError("twice as many bytes as its depth needs")


def _is_for_pillow(page: TiffPage) -> bool:
    return page.photometric in _COLOURS or page.compression in _BY_PILLOW


def _by_pillow(data: bytes, index: int, name: str) -> Reading:
    """Palettes, CMYK, YCbCr, JPEG and fax, which have 8 bits or fewer. index: of the page."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        image.seek(index)
        return decoded(image, name)


def _pixels(page: TiffPage) -> np.ndarray:
    """(H, W) or (H, W, channels), as they are stored."""
    pixels: np.ndarray = page.asarray(maxworkers=1)
    samples = page.samplesperpixel
    if samples > 1 and page.planarconfig == PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if samples > 1:
        channels = 3 if page.photometric == PHOTOMETRIC.RGB else 1
        is_kept = _has_alpha(page) and page.photometric != PHOTOMETRIC.MINISWHITE
        pixels = pixels[..., : channels + is_kept]  # without masks and other extra samples
    return pixels


def _has_alpha(page: TiffPage) -> bool:
    return bool(page.extrasamples) and page.extrasamples[0] in (
        EXTRASAMPLE.ASSOCALPHA,
        EXTRASAMPLE.UNASSALPHA,
    )


def _stated_bits(page: TiffPage, text: str) -> int | None:
    """The bits of the picture that the file states; None if it states none."""
    if page.bitspersample < 16:
        return page.bitspersample
    if found := _OME.search(text):
        return int(found[1])
    largest = [_number(page, tag, 0) for tag in _LARGEST_VALUE]
    if _IMAGEJ.match(text) and (found := _MAX.search(text)):
        largest.append(int(found[1]))
    return next((value.bit_length() for value in largest if value > 0), None)


def _number(page: TiffPage, tag: str, default: int) -> int:
    value: Any = page.tags.valueof(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)
