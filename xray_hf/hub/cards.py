"""Cards for the Hub: templates of model_cards/, filled with what a bundle's files say and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from safetensors import SafetensorError, safe_open

from xray_hf import manifest, snippets
from xray_hf.errors import BundleError, first_line
from xray_hf.project import project_file
from xray_hf.report import markdown, sections, sentences
from xray_hf.report.numbers import Rate, percent
from xray_hf.report.report import Measured, Report
from xray_hf.report.tables import SUBSETS
from xray_hf.text import counted, listed
from xray_hf.training.config import AugmentationConfig

_LONGEST = 1000  # characters of a file's description of itself
_METRICS = {  # of a report: the Hub's name, ours
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "macro_auroc": ("roc_auc", "Macro AUROC"),
}
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # stored with the weights, not learnt


def render(
    bundle: Path, repo_id: str | None = None, *, data_set: str | None = None, with_names: bool = True
) -> str:
    """The model card of a bundle, with metadata, as Markdown.

    repo_id: where it will be loaded from, by default where it lies. data_set: the Hub id of the data set, if
    it is there. with_names: whether splits and predictions, which name files and patients, are there too.
    Raises BundleError if the bundle lacks a file or a number that the card states, naming it.
    """
    try:
        return _render(bundle, repo_id, data_set, with_names)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise BundleError(
            f"{bundle} holds a value that its card cannot state ({first_line(error)}); make it again with "
            "`xray-hf evaluate`, `report` or `calibrate`, or train it again."
        ) from error


def _render(bundle: Path, repo_id: str | None, data_set: str | None, with_names: bool) -> str:
    description = manifest.read(bundle)
    training = _read(bundle, manifest.TRAINING)
    splits = _read(bundle, manifest.SPLITS)
    title = manifest.title(repo_id or bundle, description.name, description.sources)
    report = Report.read(bundle, title)
    if report.gaps:
        raise BundleError(_MISSING.format(report.gaps[0]))
    if not report.test:
        raise BundleError(_MISSING.format(f"{bundle / manifest.METRICS}: .test"))
    if not report.test.accuracy.interval:
        raise BundleError(_MISSING.format(f"{bundle / manifest.METRICS}: .test.intervals"))
    return fill(
        "xray_cnn.md" if description.name == manifest.XRAY_CNN else "timm.md",
        bundle,
        metadata=_metadata(description, training, report, data_set).to_yaml().strip(),
        name=description.name,
        title=title,
        labels=description.labels,
        side=description.side,
        sees_lungs=description.sees_lungs,
        inside=round(description.side / manifest.ZOOM),
        is_synthetic=description.is_synthetic,
        has_real_images=report.has_real_images,
        is_coronahack=sentences.of_coronahack_alone(report),
        about_data=[markdown.paragraph(line) for line in sentences.about_data([report])],
        sources=sentences.sources(report),
        citations=[each.citation for each in sentences.collections([report]).values()],
        limits=sentences.limits([report]),
        with_names=with_names,
        mark=report.mark,
        snippets=snippets.of_model(description, repo_id),
        version=_version(bundle),
        has_reference=(bundle / manifest.REFERENCE).is_file(),
        config=_read(bundle, manifest.CONFIG),
        training=training,
        start=_start(training),
        optimization=training["config"]["optimization"],
        augmentation=training["config"]["augmentation"],
        splits=splits,
        rarest=sentences.rarest_class(report, splits["splits"]["train"]),
        headline=[markdown.quotation(line) for line in sentences.headline(report)],
        intervals=markdown.paragraph(sentences.INTERVALS),
        evaluation=_evaluation(report),
        parameters=_parameters(bundle),
        megabytes=round((bundle / manifest.WEIGHTS).stat().st_size / 1e6, 1),
    )


def _start(training: Numbers) -> str:
    """The initial weights, as a sentence."""
    if record := training.get("loaded_weights"):  # of runs with --initial-weights
        stated = [f"{name}: {text}" for name, text in record["metadata"].items()]
        by_file = f" The file describes itself as: {'; '.join(stated)}." if stated else ""
        return _plain(f"{record['summary']} (SHA-256 `{record['sha256']}`).{by_file}")
    start = training["initial_weights"]
    return "random weights." if start == "random" else f"{start}."


def _plain(text: str) -> str:
    """An untrusted text in one line, without HTML or links, cut off at _LONGEST."""
    return " ".join(text.translate(str.maketrans("<>[]", "()()")).split())[:_LONGEST]


def _evaluation(report: Report) -> str:
    """All that was measured, and the commands for the rest; how it was trained stands above."""
    return "\n\n".join(
        markdown.section(each, 3, lambda figure: f"{manifest.FIGURES}/{figure.stem}.png")
        for each in sections.all_sections([report])
        if each.made_by != "train.py"
    )


def fill(template: str, folder: Path, **values: Any) -> str:
    """One of model_cards/, filled in for `folder`; raises BundleError for a missing value."""
    loader = FileSystemLoader(project_file("model_cards"))
    environment = Environment(  # of Markdown, so nothing is escaped
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= _FILTERS
    try:
        return environment.get_template(template).render(values).strip() + "\n"
    except TemplateError as error:
        raise BundleError(f"{folder}: the card {template} cannot be filled: {error}.") from error


_MISSING = (
    "{} is missing or not a number, but the card states it; complete the bundle with `xray-hf evaluate`, "
    "`report` or `calibrate`, or train it again."
)


class Numbers(dict[str, Any]):
    """A JSON object that names what it lacks. place: where it stands, "training.json: .config"."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(values)
        self._place = place
        for name, value in values.items():
            if isinstance(value, dict):
                self[name] = Numbers(value, f"{place}.{name}")

    def __missing__(self, name: str) -> Any:
        raise BundleError(_MISSING.format(f"{self._place}.{name}"))


