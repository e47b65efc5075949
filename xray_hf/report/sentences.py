"""Reports -> every sentence about them, in the Markdown that all renderers know: **bold** and `code`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from xray_hf.data.sources import About
from xray_hf.report import provenance
from xray_hf.report.numbers import Rate, count, decimal, part_of, percent
from xray_hf.report.provenance import Shortcut
from xray_hf.report.report import CORONAHACK, Measured, Report, SourceDetection
from xray_hf.task import REJECTED, UNSURE
from xray_hf.text import counted, listed

INTERVALS = (
    "Brackets hold 95 % intervals over patients: Wilson intervals for shares, MOVER for balanced accuracy, "
    "which combines the intervals of the classes, and the bootstrap for everything else."
)
SUMMARY = (
    "Balanced accuracy is the mean of the classes' sensitivities. Internal: held-out images of the training "
    "sources. External: other collections. Before → after: the most probable class, then the engine's "
    "decision, on the same images. Coverage: the share of images that get a class. "
    "Brackets and lines: 95 % intervals over patients."
)
EXTERNAL = (
    "Images from collections that were not used for training. An AUROC below 0.5 is worse than a random "
    "ranking."
)
ANSWERS = (
    "Each row covers all images of one class. The network gives every image a most probable class; the "
    "decision is the engine's answer, which may be to abstain or to reject the image."
)
INTERNAL = (
    "Test images of the training sources. Neither they nor, where patients are known, other images of the "
    "same patients took part in training or calibration. Sensitivity: "
    "the share of a class's images that are predicted as this class. Specificity: the share of all other "
    "images that are not predicted as the class. False positives: other images that are. Precision: of the "
    "images predicted as the class, the share that belong to it. Every image counts here with "
    "the class that the network gives it, even where the engine would abstain or reject. Note how many "
    "patients are behind each number."
)
WITHIN_SOURCE = (
    "A pooled AUROC also rewards a model for recognising the hospital. The within-source AUROC compares only "
    "pairs of images from the same source."
)
CALIBRATION = (
    "Temperature, abstention threshold and operating points were tuned on validation only. Expected "
    "calibration error: mean distance between confidence and accuracy. Brier score: squared error summed "
    "over the classes, 0 is best and 2 worst. Coverage: the share of images whose highest probability "
    "reaches the threshold. Selective risk: the share of these that is wrong. Where an operating point "
    "misses its specificity, the threshold does not transfer."
)
OOD = (
    "A detector and simple rules reject OOD images. On the internal test set, "
    "every rejection of a frontal view is wrong. Only these kinds of OOD images were tried."
)
CONTROLS = (
    "The internal test set without most of what a diagnosis needs. Where a class's sensitivity clearly "
    "exceeds its false positive rate, something in what is left helps the network. That need not be a "
    "shortcut: a blur leaves large consolidations, and a rectangle leaves the outer parts of the lungs. "
    "AUROC accounts for both rates. A network that never "
    "saw a black rectangle in training may simply be confused by it."
)
SOURCE_DETECTION = (
    "The classifier is a logistic regression, evaluated out of fold with patients kept "
    "together. A network may have memorised its training images, and a handful of patients gives a wide "
    "interval."
)
CAM = "Class activation maps show where the network found evidence for a class, not where a disease is."
LABEL_ERRORS = (
    "An image looks like a class if its probability reaches the class's average self-confidence (Northcutt "
    "et al. 2021, equation 1). If that class is not its label, the label is a likely error. The network "
    "itself may be wrong, and leaving out the images that it contradicts makes it look better, so the last "
    "column is not an upper limit. Wrong labels that the network agrees with stay in. `xray-hf report "
    "--sheets DIR` draws the images with the lowest self-confidence for a radiologist to check."
)
LIMITS = (
    "At other hospitals, with other machines or in other age groups, a model may perform much worse.",
    "Calibration and thresholds hold for data like the validation set. A model can be confident and wrong.",
    "Class activation maps show where the network found evidence, not where a disease is.",
    "The models were not compared with physicians and not tested in clinical use.",
)


def collections(reports: Iterable[Report]) -> dict[str, About]:
    """{kind: what is known} of the published collections whose real images trained a model."""
    kinds = dict.fromkeys(each.kind for report in reports for each in report.sources if not each.is_synthetic)
    return {kind: label for kind in kinds if (label := provenance.about(kind))}


def of_coronahack_alone(report: Report) -> bool:
    """Whether CoronaHack is the only kind of source of a model, so that sentences about it hold."""
    return {each.kind for each in report.sources} == {CORONAHACK}


def shortcut(report: Report) -> Shortcut | None:
    """Why class and source are confounded in a model's data, as far as it is known; None if it is not."""
    names = [each.name for each in report.sources]
    if len(names) > 1:
        return provenance.of_sources(names)
    return next((provenance.SHORTCUTS.get(kind) for kind in collections([report])), None)


