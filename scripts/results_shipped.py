"""What docs/results.md says of the shipped models: sections, each as Markdown, from their bundles' files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numbers_in_words import table
from results_texts import TEXTS

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.evaluation import controls
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.words import (
    before_and_after,
    by_split,
    false_alarms,
    lateral_views,
    listed,
    number,
    percent,
    rate,
    withheld,
)
from xray_hf.task import COVID19, LABELS
from xray_hf.views import VIEWS

COVID = LABELS[COVID19]
VIEW_NAMES = {"view-none": "whole"} | {f"view-{view}": view.replace("_", " ") for view in VIEWS}
VIEW_HEADS = [
    "",
    "accuracy",
    "balanced accuracy",
    *(f"found: {label}" for label in LABELS),
    f"others called {COVID}",
    f"AUROC {COVID}",
]

Runs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Shipped:
    """A bundle of pretrained/: its files, and its predictions of the test rows."""

    model: str
    metrics: Mapping[str, Any]
    calibration: Mapping[str, Any]
    test: Predictions

    @classmethod
    def read(cls, folder: Path) -> Shipped:
        """Read them; raises BundleError, also for a bundle without all that a release adds."""
        metrics = manifest.read_json(folder / manifest.METRICS)
        calibration = manifest.read_calibration(folder)
        if not isinstance(metrics.get("label_noise"), dict) or "ood_report" not in calibration:
            raise BundleError(
                f"{folder} is no release: it lacks controls or a calibration of this version; "
                "`scripts/release.py` makes them, or `xray-hf report`, `calibrate` and `evaluate`."
            )
        predictions = Predictions.read(folder / manifest.PREDICTIONS)
        return cls(folder.name, metrics, calibration, predictions.select("test"))


def sections(shipped: Sequence[Shipped], views: Runs) -> list[str]:
    """All of them, "" for what was not measured. views: the runs that were trained on control views."""
    return [
        classes(shipped),
        confidence(shipped),
        elsewhere(shipped),
        controls_of(shipped, views),
        source(shipped, views),
        subgroups(shipped),
        doubts(shipped),
    ]


def collapse(shipped: Sequence[Shipped]) -> str:
    """What becomes of all models on X-rays from elsewhere, in a sentence for each collection."""
    found: dict[str, dict[str, Any]] = {}
    for each in shipped:
        for name, own in each.metrics.get("external", {}).items():
            found.setdefault(name, {})[each.model] = own
    sentences = []
    for name, of_models in found.items():
        n = next(iter(of_models.values()))["n"]
        rates = [f"{model} has {rate(own, 'balanced_accuracy')}" for model, own in of_models.items()]
        home = listed(f"{each.metrics['test']['balanced_accuracy']:.1%}" for each in shipped)
        alarms = [false_alarms(own["confusion_matrix"]) for own in of_models.values()]
        wrong = listed(called for called, _ in alarms)
        sentences.append(
            f"On {n} X-rays from elsewhere ({name}) {listed(rates)} balanced accuracy, where always "
            f"naming one class has {1 / len(LABELS):.1%}; on their own test they have {home}. Of "
            f"{alarms[0][1]} X-rays without {COVID} they call {wrong} {COVID}."
        )
    return " ".join(sentences)


def classes(shipped: Sequence[Shipped]) -> str:
    """Per-class numbers on test, and what is refused before."""
    keys = ("sensitivity", "specificity", "precision", "f1", "auroc")
    rows, refused = [], []
    for each in shipped:
        test = each.metrics["test"]
        for label in LABELS:
            own, intervals = test["per_class"][label], test["intervals"]["per_class"][label]
            counts = [test["class_counts"][label], test["patients_per_class"][label]]
            cells = (number(own[key], intervals[key]) for key in keys)
            rows.append([f"{each.model}, {label}", *counts, *cells])
        for_covid = each.calibration["ood_report"]["test_by_class"][COVID]
        count = round(for_covid["rejected"] * for_covid["n"])
        refused.append(f"{count} of {for_covid['n']} ({each.model})")
    heads = ["test", "n", "patients", "sensitivity", "specificity", "precision", "F1", "AUROC"]
    figures = [
        picture(each.model, figure, f"{what} of {each.model}")
        for figure, what in (("confusion_test", "Confusion matrix on test"), ("roc_test", "ROC on test"))
        for each in shipped
    ]
    n = lateral_views(shipped[0].metrics, COVID)
    lateral = f", {n} of which {'is a lateral view' if n == 1 else 'are lateral views'}," if n else ""
    text = TEXTS["refused"].format(label=COVID, lateral=lateral, refused=listed(refused))
    return "\n\n".join(["## The shipped models, class by class", table(heads, rows), text, *figures])


def confidence(shipped: Sequence[Shipped]) -> str:
    """Temperature, abstention, operating points: chosen on validation, and what they do on test."""
    rows, of_points = [], []
    for each in shipped:
        for subset in ("validation", "test"):
            own = each.metrics[subset]
            temperature = f"{each.calibration['temperature']:.2f}"
            rows.append([f"{each.model}, {subset}", temperature, *changes(own), *answers(own)])
        for point in each.metrics["test"]["operating_points"]:
            rates = [rate(point, "specificity"), rate(point, "sensitivity")]
            on_roc = f"{point['sensitivity_on_own_roc']:.1%}"
            of_points.append([each.model, f"{point['validation_specificity']:.0%}", *rates, on_roc])
    heads_of_points = ["Pneumonia against the rest", "specificity on validation", "specificity on test"]
    heads_of_points += ["sensitivity on test", "sensitivity read off the test ROC"]
    figures = [
        picture(each.model, figure, f"{what} of {each.model}")
        for each in shipped
        for figure, what in (("reliability_test", "Reliability"), ("risk_coverage", "Risk and coverage"))
    ]
    tables = [table(["", "temperature", *CONFIDENCE_HEADS], rows), table(heads_of_points, of_points)]
    title = "## Probabilities, and when to say nothing"
    text = TEXTS["confidence"].format(target=f"{shipped[0].calibration['target_risk']:.0%}")
    return "\n\n".join([title, text, *tables, *figures])


CONFIDENCE_HEADS = ["ECE, before → after", "Brier", "cross entropy", "answered", "of these wrong"]


def changes(own: Mapping[str, Any]) -> list[str]:
    """What the temperature does to the first three of CONFIDENCE_HEADS."""
    return [before_and_after(own["calibration"], key) for key in ("ece", "brier", "cross_entropy")]


def answers(own: Mapping[str, Any]) -> list[str]:
    """The other two."""
    return [rate(own["abstention"], "coverage"), rate(own["abstention"], "risk")]


def elsewhere(shipped: Sequence[Shipped]) -> str:
    """The external tests beside the internal one; "" without any."""
    sets = {name: own for each in shipped for name, own in each.metrics.get("external", {}).items()}
    if not sets:
        return ""
    rows, found, sure, figures = [], [], [], []
    for each in shipped:
        for name, own in {"test": each.metrics["test"], **each.metrics.get("external", {})}.items():
            line = f"{each.model}, {name}"
            per_class, intervals = own["per_class"], own["intervals"]["per_class"]
            areas = [number(per_class[label]["auroc"], intervals[label]["auroc"]) for label in LABELS]
            rows.append([line, own["n"], rate(own, "accuracy"), rate(own, "balanced_accuracy"), *areas])
            keys = ("sensitivity", "precision")
            shares = [percent(per_class[k][key], intervals[k][key]) for k in LABELS for key in keys]
            found.append([line, *shares])
            sure.append([line, *changes(own), *answers(own), *decided(own)])
            if name != "test":
                figures.append(picture(each.model, f"confusion_external_{name}", f"{each.model} on {name}"))
    heads = ["", "n", "accuracy", "balanced accuracy", *(f"AUROC {label}" for label in LABELS)]
    heads_found = ["", *(f"{label}, {what}" for label in LABELS for what in ("found", "precision"))]
    heads_sure = ["", *CONFIDENCE_HEADS, "the engine says nothing", "of what it decides right"]
    tables = [table(heads, rows), table(heads_found, found), TEXTS["sure elsewhere"], table(heads_sure, sure)]
    what = " ".join(
        f"{name}: {listed(f'{n} {label}' for label, n in own['class_counts'].items())}, "
        f"{own['patients']} patients."
        for name, own in sets.items()
    )
    text = TEXTS["elsewhere"].format(what=what)
    return "\n\n".join(["## X-rays from elsewhere", text, *tables, *figures])


def decided(own: Mapping[str, Any]) -> list[str]:
    """How often the engine, which sees the files, gives no class and why; and how often it is right else."""
    decisions = own.get("decisions")
    if not decisions:
        return ["-", "-"]
    return [withheld(decisions), f"{decisions['decided']}: {rate(decisions, 'accuracy_of_decided')}"]


def controls_of(shipped: Sequence[Shipped], views: Runs) -> str:
    """The test images without what a diagnosis needs, and networks that never saw anything else."""
    rows = [
        view_row(f"{each.model}, {view.replace('_', ' ')}", own)
        for each in shipped
        for view, own in {"whole": each.metrics["test"], **each.metrics["controls"]}.items()
    ]
    figures = [picture(each.model, "control_sensitivity", f"{each.model} in each view") for each in shipped]
    figures.insert(0, picture(shipped[0].model, "control_views", "The views, of a synthetic patient"))
    parts = ["## Without the lungs", TEXTS["controls"], table(VIEW_HEADS, rows), *figures]
    if views:
        trained = [
            view_row(f"{run['model']}, {VIEW_NAMES[run['recipe']]}", run["metrics"]["test"]) for run in views
        ]
        parts += ["### Trained on nothing else", TEXTS["trained on views"], table(VIEW_HEADS, trained)]
    return "\n\n".join(parts)


def view_row(name: str, own: Mapping[str, Any]) -> list[str]:
    """A line of VIEW_HEADS."""
    found = [f"{own['per_class'][label]['sensitivity']:.0%}" for label in LABELS]
    covid = own["per_class"][COVID]
    rates = [rate(own, "accuracy"), rate(own, "balanced_accuracy")]
    return [name, *rates, *found, f"{1 - covid['specificity']:.0%}", f"{covid['auroc']:.3f}"]


def subgroups(shipped: Sequence[Shipped]) -> str:
    """Parts of test, and its repeated pictures."""
    rows, repeated = [], []
    for each in shipped:
        groups = {k: v for k, v in each.metrics["subgroups"].items() if isinstance(v, Mapping)}
        for what, group, own in ((w, g, o) for w, of_what in groups.items() for g, o in of_what.items()):
            for label, found in own["classes"].items():
                share = percent(found["sensitivity"], found["interval"])
                rows.append([f"{each.model}, {what.replace('_', ' ')} {group}", label, found["n"], share])
        repeats = each.metrics["duplicates"]
        one, all_rows = (
            percent(repeats[key]["accuracy"], repeats[key]["interval"]) for key in ("one_of_each", "all_rows")
        )
        repeated.append(f"{each.model} has {one} right instead of {all_rows}")
    count = shipped[0].metrics["duplicates"]["repeated_pictures"]
    dropped = f"{count} pictures stand in test more than once; with one row of each {listed(repeated)}."
    heads = ["", "class", "n", "found"]
    return "\n\n".join(["## Subgroups of test", TEXTS["subgroups"], table(heads, rows), dropped])


def source(shipped: Sequence[Shipped], views: Runs) -> str:
    """How well the two collections can be told apart within one class, and where the heatmaps lie."""
    rows, maps, as_covid = [], [], []
    for each in shipped:
        own = each.metrics["source"]
        areas = [own["auroc"][name] for name in ("thumbnail", "histogram", "embedding")]
        told = [number(area["value"], area["interval"]) if area else "-" for area in areas]
        called = by_split(own["web_called_covid"])
        as_covid += [f"{called} ({each.model})"] if own["web"]["images"] else []
        rows.append([each.model, own["web"]["images"], own["web"]["patients"], *told])
        for label, heat in each.metrics["heatmap"]["per_class"].items():
            if heat["n"]:
                line = f"{each.model}, {label}"
                maps.append([line, heat["n"], f"{heat['lungs']:.0%}", f"{heat['border']:.0%}"])
    uniform = shipped[0].metrics["heatmap"]["uniform"]
    maps.append(["a uniform map", "", f"{uniform['lungs']:.0%}", f"{uniform['border']:.0%}"])
    features = ["AUROC by thumbnail", "by histogram", "by embedding"]
    told_apart = table(["", "images", "patients", *features], rows)
    worth = TEXTS["worth"] + "".join(f" {what}" for what in (of_border(views), of_web(as_covid)) if what)
    heat = [TEXTS["heatmaps"], table(["", "n", "lungs", "frame"], maps)]
    return "\n\n".join([f"## What the {COVID} figure is worth", worth, TEXTS["source"], told_apart, *heat])


def of_border(views: Runs) -> str:
    """What a network finds that was trained on the outer frame alone; "" without such a run."""
    own = [run["metrics"]["test"]["per_class"][COVID] for run in views if run["recipe"] == "view-border"]
    return TEXTS["of border"].format(label=COVID, **own[0]) if own else ""


def of_web(as_covid: Sequence[str]) -> str:
    """What becomes of the web's images of the other class; "" if there are none."""
    return TEXTS["of web"].format(label=COVID, called=listed(as_covid)) if as_covid else ""


