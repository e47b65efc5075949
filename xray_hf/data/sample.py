"""What a checked row of a data set is, and the report of everything that was not."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xray_hf.errors import DataError

SYNTHETIC = "synthetic"  # the site of images drawn from the atlas
SYNTHETIC_PREFIX = "SYNTHETIC-"  # and what their file names begin with


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its row of the CSV.

    file_name: as in the CSV, unique. path: the file.
    label: index into LABELS. patient_id: images with the same one show the same patient.
    official_split: "TRAIN" or "TEST", the data set's own.
    pathogen: "bacteria", "Virus", "Stress-Smoking" or "" (the CSV's Label_1_Virus_category).
    virus_category: "COVID-19", "SARS", "ARDS", "Streptococcus" or "" (its Label_2_Virus_category).
    site: "Kermany" (children of one hospital), "Cohen" (collected from the web), "synthetic" or "external".
    license: under which the picture may be shared, "" where its collection states none.
    view: "PA", "AP", "AP Supine" or "L" (lateral), where a collection's metadata tell it, else "".
    """

    file_name: str
    path: Path
    label: int
    patient_id: str
    official_split: str
    pathogen: str
    virus_category: str
    site: str
    license: str = ""
    view: str = ""
    source: str = "coronahack"


@dataclass
class Report:
    """What reading a data set found; every list holds file names in the CSV's order.

    rows: rows of the CSV. covid_patients_from: what names the patients of the COVID-19 images. Files without
    metadata and exact duplicate rows are dropped, as the paper does with the former; the other three kinds
    are an error unless the user says that they may be dropped. complaints: {file name: why it cannot be
    used}, of undecodable files and unknown labels.
    """

    root: str
    rows: int = 0
    covid_patients_from: str | None = None
    files_without_metadata: list[str] = field(default_factory=list)
    duplicate_rows: list[str] = field(default_factory=list)
    rows_without_file: list[str] = field(default_factory=list)
    undecodable_files: list[str] = field(default_factory=list)
    unknown_labels: list[str] = field(default_factory=list)
    complaints: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The whole report, ready for JSON."""
        return asdict(self)

    def as_table(self) -> str:
        """One line per kind: how many, and the first ones' names."""
        lines = [f"data set                  {self.root}", f"rows of the CSV           {self.rows:,}"]
        for kind in (
            "files_without_metadata",
            "duplicate_rows",
            "rows_without_file",
            "undecodable_files",
            "unknown_labels",
        ):
            names = getattr(self, kind)
            first = f"   first: {', '.join(names[:3])}" if names else ""
            lines.append(f"{kind.replace('_', ' '):<25} {len(names):,}{first}")
        lines.append(
            f"patients of COVID images  {self.covid_patients_from or 'unknown: each file counts as one'}"
        )
        return "\n".join(lines)

    def add_undecodable(self, why: Mapping[str, str]) -> None:
        """Note {file name: the decoder's complaint}."""
        self.undecodable_files = list(why)
        self.complaints |= why

    def require_clean(self, drop_bad: bool) -> None:
        """Raise DataError if rows cannot be used, unless `drop_bad` allows to go on without them."""
        bad = {
            "have no image file": self.rows_without_file,
            "have an image that cannot be decoded": self.undecodable_files,
            "have an unknown label": self.unknown_labels,
        }
        found = [
            f"{len(names)} {what} (first: {self.complaints.get(names[0], names[0]).rstrip('.')})"
            for what, names in bad.items()
            if names
        ]
        if found and not drop_bad:
            ask = "Is the archive unpacked whole? " if self.rows_without_file else ""
            raise DataError(
                f"of {self.rows:,} rows in {self.root}, {'; '.join(found)}. {ask}"
                "Repair them, or pass --drop-bad to go on without these rows (no substitute is ever used)."
            )


def read_rows(
    path: Path, columns: Sequence[str], how_to_get: str, optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The columns of a CSV, row by row, without blanks around the cells; what is missing of a row is "".

    how_to_get: ends every error. optional: columns that may be missing; their cells are "" then.
    Raises DataError if the file cannot be read or lacks one of `columns`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                found = ", ".join(reader.fieldnames or ()) or "none"
                hint = "Columns are parted by commas: save it so, not with ';'. " if ";" in found else ""
                raise DataError(
                    f"{path} has no column {', '.join(missing)}; found: {found}. {hint}{how_to_get}"
                )
            wanted = (*columns, *optional)
            return [{column: (row.get(column) or "").strip() for column in wanted} for row in reader]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. {how_to_get}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file ({error}). {how_to_get}") from error


def without_repeats(
    rows: Iterable[dict[str, str]], key: str, csv_path: Path, report: Report
) -> Iterator[dict[str, str]]:
    """The rows, each name in the column `key` once; repeats that say the same are noted in the report.

    Raises DataError for two rows of one name that differ.
    """
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        name = row[key]
        if name not in seen:
            seen[name] = row
            yield row
        elif seen[name] == row:
            report.duplicate_rows.append(name)
        else:
            raise DataError(
                f"{csv_path} has two different rows for {name}: "
                f"{list(seen[name].values())} and {list(row.values())}; keep the right one."
            )


def is_synthetic(records: Sequence[Sample]) -> bool:
    """Whether any image is drawn from the atlas instead of taken of a person."""
    return any(record.site == SYNTHETIC for record in records)


def labels_of(records: Sequence[Sample]) -> list[int]:
    """The class index of each record."""
    return [record.label for record in records]
