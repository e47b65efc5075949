"""The reader of the static page, in a worker of Chromium, against xray_hf.reading.

Both read the files of the Python reader's tests, pydicom's own files, files made here, and damaged ones.
The page may leave a file to Python, if it says so. Otherwise it must show the same pixels, to one grey level,
with the same warnings, and refuse what Python refuses.
"""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dicoms
import imagecodecs
import numpy as np
import pydicom
import pytest
import test_dicom_oracle
import test_fuzz
from conftest import ROOT
from PIL import Image, ImageCms
from playwright.sync_api import Browser, Page
from pydicom import uid
from test_reading_oracle import smooth, with_chunk

from xray_hf.errors import ImageError
from xray_hf.reading import KINDS, dicom_content, limits, read
from xray_hf.reading.for_browser import tables

WEB = ROOT / "web"
LEFT = (
    ", which this page does not read; use the Gradio demo or `xray-hf predict`, or export the X-ray as PNG."
)
LEFT_TO_PYTHON = {
    "a TIFF file",
    "a WEBP file",
    "a BMP file",
    "a JPEG of over 8 bits, or without loss",
    "a PNG with EXIF as text",
    "a PNG of 16 bits with EXIF or a transparent colour",
    "DICOM in colours",
    "DICOM with JPEG of 12 bits",
    "DICOM with JPEG-LS Lossless Image Compression",
    "DICOM with JPEG-LS Lossy (Near-Lossless) Image Compression",
    "DICOM with RLE Lossless",
    "DICOM with a rare or damaged kind of lossless JPEG",
    "DICOM with an unusual lookup table",
    "DICOM with signed bytes in JPEG 2000",
}
FINE = ("same", "left to Python", "refused alike", "refused otherwise")
DAMAGED = 300  # how many damaged files are read
SECONDS = 5  # for one of them
GAMMA_2_4 = b"\x00\x02\x66\x66"  # in a colour profile
POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"

WORKER = """
import { configure, read } from "/reading/read.js";
import { ImageError } from "/reading/error.js";
import { latin1 } from "/reading/kinds.js";

onmessage = async ({ data: [path, tables] }) => {
  configure(tables);
  const bytes = new Uint8Array(await (await fetch(path)).arrayBuffer());
  const answer = await read(bytes, "the image").catch((error) => error);
  const isExpected = !(answer instanceof Error) || answer instanceof ImageError;
  const { message: error, cause, pixels, ...picture } = answer;
  if (pixels) picture.pixels = btoa(latin1(pixels));
  postMessage(isExpected ? { error, ...picture } : { error: `unexpected: ${answer.stack}` });
};
"""
HIDING = """
const context = OffscreenCanvasRenderingContext2D.prototype, getImageData = context.getImageData;
context.getImageData = function (...box) {
  const found = getImageData.apply(this, box);
  found.data.fill(255);
  return found;
};
"""
ASK = """([path, tables, milliseconds]) => new Promise((resolve) => {
  self.worker ??= new Worker("/worker.js", { type: "module" });
  setTimeout(() => resolve({ error: "unexpected: it hangs" }), milliseconds);
  worker.onerror = (event) => resolve({ error: `unexpected: ${event.message}` });
  worker.onmessage = ({ data }) => resolve(data);
  worker.postMessage([path, tables]);
})"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
if not (WEB / "vendor").is_dir() and "CI" not in os.environ:
    pytest.skip("no web/vendor; `npm ci && npm run vendor` in web/ brings it", allow_module_level=True)


class Site(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


TABLES = json.loads(json.dumps(tables()))


class Reader:
    """The page's reader, in a worker. folder: what its server shows."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def verdict(self, data: bytes, seconds: int = 60, **changed: object) -> str:
        """One of FINE, or what is wrong with its answer. changed: other tables."""
        (self.folder / "file").write_bytes(data)
        return verdict(data, self.page.evaluate(ASK, ["/file", {**TABLES, **changed}, 1000 * seconds]))


