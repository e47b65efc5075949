"""The one reader: what a file is, how it becomes grey, and what it says about a file it refuses."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from dicoms import COMPRESSED, compressed
from PIL import Image, PngImagePlugin

from xray_hf.errors import DataError, ImageError
from xray_hf.reading import MAX_BYTES, MAX_PIXELS, MIN_SIDE, from_array, from_image, read, read_grey, resize

HEIGHT, WIDTH = 48, 64


def ramp() -> np.ndarray:
    """(H, W) uint8: every row rises from 0 to 252, the lower rows are a little brighter."""
    return (np.arange(WIDTH) * 3 + np.arange(HEIGHT)[:, None]).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey_png() -> bytes:
    return encoded(Image.fromarray(ramp()), "PNG")


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (header, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_grey_pixels_come_back_unchanged(kind: str) -> None:
    image = read_grey(encoded(Image.fromarray(ramp()), kind))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), ramp())


@pytest.mark.parametrize(("kind", "quality"), [("JPEG", 95), ("WEBP", 95)])
def test_lossy_formats_are_read(kind: str, quality: int) -> None:
    image = read_grey(encoded(Image.fromarray(ramp()).convert("RGB"), kind, quality=quality))
    assert np.abs(np.asarray(image).astype(int) - ramp()).max() < 12


def test_a_path_and_its_bytes_give_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(grey_png())
    assert read_grey(tmp_path / "a.png").tobytes() == read_grey(grey_png()).tobytes()
    assert read_grey(str(tmp_path / "a.png")).tobytes() == read_grey(grey_png()).tobytes()


def test_16_bit_png_is_scaled_and_not_clipped() -> None:
    wide = ramp().astype(np.uint16) * 257  # 0..65535
    np.testing.assert_array_equal(np.asarray(read_grey(encoded(Image.fromarray(wide), "PNG"))), ramp())


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_tiff_of_either_byte_order(byte_order: str) -> None:
    wide = (ramp().astype(np.uint16) * 257).astype(f"{byte_order}u2")
    tiff = encoded(
        Image.frombytes("I;16" if byte_order == "<" else "I;16B", (WIDTH, HEIGHT), wide.tobytes()), "TIFF"
    )
    np.testing.assert_array_equal(np.asarray(read_grey(tiff)), ramp())


def test_rgb_with_equal_channels_is_unchanged() -> None:
    image = read_grey(encoded(Image.fromarray(ramp()).convert("RGB"), "PNG"))
    np.testing.assert_array_equal(np.asarray(image), ramp())


def test_colours_become_luma() -> None:
    image = read_grey(encoded(Image.new("RGB", (40, 40), (255, 0, 0)), "PNG"))
    assert np.unique(np.asarray(image)).tolist() == [76]  # 0.299 × 255


def test_palette_is_looked_up_and_not_taken_for_grey() -> None:
    palette = Image.new("P", (40, 40), 7)
    palette.putpalette([0, 0, 0] * 7 + [200, 200, 200])
    assert np.unique(np.asarray(read_grey(encoded(palette, "PNG")))).tolist() == [200]


def test_palette_with_a_transparent_colour_is_black_there() -> None:
    palette = Image.new("P", (40, 40), 0)
    palette.paste(1, (0, 0, 20, 40))
    palette.putpalette([250, 250, 250, 90, 90, 90])
    grey = np.asarray(read_grey(encoded(palette, "PNG", transparency=0)))
    assert (grey[:, :20] == 90).all()
    assert (grey[:, 20:] == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_black(mode: str) -> None:
    image = Image.new("L", (40, 40), 200).convert(mode)
    alpha = Image.new("L", (40, 40), 255)
    alpha.paste(0, (0, 0, 40, 20))
    image.putalpha(alpha)
    grey = np.asarray(read_grey(encoded(image, "PNG")))
    assert (grey[:20] == 0).all()
    assert (grey[20:] == 200).all()


def test_black_and_white_uses_the_whole_range() -> None:
    image = Image.fromarray(ramp() > 100)
    assert image.mode == "1"
    assert np.unique(np.asarray(read_grey(encoded(image, "PNG")))).tolist() == [0, 255]


def test_cmyk_jpeg_is_not_inverted() -> None:
    jpeg = encoded(Image.fromarray(ramp()).convert("RGB").convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(jpeg)).mode == "CMYK"
    assert np.abs(np.asarray(read_grey(jpeg)).astype(int) - ramp()).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_turns_the_image_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image = read_grey(encoded(Image.fromarray(ramp()), kind, exif=exif))
    assert image.size == (HEIGHT, WIDTH)
    assert np.abs(np.asarray(image).astype(int) - np.rot90(ramp(), -1)).max() < 12


@pytest.mark.parametrize("scale", [1, 255])
def test_float_tiff_of_0_to_1_or_0_to_255_is_read(scale: int) -> None:
    values = ramp().astype(np.float32) / 255 * scale
    np.testing.assert_array_equal(np.asarray(read_grey(encoded(Image.fromarray(values), "TIFF"))), ramp())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_float_tiff_with_a_value_that_is_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[0, 0] = value
    (tmp_path / "dose.tif").write_bytes(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(ImageError, match=r"dose\.tif has values that are not finite numbers"):
        read_grey(tmp_path / "dose.tif")


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "really_png.jpg").write_bytes(grey_png())
    np.testing.assert_array_equal(np.asarray(read_grey(tmp_path / "really_png.jpg")), ramp())


def test_a_text_file_named_jpeg_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.jpeg").write_text("not an image")
    with pytest.raises(ImageError, match=r"note\.jpeg is not a readable image; expected one of PNG, JPEG"):
        read_grey(tmp_path / "note.jpeg")


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"PK\x03\x04 and more", "a ZIP archive; unpack it"),
        (b"Rar!\x1a\x07\x01\0", "an archive; unpack it"),
        (b"%PDF-1.7", "a PDF; export the page"),
        (b"\x1f\x8b\x08\0", "compressed with gzip; unpack it"),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", "a NIfTI volume; export"),
        (b"GIF89a", "a GIF; save"),
        (b"\0\0\0\x18ftypheic", "HEIC or AVIF; save the photo"),
        (b"\0\0\0\x18ftypavif", "HEIC or AVIF"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 image without DICOM"),
        (b"\xff\xd8\xff\xf7\0", "a JPEG-LS image without DICOM; save it as PNG"),
        (b"BMI,age,sex\n21,50,f\n", "Export the X-ray as PNG"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image; save it as PNG"),
        (b"\0\0\0\x0cJXL \r\n", "a JPEG XL image; save it as PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "a web page or drawing"),
        (b"\n<!DOCTYPE html>", "a web page or drawing"),
        (b"MZ\x90\0", "a program"),
        (b"\x7fELF\x02", "a program"),
        (b"#!/bin/sh", "a program"),
        (b"Salted__12345678", "encrypted; decrypt it first"),
        (b"-----BEGIN PGP MESSAGE-----", "encrypted"),
        (b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", "encrypted"),
        (b"\x30\x82\x12\x34\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03", "encrypted"),
        (b"P5 40 40 255 ", "Export the X-ray as PNG"),
    ],
)
def test_what_is_no_image_is_told_what_to_do(data: bytes, advice: str) -> None:
    with pytest.raises(ImageError, match=r"not a readable image.*expected one of PNG, .*DICOM") as caught:
        read(data)
    assert advice in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png is empty \(0 bytes\); copy or download it again"):
        read_grey(tmp_path / "empty.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_a_truncated_image_is_refused_and_not_half_grey(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    (tmp_path / "half.img").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"half\.img .*(download it again|expected one of)"):
        read_grey(tmp_path / "half.img")


@pytest.mark.parametrize("size", [(1, 1), (MIN_SIDE, MIN_SIDE - 1), (MIN_SIDE - 1, 500)])
def test_a_tiny_image_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"is {size[0]}×{size[1]} pixels; at least 32×32 are needed"):
        read_grey(encoded(Image.new("L", size), "PNG"))


def test_the_smallest_size_is_read() -> None:
    assert read_grey(encoded(Image.new("L", (MIN_SIDE, MIN_SIDE)), "PNG")).size == (MIN_SIDE, MIN_SIDE)


@pytest.mark.parametrize(("width", "height"), [(6001, 6000), (10_000, 10_000), (50_000, 50_000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    assert width * height > MAX_PIXELS
    with pytest.raises(ImageError, match=r"pixels; the limit is 36,000,000"):
        read_grey(png_header(width, height))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png cannot be opened: No such file"):
        read_grey(tmp_path / "gone.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened: Is a directory"):
        read_grey(tmp_path)


@pytest.mark.parametrize("size", [(321, 40), (40, 321)])
def test_a_strip_is_no_x_ray(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="no side may be over 8 times the other"):
        read(encoded(Image.new("L", size), "PNG"))
    assert read(encoded(Image.new("L", (320, 40)), "PNG")).grey.size == (320, 40)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"huge\.png has 134,217,729 bytes; the limit is 134,217,728"):
        read(tmp_path / "huge.png")


@pytest.mark.timeout(20)
def test_a_pipe_or_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(ImageError, match="is a pipe or device"):
            read(path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(grey_png())
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(ImageError, match=r"a\.png cannot be opened: Permission denied"):
        read(tmp_path / "a.png")


def test_a_name_no_file_can_have_is_refused() -> None:
    with pytest.raises(ImageError, match="file name is not valid"):
        read("a\0b.png")


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_several_pages_or_frames_are_refused(kind: str) -> None:
    pages = [Image.fromarray(ramp()), Image.fromarray(255 - ramp())]
    several = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="has several pages or frames; expected one"):
        read(several)


STOWAWAYS = {
    "ZIP": b"PK\x05\x06" + bytes(18),
    "PDF": b"%PDF-1.4 ",
    "RAR": b"Rar!\x1a\x07\0",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "script": b"<?PHP system($_GET['c']); ?>",
    "program": b"MZ\x90\0",
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("stowaway", STOWAWAYS)
def test_another_file_behind_the_end_is_refused(kind: str, stowaway: str) -> None:
    whole = encoded(Image.fromarray(ramp()), kind)
    for gap in (b"", bytes(500)):
        with pytest.raises(ImageError, match=rf"carries another file after the image's end \({stowaway}\)"):
            read(whole + gap + STOWAWAYS[stowaway])


def test_a_zip_that_ends_as_a_jpeg_does_is_refused() -> None:
    with pytest.raises(ImageError, match=r"\(ZIP\)"):
        read(encoded(Image.fromarray(ramp()), "JPEG") + STOWAWAYS["ZIP"] + b"\xff\xd9")


def test_a_zip_in_place_of_the_end_marker_is_refused() -> None:
    for kind, end in (("JPEG", 2), ("PNG", 12)):
        with pytest.raises(ImageError, match=r"\(ZIP\)"):
            read(encoded(Image.fromarray(ramp()), kind)[:-end] + STOWAWAYS["ZIP"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("tail", [bytes(1000), b"camera data \x01\x02", b"\xff\xd8\xff\xe0 a preview"])
def test_a_harmless_tail_is_no_matter(kind: str, tail: bytes) -> None:
    whole = encoded(Image.fromarray(ramp()), kind)
    assert read(whole + tail).grey.tobytes() == read(whole).grey.tobytes()


def test_a_progressive_jpeg_is_read_but_one_of_endless_scans_is_not() -> None:
    jpeg = encoded(Image.fromarray(ramp()), "JPEG", progressive=True)
    assert read(jpeg).grey.size == (WIDTH, HEIGHT)
    last = jpeg.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="has more scans than any X-ray"):
        read(jpeg[:-2] + jpeg[last:-2] * 200 + b"\xff\xd9")


def test_exif_that_would_be_copied_a_thousand_times_is_refused() -> None:
    segment = b"\xff\xe1" + struct.pack(">H", 60_002) + b"Exif\0\0" + bytes(59_994)
    jpeg = encoded(Image.fromarray(ramp()), "JPEG")
    with pytest.raises(ImageError, match="has more bytes of EXIF than any X-ray"):
        read(jpeg[:2] + segment * 2 + jpeg[2:])
    with pytest.raises(ImageError, match="has more bytes of EXIF than any X-ray"):
        read(encoded(Image.fromarray(ramp()), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(70_000)))


def test_a_tiff_whose_entries_all_name_the_whole_file_is_refused() -> None:
    size, count = 2**20, 400
    entries = b"".join(struct.pack("<HHII", 40_000 + tag, 1, size, 0) for tag in range(count))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries
    with pytest.raises(ImageError, match="is a damaged or incomplete TIFF file"):
        read(tiff + bytes(size))


def test_tifffile_logs_nothing_of_a_file_that_we_read_and_all_of_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 40_000, 1, 100, 0)  # an offset that cannot be
    with suppress(ImageError):
        read(data)
    assert caplog.records == []
    with suppress(Exception), tifffile.TiffFile(io.BytesIO(data)) as file:
        file.asarray()
    assert caplog.records != []


def test_a_png_of_endless_chunks_is_refused() -> None:
    chunk = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    png = grey_png()
    with pytest.raises(ImageError, match="has more chunks than any X-ray"):
        read(png[:33] + chunk * 300_000 + png[33:])


def chunk(kind: bytes, body: bytes, is_right: bool = True) -> bytes:
    crc = zlib.crc32(kind + body) ^ (not is_right)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


@pytest.mark.parametrize(
    "beside",
    [
        chunk(b"tEXt", b"Comment\0" + b"a" * 2 * 2**20),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8))),
        chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"a" * 2 * 2**20),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2 * 2**20))),
        chunk(b"tEXt", b"Comment\0a", is_right=False),
        chunk(b"gAMA", b"\0\0\xb1\x8f", is_right=False),
        chunk(b"eXIf", b"II*\0" + bytes(20), is_right=False),
        chunk(b"prVt", os.urandom(50)),
    ],
    ids=["text", "text bomb", "long text", "profile", "bad text", "bad gamma", "bad EXIF", "private"],
)
@pytest.mark.parametrize("scale", [1, 257])
def test_what_lies_beside_the_pixels_of_a_png_is_no_matter(beside: bytes, scale: int) -> None:
    for shape in ((HEIGHT, WIDTH, 1), (HEIGHT, WIDTH, 3)):
        values = np.broadcast_to(ramp()[..., None], shape).astype("u1" if scale == 1 else "u2") * scale
        png = bytes(imagecodecs.png_encode(values.squeeze()))
        for place in (33, len(png) - 12):
            read_now = read(png[:place] + beside + png[place:]).grey
            np.testing.assert_array_equal(np.asarray(read_now), ramp())


def test_a_png_of_damaged_pixels_is_refused() -> None:
    png = grey_png()
    place = png.index(b"IDAT")
    with pytest.raises(ImageError, match="is a damaged or incomplete PNG file"):
        read(png[: place + 30] + bytes([png[place + 30] ^ 1]) + png[place + 31 :])


@pytest.mark.parametrize("options", [{"bitspersample": 12}, {"lossless": True, "bitspersample": 12}])
@pytest.mark.parametrize("brightest", [1.0, 0.3])
def test_a_jpeg_of_12_bits_is_read(options: dict[str, Any], brightest: float) -> None:
    values = np.rint(ramp() / 255 * 4095 * brightest).astype(np.uint16)
    grey = np.asarray(read_grey(bytes(imagecodecs.jpeg8_encode(values, level=98, **options))))
    assert np.abs(grey.astype(int) - np.rint(values / 4095 * 255)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_16_bit_png_in_colour(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    wide, narrow = (
        bytes(imagecodecs.png_encode(np.dstack([ramp().astype(kind) * scale] * 3)))
        for kind, scale in ((np.uint16, 257), (np.uint8, 1))
    )
    found, expected = (read_grey(png[:33] + chunk(b"eXIf", data) + png[33:]) for png in (wide, narrow))
    assert found.size == expected.size
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("options", [{"bitspersample": 12}, {"lossless": True, "bitspersample": 16}])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_jpeg_of_12_bits_is_refused(options: dict[str, Any], kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (200, 200)).astype(np.uint16)
    whole = bytes(imagecodecs.jpeg8_encode(noise, **options))
    with pytest.raises(ImageError, match="is a damaged or incomplete JPEG file"):
        read(whole[: int(kept * len(whole))])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_jpeg_of_12_bits(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    segment = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    segment = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    deep = bytes(imagecodecs.jpeg8_encode(ramp().astype(np.uint16) * 16, bitspersample=12, level=100))
    flat = encoded(Image.fromarray(ramp()), "JPEG", quality=100)
    found, expected = (np.asarray(read_grey(jpeg[:2] + segment + jpeg[2:])) for jpeg in (deep, flat))
    assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("junk", [b"Exif\0\0junk", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_beside_whole_pixels_turns_nothing(junk: bytes) -> None:
    png = grey_png()
    found = read_grey(png[:33] + chunk(b"eXIf", junk) + png[33:])
    np.testing.assert_array_equal(np.asarray(found), ramp())


def test_what_was_read_is_not_the_callers() -> None:
    values, image = ramp(), Image.fromarray(ramp())
    readings = [from_array(values), from_image(image)]
    values[:] = 0
    image.paste(0, (0, 0, WIDTH, HEIGHT))
    for reading in readings:
        np.testing.assert_array_equal(np.asarray(reading.grey), ramp())


@pytest.mark.parametrize("source", [None, "x.png", b"", np.zeros((40, 40), np.uint8)])
def test_what_is_no_pil_image_is_said(source: Any) -> None:
    with pytest.raises(ImageError, match=f"is a {type(source).__name__}; expected a PIL image"):
        from_image(source)


def test_no_text_of_the_file_is_in_an_error() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "Zebedee Quixote")
    whole = encoded(Image.effect_noise((200, 200), 50), "PNG", pnginfo=info)
    for end in range(100, len(whole) - 100, 1000):
        with pytest.raises(ImageError) as caught:
            read(whole[:end])
        expected = "the image is a damaged or incomplete PNG file; copy or download it again."
        assert str(caught.value) == expected


def test_grey_files_have_no_colour_and_red_ones_all() -> None:
    grey, red = Image.fromarray(ramp()), Image.new("RGB", (40, 40), (255, 0, 0))
    assert read(encoded(grey, "JPEG")).colour == 0
    assert read(encoded(grey.convert("RGB"), "PNG")).colour == 0
    assert read(encoded(grey.convert("RGB"), "JPEG")).colour < 0.02
    assert read(encoded(red, "PNG")).colour == 1
    assert read(encoded(red.convert("P"), "PNG")).colour == 1
    assert read(encoded(red.convert("CMYK"), "TIFF")).colour == 1
    half = red.copy()
    half.paste((9, 9, 9), (0, 0, 40, 20))
    assert read(encoded(half, "PNG")).colour == pytest.approx(0.5, abs=0.02)


def test_colour_below_transparency_does_not_count() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert read(encoded(image, "PNG")).colour == 0


def test_read_grey_is_the_grey_image_of_read() -> None:
    reading = read(grey_png())
    assert reading.grey.tobytes() == read_grey(grey_png()).tobytes()
    assert reading.warnings == ()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]
)
def test_a_pil_image_of_any_mode_is_read(mode: str) -> None:
    source = (
        Image.fromarray(ramp().astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(ramp()).convert(mode)
    )
    reading = from_image(source)
    assert (reading.grey.mode, reading.grey.size) == ("L", (WIDTH, HEIGHT))


def test_a_pil_image_and_its_file_give_the_same() -> None:
    image = Image.merge(
        "RGB", [Image.fromarray(ramp()), Image.fromarray(255 - ramp()), Image.new("L", (64, 48))]
    )
    from_file, direct = read(encoded(image, "PNG")), from_image(image)
    assert from_file.grey.tobytes() == direct.grey.tobytes()
    assert from_file.colour == direct.colour > 0.4


def test_a_pil_image_that_cannot_be_used_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="my image is 5×5 pixels"):
        from_image(Image.new("L", (5, 5)), "my image")
    with pytest.raises(ImageError, match="cannot be decoded or made grey"):
        from_image(Image.open(io.BytesIO(encoded(Image.effect_noise((99, 99), 50), "PNG")[:-100])))


@pytest.mark.parametrize(
    "scale", [np.uint8(1), np.uint16(257), np.int32(257), np.float32(1 / 255), np.float64(1), np.float32(257)]
)
def test_arrays_are_scaled_as_files_are(scale: np.generic) -> None:
    values = (ramp() * scale).astype(scale.dtype)
    np.testing.assert_array_equal(np.asarray(from_array(values).grey), ramp())
    in_colour = from_array(np.repeat(values[..., None], 3, axis=2))
    np.testing.assert_array_equal(np.asarray(in_colour.grey), ramp())
    assert in_colour.colour == 0


def test_colours_of_an_array_become_luma() -> None:
    reading = from_array(np.full((40, 40, 3), (255, 0, 0), np.uint8))
    assert np.unique(np.asarray(reading.grey)).tolist() == [76]
    assert reading.colour == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((40, 40, 4), np.uint8), r"shape \(40, 40, 4\); expected \(H, W\)"),
        (np.zeros(40, np.uint8), "expected"),
        (np.zeros((40, 40), complex), "type complex128; expected integers or floats"),
        (np.zeros((40, 40), bool), "type bool"),
        (np.full((40, 40), np.nan), "not finite numbers"),
        (np.zeros((5, 40), np.uint8), "is 40×5 pixels"),
        (np.zeros((40, 400), np.uint8), "no side may be"),
        (np.broadcast_to(np.uint8(0), (6001, 6000)), "the limit is 36,000,000"),
        ("a string", "is a str; expected a NumPy array"),
    ],
)
def test_an_array_that_is_no_image_is_refused(values: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        from_array(values)


def worst(kind: str) -> bytes:
    """A file of the largest size and of a mode that costs much memory; itself it is small."""
    side, stream = 6000, io.BytesIO()
    if kind == "PNG 16 bit":
        Image.fromarray(np.zeros((side, side), np.uint16)).save(stream, "PNG", compress_level=1)
    elif kind == "JPEG progressive CMYK":
        Image.new("CMYK", (side, side)).save(stream, "JPEG", progressive=True)
    elif kind.startswith("DICOM"):
        values = np.zeros((side, side), np.uint16)
        values[::7] = 65535
        syntax, frame, bits, _ = COMPRESSED[kind.split()[1]]
        return compressed(syntax, frame, values, bits)
    elif kind == "WEBP":
        Image.new("RGBA", (side, side)).save(stream, "WEBP", lossless=True, method=0)
    else:
        mode = kind.split()[1]
        Image.new(mode, (side, side)).save(stream, "TIFF", compression="tiff_lzw", tiffinfo={278: side})
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "PNG 16 bit",
        "JPEG progressive CMYK",
        "WEBP",
        "TIFF F",
        "TIFF RGBA",
        "DICOM j2k16",
        *(
            pytest.param(kind, marks=pytest.mark.exhaustive)
            for kind in ("TIFF I", "TIFF CMYK", "DICOM rle12", "DICOM lossless16", "DICOM jpegls16")
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_largest_image_of_any_mode_needs_less_than_1_gb(kind: str, tmp_path: Path) -> None:
    (tmp_path / "worst").write_bytes(worst(kind))
    # Not by getrusage: a child's ru_maxrss begins with its parent's.
    code = (
        "import re, sys; from pathlib import Path; from xray_hf.reading import read;"
        "print(read(sys.argv[1]).grey.size);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "worst"], capture_output=True, text=True, check=True
    )
    size, peak = run.stdout.split("\n")[:2]
    assert size == "(6000, 6000)"
    assert int(peak) < 10**9 / 1024  # kB


def test_an_image_error_is_a_data_error() -> None:
    with pytest.raises(DataError):
        read_grey(b"")


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoded(Image.fromarray(ramp()), "JPEG"),
        lambda: encoded(Image.fromarray(ramp()).convert("P"), "PNG", transparency=3),
        lambda: encoded(Image.fromarray(ramp()), "WEBP"),
        lambda: encoded(Image.fromarray(ramp()), "BMP"),
    ],
    ids=["jpeg", "palette", "webp", "bmp"],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged EXIF and the like
def test_damage_of_any_kind_is_an_image_error_or_an_image(make: Callable[[], bytes]) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(make(), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        places = rng.integers(0, rng.choice([60, len(whole)]), 4)
        damaged[places] = rng.integers(0, 256, 4)
        with suppress(ImageError):
            assert read_grey(damaged.tobytes()).mode == "L"


def test_reading_in_threads_leaves_the_warning_filters_alone() -> None:
    before, png = list(warnings.filters), grey_png()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_grey, [png] * 2000))
    assert warnings.filters == before


def test_resize_squashes_to_a_square() -> None:
    pixels = resize(Image.fromarray(ramp()), 40)
    assert (pixels.shape, pixels.dtype) == ((40, 40), np.uint8)
    assert pixels.mean() == pytest.approx(ramp().mean(), abs=1)


@pytest.mark.parametrize("size", [(700, 500), (1401, 1203), (2000, 333), (640, 480)])
def test_a_shared_resize_gives_the_same_pixels(size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 80)
    with ThreadPoolExecutor(1) as helper:
        assert np.array_equal(resize(image, 224, helper), resize(image, 224))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_nothing_but_pixels_leaves_the_reader(kind: str, mode: str) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "Zebedee Quixote", 1  # description, orientation
    grey = read(encoded(Image.effect_noise((200, 200), 50).convert(mode), kind, exif=exif)).grey
    assert type(grey) is Image.Image
    assert (grey.info, dict(grey.getexif())) == ({}, {})