def about_data(reports: Sequence[Report]) -> list[str]:
    """Known shortcuts in the data, those of several sources first, and what the numbers cannot say."""
    models = defaultdict(list)
    for each in reports:
        if len(each.sources) > 1:
            models[tuple(source.name for source in each.sources)].append(each.name)
    mixtures = [
        f"{listed(own)} learnt from {listed(names)}. {provenance.of_sources(names).full}"
        for names, own in models.items()
    ]
    known = [own.full for kind in collections(reports) if (own := provenance.SHORTCUTS.get(kind))]
    return [*mixtures, *known, "No number here says how good a model is for patients."]


def limits(reports: Sequence[Report]) -> list[str]:
    """All known limits."""
    known = collections(reports).values()
    is_only_one = len({source.kind for report in reports for source in report.sources}) == 1
    errors = [
        error if is_only_one else f"{each.title}: {error}" for each in known for error in each.known_errors
    ]
    closed = [
        f"{len(names)} classes only: any other finding is called {listed(names, 'or')}, "
        "unless the engine abstains or rejects the image."
        for names in dict.fromkeys(report.classes for report in reports if report.classes)
    ]
    normal = ["“Normal” means similar to the normal training images, not healthy."]
    return [*errors, *closed, *(normal if any("Normal" in each.classes for each in reports) else ()), *LIMITS]


def sources(report: Report) -> list[str]:
    """One line for each source that a model was trained on: its images, what they are, their terms."""
    lines = []
    for each in report.sources:
        label = provenance.about(each.kind)
        images = f", {counted(each.images, 'image')}" if each.images else ""
        if each.is_synthetic:
            lines.append(f"Synthetic patients, drawn from a statistical atlas{images}.")
        elif label:
            lines.append(f"[{label.title}]({label.url}){images}: {label.origin} Licence: {label.licence}")
        else:
            own = provenance.folder(each.name, [source.name for source in report.sources])
            lines.append(f"`{each.name}`, a source of kind `{each.kind}`{images}: {own}")
    return lines


def synthetic(reports: Sequence[Report]) -> list[str]:
    """The models that were trained on synthetic patients, or partly on them."""
    lines = []
    for partly, is_partly in (("", False), ("partly ", True)):
        found = [each for each in reports if each.is_synthetic and each.has_real_images == is_partly]
        if names := ", ".join(each.name for each in found):
            lines.append(
                f"{names}: trained and tested {partly}on synthetic patients, drawn from a statistical atlas. "
                "The numbers show that the software works, nothing more."
            )
    return lines


def headline(report: Report) -> list[str]:
    """External against internal performance; one paragraph for each external test set."""
    found = [_headline(report, name, own) for name, own in report.external.items()]
    if found or not report.test:
        return found
    return [
        f"**{report.name} was tested on no external test set.** Its balanced accuracy on the internal test "
        f"set is {percent(report.test.balanced_accuracy)}, where chance is {percent(report.chance)}; that "
        "says little about X-rays of other hospitals."
    ]


def _headline(report: Report, name: str, own: Measured) -> str:
    of = f"External validation of {report.name} on {name} ({counted(own.n, 'image')})"
    missing = [label for label, numbers in own.classes.items() if not numbers.images]
    if missing:
        present = {label: numbers for label, numbers in own.classes.items() if numbers.images}
        found = listed(f"{percent(numbers.sensitivity)} for {label}" for label, numbers in present.items())
        parts = [f"**{of}: sensitivity {found}**; the set has no {listed(missing, 'or')}."]
    else:
        parts = [
            f"**{of}: balanced accuracy {percent(own.balanced_accuracy)}**, where chance is "
            f"{percent(report.chance)}; accuracy {percent(own.accuracy)}."
        ]
    if report.test and not missing:
        parts.append(
            f"On the internal test set the balanced accuracy is {percent(report.test.balanced_accuracy)} and "
            f"the accuracy {percent(report.test.accuracy)}; the external numbers are the better guide."
        )
    return " ".join([*parts, *_false_positives(own), *_decided(own)])


def _false_positives(own: Measured) -> list[str]:
    """The false positives of each class, before and after abstention."""
    said = []
    for label, of in own.classes.items():
        if of.false_positives and of.false_positives[1]:
            after = own.decided_wrongly_as(label)
            decided = "" if after is None else f", {after:,} after abstention and rejection"
            said.append(f"{label} {part_of(of.false_positives)}{decided}")
    return [f"False positives: {'; '.join(said)}."] if said else []


