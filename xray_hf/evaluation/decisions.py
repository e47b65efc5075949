"""The engine's decisions on an external test set: a class, or why it gives none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import shares


def describe(predictions: Predictions, calibration: str) -> dict[str, Any] | None:
    """Ready for JSON; None where the engine was not asked, or has been recalibrated since.

    not_decided: the share of each decision that is not a class. decided: how many images are left, and the
    accuracy on these with its interval. by_class: as answers_by_class gives them. calibration: the bundle's
    manifest.calibration_mark now.
    """
    if calibration != predictions.calibration or not predictions.decision.all():
        return None
    classes = np.asarray(predictions.classes)
    decided = np.isin(predictions.decision, classes)
    names, counts = np.unique(predictions.decision[~decided], return_counts=True)
    right = predictions.decision == classes[predictions.label]
    return {
        "not_decided": {str(name): n / len(decided) for name, n in zip(names, counts.tolist(), strict=True)},
        "decided": int(decided.sum()),
        **shares({"accuracy_of_decided": (right, decided)}, predictions.patient_id),
        "by_class": answers_by_class(predictions, predictions.decision),
    }


def answers_by_class(predictions: Predictions, answers: NDArray[Any]) -> dict[str, Any]:
    """{class: the share of its images that get each class as their answer, with intervals}.

    answers: (N,) str, the most probable class of each image, or its decision. Images without a class as
    answer count in the denominator. A class without images is left out.
    """
    classes = np.asarray(predictions.classes)
    among = {str(name): predictions.label == k for k, name in enumerate(classes)}
    return {
        label: shares({str(name): (answers == name, own) for name in classes}, predictions.patient_id)
        for label, own in among.items()
        if own.any()
    }
