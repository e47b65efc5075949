"""Reports -> the few numbers that a visitor should see first, one line a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xray_hf.report.numbers import Rate
from xray_hf.report.report import Measured, Report
from xray_hf.task import NORMAL, PAPER_CLASSES

HEALTHY = PAPER_CLASSES[NORMAL]


@dataclass(frozen=True)
class FalseAlarms:
    """How often healthy people's images of an external test set are called a disease.

    before: by the most probable class. after: by the engine's decision, which may abstain or reject.
    """

    images: int
    before: Rate
    after: Rate


@dataclass(frozen=True)
class Line:
    """A model's numbers. external: balanced accuracy on the sets that have every class.

    false_alarms: by external test set. coverage: {set: share of its images that get a class}; of the internal
    one as "internal".
    """

    model: str
    chance: Rate
    internal: Rate
    external: Mapping[str, Rate]
    false_alarms: Mapping[str, FalseAlarms]
    coverage: Mapping[str, Rate]


@dataclass(frozen=True)
class Summary:
    """lines: one a model. disease: what healthy people are most often called; "" where that is not known."""

    lines: Sequence[Line]
    disease: str


def summarise(reports: Sequence[Report]) -> Summary:
    """The numbers of the models that have any."""
    known = [report for report in reports if report.test or report.external]
    disease = _most_frequent_false_alarm(known)
    return Summary([_line(report, disease) for report in known], disease)


def _line(report: Report, disease: str) -> Line:
    sets = report.external
    inside = {"internal": report.test} if report.test else {}
    # Without intervals, which would make four lines unreadable; the table of abstention has them.
    coverage = {name: _coverage(own) for name, own in {**inside, **sets}.items()}
    return Line(
        report.name,
        report.chance,
        report.test.balanced_accuracy if report.test else Rate(),
        {name: own.balanced_accuracy for name, own in sets.items() if own.has_every_class},
        {
            name: _false_alarms(own, disease)
            for name, own in sets.items()
            if HEALTHY in own.predicted_by_class
        },
        {name: share for name, share in coverage.items() if share.value is not None},
    )


def _coverage(own: Measured) -> Rate:
    """The share of images that get a class: by the engine's decisions, else by the threshold."""
    if own.decisions and own.decisions.decided is not None:
        return Rate(own.decisions.decided / own.n)
    return Rate(own.abstention.coverage.value) if own.abstention else Rate()


def _false_alarms(own: Measured, disease: str) -> FalseAlarms:
    after = own.decisions.by_class.get(HEALTHY, {}) if own.decisions else {}
    before = own.predicted_by_class[HEALTHY].get(disease, Rate())
    return FalseAlarms(own.classes[HEALTHY].images or 0, before, after.get(disease, Rate()))


def _most_frequent_false_alarm(reports: Sequence[Report]) -> str:
    shares: dict[str, float] = {}
    for report in reports:
        for own in report.external.values():
            for answer, share in own.predicted_by_class.get(HEALTHY, {}).items():
                if answer != HEALTHY:
                    shares[answer] = shares.get(answer, 0) + (share.value or 0)
    return max(shares, key=shares.__getitem__, default="")
