"""A bundle and its data set -> the tables of its shortcut controls (evaluation/controls.py).

Training rows are used as well, to measure how well two sites can be told apart. Nothing in the bundle is
fitted or chosen by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from xray_hf import cores, manifest
from xray_hf.calibration.ood import thumbnail_of
from xray_hf.data.cache import PixelSource, Viewed
from xray_hf.data.dataset import XrayData
from xray_hf.data.groups import patient_groups
from xray_hf.errors import ConfigError, DataError
from xray_hf.evaluation import controls
from xray_hf.evaluation.controls import TwoSites
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_folder
from xray_hf.inference import backends
from xray_hf.inference.backends import Backend, Outputs
from xray_hf.report import figures
from xray_hf.views import VIEWS, evidence_for, share_within, shares_of_mass

FOLDS = 5
BINS = 64  # of the histogram of grey levels
REGULARISATION = 1e-2  # C of the logistic regressions; not tuned
SHEET = "label_noise.png"
_BATCH = 32
_COLUMNS = 5  # of the sheet


def report(folder: Path, data: XrayData, sheets: Path | None = None) -> None:
    """Run a bundle's network on the test rows and on two sites, and write controls/ as a whole.

    data: the data set that the bundle was trained on, opened at its size. sheets: where to draw the likely
    label errors: not in the bundle or a repository, since they are X-rays of people.
    Raises ConfigError for data of another size and for sheets in such a place, DataError for another data
    set, BundleError, OutputError; an old controls/ then stays as it was.
    """
    if sheets:
        _require_private(sheets, folder)
    description = manifest.read(folder)
    description.require_side(data.side)
    test = Predictions.read(folder / manifest.PREDICTIONS).select("test")
    # A source that names no site counts as one.
    places = np.asarray([sample.site or sample.source for sample in data.samples])
    rows = _rows_of(test, data)
    sites = TwoSites.choose(data.labels, places, data.classes)
    is_of_class = data.labels == data.classes.index(sites.label)
    shared = np.flatnonzero(is_of_class & np.isin(places, (sites.smaller, sites.larger)))
    network = backends.load(backends.DEFAULT, description, threads=cores.usable())
    total = len(rows) * (1 + len(VIEWS)) + len(shared)
    # None: shown on a terminal only.
    with tqdm(total=total, desc="report", unit=" images", disable=None) as bar:
        views = {name: _logits(network, Viewed(data.pixels, view), rows, bar) for name, view in VIEWS.items()}
        about_test = {**_about(data, rows), **_heat(network, data.pixels, rows, bar)}
        about_sites = _tell_site(network, data, shared, places[shared] == sites.smaller, bar)
    with atomic_folder(folder / manifest.CONTROLS) as temporary:
        for name, logits in views.items():
            replace(test, logits=logits).write(temporary / f"{name}.parquet")
        controls.write_test_rows(temporary / controls.TEST_TABLE, about_test)
        controls.write_site_rows(temporary / controls.SITE_TABLE, about_sites, sites)
    if sheets:
        figures.save(_mistakes(test, data, description.mark), sheets / SHEET)


def _require_private(sheets: Path, folder: Path) -> None:
    place = sheets.resolve()
    repository = next((each for each in (place, *place.parents) if (each / ".git").exists()), None)
    if inside := folder if place.is_relative_to(folder.resolve()) else repository:
        raise ConfigError(
            f"--sheets {sheets} lies in {inside}, which is meant for publication; a sheet shows X-rays of "
            "people. Choose another folder."
        )


def _rows_of(test: Predictions, data: XrayData) -> np.ndarray:
    """The row of the data set of each test row; raises DataError unless it is the same data set."""
    row_of = _row_of(data)
    keys = list(zip(test.source.tolist(), test.file_name.tolist(), strict=True))
    missing = [name for source, name in keys if (source, name) not in row_of]
    if missing or not len(test):
        first = f" (first: {missing[0]})" if missing else ""
        raise DataError(
            f"the data lack {len(missing)} of the bundle's {len(test)} test images{first}; "
            "pass the sources that it was trained on, under their names."
        )
    rows = np.asarray([row_of[key] for key in keys], np.int64)
    if (other := np.asarray(data.classes)[data.labels[rows]] != np.asarray(test.classes)[test.label]).any():
        raise DataError(
            f"the data have another label than the bundle for {other.sum()} test images "
            f"(first: {test.file_name[other][0]}); pass the sources that it was trained on."
        )
    return rows


def _row_of(data: XrayData) -> dict[tuple[str, str], int]:
    return {(sample.source, sample.file_name): row for row, sample in enumerate(data.samples)}


def _about(data: XrayData, rows: np.ndarray) -> dict[str, Any]:
    """The columns of controls.TEST_ROWS that need no network."""
    names = [f"{sample.source}/{sample.file_name}" for sample in data.samples]
    # With each image as its own patient, only near-duplicates share a group.
    pictures = patient_groups(names, data.near_duplicates)
    _, first, counts = np.unique(pictures, return_index=True, return_counts=True)
    return {
        "file_name": [data.samples[row].file_name for row in rows],
        **{
            name: [getattr(data.samples[row], attribute) for row in rows]
            for name, attribute in controls.SUBGROUPS.items()
        },
        "same_as": [names[first[pictures[row]]] if counts[pictures[row]] > 1 else "" for row in rows],
    }


def _batches(
    network: Backend, pixels: PixelSource, rows: np.ndarray, bar: tqdm[Any]
) -> Iterator[tuple[np.ndarray, Outputs]]:
    """(B, side, side) uint8 of the rows in their order, and the network's outputs."""
    for start in range(0, len(rows), _BATCH):
        images = pixels.gather(rows[start : start + _BATCH])
        yield images, network.run(images[:, None])
        bar.update(len(images))


