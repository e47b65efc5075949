"""What bundles' own files say of how good their models are -> HTML. Nothing is computed anew.

A bundle may lack any of it: an older one its intervals, one without `xray-hf report` its controls. The page
says so in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from xray_hf import manifest
from xray_hf.demo.formatting import render
from xray_hf.errors import BundleError
from xray_hf.evaluation.words import (
    before_and_after,
    by_split,
    number,
    others_called,
    percent,
    rate,
    withheld,
)
from xray_hf.labels import COVID19, LABELS
from xray_hf.manifest import Manifest

SUBSETS = {"validation": "validation", "test": "test", "test_official": "official test"}
VIEWS = {
    "whole": "whole image",
    "centre_masked": "lungs blacked out",
    "border": "outer frame only",
    "blurred": "low frequencies only",
    "histogram": "histogram only",
}
OTHERS_CALLED = f"others called {LABELS[COVID19]}"  # beside what is found of it
UNKNOWN = "-"
# What files raise that lack a number, or hold something else in its place.
_GAPS = (LookupError, TypeError, AttributeError, ValueError)

Numbers = Mapping[str, Any]
Line = tuple[str, Sequence[object]]  # what is measured, "" where the caption says it, and its cells


@dataclass(frozen=True)
class Measured:
    """A bundle as this page sees it.

    name: the model's on the page. number: its place there, in the figures' addresses, too. The rest are the
    bundle's files; {} for one that is missing or damaged.
    """

    name: str
    number: int
    folder: Path
    metrics: Numbers
    calibration: Numbers
    training: Numbers

    @classmethod
    def read(cls, name: str, number: int, folder: Path) -> Measured:
        """Read what is there."""
        files = (manifest.METRICS, manifest.CALIBRATION, manifest.TRAINING)
        return cls(name, number, folder, *(_read(folder / file) for file in files))


class Rows(NamedTuple):
    """Lines of a table below a title, or without one, where it is ""."""

    title: str
    lines: list[Line]


class Table(NamedTuple):
    """As the page shows it."""

    caption: str
    heads: Sequence[str]
    groups: list[Rows]


class Picture(NamedTuple):
    """url: relative to the page. alt: the same in words, for who does not see it."""

    url: str
    caption: str
    alt: str


class Kind(NamedTuple):
    """A table that every bundle could fill. lines: its part of it; raises one of _GAPS if it has none."""

    caption: str
    heads: Sequence[str]
    lines: Callable[[Measured], Iterable[Line]]


class Topic(NamedTuple):
    """A part of the page. figures: their names, as patterns. made_by: what adds its numbers to a bundle."""

    made_by: str
    kinds: Sequence[Kind]
    figures: Sequence[str]


def as_html(models: Mapping[str, Manifest]) -> str:
    """The page's evidence for these models, in the order of the page."""
    found = [Measured.read(name, k, each.folder) for k, (name, each) in enumerate(models.items())]
    known = [each for each in found if each.metrics]
    parts = {}
    for name, topic in TOPICS.items() if known else ():
        lines = [(kind, [(each.name, _lines(kind, each)) for each in known]) for kind in topic.kinds]
        without = {model for _, of_models in lines for model, own in of_models if not own}
        parts[name] = {
            "tables": [_table(kind, of_models) for kind, of_models in lines],
            "pictures": _pictures(topic.figures, known),
            "without": [each.name for each in known if each.name in without],
            "made_by": topic.made_by,
        }
    return render(
        "evidence",
        parts=parts,
        elsewhere=[line for each in known for line in _elsewhere(each)],
        repeated=[line for each in known for line in _repeated(each)],
        from_the_web=[line for each in known for line in _from_the_web(each)],
        unknown=[each.name for each in found if not each.metrics],
        synthetic=[name for name, each in models.items() if each.is_synthetic],
        without_intervals=[each.name for each in known if not _has_intervals(each)],
    )


def _read(path: Path) -> Numbers:
    try:
        return manifest.read_json(path)
    except BundleError:
        return {}


def _lines(kind: Kind, bundle: Measured) -> list[Line]:
    try:
        return list(kind.lines(bundle))
    except _GAPS:
        return []


def _table(kind: Kind, of_models: Sequence[tuple[str, list[Line]]]) -> Table:
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


def _has_intervals(bundle: Measured) -> bool:
    try:
        return bool(bundle.metrics["test"]["intervals"])
    except _GAPS:
        return False


def _elsewhere(bundle: Measured) -> Iterator[dict[str, Any]]:
    """What becomes of the model on each other collection, for the sentences that the page opens with."""
    try:
        for name, own in bundle.metrics["external"].items():
            decisions = own.get("decisions") or {}
            yield {
                "model": bundle.name,
                "collection": name,
                "n": own["n"],
                "balanced": rate(own, "balanced_accuracy"),
                "at_home": rate(bundle.metrics["test"], "balanced_accuracy"),
                "called": others_called(own["confusion_matrix"]),
                "decided": decisions.get("decided"),
                "right": percent(decisions.get("accuracy_of_decided"), None),
            }
    except _GAPS:
        return


