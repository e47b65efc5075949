"""Reports -> every table, ready for the page, Markdown and the terminal. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from xray_hf.report import sentences
from xray_hf.report.numbers import UNKNOWN, Rate, change, count, decimal, part_of, percent, points
from xray_hf.report.report import (
    Abstention,
    CamShare,
    ClassNumbers,
    Errors,
    Fitted,
    Measured,
    OperatingPoint,
    Report,
)

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


SUBGROUPS = {  # (criterion, group): in words
    ("near duplicate", "near"): "with a near-duplicate",
    ("near duplicate", "far"): "without a near-duplicate",
}


class Row(NamedTuple):
    """what: the thing measured; "" where the title says it."""

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
        """Without empty rows and columns."""
        rows = [row for row in self.rows if any(cell not in (UNKNOWN, "") for cell in row.cells)]
        kept = [k for k in range(len(self.headings)) if any(row.cells[k] != UNKNOWN for row in rows)]
        return replace(
            self,
            headings=[self.headings[k] for k in kept],
            rows=[row._replace(cells=[row.cells[k] for k in kept]) for row in rows],
        )

    def named_rows(self) -> list[list[str]]:
        """The cells of each row behind its name: the model, where there are several, and what is measured."""
        several = len(self.models) > 1
        names = [", ".join(filter(None, row[:2])) if several else row.what or row.model for row in self.rows]
        return [[name, *row.cells] for name, row in zip(names, self.rows, strict=True)]

    def by_what(self) -> dict[str, list[Row]]:
        """The rows of all models together for each thing measured."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.what, []).append(row)
        return groups


T = TypeVar("T")
Items = Iterable[tuple[str, str, T]]  # model, what is measured, its numbers
Sets = Sequence[tuple[str, str, Measured]]


def _table(title: str, columns: Mapping[str, Callable[[T], str]], items: Items[T], note: str = "") -> Table:
    """columns: {heading: a function that writes its cell of an item}."""
    rows = [Row(model, what, [cell(own) for cell in columns.values()]) for model, what, own in items]
    return Table(title, list(columns), rows, note)


def classes_of(reports: Iterable[Report]) -> list[str]:
    """The classes of all models, each once."""
    return list(dict.fromkeys(label for report in reports for label in report.classes))


def subsets(reports: Sequence[Report], *names: str) -> Sets:
    """The bundle's own splits of these names; without names, all of them."""
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
    """The title of an ablated input: what is left of the image."""
    return CONTROLS.get(name) or name.replace("_", " ")


def performance(title: str, sets: Sets) -> Table:
    """All classes together."""
    return _table(
        title,
        {
            "images": lambda own: count(own.n),
            "patients": lambda own: count(own.patients),
            "accuracy": lambda own: percent(own.accuracy),
            f"balanced accuracy{chance(own for *_, own in sets)}": lambda own: percent(own.balanced_accuracy),
            "macro F1": lambda own: percent(own.macro_f1),
            "macro AUROC": lambda own: decimal(own.macro_auroc),
        },
        sets,
    )


def chance(sets: Iterable[Measured]) -> str:
    """` (chance 33.3%)`, or `` for models of different numbers of classes."""
    sizes = {len(own.classes) for own in sets}
    return f" (chance {1 / sizes.pop():.1%})" if len(sizes) == 1 else ""


def per_class(title: str, sets: Sets) -> Table:
    """Each class against the rest, one row a class."""
    items = [
        (model, f"{what}, {label}" if what else label, of)
        for model, what, own in sets
        for label, of in own.classes.items()
    ]
    return _table(
        title,
        {
            "images": lambda of: count(of.images),
            "patients": lambda of: count(of.patients),
            "sensitivity": lambda of: percent(of.sensitivity),
            "specificity": lambda of: percent(of.specificity),
            "false positives": lambda of: part_of(of.false_positives),
            "precision": lambda of: percent(of.precision),
            "F1": lambda of: decimal(of.f1),
            "AUROC": lambda of: decimal(of.auroc),
        },
        items,
    )


