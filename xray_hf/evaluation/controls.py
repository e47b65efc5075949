"""Controls that could prove a model wrong: numbers from what `xray-hf report` leaves in controls/.

VIEW.parquet      the test rows as the network sees them in each control view, like predictions.parquet
test.parquet      TEST_ROWS: what is known of each test row, and where its heatmap lies
source.parquet    SOURCE_ROWS: the Pneumonia images, and how well each is told to come from the web
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.evaluation import uncertainty
from xray_hf.evaluation.metrics import accuracy, confusion_matrix, describe, sensitivity
from xray_hf.evaluation.predictions import Predictions, read_columns
from xray_hf.task import COVID19, LABELS, PNEUMONIA, SPLITS
from xray_hf.views import UNIFORM, VIEWS

# same_as: the first image of the data set that shows the same picture, "" if no other does.
# heat_lungs, heat_border: as views.shares_of_mass, of the class predicted; NaN without heatmaps.
TEST_ROWS = pa.schema(
    [
        ("file_name", pa.string()),
        ("view_position", pa.string()),
        ("pathogen", pa.string()),
        ("same_as", pa.string()),
        ("heat_lungs", pa.float64()),
        ("heat_border", pa.float64()),
    ]
)
FEATURES = ("thumbnail", "histogram", "embedding")  # what the source is told by
# patient: images of one, and near-duplicates, have the same number. The scores are log-odds of the web, by
# models that saw no image of the patient; NaN where there are too few to fit one.
SOURCE_ROWS = pa.schema(
    [
        ("file_name", pa.string()),
        ("patient", pa.int64()),
        ("is_web", pa.bool_()),
        *((name, pa.float64()) for name in FEATURES),
    ]
)
TEST_TABLE, SOURCE_TABLE = "test.parquet", "source.parquet"
WORST = 20  # mistakes that are named
NOT_RECORDED = "not recorded"

_AGAIN = "run `xray-hf report` again"
Columns = Mapping[str, NDArray[Any]]


def summarise(folder: Path, predictions: Predictions) -> dict[str, Any]:
    """The sections of metrics.json that come from controls/, empty where there was no report.

    Raises BundleError for tables that are damaged or of other test rows than `predictions` has.
    """
    records = folder / manifest.CONTROLS
    if not records.is_dir():
        return {}
    test = predictions.select("test")
    views = {name: Predictions.read(records / f"{name}.parquet", _AGAIN) for name in VIEWS}
    rows = _read(records / TEST_TABLE, TEST_ROWS)
    for names in (rows["file_name"], *(view.file_name for view in views.values())):
        if not np.array_equal(names, test.file_name):
            raise BundleError(f"{records} is of other images than the bundle's test rows; {_AGAIN}")
    return {
        "controls": {name: describe(view) | uncertainty.describe(view) for name, view in views.items()},
        "subgroups": subgroups(test, rows),
        "duplicates": duplicates(test, rows),
        "heatmap": heatmap(test, rows),
        "source": source(predictions, _read(records / SOURCE_TABLE, SOURCE_ROWS)),
        "label_noise": label_noise(test),
    }


def subgroups(test: Predictions, rows: Columns) -> dict[str, Any]:
    """{what divides: {group: n, patients, accuracy, classes {label: n, sensitivity}}} of the test rows.

    Accuracy and sensitivities have their intervals. Pathogens are compared within the class Pneumonia.
    Sex and age would matter most and are left out.
    """
    ill = test.label == PNEUMONIA
    repeated = np.where(rows["same_as"] == "", "far", "near")
    return {
        "view_position": _by(test, rows["view_position"]),
        "pathogen": _by(test.take(ill), rows["pathogen"][ill]),
        "near_duplicate": _by(test, repeated),
        "left_out": "sex and age: the children's hospital recorded neither with its images",
    }


def duplicates(test: Predictions, rows: Columns) -> dict[str, Any]:
    """Accuracy on all test rows, and with one row, the first, of each picture that is there repeatedly."""
    pictures = np.where(rows["same_as"] == "", test.file_name, rows["same_as"])
    _, first, counts = np.unique(pictures, return_index=True, return_counts=True)
    return {
        "repeated_pictures": int((counts > 1).sum()),
        "all_rows": _rates(test),
        "one_of_each": _rates(test.take(np.sort(first))),
    }


def heatmap(test: Predictions, rows: Columns) -> dict[str, Any]:
    """Mean share of the heatmaps' mass around the lungs and in the outer frame, by the class predicted.

    None for a class that was never predicted, and for a network whose graph has no heatmaps.
    """
    shares = {"lungs": rows["heat_lungs"], "border": rows["heat_border"]}
    known = np.isfinite(rows["heat_lungs"])
    per_class = {
        label: {"n": int(own.sum()), **{name: _mean(values[own]) for name, values in shares.items()}}
        for label, own in ((label, known & (test.predicted == k)) for k, label in enumerate(LABELS))
    }
    return {"uniform": dict(zip(shares, UNIFORM, strict=True)), "per_class": per_class}


def source(predictions: Predictions, rows: Columns) -> dict[str, Any]:
    """How well the collection can be told within the class Pneumonia, which both have, and what follows.

    auroc: of out-of-fold scores, with 95 % intervals over patients; None where there are too few images.
    web_called_covid: of the web's Pneumonia in each split, how many the network calls COVID-19.
    """
    is_web = rows["is_web"]
    counts = {
        name: {"images": int(own.sum()), "patients": len(np.unique(rows["patient"][own]))}
        for name, own in (("web", is_web), ("children", ~is_web))
    }
    web = np.isin(predictions.file_name, rows["file_name"][is_web])
    called = {}
    for split in SPLITS:
        own = predictions.take(web & (predictions.split == split))
        _, once = np.unique(own.file_name, return_index=True)  # the paper's protocol copies rows
        called[split] = {"images": len(once), "called": int((own.predicted[once] == COVID19).sum())}
    areas = {name: auroc_interval(is_web, rows[name], rows["patient"]) for name in FEATURES}
    return {**counts, "auroc": areas, "web_called_covid": called}


def label_noise(test: Predictions) -> dict[str, Any]:
    """What of the test rows' labels the network, which never saw them, does not believe.

    joint: (C, C) counts of label and what the network takes the row for, as `confident_classes` has it.
    without_doubted: accuracy of the rows on its diagonal and of those that fit no class; dropping what the
    network doubts flatters the network, and is no bound. worst: `_worst`.
    """
    taken_for = confident_classes(test)
    known = taken_for >= 0
    return {
        "joint": confusion_matrix(test.label[known], taken_for[known]).tolist(),
        "without_doubted": _rates(test.take(~known | (taken_for == test.label))),
        "worst": _worst(test),
    }


def confident_classes(test: Predictions) -> NDArray[np.int64]:
    """(N,) the class that each row is taken for, -1 for none (Northcutt et al. 2021, equation 1).

    A row is taken for a class if its probability reaches the mean of the rows with that label; of several
    the likeliest. Where that is not its label, the label is in doubt: by a network that may be wrong as well.
    """
    p = test.probabilities
    own = [p[test.label == k, k] for k in range(len(LABELS))]
    reached = p >= [each.mean() if len(each) else np.inf for each in own]
    return np.where(reached.any(axis=1), np.where(reached, p, -1).argmax(axis=1), -1)


def _worst(test: Predictions) -> list[dict[str, Any]]:
    """The rows whose label the network believes least, among its mistakes: WORST at most.

    Ranked by self-confidence, the probability of the label (Northcutt et al. 2021). A list for a radiologist.
    """
    confidence = test.probabilities[np.arange(len(test)), test.label]
    order = [row for row in np.argsort(confidence, kind="stable") if test.predicted[row] != test.label[row]]
    return [
        {
            "file_name": str(test.file_name[row]),
            "label": LABELS[test.label[row]],
            "predicted": LABELS[test.predicted[row]],
            "probabilities": dict(zip(LABELS, test.probabilities[row].tolist(), strict=True)),
        }
        for row in order[:WORST]
    ]


def auroc_interval(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], patients: NDArray[np.int64]
) -> dict[str, Any] | None:
    """{value, interval} of the area under the ROC curve, over draws of patients.

    truth, scores, patients: (N,). None without a case of either kind or with scores that are not finite.
    Draws from few patients cannot show what others would be like: read it beside their number.
    """
    if truth.all() or not truth.any() or not np.isfinite(scores).all():
        return None
    draws = uncertainty.Draws.of(patients)
    areas = [uncertainty.weighted_auroc(truth, scores, weights) for weights in draws.weights()]
    value = uncertainty.weighted_auroc(truth, scores, np.ones((1, len(scores))))
    return {"value": float(value[0]), "interval": uncertainty.interval(np.concatenate(areas))}


def _read(path: Path, schema: pa.Schema) -> Columns:
    table = read_columns(path, schema, _AGAIN)
    # Of an empty column numpy cannot guess the type.
    kinds = {field.name: field.type.to_pandas_dtype() for field in schema}
    of_text = {name: str if kind is np.object_ else kind for name, kind in kinds.items()}
    return {name: np.asarray(table[name].to_pylist(), dtype=kind) for name, kind in of_text.items()}


def _by(part: Predictions, groups: NDArray[np.str_]) -> dict[str, Any]:
    """`_rates` of each group, the rows with "" last."""
    names = sorted(set(groups.tolist()), key=lambda name: (name == "", name))
    return {name or NOT_RECORDED: _rates(part.take(groups == name)) for name in names}


def _rates(part: Predictions) -> dict[str, Any]:
    if not len(part):
        return {"n": 0, "patients": 0, "accuracy": None, "interval": None, "classes": {}}
    draws, right = uncertainty.Draws.of(part.patient_id), part.predicted == part.label
    matrix = confusion_matrix(part.label, part.predicted)
    found = zip(LABELS, matrix.sum(axis=1).tolist(), sensitivity(matrix).tolist(), strict=True)
    return {
        "n": len(part),
        "patients": len(np.unique(part.patient_id)),
        "accuracy": accuracy(matrix),
        "interval": draws.share(right),
        "classes": {
            label: {"n": n, "sensitivity": rate, "interval": draws.share(right, part.label == index)}
            for index, (label, n, rate) in enumerate(found)
            if n
        },
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
