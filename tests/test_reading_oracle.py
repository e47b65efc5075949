"""Random PNG and TIFF files against decoders that the reader does not use, to one grey level.

XRAY_HF_ORACLE sets how many of each.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Any

import numpy as np
import png  # type: ignore[import-untyped]  # pypng
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray_hf.reading import read

COUNT = int(os.environ.get("XRAY_HF_ORACLE", "150"))
SETTINGS = settings(
    max_examples=COUNT, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
DEPTHS = (8, 10, 12, 14, 16)


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W) of 0..1, from 0 to 1: waves and noise, so that every part of the range has pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / rng.uniform(5, 20)) + np.cos(y / rng.uniform(5, 20)) + rng.uniform(0, 0.3, x.shape)
    ranks = waves.ravel().argsort().argsort().reshape(waves.shape)  # equalised
    return ranks / (ranks.size - 1)


def shown(data: bytes) -> np.ndarray:
    return np.asarray(read(data).grey).astype(float)


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 of (H, W, 3)."""
    return rgb @ np.array([0.299, 0.587, 0.114])


sizes = st.tuples(st.integers(40, 70), st.integers(40, 70))


@SETTINGS
@given(
    size=sizes,
    seed=st.integers(0, 2**31),
    bits=st.sampled_from((1, 2, 4, *DEPTHS)),
    colours=st.sampled_from(("grey", "grey and alpha", "rgb", "rgba")),
    interlaced=st.booleans(),
    stated=st.booleans(),
)
def test_png(
    size: tuple[int, int], seed: int, bits: int, colours: str, interlaced: bool, stated: bool
) -> None:
    depth = bits if bits <= 8 else 16
    if depth < 8:
        colours = "grey"  # the standard has no other of these depths, palettes aside
    channels = [smooth(*size, seed + number) for number in range(3 if "rgb" in colours else 1)]
    alpha = [smooth(*size, seed + 9)] if "a" in colours.removeprefix("grey") else []
    values = np.rint(np.dstack(channels) * (2**bits - 1)).astype(np.uint16)
    opacity = np.rint(np.dstack(alpha) * (2**depth - 1)).astype(np.uint16) if alpha else None
    whole = values if opacity is None else np.dstack([values, opacity])
    options: dict[str, Any] = {"greyscale": "grey" in colours, "alpha": bool(alpha), "bitdepth": depth}
    stream = io.BytesIO()
    png.Writer(*size[::-1], interlace=interlaced, **options).write(
        stream, whole.reshape(size[0], -1).tolist()
    )
    data = stream.getvalue()
    if stated and depth == 16:
        data = with_chunk(data, b"sBIT", bytes([bits]) * whole.shape[2])
    _, _, rows, _ = png.Reader(bytes=data).read()
    decoded = np.array([list(row) for row in rows], float).reshape(whole.shape)
    eight = np.rint(decoded[..., : values.shape[2]] * 255 / (2**bits - 1))
    expected = luma(eight) if "rgb" in colours else eight[..., 0]
    if opacity is not None:
        expected *= decoded[..., -1] / (2**depth - 1)
    assert np.abs(shown(data) - expected).max() <= 1.5  # one grey level, and the rounding of luma and alpha


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """The PNG with a chunk after its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]


@SETTINGS
@given(
    size=sizes,
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")),
    bits=st.sampled_from(DEPTHS),
    photometric=st.sampled_from(("minisblack", "miniswhite", "rgb")),
    planar=st.booleans(),
    alpha=st.booleans(),
    tile=st.sampled_from((None, (16, 32), (64, 64))),
    compression=st.sampled_from((None, "lzw", "deflate", "packbits", "zstd", "lzma")),
    predictor=st.booleans(),
    big_endian=st.booleans(),
    big=st.booleans(),
    rows=st.sampled_from((None, 7)),
)
def test_tiff(
    size: tuple[int, int],
    seed: int,
    kind: str,
    bits: int,
    photometric: str,
    planar: bool,
    alpha: bool,
    tile: tuple[int, int] | None,
    compression: str | None,
    predictor: bool,
    big_endian: bool,
    big: bool,
    rows: int | None,
) -> None:
    values, black, white = tiff_values(kind, bits, [smooth(*size, seed + n) for n in range(3)])
    if photometric != "rgb":
        values = values[..., 0]
    options: dict[str, Any] = {
        "photometric": photometric,
        "compression": compression,
        "predictor": predictor and compression in ("lzw", "deflate", "zstd", "lzma"),
        "byteorder": ">" if big_endian else "<",
        "bigtiff": big,
        "rowsperstrip": None if tile else rows,
        "tile": tile,
    }
    if photometric == "rgb":
        options["planarconfig"] = "separate" if planar else "contig"
    if photometric == "rgb" and alpha and kind[0] == "u":
        values = np.dstack([values, np.full(size, np.iinfo(values.dtype).max, values.dtype)])
        options["extrasamples"] = ["unassalpha"]
    stored = np.moveaxis(values, -1, 0) if photometric == "rgb" and planar else values
    stream = io.BytesIO()
    tifffile.imwrite(stream, stored, **options)
    assert np.array_equal(tifffile.imread(io.BytesIO(stream.getvalue())), stored)
    share = (values.astype(float) - black) / (white - black)
    eight = np.rint(share.clip(0, 1) * 255)
    expected = luma(eight[..., :3]) if photometric == "rgb" else eight
    if photometric == "miniswhite":
        expected = 255 - expected
    assert np.abs(shown(stream.getvalue()) - expected).max() <= 1.5


def tiff_values(kind: str, bits: int, channels: list[np.ndarray]) -> tuple[np.ndarray, float, float]:
    """(H, W, 3) of a type, and which of its values are black and white."""
    share = np.dstack(channels)
    if kind in ("u1", "u2"):
        full = 255 if kind == "u1" else 2**bits - 1
        return np.rint(share * full).astype(kind), 0, full
    if kind == "u4":
        return np.rint(share * 2 ** (bits + 10)).astype(kind), 0, 2 ** (bits + 10)
    if kind[0] == "i":
        half = 100 if kind == "i1" else 2 ** (bits - 2)
        return (np.rint(share * 2 * half) - half).astype(kind), -half, half
    if kind == "f2" or bits == 8:
        return share.astype(kind), 0, 1
    return (share * 2**bits * 100 - 1000).astype(kind), -1000, 2**bits * 100 - 1000


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
def test_tiff_of_packed_bits(bits: int, photometric: str) -> None:
    """BitsPerSample states the depth, also where a picture is dark."""
    channels = 3 if photometric == "rgb" else 1
    values = np.rint(np.dstack([smooth(40, 51, n) for n in range(channels)]) * 0.4 * (2**bits - 1)).astype(
        int
    )
    rows = (values.reshape(40, -1, 1) >> np.arange(bits - 1, -1, -1) & 1).reshape(40, -1)
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        iter([np.packbits(rows.astype(np.uint8), axis=1).tobytes()]),
        shape=values.shape if channels > 1 else values.shape[:2],
        dtype="uint16" if bits > 8 else "uint8",
        bitspersample=bits,
        photometric=photometric,
        rowsperstrip=40,
        byteorder=">",
    )
    eight = np.rint(values * 255 / (2**bits - 1))
    expected = luma(eight) if channels > 1 else eight[..., 0]
    found = shown(stream.getvalue())
    assert np.abs(found - (255 - expected if photometric == "miniswhite" else expected)).max() <= 1.5