def doubts(shipped: Sequence[Shipped]) -> str:
    """Labels of test that the networks do not believe, and what the numbers would be without them."""
    doubted, rows = [], []
    for each in shipped:
        taken_for = controls.confident_classes(each.test)
        doubted.append((taken_for >= 0) & (taken_for != each.test.label))
        own, whole = each.metrics["label_noise"], each.metrics["duplicates"]["all_rows"]
        kinds = [
            f"{n} {LABELS[label]} taken for {LABELS[other]}"
            for (label, other), n in np.ndenumerate(np.asarray(own["joint"]))
            if n and label != other
        ]
        rest = own["without_doubted"]
        rates = [percent(part["accuracy"], part["interval"]) for part in (whole, rest)]
        rows.append([each.model, int(doubted[-1].sum()), ", ".join(kinds), *rates])
    heads = ["", "in doubt", "which", "accuracy, all rows", "without those in doubt"]
    parts = ["## Labels in doubt", TEXTS["doubts"], table(heads, rows)]
    if len(doubted) > 1:
        parts.append(f"Doubted by every model: {int(np.logical_and.reduce(doubted).sum())}.")
    return "\n\n".join(parts)


def picture(model: str, figure: str, text: str) -> str:
    """A figure of a shipped bundle, as Markdown; write_results.copy_figures brings it there."""
    return f"![{text}](figures/{model}_{figure}.png)"