def class_columns(title: str, sets: Sets, classes: Sequence[str]) -> Table:
    """For each class sensitivity, beside false positives and AUROC: one row a set."""
    whats: dict[str, Callable[[ClassNumbers], str]] = {
        "sensitivity": lambda of: percent(of.sensitivity),
        "false positives": _false_positives,
        "AUROC": lambda of: decimal(of.auroc),
    }
    headings = [f"{what}: {label}" for what in whats for label in classes]
    rows = []
    for model, what, own in sets:
        known = [own.classes.get(label) for label in classes]
        rows.append(
            Row(model, what, [cell(of) if of else UNKNOWN for cell in whats.values() for of in known])
        )
    return Table(title, headings, rows)


def _false_positives(of: ClassNumbers) -> str:
    """566 of 624 (91%), or only the share, since docs/results.json has no more of the runs."""
    if of.false_positives and of.false_positives[1]:
        wrongly, others = of.false_positives
        return f"{part_of(of.false_positives)} ({wrongly / others:.0%})"
    return UNKNOWN if of.specificity.value is None else f"{1 - of.specificity.value:.0%}"


def answers(sets: Sets, classes: Sequence[str]) -> Table:
    """The answers to the images of each class, before and after abstention: one row a set and class."""
    items = [
        (model, f"{what}, {label}", (own, label))
        for model, what, own in sets
        for label in own.predicted_by_class
    ]

    def called(answer: str) -> Callable[[tuple[Measured, str]], str]:
        def cell(item: tuple[Measured, str]) -> str:
            own, label = item
            before = percent(own.predicted_by_class[label].get(answer, Rate()))
            if not own.decisions:
                return before
            return f"{before} → {percent(own.decisions.by_class.get(label, {}).get(answer, Rate()))}"

        return cell

    return _table(
        "Answers by class, most probable class → decision",
        {
            "images": lambda item: count(item[0].classes[item[1]].images),
            **{f"called {answer}": called(answer) for answer in classes},
            "no class": lambda item: _without_class(*item),
        },
        items,
        sentences.ANSWERS,
    )


def _without_class(own: Measured, label: str) -> str:
    shares = own.decisions.by_class.get(label) if own.decisions else None
    if not shares:
        return UNKNOWN
    return percent(Rate(max(0.0, 1 - sum(share.value or 0 for share in shares.values()))))


def decisions(sets: Sets) -> Table:
    """Decisions of the whole engine, which may abstain or reject."""
    items = [(model, what, (own.n, own.decisions)) for model, what, own in sets if own.decisions]
    return _table(
        "Decisions of the engine",
        {
            "images": lambda own: count(own[0]),
            "abstained or rejected": lambda own: (
                ", ".join(f"{why} {share:.1%}" for why, share in own[1].withheld.items()) or "none"
            ),
            "decided": lambda own: f"{count(own[1].decided)} of {count(own[0])}",
            "accuracy of decisions": lambda own: percent(own[1].accuracy_of_decided),
        },
        items,
    )


def calibration(reports: Sequence[Report]) -> Table:
    """Errors of the probabilities before and after temperature scaling, and abstention."""
    items = [
        (model, what, (report.fitted, own.before, own.after, own.abstention))
        for report in reports
        for model, what, own in (
            *subsets([report], "validation", "test"),
            *(
                (report.name, f"validation set, {name}", own)
                for name, own in report.validation_by_source.items()
            ),
            *((report.name, f"internal test set, {name}", own) for name, own in report.by_source.items()),
            *external_sets([report], "external: "),
        )
        if report.fitted and own.before and own.after and own.abstention
    ]

    def changed(key: str) -> Callable[[tuple[Fitted, Errors, Errors, Abstention]], str]:
        return lambda own: change(getattr(own[1], key), getattr(own[2], key))

    return _table(
        "Calibration, before → after temperature scaling, and abstention",
        {
            "temperature": lambda own: decimal(Rate(own[0].temperature), digits=2),
            "expected calibration error": changed("ece"),
            "Brier score": changed("brier"),
            "cross entropy": changed("cross_entropy"),
            "abstains below": lambda own: percent(Rate(own[0].abstain_below)),
            "coverage": lambda own: percent(own[3].coverage),
            "selective risk": lambda own: percent(own[3].risk),
        },
        items,
    )


