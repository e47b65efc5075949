"""A folder of your own: images with one CSV, or one subfolder per class; both are the Hub's `imagefolder`.

DIR/labels.csv            or metadata.csv: file_name, label, optional patient_id, site, view, license
DIR/…, DIR/images/…       the images, in any subfolder

DIR/CLASS/…               without a CSV: the images of each class
DIR/train/…, DIR/test/…   each like DIR, if there is nothing else: the official split; validation is train
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from xray_hf.data import tables
from xray_hf.data.sample import UNKNOWN_PATIENT, Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions
from xray_hf.errors import ConfigError, DataError
from xray_hf.folders import kinds, list_files

ABOUT = About(
    title="A folder of your own",
    url="",
    origin="Images of any origin with labels.csv or metadata.csv, or sorted into one subfolder per class.",
    hospital="As the column site says.",
    counts="As found.",
    labels="As the column label or the subfolder says.",
    licence="As the column license says.",
    known_errors=("Nothing is known about it here.",),
    citation="",
)
CLASS_OF: dict[str, str] = {}
CSV_NAMES = ("labels.csv", "metadata.csv")
TABLES = (*CSV_NAMES, "labels.tsv", "metadata.tsv", "labels.txt", "metadata.txt")
COLUMNS = ("file_name", "label")
OPTIONAL = ("patient_id", "site", "view", "license")
HOW_TO_MAKE = (
    f"Expected a folder of images with {' or '.join(CSV_NAMES)}, columns file_name and label, "
    "patient_id if known; or with one subfolder per class."
)
_OTHER_TABLES = tuple(
    f"{name}{suffix}"
    for name in ("labels", "metadata")
    for suffix in (".xlsx", ".xls", ".ods", ".json", ".jsonl", ".parquet")
)
_SPLITS = {"train": "TRAIN", "test": "TEST"} | dict.fromkeys(("val", "valid", "validation", "dev"), "TRAIN")


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Read the CSV or the subfolders' names and look for every image file; no image is decoded.

    place: the folder. A file_name is a path below it or its `images`, or the bare name of a file in any
    subfolder. options.patient: a regular expression for the part of file_name that names the patient, where
    patient_id does not. Without either an image is its own patient.
    Returns the usable samples in the CSV's order and a report of all other rows and files.
    Raises ConfigError for a `patient` that is not a regular expression; DataError if folder, labels or a
    column are missing, for a name that has different rows, fits two files or does not match `patient`, and
    for a file with two names.
    """
    folder, pattern = tables.require_folder(place, HOW_TO_MAKE), _compiled(options.patient)
    report = SourceReport(name, place, patients_from="file names" if pattern else None)
    samples = []
    for part, official_split in _parts(folder).items():
        listing = list_files(part, advice=HOW_TO_MAKE)
        found = tables.by_name(part, listing.images)
        table, rows = _labels(part, found)
        report.rows += len(rows)
        report.no_images = dict(Counter(report.no_images) + listing.left_out - kinds([table]))
        if any(row["patient_id"] for row in rows):
            report.patients_from = str(table)
        by_name = _by_name(found)
        asked: set[Path] = set()
        for row in tables.without_repeats(rows, "file_name", table, report.duplicate_rows):
            file_name = row["file_name"] if part == folder else f"{part.name}/{row['file_name']}"
            inner = tables.normal_name(row["file_name"])
            path = _only(file_name, by_name.get(inner, [])) or _behind_link(part, inner, found)
            if path is None:
                report.rows_without_file.append(file_name or "a row without file_name")
                continue
            if path in asked:
                raise DataError(f"{table} has two rows for {path}, one of them {file_name}; keep one.")
            asked.add(path)
            samples.append(
                Sample(
                    file_name=file_name,
                    path=path,
                    source=name,
                    findings=(row["label"],) if row["label"] else (),
                    patient_id=row["patient_id"] or _patient_of(file_name, pattern),
                    site=row["site"],
                    official_split=official_split,
                    view=row["view"],
                    license=row["license"],
                )
            )
        unused = sorted(set(found.values()) - asked)
        report.files_without_metadata += [str(path.relative_to(folder)) for path in unused]
    return samples, report