def _decided(own: Measured) -> list[str]:
    """The engine's decisions on a set of images."""
    if not (answers := own.decisions):
        return []
    right = f"; {percent(answers.accuracy_of_decided)} of these classes are right" if answers.decided else ""
    withheld = ", ".join(f"{share:.1%} `{why}`" for why, share in answers.withheld.items())
    return [
        f"The engine, which also abstains and rejects, gives a class to {count(answers.decided)} of "
        f"{count(own.n)}{right}{f' ({withheld})' if withheld else ''}."
    ]


_WITHHELD = {UNSURE: "was unsure about", REJECTED: "rejected"}


def answer_context(report: Report, decision: str) -> list[str]:
    """How often a model gave an answer to images of each class: in external validation, then internally.

    decision: the engine's: a class, UNSURE or REJECTED.
    """
    if not report.external:
        return [
            f"{report.name} was tested on no external test set, so it is unknown how reliable this answer is "
            "for X-rays of other hospitals."
        ]
    if decision in report.classes:
        found = [_called(_set(name), decision, own) for name, own in report.external.items()]
        return [*found, *([_called("Internal test set", decision, report.test)] if report.test else [])]
    return [
        f"It {_WITHHELD.get(decision, decision)} {own.decisions.withheld.get(decision, 0):.1%} of "
        f"{own.n:,} X-rays from {_set(name)}."
        for name, own in report.external.items()
        if own.decisions
    ]


def _called(what: str, decision: str, own: Measured) -> str:
    """openist (adults), after abstention: COVID-19 for 0.7% (0.0–1.8) of 275 Normal X-rays."""
    shares = listed(
        f"{percent(shares[decision])} of {own.classes[label].images or 0:,} {label}"
        for label, shares in own.answered_by_class.items()
        if decision in shares
    )
    when = "after" if own.has_decisions else "before"
    return f"{what}, {when} abstention: {decision} for {shares} X-rays."


def _set(name: str) -> str:
    """openist (adults)"""
    known = provenance.EXTERNAL_SETS.get(name)
    return f"{name} ({known.brief})" if known else name


AGREEMENT = "Their training data overlap, so they can share an error: agreement confirms little."


def external_sets(reports: Sequence[Report]) -> list[str]:
    """The content of each external test set."""
    sets = {name: own for report in reports for name, own in report.external.items()}
    lines = []
    for name, own in sets.items():
        parts = listed(f"{of.images:,} {label}" for label, of in own.classes.items() if of.images)
        patients = f" of {counted(own.patients, 'patient')}" if own.patients else ""
        known = provenance.EXTERNAL_SETS.get(name)
        lines.append(f"`{name}`: {parts}{patients}. {known.about if known else ''}".strip())
    return lines


def official(reports: Sequence[Report]) -> list[str]:
    """The official test set: its origin and size."""
    sets = [own for report in reports if (own := report.subsets.get("test_official"))]
    if not sets:
        return []
    sizes = sorted({own.n for own in sets})
    without = sorted({label for own in sets for label, of in own.classes.items() if not of.images})
    lacks = f". It has no {listed(without, 'or')}" if without else ""
    return [
        f"Official test set: the {listed(map(count, sizes))} images of the collection's own "
        f"test split, which the literature reports{lacks}."
    ]


def lateral_views(report: Report) -> list[str]:
    """The lateral views known to be in the test set; rejecting these is right."""
    lateral = [own for own in report.subgroups if (own.what, own.group) == ("view position", "L") and own.n]
    if report.is_synthetic or not lateral:
        return []
    views = listed(f"{own.n} {own.label}" for own in lateral)
    return [
        f"Lateral views in the internal test set of {report.name}: {views}. "
        "Rejecting these is right, but counts as wrong in the table."
    ]


def worst_source(report: Report) -> list[str]:
    """The source on which a model is worst."""
    if not (own := report.by_source.get(report.worst_source or "")):
        return []
    beside = f"; over all sources it is {percent(report.test.balanced_accuracy)}" if report.test else ""
    beside += f", where chance is {percent(report.chance)}"
    return [
        f"Worst source of {report.name}: {report.worst_source}, with a balanced accuracy of "
        f"{percent(own.balanced_accuracy)}{beside}.",
        *_fewer_classes(report),
    ]


def _fewer_classes(report: Report) -> list[str]:
    """The sources that lack a class; their balanced accuracies cannot be compared with others."""
    lines = []
    for name, own in report.by_source.items():
        there = [label for label, of in own.classes.items() if of.images]
        if len(there) < len(report.classes):
            lines.append(
                f"{name} has images of {listed(there)} only: its balanced accuracy is the mean over "
                f"{'this class' if len(there) == 1 else 'these classes'}."
            )
    return lines


