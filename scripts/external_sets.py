"""Numbers of a model on the external test sets together: none of them has enough of all three classes.

openist has only healthy adults and spain_twitter only COVID-19; nih_figure1 has all three classes, but its
Normal and Pneumonia are of a hospital that the multisource models know. Every number comes from a bundle's
records, none from the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from xray_hf import evidence, manifest
from xray_hf.evaluation import metrics, uncertainty
from xray_hf.evaluation.controls import auroc_interval
from xray_hf.evaluation.predictions import TEXTS, Predictions
from xray_hf.report.numbers import Rate
from xray_hf.task import PAPER_CLASSES, REJECTED

NORMAL, PNEUMONIA, COVID = PAPER_CLASSES
ADULTS, PATIENTS = "openist", "spain_twitter"
UNSEEN = (ADULTS, PATIENTS)
MIXED = "nih_figure1"
ALL = (*UNSEEN, MIXED)
# A picture that radiography has, too, and that was trained on: the search for near-duplicates missed it.
KNOWN_PICTURE = (PATIENTS, "covid19_271.jpg")
ONE_HOSPITAL = "thorax_scan"  # adults, Normal and Pneumonia, of one hospital and one processing


@cache  # a page asks for the same numbers many times
def measure(bundle: Path) -> dict[str, Any]:
    """The numbers that a bundle's records allow, each with its value and 95 % interval.

    pneumonia_auroc: Pneumonia against Normal on the test rows of ONE_HOSPITAL. balanced_accuracy: on all
    external sets together. covid_auroc: COVID-19 against Normal on the unseen ones. covid_false_positives,
    covid_sensitivity: shares of the healthy adults and of the COVID-19 there that are predicted as COVID-19.
    mixed: `of_mixed` of MIXED. engine: `of_engine` of the unseen ones, where the engine was asked.
    """
    predictions = Predictions.read(bundle / manifest.PREDICTIONS)
    is_twin = (predictions.source == KNOWN_PICTURE[0]) & (predictions.file_name == KNOWN_PICTURE[1])
    predictions = predictions.take(~is_twin)
    test = predictions.select("test")
    numbers: dict[str, Any] = {}
    if contrast := against_normal(test.take(test.source == ONE_HOSPITAL), PNEUMONIA):
        numbers["pneumonia_auroc"] = contrast
    sets = evidence.external_sets(bundle, predictions)
    if not set(ALL) <= sets.keys():
        return numbers
    every, unseen = (pool([sets[name] for name in names]) for names in (ALL, UNSEEN))
    is_adult, is_covid = unseen.source == ADULTS, predicted_as(unseen, COVID)
    return numbers | {
        "balanced_accuracy": balanced_accuracy(every),
        "covid_auroc": against_normal(unseen, COVID),
        "covid_false_positives": share(unseen, is_covid, is_adult),
        "covid_sensitivity": share(unseen, is_covid, ~is_adult),
        "mixed": of_mixed(sets[MIXED]),
        **({"engine": of_engine(unseen)} if unseen.decision.all() else {}),
    }


def of_mixed(rows: Predictions) -> dict[str, Any]:
    """Of MIXED: balanced_accuracy, pneumonia_sensitivity, covid_false_positives of its healthy adults."""
    is_normal, is_pneumonia = (rows.label == rows.classes.index(name) for name in (NORMAL, PNEUMONIA))
    return {
        "balanced_accuracy": balanced_accuracy(rows),
        "pneumonia_sensitivity": share(rows, predicted_as(rows, PNEUMONIA), is_pneumonia),
        "covid_false_positives": share(rows, predicted_as(rows, COVID), is_normal),
    }


def of_engine(unseen: Predictions) -> dict[str, Any]:
    """The engine, which also abstains and rejects, on the unseen sets.

    covid_false_positives, covid_sensitivity: as in `measure`, by its decisions. decided: the healthy adults
    whom it gives a class. covid_among_decided: COVID-19 among these. rejected: of all images.
    """
    is_adult = unseen.source == ADULTS
    is_covid = unseen.decision == COVID
    has_class = np.isin(unseen.decision, unseen.classes)
    return {
        "covid_false_positives": share(unseen, is_covid, is_adult),
        "covid_sensitivity": share(unseen, is_covid, ~is_adult),
        "decided": share(unseen, has_class, is_adult),
        "covid_among_decided": share(unseen, is_covid, is_adult & has_class),
        "rejected": share(unseen, unseen.decision == REJECTED, unseen.label >= 0),
    }


def balanced_accuracy(rows: Predictions) -> dict[str, Any]:
    """{value, interval} of the balanced accuracy."""
    matrix = metrics.confusion_matrix(rows.label, rows.predicted, len(rows.classes))
    interval = uncertainty.balanced_accuracy_interval(
        rows.predicted == rows.label, rows.label, rows.patient_id
    )
    return {"value": float(metrics.balanced_accuracy(matrix)), "interval": interval}


def predicted_as(rows: Predictions, label: str) -> NDArray[np.bool_]:
    """(N,) whether the network names this class."""
    return rows.predicted == rows.classes.index(label)


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Several sets as one; patients of different sets are different people."""
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in (*TEXTS, "label", "logits")
    }
    pairs = zip(columns["source"], columns["patient_id"], strict=True)
    columns["patient_id"] = np.asarray([f"{source}/{patient}" for source, patient in pairs])
    return replace(parts[0], **columns)


def against_normal(rows: Predictions, label: str) -> dict[str, Any] | None:
    """{value, interval} of the AUROC of a class against Normal, by the difference of their logits."""
    case, normal = rows.classes.index(label), rows.classes.index(NORMAL)
    chosen = rows.take(np.isin(rows.label, (case, normal)))
    if not len(chosen):
        return None
    _, patients = np.unique(chosen.patient_id, return_inverse=True)
    scores = (chosen.logits[:, case] - chosen.logits[:, normal]).astype(np.float64)
    return auroc_interval(chosen.label == case, scores, patients)


def share(rows: Predictions, are_true: NDArray[np.bool_], among: NDArray[np.bool_]) -> dict[str, Any]:
    """{value, interval, counts: [how many, of how many]}; (N,) each. value is None among no rows."""
    counts = [int((are_true & among).sum()), int(among.sum())]
    interval = uncertainty.share_interval(are_true, rows.patient_id, among)
    return {"value": counts[0] / counts[1] if counts[1] else None, "interval": interval, "counts": counts}


def exact(count: int, total: int) -> Rate:
    """A share with its exact interval, for images that no patient has two of."""
    interval = binomtest(count, total).proportion_ci(method="exact")
    return Rate(count / total, (interval.low, interval.high))


def rate(own: Mapping[str, Any]) -> Rate:
    """One of these numbers with its interval."""
    return Rate(own.get("value"), tuple(own["interval"]) if own.get("interval") else None)
