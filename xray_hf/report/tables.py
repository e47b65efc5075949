"""Reports -> every table, ready for the page, Markdown and the terminal. Nothing is computed anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xray_hf.report import sentences
from xray_hf.report.numbers import UNKNOWN, Rate, change, count, decimal, part_of, percent, points
from xray_hf.report.report import ClassNumbers, Errors, Measured, Rejected, Report

SUBSETS = {
    "train": "training set",
    "validation": "validation set",
    "test": "internal test set",
    "test_official": "official test set",
}
CONTROLS = {
    "whole": "whole image",
    "centre_masked": "lungs blacked out",
    "border": "outer frame only",
    "blurred": "low frequencies only",
    "histogram": "histogram only",
}


class Row(NamedTuple):
    """what: is measured; "" where the title says it."""

    model: str
    what: str
    cells: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of one model or several. note: how to read it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    note: str = ""

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(row.model for row in self.rows))

    def without_empty(self) -> Table:
        """Without rows and columns of which nothing is known."""
        rows = [row for row in self.rows if any(cell not in (UNKNOWN, "") for cell in row.cells)]
        kept = [k for k in range(len(self.headings)) if any(row.cells[k] != UNKNOWN for row in rows)]
        return Table(
            self.title,
            [self.headings[k] for k in kept],
            [Row(row.model, row.what, [row.cells[k] for k in kept]) for row in rows],
            self.note,
        )

    def by_what(self) -> dict[str, list[Row]]:
        """The rows of all models together for each thing measured."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.what, []).append(row)
        return groups


Sets = Sequence[tuple[str, str, Measured]]  # model, what the images are, their numbers


def classes_of(reports: Iterable[Report]) -> list[str]:
    """The classes of all models, each once."""
    return list(dict.fromkeys(label for report in reports for label in report.classes))


def subsets(reports: Sequence[Report], *names: str) -> Sets:
    """The bundle's own splits of these names, all without any."""
    return [
        (report.name, SUBSETS[name], report.subsets[name])
        for report in reports
        for name in names or SUBSETS
        if name in report.subsets
    ]


def external_sets(reports: Sequence[Report], prefix: str = "") -> Sets:
    """Every external test set."""
    return [
        (report.name, f"{prefix}{name}", own) for report in reports for name, own in report.external.items()
    ]


def control_sets(reports: Sequence[Report]) -> Sets:
    """The internal test set, whole and in each ablated form."""
    return [
        (report.name, control_title(name), own)
        for report in reports
        if report.test and report.controls
        for name, own in {"whole": report.test, **report.controls}.items()
    ]


def control_title(name: str) -> str:
    """What is left of the image."""
    return CONTROLS.get(name) or name.replace("_", " ")


def performance(title: str, sets: Sets) -> Table:
    """All classes together."""
    headings = ["images", "patients", "accuracy", "balanced accuracy", "macro F1", "macro AUROC"]
    rows = [
        Row(
            model,
            what,
            [
                count(own.n),
                count(own.patients),
                *(percent(rate) for rate in (own.accuracy, own.balanced_accuracy, own.macro_f1)),
                decimal(own.macro_auroc),
            ],
        )
        for model, what, own in sets
    ]
    return Table(title, headings, rows)


def per_class(title: str, sets: Sets) -> Table:
    """Each class against the rest, one row a class."""
    headings = ["images", "patients", "sensitivity", "specificity", "false positives", "precision", "F1"]
    rows = [
        Row(
            model,
            f"{what}, {label}" if what else label,
            [
                count(of.images),
                count(of.patients),
                percent(of.sensitivity),
                percent(of.specificity),
                part_of(of.false_positives),
                percent(of.precision),
                decimal(of.f1),
                decimal(of.auroc),
            ],
        )
        for model, what, own in sets
        for label, of in own.classes.items()
    ]
    return Table(title, [*headings, "AUROC"], rows)


def class_columns(title: str, sets: Sets, classes: Sequence[str]) -> Table:
    """For each class sensitivity, beside false positives and AUROC: one row a set."""
    whats = ("sensitivity", "false positives", "AUROC")
    headings = [f"{what}: {label}" for what in whats for label in classes]
    rows = []
    for model, what, own in sets:
        known = [own.classes.get(label) for label in classes]
        cells = [percent(of.sensitivity) if of else UNKNOWN for of in known]
        cells += [_false_positives(of) if of else UNKNOWN for of in known]
        cells += [decimal(of.auroc) if of else UNKNOWN for of in known]
        rows.append(Row(model, what, cells))
    return Table(title, headings, rows)