def fitted(report: Report) -> list[str]:
    """Temperature and threshold, and what they were fitted on."""
    if not report.fitted:
        return []
    own = report.fitted
    several = f", also within {listed(own.risk_kept_in)}" if own.risk_kept_in else ""
    small = [name for name in report.validation_by_source if name not in own.risk_kept_in]
    rows = f", fitted on {counted(own.images, 'validation image')}" if own.images else ""
    return [
        f"{report.name}: temperature {decimal(Rate(own.temperature))}{rows}. It answers `unsure` below a "
        f"probability of {decimal(Rate(own.abstain_below))}, the lowest threshold that keeps selective risk "
        f"on validation at or below {percent(Rate(own.target_risk))}{several}.",
        *(
            [f"Too few validation images to check this risk in {listed(small)}."]
            if own.risk_kept_in and small
            else ()
        ),
    ]


def worst_calibrated_sources(report: Report) -> list[str]:
    """The sources with the highest expected calibration error, where there are several."""
    lines = []
    for split, sets in (("validation", report.validation_by_source), ("test", report.by_source)):
        errors = {name: own.after.ece or 0 for name, own in sets.items() if own.after}
        if errors:
            worst = max(errors, key=errors.__getitem__)
            lines.append(f"{worst} on {split} ({errors[worst]:.3f}, {counted(sets[worst].n, 'image')})")
    if not lines:
        return []
    return [f"Highest expected calibration error of {report.name} in a source: {listed(lines)}."]


def uncalibrated(report: Report) -> list[str]:
    """The consequence for a bundle that is not calibrated, and the reason if it cannot be."""
    if report.fitted:
        return []
    copied = report.training and report.training.protocol == "paper"
    why = (
        " Its validation images are copies of training images, so they cannot be used for calibration."
        if copied
        else ""
    )
    return [
        f"{report.name} is not calibrated: its probabilities are a plain softmax, and it never abstains.{why}"
    ]


def two_sites(own: SourceDetection) -> str:
    """The class and the two sites, for a title."""
    sites = own.smaller, own.larger
    smaller, larger, *_ = provenance.SITES.get(sites, sites)
    return f"{own.label}: {smaller} against {larger}"


def why_two_sites(own: SourceDetection) -> str:
    """The meaning of sites that can be recognised."""
    if known := provenance.SITES.get((own.smaller, own.larger)):
        return known[2].format(label=own.label)
    return (
        f"{own.label} has images of {own.smaller} and of {own.larger}. If these can be separated, something "
        "that differs between the sites is visible; it need not be the machine or the processing."
    )


def web_images(model: str, own: SourceDetection) -> str:
    """How many images of the smaller site the network was trained on."""
    _, trained = own.called["train"]
    patients = counted(own.patients or 0, "patient")
    return f"{model} was trained on {trained:,} of these {counted(own.images or 0, 'image')} of {patients}."


def crops_after_views(report: Report) -> list[str]:
    """The limit of ablated inputs for a network that crops to the lungs."""
    if not report.sees_lungs:
        return []
    return [
        f"{report.name} looks for the lungs in the ablated input. Where they are hidden, it classifies the "
        "whole image, which it never saw in training. So its rows neither show a shortcut nor rule one out."
    ]


def no_label_errors(report: Report) -> list[str]:
    """Why no label errors can be found for a model that predicts one class only."""
    if not report.names_one_class:
        return []
    return [
        f"Label errors cannot be found for {report.name}: all images of its internal test set are of one "
        "class, or all are predicted as one."
    ]


def not_recorded(reports: Sequence[Report]) -> list[str]:
    """The subgroups that cannot be formed."""
    reasons = dict.fromkeys(each.not_recorded for each in reports if each.not_recorded)
    return [f"Not read from any source: {reason}. So fairness is unknown." for reason in reasons]


def duplicates(report: Report) -> list[str]:
    """The accuracy with and without repeated pictures."""
    own = report.duplicates
    if not own:
        return []
    return [
        f"{counted(own.repeated_pictures or 0, 'picture')} of the test set occur more than once. The "
        f"accuracy of {report.name} is {percent(own.all_rows)}; counting each picture once, "
        f"{percent(own.one_of_each)}."
    ]


def rarest_class(report: Report, trained: Mapping[str, int]) -> str:
    """How few images there are of the class with the fewest. trained: {class: images in training}."""
    label = min(report.classes, key=lambda each: trained[each])
    test = report.subsets["test"].classes[label]
    patients = f" of {counted(test.patients, 'patient')}" if test.patients else ""
    return (
        f"{label}, the rarest class, has {counted(trained[label], 'training image')} and "
        f"{counted(test.images or 0, 'test image')}{patients}."
    )


def without_intervals(reports: Sequence[Report]) -> list[str]:
    """The bundles whose numbers have no intervals."""
    names = [each.name for each in reports if each.test and not each.test.accuracy.interval]
    return [f"The numbers of {', '.join(names)} have no intervals."] if names else []
