"""DICOM: the values a viewer would show, what is refused, and no tag in any text."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dicoms
import imagecodecs
import numpy as np
import pytest
from dicoms import COMPRESSED, HEIGHT, SECRET, WIDTH, native, values
from pydicom import uid
from pydicom.encaps import encapsulate

from xray_hf.errors import ImageError
from xray_hf.reading import MAX_PIXELS, read


def shown(data: bytes) -> np.ndarray:
    """(H, W) int: the grey values that come out."""
    return np.asarray(read(data).grey).astype(int)


def spread(stored: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """The plain reference: every pixel from low..high to 0..255."""
    low = float(stored.min()) if low is None else low
    high = float(stored.max()) if high is None else high
    share = (stored.astype(float) - low) / (high - low)
    return np.rint(share.clip(0, 1) * 255).astype(int)


def windowed(stored: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2: LINEAR, to 0..255, pixel by pixel."""
    return np.rint(((stored - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255).astype(int)


def near(found: np.ndarray, expected: np.ndarray, error: int = 0) -> bool:
    return bool(np.abs(found - expected).max() <= error)


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (10, False), (12, True), (16, False), (16, True)])
def test_native_values_spread_over_the_whole_range(syntax: str, bits: int, signed: bool) -> None:
    stored = values(bits, signed)
    assert near(shown(native(stored, bits, syntax)), spread(stored))


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_files_show_what_native_ones_show(kind: str) -> None:
    bits, error = COMPRESSED[kind][2:]
    grey = shown(dicoms.example(kind))
    assert near(grey, spread(values(bits)), -(-2 * error * 255 // (2**bits - 1)))


@pytest.mark.parametrize("kind", ["rle12", "lossless12", "j2k12"])
def test_signed_values_survive_compression(kind: str) -> None:
    syntax, frame, bits, _ = COMPRESSED[kind]
    stored = values(bits, signed=True)
    unsigned = frame if kind == "rle12" else lambda pixels: frame(pixels.view(np.uint16) & 0xFFF)
    assert near(shown(dicoms.compressed(syntax, unsigned, stored, bits)), spread(stored))


def test_bits_beyond_the_stored_ones_are_ignored() -> None:
    assert near(shown(native(values(12) | 0x8000, 12)), spread(values(12)))


def test_odd_sizes_are_padded_to_whole_words() -> None:
    stored = values(8)[:47, :63]
    assert stored.size % 2 == 1
    assert near(shown(native(stored, 8)), spread(stored))
    assert near(shown(native(stored, 8, uid.ExplicitVRBigEndian)), spread(stored))


def test_the_first_window_is_applied_after_the_rescale() -> None:
    stored = values(12)
    data = native(
        stored,
        RescaleSlope="0.5",
        RescaleIntercept="-100",
        WindowCenter=["700", "5"],
        WindowWidth=["900", "5"],
    )
    assert near(shown(data), windowed(stored * 0.5 - 100, 700, 900))


def test_a_negative_slope_turns_the_picture() -> None:
    stored = values(12)
    plain = native(stored, RescaleSlope="-1", RescaleIntercept="4095")
    assert near(shown(plain), spread(-stored.astype(int)))
    window = native(
        stored, RescaleSlope="-1", RescaleIntercept="4095", WindowCenter="2000", WindowWidth="1000"
    )
    assert near(shown(window), windowed(4095.0 - stored, 2000, 1000))


def test_the_other_window_functions() -> None:
    stored = values(12).astype(float)
    exact = native(WindowCenter="2000", WindowWidth="1000", VOILUTFunction="LINEAR_EXACT")
    assert near(shown(exact), spread(stored, 1500, 2500), 1)  # 1: where the share is a half
    sigmoid = native(WindowCenter="2000", WindowWidth="1000", VOILUTFunction="SIGMOID")
    assert near(shown(sigmoid), np.rint(255 / (1 + np.exp(-4 * (stored - 2000) / 1000))).astype(int))


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_a_voi_table_is_scaled_by_its_bits_and_wins_over_the_window(bits: int) -> None:
    stored = values(12).astype(int)
    entries = (np.sqrt(np.arange(3000) / 3000) * (2**bits - 1)).astype(int)
    data = native(VOILUTSequence=dicoms.table(500, entries, bits), WindowCenter="9", WindowWidth="9")
    expected = entries[(stored - 500).clip(0, 2999)] / (2**bits - 1)
    assert near(shown(data), np.rint(expected * 255).astype(int))


def test_a_voi_table_of_signed_values_begins_below_zero() -> None:
    stored = values(12, signed=True).astype(int)
    entries = np.arange(4096) * 16
    data = native(values(12, signed=True), VOILUTSequence=dicoms.table(-2048, entries, 16))
    assert near(shown(data), np.rint((stored + 2048) * 16 / 65535 * 255).astype(int))


def test_a_modality_table_comes_before_the_window() -> None:
    stored = values(12).astype(int)
    entries = (np.arange(4096) ** 2 // 256).astype(int)
    data = native(ModalityLUTSequence=dicoms.table(0, entries, 16), WindowCenter="30000", WindowWidth="40000")
    assert near(shown(data), windowed(entries[stored].astype(float), 30000, 40000))


def test_monochrome1_is_inverted_last() -> None:
    data = native(PhotometricInterpretation="MONOCHROME1", WindowCenter="2000", WindowWidth="1000")
    assert near(shown(data), 255 - windowed(values(12).astype(float), 2000, 1000))


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": "2000", "WindowWidth": "0"},
        {"WindowCenter": "2000", "WindowWidth": "-5"},
        {"WindowCenter": "2000", "WindowWidth": "9", "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": dicoms.table(0, np.arange(4), 3)},
    ],
)
def test_a_window_that_cannot_be_applied_is_left_out_with_a_warning(tags: dict[str, Any]) -> None:
    reading = read(native(**tags))
    assert near(np.asarray(reading.grey).astype(int), spread(values(12)))
    assert reading.warnings == ("The file's window cannot be used; its whole range of values is shown.",)


def test_a_window_that_is_no_number_is_left_out() -> None:
    data = native(WindowCenter="1234567", WindowWidth="1000").replace(b"1234567", b"nan    ")
    assert near(shown(data), spread(values(12)))


def test_empty_windows_are_none() -> None:
    reading = read(native(WindowCenter="", WindowWidth="", VOILUTSequence=[]))
    assert near(np.asarray(reading.grey).astype(int), spread(values(12)))
    assert reading.warnings == ()


@pytest.mark.parametrize(("photometric", "shade"), [("MONOCHROME2", 0), ("MONOCHROME1", 255)])
def test_a_constant_image_is_one_shade(photometric: str, shade: int) -> None:
    stored = np.full((40, 40), 77, np.uint16)
    assert (shown(native(stored, 12, PhotometricInterpretation=photometric)) == shade).all()


def test_a_slope_that_is_no_number_is_refused() -> None:
    data = native(RescaleSlope="1.23456", RescaleIntercept="0").replace(b"1.23456", b"inf    ")
    with pytest.raises(ImageError, match="rescale slope or intercept that is not a number"):
        read(data)


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"NumberOfFrames": "3"}, "has 3 frames; expected one"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is a coloured DICOM image (with a palette)"),
        ({"PhotometricInterpretation": "CMYK"}, "is a DICOM image in colours other than RGB and YBR"),
        ({"SamplesPerPixel": 3}, "has 3 samples per pixel; expected 1"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "has 16 bits per colour; expected 8"),
        ({"BitsAllocated": 32}, "has 32 bits per pixel; expected 8 or 16"),
        ({"HighBit": 16}, "has 12 bits in an unusual place of 16"),
        ({"HighBit": 10}, "has 12 bits in an unusual place of 16"),
        ({"BitsStored": 17, "HighBit": 16}, "has 17 bits in an unusual place of 16"),
        ({"Modality": "CT"}, "is computed tomography by its modality; expected a chest radiograph"),
        ({"Modality": "MG"}, "is mammography"),
        ({"Modality": SECRET[:7].upper()}, "is not radiography by its modality"),
        ({"ViewPosition": "LL"}, "is a lateral view; choose the frontal one"),
        ({"ViewPosition": "LATERAL"}, "is a lateral view"),
        ({"Rows": 8}, "is 64×8 pixels; at least 32×32"),
        ({"Rows": 60000, "Columns": 60000}, f"the limit is {MAX_PIXELS:,} in all"),
        ({"Rows": 4000, "Columns": 400}, "no side may be over 8 times the other"),
        ({"Rows": 480}, "has 6,144 bytes of pixels; expected 61,440"),
        ({"Rows": None}, "is a damaged"),
    ],
)
def test_what_is_no_single_grey_frontal_radiograph_is_refused(tags: dict[str, Any], words: str) -> None:
    assert words in refused(native(**tags))