@pytest.fixture(scope="module")
def reader(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("site")
    for name in ("reading", "vendor"):
        (folder / name).symlink_to(WEB / name)
    (folder / "worker.js").write_text(WORKER, encoding="utf-8")
    (folder / "index.html").write_text("<!doctype html>", encoding="utf-8")
    with serving(folder) as url:
        page = browser.new_page()
        page.goto(url)
        yield Reader(page, folder)
        page.close()


def grey_of(answer: dict[str, Any]) -> np.ndarray:
    """(H, W) int."""
    pixels = np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8)
    pixels = pixels.reshape(answer["height"], answer["width"], answer["channels"])
    return np.asarray(Image.fromarray(pixels.squeeze()).convert("L")).astype(int)


def verdict(data: bytes, answer: dict[str, Any]) -> str:
    """One of FINE, or what is wrong."""
    error = answer.get("error") or ""
    if error.startswith("unexpected"):
        return error
    try:
        expected = read(data)
    except ImageError as refusal:
        words = str(refusal).replace(", ".join(KINDS), "JPEG, PNG, DICOM")
        alike = "refused alike" if error == words else "refused otherwise"
        return alike if error else f"read, but Python refuses it: {refusal}"
    if error:
        what = error.removeprefix("the image is ").removesuffix(LEFT)
        return "left to Python" if what in LEFT_TO_PYTHON else f"refused, but Python reads it: {error}"
    grey = np.asarray(expected.grey).astype(int)
    if (found := grey_of(answer)).shape != grey.shape:
        return f"has the shape {found.shape} instead of {grey.shape}"
    if (difference := np.abs(found - grey).max()) > 1:
        return f"differs by {difference} grey levels"
    if tuple(answer["warnings"]) != expected.warnings:
        return f"warns {answer['warnings']} instead of {expected.warnings}"
    return "same"


def wrong(verdicts: dict[Any, str]) -> dict[Any, str]:
    return {name: each for name, each in verdicts.items() if each not in FINE}


EXAMPLES = ["test_reading.py", "test_dicom.py", "test_dicom_cases.py", "test_cases.py"]
RANDOM = [
    "test_reading_oracle.py::test_png",
    "test_dicom_oracle.py::test_random_headers_show_what_the_standard_says",
]


