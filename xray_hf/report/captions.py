"""A bundle's figures: the title of each, and its numbers as alternative text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from xray_hf import manifest
from xray_hf.report.numbers import Rate, percent
from xray_hf.report.report import Report
from xray_hf.report.tables import CONTROLS, SUBSETS, control_sets
from xray_hf.text import counted

EXTERNAL = "external_"  # confusion_external_NAME.png


class Figure(NamedTuple):
    """stem: the file's name without .png. alt: its numbers in words."""

    model: str
    stem: str
    caption: str
    alt: str


def figures(patterns: Sequence[str], reports: Sequence[Report]) -> list[list[Figure]]:
    """The figures that exist: a row for the same figure of all models; for a single model one row for all."""
    rows = [
        [
            _figure(report, path.stem)
            for report in reports
            for path in sorted((report.folder / manifest.FIGURES).glob(f"{pattern}.png"))
        ]
        for pattern in patterns
    ]
    if len(reports) == 1:
        rows = [[figure for row in rows for figure in row]]
    return [row for row in rows if row]


def _figure(report: Report, stem: str) -> Figure:
    kind, _, subset = stem.partition("_") if stem.startswith("confusion_") else (stem, "", "")
    title, in_words = FIGURES[kind]
    of = SUBSETS.get(subset) or f"external test set {subset.removeprefix(EXTERNAL)}"
    caption = f"{report.name}: {title.format(of=of)}"
    text = in_words(report, subset) or "Its numbers are not in the bundle's files."
    return Figure(report.name, stem, caption, f"{caption}. {text}")


def _confusion(report: Report, subset: str) -> str:
    own = report.subsets.get(subset) or report.external.get(subset.removeprefix(EXTERNAL))
    rows = zip(report.classes, own.matrix, strict=True) if own and own.matrix else ()
    return " ".join(
        f"Of {sum(row):,} {label}, "
        + ", ".join(f"{n:,} were predicted {label}" for label, n in zip(report.classes, row, strict=True))
        + "."
        for label, row in rows
        if sum(row)
    )


def _roc(report: Report, _: str) -> str:
    areas = {label: of.auroc for label, of in report.test.classes.items()} if report.test else {}
    return f"Areas under the curves: {_shares(areas, '.3f')}." if areas else ""


def _reliability(report: Report, _: str) -> str:
    test = report.test
    if not (test and test.before and test.after) or test.before.ece is None or test.after.ece is None:
        return ""
    return (
        f"Confidence and accuracy are {test.before.ece:.1%} apart on average before temperature scaling, "
        f"{test.after.ece:.1%} after it."
    )


def _risk(report: Report, _: str) -> str:
    parts = [
        f"on the {SUBSETS[name]} coverage is {percent(Rate(own.abstention.coverage.value))} and selective "
        f"risk {percent(Rate(own.abstention.risk.value))}"
        for name in ("validation", "test")
        if (own := report.subsets.get(name)) and own.abstention
    ]
    return f"At the threshold of abstention, {'; '.join(parts)}." if parts else ""


def _rejection(report: Report, _: str) -> str:
    if not report.ood:
        return ""
    kinds = {name: own.rejected for name, own in report.ood.kinds.items()}
    wrongly = percent(Rate(report.ood.test.rejected.value))
    return (
        f"At the threshold {wrongly} of the internal test set are rejected, and of {_shares(kinds, '.0%')}."
    )


def _controls(_: Report, __: str) -> str:
    return f"One synthetic patient in each form: {', '.join(CONTROLS.values())}."


def _sensitivity(report: Report, _: str) -> str:
    found = {
        form: {label: of.sensitivity for label, of in own.classes.items()}
        for _, form, own in control_sets([report])
    }
    return " ".join(f"{form}: {_shares(named, '.0%')}." for form, named in found.items())


def _curves(report: Report, _: str) -> str:
    try:
        rows = report.training.history if report.training else []
        first, last = rows[0], rows[-1]
        best = max(rows, key=lambda row: row["validation_balanced_accuracy"])
        return (
            f"Over {counted(len(rows), 'epoch')} the training loss goes from {first['train_loss']:.3f} to "
            f"{last['train_loss']:.3f} and validation accuracy from {first['validation_accuracy']:.1%} to "
            f"{last['validation_accuracy']:.1%}. Balanced accuracy on validation is highest after epoch "
            f"{best['epoch']}: {best['validation_balanced_accuracy']:.1%}."
        )
    except (LookupError, TypeError, ValueError):  # an older history, or a damaged one
        return ""


# {the file's name: (its title, its numbers in words)}
FIGURES: Mapping[str, tuple[str, Callable[[Report, str], str]]] = {
    "confusion": ("confusion matrix on the {of}", _confusion),
    "roc_test": ("ROC curves on the internal test set, each class against the rest", _roc),
    "reliability_test": ("reliability diagram on the internal test set", _reliability),
    "risk_coverage": ("selective risk by coverage", _risk),
    "ood_roc": ("ROC curves of OOD detection", _rejection),
    "control_views": ("ablated inputs", _controls),
    "control_sensitivity": ("sensitivity on ablated inputs", _sensitivity),
    "curves": ("loss and accuracy by epoch", _curves),
}


def _shares(named: Mapping[str, Rate], form: str) -> str:
    """Normal 0.906, Pneumonia 0.923; rates without a value are left out."""
    return ", ".join(f"{name} {rate.value:{form}}" for name, rate in named.items() if rate.value is not None)