@pytest.mark.parametrize(
    "tags", [{"ViewPosition": "LLD"}, {"ViewPosition": "AP"}, {"Modality": "DX"}, {"Modality": ""}]
)
def test_frontal_views_of_any_radiography_are_read(tags: dict[str, Any]) -> None:
    assert read(native(**tags)).grey.size == (WIDTH, HEIGHT)


def test_burned_in_text_gives_a_warning() -> None:
    (warning,) = read(native(BurnedInAnnotation="YES")).warnings
    assert "text is burned into the picture" in warning
    assert read(native(BurnedInAnnotation="NO")).warnings == ()


def test_a_dicom_is_grey_and_has_no_colour() -> None:
    reading = read(native())
    assert (reading.grey.mode, reading.colour) == ("L", 0.0)


def test_a_report_has_no_picture() -> None:
    made = dicoms.dataset(values(12), 12, PixelData=b"")
    data = dicoms.written(made, uid.ExplicitVRLittleEndian, b"")
    assert "is DICOM without a picture" in refused(data[: data.rindex(b"\xe0\x7f\x10\0")])


@pytest.mark.parametrize(
    ("syntax", "known"),
    [
        (uid.DeflatedExplicitVRLittleEndian, "Deflated Explicit VR Little Endian"),
        ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression"),
        (uid.HTJ2K, "High-Throughput JPEG 2000"),
        (uid.MPEG2MPML, "MPEG2"),
        ("1.2.826.0.1.3680043.77", "(unknown)"),
    ],
)
def test_other_transfer_syntaxes_are_named_before_anything_is_inflated(syntax: str, known: str) -> None:
    data = native()
    bomb = zlib.compress(bytes(10**6), wbits=-15)
    old = uid.ExplicitVRLittleEndian.encode() + b"\0"
    place = data.index(old)
    new = str(syntax).encode() + b"\0" * (len(syntax) % 2)
    head = data[: place - 2] + struct.pack("<H", len(new)) + new
    text = refused(head + bomb if "Deflated" in known else head + data[place + len(old) :])
    assert "transfer syntax that is not supported" in text
    assert known in text or known.replace("Compression", "") in text or "unknown" in text


