"""A folder of X-rays with one CSV, the Hub's `imagefolder` form -> samples.

DIR/labels.csv            or metadata.csv: file_name, label, optional patient_id, site, view, license
DIR/…, DIR/images/…       the images, in any subfolder
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xray_hf.data.sample import UNKNOWN_PATIENT, Report, Sample, read_rows, without_repeats
from xray_hf.data.sources import About, ReadOptions
from xray_hf.errors import ConfigError, DataError

ABOUT = About(
    title="A folder of your own",
    url="",
    origin="Images of any origin with labels.csv or metadata.csv.",
    hospital="As the column site says.",
    counts="As found.",
    labels="As the column label says.",
    licence="As the column license says.",
    known_errors=("Nothing is known of it here.",),
    citation="",
)
CLASS_OF: dict[str, str] = {}
CSV_NAMES = ("labels.csv", "metadata.csv")
COLUMNS = ("file_name", "label")
HOW_TO_MAKE = (
    f"Expected a folder of images with {' or '.join(CSV_NAMES)}, columns file_name and label, "
    "patient_id if known."
)


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], Report]:
    """Read the CSV and look for every image file; no image is decoded.

    place: the folder. A file_name is a path below it or its `images`, or the bare name of a file in any
    subfolder. options.patient: a regular expression for the part of file_name that names the patient, where
    patient_id does not. Without either an image is its own patient.
    Returns the usable samples in the CSV's order and a report of all other rows and files.
    Raises ConfigError for a `patient` that is no regular expression, DataError if folder, CSV or column are
    missing, for a name with different rows, that fits two files or without `patient`, and for a file with two
    names.
    """
    folder, pattern = Path(place), _compiled(options.patient)
    csv_path = _find_csv(folder)
    rows = read_rows(csv_path, COLUMNS, HOW_TO_MAKE, optional=("patient_id", "site", "view", "license"))
    files = _files_by_name(folder, csv_path)
    has_patients = pattern is not None or any(row["patient_id"] for row in rows)
    report = Report(name, place, rows=len(rows), patients_from=str(csv_path) if has_patients else None)
    samples = []
    asked: set[Path | None] = set()
    for row in without_repeats(rows, "file_name", csv_path, report):
        file_name = row["file_name"]
        path = _only(file_name, files.get(file_name, []))
        if path and path in asked:
            raise DataError(f"{csv_path} has two rows for {path}, one of them {file_name}; leave one.")
        asked.add(path)
        if path is None:
            report.rows_without_file.append(file_name)
        else:
            samples.append(_sample(row, path, name, _patient_of(row, pattern)))
    everything = {path for found in files.values() for path in found}
    report.files_without_metadata = [str(path.relative_to(folder)) for path in sorted(everything - asked)]
    return samples, report


def _compiled(patient: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(patient) if patient is not None else None
    except re.error as error:
        raise ConfigError(
            f"--patient {patient!r} is no regular expression ({error}); expected one such as '^[0-9]+'."
        ) from error


def _patient_of(row: dict[str, str], pattern: re.Pattern[str] | None) -> str:
    name = row["file_name"]
    if row["patient_id"] or pattern is None:
        return row["patient_id"] or f"{UNKNOWN_PATIENT}{name}"
    found = pattern.search(name)
    if not found or not found.group():
        raise DataError(
            f"--patient {pattern.pattern!r} finds no patient in {name}; expected one in every name."
        )
    return found.group()


def _find_csv(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. {HOW_TO_MAKE}")
    found = [folder / name for name in CSV_NAMES if (folder / name).is_file()]
    if len(found) != 1:
        what = "both " + " and ".join(CSV_NAMES) if found else f"neither {' nor '.join(CSV_NAMES)}"
        raise DataError(f"{folder} holds {what}. {HOW_TO_MAKE}")
    return found[0]


def _files_by_name(folder: Path, csv_path: Path) -> dict[str, list[Path]]:
    """{what a row may call a file: the files that it fits}, of all below the folder that are not hidden."""
    try:
        paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. {HOW_TO_MAKE}") from error
    shown = {
        inner: path
        for inner, path in sorted(paths.items())
        if path != csv_path and not any(part.startswith(".") for part in inner.parts)
    }
    files: dict[str, list[Path]] = {}
    for inner, path in shown.items():
        files.setdefault(inner.name, []).append(path)
    # A path says more than a name: it wins.
    files |= {str(Path(*i.parts[1:])): [path] for i, path in shown.items() if i.parts[0] == "images"}
    return files | {str(inner): [path] for inner, path in shown.items()}


def _only(name: str, found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        raise DataError(
            f"{name} fits {len(found)} files, {found[0]} and {found[1]} among them; "
            "write the path below the folder in its row."
        )
    return found[0] if found else None


def _sample(row: dict[str, str], path: Path, source: str, patient_id: str) -> Sample:
    return Sample(
        file_name=row["file_name"],
        path=path,
        source=source,
        findings=(row["label"],) if row["label"] else (),
        patient_id=patient_id,
        site=row["site"],
        view=row["view"],
        license=row["license"],
    )
