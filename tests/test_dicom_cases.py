"""DICOM files as people have them: one kind of trouble each, in several signs, depths and compressions.

The numbers are those of ../shared/cases/README.md; tests/test_cases.py reads its files.
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dicoms
import imagecodecs
import numpy as np
import pydicom
import pytest
from dicoms import HEIGHT, SECRET, WIDTH, native, values
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from xray_hf.errors import ImageError
from xray_hf.reading import Reading, read


def shown(data: bytes) -> np.ndarray:
    """(H, W) int: the grey values that come out."""
    return np.asarray(read(data).grey).astype(int)


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    return str(caught.value)


def spread(stored: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    low = float(stored.min()) if low is None else low
    high = float(stored.max()) if high is None else high
    return np.rint(((stored.astype(float) - low) / (high - low)).clip(0, 1) * 255).astype(int)


def encoded(kind: str, pixels: np.ndarray, bits: int, **tags: Any) -> bytes:
    """A file with those stored values, native in one of three ways or compressed without loss."""
    depth = pixels.dtype.itemsize * 8
    natives = {"explicit": uid.ExplicitVRLittleEndian, "implicit": uid.ImplicitVRLittleEndian}
    natives["big endian"] = uid.ExplicitVRBigEndian
    if kind in natives:
        return native(pixels, bits, natives[kind], **tags)
    syntax, frame = {
        "rle": (uid.RLELossless, dicoms.rle),
        "j2k": (uid.JPEG2000Lossless, dicoms.j2k()),
        "lossless": (uid.JPEGLosslessSV1, dicoms.jpeg(lossless=True, predictor=1, bitspersample=depth)),
    }[kind]
    unsigned = pixels.view(pixels.dtype.str.replace("i", "u"))
    return dicoms.written(dicoms.dataset(pixels, bits, **tags), syntax, encapsulate([frame(unsigned)]))


EVERY = ("explicit", "implicit", "big endian", "rle", "j2k", "lossless")


# 01: the sign of a table's first value


@pytest.mark.parametrize("kind", ["explicit", "implicit", "rle", "j2k", "lossless"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_table_begins_below_zero_although_no_value_is(kind: str, bits: int) -> None:
    half = 2 ** (bits - 1)
    stored = (values(bits, signed=True).astype(int) + half) // 2  # 0..half-1, of signed pixels
    pixels = stored.astype("i1" if bits == 8 else "i2")
    entries = np.arange(2 * half) * (65535 // (2 * half - 1))
    data = encoded(kind, pixels, bits, VOILUTSequence=dicoms.table(-half, entries, 16))
    assert np.array_equal(shown(data), np.rint(entries[stored + half] / 65535 * 255))


def test_a_voi_table_begins_below_zero_where_only_the_rescale_can_give_such_values() -> None:
    stored = values(12) // 2 + 1024
    entries = np.arange(4096) * 16
    tags = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    data = native(stored, VOILUTSequence=dicoms.table(-1024, entries, 16), **tags)
    assert np.array_equal(shown(data), np.rint(entries[stored.astype(int)] / 65535 * 255))


@pytest.mark.parametrize("kind", EVERY[:2])
@pytest.mark.parametrize("bits", [12, 16])
def test_a_modality_table_begins_below_zero_although_no_value_is(kind: str, bits: int) -> None:
    half = 2 ** (bits - 1)
    stored = (values(bits, signed=True).astype(int) + half) // 2
    entries = np.arange(2 * half)
    data = encoded(kind, stored.astype("i2"), bits, ModalityLUTSequence=dicoms.table(-half, entries, bits))
    assert np.array_equal(shown(data), spread(stored))


def test_a_table_of_unsigned_values_begins_above_32767() -> None:
    stored = values(16) // 2 + 32768
    entries = np.arange(32768) * 2
    data = native(stored, 16, VOILUTSequence=dicoms.table(32768, entries, 16))
    assert np.array_equal(shown(data), np.rint((stored.astype(int) - 32768) * 2 / 65535 * 255))


def test_a_first_value_that_could_be_of_either_sign_is_signed_where_values_can_be_negative() -> None:
    stored = values(16)
    entries = np.arange(65536)
    data = native(stored, 16, RescaleIntercept="-100", VOILUTSequence=dicoms.table(40000, entries, 16))
    places = (stored.astype(int) - 100 - (40000 - 65536)).clip(0, 65535)
    assert np.array_equal(shown(data), np.rint(entries[places] / 65535 * 255))


def test_only_values_that_are_there_count_after_a_modality_table() -> None:
    stored = np.where(values(12) < 1000, 0, np.where(values(12) < 2000, 2048, 4095)).astype(np.uint16)
    entries = np.minimum(np.arange(4096), 4095 - np.arange(4096)) * 8 + np.arange(4096)  # highest in between
    entries[3000] = 60000
    data = native(stored, ModalityLUTSequence=dicoms.table(0, entries, 16))
    assert np.array_equal(shown(data), spread(entries[stored]))


def test_a_first_value_that_no_pixel_could_reach_has_the_other_sign() -> None:
    stored = values(12)
    data = native(stored, VOILUTSequence=dicoms.table(-2048, np.arange(8192) * 8, 16))
    assert np.array_equal(shown(data), np.rint((stored.astype(int) + 2048) * 8 / 65535 * 255))


# 02: tables of other bits than they say


@pytest.mark.parametrize(
    ("says", "holds"), [(16, 8), (16, 10), (16, 12), (16, 14), (12, 10), (8, 12), (8, 16), (12, 16)]
)
def test_a_voi_table_is_scaled_by_the_bits_that_it_holds(says: int, holds: int) -> None:
    entries = np.rint(np.linspace(0, 1, 4096) ** 2 * (2**holds - 1)).astype(int)
    reading = read(native(VOILUTSequence=dicoms.table(0, entries, says)))
    expected = np.rint(entries[values(12)] / (2**holds - 1) * 255)
    assert np.array_equal(np.asarray(reading.grey), expected)
    assert "does not have the bit depth that it states" in " ".join(reading.warnings)


@pytest.mark.parametrize("top", [40_000, 20_000])
def test_a_voi_table_that_stops_below_white_is_no_table_of_fewer_bits(top: int) -> None:
    entries = np.arange(4096) * top // 4095
    reading = read(native(VOILUTSequence=dicoms.table(0, entries, 16)))
    assert np.array_equal(np.asarray(reading.grey), np.rint(entries[values(12)] / 65535 * 255))
    assert reading.warnings == ()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [255, 256, 4096])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_entries_of_8_bits_lie_in_words_or_packed(count: int, packed: bool, syntax: str) -> None:
    stored = values(12)
    entries = np.linspace(0, 255, count).astype(int) ^ 1
    made = dicoms.table(0, entries, 8, packed=packed)
    if syntax == uid.ExplicitVRBigEndian:  # pydicom writes the bytes of OW as they are
        made[0]["LUTData"].value = np.frombuffer(made[0].LUTData, "<u2").astype(">u2").tobytes()
    data = native(stored, 12, syntax, VOILUTSequence=made)
    assert np.array_equal(shown(data), entries[stored.astype(int).clip(max=count - 1)])


def test_a_count_of_0_is_65536() -> None:
    stored = values(16)
    entries = np.arange(65536) ^ 0xFF
    assert np.array_equal(
        shown(native(stored, 16, VOILUTSequence=dicoms.table(0, entries, 16))),
        np.rint(entries[stored] / 65535 * 255),
    )


@pytest.mark.parametrize("held", [3000, 2049])  # more bytes than entries announced, so not packed ones
def test_a_table_with_fewer_entries_than_it_announces_is_not_used(held: int) -> None:
    made = dicoms.table(0, np.arange(held) * 16, 16, count=4096)
    reading = read(native(VOILUTSequence=made))
    assert np.array_equal(np.asarray(reading.grey), spread(values(12)))
    assert reading.warnings == ("The file's window cannot be used; its whole range of values is shown.",)
    assert "an incomplete modality table" in refused(native(ModalityLUTSequence=made))


# 03, 04: slope and intercept


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    ("tags", "slope", "intercept"),
    [
        ({"RescaleSlope": "2"}, 2, 0),
        ({"RescaleIntercept": "-1000"}, 1, -1000),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, 1, 0),
        ({"RescaleSlope": "", "RescaleIntercept": "-1000"}, 1, -1000),
        ({"RescaleSlope": "2", "RescaleIntercept": ""}, 2, 0),
    ],
)
def test_a_missing_or_empty_slope_is_1_and_intercept_0(
    kind: str, tags: dict[str, str], slope: float, intercept: float
) -> None:
    stored = values(12, signed=kind in ("rle", "explicit"))
    low, width = int(stored.min()) * slope + intercept, 4096 * slope
    data = encoded(kind, stored, 12, WindowCenter=str(low + width / 2), WindowWidth=str(width), **tags)
    share = (stored.astype(float) * slope + intercept - (low + width / 2 - 0.5)) / (width - 1) + 0.5
    assert np.array_equal(shown(data), np.rint(share.clip(0, 1) * 255))


@pytest.mark.parametrize("kind", ["explicit", "implicit", "rle"])
@pytest.mark.parametrize("slope", ["0", "0.0", "-0"])
def test_a_slope_of_0_is_left_out_with_a_warning(kind: str, slope: str) -> None:
    tags = {"RescaleSlope": slope, "RescaleIntercept": "0", "WindowCenter": "2048", "WindowWidth": "4096"}
    reading = read(encoded(kind, values(12), 12, **tags))
    assert np.array_equal(np.asarray(reading.grey), spread(values(12)))
    assert reading.warnings == ("The file's rescale slope is 0, so it was left out.",)


# 05: padding


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("bits", "signed", "padding"), [(16, False, 65535), (12, True, -2048), (16, True, -32768), (12, False, 0)]
)
def test_padding_is_black_and_out_of_the_scaling(
    kind: str, photometric: str, bits: int, signed: bool, padding: int
) -> None:
    stored = values(12, signed).astype("i2" if signed else "u2") // 4 + 100
    inside = spread(stored)
    if photometric == "MONOCHROME1":
        inside = 255 - inside
    stored[:, :9] = stored[:, -9:] = padding
    inside = spread(stored, stored[:, 9:-9].min(), stored[:, 9:-9].max())
    inside = 255 - inside if photometric == "MONOCHROME1" else inside
    inside[:, :9] = inside[:, -9:] = 0
    made = dicoms.dataset(stored, bits, PhotometricInterpretation=photometric)
    made.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
    tags = {"PhotometricInterpretation": photometric, "PixelPaddingValue": made["PixelPaddingValue"].value}
    assert np.array_equal(shown(encoded(kind, stored, bits, **tags)), inside)


@pytest.mark.parametrize(("value", "limit"), [(0, 50), (50, 0), (50, 50)])
def test_a_range_of_padding_is_given_in_either_order(value: int, limit: int) -> None:
    stored = values(12) // 2 + 1000
    stored[:9] = np.arange(9)[:, None] * 6 if value != limit else 50
    expected = spread(stored, stored[9:].min())
    expected[:9] = 0
    assert np.array_equal(
        shown(native(stored, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)), expected
    )


def test_padding_of_more_bits_than_stored_does_not_hide_white() -> None:
    stored = values(12)
    stored[:9] = 65535
    expected = spread(stored[9:])
    assert expected.max() == 255
    assert np.array_equal(shown(native(stored, 12, PixelPaddingValue=65535))[9:], expected)
    assert not shown(native(stored, 12, PixelPaddingValue=65535))[:9].any()


def test_a_picture_of_nothing_but_padding_is_shown_as_it_is() -> None:
    assert not shown(native(np.full((40, 40), 7, np.uint16), PixelPaddingValue=7)).any()


# 06: fragments


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_jp2_file_is_read_as_its_code_stream(bits: int) -> None:
    stored = values(bits)
    jp2 = bytes(imagecodecs.jpeg2k_encode(stored, level=None, reversible=True, codecformat="JP2"))
    assert jp2[4:8] == b"jP  "
    data = dicoms.compressed(uid.JPEG2000Lossless, lambda _: jp2, stored, bits)
    assert np.array_equal(shown(data), spread(stored))
    cut = dicoms.written(dicoms.dataset(stored, bits), uid.JPEG2000Lossless, encapsulate([jp2[:60]]))
    assert "damaged" in refused(cut)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_code_streams_of_jpeg_2000(bits: int) -> None:
    stored = values(bits, signed=True)
    assert np.array_equal(
        shown(dicoms.compressed(uid.JPEG2000Lossless, dicoms.j2k(), stored, bits)), spread(stored)
    )


@pytest.mark.parametrize("kind", ["rle12", "extended12", "lossless16", "jpegls12", "j2k12"])
@pytest.mark.parametrize("listed", [False, True])
def test_one_frame_in_several_fragments(kind: str, listed: bool) -> None:
    syntax, frame, bits, _ = dicoms.COMPRESSED[kind]
    stored = values(bits)
    parts = dicoms.fragments(frame(stored))
    offsets = (
        np.cumsum([0] + [8 + len(part) for part in parts[:-1]]).astype("<u4").tobytes() if listed else b""
    )
    items = [struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in [offsets, *parts]]
    data = dicoms.written(dicoms.dataset(stored, bits), syntax, b"".join(items))
    assert np.array_equal(shown(data), shown(dicoms.example(kind)))


# 07: no preamble, no file meta


@pytest.mark.parametrize("kind", ["explicit", "implicit", "big endian", "rle", "j2k"])
def test_files_without_a_preamble(kind: str) -> None:
    data = encoded(kind, values(12), 12)
    assert np.array_equal(shown(data[132:]), shown(data))
    assert np.array_equal(shown(data[128:]), shown(data))


@pytest.mark.parametrize("kind", ["explicit", "implicit", "big endian"])
@pytest.mark.parametrize("bits", [8, 12])
def test_files_without_file_meta(kind: str, bits: int) -> None:
    data = encoded(kind, values(bits), bits)
    assert np.array_equal(shown(dicoms.bare(data)), shown(data))
    assert np.array_equal(shown(data[:132] + dicoms.bare(data)), shown(data))


@pytest.mark.parametrize("kind", ["rle", "j2k", "lossless"])
def test_compressed_files_without_file_meta_say_what_is_missing(kind: str) -> None:
    data = encoded(kind, values(12), 12)
    text = refused(dicoms.bare(data))
    assert "does not say how its pixels are compressed (it has no transfer syntax); export it again" in text


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\0\x05\0" + bytes(range(256)),
        b"\x08\0\x12\0" + b"\xff" * 300,
        b"\x02\0\0\0UL\x04\0\xff\xff\0\0",
        b"\0\x08\0\x05" + b"note" * 99,
        b"\x02\0\x10\0" + np.random.default_rng(0).bytes(5000),
    ],
)
def test_what_begins_as_dicom_by_chance_is_no_image(data: bytes) -> None:
    assert "is not a readable image; expected one of PNG" in refused(data)


@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_a_stated_syntax_of_the_other_kind_of_vr_is_seen_through(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    data = encoded(kind, values(12), 12)
    stated, other = (
        (each + "\0" * (len(each) % 2)).encode()
        for each in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
    )
    stated, other = (stated, other) if kind == "explicit" else (other, stated)
    at = data.index(stated) - 2
    (length,) = struct.unpack_from("<I", data, 140)
    wrong = data[:at] + struct.pack("<H", len(other)) + other + data[at + 2 + len(stated) :]
    wrong = wrong[:140] + struct.pack("<I", length + len(other) - len(stated)) + wrong[144:]
    assert np.array_equal(shown(wrong), shown(data))


# 08: laterals and other parts of the body


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "RL"},
        {"ViewPosition": "PROFIL"},
        {"ViewCodeSequence": dicoms.code("R-10236", "SRT", "left lateral")},
        {"ViewCodeSequence": dicoms.code("R-10232", "SRT", "vue de profil droit")},
        {"ViewCodeSequence": dicoms.code("399067008", "SCT", "seitlich")},
        {"ViewCodeSequence": dicoms.code("399173006", "SCT", "")},
        {"ViewCodeSequence": dicoms.code("17", "99LOCAL", "Chest lateral")},
        {"SeriesDescription": "CHEST LAT"},
        {"SeriesDescription": "W034 Thorax_LATERAL"},
        {"ProtocolName": "Thorax seitl."},
        {"SeriesDescription": "Poumons de profil"},
        {"PatientOrientation": ["A", "F"]},
        {"PatientOrientation": ["P", "FA"]},
    ],
)
def test_whatever_says_lateral_refuses_laterals(tags: dict[str, Any]) -> None:
    assert "is a lateral view; choose the frontal one (PA or AP)." in refused(
        native(**{"ViewPosition": "", **tags})
    )


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "PA", "SeriesDescription": "CHEST LAT"},
        {"ViewCodeSequence": dicoms.code("R-10214", "SRT", "postero-anterior"), "SeriesDescription": "LAT"},
        {"SeriesDescription": "CHEST PA AND LATERAL"},
        {"SeriesDescription": "Thorax p.a./lat."},
        {"SeriesDescription": "LEFT LATERAL DECUBITUS"},
        {"SeriesDescription": "BILATERAL RIBS"},
        {"SeriesDescription": "COLLATERAL FLOW"},
        {"ViewPosition": "LLD"},
        {"PatientOrientation": ["L", "F"]},
        {"PatientOrientation": ""},
        {"ViewCodeSequence": dicoms.code("399184004", "SCT", "left oblique")},
    ],
)
def test_frontal_views_are_read(tags: dict[str, Any]) -> None:
    assert read(native(**{"ViewPosition": "", **tags})).warnings == ()


@pytest.mark.parametrize("letters", [["R", "F"], ["L", "H"], ["F", "R"], ["RF", "FL"]])
def test_a_picture_that_is_turned_by_its_header_is_shown_as_it_is_with_a_warning(letters: list[str]) -> None:
    reading = read(native(PatientOrientation=letters))
    assert np.array_equal(np.asarray(reading.grey), spread(values(12)))
    assert "mirrored, turned or upside down" in " ".join(reading.warnings)


@pytest.mark.parametrize(
    "tags",
    [
        {"BodyPartExamined": "ABDOMEN"},
        {"BodyPartExamined": "KNEE"},
        {"BodyPartExamined": "HAND"},
        {"BodyPartExamined": "TSPINE"},
        {"BodyPartExamined": "SKULL "},
        {"AnatomicRegionSequence": dicoms.code("T-D1100", "SRT", "Kopf")},
        {"AnatomicRegionSequence": dicoms.code("818981001", "SCT", "Bauch")},
        {"AnatomicRegionSequence": dicoms.code("1", "99LOCAL", "Left knee")},
    ],
)
def test_other_parts_of_the_body_are_refused(tags: dict[str, Any]) -> None:
    assert "a part of the body other than the chest, by its header" in refused(native(**tags))


@pytest.mark.parametrize(
    "tags",
    [
        *(
            {"BodyPartExamined": part}
            for part in ("CHEST", "THORAX", "LUNG", "RIBS", "HEART", "CHESTABDOMEN", "XYZ", "")
        ),
        {"AnatomicRegionSequence": dicoms.code("816094009", "SCT", "Brustkorb")},
        {"AnatomicRegionSequence": dicoms.code("416550000", "SCT", "Chest and Abdomen")},
    ],
)
def test_the_chest_and_unknown_words_are_read(tags: dict[str, Any]) -> None:
    assert read(native(**tags)).grey.size == (WIDTH, HEIGHT)


# 09: colours


GREY = values(8)
YCBCR = np.stack([GREY, np.full_like(GREY, 128), np.full_like(GREY, 128)], axis=2)
RGB = np.stack([GREY] * 3, axis=2)


def subsampled(ycbcr: np.ndarray) -> bytes:
    """YBR_FULL_422: Y Y Cb Cr for two pixels."""
    pairs = np.stack([ycbcr[:, ::2, 0], ycbcr[:, 1::2, 0], ycbcr[:, ::2, 1], ycbcr[:, ::2, 2]], axis=2)
    return pairs.tobytes()


def colour(photometric: str, syntax: str, pixels: bytes, **tags: Any) -> bytes:
    made = dicoms.dataset(RGB, 8, PhotometricInterpretation=photometric, Modality="OT", **tags)
    return dicoms.written(made, syntax, encapsulate([pixels]) if uid.UID(syntax).is_compressed else pixels)


def planes(pixels: np.ndarray) -> bytes:
    return pixels.transpose(2, 0, 1).tobytes()


def rle_colour(pixels: np.ndarray) -> bytes:
    frames = [dicoms.rle(np.ascontiguousarray(pixels[..., channel]))[64:] for channel in range(3)]
    offsets = np.cumsum([64] + [len(frame) for frame in frames[:2]])
    return struct.pack("<16I", 3, *offsets, *[0] * 12) + b"".join(frames)


RAW = {"colorspace": "rgb", "outcolorspace": "rgb"}
COLOURS: dict[str, tuple[bytes, int]] = {
    "rgb": (colour("RGB", uid.ExplicitVRLittleEndian, RGB.tobytes()), 0),
    "rgb implicit": (colour("RGB", uid.ImplicitVRLittleEndian, RGB.tobytes()), 0),
    "rgb planes": (colour("RGB", uid.ExplicitVRLittleEndian, planes(RGB), PlanarConfiguration=1), 0),
    "ybr": (colour("YBR_FULL", uid.ExplicitVRLittleEndian, YCBCR.tobytes()), 0),
    "ybr planes": (colour("YBR_FULL", uid.ExplicitVRLittleEndian, planes(YCBCR), PlanarConfiguration=1), 0),
    "ybr 422": (colour("YBR_FULL_422", uid.ExplicitVRLittleEndian, subsampled(YCBCR)), 0),
    "rle rgb": (colour("RGB", uid.RLELossless, rle_colour(RGB), PlanarConfiguration=1), 0),
    "rle ybr": (colour("YBR_FULL", uid.RLELossless, rle_colour(YCBCR)), 0),
    "jpeg": (colour("YBR_FULL_422", uid.JPEGBaseline8Bit, dicoms.pillow("JPEG", quality=98)(RGB)), 3),
    "jpeg rgb": (colour("RGB", uid.JPEGBaseline8Bit, dicoms.jpeg(level=98, **RAW)(RGB)), 3),
    "jpeg of ybr under rgb": (colour("RGB", uid.JPEGBaseline8Bit, dicoms.pillow("JPEG", quality=98)(RGB)), 3),
    "lossless": (colour("RGB", uid.JPEGLosslessSV1, dicoms.jpeg(lossless=True, **RAW)(RGB)), 0),
    "lossless ybr": (colour("YBR_FULL", uid.JPEGLossless, dicoms.jpeg(lossless=True, **RAW)(YCBCR)), 0),
    "jpeg-ls": (colour("RGB", uid.JPEGLSLossless, dicoms.jpeg_ls()(RGB)), 0),
    "j2k rct": (colour("YBR_RCT", uid.JPEG2000Lossless, dicoms.j2k()(RGB)), 0),
    "j2k ict": (colour("YBR_ICT", uid.JPEG2000, dicoms.j2k(reversible=False)(RGB)), 4),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_a_grey_xray_in_colours_is_read_as_grey(kind: str) -> None:
    data, error = COLOURS[kind]
    reading = read(data)
    assert np.abs(np.asarray(reading.grey).astype(int) - GREY).max() <= error
    assert reading.colour < 0.01


@pytest.mark.parametrize("kind", ["rgb", "planes", "jpeg"])
def test_colours_are_measured(kind: str) -> None:
    picture = np.stack([GREY, 255 - GREY, GREY], axis=2)
    data = {
        "rgb": lambda: colour("RGB", uid.ExplicitVRLittleEndian, picture.tobytes()),
        "planes": lambda: colour("RGB", uid.ExplicitVRLittleEndian, planes(picture), PlanarConfiguration=1),
        "jpeg": lambda: colour("YBR_FULL_422", uid.JPEGBaseline8Bit, dicoms.pillow("JPEG")(picture)),
    }[kind]()
    reading = read(data)
    assert abs(reading.colour - 0.5) < 0.05
    luma = picture.astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(np.asarray(reading.grey) - luma).max() < 8


# 10: no photometric interpretation


@pytest.mark.parametrize("kind", ["explicit", "implicit", "j2k"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_photometric_interpretation_is_named(kind: str, value: str | None) -> None:
    text = refused(encoded(kind, values(12), 12, PhotometricInterpretation=value))
    assert (
        "photometric interpretation is missing); expected MONOCHROME1 or MONOCHROME2. Export it again."
        in text
    )


# 11: windows beside the values


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("center", ["-1000", "9000"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", ""])
def test_a_window_in_which_no_value_lies_is_left_out_with_a_warning(
    kind: str, center: str, function: str
) -> None:
    reading = read(
        encoded(kind, values(12), 12, WindowCenter=center, WindowWidth="100", VOILUTFunction=function)
    )
    assert np.array_equal(np.asarray(reading.grey), spread(values(12)))
    assert reading.warnings == ("The file's window cannot be used; its whole range of values is shown.",)


def test_the_next_window_is_shown_where_the_first_shows_nothing() -> None:
    reading = read(native(WindowCenter=["-1000", "2048", "9"], WindowWidth=["100", "4096", "9"]))
    assert np.array_equal(np.asarray(reading.grey), spread(values(12)))
    assert "the next one is shown" in " ".join(reading.warnings)


def test_no_more_windows_are_tried_than_any_viewer_offers() -> None:
    assert (
        "cannot be used"
        in read(native(WindowCenter=["-9"] * 16 + ["2048"], WindowWidth=["4"] * 16 + ["4096"])).warnings[0]
    )


def test_a_window_between_the_values_shows_nothing() -> None:
    stored = np.where(values(12) < 2000, 0, 4095).astype(np.uint16)
    assert "cannot be used" in " ".join(read(native(stored, WindowCenter="2000", WindowWidth="100")).warnings)


# 12: several tables


@pytest.mark.parametrize("kind", EVERY[:3])
def test_the_first_of_nine_large_tables_is_applied(kind: str) -> None:
    entries = (np.arange(65536) * 16).clip(max=65535)
    tables = [*dicoms.table(0, entries, 16), *(dicoms.table(0, 65535 - entries, 16)[0] for _ in range(8))]
    if kind == "big endian":
        for item in tables:
            item["LUTData"].value = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
    data = encoded(kind, values(12), 12, VOILUTSequence=tables, WindowCenter="5", WindowWidth="9")
    assert np.array_equal(shown(data), np.rint(entries[values(12)] / 65535 * 255))
    assert read(data).warnings == ()


def test_the_window_is_applied_where_no_table_can_be() -> None:
    tables = dicoms.table(0, np.arange(9), 16, count=4096)
    reading = read(native(VOILUTSequence=tables, WindowCenter="2048", WindowWidth="4096"))
    assert np.array_equal(np.asarray(reading.grey), spread(values(12)))
    assert "the next one is shown" in " ".join(reading.warnings)


# Bits, photometric interpretation, proportions


@pytest.mark.parametrize("kind", ["explicit", "implicit", "big endian", "rle"])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_are_taken_from_where_the_header_says(kind: str, signed: bool) -> None:
    stored = values(12, signed)
    assert np.array_equal(shown(encoded(kind, stored << 4 | 9, 12, HighBit=15)), spread(stored))
    assert np.array_equal(shown(encoded(kind, stored << 2, 12, HighBit=13)), spread(stored))


@pytest.mark.parametrize("kind", ["explicit", "big endian", "rle"])
@pytest.mark.parametrize("signed", [False, True])
def test_overlays_in_unused_bits_are_not_shown(kind: str, signed: bool) -> None:
    stored = values(10, signed) // 2 + 100
    overlay = (np.arange(HEIGHT)[:, None] % 2 << 14).astype(stored.dtype)
    assert np.array_equal(shown(encoded(kind, stored & 0x3FF | overlay, 10)), spread(stored))


@pytest.mark.parametrize("kind", EVERY)
def test_signed_values_need_no_sign_in_the_unused_bits(kind: str) -> None:
    stored = values(12, signed=True) // 3
    assert np.array_equal(shown(encoded(kind, stored & 0xFFF, 12)), spread(stored))


@pytest.mark.parametrize(
    ("photometric", "shape", "warns"),
    [
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_the_presentation_shape_does_not_invert_again(photometric: str, shape: str, warns: bool) -> None:
    reading = read(native(PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    expected = spread(values(12))
    assert np.array_equal(
        np.asarray(reading.grey), 255 - expected if photometric == "MONOCHROME1" else expected
    )
    assert ("contradicts itself" in " ".join(reading.warnings)) == warns


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, (WIDTH, 2 * HEIGHT)),
        ({"PixelSpacing": ["0.1", "0.2"]}, (2 * WIDTH, HEIGHT)),
        ({"ImagerPixelSpacing": ["0.15", "0.1"]}, (WIDTH, 72)),
        ({"PixelAspectRatio": ["4", "3"]}, (WIDTH, 64)),
        ({"PixelSpacing": ["0.1", "0.1"], "PixelAspectRatio": ["4", "3"]}, (WIDTH, HEIGHT)),
        ({"PixelSpacing": ["0.1", "0.1009"]}, (WIDTH, HEIGHT)),
        ({"PixelSpacing": ["0.1", "0.1018"]}, (WIDTH + 1, HEIGHT)),
        ({"PixelSpacing": ["0", "0"], "PixelAspectRatio": ["1", "1"]}, (WIDTH, HEIGHT)),
        ({"PixelSpacing": ""}, (WIDTH, HEIGHT)),
    ],
)
def test_pixels_that_are_not_square_are_resampled(tags: dict[str, Any], size: tuple[int, int]) -> None:
    reading = read(native(**tags))
    assert reading.grey.size == size
    assert reading.warnings == ()
    assert abs(np.asarray(reading.grey).mean() - spread(values(12)).mean()) < 1


def test_a_ratio_that_no_detector_has_is_left_out_with_a_warning() -> None:
    reading = read(native(PixelAspectRatio=["100", "1"]))
    assert reading.grey.size == (WIDTH, HEIGHT)
    assert "ratio that no detector has" in " ".join(reading.warnings)


# Other DICOM objects


@pytest.mark.parametrize(
    ("sop_class", "modality", "words"),
    [
        (uid.BasicTextSRStorage, "SR", "is a structured report; choose the file with the X-ray"),
        (
            uid.MediaStorageDirectoryStorage,
            None,
            "is a DICOMDIR, the list of a disc's files; choose the file",
        ),
        (uid.EncapsulatedPDFStorage, "DOC", "is a document (PDF or other) in DICOM; export the page"),
        (uid.GrayscaleSoftcopyPresentationStateStorage, "PR", "is a presentation state"),
        (uid.TwelveLeadECGWaveformStorage, "ECG", "is a waveform"),
    ],
)
def test_other_objects_are_named(sop_class: str, modality: str | None, words: str) -> None:
    made = Dataset()
    made.file_meta = dicoms.FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = sop_class, "1.2.3"
    made.SOPClassUID, made.SOPInstanceUID, made.PatientName = sop_class, "1.2.3", SECRET
    if modality:
        made.Modality = modality
    data = saved(made)
    assert words in refused(data)
    assert words in refused(dicoms.bare(data))


def saved(made: Dataset) -> bytes:
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    stream = dicoms.io.BytesIO()
    dicoms.dcmwrite(stream, made, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_float_pixels_are_named(keyword: str, dtype: str) -> None:
    made = dicoms.dataset(values(12), 12)
    setattr(made, keyword, values(12).astype(dtype).tobytes())
    assert "has pixels of floating-point numbers; expected integers" in refused(saved(made))


# pydicom in the same process


def noise(caplog: pytest.LogCaptureFixture) -> tuple[list[str], list[str]]:
    """What pydicom itself warns and logs about one bad value."""
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = Dataset()
        made.add_new("PatientID", "LO", "x" * 65)
        pydicom.dataelem.DataElement("Modality", "CS", "not a code", validation_mode=pydicom.config.WARN)
        logging.getLogger("pydicom.pixels.utils").warning("of a decoder")
    return [str(each.message) for each in caught], [record.getMessage() for record in caplog.records]


def test_pydicom_warns_and_logs_as_without_us(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    before, mode = noise(caplog), pydicom.config.settings.reading_validation_mode
    assert any("not a code" in text for text in before[0])
    assert any("not a code" in text for text in before[1])
    assert "of a decoder" in before[1]
    read(native(SpecificCharacterSet="ISO_IR 100").replace(b"ISO_IR 100", b"ISO_IR 999"))
    refused(native()[:400])
    assert noise(caplog) == before
    assert pydicom.config.settings.reading_validation_mode == mode
    assert mode == pydicom.config.WARN


def test_pydicom_warns_in_other_threads_while_we_read(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    bad = native(SpecificCharacterSet="ISO_IR 100").replace(b"ISO_IR 100", b"ISO_IR 999")
    done = threading.Event()

    def ours() -> int:
        count = 0
        while not done.is_set() or count < 20:
            read(bad)
            count += 1
        return count

    def theirs() -> int:
        for _ in range(200):
            pydicom.dataelem.DataElement("Modality", "CS", "not a code", validation_mode=pydicom.config.WARN)
        done.set()
        return 200

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(ours) for _ in range(2)]
        warned = pool.submit(theirs)
        assert warned.result() == 200
        assert min(each.result() for each in reading) >= 20
    assert [str(each.message)[:20] for each in recwarn.list] == [str(recwarn.list[0].message)[:20]] * 200


def test_settings_of_pydicom_do_not_change_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    monkeypatch.setattr(pydicom.config, "use_DS_decimal", True)
    data = native(WindowCenter="2000", WindowWidth="1000", ViewPosition="PA").replace(
        b"CS\x02\0PA", b"CS\x02\0p."
    )
    grey = read(data)
    monkeypatch.undo()
    assert isinstance(grey, Reading)
    assert grey.grey.tobytes() == read(data).grey.tobytes()


# Found by a second reader


@pytest.mark.parametrize(
    ("centers", "widths"),
    [
        (["", "2048"], ["400", "4096"]),
        (["100", "2048"], ["", "4096"]),
        (["", "2048"], ["", "4096"]),
    ],
)
def test_an_empty_window_takes_no_number_of_the_next(centers: list[str], widths: list[str]) -> None:
    data = native(WindowCenter=centers, WindowWidth=widths)
    expected = native(WindowCenter="2048", WindowWidth="4096")
    assert np.array_equal(shown(data), shown(expected))
    assert read(data).warnings != ()


def test_a_modality_table_of_16_bits_begins_below_zero() -> None:
    entries = np.concatenate([np.zeros(100, int), np.arange(4096)])
    data = native(values(12).astype(np.uint16), 16, ModalityLUTSequence=dicoms.table(-100, entries, 12))
    assert np.abs(shown(data) - spread(values(12))).max() <= 1


@pytest.mark.parametrize("kind", ["jpegls16", "j2k16"])
def test_an_overlay_in_unused_bits_is_cut_from_numbers_without_loss(kind: str) -> None:
    frame = dicoms.jpeg_ls() if kind == "jpegls16" else dicoms.j2k()
    syntax = uid.JPEGLSLossless if kind == "jpegls16" else uid.JPEG2000Lossless
    overlay = np.zeros((HEIGHT, WIDTH), np.uint16)
    overlay[9:20, 9:30] = 0x1000
    window = {"WindowCenter": "2048", "WindowWidth": "4096"}
    found = shown(dicoms.compressed(syntax, frame, values(12) | overlay, 12, **window))
    assert np.array_equal(found, shown(native(**window)))
    high = dicoms.compressed(syntax, frame, values(12) << 4, 12, HighBit=15, **window)
    assert np.array_equal(shown(high), shown(native(**window)))


@pytest.mark.parametrize("bits", [8, 12])
def test_a_table_with_one_entry_too_high_keeps_its_bits(bits: int) -> None:
    entries = np.arange(1, 4097) * 2**bits // 4096  # the last needs one bit more
    data = native(VOILUTSequence=dicoms.table(0, entries, bits))
    assert np.abs(shown(data) - spread(values(12))).max() <= 1


def grey_as_colours(photometric: str, samples: np.ndarray) -> bytes:
    """Native samples (H, W, 3) uint8 that the header calls something."""
    made = dicoms.dataset(samples[..., 0], 8, SamplesPerPixel=3, PhotometricInterpretation=photometric)
    made.PlanarConfiguration = 0
    return dicoms.written(made, uid.ExplicitVRLittleEndian, samples.tobytes())


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("others", ["equal", "neutral"])
def test_a_grey_picture_in_colours_is_read_whatever_the_header_calls_them(
    photometric: str, others: str
) -> None:
    grey = values(8)
    rest = grey if others == "equal" else np.full_like(grey, 128)
    reading = read(grey_as_colours(photometric, np.dstack([grey, rest, rest])))
    assert np.abs(np.asarray(reading.grey).astype(int) - grey).max() <= 1
    assert reading.colour < 0.02


@pytest.mark.parametrize(
    "tags",
    [
        {"BodyPartExamined": "CHEST LAT"},
        {"SeriesDescription": "Torax perfil"},
        {"SeriesDescription": "Thorax LL"},
        {"SeriesDescription": "Chest LLAT"},
        {"SeriesDescription": "CHESTLAT"},
        {"ProtocolName": "CHEST SIDE VIEW"},
    ],
)
def test_more_words_for_laterals(tags: dict[str, str]) -> None:
    assert "is a lateral view" in refused(native(ViewPosition=None, **tags))


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "PA", "PatientOrientation": ["PL", "F"]},
        {"ViewPosition": None, "PatientOrientation": "PA"},
        {"ViewPosition": None, "SeriesDescription": "Default Profile"},
        {"ViewPosition": None, "SeriesDescription": "CHEST PA", "ProtocolName": "CHEST LAT"},
    ],
)
def test_what_is_said_to_be_frontal_is_read(tags: dict[str, Any]) -> None:
    assert read(native(**tags)).grey.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("part", ["KUB", "LHAND", "BECKEN", "BWS", "KNIE", "GENOU"])
def test_more_words_for_other_parts_of_the_body(part: str) -> None:
    assert "a part of the body other than the chest" in refused(native(BodyPartExamined=part))


@pytest.mark.parametrize("tag", [b"\xfa\xff\xfa\xff", b"\xfc\xff\xfc\xff"])
def test_what_follows_the_place_of_the_pixels_is_no_picture(tag: bytes) -> None:
    data = native()
    start = data.rindex(b"\xe0\x7f\x10\0")
    assert "is DICOM without a picture" in refused(data[:start] + tag + b"OB\0\0\4\0\0\0\0\0\0\0")
