"""A bundle's tables of predictions -> metrics.json and figures/, which pages, cards and the demo show.

The inputs are predictions.parquet, training.json and, if present, calibration.json, external/ and controls/.
Neither the network nor the data set is needed, so everything can be recomputed at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xray_hf import manifest
from xray_hf.calibration import calibration, fit
from xray_hf.calibration.calibration import Calibration
from xray_hf.data.synthetic import sample_images
from xray_hf.evaluation import controls, decisions, metrics, uncertainty
from xray_hf.evaluation.predictions import SUBSETS, Predictions
from xray_hf.files import atomic_folder, write_json
from xray_hf.reading import resize
from xray_hf.report import figures
from xray_hf.report.tables import control_title
from xray_hf.task import EXTERNAL, PAPER_CLASSES, PNEUMONIA, SYNTHETIC_MARK
from xray_hf.views import VIEWS

VIEW_SIDE = 224  # pixels of the synthetic patient that shows the control views


def draw(folder: Path) -> dict[str, Any]:
    """Recompute metrics.json and figures/.

    Returns the metrics: {subset: numbers with their intervals and the effect of calibration}; the same for
    external test sets under "external"; the class names under "classes"; with several sources also the
    entries of `_of_sources` and "validation_by_source"; and the sections of controls.summarise.
    Raises BundleError if a file is missing or damaged, OutputError.
    """
    predictions = Predictions.read(folder / manifest.PREDICTIONS)
    training = manifest.read_json(folder / manifest.TRAINING)
    fitted = calibration.read(folder)
    external = external_sets(folder, predictions)
    summary: dict[str, Any] = {"classes": list(predictions.classes)}
    for subset in SUBSETS:
        if len(part := predictions.select(subset)):
            summary[subset] = _numbers(part, fitted)
    summary |= _of_sources(predictions.select("test"), fitted)
    if by_source := _by_source(predictions.select("validation"), fitted):
        summary["validation_by_source"] = by_source
    if external:
        mark = manifest.calibration_mark(folder)
        summary["external"] = {
            name: {
                **_numbers(part, fitted),
                "predicted_by_class": decisions.answers_by_class(
                    part, np.asarray(part.classes)[part.predicted]
                ),
                "decisions": decisions.describe(part, mark),
            }
            for name, part in external.items()
        }
    summary |= controls.summarise(folder, predictions)
    name = manifest.title(folder, str(training.get("model", "model")), manifest.sources_of(training))
    mark = f"{manifest.mark_of(training)}{name}, "
    drawn = figures.draw_all(predictions, training.get("history", []), fitted, mark)
    for name, part in external.items():
        drawn[f"confusion_external_{name}.png"] = figures.confusion_of(part, f"{mark}{name}")
    if "controls" in summary:
        drawn |= _draw_controls(summary, mark)
    with atomic_folder(folder / manifest.FIGURES) as temporary:
        for name, figure in drawn.items():
            figures.save(figure, temporary / name)
    write_json(folder / manifest.METRICS, summary)
    return summary


def external_sets(folder: Path, predictions: Predictions) -> dict[str, Predictions]:
    """{name: rows} of the external test sets: sources held out in training, and the tables in external/.

    predictions: those of the bundle. A table in external/ also has the engine's decisions, so it replaces a
    held-out source of its name. Raises BundleError for a damaged table.
    """
    advice = "run `xray-hf evaluate BUNDLE --source …` again"
    paths = sorted((folder / manifest.EXTERNAL).glob("[!.]*.parquet"))
    records = {path.stem: Predictions.read(path, advice) for path in paths}
    return dict(sorted((predictions.select(EXTERNAL).by_source() | records).items()))


def _numbers(part: Predictions, fitted: Calibration) -> dict[str, Any]:
    """The metrics of some rows with their intervals, and the effect of calibration on them."""
    measured = metrics.describe(part) | uncertainty.describe(part)
    return measured | (fit.describe(part, fitted) if fitted.fitted_on else {})


def _of_sources(test: Predictions, fitted: Calibration) -> dict[str, Any]:
    """by_source, worst_source and within_source of the test rows; empty if these come from one source.

    The mean over a mixed test set hides the hospital where a model fails, so the worst one stands beside it
    (Koh et al. 2021, WILDS).
    """
    if not (by_source := _by_source(test, fitted)):
        return {}
    worst = min(by_source, key=lambda name: by_source[name]["balanced_accuracy"])
    return {
        "by_source": by_source,
        "worst_source": {"source": worst, "balanced_accuracy": by_source[worst]["balanced_accuracy"]},
        "within_source": uncertainty.within_source(test),
    }


def _by_source(part: Predictions, fitted: Calibration) -> dict[str, Any]:
    """{source: its numbers}; empty if the rows come from one source."""
    parts = part.by_source()
    return {name: _numbers(own, fitted) for name, own in parts.items()} if len(parts) > 1 else {}


def _draw_controls(summary: Mapping[str, Any], mark: str) -> dict[str, Figure]:
    """control_sensitivity.png, and control_views.png of a synthetic patient: no bundle shows a real one."""
    shares, ends = {}, {}
    for name, numbers in {"whole": summary["test"], **summary["controls"]}.items():
        # Full sensitivity can mean that every image gets this class, which balanced accuracy shows.
        group = f"{control_title(name)}\nbalanced {numbers['balanced_accuracy']:.0%}"
        found = {label: own["sensitivity"] for label, own in numbers["per_class"].items()}
        shares[group] = {label: share for label, share in found.items() if share is not None}
        intervals = numbers["intervals"]["per_class"]
        ends[group] = {label: intervals[label]["sensitivity"] for label in shares[group]}
    rates = figures.rates(shares, ends, f"{mark}internal test set, ablated inputs", "Sensitivity")
    patient = resize(dict(sample_images(1, seed=0))[PAPER_CLASSES[PNEUMONIA]], VIEW_SIDE)
    seen = {"whole": patient, **{name: view(patient[None])[0] for name, view in VIEWS.items()}}
    images = [(control_title(name), image) for name, image in seen.items()]
    sheet = figures.sheet(images, len(images), f"{SYNTHETIC_MARK}ablated inputs")
    return {"control_sensitivity.png": rates, "control_views.png": sheet}
