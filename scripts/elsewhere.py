"""What the external test sets say of a model together: none of them has all three classes in numbers.

openist has healthy adults alone and spain_twitter COVID-19 alone, both of hospitals that no shipped model has
seen; nih_figure1 has all three classes. Every number comes from a bundle's records, none from the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_hf import evidence, manifest
from xray_hf.evaluation import metrics, uncertainty
from xray_hf.evaluation.controls import auroc_interval
from xray_hf.evaluation.predictions import TEXTS, Predictions
from xray_hf.inference.engine import REJECTED
from xray_hf.report.numbers import Rate
from xray_hf.task import PAPER_CLASSES

NORMAL, PNEUMONIA, COVID = PAPER_CLASSES
ADULTS, FOUND = "openist", "spain_twitter"
UNSEEN = (ADULTS, FOUND)
ALL = (*UNSEEN, "nih_figure1")
ONE_HOSPITAL = "thorax_scan"  # adults, Normal and Pneumonia, of one hospital and one processing


def measure(bundle: Path) -> dict[str, Any]:
    """The numbers that a bundle's records allow, each with its value and 95 % interval.

    external: balanced accuracy on all external sets together. covid_auroc: COVID-19 against Normal on the
    unseen ones. called, found: shares of the healthy adults and of the COVID-19 there that are predicted as
    COVID-19. pneumonia_auroc: Pneumonia against Normal on the test rows of ONE_HOSPITAL. decisions: what the
    engine says of the unseen ones, where it was asked.
    """
    predictions = Predictions.read(bundle / manifest.PREDICTIONS)
    test = predictions.select("test")
    numbers: dict[str, Any] = {}
    if contrast := against_normal(test.take(test.source == ONE_HOSPITAL), PNEUMONIA):
        numbers["pneumonia_auroc"] = contrast
    sets = evidence.external_sets(bundle, predictions)
    if not set(ALL) <= sets.keys():
        return numbers
    every, unseen = (pool([sets[name] for name in names]) for names in (ALL, UNSEEN))
    matrix = metrics.confusion_matrix(every.label, every.predicted, len(every.classes))
    numbers["external"] = {
        "n": len(every),
        "value": float(metrics.balanced_accuracy(matrix)),
        "interval": uncertainty.describe(every)["intervals"]["balanced_accuracy"],
    }
    numbers["covid_auroc"] = against_normal(unseen, COVID)
    is_covid = unseen.predicted == unseen.classes.index(COVID)
    for name, place in (("called", ADULTS), ("found", FOUND)):
        numbers[name] = share(unseen, is_covid, unseen.source == place)
    if unseen.decision.all():
        numbers["decisions"] = of_engine(unseen)
    return numbers


def of_engine(unseen: Predictions) -> dict[str, Any]:
    """What the engine, which also abstains and rejects, says of X-rays that no training saw.

    called, found: as in `measure`, but of the answers. answered: the healthy adults that get a class.
    wrong: COVID-19 among these. rejected: frontal X-rays that are rejected.
    """
    is_adult = unseen.source == ADULTS
    is_covid = unseen.decision == COVID
    has_class = np.isin(unseen.decision, unseen.classes)
    return {
        "called": share(unseen, is_covid, is_adult),
        "found": share(unseen, is_covid, ~is_adult),
        "answered": share(unseen, has_class, is_adult),
        "wrong": share(unseen, is_covid, is_adult & has_class),
        "rejected": share(unseen, unseen.decision == REJECTED),
    }


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


def share(
    rows: Predictions, are_true: NDArray[np.bool_], among: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """{value, interval, counts: [how many, of how many]}; (N,) each. value is None among nobody."""
    chosen = np.ones(len(rows), bool) if among is None else among
    counts = [int((are_true & chosen).sum()), int(chosen.sum())]
    value = counts[0] / counts[1] if counts[1] else None
    interval = uncertainty.Draws(rows.patient_id).share(are_true, chosen) if counts[1] else None
    return {"value": value, "interval": interval, "counts": counts}


def rate(own: Mapping[str, Any]) -> Rate:
    """One of these numbers with its interval."""
    return Rate(own.get("value"), tuple(own["interval"]) if own.get("interval") else None)
