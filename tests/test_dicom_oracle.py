"""DICOM against an oracle: the standard's text in float64, pixel by pixel; it shares no code with the reader.

Once over random headers (hypothesis; XRAY_HF_DICOM_EXAMPLES sets how many), and once over every file of
pydicom and pydicom-data, whose stored values come from pydicom.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import data_store
import dicoms
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from xray_hf.errors import ImageError
from xray_hf.reading import dicom_content, limits, read

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("XRAY_HF_DICOM_EXAMPLES", "300"))
TIE = 1e-6  # grey levels


@dataclass
class Table:
    first: int
    bits: int  # that the descriptor states
    entries: np.ndarray


@dataclass
class Case:
    """A picture and what its header says; None and () for what is missing or empty."""

    stored: np.ndarray  # (H, W) int64
    bits: int
    signed: bool
    inverted: bool = False
    slope: float | None = None
    intercept: float | None = None
    modality: Table | None = None
    tables: tuple[Table, ...] = ()
    windows: tuple[tuple[float, float], ...] = ()
    function: str = "LINEAR"
    padding: tuple[int, int] | None = None


def viewer(case: Case) -> tuple[np.ndarray, bool]:
    """(H, W) grey levels 0..255, not rounded.

    And whether that is sure: no rounding error could choose another window, and no table misses all values,
    so that its first value may have been meant with another sign.
    """
    stored = case.stored.astype(np.float64)
    padded = np.zeros(stored.shape, bool)
    if case.padding is not None:  # C.7.5.1.1.2
        padded = (stored >= min(case.padding)) & (stored <= max(case.padding))
        padded &= not padded.all()
    if case.modality is not None:  # C.11.1
        values = mapped(stored, case.modality)
    else:
        values = stored * (case.slope or 1.0) + (case.intercept or 0.0)
    picture = values[~padded]
    low, high = picture.min(), picture.max()
    level, is_sure = None, case.modality is None or meets(case.modality, stored[~padded])
    for offered in (*case.tables, *case.windows):  # C.11.2: the table, or the window
        share = (
            of_table(values, offered)
            if isinstance(offered, Table)
            else of_window(values, *offered, case.function)
        )
        if share is None:
            continue
        is_sure &= not isinstance(offered, Table) or meets(offered, picture)
        inside = 255 * share[~padded]
        margin = np.minimum(inside - 0.5, 254.5 - inside)
        is_sure &= bool((margin > TIE).any() or (margin < -TIE).all())
        if (margin > 0).any():
            level = 255 * share
            break
    if level is None:
        level = np.zeros(values.shape) if low == high else (values - low) / (high - low) * 255
    level = 255 - level if case.inverted else level
    level[padded] = 0
    return level, is_sure


def meets(table: Table, values: np.ndarray) -> bool:
    return bool(table.first <= values.max() and table.first + len(table.entries) > values.min())


def mapped(values: np.ndarray, table: Table) -> np.ndarray:
    """C.11.1.1 and C.11.2.1.1."""
    places = np.rint(values) - table.first
    places[places < 0] = 0
    places[places > len(table.entries) - 1] = len(table.entries) - 1
    return table.entries.astype(np.float64)[places.astype(int)]


def of_table(values: np.ndarray, table: Table) -> np.ndarray | None:
    if not 8 <= table.bits <= 16:
        return None
    needed = int(np.ceil(np.log2(int(table.entries.max()) + 1)))
    bits = max(needed, 8) if needed > table.bits or needed < table.bits - 1 else table.bits
    return mapped(values, table) / (2**bits - 1)


def of_window(x: np.ndarray, c: float, w: float, function: str) -> np.ndarray | None:
    """C.11.2.1.2 and C.11.2.1.3, with an output of 0..1."""
    if function == "LINEAR" and w >= 1:
        y = ((x - (c - 0.5)) / (w - 1) + 0.5) if w > 1 else np.zeros(x.shape)
        return np.where(x <= c - 0.5 - (w - 1) / 2, 0, np.where(x > c - 0.5 + (w - 1) / 2, 1, y))
    if function == "LINEAR_EXACT" and w > 0:
        return np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, 1, (x - c) / w + 0.5))
    if function == "SIGMOID" and w > 0:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (x - c) / w))
    return None


def test_the_oracle_knows_the_standard_s_examples() -> None:
    """C.11.2.1.2.1: center 2048 and width 4096 of 12 bits, center 0 and width 100, width 1."""
    x = np.array([[0.0, 2048, 4095], [-50, 0, 49]])
    assert np.allclose(of_window(x[:1], 2048, 4096, "LINEAR") * 4095, x[:1])
    assert np.allclose(of_window(x[1:], 0, 100, "LINEAR") * 99, x[1:] + 50)
    assert (of_window(np.array([9.0, 9.4, 9.6]), 10, 1, "LINEAR") == [0, 0, 1]).all()


# Random headers


def decimal(value: float) -> str:
    """As a DICOM decimal string of at most 16 characters."""
    return f"{value:.6g}"


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Decimal strings' values, whole ones among them."""
    whole = st.integers(int(low), int(high)).map(float)
    return st.one_of(whole, st.floats(low, high).map(lambda value: float(decimal(round(value, 4)))))


