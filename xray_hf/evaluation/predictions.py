"""The table of predictions is the record; metrics, figures and cards are views of it.

One row per image and split, as Parquet: file_name, patient_id, split, official_split, label (the class's
name), logits (float32[3], in the order of LABELS). It holds no pixels and can be redrawn without the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xray_hf.errors import BundleError, ConfigError
from xray_hf.files import atomic_file
from xray_hf.probabilities import softmax
from xray_hf.task import LABELS, OFFICIAL_SPLITS, SPLITS

# What can be looked at alone: the splits, and the part of test that the data set's authors set aside and the
# literature reports. It has no COVID-19 image.
SUBSETS = (*SPLITS, "test_official")
EXTERNAL = "external"  # the split of images that are of no split: another collection's

SCHEMA = pa.schema(
    [
        ("file_name", pa.string()),
        ("patient_id", pa.string()),
        ("split", pa.string()),
        ("official_split", pa.string()),
        ("label", pa.string()),
        ("logits", pa.list_(pa.float32(), len(LABELS))),
    ]
)

_AGAIN = "fetch the bundle again, or let `train.py --resume` write it anew"


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """What a model said of N images; row i of every column is the same image.

    file_name, patient_id: (N,) str. split: (N,) str, of SPLITS or EXTERNAL. official_split: (N,) str,
    "TRAIN" or "TEST". label: (N,) int64, the true class, an index into LABELS. logits: (N, 3) float32, not
    normalised.
    A file may appear in several rows: the paper's protocol copies images.
    """

    file_name: NDArray[np.str_]
    patient_id: NDArray[np.str_]
    split: NDArray[np.str_]
    official_split: NDArray[np.str_]
    label: NDArray[np.int64]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, 3) float64, softmax of the logits: rows sum to 1."""
        return softmax(self.logits.astype(np.float64))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the class with the highest logit; the first one of equals."""
        return self.logits.argmax(axis=1).astype(np.int64)

    def select(self, subset: str) -> Predictions:
        """The rows of one of SUBSETS, in their order; may be empty. Raises ConfigError for another name."""
        if subset not in SUBSETS:
            raise ConfigError(f"unknown split {subset!r}; choose one of {', '.join(SUBSETS)}")
        rows = self.split == subset.removesuffix("_official")
        if subset == "test_official":
            rows &= self.official_split == "TEST"
        return self.take(rows)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Predictions:
        """Some rows, by a mask or by their numbers."""
        return Predictions(*(getattr(self, name)[rows] for name in SCHEMA.names))

    def write(self, path: Path) -> None:
        """Write the table as Parquet, atomically.

        Raises BundleError for columns of unequal length, values out of their range and logits that are not
        finite; OutputError when the file cannot be written.
        """
        write_columns(path, SCHEMA, self.columns())

    def columns(self) -> dict[str, Any]:
        """The checked columns of SCHEMA; raises BundleError as `write` does."""
        self._check("the predictions to be written", "fix the code that made them")
        columns: dict[str, Any] = {
            name: np.asarray(getattr(self, name), dtype=str).tolist() for name in SCHEMA.names[:4]
        }
        columns["label"] = [LABELS[label] for label in self.label]
        columns["logits"] = list(self.logits.astype(np.float32))
        return columns

    @classmethod
    def read(cls, path: Path, next_step: str = _AGAIN) -> Predictions:
        """Read and check a table that `write` wrote; columns it does not know are ignored.

        Raises BundleError, which ends with `next_step`, for a file that is missing or no Parquet, and for
        missing columns or wrong values.
        """
        table = read_columns(path, SCHEMA, next_step)
        labels = table["label"].to_pylist()
        _check_values(f"{path}: label", labels, LABELS, next_step)
        logits = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        texts = {name: np.asarray(table[name].to_pylist(), dtype=str) for name in SCHEMA.names[:4]}
        predictions = cls(
            **texts,
            label=np.asarray([LABELS.index(label) for label in labels], dtype=np.int64),
            logits=logits.reshape(-1, len(LABELS)),
        )
        predictions._check(str(path), next_step)
        return predictions

    def _check(self, what: str, next_step: str) -> None:
        n = len(self)
        shapes = {name: np.shape(getattr(self, name)) for name in SCHEMA.names}
        expected = {name: (n, len(LABELS)) if name == "logits" else (n,) for name in SCHEMA.names}
        for name, shape in shapes.items():
            if shape != expected[name]:
                raise BundleError(f"{what}: {name} has shape {shape}, expected {expected[name]}; {next_step}")
        _check_values(f"{what}: split", self.split.tolist(), (*SPLITS, EXTERNAL), next_step)
        _check_values(f"{what}: official_split", self.official_split.tolist(), OFFICIAL_SPLITS, next_step)
        _check_values(f"{what}: label", self.label.tolist(), range(len(LABELS)), next_step)
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


def read_columns(path: Path, schema: pa.Schema, next_step: str) -> pa.Table:
    """Read the columns of a schema, of its types and without gaps.

    Raises BundleError, which ends with `next_step`, for a file that is missing, no Parquet or does not fit.
    """
    try:
        found = pq.read_schema(path)
        for field in schema:
            kind = found.field(field.name).type if field.name in found.names else "missing"
            if kind != field.type:
                raise BundleError(
                    f"{path}: column {field.name} is {kind}, expected {field.type}; {next_step}"
                )
        table = pq.read_table(path, columns=schema.names)
    except FileNotFoundError as error:
        raise BundleError(f"there is no {path}; {next_step}") from error
    except (pa.ArrowException, OSError) as error:
        raise BundleError(f"{path} cannot be read as Parquet ({error}); {next_step}") from error
    for name in schema.names:
        if empty := table[name].null_count:
            raise BundleError(f"{path}: {empty:,} rows have no {name}; {next_step}")
    return table


def _check_values(what: str, values: Iterable[object], allowed: Iterable[object], next_step: str) -> None:
    if unknown := set(values) - set(allowed):
        first = min(unknown, key=str)
        raise BundleError(f"{what} holds {first!r}, expected one of {list(allowed)}; {next_step}")
