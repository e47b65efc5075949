"""How many bits a picture has: by what its file states, or by its histogram; never by one pixel."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import Image, ImageDraw

from xray_hf.data.synthetic import sample_images
from xray_hf.inference import Engine, Prediction
from xray_hf.reading import from_array, read
from xray_hf.reading.levels import to_eight_bits

DEPTHS = (8, 10, 12, 14, 16)
SUGGESTED = "The image does not state how many bits its values have; they suggest {}."


def encoded(share: np.ndarray, bits: int) -> np.ndarray:
    """(H, W) of 0..1 as uint16 that use so many bits."""
    return np.rint(share * (2**bits - 1)).astype(np.uint16)


def marked(values: np.ndarray, white: int) -> np.ndarray:
    """The same with a burned-in marker, its edges smooth, and ten hot pixels, all of the value `white`."""
    text = Image.new("L", values.shape[::-1])
    ImageDraw.Draw(text).text((9, 9), "L  AP ERECT", fill=255, font_size=values.shape[0] // 14)
    cover = np.asarray(text) / 255
    changed = np.rint(values * (1 - cover) + white * cover)
    changed.flat[np.random.default_rng(0).integers(0, values.size, 10)] = white
    return changed.astype(values.dtype)


def patients() -> list[np.ndarray]:
    """(H, W) of 0..1: synthetic patients."""
    return [np.asarray(image.resize((640, 512)), float) / 255 for _, image in sample_images(2, 0)]


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("white", [None, 65535, 50_000])
def test_the_depth_is_found_whatever_is_burned_in(bits: int, white: int | None) -> None:
    for share in patients():
        share = (share - share.min()) / np.ptp(share)
        values = encoded(share, bits)
        found, warnings = to_eight_bits(values if white is None else marked(values, white), "it")
        expected = np.rint(share * 255) if white is None else marked(np.rint(share * 255), 255)
        # The marker's edges are brighter where its white is cut at the picture's.
        assert np.median(np.abs(found - expected)) == 0
        assert (np.abs(found - expected) <= 1).mean() > 0.97
        assert warnings == (() if bits == 16 else (SUGGESTED.format(bits),))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("width", [2, 5, 30])
def test_a_white_border_of_any_width_decides_nothing(bits: int, width: int) -> None:
    """PixelPaddingValue 65535, exported with the picture."""
    for share in patients():
        values = encoded(share / share.max(), bits)
        edge = values.shape[1] * width // 100
        values[:, :edge] = values[:, -edge:] = 65535
        assert to_eight_bits(values, "it")[1] == (SUGGESTED.format(bits),)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("scale", [0.4, 0.7, 1.6])
def test_what_resizing_overshoots_decides_nothing(bits: int, scale: float) -> None:
    for share in patients():
        stretched = ((share - 0.02) / np.quantile(share, 0.99)).clip(0, 1)  # many pixels are white
        image = Image.fromarray((stretched * (2**bits - 1)).astype(np.float32))
        size = (int(image.width * scale), int(image.height * scale))
        values = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).clip(0, 65535).astype(np.uint16)
        assert values.max() >= 2**bits
        assert to_eight_bits(values, "it")[1] == (SUGGESTED.format(bits),)


@pytest.mark.parametrize("padding", [-32768, -2000, 30_000])
@pytest.mark.parametrize("share_of_it", [0.03, 0.1, 0.3])
def test_padding_of_signed_values_does_not_move_their_ends(padding: int, share_of_it: float) -> None:
    for share in patients():
        values = np.rint(share / share.max() * 4095 - 1024).astype(np.int16)
        rows = int(share_of_it * len(values))
        expected = to_eight_bits(values[rows:], "it")[0]
        values[:rows] = padding
        found = to_eight_bits(values, "it")[0][rows:]
        assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("reach", [1.0, 1.001, 1.1, 255, 255.5, 270, 4096.5, 12.0, 0.01])
def test_floats_are_what_their_range_says(reach: float) -> None:
    share = np.linspace(0, 1, 50_000).reshape(200, 250)
    found, _ = to_eight_bits((share * reach).astype(np.float32), "it")
    assert np.abs(found - np.rint(share * 255)).max() <= 26


@pytest.mark.parametrize("offset", [32_768, 61_440])
def test_values_far_from_black_have_another_black(offset: int) -> None:
    """ImageJ's signed values, stored without sign; a negative by subtraction from 65,535."""
    values = encoded(np.linspace(0, 1, 50_000).reshape(200, 250), 12) + np.uint16(offset)
    found, (warning,) = to_eight_bits(values, "it")
    assert np.abs(found - np.rint(np.linspace(0, 255, 50_000)).reshape(200, 250)).max() <= 1
    assert "does not state which values are black and white" in warning


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_a_signed_type_that_uses_no_sign_has_a_bit_less(kind: type) -> None:
    share = np.linspace(0, 1, 50_000).reshape(200, 250)
    found, _ = to_eight_bits(np.rint(share * np.iinfo(kind).max).astype(kind), "it")
    assert np.abs(found - np.rint(share * 255)).max() <= 1