@pytest.mark.parametrize(
    ("tests", "marked", "read"),
    [
        pytest.param(EXAMPLES, "not slow", 350, marks=pytest.mark.exhaustive),
        (RANDOM, "slow or not slow", 180),
    ],
)
def test_files_of_the_tests_of_the_python_reader(
    reader: Reader, tests: list[str], marked: str, read: int, tmp_path: Path
) -> None:
    """Up to a megabyte each; tests/recording.py keeps them. read: how many are read, at least."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    recording = {"XRAY_HF_RECORD": str(tmp_path), "XRAY_HF_DICOM_EXAMPLES": "150", "PYTHONPATH": paths}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "recording",
        "-p",
        "no:cacheprovider",
        "-m",
        marked,
        *tests,
    ]
    environment = {**os.environ, **recording}
    subprocess.run(command, cwd=ROOT / "tests", env=environment, stdout=subprocess.PIPE, check=True)
    files = [path for path in tmp_path.iterdir() if path.stat().st_size < 2**20]
    found = {path.name: reader.verdict(path.read_bytes()) for path in files}
    assert wrong(found) == {}
    counts = Counter(found.values())
    assert counts["same"] >= read
    assert counts["left to Python"] < 0.4 * len(files)
    assert counts["refused otherwise"] < 0.25 * counts["refused alike"] + 1


@pytest.mark.filterwarnings("ignore")
def test_files_of_pydicom_whatever_they_show(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_content, "check", lambda header, name: ())
    monkeypatch.setattr(limits, "MIN_SIDE", 1)
    files = test_dicom_oracle.files()
    headers = [pydicom.dcmread(path, force=True, stop_before_pixels=True) for path in files]
    content = {
        **dict.fromkeys(("lateral", "otherRegion"), "(?!)"),
        "radiography": [str(header.get("Modality", "")) for header in headers],
        "turned": "",
        "burnedIn": "",
    }
    given = {"content": {**TABLES["content"], **content}, "limits": {**TABLES["limits"], "side": 1}}
    found = {path.name: reader.verdict(path.read_bytes(), **given) for path in files}
    assert {each.partition(" is ")[2] for each in wrong(found).values()} <= {dicom_content.LATERAL_VIEW[3:]}
    assert Counter(found.values())["same"] > 70


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    """JPEG and PNG of 8 bits."""
    red, green, blue = (np.rint(smooth(90, 120, seed) * 255).astype(np.uint8) for seed in range(3))
    waves, colours = Image.fromarray(red), Image.fromarray(np.dstack([red, green, blue]))
    tinted, upside_down = Image.fromarray(np.dstack([red, red // 10 * 9, red])), waves.rotate(180)
    alpha, palette = Image.merge("RGBA", [*colours.split(), upside_down]), colours.quantize(50)
    made = {
        "jpeg": saved(colours, "JPEG", quality=95, subsampling=0),
        "jpeg subsampled": saved(colours, "JPEG"),
        "jpeg progressive": saved(colours, "JPEG", progressive=True),
        "jpeg cmyk": saved(colours.convert("CMYK"), "JPEG"),
        "jpeg tinted": saved(tinted, "JPEG"),
        "jpeg grey as rgb": saved(waves.convert("RGB"), "JPEG"),
        "jpeg with a profile": saved(colours, "JPEG", icc_profile=gamma_profile()),
        "jpeg truncated": saved(colours, "JPEG")[:-200],
        "jpeg without its end": saved(colours, "JPEG")[:-2],
        "png": saved(colours, "PNG"),
        "png tinted": saved(tinted, "PNG"),
        "png palette": saved(palette, "PNG"),
        "png palette, transparent": saved(palette, "PNG", transparency=3),
        "png 1 bit": saved(waves.convert("1"), "PNG"),
        "png alpha": saved(alpha, "PNG"),
        "png grey and alpha": saved(Image.merge("LA", [waves, upside_down]), "PNG"),
        "png with a profile": saved(colours, "PNG", icc_profile=gamma_profile()),
        "png with gamma": with_chunk(saved(colours, "PNG"), b"gAMA", (100_000).to_bytes(4, "big")),
        "png truncated": saved(colours, "PNG")[:-200],
        "png animated": saved(waves, "PNG", save_all=True, append_images=[upside_down]),
    }
    for marker in (b"\xff\xe0", b"\xff\xee"):  # JFIF's and Adobe's, which say what the colours are
        for kind in ("jpeg", "jpeg cmyk"):
            if marker in made[kind]:
                made[f"{kind} without {marker.hex()}"] = without_segment(made[kind], marker)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        made[f"jpeg exif {orientation}"] = saved(waves, "JPEG", exif=exif)
        made[f"png exif {orientation}"] = saved(waves, "PNG", exif=exif)
    return made


def without_segment(jpeg: bytes, marker: bytes) -> bytes:
    at = jpeg.index(marker)
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def gamma_profile() -> bytes:
    """A colour profile by which every pixel would change."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert GAMMA_2_4 in profile
    return profile.replace(GAMMA_2_4, (1 << 16).to_bytes(4, "big"))


