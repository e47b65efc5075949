"""A bundle's figures, each with its numbers in words for who does not see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from xray_hf import manifest
from xray_hf.demo.measured_bundle import GAPS, SUBSETS, VIEWS, Measured, view_title
from xray_hf.evaluation.words import percent
from xray_hf.task import LABELS


class Picture(NamedTuple):
    """url: relative to the page. alt: the same in words, for who does not see it."""

    url: str
    caption: str
    alt: str


def pictures(patterns: Sequence[str], bundles: Sequence[Measured]) -> list[list[Picture]]:
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
    except GAPS:
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
    report = bundle.calibration["ood_report"]
    kinds = {name.replace("_", " "): own["rejected"] for name, own in report["kinds"].items()}
    wrongly = report["test"]["rejected"]
    return (
        f"At the threshold {wrongly:.1%} of the X-rays of test are refused, and of {_shares(kinds, '.0%')}."
    )


def _views(_: Measured, __: str) -> str:
    return f"One synthetic patient in each view: {', '.join(VIEWS.values())}."


def _sensitivity(bundle: Measured, _: str) -> str:
    views = {"whole": bundle.metrics["test"], **bundle.metrics["controls"]}
    return " ".join(
        f"{view_title(name)}: "
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


def _subset(name: str) -> str:
    return SUBSETS.get(name) or f"X-rays from elsewhere ({name.removeprefix('external_')})"


def _shares(named: Mapping[str, float | None], form: str) -> str:
    """Normal 0.906, Pneumonia 0.923; what has no number is left out."""
    return ", ".join(f"{name} {value:{form}}" for name, value in named.items() if value is not None)
