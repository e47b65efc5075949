"""A bundle's records -> metrics.json and figures/, the views that pages, cards and the demo show.

Records are predictions.parquet, training.json and, where there are such, calibration.json, external/ and
controls/. Neither the network nor the data set is needed, so that everything can be drawn anew at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray_hf import manifest
from xray_hf.calibration import calibration, fit
from xray_hf.calibration.calibration import Calibration
from xray_hf.data.synthetic import sample_images
from xray_hf.evaluation import controls, external, metrics, uncertainty
from xray_hf.evaluation.external import External
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_folder, write_json
from xray_hf.images import resize
from xray_hf.report import figures
from xray_hf.report.tables import control_title
from xray_hf.task import LABELS, PNEUMONIA, SYNTHETIC_MARK
from xray_hf.views import VIEWS

VIEW_SIDE = 224  # pixels of the synthetic patient that shows the control views


def draw(folder: Path) -> dict[str, Any]:
    """Make metrics.json and figures/ anew.

    Returns the metrics: {subset: numbers with their intervals, and what the calibration does there}, the same
    of other collections under "external", and the sections of controls.summarise.
    Raises BundleError if a record is missing or damaged, OutputError.
    """
    predictions = Predictions.read(folder / manifest.PREDICTIONS)
    training = manifest.read_json(folder / manifest.TRAINING)
    fitted = calibration.read(folder)
    elsewhere = external.read_all(folder)
    summary: dict[str, Any] = metrics.summarise(predictions)
    for subset, numbers in summary.items():
        numbers |= _measured(predictions.select(subset), fitted)
    if elsewhere:
        mark = manifest.calibration_mark(folder)
        summary["external"] = {
            name: {
                **metrics.describe(record.predictions),
                **_measured(record.predictions, fitted),
                "decisions": record.decisions(mark),
            }
            for name, record in elsewhere.items()
        }
    summary |= controls.summarise(folder, predictions)
    with atomic_folder(folder / manifest.FIGURES) as temporary:
        mark = f"{manifest.mark_of(training)}{training.get('model', 'model')}, "
        history = training.get("history", [])
        figures.draw_all(
            predictions,
            history,
            temporary,
            mark=mark,
            fitted=fitted if fitted.fitted_on else None,
            ood_scores=fitted.ood_report.get("scores"),
        )
        _draw_external(elsewhere, temporary, mark)
        if "controls" in summary:
            _draw_controls(summary, temporary, mark)
    write_json(folder / manifest.METRICS, summary)
    return summary


def _measured(part: Predictions, fitted: Calibration) -> dict[str, Any]:
    return uncertainty.describe(part) | (fit.describe(part, fitted) if fitted.fitted_on else {})


def _draw_external(elsewhere: Mapping[str, External], folder: Path, mark: str) -> None:
    for name, record in elsewhere.items():
        figure = figures.confusion_of(record.predictions, f"{mark}{name}")
        figures.save(figure, folder / f"confusion_external_{name}.png")


def _draw_controls(summary: Mapping[str, Any], folder: Path, mark: str) -> None:
    """control_sensitivity.png, and control_views.png of a synthetic patient: a bundle shows no real one."""
    shares, ends = {}, {}
    for name, numbers in {"whole": summary["test"], **summary["controls"]}.items():
        # All of one class found can mean that all is called so, which balanced accuracy shows.
        group = f"{control_title(name)}\nbalanced {numbers['balanced_accuracy']:.0%}"
        found = {label: own["sensitivity"] for label, own in numbers["per_class"].items()}
        shares[group] = {label: share for label, share in found.items() if share is not None}
        intervals = numbers["intervals"]["per_class"]
        ends[group] = {label: intervals[label]["sensitivity"] for label in shares[group]}
    title = f"{mark}internal test set, ablated inputs"
    figures.save(figures.rates(shares, ends, title, "Sensitivity"), folder / "control_sensitivity.png")
    patient = resize(dict(sample_images(1, seed=0))[LABELS[PNEUMONIA]], VIEW_SIDE)
    seen = {"whole": patient, **{name: view(patient[None])[0] for name, view in VIEWS.items()}}
    images = [(control_title(name), image) for name, image in seen.items()]
    sheet = figures.sheet(images, len(images), f"{SYNTHETIC_MARK}ablated inputs")
    figures.save(sheet, folder / "control_views.png")
