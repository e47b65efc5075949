"""A bundle's files -> one typed report, which page, card, docs and terminal show.

Reading is tolerant: a number that is missing or of another type is None, a section that was never made is
None or empty, and both the page and the terminal show what is there. `Report.gaps` names each number that
its section should have; a model card, which states them all, is not rendered from a report with gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.report.numbers import Rate

SUBSETS = ("train", "validation", "test", "test_official")
CORONAHACK = "coronahack"  # the only source of bundles that name none
T = TypeVar("T")


@dataclass(frozen=True)
class ClassNumbers:
    """One class against the rest. images, patients: of this class."""

    images: int | None
    patients: int | None
    false_positives: tuple[int, int] | None  # of the other classes' images: how many, of how many
    sensitivity: Rate
    specificity: Rate
    precision: Rate
    f1: Rate
    auroc: Rate


@dataclass(frozen=True)
class Errors:
    """Errors of the probabilities."""

    ece: float | None
    brier: float | None
    cross_entropy: float | None


@dataclass(frozen=True)
class Abstention:
    """Coverage and selective risk at the bundle's threshold."""

    coverage: Rate
    risk: Rate


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold set on validation, and what it gives on other images."""

    label: str | None
    validation_specificity: float | None
    specificity: Rate
    sensitivity: Rate
    sensitivity_on_own_roc: Rate


@dataclass(frozen=True)
class Decisions:
    """The decisions of the whole engine. withheld: {decision that is not a class: share of the images}.

    by_class: {class: {answer: share of the class's images}}; images without a class as answer count, too.
    """

    withheld: Mapping[str, float]
    decided: int | None
    accuracy_of_decided: Rate
    by_class: Mapping[str, Mapping[str, Rate]]


@dataclass(frozen=True)
class Measured:
    """The numbers of one set of images. matrix: (C, C) counts, rows true. before, after: temperature.

    predicted_by_class: {class: {most probable class: share of the class's images}}, of external test sets.
    """

    matrix: Sequence[Sequence[int]]
    classes: Mapping[str, ClassNumbers]
    predicted_by_class: Mapping[str, Mapping[str, Rate]]
    before: Errors | None
    after: Errors | None
    abstention: Abstention | None
    operating_points: Sequence[OperatingPoint]
    decisions: Decisions | None
    n: int
    patients: int | None
    accuracy: Rate
    balanced_accuracy: Rate
    macro_f1: Rate
    macro_auroc: Rate

    @property
    def has_every_class(self) -> bool:
        """Whether every class has images; if not, the balanced accuracy cannot be compared with others."""
        return all(of.images for of in self.classes.values())

    @property
    def has_decisions(self) -> bool:
        """Whether `answered_by_class` is after abstention and rejection."""
        return bool(self.decisions and self.decisions.by_class)

    @property
    def answered_by_class(self) -> Mapping[str, Mapping[str, Rate]]:
        """{class: {answer: share of its images}}, after abstention and rejection where these are known."""
        return (self.decisions and self.decisions.by_class) or self.predicted_by_class or self._shares()

    def _shares(self) -> dict[str, dict[str, Rate]]:
        """The same by the confusion matrix, without intervals."""
        rows = zip(self.classes, self.matrix, strict=True) if self.matrix else ()
        return {
            label: {answer: Rate(n / sum(row)) for answer, n in zip(self.classes, row, strict=True)}
            for label, row in rows
            if sum(row)
        }

    def decided_wrongly_as(self, label: str) -> int | None:
        """How many images of the other classes the engine calls `label`; None if it was not asked."""
        if not self.decisions or not self.decisions.by_class:
            return None
        wrong = {
            other: shares[label].value for other, shares in self.decisions.by_class.items() if other != label
        }
        return round(sum((share or 0) * (self.classes[other].images or 0) for other, share in wrong.items()))


@dataclass(frozen=True)
class Subgroup:
    """Images of one class in a part of the test set."""

    what: str
    group: str
    label: str
    n: int | None
    sensitivity: Rate


@dataclass(frozen=True)
class Duplicates:
    """Pictures that occur in the test set more than once, and the accuracies with and without them."""

    all_rows: Rate
    one_of_each: Rate
    repeated_pictures: int | None


@dataclass(frozen=True)
class CamShare:
    """Where the class activation maps' mass lies: shares around the lungs and in the outer frame.

    in_lungs: in the lungs themselves; only of a network that looks for them.
    """

    n: int | None
    lungs: Rate
    border: Rate
    in_lungs: Rate


@dataclass(frozen=True)
class SourceDetection:
    """How well two sites can be recognised within a class that both have.

    auroc: by thumbnail, histogram, embedding. mistaken_for: the class of most other images of the smaller
    site. called: {split: how many of the smaller site's are predicted as it, of how many}. images, patients:
    of the smaller site.
    """

    label: str
    smaller: str
    larger: str
    mistaken_for: str
    auroc: Mapping[str, Rate]
    called: Mapping[str, tuple[int, int]]
    images: int | None
    patients: int | None


@dataclass(frozen=True)
class LabelErrors:
    """Likely label errors of the test set. kinds: {(label, class it looks like): images}."""

    kinds: Mapping[tuple[str, str], int]
    accuracy: Rate
    without: Rate
    least: Sequence[tuple[str, str, str, float]]  # file, label, looks like, with this probability


@dataclass(frozen=True)
class WithinSource:
    """AUROC over pairs of images of the same source."""

    sources: int | None
    auroc: Rate
    pairs: int | None


@dataclass(frozen=True)
class Fitted:
    """The fitted part of a calibration. images: the validation images that it was fitted on."""

    images: int | None
    temperature: float | None
    abstain_below: float | None
    target_risk: float | None
    risk_kept_in: Sequence[str]  # the sources, where there are several


@dataclass(frozen=True)
class Rejected:
    """The share of one kind of images that is rejected as out of distribution."""

    n: int | None
    rejected: Rate
    rejected_by_detector: float | None

    @property
    def counts(self) -> tuple[int, int] | None:
        share = self.rejected.value
        return (round(share * self.n), self.n) if self.n and share is not None else None


@dataclass(frozen=True)
class OodDetection:
    """Rejections in the test set, where each one is wrong, and of each kind of OOD image."""

    test: Rejected
    classes: Mapping[str, Rejected]
    sources: Mapping[str, Rejected]  # where there are several
    kinds: Mapping[str, Rejected]


@dataclass(frozen=True)
class Training:
    """How the network was trained."""

    protocol: str | None
    seed: int | None
    history: Sequence[Mapping[str, Any]]
    initial_weights: str | None
    device: str | None
    seconds: float | None


@dataclass(frozen=True)
class Source:
    """A collection as it was named in training: KIND[:NAME]. images: those used of it."""

    kind: str
    name: str
    images: int | None
    is_synthetic: bool


@dataclass(frozen=True)
class Report:
    """A bundle as it is reported. name: the model's. gaps: numbers that are missing, each with its place."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    mark: str
    is_synthetic: bool
    sources: tuple[Source, ...]  # that it was trained on
    subsets: Mapping[str, Measured]
    external: Mapping[str, Measured]
    held_out: tuple[str, ...]  # the external sets that are sources held out of this training
    by_source: Mapping[str, Measured]  # the internal test set
    validation_by_source: Mapping[str, Measured]
    worst_source: str | None
    within_source: Mapping[str, WithinSource]
    controls: Mapping[str, Measured]
    subgroups: Sequence[Subgroup]
    not_recorded: str  # which subgroups cannot be formed, and why
    duplicates: Duplicates | None
    cam: Mapping[str, CamShare]  # by predicted class, and for a uniform map
    source_detection: SourceDetection | None
    label_errors: LabelErrors | None
    fitted: Fitted | None
    ood: OodDetection | None
    training: Training | None
    gaps: Sequence[str]

    @property
    def test(self) -> Measured | None:
        """The internal test set."""
        return self.subsets.get("test")

    @property
    def names_one_class(self) -> bool:
        """Whether all images of the internal test set are of one class, or all predicted as one."""
        matrix = self.test.matrix if self.test else []
        return 1 in (sum(map(any, matrix)), sum(map(any, zip(*matrix, strict=True))))

    @property
    def sees_lungs(self) -> bool:
        """Whether the network crops to the lungs, so that the share of its maps inside them is known."""
        return any(own.in_lungs.value is not None for own in self.cam.values())

    @property
    def has_real_images(self) -> bool:
        """Whether any source is of real patients; the numbers are marked where another is synthetic."""
        return not self.is_synthetic or not all(each.is_synthetic for each in self.sources)

    @property
    def chance(self) -> Rate:
        """Balanced accuracy of random answers, or of always the same one."""
        return Rate(1 / len(self.classes)) if self.classes else Rate()

    @classmethod
    def read(cls, folder: Path, name: str = "") -> Report:
        """Read a bundle's files; one that is missing or damaged leaves its part of the report empty."""
        gaps: list[str] = []
        files = (manifest.METRICS, manifest.TRAINING, manifest.CONFIG, manifest.CALIBRATION)
        metrics, training, config, calibration = (_Part.file(folder / file, gaps) for file in files)
        classes = _classes(metrics, config)
        within = {label: part for label in classes if (part := metrics.get("within_source").get(label))}
        worst, duplicates, label_noise = map(metrics.get, ("worst_source", "duplicates", "label_noise"))
        for _, own in metrics.get(manifest.EXTERNAL).parts():
            for key in ("decisions", "predicted_by_class"):
                if key not in own.of:  # null: the decisions were made with another calibration
                    own.miss(key)
        sources = _sources(training)
        return cls(
            name=name or manifest.title(folder, str(training.of.get("model") or folder.name), sources),
            folder=folder,
            classes=classes,
            mark=manifest.mark_of(dict(training.of)),
            is_synthetic=training.of.get("is_synthetic") is True,
            sources=sources,
            subsets=_sets(metrics, classes, SUBSETS),
            external=_sets(metrics.get(manifest.EXTERNAL), classes),
            held_out=manifest.held_out_of(training.of),
            by_source=_sets(metrics.get("by_source"), classes),
            validation_by_source=_sets(metrics.get("validation_by_source"), classes),
            worst_source=worst.text("source") if worst else None,
            within_source={label: part.fill(WithinSource) for label, part in within.items()},
            controls=_sets(metrics.get(manifest.CONTROLS), classes),
            subgroups=tuple(_subgroups(metrics.get("subgroups"))),
            not_recorded=str(metrics.get("subgroups").of.get("left_out", "")),
            duplicates=_duplicates(duplicates) if duplicates else None,
            cam=_cam(metrics.get("heatmap")),
            source_detection=_source_detection(metrics.get("source")),
            label_errors=_label_errors(label_noise, duplicates, classes) if label_noise else None,
            fitted=_fitted(calibration) if "temperature" in calibration.of else None,
            ood=_ood(calibration.get("ood_report"), metrics, classes),
            training=_training(training) if "history" in training.of else None,
            gaps=gaps,
        )


class _Part:
    """A JSON object, its place in the files, and the keys missed in it; falsy if there is no such object."""

    def __init__(self, value: Any, place: str, gaps: list[str]) -> None:
        self.is_there = isinstance(value, Mapping)
        self.of: Mapping[str, Any] = value if self.is_there else {}
        self.place, self.gaps = place, gaps

    @classmethod
    def file(cls, path: Path, gaps: list[str]) -> _Part:
        """The object in a bundle's file; empty if the file is missing or damaged."""
        is_calibration = path.name == manifest.CALIBRATION  # read with the current names
        try:
            read = manifest.read_calibration(path.parent) if is_calibration else manifest.read_json(path)
        except BundleError:
            read = {}
        return cls(read, f"{path}: ", gaps)

    def __bool__(self) -> bool:
        return self.is_there

    def part(self, key: str) -> _Part:
        """A section that must be there."""
        if not (found := self.get(key)):
            self.miss(key)
        return found

    def get(self, key: str) -> _Part:
        """A section that may be missing, and is empty then."""
        return _Part(self.of.get(key), f"{self.place}.{key}", self.gaps)

    def parts(self) -> Iterator[tuple[str, _Part]]:
        """Every section below."""
        return ((key, part) for key in self.of if (part := self.get(key)))

    def number(self, key: str) -> float | None:
        if not _is_number(value := self.of.get(key)):
            self.miss(key)
            return None
        return float(value)

    def count(self, key: str) -> int | None:
        found = self.number(key)
        return None if found is None else int(found)

    def text(self, key: str) -> str | None:
        if not isinstance(self.of.get(key), str):
            self.miss(key)
            return None
        return str(self.of[key])

    def rate(self, key: str) -> Rate:
        """A number, or null, with its interval: the one of the same name, or the only one."""
        if key in self.of and self.of[key] is None:
            return Rate()
        bounds = self.get("intervals").of.get(key) or self.of.get("interval")
        is_interval = isinstance(bounds, Sequence) and len(bounds) == 2 and all(map(_is_number, bounds))
        return Rate(self.number(key), (bounds[0], bounds[1]) if bounds and is_interval else None)

    def fill(self, kind: type[T], **known: Any) -> T:
        """Fill a dataclass with the values under its fields' names; `known` gives the other fields."""
        read = {
            "Rate": self.rate,
            "int": lambda key: self.count(key) or 0,
            "int | None": self.count,
            "float | None": self.number,
            "str": lambda key: self.text(key) or "",
            "str | None": self.text,
        }
        rest = (each for each in fields(kind) if each.name not in known)  # type: ignore[arg-type]
        return kind(**known, **{each.name: read[str(each.type)](each.name) for each in rest})

    def miss(self, key: str) -> None:
        self.gaps.append(f"{self.place}.{key}")


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _classes(metrics: _Part, config: _Part) -> tuple[str, ...]:
    """The class names in the order of the logits; if neither file lists them, those of the numbers."""
    for names in (metrics.of.get("classes"), config.of.get("label_names")):
        if isinstance(names, Sequence) and not isinstance(names, str):
            return tuple(map(str, names))
    if by_number := config.get("id2label").of:
        return tuple(str(by_number.get(str(key))) for key in range(len(by_number)))
    return tuple(metrics.get("test").get("per_class").of)


def _sources(training: _Part) -> tuple[Source, ...]:
    """The sources of a training; older bundles name none and were trained on CoronaHack."""
    named, is_synthetic = training.of.get("sources"), training.of.get("is_synthetic")
    if not isinstance(named, list):
        report = training.get("report")
        images = report.count("rows") if report else None
        return (Source(CORONAHACK, CORONAHACK, images, is_synthetic is True),)
    parts = [_Part(each, f"{training.place}.sources[{k}]", training.gaps) for k, each in enumerate(named)]
    # Older bundles state is_synthetic only for the whole run.
    found = [
        part.fill(Source, is_synthetic=part.of.get("is_synthetic", is_synthetic) is True) for part in parts
    ]
    held_out = manifest.held_out_of(training.of)
    return tuple(source for source in found if source.name not in held_out)


def _sets(where: _Part, classes: Sequence[str], names: Sequence[str] = ()) -> dict[str, Measured]:
    """The sets of images of a section that hold numbers, of these names if any are given."""
    found = {part: _measured(own, classes) for part, own in where.parts() if part in (names or where.of)}
    return {name: own for name, own in found.items() if own}


def measured(numbers: Mapping[str, Any], classes: Sequence[str]) -> Measured | None:
    """One set's numbers as metrics.json has them; None for what has no accuracy."""
    return _measured(_Part(numbers, "", []), classes)


def _measured(own: _Part, classes: Sequence[str]) -> Measured | None:
    matrix = _matrix(own, "confusion_matrix", len(classes))
    errors, answers, decided = (own.get(key) for key in ("calibration", "abstention", "decisions"))
    points = own.of.get("operating_points")
    found = own.fill(
        Measured,
        matrix=matrix,
        classes={label: _class(own, label, k, matrix) for k, label in enumerate(classes)},
        before=errors.part("before").fill(Errors) if errors else None,
        after=errors.part("after").fill(Errors) if errors else None,
        abstention=answers.fill(Abstention) if answers else None,
        operating_points=[
            _Part(point, f"{own.place}.operating_points[{k}]", own.gaps).fill(OperatingPoint)
            for k, point in enumerate(points if isinstance(points, list) else [])
        ],
        decisions=_decisions(decided, classes) if decided else None,
        predicted_by_class=_by_class(own.get("predicted_by_class"), classes),
    )
    return found if found.n and found.accuracy.value is not None else None


def _matrix(own: _Part, key: str, size: int) -> list[list[int]]:
    """(size, size) counts; empty, and a gap, for anything else."""
    rows = own.of.get(key)
    is_square = (
        isinstance(rows, list) and [isinstance(row, list) and len(row) for row in rows] == [size] * size
    )
    if not is_square or not all(_is_number(cell) for row in rows or () for cell in row):
        own.miss(key)
        return []
    return [[int(cell) for cell in row] for row in rows or ()]


def _class(own: _Part, label: str, index: int, matrix: Sequence[Sequence[int]]) -> ClassNumbers:
    numbers = own.part("per_class").part(label)
    intervals = own.get("intervals").get("per_class").of.get(label)
    patients = own.get("patients_per_class").of.get(label)
    images = sum(matrix[index]) if matrix else None
    wrongly = sum(row[index] for row in matrix) - matrix[index][index] if matrix else 0
    return _Part({**numbers.of, "intervals": intervals}, numbers.place, own.gaps).fill(
        ClassNumbers,
        images=images,
        patients=int(patients) if _is_number(patients) else None,
        false_positives=None if images is None else (wrongly, sum(map(sum, matrix)) - images),
    )


def _decisions(own: _Part, classes: Sequence[str]) -> Decisions:
    withheld = own.part("not_decided")
    return own.fill(
        Decisions,
        withheld={why: withheld.number(why) or 0.0 for why in withheld.of},
        by_class=_by_class(own.part("by_class"), classes),
    )


def _by_class(own: _Part, classes: Sequence[str]) -> dict[str, dict[str, Rate]]:
    return {label: {name: part.rate(name) for name in classes} for label, part in own.parts()}


def _subgroups(own: _Part) -> Iterator[Subgroup]:
    for what, groups in own.parts():
        for group, part in groups.parts():
            for label, numbers in part.part("classes").parts():
                yield numbers.fill(Subgroup, what=what.replace("_", " "), group=group, label=label)


def _duplicates(own: _Part) -> Duplicates:
    accuracies = {key: own.part(key).rate("accuracy") for key in ("all_rows", "one_of_each")}
    return own.fill(Duplicates, **accuracies)


def _cam(own: _Part) -> dict[str, CamShare]:
    if not own:
        return {}
    classes = {label: part for label, part in own.part("per_class").parts() if part.of.get("n")}

    def shares(part: _Part, **known: Any) -> CamShare:
        in_lungs = part.rate("in_lungs") if "in_lungs" in part.of else Rate()
        return part.fill(CamShare, in_lungs=in_lungs, **known)

    found = {f"predicted {label}": shares(part) for label, part in classes.items()}
    return {**found, "uniform map": shares(own.part("uniform"), n=None)}


def _source_detection(own: _Part) -> SourceDetection | None:
    if not own:
        return None
    areas, called, sites = own.part("auroc"), own.part("web_called_covid"), own.get("sites").of
    found = {name: areas.get(name) for name in ("thumbnail", "histogram", "embedding")}
    counts = {split: called.part(split) for split in ("train", "validation", "test")}
    return own.part("web").fill(
        SourceDetection,
        # Older bundles name neither class nor sites.
        label=str(own.of.get("class", "Pneumonia")),
        smaller=str(sites.get("web", "Cohen")),
        larger=str(sites.get("children", "Kermany")),
        mistaken_for=str(own.of.get("called", "COVID-19")),
        auroc={name: part.rate("value") if part else Rate() for name, part in found.items()},
        called={
            split: (part.count("called") or 0, part.count("images") or 0) for split, part in counts.items()
        },
    )


def _label_errors(own: _Part, duplicates: _Part, classes: Sequence[str]) -> LabelErrors:
    joint = _matrix(own, "joint", len(classes))
    kinds = {
        (classes[k], classes[m]): n for k, row in enumerate(joint) for m, n in enumerate(row) if k != m and n
    }
    whole = duplicates.part("all_rows").rate("accuracy") if duplicates else Rate()
    without = own.part("without_doubted").rate("accuracy")
    return LabelErrors(kinds, whole, without, list(_least(own.of.get("worst"))))


def _least(rows: Any) -> Iterator[tuple[str, str, str, float]]:
    """The complete rows among the images with the lowest self-confidence."""
    for row in rows if isinstance(rows, list) else ():
        try:
            probability = float(row["probabilities"][row["predicted"]])
            yield str(row["file_name"]), str(row["label"]), str(row["predicted"]), probability
        except (LookupError, TypeError, ValueError):
            continue


def _fitted(own: _Part) -> Fitted:
    rows = own.get("fitted_on")
    sources = rows.of.get("risk_kept_in")
    return own.fill(
        Fitted,
        images=rows.count("n") if rows else None,
        risk_kept_in=sources if isinstance(sources, list) else [],
    )


def _ood(own: _Part, metrics: _Part, classes: Sequence[str]) -> OodDetection | None:
    if not own:
        return None
    of_classes = own.part("test_by_class")
    counts = metrics.get("test").get("class_counts").of
    kinds = own.part("kinds").parts()
    return OodDetection(
        own.part("test").fill(Rejected),
        {label: of_classes.part(label).fill(Rejected) for label in classes if counts.get(label)},
        {name: part.fill(Rejected) for name, part in own.get("test_by_source").parts()},
        {kind.replace("_", " "): part.fill(Rejected) for kind, part in kinds},
    )


def _training(own: _Part) -> Training:
    config, history = own.part("config"), own.of["history"]
    return own.fill(
        Training,
        protocol=config.part("data").text("protocol"),
        seed=config.part("run").count("seed"),
        history=history if isinstance(history, list) else [],
    )