def with_frame(kind: str, change: Callable[[bytes], bytes]) -> bytes:
    syntax, frame, bits, _ = COMPRESSED[kind]
    stored = values(bits)
    return dicoms.written(dicoms.dataset(stored, bits), syntax, encapsulate([change(frame(stored))]))


@pytest.mark.parametrize("kind", ["jpeg8", "extended12", "lossless16", "jpegls8", "j2k12"])
def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(kind: str) -> None:
    size = (
        struct.pack(">HH", HEIGHT, WIDTH) if not kind.startswith("j2k") else struct.pack(">II", WIDTH, HEIGHT)
    )
    huge = struct.pack(">HH", 60000, 60000) if len(size) == 4 else struct.pack(">II", 60000, 60000)
    assert "holds 60000×60000 compressed pixels but announces 64×48" in refused(
        with_frame(kind, lambda frame: frame.replace(size, huge, 1))
    )


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_truncated_frame_is_refused_and_never_waited_for(kind: str) -> None:
    refused(with_frame(kind, lambda frame: frame[: len(frame) // 2]))


def test_a_progressive_jpeg_is_no_baseline_jpeg() -> None:
    frame = dicoms.pillow("JPEG", progressive=True)
    assert "damaged" in refused(dicoms.compressed(uid.JPEGBaseline8Bit, frame, values(8), 8))


def test_rle_that_decodes_to_more_than_the_image_is_refused() -> None:
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 3000
    data = dicoms.written(dicoms.dataset(values(8), 8), uid.RLELossless, encapsulate([bomb]))
    assert "damaged" in refused(data)


def test_a_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("built without it")

    monkeypatch.setattr(imagecodecs, "jpeg8_decode", missing)
    text = refused(dicoms.example("lossless16"))
    assert "JPEG Lossless" in text
    assert "install the package imagecodecs" in text
    assert read(dicoms.example("j2k12")).grey.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "start", [b"MZ", b"\x7fELF", b"%PDF-1.7", b"PK\x03\x04", b"\xff\xd8\xff\xe0", b"#!/bin/sh"]
)
def test_a_preamble_that_begins_as_another_file_is_refused(start: bytes) -> None:
    data = native()
    assert "another kind of file too" in refused(start + data[len(start) :])


def test_a_preamble_with_a_tiff_header_is_read() -> None:
    data = native()
    assert read(b"II*\0" + data[4:]).grey.tobytes() == read(data).grey.tobytes()


def test_a_header_of_endless_elements_or_items_is_refused_quickly() -> None:
    head = native()[: native().index(b"\x28\0\x02\0US")]
    elements = struct.pack("<HH2sH", 9, 1, b"LO", 0) * 300_000
    items = (
        struct.pack("<HH2sHI", 9, 1, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_000
    )
    for filler in (elements, items):
        assert "damaged" in refused(head + filler)


def test_a_header_of_deep_nesting_is_refused() -> None:
    head = native()[: native().index(b"\x28\0\x02\0US")]
    opened = struct.pack("<HH2sHI", 9, 1, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    assert "damaged" in refused(head + opened * 5000)


def test_a_window_with_a_million_numbers_is_refused() -> None:
    data = native(WindowCenter=["1"] * 3000, WindowWidth=["1"] * 3000)
    assert "damaged" in refused(data)


CASES: dict[str, Callable[[], bytes]] = {
    "read": lambda: native(BurnedInAnnotation="YES", WindowCenter="0", WindowWidth="0"),
    "damaged": lambda: native().replace(b"\x28\0\x10\0US\x02\0", b"\x28\0\x10\0PN\x02\0"),
    "character set": lambda: native(SpecificCharacterSet="ISO_IR 100").replace(
        b"ISO_IR 100", SECRET[:10].encode()
    ),
    "modality": lambda: native(Modality="QUIXOTE"),
    "view": lambda: native(ViewPosition="QUIXOTE LAT"),
    "photometric": lambda: native(PhotometricInterpretation="QUIXOTE"),
    "slope": lambda: native(RescaleSlope="1.23456", RescaleIntercept="0").replace(b"1.23456", b"Quixote"),
    "window": lambda: native(WindowCenter="1.23456", WindowWidth="9").replace(b"1.23456", b"Quixote"),
    "syntax": lambda: native().replace(b"1.2.840.10008.1.2.1", b"Quixote.10008.1.2.1"),
    "decoder": lambda: with_frame("lossless16", lambda frame: frame[:-300] + SECRET.encode() + frame[-200:]),
    "j2k": lambda: with_frame("j2k12", lambda frame: frame[:200]),
    "rle": lambda: with_frame("rle12", lambda frame: frame[:200]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("always")
def test_no_tag_is_in_any_text(
    case: str,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    data = CASES[case]()
    assert SECRET.encode() in data
    recwarn.clear()
    caplog.clear()
    try:
        reading = read(data)
        texts = [*reading.warnings, repr(reading), repr(reading.grey.info)]
    except ImageError as error:
        texts = [str(error), repr(error.__cause__)]
    texts += [str(warning.message) for warning in recwarn.list] + [caplog.text, *capfd.readouterr()]
    assert not any(word in text.upper() for text in texts for word in ("ZEBEDEE", "QUIXOTE"))
    assert caplog.records == []
    assert recwarn.list == []


def test_reading_in_threads_gives_the_same_pictures_and_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    files = [dicoms.example(kind) for kind in COMPRESSED] + [native()]
    alone = [read(data).grey.tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: read(data).grey.tobytes(), files * 10))
    assert together == alone * 10
    assert warnings.filters == before


def test_reading_a_jpeg_does_not_import_pydicom() -> None:
    code = (
        "import io, sys; from PIL import Image; from xray_hf.reading import read; stream = io.BytesIO();"
        "Image.new('L', (40, 40)).save(stream, 'JPEG'); read(stream.getvalue());"
        "assert not {'pydicom', 'imagecodecs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
