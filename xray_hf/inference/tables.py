"""The table of predictions: rows, pieces of a bulk run, file formats."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray_hf.errors import ImageError, OutputError
from xray_hf.files import made_folder, write_json, write_text
from xray_hf.inference.engine import Engine, Prediction
from xray_hf.task import REJECTED

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 1000  # rows, or a few more to fill the last batch
JOB = "job.json"

Row = dict[str, Any]


class Pieces:
    """The rows of a job on disk, as JSON lines, until all are there. rows: of each piece except the last."""

    def __init__(self, out: Path, rows: int = PIECE) -> None:
        self.out, self.rows = out, rows
        self.folder = out.parent / f".{out.name}.pieces"

    def begin(self, job: dict[str, Any], heatmaps: Path | None, *, resume: bool) -> None:
        """Make the folder, with a description of the job, and that of the class activation maps.

        Raises OutputError if one is taken or cannot be made; then neither is made.
        """
        if (self.folder / JOB).exists():
            if not resume:
                raise OutputError(
                    f"{self.folder} holds an unfinished run; pass --resume to go on, or delete that folder."
                )
            return
        if heatmaps and heatmaps.exists() and (not heatmaps.is_dir() or any(heatmaps.iterdir())):
            raise OutputError(f"{heatmaps} exists and is not an empty folder; choose another --cams.")
        with made_folder(heatmaps) if heatmaps else nullcontext():
            self.remove()  # left by a run that was killed while it cleaned up
            write_json(self.folder / JOB, job)

    def require_same(self, job: dict[str, Any]) -> None:
        """Raise OutputError if the pieces are of another job."""
        path = self.folder / JOB
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path} cannot be read ({error}); delete {self.folder} to start over."
            ) from error
        differences = [
            f"{name} {_short(begun.get(name))}, now {_short(value)}"
            for name, value in job.items()
            if begun.get(name) != value
        ]
        if differences:
            raise OutputError(
                f"{self.folder} holds pieces of another job: {'; '.join(differences)}. "
                "Pass the same options as then, choose another --out, or delete that folder."
            )

    def existing(self) -> Iterator[int]:
        """The numbers of the finished pieces."""
        return (int(path.stem) for path in self.folder.glob("[0-9]*.jsonl"))

    def count(self, total: int) -> int:
        """The number of pieces of `total` rows."""
        return math.ceil(total / self.rows)

    def size(self, number: int, total: int) -> int:
        """The number of rows in a piece, of `total` in all."""
        return min(self.rows, total - number * self.rows)

    def write(self, number: int, rows: Sequence[Row]) -> None:
        """Write a piece atomically."""
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        write_text(self._path(number), "".join(lines))

    def read_all(self, total: int) -> Iterator[list[Row]]:
        """Each piece's rows, in order; raises OutputError if one is missing."""
        for number in range(self.count(total)):
            try:
                text = self._path(number).read_text(encoding="utf-8")
            except OSError as error:
                raise OutputError(f"{self._path(number)} is missing; pass --resume to go on.") from error
            yield [json.loads(line) for line in text.split("\n")[:-1]]

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.jsonl"


def _short(value: object) -> str:
    return str(value)[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def columns(labels: Iterable[str]) -> list[str]:
    """The columns of a table; docs/predict.md says what each holds."""
    probabilities = [f"probability_{label}" for label in labels]
    return [*_TEXTS[:4], *probabilities, "ood_score", "heat_in_lungs", *_TEXTS[4:]]


def to_row(source: str, found: Prediction | ImageError, labels: Iterable[str]) -> Row:
    """An image's row; without class and probabilities if it was rejected, since they mean nothing then."""
    row: Row = dict.fromkeys(columns(labels)) | {"source": _printable(source)}
    if isinstance(found, ImageError):
        return row | {"error": _printable(str(found))}
    row |= {"decision": found.decision, "reason": found.reason, "ood_score": _number(found.ood_score)}
    row |= {"warnings": "; ".join(found.warnings)}
    if found.decision == REJECTED:
        return row
    row |= {f"probability_{label}": _number(value) for label, value in found.probabilities.items()}
    return row | {"label": found.label, "heat_in_lungs": _number(found.heat_in_lungs)}


def schema(labels: Iterable[str]) -> pa.Schema:
    """The columns with their types."""
    import pyarrow as pa

    return pa.schema([(name, pa.string() if name in _TEXTS else pa.float32()) for name in columns(labels)])


def classify(engine: Engine, images: pa.Table | pa.RecordBatch, content: str | None) -> pa.Table:
    """A batch of images -> their rows, in order.

    images: `path` names each image. content: the column of the files' bytes; None: `path` is opened here.
    """
    import pyarrow as pa

    sources = images["path"].to_pylist()
    contents = sources if content is None else [each or b"" for each in images[content].to_pylist()]
    found = zip(sources, engine.stream(contents), strict=True)
    rows = [to_row(source, each, engine.labels) for source, each in found]
    return pa.Table.from_pylist(rows, schema(engine.labels))


def _printable(text: str) -> str:
    """File names may contain bytes that are not text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _number(value: float | None) -> float | None:
    """A float32 with no more digits than it has; None if it is not finite."""
    return float(str(np.float32(value))) if value is not None and math.isfinite(value) else None


_TEXTS = ("source", "label", "decision", "reason", "warnings", "error")


def _write_parquet(path: Path, labels: Sequence[str], pieces: Iterable[list[Row]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = schema(labels)
    with parquet.ParquetWriter(path, kinds) as writer:
        for rows in pieces:
            writer.write_table(pa.Table.from_pylist(rows, kinds))


def _write_csv(path: Path, labels: Sequence[str], pieces: Iterable[list[Row]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns(labels), lineterminator="\n")
        writer.writeheader()
        for rows in pieces:
            writer.writerows(rows)


def _write_jsonl(path: Path, labels: Sequence[str], pieces: Iterable[list[Row]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for rows in pieces:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS: dict[str, Callable[[Path, Sequence[str], Iterable[list[Row]]], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
