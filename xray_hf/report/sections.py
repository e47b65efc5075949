"""Reports -> the sections that page, card and docs show, in their order: text, tables, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xray_hf.report import captions, sentences, tables
from xray_hf.report.captions import Figure
from xray_hf.report.report import Report
from xray_hf.report.tables import Table


@dataclass(frozen=True)
class Section:
    """text: paragraphs above the tables. figures: in rows. without: models that lack all or part of it.

    made_by: the command that adds its numbers to a bundle.
    """

    title: str
    made_by: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Sequence[Figure]] = ()
    without: Sequence[str] = ()

    @property
    def gap(self) -> str:
        """What is missing, and what adds it; "" where nothing is."""
        what = "Not measured, or only in part," if self.tables else "Not measured"
        names = ", ".join(self.without)
        return f"{what} for {names}; `{self.made_by}` adds it to a bundle." if names else ""


def all_sections(reports: Sequence[Report]) -> list[Section]:
    """Every section; one that no model has numbers for has no tables."""
    makers = (
        external,
        internal,
        sources,
        leave_one_source_out,
        calibration,
        ood,
        controls,
        subgroups,
        label_errors,
        training,
    )
    return [section for make in makers if (section := make(reports))]


def external(reports: Sequence[Report]) -> Section:
    """Performance on external test sets."""
    sets = tables.external_sets(reports)
    beside = tables.subsets([each for each in reports if each.external], "test")
    return _section(
        "External validation",
        "xray-hf evaluate --source SOURCE",
        reports,
        text=[sentences.EXTERNAL, *sentences.external_sets(reports)],
        found=[
            tables.performance(
                "External test sets beside the internal one", _by_model(reports, [*sets, *beside])
            ),
            tables.per_class("External test sets, each class against the rest", sets),
            tables.decisions(sets),
        ],
        figures=["confusion_external_*"],
    )


def internal(reports: Sequence[Report]) -> Section:
    """Performance on the internal test set."""
    test = tables.subsets(reports, "test")
    return _section(
        "Internal test set",
        "xray-hf evaluate",
        reports,
        text=[sentences.INTERNAL, *sentences.official(reports)],
        found=[
            tables.performance("All classes together", tables.subsets(reports, "test", "test_official")),
            tables.per_class("Each class against the rest", [(model, "", own) for model, _, own in test]),
        ],
        figures=["confusion_test", "confusion_test_official", "confusion_validation", "roc_test"],
    )


def sources(reports: Sequence[Report]) -> Section | None:
    """The internal test set by source; None for models of a single source."""
    known = [each for each in reports if each.by_source or each.within_source]
    if not known:
        return None
    return _section(
        "Performance by source",
        "xray-hf evaluate",
        known,
        text=_each(known, sentences.worst_source),
        found=[
            tables.performance("Internal test set by source", tables.by_source(known)),
            tables.within_source(known),
        ],
    )


def leave_one_source_out(reports: Sequence[Report]) -> Section | None:
    """Held-out sources; None where no model held one out."""
    table = tables.leave_one_source_out(reports)
    if not table.rows:
        return None
    text = [
        "Each model was trained without the source on which it is tested here.",
        *_each(
            reports,
            lambda each: sentences.fewer_classes(
                each, {name: own for name, own in each.external.items() if name in each.held_out}
            ),
        ),
    ]
    return Section("Leave one source out", "train.py --hold-out SOURCE", text, [table])


def calibration(reports: Sequence[Report]) -> Section:
    """Calibration, abstention and operating points."""
    own = _section(
        "Calibration and abstention",
        "xray-hf calibrate",
        reports,
        text=[sentences.CALIBRATION, *_each(reports, sentences.fitted)],
        found=[tables.calibration(reports), tables.operating_points(reports)],
        figures=["reliability_test", "risk_coverage"],
    )
    return replace(own, text=[*own.text, *sentences.uncalibrated(reports)])


def ood(reports: Sequence[Report]) -> Section:
    """OOD detection: what the engine rejects."""
    return _section(
        "OOD detection",
        "xray-hf calibrate --ood-dir",
        reports,
        text=[sentences.OOD, *sentences.lateral_views(reports)],
        found=[tables.ood(reports)],
        figures=["ood_roc", "foreign_roc"],
    )


def controls(reports: Sequence[Report]) -> Section:
    """Shortcut controls: what the models may use besides the lungs."""
    sets, classes = tables.control_sets(reports), tables.classes_of(reports)
    detection = tables.source_detection(reports)
    found = [
        tables.performance("Ablated inputs", sets),
        tables.class_columns("Ablated inputs, each class", sets, classes),
        tables.cam(reports),
        *([detection] if detection.rows else []),  # not of data from one site
    ]
    return _section(
        "Shortcut controls",
        "xray-hf report",
        reports,
        text=[sentences.CONTROLS],
        found=found,
        figures=["control_views", "control_sensitivity"],
    )


def subgroups(reports: Sequence[Report]) -> Section:
    """Parts of the internal test set."""
    return _section(
        "Subgroups",
        "xray-hf report",
        reports,
        text=[*sentences.not_recorded(reports), *_each(reports, sentences.duplicates)],
        found=[tables.subgroups(reports)],
    )


def label_errors(reports: Sequence[Report]) -> Section:
    """Likely label errors."""
    return _section(
        "Likely label errors",
        "xray-hf report",
        reports,
        found=[tables.label_errors(reports)],
    )


def training(reports: Sequence[Report]) -> Section:
    """How the models were trained."""
    return _section(
        "Training procedure",
        "train.py",
        reports,
        found=[tables.training(reports)],
        figures=["curves"],
    )


def _section(
    title: str,
    made_by: str,
    reports: Sequence[Report],
    *,
    found: Sequence[Table],
    text: Sequence[str] = (),
    figures: Sequence[str] = (),
) -> Section:
    kept = [table for table in map(Table.without_empty, found) if table.rows]
    lacking = {
        report.name
        for report in reports
        for table in found
        if report.name not in {row.model for row in table.without_empty().rows}
    }
    without = [report.name for report in reports if report.name in lacking]
    drawn = captions.figures(figures, reports)
    return Section(title, made_by, text if kept else (), kept, drawn, without)


def _each(reports: Sequence[Report], say: Callable[[Report], list[str]]) -> list[str]:
    """What is said of each model, each sentence once."""
    return list(dict.fromkeys(line for report in reports for line in say(report)))


def _by_model(reports: Sequence[Report], sets: tables.Sets) -> tables.Sets:
    """In the order of the models."""
    order = [report.name for report in reports]
    return sorted(sets, key=lambda each: order.index(each[0]))