def _false_positives(of: ClassNumbers) -> str:
    """566 of 624 (91%), or the share alone."""
    if of.false_positives and of.false_positives[1]:
        wrongly, others = of.false_positives
        return f"{part_of(of.false_positives)} ({wrongly / others:.0%})"
    return UNKNOWN if of.specificity.value is None else f"{1 - of.specificity.value:.0%}"


def decisions(sets: Sets) -> Table:
    """What the whole engine answers, which abstains and rejects."""
    headings = ["images", "abstained or rejected", "decided", "accuracy of decisions"]
    rows = [
        Row(
            model,
            what,
            [
                count(own.n),
                ", ".join(f"{why} {share:.0%}" for why, share in own.decisions.withheld.items()) or "none",
                count(own.decisions.decided),
                percent(own.decisions.accuracy),
            ],
        )
        for model, what, own in sets
        if own.decisions
    ]
    return Table("Decisions of the engine", headings, rows)


def calibration(reports: Sequence[Report]) -> Table:
    """Errors of the probabilities before and after temperature scaling, and abstention."""
    headings = ["temperature", "expected calibration error", "Brier score", "cross entropy"]
    headings += ["abstains below", "coverage", "selective risk"]
    rows = []
    for report in reports:
        own_sets = [*subsets([report], "validation", "test"), *external_sets([report], "external: ")]
        for model, what, own in own_sets:
            if not (report.fitted and own.before and own.after and own.abstention):
                continue
            before, after, answers = own.before, own.after, own.abstention
            rows.append(
                Row(
                    model,
                    what,
                    [
                        decimal(Rate(report.fitted.temperature), digits=2),
                        *_changes(before, after),
                        percent(Rate(answers.abstain_below)),
                        percent(answers.coverage),
                        percent(answers.risk),
                    ],
                )
            )
    return Table("Calibration, before → after temperature scaling, and abstention", headings, rows)


def _changes(before: Errors, after: Errors) -> list[str]:
    return [
        change(before.ece, after.ece),
        change(before.brier, after.brier),
        change(before.cross_entropy, after.cross_entropy),
    ]


def operating_points(reports: Sequence[Report]) -> Table:
    """One class against the rest at thresholds set on validation."""
    headings = ["specificity", "sensitivity", "sensitivity read off the test ROC"]
    rows = [
        Row(
            report.name,
            f"{point.label}, threshold for specificity {percent(Rate(point.validation_specificity), 0)}",
            [percent(point.specificity), percent(point.sensitivity), percent(point.sensitivity_on_own_roc)],
        )
        for report in reports
        if report.test
        for point in report.test.operating_points
    ]
    return Table("Operating points, set on validation, on the internal test set", headings, rows)


def ood(reports: Sequence[Report]) -> Table:
    """What is rejected as no frontal chest X-ray."""
    headings = ["rejected", "share", "by the detector alone"]
    rows = []
    for report in reports:
        if not report.ood:
            continue
        of_classes = {f"internal test set, {label}": own for label, own in report.ood.classes.items()}
        named = {"internal test set": report.ood.test, **of_classes, **report.ood.kinds}
        rows += [Row(report.name, what, _rejected(own)) for what, own in named.items()]
    return Table("Images rejected as out of distribution", headings, rows)


def _rejected(own: Rejected) -> list[str]:
    return [part_of(own.counts), percent(own.share), percent(own.by_detector)]


def source_detection(reports: Sequence[Report]) -> Table:
    """How well CoronaHack's two collections are told apart within one class."""
    headings = ["images", "patients", "AUROC by thumbnail", "by histogram", "by embedding", "called COVID-19"]
    rows = [
        Row(
            report.name,
            "",
            [
                count(own.images),
                count(own.patients),
                *(decimal(rate) for rate in own.auroc.values()),
                _by_split(own.called),
            ],
        )
        for report in reports
        if (own := report.source_detection)
    ]
    title = "Source detection within Pneumonia: web collection against children's hospital"
    trained = [line for report in reports for line in sentences.web_images(report)]
    return Table(title, headings, rows, " ".join([sentences.SOURCE_DETECTION, *trained]))