@pytest.mark.parametrize("stated", [16, 17, 32, 64, 0, -1])
def test_a_statement_of_all_bits_or_none_says_nothing(stated: int) -> None:
    values = encoded(np.linspace(0, 1, 2500).reshape(50, 50), 12)
    assert to_eight_bits(values, "it", stated)[1] == (SUGGESTED.format(12),)


@pytest.mark.parametrize("value", [0, 4095, 4200, 20_000, 65535])
def test_one_pixel_decides_nothing(value: int) -> None:
    values = encoded(np.linspace(0, 1, 50 * 50).reshape(50, 50), 12)
    expected = to_eight_bits(values, "it")[0]
    values[25, 25] = value
    found = to_eight_bits(values, "it")[0]
    found[25, 25] = expected[25, 25]
    assert np.array_equal(found, expected)


def test_what_the_file_states_needs_no_guess() -> None:
    dark = encoded(np.linspace(0, 0.1, 2500).reshape(50, 50), 12)  # up to 410
    assert to_eight_bits(dark, "it", 12)[0].max() == 26
    assert to_eight_bits(dark, "it", 12)[1] == ()
    assert to_eight_bits(dark, "it")[0].max() == 102


def test_a_statement_that_the_values_contradict_is_none() -> None:
    """PNG's sBIT may say 12 of values that are scaled to 16, as its standard has it."""
    values = encoded(np.linspace(0, 1, 2500).reshape(50, 50), 16)
    found, warnings = to_eight_bits(values, "it", 12)
    assert np.array_equal(found, np.rint(values / 257))
    assert warnings == ()


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("dead", [False, True])
def test_values_below_zero_are_shown_from_the_lowest_to_the_highest(kind: type, dead: bool) -> None:
    share = np.linspace(0, 1, 50_000).reshape(200, 250)
    values = (np.rint(share * 200) - 100).astype(kind) * kind(1 if kind == np.int8 else 30)
    if dead and kind != np.int8:
        values[50, 50], values[60, 60] = -32768, 32767
    found, (warning,) = to_eight_bits(values, "it")
    expected = np.rint(np.rint(share * 200) / 200 * 255)
    assert (np.abs(found - expected) > 1).sum() <= (2 if dead else 0)
    assert "does not state which values are black and white" in warning


@pytest.mark.parametrize("highest", [1, 255, 4095, 131_070, 2**31])
def test_floats_and_wide_integers_are_shown_whole(highest: int) -> None:
    share = np.linspace(0, 1, 50_000).reshape(200, 250)
    for kind in (np.float32, np.float64, np.uint32, np.int64):
        if highest > 1 or kind in (np.float32, np.float64):
            found, _ = to_eight_bits((share * highest).astype(kind), "it")
            assert np.abs(found - np.rint(share * 255)).max() <= 1


def test_a_constant_image_is_of_one_shade() -> None:
    for values in (np.full((40, 40), 77, np.uint16), np.full((40, 40), -5.0), np.zeros((40, 40), np.int32)):
        assert np.ptp(np.asarray(from_array(values).grey)) == 0


def png(values: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(values, level=1))


def grey(values: np.ndarray) -> bytes:
    return png(values)


def grey_with_alpha(values: np.ndarray) -> bytes:
    return png(np.dstack([values, np.full_like(values, np.iinfo(values.dtype).max)]))


def rgb(values: np.ndarray) -> bytes:
    return png(np.dstack([values] * 3))


def rgba(values: np.ndarray) -> bytes:
    return png(np.dstack([values] * 3 + [np.full_like(values, np.iinfo(values.dtype).max)]))


def tiff(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", compression="lzw", predictor=True)
    return stream.getvalue()


@pytest.fixture(scope="module")
def real_engine() -> Engine:
    return Engine.from_pretrained(ROOT / "pretrained" / "xray-resnet18-multisource", threads=1)


@pytest.fixture(scope="module")
def real_answers(real_engine: Engine, real_data: Path) -> list[tuple[np.ndarray, Prediction]]:
    """(H, W) of 0..1: 60 real test images, and what is expected of each: the answer about its eight bits."""
    files = sorted(real_data.rglob("test/*.jp*g"))
    assert len(files) > 600
    images = [read(file).grey.convert("F") for file in files[:: len(files) // 60][:60]]
    shares = [
        np.asarray(image.resize((512, 480), Image.Resampling.BICUBIC)).clip(0, 255) / 255 for image in images
    ]
    plain = [grey(marked(encoded(share, 8), 255).astype(np.uint8)) for share in shares]
    return [(share, real_engine.predict(data)) for share, data in zip(shares, plain, strict=True)]


@pytest.mark.exhaustive
@pytest.mark.real
@pytest.mark.parametrize("write", [grey, grey_with_alpha, rgb, rgba, tiff])
def test_no_decision_of_60_real_test_images_changes(
    write: Callable[[np.ndarray], bytes],
    real_engine: Engine,
    real_answers: list[tuple[np.ndarray, Prediction]],
) -> None:
    """Re-encoded at every depth, with burned-in markers and hot pixels."""
    for number, (share, expected) in enumerate(real_answers):
        bits = DEPTHS[number % len(DEPTHS)]
        found = real_engine.predict(write(marked(encoded(share, bits), 65535)))
        assert found.decision == expected.decision
        assert found.probabilities == pytest.approx(expected.probabilities, abs=0.02)