@st.composite
def made_tables(draw: st.DrawFn, low: float, high: float) -> Table:
    """A table that begins near what could be looked up, as 16 bits can say it."""
    least, most = (-(2**15), 2**15 - 1) if low < 0 else (0, 2**16 - 1)
    count = draw(st.sampled_from([2, 3, 255, 256, 257, 1000, 4096, 65536]))
    # It meets what could be looked up; whether it meets what is, the test looks at.
    first = draw(st.integers(max(least, int(low) - count + 1), max(least, min(most, int(high)))))
    bits = draw(st.sampled_from([8, 10, 11, 12, 14, 16, 3, 7, 17]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    top = 2 ** draw(st.sampled_from([8, 9, 10, 12, 14, 16])) - 1
    entries = rng.integers(0, top, count, endpoint=True)
    return Table(first, bits, np.sort(entries) if draw(st.booleans()) else entries)


@st.composite
def made_cases(draw: st.DrawFn) -> Case:
    allocated = draw(st.sampled_from([8, 16]))
    bits = draw(st.integers(2, allocated))
    signed = draw(st.booleans())
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ends = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    kind = draw(st.sampled_from(["range", "range", "all", "few", "constant"]))
    shape = (34, 40)
    if kind == "constant":
        stored = np.full(shape, ends[0])
    elif kind == "few":
        stored = rng.choice(ends, shape)
    else:
        stored = rng.integers(*(ends if kind == "range" else (low, high)), shape, endpoint=True)
    case = Case(stored.astype(np.int64), bits, signed, draw(st.booleans()))
    case.slope = draw(st.one_of(st.none(), st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0]), numbers(-20, 20)))
    case.intercept = draw(st.one_of(st.none(), st.sampled_from([0.0, -1024.0]), numbers(-5000, 5000)))
    if draw(st.integers(0, 3)) == 0:
        case.modality, case.slope, case.intercept = draw(made_tables(low, high)), None, None
        least, most = 0.0, 65535.0
    else:
        least, most = sorted(value * (case.slope or 1.0) + (case.intercept or 0.0) for value in (low, high))
    if draw(st.integers(0, 2)) == 0 and least <= 32000:
        case.tables = tuple(draw(st.lists(made_tables(least, most), min_size=1, max_size=2)))
    spread = most - least + 1
    center = numbers(least - spread, most + spread)
    width = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 256.0, -5.0]), numbers(0, 2 * spread))
    case.windows = tuple(draw(st.lists(st.tuples(center, width), max_size=3)))
    case.function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC"]))
    if draw(st.booleans()):
        within = st.integers(low, high)
        case.padding = draw(st.one_of(st.tuples(within, within), within.map(lambda value: (value, value))))
    return case


def sequence(tables: tuple[Table, ...]) -> Sequence:
    return Sequence([dicoms.table(each.first, each.entries, each.bits)[0] for each in tables])


def as_file(case: Case, empties: bool, compressed: bool) -> bytes:
    """The case as a DICOM file. empties: what is missing is there, and empty."""
    kind = ("i" if case.signed else "u") + ("1" if case.bits <= 8 else "2")
    pixels = case.stored.astype(kind)
    made = dicoms.dataset(
        pixels, case.bits, PhotometricInterpretation=f"MONOCHROME{1 if case.inverted else 2}"
    )
    for keyword, number in (("RescaleSlope", case.slope), ("RescaleIntercept", case.intercept)):
        if number is not None or empties:
            setattr(made, keyword, "" if number is None else decimal(number))
    if case.modality:
        made.ModalityLUTSequence = sequence((case.modality,))
    if case.tables or empties:
        made.VOILUTSequence = sequence(case.tables)
    if case.windows or empties:
        made.WindowCenter = [decimal(center) for center, _ in case.windows]
        made.WindowWidth = [decimal(width) for _, width in case.windows]
    if case.function != "LINEAR" or empties:
        made.VOILUTFunction = case.function
    if case.padding:
        vr = "SS" if case.signed else "US"
        made.add_new("PixelPaddingValue", vr, case.padding[0])
        if case.padding[0] != case.padding[1]:
            made.add_new("PixelPaddingRangeLimit", vr, case.padding[1])
    if compressed:
        frame = dicoms.rle(pixels.view(kind.replace("i", "u")))
        return dicoms.written(made, pydicom.uid.RLELossless, dicoms.encapsulate([frame]))
    raw = pixels.tobytes()
    return dicoms.written(made, pydicom.uid.ExplicitVRLittleEndian, raw + b"\0" * (len(raw) % 2))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(made_cases(), st.booleans(), st.booleans())
@pytest.mark.timeout(2000)
def test_random_headers_show_what_the_standard_says(case: Case, empties: bool, compressed: bool) -> None:
    expected, is_sure = viewer(case)
    assume(is_sure)
    found = np.asarray(read(as_file(case, empties, compressed)).grey).astype(float)
    assert np.abs(found - expected).max() <= 1


# Every file of pydicom and pydicom-data

FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data")
NO_DICOM = {".py", ".pyc", ".json", ".txt", ".md", ".icc", ".gz", ".dump", ".zip"}
EXPECTED = (
    "is DICOM without a picture",
    "is a DICOMDIR",
    "is a structured report",
    "is a waveform",
    "frames; expected one",
    "bits per colour; expected 8",
    "bits per pixel; expected 8 or 16",
    "is a coloured DICOM image (with a palette)",
    "has a transfer syntax that is not supported",
    "has pixels of floating-point numbers",
    "photometric interpretation is missing",
)
DAMAGED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "holds 3722445056×1024 compressed pixels",  # a made-up size
    "MR_truncated.dcm": "has 8,130 bytes of pixels; expected 8,192",
    "badVR.dcm": "is a damaged",  # "1A" frames
    "no_meta.dcm": "is not a readable image",  # its first byte is missing
}
BY_CONTENT = ("by its modality; expected", "is a lateral view", "a part of the body other", "are needed.")


def files() -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in NO_DICOM and path.name != "README"
    )


def case_of(dataset: Dataset, stored: np.ndarray) -> Case:
    """A grey dataset as pydicom parsed it."""

    def number(keyword: str) -> float | None:
        value = dataset.get(keyword)
        return None if value in (None, "") else float(value)

    def several(keyword: str) -> list[float]:
        value = dataset.get(keyword)
        if value in (None, ""):
            return []
        return [
            float(each) for each in (value if isinstance(value, pydicom.multival.MultiValue) else [value])
        ]

    def tables(keyword: str, can_be_negative: bool) -> tuple[Table, ...]:
        made = []
        for item in dataset.get(keyword) or ():
            count, first, bits = (int(each) for each in item.LUTDescriptor)
            first -= 65536 if can_be_negative and first > 32767 else 0
            data = item.LUTData
            entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data)
            made.append(Table(first, bits, entries[: count or 65536].astype(int)))
        return tuple(made)

    signed = dataset.PixelRepresentation == 1
    slope, intercept = number("RescaleSlope"), number("RescaleIntercept")
    ends = (-1, 0) if signed else (0, 2**dataset.BitsStored - 1)
    negative = min(value * (slope or 1) + (intercept or 0) for value in ends) < 0
    padding = number("PixelPaddingValue")
    limit = number("PixelPaddingRangeLimit")
    return Case(
        stored=stored.astype(np.int64),
        bits=dataset.BitsStored,
        signed=signed,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        slope=slope,
        intercept=intercept,
        modality=next(iter(tables("ModalityLUTSequence", signed)), None),
        tables=tables("VOILUTSequence", negative and not dataset.get("ModalityLUTSequence")),
        windows=tuple(zip(several("WindowCenter"), several("WindowWidth"), strict=False)),
        function=dataset.get("VOILUTFunction") or "LINEAR",
        padding=None if padding is None else (int(padding), int(padding if limit is None else limit)),
    )


def difference(path: Path) -> float | None:
    """The largest difference in grey levels; None where pydicom cannot decode the file here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if not dataset.file_meta.get("TransferSyntaxUID"):
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        try:
            pixels = dataset.pixel_array
        except (RuntimeError, NotImplementedError):
            return None
        if pixels.ndim == 3:
            expected = pixels.astype(float) @ (0.299, 0.587, 0.114)
        else:
            expected, _ = viewer(case_of(dataset, pixels))
    found = np.asarray(read(path).grey).astype(float)
    if found.shape != expected.shape:  # pixels that are not square
        shades = Image.fromarray(np.rint(expected).astype(np.uint8))
        expected = np.asarray(shades.resize(found.shape[::-1], Image.Resampling.BILINEAR)).astype(float)
    return float(np.abs(found - expected).max())


def reason(path: Path) -> str:
    """Why a file is refused, without its name; "" if it is read."""
    try:
        read(path)
    except ImageError as error:
        return str(error).removeprefix(f"{path.name} ")
    return ""


@pytest.mark.timeout(1200)
def test_files_of_pydicom_show_what_the_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pictures than chest X-rays are read, too: the picture is the same matter."""
    monkeypatch.setattr(dicom_content, "check", lambda header, name: ())
    monkeypatch.setattr(limits, "MIN_SIDE", 1)
    differences: dict[str, float] = {}
    refused: dict[str, str] = {}
    for path in files():
        if why := reason(path):
            refused[path.name] = why
        elif (found := difference(path)) is not None:
            differences[str(path)] = found
    assert {name: found for name, found in differences.items() if found > 1} == {}
    assert len(differences) > 110
    unexpected = {name: why for name, why in refused.items() if not any(each in why for each in EXPECTED)}
    assert unexpected.keys() == DAMAGED.keys()
    assert all(DAMAGED[name] in why for name, why in unexpected.items())


def test_files_of_pydicom_are_refused_for_listed_reasons_only() -> None:
    listed = (*EXPECTED, *BY_CONTENT, *DAMAGED.values())
    why = {path.name: reason(path) for path in files()}
    assert {name for name, text in why.items() if text and not any(each in text for each in listed)} == set()