def _by_split(called: Mapping[str, tuple[int, int]]) -> str:
    """10 of 11 in train, 1 of 2 in test."""
    return ", ".join(f"{part_of(own)} in {split}" for split, own in called.items() if own[1]) or UNKNOWN


def cam(reports: Sequence[Report]) -> Table:
    """Where the class activation maps' mass lies."""
    rows = []
    for report in reports:
        named = {f"called {label}": own for label, own in report.cam.items()}
        if named and report.cam_uniform:
            named["uniform map"] = report.cam_uniform
        for what, own in named.items():
            images = "" if own.n is None else count(own.n)
            rows.append(Row(report.name, what, [images, percent(own.lungs), percent(own.border)]))
    title = "Mass of the class activation maps"
    return Table(title, ["images", "around the lungs", "outer frame"], rows, sentences.CAM)


def subgroups(reports: Sequence[Report]) -> Table:
    """Sensitivity in parts of the test set."""
    rows = [
        Row(report.name, f"{own.what} {own.group}: {own.label}", [count(own.n), percent(own.sensitivity)])
        for report in reports
        for own in report.subgroups
    ]
    return Table("Subgroups of the internal test set", ["images", "sensitivity"], rows)


def label_errors(reports: Sequence[Report]) -> Table:
    """Labels of the test set that the network contradicts, and the accuracy without them."""
    headings = ["likely errors", "label → looks like", "accuracy, all images", "accuracy without them"]
    rows = []
    for report in reports:
        if own := report.label_errors:
            kinds = ", ".join(f"{n} {label} → {other}" for (label, other), n in own.kinds.items())
            cells = [
                count(sum(own.kinds.values())),
                kinds or "none",
                percent(own.accuracy),
                percent(own.without),
            ]
            rows.append(Row(report.name, "", cells))
    return Table("Likely label errors in the internal test set", headings, rows, sentences.LABEL_ERRORS)


def least_self_confidence(report: Report, at_most: int = 5) -> Table:
    """The files whose labels the network contradicts most."""
    least = report.label_errors.least[:at_most] if report.label_errors else ()
    rows = [Row(file, "", [label, other, f"{share:.1%}"]) for file, label, other, share in least]
    return Table("Lowest self-confidence", ["label", "looks like", "probability of that"], rows)


def by_source(reports: Sequence[Report]) -> Sets:
    """The internal test set, source by source."""
    return [(report.name, name, own) for report in reports for name, own in report.by_source.items()]


def within_source(reports: Sequence[Report]) -> Table:
    """Pooled AUROC beside that of pairs from the same source."""
    headings = ["pooled AUROC", "within-source AUROC", "sources", "pairs"]
    rows = []
    for report in reports:
        for label, own in report.within_source.items():
            pooled = decimal(report.test.classes[label].auroc) if report.test else UNKNOWN
            cells = [pooled, decimal(own.auroc), count(own.sources), count(own.pairs)]
            rows.append(Row(report.name, label, cells))
    return Table("Within-source AUROC on the internal test set", headings, rows, sentences.WITHIN_SOURCE)


def leave_one_source_out(reports: Sequence[Report]) -> Table:
    """Each source that a model was not trained on, beside that model's internal test set."""
    headings = ["images", "internal balanced accuracy", "held-out balanced accuracy", "difference in points"]
    rows = []
    for report in reports:
        for name in report.held_out:
            if (own := report.external.get(name)) and report.test:
                inside, outside = report.test.balanced_accuracy, own.balanced_accuracy
                difference = (
                    Rate(outside.value - inside.value)
                    if outside.value is not None and inside.value is not None
                    else Rate()
                )
                cells = [count(own.n), percent(inside), percent(outside), points(difference)]
                rows.append(Row(report.name, f"held out: {name}", cells))
    return Table("Leave one source out", headings, rows)


def training(reports: Sequence[Report]) -> Table:
    """How the models were trained."""
    headings = ["protocol", "initial weights", "epochs", "seed", "device", "minutes"]
    rows = [
        Row(
            report.name,
            "",
            [
                own.protocol or UNKNOWN,
                own.initial_weights or UNKNOWN,
                count(len(own.history)),
                count(own.seed),
                own.device or UNKNOWN,
                UNKNOWN if own.seconds is None else f"{own.seconds / 60:.0f}",
            ],
        )
        for report in reports
        if (own := report.training)
    ]
    return Table("Training procedure", headings, rows)