def operating_points(reports: Sequence[Report]) -> Table:
    """One class against the rest at thresholds set on validation, and the worst source of each."""
    items = [
        (
            report.name,
            f"{own.label}, threshold for specificity {percent(Rate(own.validation_specificity), 0)}",
            (own, {name: points[k] for name, points in of_sources.items() if k < len(points)}),
        )
        for report in reports
        for of_sources in [{name: part.operating_points for name, part in report.by_source.items()}]
        for k, own in enumerate(report.test.operating_points if report.test else ())
    ]

    def lowest(key: str) -> Callable[[tuple[OperatingPoint, Mapping[str, OperatingPoint]]], str]:
        def cell(own: tuple[OperatingPoint, Mapping[str, OperatingPoint]]) -> str:
            rates: dict[str, Rate] = {name: getattr(point, key) for name, point in own[1].items()}
            known = {name: rate.value for name, rate in rates.items() if rate.value is not None}
            if not known:
                return UNKNOWN
            worst = min(known, key=known.__getitem__)
            return f"{worst} {percent(rates[worst])}"

        return cell

    return _table(
        "Operating points, set on validation, on the internal test set",
        {
            "specificity": lambda own: percent(own[0].specificity),
            "lowest specificity of a source": lowest("specificity"),
            "sensitivity": lambda own: percent(own[0].sensitivity),
            "lowest sensitivity of a source": lowest("sensitivity"),
            "sensitivity read off the test ROC": lambda own: percent(own[0].sensitivity_on_own_roc),
        },
        items,
    )


def ood(reports: Sequence[Report]) -> Table:
    """Images rejected as out of distribution, by class, source and kind."""
    items = [
        (report.name, what, own)
        for report in reports
        if report.ood
        for what, own in {
            "internal test set": report.ood.test,
            **{
                f"internal test set, {part}": own
                for part, own in (*report.ood.classes.items(), *report.ood.sources.items())
            },
            **report.ood.kinds,
        }.items()
    ]
    return _table(
        "Images rejected as out of distribution",
        {
            "rejected": lambda own: part_of(own.counts),
            "share": lambda own: percent(own.rejected),
            "by the detector": lambda own: percent(Rate(own.rejected_by_detector)),
        },
        items,
    )


def source_detection(reports: Sequence[Report]) -> Table:
    """How well two sites can be recognised within one class; where the questions differ, rows name them."""
    found = [(report, own) for report in reports if (own := report.source_detection) and own.images]
    asked = list(dict.fromkeys(sentences.two_sites(own) for _, own in found))
    why = list(dict.fromkeys(sentences.why_two_sites(own) for _, own in found))
    called = list(dict.fromkeys(own.mistaken_for for _, own in found))
    trained = [sentences.web_images(report.name, own) for report, own in found]
    return _table(
        f"Source detection within {asked[0] if len(asked) == 1 else 'one class'}",
        {
            "images": lambda own: count(own.images),
            "patients": lambda own: count(own.patients),
            "AUROC by thumbnail": lambda own: decimal(own.auroc["thumbnail"]),
            "by histogram": lambda own: decimal(own.auroc["histogram"]),
            "by embedding": lambda own: decimal(own.auroc["embedding"]),
            f"predicted {' or '.join(called)}": lambda own: (
                ", ".join(f"{part_of(found)} in {split}" for split, found in own.called.items() if found[1])
                or UNKNOWN
            ),
        },
        [(report.name, sentences.two_sites(own) if len(asked) > 1 else "", own) for report, own in found],
        " ".join([*why, sentences.SOURCE_DETECTION, *trained]),
    )


def cam(reports: Sequence[Report]) -> Table:
    """Where the class activation maps' mass lies."""
    items = [(report.name, what, own) for report in reports for what, own in report.cam.items()]
    columns: dict[str, Callable[[CamShare], str]] = {
        "images": lambda own: "" if own.n is None else count(own.n),
        "in the box around the lungs": lambda own: percent(own.lungs),
        "outer frame": lambda own: percent(own.border),
    }
    if any(own.in_lungs.value is not None for _, _, own in items):
        columns["in the lungs"] = lambda own: percent(own.in_lungs)
    return _table(
        "Where the evidence of the class activation maps lies",
        columns,
        items,
        sentences.CAM,
    )


