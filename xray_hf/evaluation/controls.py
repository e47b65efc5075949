"""Shortcut controls: numbers from the tables that `xray-hf report` writes to controls/.

VIEW.parquet      the test rows as the network sees them with that input ablated, like predictions.parquet
test.parquet      TEST_ROWS: what is known of each test row, and where its class activation map lies
source.parquet    SITE_ROWS: the images of one class and two sites, and how recognisable the site of each is
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.evaluation import uncertainty
from xray_hf.evaluation.metrics import accuracy, confusion_matrix, describe, sensitivity
from xray_hf.evaluation.predictions import (
    META,
    OLD_SOURCE,
    Predictions,
    read_columns,
    schema_of,
    write_columns,
)
from xray_hf.evaluation.uncertainty import Ranking
from xray_hf.task import COVID19, PAPER_CLASSES, PNEUMONIA, SPLITS
from xray_hf.views import UNIFORM, VIEWS

# same_as: the first image of the data set that shows the same picture, "" if no other does.
# heat_lungs, heat_border: as views.shares_of_mass, of the class predicted; NaN without maps.
# Other text columns divide the rows into subgroups. A network that looks for lungs has LUNG_ROWS, too:
# the share of this heat in the lungs, and the share of a map that is the same everywhere in the crop.
TEST_ROWS = pa.schema(
    [
        ("file_name", pa.string()),
        ("same_as", pa.string()),
        ("heat_lungs", pa.float64()),
        ("heat_border", pa.float64()),
    ]
)
LUNG_ROWS = pa.schema([("heat_in_lungs", pa.float64()), ("uniform_in_lungs", pa.float64())])
SUBGROUPS = {"view_position": "view", "pathogen": "pathogen"}  # {column: attribute of Sample}
WITHIN = {"pathogen": PAPER_CLASSES[PNEUMONIA]}  # subgroups of one class only
FEATURES = ("thumbnail", "histogram", "embedding")  # what the site is predicted from
# patient: one number for the images of a patient and their near-duplicates. is_web: of the smaller site,
# which was the web in the first data set. The scores are log-odds of it, by models that saw no image of the
# patient; NaN where there are too few to fit one. Tables from before there were sources lack `source`.
SITE_ROWS = pa.schema(
    [
        ("file_name", pa.string()),
        ("patient", pa.int64()),
        ("is_web", pa.bool_()),
        *((name, pa.float64()) for name in FEATURES),
    ]
)
_SOURCE = pa.field("source", pa.string())
TEST_TABLE, SITE_TABLE = "test.parquet", "source.parquet"
WORST = 20  # mistakes to list
NOT_RECORDED = "not recorded"

_NEXT_STEP = "run `xray-hf report` again"
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TwoSites:
    """The question of SITE_ROWS: can the site be predicted within one class, where it must not matter?

    label: the class. smaller, larger: the two sites with most of its images; "" where there is no second.
    mistaken_for: the class of most other images of the smaller site, which a model of the site predicts.
    """

    label: str
    smaller: str
    larger: str
    mistaken_for: str

    @classmethod
    def choose(
        cls, labels: NDArray[np.integer], sites: NDArray[np.str_], classes: tuple[str, ...]
    ) -> TwoSites:
        """For the class with most images of a second site: (N,) class indexes and sites of all images."""
        names, site = np.unique(sites, return_inverse=True)
        counts = np.zeros((len(classes), len(names) + 1), np.int64)  # the last one has no images
        np.add.at(counts, (labels, site), 1)
        by_size = np.argsort(-counts, axis=1, kind="stable")[:, :2]
        largest, second = np.take_along_axis(counts, by_size, axis=1).T
        index = int(np.lexsort((largest, second))[-1])
        (larger, smaller), known = by_size[index], [*names.tolist(), ""]
        if not second[index]:
            smaller = len(names)
        others = np.where(np.arange(len(classes)) == index, -1, counts[:, smaller])
        return cls(classes[index], known[smaller], known[larger], classes[int(others.argmax())])


# The sites of a table without metadata.
_OLD_SITES = TwoSites(PAPER_CLASSES[PNEUMONIA], "Cohen", "Kermany", PAPER_CLASSES[COVID19])


def write_test_rows(path: Path, columns: Mapping[str, Any]) -> None:
    """Write TEST_ROWS and the text columns of subgroups; raises OutputError."""
    lungs = [field for field in LUNG_ROWS if field.name in columns]
    known = [*TEST_ROWS.names, *LUNG_ROWS.names]
    texts = [pa.field(name, pa.string()) for name in columns if name not in known]
    write_columns(path, pa.schema([*TEST_ROWS, *lungs, *texts]), columns)


def write_site_rows(path: Path, columns: Mapping[str, Any], sites: TwoSites) -> None:
    """Write SITE_ROWS and `source`; raises OutputError."""
    schema = pa.schema([*SITE_ROWS, _SOURCE], metadata={META: json.dumps(asdict(sites))})
    write_columns(path, schema, columns)


def summarise(folder: Path, predictions: Predictions) -> dict[str, Any]:
    """The sections of metrics.json that come from controls/, empty where there was no report.

    Raises BundleError for tables that are damaged or of other test rows than `predictions` has.
    """
    records = folder / manifest.CONTROLS
    if not records.is_dir():
        return {}
    test = predictions.select("test")
    views = {name: Predictions.read(records / f"{name}.parquet", _NEXT_STEP) for name in VIEWS}
    rows = _read_test_rows(records / TEST_TABLE)
    for names in (rows["file_name"], *(view.file_name for view in views.values())):
        if not np.array_equal(names, test.file_name):
            raise BundleError(f"{records} has other images than the bundle's test rows; {_NEXT_STEP}")
    return {
        "controls": {name: describe(view) | uncertainty.describe(view) for name, view in views.items()},
        "subgroups": subgroups(test, rows),
        "duplicates": duplicates(test, rows),
        "heatmap": heatmap(test, rows),
        "source": source(predictions, *_read_site_rows(records / SITE_TABLE)),
        "label_noise": label_noise(test),
    }


def subgroups(test: Predictions, rows: Columns) -> dict[str, Any]:
    """{criterion: {group: n, patients, accuracy, classes {label: n, sensitivity}}} of the test rows.

    Accuracy and sensitivities have their intervals. By site, by near-duplicates, and by each text column that
    says something of any row; pathogens are compared within Pneumonia. Sex and age would matter most and are
    left out.
    """
    texts = [name for name in rows if name not in (*TEST_ROWS.names, *LUNG_ROWS.names)]
    found: dict[str, Any] = {}
    for name, groups in {"site": test.site, **{name: rows[name] for name in texts}}.items():
        within = test.classes.index(WITHIN[name]) if WITHIN.get(name) in test.classes else None
        own = np.ones(len(test), bool) if within is None else test.label == within
        if (groups[own] != "").any():
            found[name] = _by(test.take(own), groups[own])
    repeated = np.where(rows["same_as"] == "", "far", "near")
    return {
        **found,
        "near_duplicate": _by(test, repeated),
        "left_out": "sex and age",
    }


def duplicates(test: Predictions, rows: Columns) -> dict[str, Any]:
    """Accuracy on all test rows, and with only the first row of each repeated picture."""
    pictures = np.where(rows["same_as"] == "", _keys(test.source, test.file_name), rows["same_as"])
    _, first, counts = np.unique(pictures, return_index=True, return_counts=True)
    return {
        "repeated_pictures": int((counts > 1).sum()),
        "all_rows": _rates(test),
        "one_of_each": _rates(test.take(np.sort(first))),
    }


def heatmap(test: Predictions, rows: Columns) -> dict[str, Any]:
    """Mean share of the maps' mass (CAM) around the lungs and in the outer frame, by predicted class.

    None for a class that was never predicted, and for a network whose graph has no maps. in_lungs: in the
    lungs themselves, of the images in which the network found them; only where it looks for them.
    """
    shares = {"lungs": rows["heat_lungs"], "border": rows["heat_border"]}
    uniform: dict[str, float | None] = dict(zip(shares, UNIFORM, strict=True))
    known = np.isfinite(rows["heat_lungs"])
    if "heat_in_lungs" in rows:
        shares["in_lungs"] = rows["heat_in_lungs"]
        known &= np.isfinite(rows["heat_in_lungs"])
        uniform["in_lungs"] = float(rows["uniform_in_lungs"][known].mean()) if known.any() else None
    per_class = {}
    for index, label in enumerate(test.classes):
        own = known & (test.predicted == index)
        means = {name: float(values[own].mean()) if own.any() else None for name, values in shares.items()}
        per_class[label] = {"n": int(own.sum()), **means}
    return {"uniform": uniform, "per_class": per_class}


def source(predictions: Predictions, rows: Columns, sites: TwoSites) -> dict[str, Any]:
    """How well the site can be predicted within a class that two sites have, and the consequence.

    class, called: TwoSites' label and mistaken_for. sites: the names of "web", the smaller, and "children",
    the larger; the keys are those of the first data set. auroc: of out-of-fold scores, with 95 % intervals
    over patients; None where there are too few images. web_called_covid: how many of the smaller site's
    images in each split are predicted as `mistaken_for`.
    """
    is_web = rows["is_web"]
    counts = {
        name: {"images": int(own.sum()), "patients": len(np.unique(rows["patient"][own]))}
        for name, own in (("web", is_web), ("children", ~is_web))
    }
    keys = _keys(predictions.source, predictions.file_name)
    web = np.isin(keys, _keys(rows["source"], rows["file_name"])[is_web])
    mistaken_for = predictions.classes.index(sites.mistaken_for)
    called = {}
    for split in SPLITS:
        own = np.flatnonzero(web & (predictions.split == split))
        _, once = np.unique(keys[own], return_index=True)  # the paper's protocol copies rows
        is_called = predictions.predicted[own[once]] == mistaken_for
        called[split] = {"images": len(once), "called": int(is_called.sum())}
    areas = {name: auroc_interval(is_web, rows[name], rows["patient"]) for name in FEATURES}
    return {
        "class": sites.label,
        "sites": {"web": sites.smaller, "children": sites.larger},
        "called": sites.mistaken_for,
        **counts,
        "auroc": areas,
        "web_called_covid": called,
    }


def label_noise(test: Predictions) -> dict[str, Any]:
    """Likely label errors among the test rows, which the network never saw.

    joint: (C, C) counts of label and the class the row looks like, by `confident_classes`. without_doubted:
    accuracy without the likely errors, the rows off the diagonal; leaving these out flatters the network, so
    this is not a bound. worst: `_worst`.
    """
    taken_for = confident_classes(test)
    known = taken_for >= 0
    return {
        "joint": confusion_matrix(test.label[known], taken_for[known], len(test.classes)).tolist(),
        "without_doubted": _rates(test.take(~known | (taken_for == test.label))),
        "worst": _worst(test),
    }


def confident_classes(test: Predictions) -> NDArray[np.int64]:
    """(N,) the class that each row looks like, -1 for none (Northcutt et al. 2021, equation 1).

    A row looks like a class if its probability reaches the class's average self-confidence; of several, the
    likeliest. If that is not its label, the label is a likely error, but the network may be wrong as well.
    """
    p = test.probabilities
    own = [p[test.label == k, k] for k in range(len(test.classes))]
    reached = p >= [each.mean() if len(each) else np.inf for each in own]
    return np.where(reached.any(axis=1), np.where(reached, p, -1).argmax(axis=1), -1)


def _worst(test: Predictions) -> list[dict[str, Any]]:
    """The network's mistakes with the lowest self-confidence: WORST at most.

    Ranked by self-confidence, the probability of the label (Northcutt et al. 2021). A list for a radiologist.
    """
    probabilities, predicted = test.probabilities, test.predicted
    order = np.argsort(probabilities[np.arange(len(test)), test.label], kind="stable")
    wrong = order[(predicted != test.label)[order]]
    return [
        {
            "source": str(test.source[row]),
            "file_name": str(test.file_name[row]),
            "label": test.classes[test.label[row]],
            "predicted": test.classes[predicted[row]],
            "probabilities": dict(zip(test.classes, probabilities[row].tolist(), strict=True)),
        }
        for row in wrong[:WORST]
    ]


def auroc_interval(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], patients: NDArray[np.int64]
) -> dict[str, Any] | None:
    """{value, interval} of the area under the ROC curve, over draws of patients.

    truth, scores, patients: (N,). None without a case of either kind or with scores that are not finite.
    Draws from few patients cannot show how others would differ: read it together with their number.
    """
    if truth.all() or not truth.any() or not np.isfinite(scores).all():
        return None
    draws = uncertainty.Draws(patients)
    ranking = [[Ranking.of(truth, scores)]]
    value = uncertainty.areas(ranking, np.ones((1, len(scores))))
    drawn = uncertainty.drawn_areas(ranking, draws)
    return {"value": float(value[0, 0]), "interval": uncertainty.interval(drawn[:, 0])}


def _read_test_rows(path: Path) -> Columns:
    found = schema_of(path, _NEXT_STEP)
    lungs = [each for each in LUNG_ROWS if each.name in found.names]
    texts = [each for each in found if each.name not in TEST_ROWS.names and each.type == pa.string()]
    return read_columns(path, pa.schema([*TEST_ROWS, *lungs, *texts]), _NEXT_STEP)


def _read_site_rows(path: Path) -> tuple[Columns, TwoSites]:
    found = schema_of(path, _NEXT_STEP)
    if META not in (found.metadata or {}):
        rows = read_columns(path, SITE_ROWS, _NEXT_STEP)
        return {**rows, "source": np.full(len(rows["file_name"]), OLD_SOURCE)}, _OLD_SITES
    try:
        sites = TwoSites(**json.loads(found.metadata[META]))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path} has damaged metadata ({error}); {_NEXT_STEP}") from error
    return read_columns(path, pa.schema([*SITE_ROWS, _SOURCE]), _NEXT_STEP), sites


def _keys(source: NDArray[np.str_], file_name: NDArray[np.str_]) -> NDArray[np.str_]:
    """(N,) what tells images apart: a file's name is unique only within its source."""
    return np.strings.add(np.strings.add(source, "/"), file_name)


def _by(part: Predictions, groups: NDArray[np.str_]) -> dict[str, Any]:
    """`_rates` of each group, the rows with "" last."""
    names = sorted(set(groups.tolist()), key=lambda name: (name == "", name))
    return {name or NOT_RECORDED: _rates(part.take(groups == name)) for name in names}


def _rates(part: Predictions) -> dict[str, Any]:
    if not len(part):
        return {"n": 0, "patients": 0, "accuracy": None, "interval": None, "classes": {}}
    right, patients = part.predicted == part.label, part.patient_id
    matrix = confusion_matrix(part.label, part.predicted, len(part.classes))
    found = zip(part.classes, matrix.sum(axis=1).tolist(), sensitivity(matrix).tolist(), strict=True)
    return {
        "n": len(part),
        "patients": len(np.unique(patients)),
        "accuracy": accuracy(matrix),
        "interval": uncertainty.share_interval(right, patients),
        "classes": {
            label: {
                "n": n,
                "sensitivity": rate,
                "interval": uncertainty.share_interval(right, patients, part.label == index),
            }
            for index, (label, n, rate) in enumerate(found)
            if n
        },
    }
