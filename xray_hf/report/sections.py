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
        """The sentence about missing numbers and the command that adds them; "" if none are missing."""
        what = "Not measured, or only in part," if self.tables else "Not measured"
        names = ", ".join(self.without)
        return f"{what} for {names}; `{self.made_by}` adds it to a bundle." if names else ""


def all_sections(reports: Sequence[Report]) -> list[Section]:
    """Every section; one that no model has numbers for has no tables."""
    before = (external, internal, sources, leave_one_source_out)
    after = (calibration, ood, controls, subgroups, label_errors, training)
    return [section for make in (*before, *after) if (section := make(reports))]


def external(reports: Sequence[Report]) -> Section:
    """Performance on external test sets."""
    sets = tables.external_sets(reports)
    beside = [
        own
        for each in reports
        if each.external
        for own in (*tables.external_sets([each]), *tables.subsets([each], "test"))
    ]
    found = [
        tables.performance("External test sets beside the internal one", beside),
        tables.per_class("External test sets, each class against the rest", sets),
        tables.answers(sets, tables.classes_of(reports)),
        tables.decisions(sets),
    ]
    text = [sentences.EXTERNAL, *sentences.external_sets(reports)]
    made_by = "xray-hf evaluate --source SOURCE"
    return _section("External validation", made_by, reports, found, text, ["confusion_external_*"])


def internal(reports: Sequence[Report]) -> Section:
    """Performance on the internal test set."""
    test = [(model, "", own) for model, _, own in tables.subsets(reports, "test")]
    found = [
        tables.performance("All classes together", tables.subsets(reports, "test", "test_official")),
        tables.per_class("Each class against the rest", test),
    ]
    text = [sentences.INTERNAL, *sentences.official(reports)]
    figures = ["confusion_test", "confusion_test_official", "confusion_validation", "roc_test"]
    return _section("Internal test set", "xray-hf evaluate", reports, found, text, figures)


def sources(reports: Sequence[Report]) -> Section | None:
    """The internal test set by source; None for models of a single source."""
    known = [each for each in reports if each.by_source or each.within_source]
    if not known:
        return None
    found = [
        tables.performance("Internal test set by source", tables.by_source(known)),
        tables.within_source(known),
    ]
    text = _each(known, sentences.worst_source)
    return _section("Performance by source", "xray-hf evaluate", known, found, text)


def leave_one_source_out(reports: Sequence[Report]) -> Section | None:
    """Held-out sources; None where no model held one out."""
    table = tables.leave_one_source_out(reports)
    if not table.rows:
        return None
    text = ["Each model was trained without the source on which it is tested here."]
    return Section("Leave one source out", "train.py --hold-out SOURCE", text, [table.without_empty()])


def calibration(reports: Sequence[Report]) -> Section:
    """Calibration, abstention and operating points."""
    found = [tables.calibration(reports), tables.operating_points(reports)]
    text = [
        sentences.CALIBRATION,
        *_each(reports, sentences.fitted),
        *_each(reports, sentences.worst_calibrated_sources),
    ]
    figures = ["reliability_test", "risk_coverage"]
    own = _section("Calibration and abstention", "xray-hf calibrate", reports, found, text, figures)
    return replace(own, text=[*own.text, *_each(reports, sentences.uncalibrated)])


def ood(reports: Sequence[Report]) -> Section:
    """OOD detection: what the engine rejects."""
    text = [sentences.OOD, *_each(reports, sentences.lateral_views)]
    made_by = "xray-hf calibrate --ood-dir"
    return _section("OOD detection", made_by, reports, [tables.ood(reports)], text, ["ood_roc"])


def controls(reports: Sequence[Report]) -> Section:
    """Shortcut controls: what the models may use apart from the lungs."""
    sets, classes = tables.control_sets(reports), tables.classes_of(reports)
    detection = tables.source_detection(reports)
    found = [
        tables.performance("Ablated inputs", sets),
        tables.class_columns("Ablated inputs, each class", sets, classes),
        tables.cam(reports),
        *([detection] if detection.rows else []),  # not of data from one site
    ]
    figures = ["control_views", "control_sensitivity"]
    text = [sentences.CONTROLS, *_each(reports, sentences.crops_after_views)]
    return _section("Shortcut controls", "xray-hf report", reports, found, text, figures)


def subgroups(reports: Sequence[Report]) -> Section:
    """Parts of the internal test set."""
    text = [*sentences.not_recorded(reports), *_each(reports, sentences.duplicates)]
    return _section("Subgroups", "xray-hf report", reports, [tables.subgroups(reports)], text)


def label_errors(reports: Sequence[Report]) -> Section:
    """Likely label errors, of the models for which they can be found."""
    able = [each for each in reports if not each.names_one_class]
    own = _section("Likely label errors", "xray-hf report", able, [tables.label_errors(able)])
    return replace(own, text=_each(reports, sentences.no_label_errors))


def training(reports: Sequence[Report]) -> Section:
    """How the models were trained."""
    found = [tables.training(reports)]
    return _section("Training procedure", "train.py", reports, found, figures=["curves"])


def _section(
    title: str,
    made_by: str,
    reports: Sequence[Report],
    found: Sequence[Table],
    text: Sequence[str] = (),
    figures: Sequence[str] = (),
) -> Section:
    shown = [table.without_empty() for table in found]
    kept = [table for table in shown if table.rows]
    without = [each.name for each in reports if any(each.name not in table.models for table in shown)]
    drawn = captions.figures(figures, reports)
    return Section(title, made_by, text if kept else (), kept, drawn, without)


def _each(reports: Sequence[Report], say: Callable[[Report], list[str]]) -> list[str]:
    """The sentences about each model, without repeats."""
    return list(dict.fromkeys(line for report in reports for line in say(report)))
