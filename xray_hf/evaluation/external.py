"""Another collection's images, as the engine saw them: a record beside the predictions, and its numbers.

external/NAME.parquet has the columns of predictions.parquet, with split "external", and besides `decision`,
the class or what the engine said in its place, and `calibration`, the manifest.calibration_mark it was made
under. A bundle is made to be published, and the images may be of a hospital's patients: numbers stand for
their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.evaluation.predictions import SCHEMA, Predictions, read_columns, write_columns
from xray_hf.evaluation.uncertainty import Draws
from xray_hf.task import LABELS

_DECISION = pa.schema([("decision", pa.string()), ("calibration", pa.string())])
_AGAIN = "run `xray-hf evaluate BUNDLE --external --data-dir DIR` again"


@dataclass(frozen=True, eq=False)
class External:
    """predictions: of N images. decision: (N,) str, a class of LABELS or why there is none.

    calibration: the manifest.calibration_mark of the decisions.
    """

    predictions: Predictions
    decision: NDArray[np.str_]
    calibration: str

    def write(self, path: Path) -> None:
        """Write one table, atomically; raises BundleError as Predictions.write, OutputError."""
        marks = [self.calibration] * len(self.decision)
        columns = {
            **self.predictions.columns(),
            "decision": self.decision.tolist(),
            "calibration": marks,
        }
        write_columns(path, pa.unify_schemas([SCHEMA, _DECISION]), columns)

    @classmethod
    def read(cls, path: Path) -> External:
        """Read and check what `write` wrote; raises BundleError."""
        columns = read_columns(path, _DECISION, _AGAIN)
        decision, marks = (columns[name].to_pylist() for name in _DECISION.names)
        if len(set(marks)) > 1:
            raise BundleError(f"{path} has decisions of {len(set(marks))} calibrations; {_AGAIN}")
        return cls(Predictions.read(path, _AGAIN), np.asarray(decision, dtype=str), "".join(set(marks)))

    def decisions(self, calibration: str) -> dict[str, Any] | None:
        """What the engine decided, ready for JSON; None if the bundle has been calibrated anew since.

        The share of each decision that is no class; `decided`, of what is left, with its accuracy and
        the interval of that (uncertainty.py).
        """
        if calibration != self.calibration:
            return None
        decided = np.isin(self.decision, LABELS)
        names, counts = np.unique(self.decision[~decided], return_counts=True)
        right = self.decision == np.asarray(LABELS)[self.predictions.label]
        share = float(right[decided].mean()) if decided.any() else None
        interval = Draws.of(self.predictions.patient_id).share(right, decided) if decided.any() else None
        return {
            "not_decided": {
                str(name): n / len(decided) for name, n in zip(names, counts.tolist(), strict=True)
            },
            "decided": int(decided.sum()),
            "accuracy_of_decided": share,
            "intervals": {"accuracy_of_decided": interval},
        }


def read_all(folder: Path) -> dict[str, External]:
    """{name: record} of a bundle, in the order of the names; raises BundleError for a damaged one."""
    return {
        path.stem: External.read(path) for path in sorted((folder / manifest.EXTERNAL).glob("[!.]*.parquet"))
    }
