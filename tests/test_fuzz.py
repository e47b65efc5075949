"""Thousands of damaged files: each ends in a Reading or an ImageError, soon and in little memory.

The reading happens in a child process, so that a crash or a hang of a decoder is seen, with the input's
number. XRAY_HF_FUZZ sets how many inputs, XRAY_HF_FUZZ_SEED others. The table by kinds, or one input:

    .venv/bin/python tests/test_fuzz.py 0 3000
"""

from __future__ import annotations

import io
import os
import re
import selectors
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dicoms
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from xray_hf.errors import ImageError
from xray_hf.reading import Reading, read

COUNT = int(os.environ.get("XRAY_HF_FUZZ", "3000"))
SEED = int(os.environ.get("XRAY_HF_FUZZ_SEED", "0"))
SECONDS = 5.0  # for one input
START_SECONDS = 60.0  # for the child's imports
MAX_KB = 10**9 // 1024
HUGE = (0, 1, 31, 0x7FFF, 0xFFFF, 60_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric=options.pop("photometric", "minisblack"), **options)
    return stream.getvalue()


def originals() -> dict[str, bytes]:
    """Whole files of every kind, of 64×48 pixels."""
    ramp = dicoms.values(8)
    noise = np.random.default_rng(0).integers(0, 60, ramp.shape, dtype=np.uint8)
    grey = Image.fromarray(np.minimum(ramp, 195) + noise)
    rgb = Image.merge("RGB", [grey, Image.fromarray(255 - ramp), grey])
    wide, real = Image.fromarray(dicoms.values(16)), Image.fromarray(ramp.astype(np.float32))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg grey": saved(grey, "JPEG", exif=exif),
        "jpeg rgb": saved(rgb, "JPEG"),
        "jpeg progressive": saved(rgb, "JPEG", progressive=True),
        "jpeg cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "png 8": saved(grey, "PNG", exif=exif),
        "png 16": saved(wide, "PNG"),
        "png palette": saved(rgb.convert("P"), "PNG", transparency=3),
        "png rgba": saved(rgb.convert("RGBA"), "PNG"),
        "tiff lzw": saved(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(grey, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff 16": saved(wide, "TIFF"),
        "tiff float": saved(real, "TIFF"),
        "tiff signed": tiff(
            dicoms.values(16, signed=True), compression="zstd", predictor=True, byteorder=">"
        ),
        "tiff tiles": tiff(dicoms.values(12), tile=(16, 32), compression="deflate", bigtiff=True),
        "tiff planes": tiff(
            np.stack([dicoms.values(16)] * 3), photometric="rgb", planarconfig="separate", rowsperstrip=5
        ),
        "tiff packed": tiff(dicoms.values(16), compression="packbits", photometric="miniswhite"),
        "png 16 rgb": bytes(imagecodecs.png_encode(np.dstack([dicoms.values(16)] * 3))),
        "jpeg 12": bytes(imagecodecs.jpeg8_encode(dicoms.values(12), bitspersample=12)),
        "jpeg lossless": bytes(imagecodecs.jpeg8_encode(dicoms.values(16), bitspersample=16, lossless=True)),
        "webp": saved(rgb, "WEBP"),
        "webp lossless": saved(rgb.convert("RGBA"), "WEBP", lossless=True),
        "bmp": saved(rgb, "BMP"),
        "dicom native": dicoms.native(WindowCenter="2000", WindowWidth="3000"),
        "dicom table": dicoms.native(VOILUTSequence=dicoms.table(0, np.arange(4096) * 16, 16)),
        "dicom implicit": dicoms.native(
            syntax=dicoms.uid.ImplicitVRLittleEndian, RescaleSlope="2", RescaleIntercept="1"
        ),
        "dicom big endian": dicoms.native(syntax=dicoms.uid.ExplicitVRBigEndian),
        "dicom padding": dicoms.native(PixelPaddingValue=0, PixelPaddingRangeLimit=50, HighBit=11),
        "dicom modality": dicoms.native(ModalityLUTSequence=dicoms.table(0, np.arange(4096), 12)),
        "dicom codes": dicoms.native(
            ViewCodeSequence=dicoms.code("399348003", "SCT", "antero-posterior"),
            AnatomicRegionSequence=dicoms.code("816094009", "SCT", "Chest"),
            PixelSpacing=["0.1", "0.2"],
            PatientOrientation=["L", "F"],
        ),
        "dicom rgb": dicoms.native(np.asarray(rgb), 8),
        "dicom ybr jpeg": dicoms.compressed(
            dicoms.uid.JPEGBaseline8Bit,
            dicoms.pillow("JPEG"),
            np.asarray(rgb),
            8,
            PhotometricInterpretation="YBR_FULL_422",
        ),
        "dicom rgb j2k": dicoms.compressed(
            dicoms.uid.JPEG2000Lossless, dicoms.j2k(), np.asarray(rgb), 8, PhotometricInterpretation="YBR_RCT"
        ),
        "dicom no preamble": dicoms.native()[132:],
        "dicom no meta": dicoms.bare(dicoms.native(syntax=dicoms.uid.ImplicitVRLittleEndian)),
        **{f"dicom {kind}": dicoms.example(kind) for kind in dicoms.COMPRESSED},
    }


def place(rng: np.random.Generator, data: bytes) -> int:
    """Any byte, or, half of the time, one of a header."""
    ends = [len(data), 64, 600]
    if (found := data.find(b"\xe0\x7f\x10\0")) > 0:
        ends.append(found + 300)  # DICOM's tags, and the frame's own header
    return int(rng.integers(0, max(1, min(len(data), ends[rng.integers(len(ends))]))))


def flip(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[place(rng, data)] = int(rng.integers(256))
    return bytes(changed)


def copy_block(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    start, to, size = place(rng, data), place(rng, data), int(rng.integers(1, 200))
    block = data[start : start + size]
    return data[:to] + block + data[to + len(block) :]


def truncate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: place(rng, data)]


def insert(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    at = place(rng, data)
    return data[:at] + rng.bytes(int(rng.integers(1, 60))) + data[at:]


def enlarge(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Overwrite one of the places where 64 or 48 may be a width or height, or any number, by an extreme."""
    form = ("<H", ">H", "<I", ">I")[rng.integers(4)]
    value = struct.pack(form, HUGE[rng.integers(len(HUGE))] % 2 ** (8 * struct.calcsize(form)))
    sizes = [
        found.start() for found in re.finditer(re.escape(struct.pack(form, (64, 48)[rng.integers(2)])), data)
    ]
    at = sizes[rng.integers(min(len(sizes), 20))] if sizes and rng.random() < 0.7 else place(rng, data)
    return data[:at] + value + data[at + len(value) :]


def splice(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: place(rng, data)] + other[place(rng, other) :]


CHANGES: tuple[Callable[[np.random.Generator, bytes, bytes], bytes], ...] = (
    flip,
    copy_block,
    truncate,
    insert,
    enlarge,
    enlarge,
    splice,
)


def checksums_made_right(png: bytes) -> bytes:
    """A PNG whose chunks' CRCs fit, so that damage reaches the decoders behind them."""
    made, at = bytearray(png), 8
    while at + 12 <= len(made):
        end = at + 8 + int.from_bytes(made[at : at + 4], "big")
        if end + 4 > len(made):
            break
        made[end : end + 4] = struct.pack(">I", zlib.crc32(made[at + 4 : end]))
        at = end + 4
    return bytes(made)


def damaged(number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The kind and the bytes of input `number`."""
    rng = np.random.default_rng([SEED, number])
    kinds = list(files)
    kind = kinds[number % len(kinds)]
    data = files[kind]
    for _ in range(rng.integers(1, 4)):
        data = CHANGES[rng.integers(len(CHANGES))](rng, data or b"\0", files[kinds[rng.integers(len(kinds))]])
    return kind, checksums_made_right(data) if kind.startswith("png") and rng.random() < 0.7 else data


def outcome(data: bytes) -> str:
    """Read a file; "read", "refused", or what went wrong."""
    try:
        reading = read(data)
    except ImageError as error:
        return "refused" if 0 < len(str(error)) < 400 and "\n" not in str(error) else f"text {error!s}"
    except BaseException as error:  # noqa: BLE001  anything else is what this test looks for
        return f"{type(error).__name__} {error}"
    whole = isinstance(reading, Reading) and reading.grey.mode == "L" and 0 <= reading.colour <= 1
    return "read" if whole else f"a strange {reading!r}"


def memory() -> int:
    """The most memory this process ever used, in kB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) if found else 0


def child(start: int, stop: int) -> None:
    """Read inputs start..stop; before and after each one line, so that the parent knows where it ended."""
    warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF and the like
    files = originals()
    for data in files.values():
        assert outcome(data) == "read"
    for number in range(start, stop):
        kind, data = damaged(number, files)
        print(f"{number}\t{kind}", flush=True)
        begun = time.perf_counter()
        result = outcome(data).splitlines()[0]
        print(f"{result}\t{time.perf_counter() - begun:.4f}\t{memory()}", flush=True)


def report(start: int, stop: int) -> tuple[list[str], list[tuple[str, str, float, int]]]:
    """Run a child; what went wrong, and (kind, outcome, seconds, kB) of each input that ended."""
    code = [sys.executable, __file__, str(start), str(stop), "child"]
    problems, rows, last, kind = [], [], "the start", ""
    with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as run:
        assert run.stderr
        for line in lines(run):
            if line is None:
                problems.append(f"input {last} ({kind}) hangs")
                run.kill()
                break
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 2:
                last, kind = fields
                continue
            rows.append((kind, fields[0], float(fields[1]), int(fields[2])))
            if fields[0] not in ("read", "refused"):
                problems.append(f"input {last} ({kind}) ends in {fields[0]}")
            if int(fields[2]) > MAX_KB:
                problems.append(f"input {last} ({kind}) needs {fields[2]} kB")
                run.kill()
                break
        error = run.stderr.read()[-2000:]
        if run.wait() != 0 and not problems:
            problems.append(f"input {last} ({kind}) ends the process with {run.returncode}: {error}")
    return problems, rows


def lines(run: subprocess.Popen[str]) -> Iterator[str | None]:
    """The child's lines as they come; None, at last, when the next takes too long."""
    assert run.stdout
    os.set_blocking(run.stdout.fileno(), False)
    seconds, rest = START_SECONDS, ""
    with selectors.DefaultSelector() as selector:
        selector.register(run.stdout, selectors.EVENT_READ)
        while selector.select(seconds):
            part = os.read(run.stdout.fileno(), 65536).decode(errors="replace")
            if not part:
                return
            *whole, rest = (rest + part).split("\n")
            yield from whole
            seconds = SECONDS
    yield None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(1200)
def test_every_damaged_file_ends_in_a_reading_or_an_image_error() -> None:
    problems, rows = report(0, COUNT)
    assert problems == []
    assert len(rows) == COUNT
    assert {result for _, result, _, _ in rows} == {"read", "refused"}


if __name__ == "__main__":
    first, beyond = int(sys.argv[1]), int(sys.argv[2])
    if "child" in sys.argv:
        child(first, beyond)
    else:
        wrong, ended = report(first, beyond)
        for name in originals():
            of_kind = [row for row in ended if row[0] == name]
            results = Counter(row[1] for row in of_kind)
            print(f"{name:<20} {dict(results)}  slowest {max((row[2] for row in of_kind), default=0):.3f} s")
        print(*wrong, f"{len(ended)} inputs, peak {max(row[3] for row in ended) // 1024} MB", sep="\n")