def _logits(network: Backend, pixels: PixelSource, rows: np.ndarray, bar: tqdm[Any]) -> np.ndarray:
    return np.concatenate([outputs.logits for _, outputs in _batches(network, pixels, rows, bar)])


def _heat(network: Backend, pixels: PixelSource, rows: np.ndarray, bar: tqdm[Any]) -> dict[str, Any]:
    """Where the mass of the predicted class's activation map lies; NaN without maps.

    For a network that looks for lungs, also the columns of controls.LUNG_ROWS.
    """
    lungs, border, inside, uniform = np.full((4, len(rows)), np.nan)
    looks_for_lungs = False
    start = 0
    for images, outputs in _batches(network, pixels, rows, bar):
        part = slice(start, start := start + len(images))
        if outputs.heatmaps is not None:
            evidence = evidence_for(outputs.heatmaps, outputs.logits.argmax(axis=1))
            lungs[part], border[part] = shares_of_mass(evidence)
            if outputs.lungs is not None:
                looks_for_lungs = True
                inside[part] = share_within(evidence, outputs.lungs)
                crop = np.asarray(outputs.heatmaps.any(axis=1), np.float32)
                uniform[part] = share_within(crop, outputs.lungs)
    found = {"heat_in_lungs": inside, "uniform_in_lungs": uniform} if looks_for_lungs else {}
    return {"heat_lungs": lungs, "heat_border": border, **found}


def _tell_site(
    network: Backend, data: XrayData, rows: np.ndarray, is_smaller: np.ndarray, bar: tqdm[Any]
) -> dict[str, Any]:
    """The columns of controls.SITE_ROWS; is_smaller: (N,) whether each row is of the smaller site."""
    features: dict[str, list[np.ndarray]] = {name: [] for name in controls.FEATURES}
    for images, outputs in _batches(network, data.pixels, rows, bar):
        features["thumbnail"] += [thumbnail_of(image).ravel() for image in images]
        features["histogram"] += [np.histogram(image, BINS, (0, 256))[0] for image in images]
        features["embedding"] += list(outputs.embedding)
    groups = data.groups[rows]
    return {
        "file_name": [data.samples[row].file_name for row in rows],
        "source": [data.samples[row].source for row in rows],
        "patient": groups,
        "is_web": is_smaller,
        **{name: _out_of_fold(own, is_smaller, groups) for name, own in features.items()},
    }


def _out_of_fold(features: list[np.ndarray], is_smaller: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) float64 log-odds of the smaller site, by models that saw no image of the group; NaN if too few."""
    folds = min(FOLDS, *(len(np.unique(groups[own])) for own in (is_smaller, ~is_smaller)))
    if folds < 2:
        return np.full(len(is_smaller), np.nan)
    regression = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=5000)
    model = make_pipeline(StandardScaler(), regression)
    inputs, cv = np.stack(features).astype(np.float64), StratifiedGroupKFold(folds)
    return cross_val_predict(model, inputs, is_smaller, groups=groups, cv=cv, method="decision_function")


def _mistakes(test: Predictions, data: XrayData, mark: str) -> Figure:
    """The worst of controls.label_noise, in its order."""
    row_of = _row_of(data)
    worst = controls.label_noise(test)["worst"]
    chosen = [row_of[each["source"], each["file_name"]] for each in worst]
    images = data.pixels.gather(np.asarray(chosen, np.int64))
    captions = [
        f"{place}. {each['label']}\npredicted {each['predicted']} "
        f"{each['probabilities'][each['predicted']]:.0%}"
        for place, each in enumerate(worst, start=1)
    ]
    shown = list(zip(captions, images, strict=True))
    return figures.sheet(shown, _COLUMNS, f"{mark}lowest self-confidence, internal test set")