def subgroups(reports: Sequence[Report]) -> Table:
    """Sensitivity in parts of the test set."""
    return _table(
        "Subgroups of the internal test set",
        {"images": lambda own: count(own.n), "sensitivity": lambda own: percent(own.sensitivity)},
        [
            (report.name, f"{SUBGROUPS.get(key) or ' '.join(key)}: {own.label}", own)
            for report in reports
            for own in report.subgroups
            for key in [(own.what, own.group)]
        ],
    )


def label_errors(reports: Sequence[Report]) -> Table:
    """Labels of the test set that the network contradicts, and the accuracy without them."""
    return _table(
        "Likely label errors in the internal test set",
        {
            "likely errors": lambda own: count(sum(own.kinds.values())),
            "label → looks like": lambda own: (
                ", ".join(f"{n} {label} → {other}" for (label, other), n in own.kinds.items()) or "none"
            ),
            "accuracy, all images": lambda own: percent(own.accuracy),
            "accuracy without them": lambda own: percent(own.without),
        },
        [(report.name, "", own) for report in reports if (own := report.label_errors)],
        sentences.LABEL_ERRORS,
    )


def least_self_confidence(report: Report, at_most: int = 5) -> Table:
    """The files whose labels the network contradicts most."""
    own = None if report.names_one_class else report.label_errors
    least = own.least[:at_most] if own else ()
    rows = [Row(file, "", [label, other, f"{share:.1%}"]) for file, label, other, share in least]
    return Table("Lowest self-confidence", ["label", "looks like", "probability of that"], rows)


def by_source(reports: Sequence[Report]) -> Sets:
    """The internal test set, source by source."""
    return [(report.name, name, own) for report in reports for name, own in report.by_source.items()]


def within_source(reports: Sequence[Report]) -> Table:
    """Pooled AUROC beside that of pairs from the same source."""
    items = [
        (report.name, label, (report.test.classes[label].auroc if report.test else Rate(), own))
        for report in reports
        for label, own in report.within_source.items()
    ]
    return _table(
        "Within-source AUROC on the internal test set",
        {
            "pooled AUROC": lambda own: decimal(own[0]),
            "within-source AUROC": lambda own: decimal(own[1].auroc),
            "sources": lambda own: count(own[1].sources),
            "pairs": lambda own: count(own[1].pairs),
        },
        items,
        sentences.WITHIN_SOURCE,
    )


def leave_one_source_out(reports: Sequence[Report]) -> Table:
    """Each source that a model was not trained on, beside that model's internal test set."""
    items = [
        (report.name, f"held out: {name}", (report.test, report.external[name]))
        for report in reports
        for name in report.held_out
        if report.test and name in report.external
    ]
    by_chance = chance(own for *_, (own, _) in items)
    return _table(
        "Leave one source out",
        {
            "images": lambda own: count(own[1].n),
            f"internal balanced accuracy{by_chance}": lambda own: percent(own[0].balanced_accuracy),
            "held-out balanced accuracy": lambda own: percent(_comparable(own[1])),
            "difference in points": lambda own: points(_difference(*own)),
            "held-out sensitivity": lambda own: _sensitivities(own[1]),
        },
        items,
    )


def _comparable(own: Measured) -> Rate:
    return own.balanced_accuracy if own.has_every_class else Rate()


def _difference(inside: Measured, outside: Measured) -> Rate:
    low, high = inside.balanced_accuracy.value, _comparable(outside).value
    return Rate() if low is None or high is None else Rate(high - low)


def _sensitivities(own: Measured) -> str:
    return ", ".join(f"{label} {percent(of.sensitivity)}" for label, of in own.classes.items() if of.images)


def training(reports: Sequence[Report]) -> Table:
    """How the models were trained."""
    return _table(
        "Training procedure",
        {
            "protocol": lambda own: own.protocol or UNKNOWN,
            "initial weights": lambda own: own.initial_weights or UNKNOWN,
            "epochs": lambda own: count(len(own.history)),
            "seed": lambda own: count(own.seed),
            "device": lambda own: own.device or UNKNOWN,
            "minutes": lambda own: UNKNOWN if own.seconds is None else f"{own.seconds / 60:.0f}",
        },
        [(report.name, "", own) for report in reports if (own := report.training)],
    )
