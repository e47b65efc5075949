"""The one reader: what a file is, how it becomes grey, and what it says about a file it refuses."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xray_hf.errors import DataError, ImageError
from xray_hf.images import MAX_PIXELS, MIN_SIDE, read_grey, resize

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


def test_16_bit_values_below_256_are_nearly_black() -> None:
    dark = ramp().astype(np.uint16)
    assert np.asarray(read_grey(encoded(Image.fromarray(dark), "PNG"))).max() <= 1


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


@pytest.mark.parametrize("value", [-1.0, 300.0, float("nan")])
def test_float_tiff_of_another_range_is_refused(value: float, tmp_path: Path) -> None:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[0, 0] = value
    (tmp_path / "dose.tif").write_bytes(encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(ImageError, match=r"values .* expected 0\.\.1 or 0\.\.255"):
        read_grey(tmp_path / "dose.tif")


def test_a_refused_float_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "dose.tif").write_bytes(encoded(Image.new("F", (40, 40), -5.0), "TIFF"))
    with pytest.raises(ImageError, match=r"dose\.tif"):
        read_grey(tmp_path / "dose.tif")


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "really_png.jpg").write_bytes(grey_png())
    np.testing.assert_array_equal(np.asarray(read_grey(tmp_path / "really_png.jpg")), ramp())


def test_a_text_file_named_jpeg_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.jpeg").write_text("not an image")
    with pytest.raises(ImageError, match=r"note\.jpeg is not an image .* expected one of PNG, JPEG, TIFF"):
        read_grey(tmp_path / "note.jpeg")


@pytest.mark.parametrize("kind", ["PDF", "GIF", "PPM"])
def test_formats_that_are_no_x_rays_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=r"the image is not an image .* expected one of"):
        read_grey(encoded(Image.fromarray(ramp()), kind))


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


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (10_000, 10_000), (50_000, 50_000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    assert width * height > MAX_PIXELS
    with pytest.raises(ImageError, match=r"pixels; the limit is 64,000,000"):
        read_grey(png_header(width, height))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png cannot be opened: No such file"):
        read_grey(tmp_path / "gone.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened: Is a directory"):
        read_grey(tmp_path)


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
