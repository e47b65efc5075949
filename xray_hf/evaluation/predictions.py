"""The table of predictions, the one source of metrics, figures and cards.

One row per image and split, as Parquet: file_name, source, site, patient_id, split, official_split, decision,
label (the class's name), logits (float32[C]). The class names, in the order of the logits, are in the
schema's metadata. It holds no pixels and can be redrawn without the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xray_hf.errors import BundleError, ConfigError
from xray_hf.files import atomic_file
from xray_hf.probabilities import softmax
from xray_hf.task import EXTERNAL, OFFICIAL_SPLITS, PAPER_CLASSES, REJECTED, SPLITS, check_classes

# Parts reported on their own: the splits, and the part of test that the data set's authors set aside and the
# literature reports. CoronaHack's has no COVID-19 image.
SUBSETS = (*SPLITS, "test_official")

TEXTS = ("file_name", "source", "site", "patient_id", "split", "official_split", "decision")
META = b"xray_hf"  # the key of the schema's metadata

# A table without metadata was written when there was one collection with the paper's classes.
OLD_SOURCE = "coronahack"
_OLD_REJECTED = "not a frontal chest X-ray"  # said more than the detector knows
_OLD_TEXTS = ("file_name", "patient_id", "split", "official_split")

_NEXT_STEP = "fetch the bundle again, or let `xray-hf train --resume` write it again"


def _blank() -> NDArray[np.str_]:
    return np.asarray("")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Predictions:
    """A model's predictions for N images; row i of every column is the same image.

    classes: the C class names in the order of the logits.
    file_name, source, site, patient_id: (N,) str; a file's name is unique within its source. split: (N,) str,
    of SPLITS or EXTERNAL. official_split: (N,) str, "TRAIN", "TEST" or "". label: (N,) int64, the true class,
    an index into classes. logits: (N, C) float32, not normalised.
    decision: (N,) str, a class or why the engine names none; "" where it was not asked. calibration: the
    manifest.calibration_mark of the decisions.
    A text column may be given as one text, () str, for all rows. A file may have several rows: the
    paper's protocol copies images.
    """

    classes: tuple[str, ...]
    file_name: NDArray[np.str_]
    source: NDArray[np.str_]
    site: NDArray[np.str_] = field(default_factory=_blank)
    patient_id: NDArray[np.str_]
    split: NDArray[np.str_]
    official_split: NDArray[np.str_] = field(default_factory=_blank)
    label: NDArray[np.int64]
    logits: NDArray[np.float32]
    decision: NDArray[np.str_] = field(default_factory=_blank)
    calibration: str = ""

    def __post_init__(self) -> None:
        """Repeat texts that are the same in all rows; raise ConfigError for invalid classes."""
        object.__setattr__(self, "classes", check_classes(self.classes))
        for name in TEXTS:
            if np.ndim(column := getattr(self, name)) == 0:
                object.__setattr__(self, name, np.full(len(self), column))

    def __len__(self) -> int:
        return len(self.label)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) float64, softmax of the logits: rows sum to 1."""
        return softmax(self.logits.astype(np.float64))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the class with the highest logit; the first one of equals."""
        return self.logits.argmax(axis=1).astype(np.int64)

    def select(self, subset: str) -> Predictions:
        """The rows of one of SUBSETS or of EXTERNAL, in their order; may be empty.

        Raises ConfigError for another name.
        """
        if subset not in (*SUBSETS, EXTERNAL):
            raise ConfigError(f"unknown split {subset!r}; choose one of {', '.join((*SUBSETS, EXTERNAL))}")
        rows = self.split == subset.removesuffix("_official")
        if subset == "test_official":
            rows &= self.official_split == "TEST"
        return self.take(rows)

    def by_source(self) -> dict[str, Predictions]:
        """{source: its rows}, in the order of the names."""
        return {str(name): self.take(self.source == name) for name in np.unique(self.source)}

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Predictions:
        """Some rows, by a mask or by their numbers."""
        return replace(self, **{name: getattr(self, name)[rows] for name in (*TEXTS, "label", "logits")})

    def write(self, path: Path) -> None:
        """Write the table as Parquet, atomically.

        Raises BundleError for columns of unequal length, values out of their range and logits that are not
        finite; OutputError when the file cannot be written.
        """
        self._check("the predictions to be written", "fix the code that made them")
        columns: dict[str, Any] = {name: getattr(self, name).astype(str).tolist() for name in TEXTS}
        columns["label"] = [self.classes[label] for label in self.label]
        columns["logits"] = list(self.logits.astype(np.float32))
        meta = json.dumps({"classes": self.classes, "calibration": self.calibration})
        write_columns(path, _schema(TEXTS, len(self.classes)).with_metadata({META: meta}), columns)

    @classmethod
    def read(cls, path: Path, next_step: str = _NEXT_STEP) -> Predictions:
        """Read and check a table that `write` wrote; columns it does not know are ignored.

        An older table, without metadata, has the paper's classes, one source, and decisions only if it is of
        an external test set. REJECTED once had another name, and is read under this one.
        Raises BundleError, which ends with `next_step`, for a file that is missing or not Parquet, and for
        missing columns or wrong values.
        """
        found = schema_of(path, next_step)
        meta = (found.metadata or {}).get(META)
        if meta:
            names, (classes, calibration) = list(TEXTS), _read_meta(path, meta, next_step)
        else:
            names, classes, calibration = list(_OLD_TEXTS), PAPER_CLASSES, ""
            names += [name for name in ("decision", "calibration") if name in found.names]
        columns = read_columns(path, _schema(names, len(classes)), next_step)
        if not meta:
            columns["source"] = np.asarray(OLD_SOURCE)
            if len(marks := np.unique(columns.pop("calibration", _blank()))) > 1:
                raise BundleError(f"{path} has decisions of {len(marks)} calibrations; {next_step}")
            calibration = "".join(marks.tolist())
        labels = columns["label"].tolist()
        _check_values(f"{path}: label", labels, classes, next_step)
        columns["label"] = np.asarray([classes.index(label) for label in labels], dtype=np.int64)
        if "decision" in columns:
            decisions = columns["decision"].tolist()
            columns["decision"] = np.asarray([REJECTED if d == _OLD_REJECTED else d for d in decisions], str)
        predictions = cls(classes=classes, **columns, calibration=calibration)
        predictions._check(str(path), next_step)
        return predictions

    def _check(self, what: str, next_step: str) -> None:
        n, size = len(self), len(self.classes)
        for name in (*TEXTS, "label", "logits"):
            shape, expected = np.shape(getattr(self, name)), (n, size) if name == "logits" else (n,)
            if shape != expected:
                raise BundleError(f"{what}: {name} has shape {shape}, expected {expected}; {next_step}")
        _check_values(f"{what}: split", self.split.tolist(), (*SPLITS, EXTERNAL), next_step)
        official = self.official_split.tolist()
        _check_values(f"{what}: official_split", official, (*OFFICIAL_SPLITS, ""), next_step)
        _check_values(f"{what}: label", self.label.tolist(), range(size), next_step)
        bad = np.flatnonzero(~np.isfinite(self.logits).all(axis=1))
        if len(bad):
            raise BundleError(
                f"{what}: {len(bad):,} of {n:,} rows have logits that are not finite, first: "
                f"{self.file_name[bad[0]]}. The model has diverged or its weights are damaged: "
                "train it again with a lower learning rate, or fetch the weights again."
            )


def write_columns(path: Path, schema: pa.Schema, columns: Mapping[str, Any]) -> None:
    """Write a table as Parquet, atomically; raises OutputError."""
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(dict(columns), schema=schema), temporary, compression="zstd")


def read_columns(path: Path, schema: pa.Schema, next_step: str) -> dict[str, NDArray[Any]]:
    """Read the columns of a schema, of its types and without gaps: (N,) each, of lists (N, their length).

    Raises BundleError, which ends with `next_step`, for a file that is missing, not Parquet or does not fit.
    """
    found = schema_of(path, next_step)
    for column in schema:
        kind = found.field(column.name).type if column.name in found.names else "missing"
        if kind != column.type:
            raise BundleError(f"{path}: column {column.name} is {kind}, expected {column.type}; {next_step}")
    with _parquet_errors(path, next_step):
        table = pq.read_table(path, columns=schema.names)
    for name in schema.names:
        if empty := table[name].null_count:
            raise BundleError(f"{path}: {empty:,} rows have no {name}; {next_step}")
    return {name: _as_array(table[name]) for name in schema.names}


def _schema(texts: Iterable[str], classes: int) -> pa.Schema:
    columns = [(name, pa.string()) for name in texts]
    return pa.schema([*columns, ("label", pa.string()), ("logits", pa.list_(pa.float32(), classes))])


def schema_of(path: Path, next_step: str) -> pa.Schema:
    """The schema of a Parquet file; raises BundleError as `read_columns` does."""
    with _parquet_errors(path, next_step):
        return pq.read_schema(path)


@contextmanager
def _parquet_errors(path: Path, next_step: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BundleError(f"there is no {path}; {next_step}") from error
    except (pa.ArrowException, OSError) as error:
        raise BundleError(f"{path} cannot be read as Parquet ({error}); {next_step}") from error


def _as_array(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_string(column.type):
        return np.asarray(column.to_pylist(), dtype=str)
    if pa.types.is_fixed_size_list(column.type):
        values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return values.reshape(-1, column.type.list_size)
    return column.to_numpy()


def _read_meta(path: Path, meta: bytes, next_step: str) -> tuple[tuple[str, ...], str]:
    """The class names and the calibration mark."""
    try:
        saved = json.loads(meta)
        return check_classes(saved["classes"]), str(saved["calibration"])
    except (ConfigError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} has damaged metadata ({error}); {next_step}") from error


def _check_values(what: str, values: Iterable[object], allowed: Iterable[object], next_step: str) -> None:
    if unknown := set(values) - set(allowed):
        first = min(unknown, key=str)
        raise BundleError(f"{what} holds {first!r}, expected one of {list(allowed)}; {next_step}")