def _repeated(bundle: Measured) -> Iterator[dict[str, Any]]:
    """What the pictures that stand in test more than once add."""
    try:
        own = bundle.metrics["duplicates"]
        accuracies = {
            key: percent(own[key]["accuracy"], own[key]["interval"]) for key in ("all_rows", "one_of_each")
        }
        yield {"model": bundle.name, "pictures": own["repeated_pictures"], **accuracies}
    except _GAPS:
        return


def _from_the_web(bundle: Measured) -> Iterator[dict[str, Any]]:
    """On how many of the web's images of Pneumonia the network was trained that tells them apart."""
    try:
        own = bundle.metrics["source"]
        yield {"model": bundle.name, **own["web"], "trained": own["web_called_covid"]["train"]["images"]}
    except _GAPS:
        return


# The tables


def _and_its_own_test(bundle: Measured) -> dict[str, Numbers]:
    """{line: numbers} of every other collection, and of test, to compare."""
    collections = {f"elsewhere: {name}": own for name, own in bundle.metrics["external"].items()}
    return {**collections, "its own test": bundle.metrics["test"]}


def _elsewhere_lines(bundle: Measured) -> Iterator[Line]:
    for name, own in _and_its_own_test(bundle).items():
        areas = [number(own["per_class"][k]["auroc"], _interval(own, k, "auroc")) for k in LABELS]
        yield name, [own["n"], rate(own, "accuracy"), rate(own, "balanced_accuracy"), *areas]


def _found_elsewhere_lines(bundle: Measured) -> Iterator[Line]:
    for name, own in _and_its_own_test(bundle).items():
        found = [
            percent(own["per_class"][k]["sensitivity"], _interval(own, k, "sensitivity")) for k in LABELS
        ]
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
                percent(decisions.get("accuracy_of_decided"), None),
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
            percent(own[key], _interval(test, label, key))
            for key in ("sensitivity", "specificity", "precision")
        ]
        scores = [number(own[key], _interval(test, label, key)) for key in ("f1", "auroc")]
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
            below = percent(own["unsure_below"], None)
            yield SUBSETS[subset], [below, rate(own, "coverage"), rate(own, "risk")]


def _point_lines(bundle: Measured) -> Iterator[Line]:
    for point in bundle.metrics["test"]["operating_points"]:
        rates = [rate(point, "specificity"), rate(point, "sensitivity")]
        on_roc = percent(point["sensitivity_on_own_roc"], None)
        yield f"set for a specificity of {point['validation_specificity']:.0%}", [*rates, on_roc]


def _refusal_lines(bundle: Measured) -> Iterator[Line]:
    report = bundle.calibration["foreign_report"]
    of_classes = {f"of these, {name}": own for name, own in report["test_by_class"].items()}
    for name, own in {"X-rays of test, wrongly": report["test"], **of_classes, **report["kinds"]}.items():
        yield name.replace("_", " "), [own["n"], percent(own["refused"], own["interval"])]


