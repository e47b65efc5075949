"""What bundles' own files say of how good their models are -> tables. Nothing is computed anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from xray_hf.demo.measured_bundle import GAPS, SUBSETS, Measured, Numbers, interval, view_title
from xray_hf.evaluation.words import (
    before_and_after,
    by_split,
    number,
    others_called,
    percent,
    rate,
    withheld,
)
from xray_hf.task import COVID19, LABELS

OTHERS_CALLED = f"others called {LABELS[COVID19]}"  # beside what is found of it
UNKNOWN = "-"

Line = tuple[str, Sequence[object]]  # what is measured, "" where the caption says it, and its cells


class Rows(NamedTuple):
    """Lines of a table below a title, or without one, where it is ""."""

    title: str
    lines: list[Line]


class Table(NamedTuple):
    """As the page shows it."""

    caption: str
    heads: Sequence[str]
    groups: list[Rows]


class Kind(NamedTuple):
    """A table that every bundle could fill. lines: its part of it; raises one of GAPS if it has none."""

    caption: str
    heads: Sequence[str]
    lines: Callable[[Measured], Iterable[Line]]


class Topic(NamedTuple):
    """A part of the page. figures: their names, as patterns. made_by: what adds its numbers to a bundle."""

    made_by: str
    kinds: Sequence[Kind]
    figures: Sequence[str]


def lines_of(kind: Kind, bundle: Measured) -> list[Line]:
    try:
        return list(kind.lines(bundle))
    except GAPS:
        return []


def table(kind: Kind, of_models: Sequence[tuple[str, list[Line]]]) -> Table:
    """What is measured together, model below model; of a single model without titles between the lines."""
    if len(of_models) == 1:
        model, lines = of_models[0]
        rows = [(what or model, cells) for what, cells in lines]
        return Table(kind.caption, kind.heads, [Rows("", rows)] if rows else [])
    groups: dict[str, list[Line]] = {}
    for model, lines in of_models:
        for what, cells in lines:
            groups.setdefault(what, []).append((model, cells))
    return Table(kind.caption, kind.heads, [Rows(*group) for group in groups.items()])


def _and_its_own_test(bundle: Measured) -> dict[str, Numbers]:
    """{line: numbers} of every other collection, and of test, to compare."""
    collections = {f"elsewhere: {name}": own for name, own in bundle.metrics["external"].items()}
    return {**collections, "its own test": bundle.metrics["test"]}


def _elsewhere_lines(bundle: Measured) -> Iterator[Line]:
    for name, own in _and_its_own_test(bundle).items():
        areas = [number(own["per_class"][k]["auroc"], interval(own, k, "auroc")) for k in LABELS]
        yield name, [own["n"], rate(own, "accuracy"), rate(own, "balanced_accuracy"), *areas]


def _found_elsewhere_lines(bundle: Measured) -> Iterator[Line]:
    for name, own in _and_its_own_test(bundle).items():
        found = [percent(own["per_class"][k]["sensitivity"], interval(own, k, "sensitivity")) for k in LABELS]
        yield name, [*found, others_called(own["confusion_matrix"])]


def _trust_elsewhere_lines(bundle: Measured) -> Iterator[Line]:
    """What was never calibrated, or not decided by the engine, has no numbers."""
    for name, own in _and_its_own_test(bundle).items():
        errors, answers, decisions = (
            own.get(part) or {} for part in ("calibration", "abstention", "decisions")
        )
        yield (
            name,
            [
                *(before_and_after(errors, key) if errors else UNKNOWN for key in ("ece", "brier")),
                *(rate(answers, key) if answers else UNKNOWN for key in ("coverage", "risk")),
                withheld(decisions) if decisions else UNKNOWN,
                decisions.get("decided", UNKNOWN),
                rate(decisions, "accuracy_of_decided") if decisions else UNKNOWN,
            ],
        )


def _overall_lines(bundle: Measured) -> Iterator[Line]:
    for subset in ("test", "test_official"):
        if own := bundle.metrics.get(subset):
            area = number(own["macro_auroc"], own.get("intervals", {}).get("macro_auroc"))
            rates = [rate(own, "accuracy"), rate(own, "balanced_accuracy"), area]
            yield SUBSETS[subset], [own["n"], own["patients"], *rates]


def _class_lines(bundle: Measured) -> Iterator[Line]:
    test = bundle.metrics["test"]
    for label in LABELS:
        own = test["per_class"][label]
        shares = [
            percent(own[key], interval(test, label, key))
            for key in ("sensitivity", "specificity", "precision")
        ]
        scores = [number(own[key], interval(test, label, key)) for key in ("f1", "auroc")]
        patients = test.get("patients_per_class", {}).get(label, UNKNOWN)
        yield label, [test["class_counts"][label], patients, *shares, *scores]


def _calibration_lines(bundle: Measured) -> Iterator[Line]:
    temperature = f"{bundle.calibration['temperature']:.2f}"
    for subset in ("validation", "test"):
        if subset in bundle.metrics:
            own = bundle.metrics[subset]["calibration"]
            changes = [before_and_after(own, key) for key in ("ece", "brier", "cross_entropy")]
            yield SUBSETS[subset], [temperature, *changes]


def _abstention_lines(bundle: Measured) -> Iterator[Line]:
    for subset in ("validation", "test"):
        if subset in bundle.metrics:
            own = bundle.metrics[subset]["abstention"]
            below = percent(bundle.calibration["abstain_below"], None)
            yield SUBSETS[subset], [below, rate(own, "coverage"), rate(own, "risk")]


def _point_lines(bundle: Measured) -> Iterator[Line]:
    for point in bundle.metrics["test"]["operating_points"]:
        rates = [rate(point, "specificity"), rate(point, "sensitivity")]
        on_roc = percent(point["sensitivity_on_own_roc"], None)
        yield (
            f"{point['label']}, set for a specificity of {point['validation_specificity']:.0%}",
            [*rates, on_roc],
        )


def _refusal_lines(bundle: Measured) -> Iterator[Line]:
    report = bundle.calibration["ood_report"]
    of_classes = {f"of these, {name}": own for name, own in report["test_by_class"].items()}
    for name, own in {"X-rays of test, wrongly": report["test"], **of_classes, **report["kinds"]}.items():
        yield name.replace("_", " "), [own["n"], percent(own["rejected"], own["interval"])]


def _view_lines(bundle: Measured) -> Iterator[Line]:
    for name, own in {"whole": bundle.metrics["test"], **bundle.metrics["controls"]}.items():
        found = [percent(own["per_class"][label]["sensitivity"], None) for label in LABELS]
        covid = number(own["per_class"][LABELS[COVID19]]["auroc"], None)
        rates = [rate(own, "accuracy"), rate(own, "balanced_accuracy")]
        yield view_title(name), [*rates, *found, others_called(own["confusion_matrix"]), covid]


def _source_lines(bundle: Measured) -> Iterator[Line]:
    own = bundle.metrics["source"]
    areas = [own["auroc"][name] for name in ("thumbnail", "histogram", "embedding")]
    told = [number(area["value"], area["interval"]) if area else UNKNOWN for area in areas]
    yield "", [own["web"]["images"], own["web"]["patients"], *told, by_split(own["web_called_covid"])]


def _subgroup_lines(bundle: Measured) -> Iterator[Line]:
    for what, groups in bundle.metrics["subgroups"].items():
        if not isinstance(groups, Mapping):  # it says in words what is left out
            continue
        for group, own in groups.items():
            for label, found in own["classes"].items():
                share = percent(found["sensitivity"], found["interval"])
                yield f"{what.replace('_', ' ')} {group}: {label}", [found["n"], share]


def _training_lines(bundle: Measured) -> Iterator[Line]:
    own = bundle.training
    options = own["config"]
    how = [options["data"]["protocol"], own["initial_weights"], len(own["history"]), options["run"]["seed"]]
    yield "", [*how, own["device"], f"{own['seconds'] / 60:.0f}"]


TOPICS = {
    "elsewhere": Topic(
        "xray-hf evaluate --external",
        [
            Kind(
                "On X-rays from elsewhere, and on its own test",
                ["X-rays", "accuracy", "balanced accuracy", *(f"AUROC {k}" for k in LABELS)],
                _elsewhere_lines,
            ),
            Kind(
                "What is found of each class there, and what is called COVID-19 without being it",
                [*(f"{k} found" for k in LABELS), OTHERS_CALLED],
                _found_elsewhere_lines,
            ),
            Kind(
                "What probabilities and answers are worth there",
                [
                    "expected calibration error, before → after",
                    "Brier score",
                    "answered",
                    "of these wrong",
                    "not decided",
                    "decided",
                    "of these right",
                ],
                _trust_elsewhere_lines,
            ),
        ],
        ["confusion_external_*"],
    ),
    "overall": Topic(
        "xray-hf evaluate",
        [
            Kind(
                "All classes together",
                ["X-rays", "patients", "accuracy", "balanced accuracy", "mean AUROC"],
                _overall_lines,
            )
        ],
        [],
    ),
    "classes": Topic(
        "xray-hf evaluate",
        [
            Kind(
                "Each class against the rest, on test",
                ["X-rays", "patients", "sensitivity", "specificity", "precision", "F1", "AUROC"],
                _class_lines,
            )
        ],
        ["confusion_test", "confusion_test_official", "confusion_validation", "roc_test"],
    ),
    "confidence": Topic(
        "xray-hf calibrate",
        [
            Kind(
                "Calibration: errors of the probabilities, before → after",
                ["temperature", "expected calibration error", "Brier score", "cross entropy"],
                _calibration_lines,
            ),
            Kind(
                "Abstention: what is answered, and how much of it is wrong",
                ["unsure below", "answered", "of these wrong"],
                _abstention_lines,
            ),
            Kind(
                "Operating points: each class against the rest, on test",
                ["specificity", "sensitivity", "sensitivity read off the ROC of test"],
                _point_lines,
            ),
        ],
        ["reliability_test", "risk_coverage"],
    ),
    "refusal": Topic(
        "xray-hf calibrate --ood-dir",
        [Kind("Refused as no frontal chest X-ray", ["images", "refused"], _refusal_lines)],
        ["foreign_roc"],
    ),
    "views": Topic(
        "xray-hf report",
        [
            Kind(
                "The test images in views that hide most of what a diagnosis needs",
                [
                    "accuracy",
                    "balanced accuracy",
                    *(f"{k} found" for k in LABELS),
                    OTHERS_CALLED,
                    f"AUROC {LABELS[COVID19]}",
                ],
                _view_lines,
            ),
            Kind(
                "How well the two sources can be told apart within Pneumonia",
                [
                    "X-rays",
                    "patients",
                    "AUROC by thumbnail",
                    "by histogram",
                    "by embedding",
                    "called COVID-19",
                ],
                _source_lines,
            ),
        ],
        ["control_views", "control_sensitivity"],
    ),
    "subgroups": Topic(
        "xray-hf report",
        [Kind("Parts of test: how many of a class are found", ["X-rays", "found"], _subgroup_lines)],
        [],
    ),
    "training": Topic(
        "train.py",
        [
            Kind(
                "How the models were trained",
                ["protocol", "initial weights", "epochs", "seed", "computed on", "minutes"],
                _training_lines,
            )
        ],
        ["curves"],
    ),
}
