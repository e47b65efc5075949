"""A folder of X-rays with one CSV, the Hub's `imagefolder` form -> checked records, for tests elsewhere.

DIR/labels.csv            or metadata.csv: file_name, label, optional patient_id; other columns are ignored
DIR/…, DIR/images/…       the images, in any subfolder
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xray_hf.data.sample import Report, Sample, read_rows, without_repeats
from xray_hf.errors import ConfigError, DataError
from xray_hf.evaluation.words import listed
from xray_hf.task import LABELS, PNEUMONIA

CSV_NAMES = ("labels.csv", "metadata.csv")
COLUMNS = ("file_name", "label")
EXTERNAL = "external"  # the source of these records
HOW_TO_MAKE = (
    f"Expected a folder of images with {' or '.join(CSV_NAMES)}, columns file_name and label "
    f"({', '.join(LABELS)}), patient_id if known."
)

_LABELS = {name: index for index, name in enumerate(LABELS)} | {"Pnemonia": PNEUMONIA}  # as CoronaHack has it


def read(folder: Path, patient: str | None = None) -> tuple[list[Sample], Report]:
    """Read the CSV and look for every image file; no image is decoded.

    A file_name is a path below the folder or its `images`, or the bare name of a file in any subfolder.
    patient: a regular expression for the part of file_name that names the patient, where patient_id does not.
    Without either an image is its own patient. All records are of the official split "TEST".
    Returns the usable records in the CSV's order and a report of all other rows and files.
    Raises ConfigError for a `patient` that is no regular expression, DataError if folder, CSV or column are
    missing, for a name with different rows, that fits two files or without `patient`, and for a file with two
    names.
    """
    pattern = _compiled(patient)
    csv_path = _find_csv(folder)
    rows = read_rows(csv_path, COLUMNS, HOW_TO_MAKE, optional=("patient_id",))
    files = _files_by_name(folder, csv_path)
    has_patients = pattern is not None or any(row["patient_id"] for row in rows)
    report = Report(str(folder), rows=len(rows), covid_patients_from=str(csv_path) if has_patients else None)
    records = []
    asked: set[Path | None] = set()
    for row in without_repeats(rows, "file_name", csv_path, report):
        name = row["file_name"]
        path = _only(name, files.get(name, []))
        if path and path in asked:
            raise DataError(f"{csv_path} has two rows for {path}, one of them {name}; leave one.")
        asked.add(path)
        if row["label"] not in _LABELS:
            report.unknown_labels.append(name)
            report.complaints[name] = f"{name} has label {row['label']!r}; expected {listed(LABELS, 'or')}"
        elif path is None:
            report.rows_without_file.append(name)
        else:
            records.append(_record(row, path, _patient_of(row, pattern)))
    everything = {path for found in files.values() for path in found}
    report.files_without_metadata = [str(path.relative_to(folder)) for path in sorted(everything - asked)]
    return records, report


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
        return row["patient_id"] or f"file-{name}"
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


def _record(row: dict[str, str], path: Path, patient_id: str) -> Sample:
    name = row["file_name"]
    return Sample(
        file_name=name,
        path=path,
        label=_LABELS[row["label"]],
        patient_id=patient_id,
        official_split="TEST",
        pathogen="",
        virus_category="",
        site="",
        source=EXTERNAL,
    )
