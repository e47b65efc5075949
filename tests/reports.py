"""Bundles that hold numbers and nothing else, of any classes: what reports are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray_hf.evaluation import metrics
from xray_hf.files import write_json

N = 12  # images of each class
FIGURES = (
    "confusion_test",
    "confusion_external_far <away>",
    "roc_test",
    "reliability_test",
    "risk_coverage",
    "ood_roc",
    "control_views",
    "control_sensitivity",
    "curves",
)


def numbers(classes: Sequence[str], seed: int, **more: Any) -> dict[str, Any]:
    """What metrics.json says of one set of images."""
    size, rng = len(classes), np.random.default_rng(seed)
    matrix = np.asarray(
        [rng.multinomial(N, np.full(size, 0.5 / size) + 0.5 * np.eye(size)[k]) for k in range(size)]
    )
    rates = {name: rate(matrix) for name, rate in metrics.PER_CLASS.items()}
    of_class = {
        label: {**{name: float(rate[k]) for name, rate in rates.items()}, "auroc": float(rng.uniform(0.5, 1))}
        for k, label in enumerate(classes)
    }
    overall = {name: float(rate(matrix)) for name, rate in metrics.OVERALL.items()} | {"macro_auroc": 0.75}
    return {
        "n": N * size,
        "patients": 7,
        "class_counts": dict.fromkeys(classes, N),
        "confusion_matrix": matrix.tolist(),
        **overall,
        "per_class": of_class,
        "patients_per_class": dict.fromkeys(classes, 5),
        "intervals": {
            **{key: [0.25, 0.9375] for key in overall},
            "per_class": {label: {key: [0.25, 0.9375] for key in own} for label, own in of_class.items()},
        },
        **more,
    }


def confidence(classes: Sequence[str]) -> dict[str, Any]:
    """What a calibration adds to them."""
    errors = {"ece": 0.125, "brier": 0.375, "cross_entropy": 0.875}
    intervals = {"coverage": [0.5, 0.75], "risk": [0.0, 0.125]}
    point = {
        "label": classes[-1],
        "validation_specificity": 0.9,
        "specificity": 0.8125,
        "sensitivity": 0.6875,
    }
    return {
        "calibration": {"before": errors, "after": {**errors, "ece": 0.0625}},
        "abstention": {"abstain_below": 0.8, "coverage": 0.6, "risk": 0.05, "intervals": intervals},
        "operating_points": [{**point, "sensitivity_on_own_roc": 0.5625}],
    }


def rejected(n: int, share: float) -> dict[str, Any]:
    return {"n": n, "rejected": share, "interval": [0.0, 0.5], "rejected_by_detector": share}


def part(classes: Sequence[str], accuracy: float) -> dict[str, Any]:
    of_classes = {label: {"n": N, "sensitivity": 0.5, "interval": [0.25, 0.75]} for label in classes}
    return {"n": N, "patients": 5, "accuracy": accuracy, "interval": [0.5, 1.0], "classes": of_classes}


def complete(classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{file: its content} of a bundle in which everything was measured."""
    size = len(classes)
    own = confidence(classes)
    decisions = {
        "not_decided": {"unsure": 0.25},
        "decided": 9,
        "accuracy_of_decided": 0.4375,
        "intervals": {"accuracy_of_decided": [0.3125, 0.5625]},
        "by_class": {label: dict.fromkeys(classes, 0.25) for label in classes},
    }
    predicted = {label: dict.fromkeys(classes, 0.5) for label in classes}
    within = {"auroc": 0.625, "interval": [0.5, 0.75], "sources": 2, "pairs": 42}
    metrics_json = {
        "classes": list(classes),
        **{name: numbers(classes, k, **own) for k, name in enumerate(("train", "validation", "test"))},
        "external": {
            "far <away>": numbers(classes, 5, **own, decisions=decisions, predicted_by_class=predicted)
        },
        "by_source": {"clinic": numbers(classes, 6, **own), "ward": numbers(classes, 7, **own)},
        "validation_by_source": {"clinic": numbers(classes, 8, **own), "ward": numbers(classes, 9, **own)},
        "worst_source": {"source": "ward", "balanced_accuracy": 0.5},
        "within_source": {label: within if k else None for k, label in enumerate(classes)},
        "controls": {"border": numbers(classes, 8), "centre_masked": numbers(classes, 9)},
        "subgroups": {"view_position": {"PA": part(classes, 0.5)}, "left_out": "sex: nobody wrote it down"},
        "duplicates": {
            "repeated_pictures": 3,
            "all_rows": part(classes, 0.8125),
            "one_of_each": part(classes, 0.7875),
        },
        "heatmap": {
            "uniform": {"lungs": 0.56, "border": 0.29},
            "per_class": {label: {"n": 4, "lungs": 0.5, "border": 0.25} for label in classes},
        },
        "label_noise": {
            "joint": (np.eye(size, dtype=int) * 9 + np.eye(size, k=1, dtype=int) * 2).tolist(),
            "without_doubted": part(classes, 0.9),
            "worst": [
                {
                    "file_name": "a.png",
                    "label": classes[0],
                    "predicted": classes[1],
                    "probabilities": dict.fromkeys(classes, 0.9),
                }
            ],
        },
    }
    calibration = {
        "temperature": 1.25,
        "abstain_below": 0.8,
        "target_risk": 0.02,
        "operating_points": [],
        "fitted_on": {"split": "validation", "n": 36, "risk_kept_in": ["clinic"]},
        "ood_report": {
            "test": rejected(N * size, 0.125),
            "test_by_class": {label: rejected(N, 0.25) for label in classes},
            "test_by_source": {"clinic": rejected(24, 0.125), "ward": rejected(12, 0.0625)},
            "kinds": {"knee_xray": rejected(4, 1.0)},
        },
    }
    epochs = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "validation_accuracy": 0.2 * epoch,
            "validation_balanced_accuracy": 0.25 * epoch,
        }
        for epoch in (1, 2, 3)
    ]
    training = {
        "model": "xray-cnn",
        "config": {"data": {"protocol": "grouped", "hold_out": []}, "run": {"seed": 7}},
        "initial_weights": "random",
        "device": "CPU, 2 threads",
        "seconds": 90.0,
        "history": epochs,
        "is_synthetic": False,
        "sources": [
            {"kind": "folder", "name": "clinic", "images": 100},
            {"kind": "folder", "name": "ward", "images": 50},
        ],
    }
    counts = {"rows": 100, "images": 100, "patients": 50, **dict.fromkeys(classes, N)}
    splits = {
        "protocol": "grouped",
        "hold_out": [],
        "splits": dict.fromkeys(("train", "validation", "test"), counts),
        "overlap": {},
        "leak": {},
    }
    return {
        "metrics.json": metrics_json,
        "calibration.json": calibration,
        "training.json": training,
        "splits.json": splits,
    }


def write(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    """Write them, and empty figures beside them."""
    for name, content in files.items():
        write_json(folder / name, content)
    (folder / "figures").mkdir()
    for stem in FIGURES:
        (folder / "figures" / f"{stem}.png").write_bytes(b"")
    return folder