def pngs() -> dict[str, bytes]:
    """PNG of 16 bits that hold 8 to 16."""
    made = {}
    for bits in (8, 10, 12, 14, 16):
        values = np.rint(smooth(50, 60, bits) * (2**bits - 1)).astype(np.uint16)
        alpha = np.rint(smooth(50, 60, 1) * 65535).astype(np.uint16)
        kinds = {
            "grey": [values],
            "grey and alpha": [values, alpha],
            "rgb": [values] * 3,
            "tinted": [values, values // 2, values],
            "rgba": [values, values[::-1], values, alpha],
        }
        for kind, channels in kinds.items():
            png = bytes(imagecodecs.png_encode(np.dstack(channels).squeeze()))
            made[f"{kind} of {bits}"] = png
            made[f"{kind} of {bits}, stated"] = with_chunk(png, b"sBIT", bytes([bits]) * len(channels))
        made[f"grey of {bits}, far from black"] = bytes(imagecodecs.png_encode(values // 16 + 61_000))
    return made


def compressed() -> dict[str, bytes]:
    """DICOM with lossless JPEG and JPEG 2000 of 8 to 16 bits."""
    made = {}
    for bits in (8, 10, 12, 14, 16):
        values = np.rint(smooth(50, 60, bits) * (2**bits - 1)).astype("u1" if bits == 8 else "u2")
        for predictor in range(1, 7):
            frame = dicoms.jpeg(lossless=True, predictor=predictor, bitspersample=bits)
            made[f"lossless {bits} {predictor}"] = dicoms.compressed(uid.JPEGLossless, frame, values, bits)
        made[f"j2k {bits}"] = dicoms.compressed(uid.JPEG2000Lossless, dicoms.j2k(), values, bits)
        made[f"j2k lossy {bits}"] = dicoms.compressed(uid.JPEG2000, dicoms.j2k(False), values, bits)
    return made


@pytest.mark.parametrize("files", [pictures, pngs, compressed])
def test_files_made_here(reader: Reader, files: Callable[[], dict[str, bytes]]) -> None:
    found = {name: reader.verdict(data) for name, data in files().items()}
    refused = {name for name, each in found.items() if each == "refused alike"}
    assert {name: each for name, each in found.items() if name not in refused and each != "same"} == {}
    damaged = {"jpeg truncated", "jpeg without its end", "png truncated", "png animated"}
    assert refused == (damaged if files is pictures else set())


def test_a_browser_that_hides_pixels_is_told_so(reader: Reader) -> None:
    """As Firefox's privacy.resistFingerprinting does."""
    script = reader.folder / "worker.js"
    script.write_text(HIDING + WORKER, encoding="utf-8")
    reader.page.reload()
    found = reader.verdict(pictures()["png"])
    script.write_text(WORKER, encoding="utf-8")
    reader.page.reload()
    assert "the browser hides pixels from pages" in found


@pytest.mark.real
def test_real_xrays(reader: Reader, real_data: Path) -> None:
    files = sorted(real_data.rglob("*.jp*g"))
    found = {path: reader.verdict(path.read_bytes()) for path in files[:: len(files) // 30]}
    assert {path: each for path, each in found.items() if each != "same"} == {}


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_end_soon_and_are_not_read_where_python_refuses(reader: Reader) -> None:
    """But where damage ends the header for one parser and not for the other."""
    originals = test_fuzz.originals()
    files = {name: originals[name] for name in originals if name.startswith(("jpeg", "png", "dicom"))}
    made = (test_fuzz.damaged(number, files)[1] for number in range(DAMAGED))
    found = Counter(reader.verdict(data, SECONDS).partition(":")[0] for data in made)
    assert found["refused, but Python reads it"] + found["read, but Python refuses it"] < 0.02 * DAMAGED
    assert found.keys() <= {*FINE, "refused, but Python reads it", "read, but Python refuses it"}


def bomb(kind: type) -> bytes:
    """A PNG of 40×40 pixels, of 8 or 16 bits, that inflate to a gigabyte."""
    pixels = zlib.compressobj()
    packed = b"".join(pixels.compress(bytes(2**20)) for _ in range(1000)) + pixels.flush()
    return with_chunk(saved(Image.fromarray(np.zeros((40, 40), kind)), "PNG"), b"IDAT", packed)


def elements(count: int) -> bytes:
    """DICOM with so many elements before its pixels."""
    return dicoms.bare(dicoms.native())[:28] + b"".join(
        struct.pack("<HHHHI", 9, number % 2**16, 0x4E55, 0, 0) for number in range(count)
    )


def nested(depth: int) -> bytes:
    return dicoms.bare(dicoms.native())[:28] + depth * (
        struct.pack("<HH2sHI", 0x40, 0x275, b"SQ", 0, 2**32 - 1)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
    )


@pytest.mark.parametrize(
    "make",
    [partial(bomb, np.uint8), partial(bomb, np.uint16), partial(elements, 10**6), partial(nested, 10**5)],
)
def test_what_would_fill_the_memory_is_refused_soon(reader: Reader, make: Callable[[], bytes]) -> None:
    assert reader.verdict(make(), seconds=4 * SECONDS).startswith("refused")  # beside another worker
