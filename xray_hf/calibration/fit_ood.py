"""Fit a bundle's detector of out-of-distribution (OOD) input, and measure it on images held out.

Fitted on the bundle's own training rows against the tuning half of the OOD images; the threshold lets
through all but 1 % of each source's validation rows. Test rows and the other half of the OOD images are only
reported on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from xray_hf import manifest
from xray_hf.calibration import calibration
from xray_hf.calibration.calibration import Calibration
from xray_hf.calibration.ood import Detector, rule_against, standardised, thumbnail_of
from xray_hf.data import splits, tables
from xray_hf.data.dataset import XrayData
from xray_hf.errors import ConfigError, DataError
from xray_hf.folders import is_hidden, list_files
from xray_hf.reading import Reading, read, resize

VALIDATION_REJECTED = 0.01  # share of a source's validation rows that the threshold rejects
REGULARISATION = 1e-3  # C of the logistic regression; docs/log.md has the others that were tried
_BATCH = 32

# (B, 1, side, side) uint8 -> (B, D) float32, the network's embedding: inference.backends.load_embedder
Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Features:
    """The detector's inputs for N images.

    embedding: (N, D) float32. thumbnail: (N, THUMBNAIL_SIDE²) float32, standardised.
    by_rule: (N,) bool, rejected already.
    """

    embedding: np.ndarray
    thumbnail: np.ndarray
    by_rule: np.ndarray

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, rows: slice | np.ndarray) -> Features:
        """The features of some rows."""
        return Features(self.embedding[rows], self.thumbnail[rows], self.by_rule[rows])


def fit_bundle(folder: Path, data: XrayData, ood_dir: Path, embed: Embed) -> dict[str, Any]:
    """Fit the detector of a bundle, write its part of calibration.json and return its report.

    data: the data set that the bundle was trained on, whose rows its splits.json names. ood_dir: one folder
    for each kind; of its sorted files every even one tunes and every odd one is reported on. embed: the
    bundle's network.
    Raises ConfigError if the data were opened at another size or for other classes, DataError (also for a
    file that is not a readable image), BundleError, OutputError.
    """
    description = manifest.read(folder)
    description.require_side(data.side)
    if data.classes != description.labels:
        raise ConfigError(
            f"the data were opened for the classes {', '.join(data.classes)}, {folder} names "
            f"{', '.join(description.labels)}; open them for these, in this order."
        )
    split = splits.read(folder / manifest.SPLITS, data.samples)
    rows = {name: np.unique(split.rows(name)) for name in ("train", "validation", "test")}
    if missing := [name for name, own in rows.items() if not len(own)]:
        raise DataError(f"the split of {folder} has no {missing[0]} rows; train with another split.")
    files, _ = find(ood_dir)
    kinds = {name: _features(embed, map(read, own), data.side) for name, own in files.items()}
    own = {name: _features(embed, _cached(data, part), data.side) for name, part in rows.items()}
    of_all = np.asarray([sample.source for sample in data.samples])
    sources = {name: of_all[part] for name, part in rows.items()}
    labels = {name: data.labels[part] for name, part in rows.items()}
    tuning = [each.take(slice(0, None, 2)) for each in kinds.values()]
    held_out = {name: each.take(slice(1, None, 2)) for name, each in kinds.items()}
    groups = np.char.add(sources["train"], labels["train"].astype(str))
    validation = [
        own["validation"].take(sources["validation"] == name) for name in np.unique(sources["validation"])
    ]
    detector = fit(own["train"], groups, validation, tuning)
    report = measure(detector, own["test"], labels["test"], description.labels, sources["test"], held_out)
    calibration.update(folder, Calibration(detector=detector, ood_report=report))
    return report


def fit(
    train: Features, groups: np.ndarray, validation: Sequence[Features], ood: Sequence[Features]
) -> Detector:
    """Logistic regression of training rows against OOD images; its threshold by validation rows.

    groups: (N,) source and class of the training rows. Every group counts the same, or a rare one would be
    taken for OOD: the few adults of CoronaHack are most of its COVID-19. All X-rays together count as much as
    all OOD images. validation: source by source; the threshold is that of the source with the highest scores.
    """
    parts = [train, *ood]
    inputs = np.concatenate([np.hstack([part.embedding, part.thumbnail]) for part in parts])
    is_ood = np.arange(len(inputs)) >= len(train)
    _, places, counts = np.unique(groups, return_inverse=True, return_counts=True)
    of_xrays = 1 / (len(counts) * counts[places])
    of_ood = np.full(len(inputs) - len(train), 1 / (len(inputs) - len(train)))
    weights = np.concatenate([of_xrays, of_ood]) * len(inputs) / 2
    scaler = StandardScaler().fit(inputs[: len(train)])
    model = LogisticRegression(C=REGULARISATION, max_iter=5000)
    model.fit(scaler.transform(inputs), is_ood, sample_weight=weights)
    coefficients = (model.coef_[0] / scaler.scale_).astype(np.float32)
    width = train.embedding.shape[1]
    detector = Detector(coefficients[:width], coefficients[width:], 0.0)
    thresholds = [np.quantile(_logits(detector, own), 1 - VALIDATION_REJECTED) for own in validation]
    return replace(detector, bias=-float(max(thresholds)))


def measure(
    detector: Detector,
    test: Features,
    labels: np.ndarray,
    classes: Sequence[str],
    sources: np.ndarray,
    kinds: Mapping[str, Features],
) -> dict[str, Any]:
    """Shares rejected, with exact 95 % intervals: test rows, wrongly, and each kind of OOD images, rightly.

    labels: (N,) of the test rows, indexes into `classes`. sources: (N,). Test rows are also reported by
    class, and by source where there are several. Shares are of rules and detector together, and of the
    detector only. Test rows come from the cache, so contrast is their only rule. `scores` draws
    the ROC.
    """
    scores = {name: _logits(detector, own) for name, own in {"test": test, **kinds}.items()}
    rejected = scores["test"] > 0
    parts = {"test_by_class": {name: labels == index for index, name in enumerate(classes)}}
    if len(names := np.unique(sources)) > 1:
        parts["test_by_source"] = {str(name): sources == name for name in names}
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "test": _shares(rejected, test.by_rule),
        **{
            part: {name: _shares(rejected[own], test.by_rule[own]) for name, own in rows.items() if own.any()}
            for part, rows in parts.items()
        },
        "kinds": {name: _shares(scores[name] > 0, own.by_rule) for name, own in kinds.items()},
        "scores": {name: [round(float(score), 4) for score in own] for name, own in scores.items()},
    }


def _logits(detector: Detector, features: Features) -> np.ndarray:
    return detector.logits(features.embedding, features.thumbnail)


def _shares(by_detector: np.ndarray, by_rule: np.ndarray) -> dict[str, Any]:
    rejected = by_detector | by_rule
    interval = binomtest(int(rejected.sum()), len(rejected)).proportion_ci(method="exact")
    return {
        "n": len(rejected),
        "rejected": float(rejected.mean()),
        "interval": [float(interval.low), float(interval.high)],
        "rejected_by_detector": float(by_detector.mean()),
    }


def find(ood_dir: Path) -> tuple[dict[str, list[Path]], Counter[str]]:
    """{kind: sorted images}, and how many other files were left out, by kind of file.

    Raises DataError for a folder without kinds, or with a kind of too few images.
    """
    if not ood_dir.is_dir():
        raise DataError(f"{ood_dir} is not a folder; expected one with a folder of images for each kind.")
    listings = {folder.name: list_files(folder) for folder in tables.subfolders(ood_dir)}
    kinds = {name: listing.images for name, listing in listings.items()}
    left_out = sum((listing.left_out for listing in listings.values()), Counter[str]())
    beside = sum(path.is_file() and not is_hidden(path.name) for path in ood_dir.iterdir())
    left_out["beside the folders"] = beside
    small = [f"{name} ({len(files)})" for name, files in kinds.items() if len(files) < 2]
    if not kinds or small:
        raise DataError(
            f"{ood_dir} has too few images to tune on half and report on half: "
            f"{', '.join(small) or 'no folder'}; expected a folder of two or more images for each kind."
        )
    return kinds, +left_out


def _cached(data: XrayData, rows: np.ndarray) -> Iterator[Reading]:
    # The cache keeps no size, proportions or colour, so only the contrast can be judged.
    return (Reading(Image.fromarray(data.pixels.gather(row[None])[0])) for row in rows)


def _features(embed: Embed, readings: Iterable[Reading], side: int) -> Features:
    pixels: list[np.ndarray] = []
    thumbnails: list[np.ndarray] = []
    by_rule: list[bool] = []
    for reading in readings:  # one at a time, since files come at full size
        pixels.append(resize(reading.grey, side))
        thumbnails.append(thumbnail_of(pixels[-1]))
        by_rule.append(rule_against(reading, thumbnails[-1]) is not None)
    batches = (np.stack(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
    return Features(
        embedding=np.concatenate([embed(batch[:, None]) for batch in batches]),
        thumbnail=standardised(np.stack(thumbnails)),
        by_rule=np.asarray(by_rule),
    )