def _read(bundle: Path, name: str) -> Numbers:
    return Numbers(manifest.read_json(bundle / name), f"{bundle / name}: ")


def _metadata(
    description: manifest.Manifest, training: Numbers, report: Report, data_set: str | None
) -> ModelCardData:
    is_synthetic, is_cnn = description.is_synthetic, description.name == manifest.XRAY_CNN
    start = training["initial_weights"]
    own_terms = report.has_real_images and not sentences.of_coronahack_alone(report)
    return ModelCardData(
        license="other" if own_terms else "cc-by-nc-4.0",
        license_name="terms-of-the-training-images" if own_terms else None,
        # transformers and timm load a cropped network, but cannot crop: its answers come from the graph.
        library_name="onnx" if description.sees_lungs else "transformers" if is_cnn else "timm",
        pipeline_tag="image-classification",
        tags=[
            *("chest-x-ray", "radiology", "medical-imaging", "onnx", "xray_hf"),
            *(["custom_code"] if is_cnn else [] if description.sees_lungs else ["transformers"]),
            *(["synthetic"] if is_synthetic else []),
        ],
        datasets=[data_set] if data_set else None,
        base_model=None if start == "random" or training.get("loaded_weights") else start,
        metrics=[name for name, _ in _METRICS.values()],
        model_name=f"{report.mark}{report.name}",
        eval_results=list(_results(training, report, data_set)),
    )


def _results(training: Numbers, report: Report, data_set: str | None) -> Iterator[EvalResult]:
    """All tests as the Hub's model-index has them; numbers without an interval are left out."""
    title_of, known_as = _home(report)
    home, protocol = data_set or known_as, training["config"]["data"]["protocol"]
    # The Hub's client takes results of one place, configuration and split for one test.
    tests: list[tuple[str, str, str | None, str, Measured]] = [
        (f"{title_of}, {SUBSETS[subset]}", home, protocol, subset, report.subsets[subset])
        for subset in ("test", "test_official")
        if subset in report.subsets
    ]
    for where, own in report.external.items():
        tests.append((f"external validation: {where}", _as_id(where), None, "test", own))
    for title, kind, configuration, split, own in tests:
        for key, (metric, name) in _METRICS.items():
            value, interval = getattr(own, key)
            if value is None or interval is None:
                continue
            low, high = interval
            yield EvalResult(
                task_type="image-classification",
                dataset_type=kind,
                dataset_name=title,
                dataset_config=configuration,
                dataset_split=split,
                metric_type=metric,
                metric_name=f"{name} (95 % interval {low:.3f} to {high:.3f})",
                metric_value=round(value, 4),
            )


def _home(report: Report) -> tuple[str, str]:
    """The sources of a model: their names, and an id of the kind that the Hub takes."""
    if not report.has_real_images:
        return "Synthetic patients", "synthetic"
    known = sentences.collections([report])
    names = ["synthetic" if each.is_synthetic else each.name or "unnamed" for each in report.sources]
    if len(known) == len(names) == 1:
        ((kind, label),) = known.items()
        return label.title, label.url.partition("/datasets/")[2] or kind
    return listed(names), _as_id("-".join(names))


def _as_id(name: str) -> str:
    """A name with only those characters that the Hub accepts."""
    return re.sub(r"[^\w.-]+", "-", name)


def _parameters(bundle: Path) -> int:
    """The number of learnt parameters."""
    try:
        with safe_open(bundle / manifest.WEIGHTS, framework="numpy") as weights:
            names = [name for name in weights.keys() if not name.endswith(_STATISTICS)]  # noqa: SIM118
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{bundle / manifest.WEIGHTS} cannot be read: {error}. Train or fetch it again."
        ) from error


def _version(bundle: Path) -> str:
    if not (bundle / manifest.GRAPH).is_file():
        raise BundleError(
            f"{bundle / manifest.GRAPH} is missing, and the card states its version; "
            f"run `xray-hf export {bundle}`."
        )
    return manifest.version(bundle)


def _changes(augmentation: Mapping[str, float]) -> str:
    """The augmentations that are switched on, with their strengths as in config.py."""
    nothing = vars(AugmentationConfig())
    changed = {name: value for name, value in augmentation.items() if value != nothing.get(name, 0)}
    named = [name if value is True else f"{name} {value}" for name, value in changed.items()]
    return ", ".join(named) or "nothing"


_FILTERS = {
    "changes": _changes,
    "count": lambda value: f"{value:,}",
    "counted": counted,
    "counts": lambda split, labels: " | ".join(f"{split[label]:,}" for label in labels),
    "listed": listed,
    "percent": lambda value: percent(Rate(value)),
}
