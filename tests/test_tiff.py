"""TIFF: what its tags say of the values, which of its pages is the picture, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from xray_hf.errors import ImageError
from xray_hf.reading import MAX_PIXELS, read

HEIGHT, WIDTH = 48, 64


def picture(highest: int = 4095) -> np.ndarray:
    """(H, W) uint16: from 0 to `highest`."""
    return np.rint(np.linspace(0, highest, HEIGHT * WIDTH)).reshape(HEIGHT, WIDTH).astype(np.uint16)


def written(*pages: Any, **options: Any) -> bytes:
    """A TIFF; options: of each page."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for page in pages:
            file.write(page, **{"photometric": "minisblack", "metadata": None, **options})
    return stream.getvalue()


def shown(data: bytes) -> np.ndarray:
    return np.asarray(read(data).grey).astype(int)


@pytest.mark.parametrize(
    "options",
    [
        {"extratags": [(341, "H", 1, 4095, True)]},
        {"extratags": [(281, "H", 1, 4095, True)]},
        {"description": "ImageJ=1.54f\nunit=mm\nmin=0.0\nmax=4095.0\n"},
        {"description": '<OME><Image><Pixels Type="uint16" SignificantBits="12" SizeX="64"/></Image></OME>'},
    ],
    ids=["SMaxSampleValue", "MaxSampleValue", "ImageJ", "OME"],
)
def test_a_dark_picture_has_the_bits_that_its_file_states(options: dict[str, Any]) -> None:
    dark = written(picture(900), **options)
    assert np.abs(shown(dark) - np.rint(picture(900) / 4095 * 255)).max() == 0
    assert read(dark).warnings == ()
    (warning,) = read(written(picture(900))).warnings
    assert "suggest 10" in warning


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("highest", [255, 1023, 4095, 65535])
def test_white_is_zero(photometric: str, highest: int) -> None:
    expected = np.rint(picture(highest) / highest * 255)
    found = shown(written(picture(highest), photometric=photometric))
    assert np.array_equal(found, expected if photometric == "minisblack" else 255 - expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_the_picture_as_pillow_does(orientation: int) -> None:
    data = written(picture(65535), extratags=[(274, "H", 1, orientation, True)])
    jpeg, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray((picture(65535) // 257).astype(np.uint8)).save(jpeg, "PNG", exif=exif)
    assert np.abs(shown(data) - shown(jpeg.getvalue())).max() <= 1


@pytest.mark.parametrize("kind", ["palette", "CMYK", "YCbCr"])
def test_palettes_and_other_colours_are_read_by_pillow(kind: str) -> None:
    grey = Image.fromarray((picture(65535) // 257).astype(np.uint8))
    rgb, stream = grey.convert("RGB"), io.BytesIO()
    if kind == "palette":
        rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(stream, "TIFF")
    elif kind == "CMYK":
        rgb.convert("CMYK").save(stream, "TIFF")
    else:
        rgb.save(stream, "TIFF", compression="jpeg", quality=95)
    assert np.abs(shown(stream.getvalue()) - np.asarray(grey)).max() <= 6


def test_smaller_versions_and_masks_are_not_further_pages() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(picture(65535)[::2, ::2], photometric="minisblack", subfiletype=1)
        file.write(picture(65535), photometric="minisblack")
        file.write(np.zeros((HEIGHT, WIDTH), bool), photometric="minisblack", subfiletype=4)
    assert np.array_equal(shown(stream.getvalue()), np.rint(picture(65535) / 257))


def test_several_pictures_are_refused() -> None:
    with pytest.raises(ImageError, match="has several pages or frames; expected one"):
        read(written(picture(), picture()))


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("rows", [None, 5])
def test_a_truncated_file_is_refused_and_not_half_black(compression: str | None, rows: int | None) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)
    data = written(noise, compression=compression, rowsperstrip=rows)
    for end in (len(data) - 20, len(data) * 2 // 3, len(data) // 3):
        with pytest.raises(ImageError, match="is a damaged or incomplete TIFF file"):
            read(data[:end])


def test_a_part_that_was_never_written_is_refused() -> None:
    """Sparse files name a part of length 0, which tifffile would show black."""
    data = written(picture(), rowsperstrip=24)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        counts = file.pages.first.tags["StripByteCounts"]
    place = counts.valueoffset
    with pytest.raises(ImageError, match="is a damaged or incomplete TIFF file"):
        read(data[:place] + bytes(counts.valuebytecount) + data[place + counts.valuebytecount :])


def test_tiles_larger_than_any_image_are_refused() -> None:
    side = 16 * (int(MAX_PIXELS**0.5) // 16 + 1)
    data = written(np.zeros((64, 64), np.uint8), tile=(64, 64))
    for tag in (322, 323):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            place = file.pages.first.tags[tag].valueoffset
        data = data[:place] + side.to_bytes(2, "little") + data[place + 2 :]
    with pytest.raises(ImageError, match="larger tiles, than any X-ray"):
        read(data)


def changed(data: bytes, tag: int, change: Callable[[bytes], bytes]) -> bytes:
    """The TIFF with other bytes in place of a tag's entry, (tag, type, count, value or offset)."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags[tag].offset
    return data[:place] + change(data[place : place + 12]) + data[place + 12 :]


@pytest.mark.parametrize("tag", [273, 279])
def test_fewer_parts_than_the_picture_has_are_refused(tag: int) -> None:
    data = written(picture(), rowsperstrip=12)
    for each in (273, 279) if tag == 273 else (279,):
        data = changed(data, each, lambda entry: entry[:4] + b"\3\0\0\0" + entry[8:])
    with pytest.raises(ImageError, match="is a damaged or incomplete TIFF file"):
        read(data)


def test_a_file_that_does_not_say_what_is_black_is_refused() -> None:
    data = changed(written(picture()), 262, lambda entry: b"\xff\xfe" + entry[2:])
    with pytest.raises(ImageError, match="does not say whether low values are black or white"):
        read(data)


def test_a_file_without_its_depth_is_refused() -> None:
    data = changed(written(picture()), 258, lambda entry: b"\xff\xfe" + entry[2:])
    with pytest.raises(ImageError, match="is a damaged or incomplete TIFF file"):
        read(data)


def test_a_preview_alone_is_refused() -> None:
    with pytest.raises(ImageError, match="holds only a smaller version of its picture"):
        read(written(picture(), subfiletype=1))


def test_a_palette_with_a_smaller_version_is_read() -> None:
    levels, colours = (picture(65535) // 257).astype(np.uint8), np.tile(np.arange(256) * 257, (3, 1))
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for page, kind in ((levels[::2, ::2].copy(), 1), (levels, 0)):
            file.write(page, photometric="palette", colormap=colours.astype(np.uint16), subfiletype=kind)
    assert np.abs(shown(stream.getvalue()) - levels).max() <= 1


def test_several_images_in_one_page_are_refused() -> None:
    with pytest.raises(ImageError, match="has several pages or frames"):
        read(written(picture(), description="ImageJ=1.54f\nimages=3\nslices=3\n"))


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.zeros((64, 64, 64), np.uint8), {"photometric": "rgb", "planarconfig": "contig"}, "in colours"),
        (np.zeros((64, 64), np.complex64), {}, "type complex64; expected integers or floats"),
        (np.zeros((64, 64, 64), np.uint8), {"volumetric": True, "tile": (16, 16, 16)}, "several pages"),
        (picture(), {"photometric": "cfa"}, "in colours that are not supported"),
    ],
    ids=["64 samples", "complex", "volume", "raw sensor"],
)
def test_other_kinds_are_refused_in_words(values: np.ndarray, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read(written(values, **options))


def test_a_description_of_any_length_takes_no_time() -> None:
    for text in ("ImageJ=\n" * 100_000, "<Pixels " * 100_000):
        assert read(written(picture(), description=text)).grey.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("compression", ["webp", "jpegxl", "jpeg2000"])
def test_other_compressions_are_refused_before_they_are_decoded(compression: str) -> None:
    with pytest.raises(ImageError, match="a compression that is not supported; save it as PNG"):
        read(written(np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression=compression))


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["deflate", "lzma", "zstd", "lzw", "packbits", "jpeg"])
def test_a_part_that_decodes_to_far_more_than_the_image_costs_little(compression: str) -> None:
    side = 9000  # of the picture within a part; the image has 64
    bomb = {
        "deflate": lambda: zlib.compress(bytes(side**2)),
        "lzma": lambda: imagecodecs.lzma_encode(bytes(side**2)),
        "zstd": lambda: imagecodecs.zstd_encode(bytes(side**2)),
        "lzw": lambda: imagecodecs.lzw_encode(bytes(side**2)),
        "packbits": lambda: b"\x81\0" * (side**2 // 128),
        "jpeg": lambda: imagecodecs.jpeg8_encode(np.zeros((side, side), np.uint8)),
    }[compression]()
    data = written(
        iter([bytes(bomb)]), shape=(64, 64), dtype="uint8", compression=compression, rowsperstrip=64
    )
    code = (
        "import re, sys; from pathlib import Path; from xray_hf.errors import ImageError;"
        "from xray_hf.reading import read; import xray_hf.reading.tiff;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "data = sys.stdin.buffer.read(); before = peak()\n"
        "try: read(data)\n"
        "except ImageError: pass\n"
        "print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert int(run.stdout) < 30_000  # kB; the whole part has 80,000
