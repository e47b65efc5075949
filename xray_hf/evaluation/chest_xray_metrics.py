"""The metrics of this package as a module for Hugging Face `evaluate`; it works offline.

    metric = evaluate.load("xray_hf/evaluation/chest_xray_metrics.py")   # or ChestXrayMetrics()
    metric.compute(predictions=[0, 1, 2], references=[0, 1, 1])

`evaluate.load` runs a copy of this file in another folder, so it imports the installed xray_hf by its full
name. `evaluate` itself imports torch; `xray_hf.evaluation.metrics` gives the same numbers without either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Not `from evaluate import Metric`: evaluate.load takes the first metric class that it finds in this file.
import datasets
import evaluate
import numpy as np

from xray_hf.evaluation.metrics import measure
from xray_hf.task import PAPER_CLASSES

_DESCRIPTION = f"""\
Metrics of a chest X-ray classifier with two or more classes, by default {", ".join(PAPER_CLASSES)}: confusion
matrix, accuracy, balanced accuracy, macro F1; per class sensitivity, specificity, precision, F1; with scores
also the area under the ROC curve and the cross entropy. A ratio without cases is None, and means go over the
classes that have cases, since a test set may lack a class altogether.
"""

_INPUTS = """
Args:
    predictions: (N,) predicted class indexes, 0 to C - 1.
    references: (N,) true class indexes.
    prediction_scores: optional, for `compute` only: (N, C) class probabilities, rows sum to 1,
        in the order in which the predictions were added.
    classes: optional, for `compute` only: the C names of the classes.
Returns:
    dict: n, class_counts, confusion_matrix (rows true, columns predicted), accuracy, balanced_accuracy,
    macro_f1, per_class {label: sensitivity, specificity, precision, f1}; with scores also macro_auroc,
    cross_entropy and auroc in per_class.
"""

# The source of the Normal and Pneumonia images, and of the official test set.
_CITATION = """\
@article{kermany2018identifying,
  title = {Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning},
  author = {Kermany, Daniel S. and Goldbaum, Michael and Cai, Wenjia and others},
  journal = {Cell},
  volume = {172},
  number = {5},
  pages = {1122--1131},
  year = {2018},
  doi = {10.1016/j.cell.2018.02.010}
}
"""


class ChestXrayMetrics(evaluate.Metric):
    """`xray_hf.evaluation.metrics.measure` behind the interface of `evaluate`; it adds nothing of its own."""

    def _info(self) -> evaluate.MetricInfo:
        index = datasets.Value("int32")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": index, "references": index}),
        )

    def _compute(
        self,
        *,
        predictions: Sequence[int],
        references: Sequence[int],
        prediction_scores: Sequence[Sequence[float]] | None = None,
        classes: Sequence[str] = PAPER_CLASSES,
    ) -> dict[str, Any]:
        scores = None if prediction_scores is None else np.asarray(prediction_scores, dtype=np.float64)
        return measure(np.asarray(references), np.asarray(predictions), scores, classes)
