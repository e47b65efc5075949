"""One image with its collection's metadata, and the report of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_hf.errors import DataError
from xray_hf.folders import in_words
from xray_hf.task import PARTLY_MARK, SYNTHETIC_MARK

SYNTHETIC = "synthetic"  # the site of images drawn from the atlas
SYNTHETIC_PREFIX = "SYNTHETIC-"  # and what their file names begin with
UNKNOWN_PATIENT = "file-"  # begins the patient_id of an image of an unknown patient


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a collection.

    file_name: unique within its source. path: the file.
    source: the collection's name in this run, as "coronahack" or "clinic".
    findings: the collection's own labels of the image; empty where it says nothing.
    label: the class that they map to; None for no class of the task.
    patient_id: images with the same one show the same patient; "file-" and the name where it is unknown.
    site: hospital or sub-collection, as "Kermany" or "NIH"; "" if unknown.
    official_split: "TRAIN" or "TEST", the collection's own; "" if it has none.
    view: "PA", "AP", "AP Supine" or "L" (lateral), where the collection tells it, else "".
    license: under which the picture may be shared, "" where its collection states none.
    pathogen, virus_category: CoronaHack's Label_1_Virus_category and Label_2_Virus_category, else "".
    """

    file_name: str
    path: Path
    source: str
    findings: tuple[str, ...]
    patient_id: str
    label: str | None = None
    site: str = ""
    official_split: str = ""
    view: str = ""
    license: str = ""
    pathogen: str = ""
    virus_category: str = ""


@dataclass
class SourceReport:
    """The result of reading a source; every list holds file names in the source's order.

    source: its name. root: its place. kind: one of sources.KINDS.
    rows: rows of its table, or images where it has none.
    patients_from: what names the patients; None if nothing does. Files without metadata, exact duplicate rows
    and images that are not frontal are left out. Rows without a file, and files that cannot be decoded, are
    an error unless the user allows dropping them. without_class: {finding: images} that map to no class of
    the task. complaints: {file name: why it cannot be used}. no_images: {kind: how many} files that are not
    images.
    """

    source: str
    root: str
    kind: str = ""
    rows: int = 0
    patients_from: str | None = None
    files_without_metadata: list[str] = field(default_factory=list)
    duplicate_rows: list[str] = field(default_factory=list)
    not_frontal: list[str] = field(default_factory=list)
    rows_without_file: list[str] = field(default_factory=list)
    undecodable_files: list[str] = field(default_factory=list)
    no_images: dict[str, int] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    without_class: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The whole report, ready for JSON."""
        return asdict(self)

    def as_table(self) -> str:
        """One line per kind: how many, and the first ones' names."""
        lines = [f"{'source':<25} {self.source}: {self.root}", f"{'rows':<25} {self.rows:,}"]
        for kind in (
            "files_without_metadata",
            "duplicate_rows",
            "not_frontal",
            "rows_without_file",
            "undecodable_files",
        ):
            names = getattr(self, kind)
            first = f"   first: {', '.join(names[:3])}" if names else ""
            lines.append(f"{kind.replace('_', ' '):<25} {len(names):,}{first}")
        if self.no_images:
            lines.append(f"{'no images':<25} {sum(self.no_images.values()):,}   {in_words(self.no_images)}")
        for finding, count in self.without_class.items():
            lines.append(f"{'no class of this task':<25} {count:,} {finding}")
        lines.append(f"{'patients':<25} {self.patients_from or 'unknown: each file counts as one'}")
        return "\n".join(lines)

    def count_without_class(self, samples: Iterable[Sample]) -> None:
        """Note the images that map to no class, by their findings, the most frequent first."""
        findings = Counter(" + ".join(sample.findings) or "no finding stated" for sample in samples)
        self.without_class = dict(findings.most_common())

    def add_undecodable(self, why: Mapping[str, str]) -> None:
        """Note {file name: the decoder's complaint}."""
        self.undecodable_files = list(why)
        self.complaints |= why

    def require_clean(self, drop_bad: bool) -> None:
        """Raise DataError if rows cannot be used, unless `drop_bad` allows going on without them."""
        bad = {
            "no image file": self.rows_without_file,
            "an image that cannot be decoded": self.undecodable_files,
        }
        found = [
            f"{len(names)} {'has' if len(names) == 1 else 'have'} {what} "
            f"(first: {self.complaints.get(names[0], names[0]).rstrip('.')})"
            for what, names in bad.items()
            if names
        ]
        if found and not drop_bad:
            ask = "Is the archive unpacked whole? " if self.rows_without_file else ""
            raise DataError(
                f"of {self.rows:,} rows in {self.root}, {'; '.join(found)}. {ask}"
                "Repair them, or pass --drop-bad to go on without these rows (no substitute is ever used)."
            )


def is_synthetic(samples: Sequence[Sample]) -> bool:
    """Whether any image is drawn from the atlas instead of taken of a person."""
    return any(sample.site == SYNTHETIC for sample in samples)


def mark_of(samples: Sequence[Sample]) -> str:
    """The prefix of titles and tables; "" if all images are of real people."""
    if not is_synthetic(samples):
        return ""
    return SYNTHETIC_MARK if all(sample.site == SYNTHETIC for sample in samples) else PARTLY_MARK


def labels_of(samples: Sequence[Sample], classes: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the class index of each sample, whose label must be one of `classes`."""
    index = {name: number for number, name in enumerate(classes)}
    return np.asarray([index[sample.label or ""] for sample in samples], np.int64)
