"""Fit what a bundle counts as foreign input, and measure it on images held out.

Fitted on the bundle's own training rows against the tuning half of the foreign images; the threshold lets
through all but 1 % of its validation rows. Neither the test rows nor the other half take part before the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from xray_hf import cores, manifest
from xray_hf.data import splits
from xray_hf.data.dataset import XrayData
from xray_hf.data.sample import labels_of
from xray_hf.errors import DataError
from xray_hf.images import Reading, read, resize
from xray_hf.inference import backends, calibration
from xray_hf.inference.backends import Backend
from xray_hf.inference.foreign import Detector, rule_against, standardised, thumbnail_of
from xray_hf.task import LABELS

VALIDATION_REFUSED = 0.01  # share of the validation rows that the threshold gives up
REGULARISATION = 1e-3  # C of the logistic regression; docs/log.md has the others that were tried
_BATCH = 32


@dataclass(frozen=True)
class Features:
    """What the detector sees of N images.

    embedding: (N, D) float32. thumbnail: (N, THUMBNAIL_SIDE²) float32, standardised.
    by_rule: (N,) bool, refused already.
    """

    embedding: np.ndarray
    thumbnail: np.ndarray
    by_rule: np.ndarray

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, rows: slice) -> Features:
        """Some of them."""
        return Features(self.embedding[rows], self.thumbnail[rows], self.by_rule[rows])


def calibrate(folder: Path, data: XrayData, foreign_dir: Path) -> dict[str, Any]:
    """Fit the detector of a bundle, write its part of calibration.json and return its report.

    data: the data set that the bundle was trained on, whose rows its splits.json names. foreign_dir: one
    folder for each kind; of its sorted files every even one tunes and every odd one is reported on.
    Raises ConfigError if the data were opened at another size, BundleError, OutputError, DataError (also for
    a file that is no readable image).
    """
    description = manifest.read(folder)
    description.require_side(data.pixels.side)
    network = backends.load(backends.DEFAULT, description, threads=cores.usable())
    split = splits.read(folder / manifest.SPLITS, data.samples)
    rows = {name: np.unique(split.rows(name)) for name in ("train", "validation", "test")}
    if missing := [name for name, own in rows.items() if not len(own)]:
        raise DataError(f"the split of {folder} has no {missing[0]} rows; train with another split.")
    kinds = {name: _of_files(network, files, description.side) for name, files in find(foreign_dir).items()}
    own = {name: _of_rows(network, data, part) for name, part in rows.items()}
    labels = {name: np.asarray(labels_of(data.samples))[part] for name, part in rows.items()}
    tuning = [each.take(slice(0, None, 2)) for each in kinds.values()]
    held_out = {name: each.take(slice(1, None, 2)) for name, each in kinds.items()}
    detector = fit(own["train"], labels["train"], own["validation"], tuning)
    report = measure(detector, own["test"], labels["test"], held_out)
    calibration.update(folder, {"foreign": detector.as_dict(), "foreign_report": report})
    return report


def fit(train: Features, labels: np.ndarray, validation: Features, foreign: Sequence[Features]) -> Detector:
    """Logistic regression of training rows against foreign images; its threshold by validation rows.

    labels: (N,) of the training rows. Every class counts the same, or the few adults among the children, who
    are most of COVID-19, would be foreign; and all X-rays together as much as all foreign images.
    """
    parts = [train, *foreign]
    inputs = np.concatenate([np.hstack([part.embedding, part.thumbnail]) for part in parts])
    is_foreign = np.arange(len(inputs)) >= len(train)
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    of_xrays = 1 / (len(counts) * counts[places])
    of_foreign = np.full(len(inputs) - len(train), 1 / (len(inputs) - len(train)))
    weights = np.concatenate([of_xrays, of_foreign]) * len(inputs) / 2
    scaler = StandardScaler().fit(inputs[: len(train)])
    model = LogisticRegression(C=REGULARISATION, max_iter=5000)
    model.fit(scaler.transform(inputs), is_foreign, sample_weight=weights)
    coefficients = (model.coef_[0] / scaler.scale_).astype(np.float32)
    width = train.embedding.shape[1]
    detector = Detector(coefficients[:width], coefficients[width:], 0.0)
    threshold = np.quantile(_logits(detector, validation), 1 - VALIDATION_REFUSED)
    return replace(detector, bias=-float(threshold))


def measure(
    detector: Detector, test: Features, labels: np.ndarray, kinds: Mapping[str, Features]
) -> dict[str, Any]:
    """Shares refused, with exact 95 % intervals: of the test rows wrongly, of each foreign kind rightly.

    labels: (N,) of the test rows, of which each class is reported too. Of both the rules and the detector
    together, and of the detector alone; of test rows, which come from the cache, only contrast is a rule.
    `scores` draws the ROC.
    """
    scores = {name: _logits(detector, own) for name, own in {"test": test, **kinds}.items()}
    refused = scores["test"] > 0
    classes = {name: labels == index for index, name in enumerate(LABELS) if (labels == index).any()}
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "test": _shares(refused, test.by_rule),
        "test_by_class": {name: _shares(refused[own], test.by_rule[own]) for name, own in classes.items()},
        "kinds": {name: _shares(scores[name] > 0, own.by_rule) for name, own in kinds.items()},
        "scores": {name: [round(float(score), 4) for score in own] for name, own in scores.items()},
    }


def _logits(detector: Detector, features: Features) -> np.ndarray:
    return detector.logits(features.embedding, features.thumbnail)


def _shares(by_detector: np.ndarray, by_rule: np.ndarray) -> dict[str, Any]:
    refused = by_detector | by_rule
    interval = binomtest(int(refused.sum()), len(refused)).proportion_ci(method="exact")
    return {
        "n": len(refused),
        "refused": float(refused.mean()),
        "interval": [float(interval.low), float(interval.high)],
        "refused_by_detector": float(by_detector.mean()),
    }


def find(foreign_dir: Path) -> dict[str, list[Path]]:
    """{kind: sorted files}; raises DataError for a folder without kinds, or with a kind of too few files."""
    if not foreign_dir.is_dir():
        raise DataError(f"{foreign_dir} is no folder; expected one with a folder of images for each kind.")
    kinds = {
        folder.name: sorted(file for file in folder.iterdir() if not file.name.startswith("."))
        for folder in sorted(foreign_dir.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    small = [f"{name} ({len(files)})" for name, files in kinds.items() if len(files) < 2]
    if not kinds or small:
        raise DataError(
            f"{foreign_dir} has too few images to tune on half and report on half: "
            f"{', '.join(small) or 'no folder'}; expected a folder of two or more images for each kind."
        )
    return kinds


def _of_files(network: Backend, files: Sequence[Path], side: int) -> Features:
    pixels = np.empty((len(files), side, side), np.uint8)
    by_rule = np.empty(len(files), bool)
    for place, file in enumerate(files):  # one at a time, since they come at full size
        reading = read(file)
        pixels[place] = resize(reading.grey, side)
        by_rule[place] = rule_against(reading, thumbnail_of(pixels[place])) is not None
    return _features(network, pixels, by_rule)


def _of_rows(network: Backend, data: XrayData, rows: np.ndarray) -> Features:
    # Of size, proportions and colour the cache knows nothing: only the contrast can be judged.
    pixels = data.pixels.gather(rows)
    readings = [Reading(Image.fromarray(image)) for image in pixels]
    by_rule = [
        rule_against(*each) is not None for each in zip(readings, map(thumbnail_of, pixels), strict=True)
    ]
    return _features(network, pixels, np.asarray(by_rule))


def _features(network: Backend, pixels: np.ndarray, by_rule: np.ndarray) -> Features:
    batches = [pixels[start : start + _BATCH, None] for start in range(0, len(pixels), _BATCH)]
    return Features(
        embedding=np.concatenate([network.run(batch).embedding for batch in batches]),
        thumbnail=standardised(np.stack([thumbnail_of(image) for image in pixels])),
        by_rule=by_rule,
    )