def _view_lines(bundle: Measured) -> Iterator[Line]:
    for name, own in {"whole": bundle.metrics["test"], **bundle.metrics["controls"]}.items():
        found = [percent(own["per_class"][label]["sensitivity"], None) for label in LABELS]
        covid = number(own["per_class"][LABELS[COVID19]]["auroc"], None)
        rates = [rate(own, "accuracy"), rate(own, "balanced_accuracy")]
        yield _view(name), [*rates, *found, others_called(own["confusion_matrix"]), covid]


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
                "Operating points: Pneumonia against the rest, on test",
                ["specificity", "sensitivity", "sensitivity read off the ROC of test"],
                _point_lines,
            ),
        ],
        ["reliability_test", "risk_coverage"],
    ),
    "refusal": Topic(
        "xray-hf calibrate --foreign-dir",
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


# The figures


def _pictures(patterns: Sequence[str], bundles: Sequence[Measured]) -> list[list[Picture]]:
    """Those that exist, in rows: the same figure of all models; of a single model all its figures."""
    rows = [
        [_picture(bundle, path.stem) for bundle in bundles for path in _files(bundle, pattern)]
        for pattern in patterns
    ]
    if len(bundles) == 1:
        rows = [[picture for row in rows for picture in row]]
    return [row for row in rows if row]


def _files(bundle: Measured, pattern: str) -> list[Path]:
    return sorted((bundle.folder / manifest.FIGURES).glob(f"{pattern}.png"))


def _picture(bundle: Measured, stem: str) -> Picture:
    kind, _, subset = stem.partition("_") if stem.startswith("confusion_") else (stem, "", "")
    title, in_words = DRAWN[kind]
    title = f"{bundle.name}: {title.format(subset=_subset(subset))}"
    try:
        text = in_words(bundle, subset)
    except _GAPS:
        text = "Its numbers are not in the bundle's files."
    return Picture(f"figures/{bundle.number}/{quote(stem)}.png", title, f"{title}. {text}")


def _confusion(bundle: Measured, subset: str) -> str:
    external = subset.removeprefix("external_")
    own = bundle.metrics[subset] if subset == external else bundle.metrics["external"][external]
    rows = zip(LABELS, own["confusion_matrix"], strict=True)
    return " ".join(
        f"Of {sum(row):,} {label}, "
        + ", ".join(f"{n:,} were called {called}" for called, n in zip(LABELS, row, strict=True))
        + "."
        for label, row in rows
        if sum(row)
    )


def _roc(bundle: Measured, _: str) -> str:
    classes = bundle.metrics["test"]["per_class"]
    return f"Areas under the curves: {_shares({k: classes[k]['auroc'] for k in LABELS}, '.3f')}."


def _reliability(bundle: Measured, _: str) -> str:
    own = bundle.metrics["test"]["calibration"]
    before, after = (own[when]["ece"] for when in ("before", "after"))
    return (
        f"Confidence and accuracy are {before:.1%} apart on average before the temperature, "
        f"{after:.1%} after it."
    )


def _risk(bundle: Measured, _: str) -> str:
    parts = [(name, bundle.metrics[name]["abstention"]) for name in ("validation", "test")]
    said = [
        f"on {name} {own['coverage']:.1%} are answered and {percent(own['risk'], None)} of these are wrong"
        for name, own in parts
    ]
    return f"At the threshold of unsure, {'; '.join(said)}."


def _refusal(bundle: Measured, _: str) -> str:
    report = bundle.calibration["foreign_report"]
    kinds = {name.replace("_", " "): own["refused"] for name, own in report["kinds"].items()}
    wrongly = report["test"]["refused"]
    return (
        f"At the threshold {wrongly:.1%} of the X-rays of test are refused, and of {_shares(kinds, '.0%')}."
    )


def _views(_: Measured, __: str) -> str:
    return f"One synthetic patient in each view: {', '.join(VIEWS.values())}."


def _sensitivity(bundle: Measured, _: str) -> str:
    views = {"whole": bundle.metrics["test"], **bundle.metrics["controls"]}
    return " ".join(
        f"{_view(name)}: "
        + _shares({label: own["per_class"][label]["sensitivity"] for label in LABELS}, ".0%")
        + "."
        for name, own in views.items()
    )


def _curves(bundle: Measured, _: str) -> str:
    rows = bundle.training["history"]
    first, last = rows[0], rows[-1]
    best = max(rows, key=lambda row: row["validation_balanced_accuracy"])
    return (
        f"Over {len(rows)} epochs the training loss goes from {first['train_loss']:.3f} to "
        f"{last['train_loss']:.3f}, the accuracy on validation from {first['validation_accuracy']:.1%} to "
        f"{last['validation_accuracy']:.1%}. Balanced accuracy on validation is highest after epoch "
        f"{best['epoch']}: {best['validation_balanced_accuracy']:.1%}."
    )


# {what a figure is of: (its title, its numbers in words)}
DRAWN: Mapping[str, tuple[str, Callable[[Measured, str], str]]] = {
    "confusion": ("confusion matrix on {subset}", _confusion),
    "roc_test": ("ROC curves on test, each class against the rest", _roc),
    "reliability_test": ("accuracy by confidence on test", _reliability),
    "risk_coverage": ("share of wrong answers by share answered", _risk),
    "foreign_roc": ("ROC curves of refusing foreign images", _refusal),
    "control_views": ("the views", _views),
    "control_sensitivity": ("share found of each class, in each view", _sensitivity),
    "curves": ("loss and accuracy by epoch", _curves),
}


def _interval(numbers: Numbers, label: str, key: str) -> Sequence[float] | None:
    """The interval of a number of one class, in a bundle that has intervals."""
    found: Sequence[float] | None = numbers.get("intervals", {}).get("per_class", {}).get(label, {}).get(key)
    return found


def _subset(name: str) -> str:
    return SUBSETS.get(name) or f"X-rays from elsewhere ({name.removeprefix('external_')})"


def _view(name: str) -> str:
    return VIEWS.get(name) or name.replace("_", " ")


def _shares(named: Mapping[str, float | None], form: str) -> str:
    """Normal 0.906, Pneumonia 0.923; what has no number is left out."""
    return ", ".join(f"{name} {value:{form}}" for name, value in named.items() if value is not None)