def fits(folder: Path) -> bool:
    """Whether a folder holds one of the CSVs."""
    return tables.has_table(folder, TABLES, COLUMNS)


def _compiled(patient: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(patient) if patient is not None else None
    except re.error as error:
        raise ConfigError(
            f"--patient {patient!r} is not a regular expression ({error}); expected one such as '^[0-9]+'."
        ) from error


def _patient_of(file_name: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return f"{UNKNOWN_PATIENT}{file_name}"
    found = pattern.search(file_name)
    if not found or not found.group():
        raise DataError(
            f"--patient {pattern.pattern!r} finds no patient in {file_name}; expected one in every name."
        )
    return found.group()


def _parts(folder: Path) -> dict[Path, str]:
    """{the folder, or each of its splits: the official split}."""
    inner = [] if _csvs(folder) else tables.subfolders(folder)
    if inner and all(path.name.lower() in _SPLITS for path in inner):
        return {path: _SPLITS[path.name.lower()] for path in inner}
    return {folder: ""}


def _csvs(folder: Path) -> list[str]:
    return [path.name for path in tables.files_of(folder, TABLES)]


def _labels(folder: Path, found: Iterable[str]) -> tuple[Path, list[dict[str, str]]]:
    """The source of the labels, a CSV or the folder itself, and a row for each image.

    found: the images below it.
    """
    csvs = _csvs(folder)
    if len(csvs) > 1:
        raise DataError(f"{folder} holds both {' and '.join(csvs)}. {HOW_TO_MAKE}")
    if csvs:
        return tables.read_table(folder, csvs, COLUMNS, HOW_TO_MAKE, OPTIONAL)
    if others := tables.files_of(folder, _OTHER_TABLES):
        raise DataError(
            f"{others[0]} cannot be read; save it as CSV UTF-8, {others[0].stem}.csv. {HOW_TO_MAKE}"
        )
    if kind := tables.right_kind(folder):
        raise DataError(f"{folder} holds neither {' nor '.join(CSV_NAMES)}. {kind}")
    inner = {name: PurePosixPath(name).parts[0] for name in found if "/" in name}
    if not set(inner.values()) - {"images"}:
        raise DataError(
            f"{folder} holds neither {' nor '.join(CSV_NAMES)} nor subfolders with the images of each class. "
            f"{HOW_TO_MAKE}"
        )
    classes = set(inner.values())
    if len(classes) == 1 and all(len(PurePosixPath(name).parts) > 2 for name in inner):
        raise DataError(
            f"{folder} has one subfolder, {classes.pop()}, with more below it; pass that one. {HOW_TO_MAKE}"
        )
    if splits := sorted(each for each in classes if each.lower() in _SPLITS):
        raise DataError(
            f"{folder} has subfolders of splits ({', '.join(splits)}) beside others; keep either splits or "
            f"classes. {HOW_TO_MAKE}"
        )
    empty = dict.fromkeys(OPTIONAL, "")
    return folder, [{"file_name": name, "label": label, **empty} for name, label in inner.items()]


def _by_name(found: Mapping[str, Path]) -> dict[str, list[Path]]:
    """{a name that a row may use: the files that it fits}."""
    files: dict[str, list[Path]] = {}
    for inner, path in found.items():
        files.setdefault(PurePosixPath(inner).name, []).append(path)
    # A path is more specific than a bare name, so it wins.
    files |= {i.removeprefix("images/"): [path] for i, path in found.items() if i.startswith("images/")}
    return files | {inner: [path] for inner, path in found.items()}


def _behind_link(folder: Path, name: str, found: Mapping[str, Path]) -> Path | None:
    """The file below a folder that a name leads to through a link; list_files names each file once."""
    try:
        inner = (folder / name).resolve().relative_to(folder.resolve())
    except (ValueError, OSError):
        return None
    return found.get(tables.normal_name(inner.as_posix()))


def _only(name: str, found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        raise DataError(
            f"{name} fits {len(found)} files, {found[0]} and {found[1]} among them; "
            "write the path below the folder in its row."
        )
    return found[0] if found else None
