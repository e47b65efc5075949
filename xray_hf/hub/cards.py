"""Cards for the Hub: templates of model_cards/, filled with what a bundle's files say and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from safetensors import SafetensorError, safe_open

from xray_hf import manifest, snippets
from xray_hf.data.sources.coronahack import KAGGLE_SLUG
from xray_hf.errors import BundleError, ConfigError, first_line
from xray_hf.evaluation import words
from xray_hf.task import SYNTHETIC_MARK

TEMPLATES = Path(__file__).resolve().parents[2] / "model_cards"
TITLES = {"test": "three-class test", "test_official": "official test"}  # of metrics.json's subsets
_METRICS = {  # of metrics.json: the Hub's name, ours
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
    it is there. with_names: whether the records lie there, too, which name files and patients.
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
    measured = _read(bundle, manifest.METRICS)
    training = _read(bundle, manifest.TRAINING)
    calibration = Numbers(manifest.read_calibration(bundle), f"{bundle / manifest.CALIBRATION}: ")
    is_cnn = description.name == manifest.XRAY_CNN
    return fill(
        "xray_cnn.md" if is_cnn else "xray_resnet18.md",
        bundle,
        metadata=_metadata(description, measured, training, data_set).to_yaml().strip(),
        name=description.name,
        labels=description.labels,
        side=description.side,
        is_synthetic=description.is_synthetic,
        with_names=with_names,
        mark=SYNTHETIC_MARK if description.is_synthetic else "",
        snippets=snippets.of_model(description, repo_id),
        version=manifest.version(bundle),
        config=_read(bundle, manifest.CONFIG),
        training=training,
        optimization=training["config"]["optimization"],
        augmentation=training["config"]["augmentation"],
        splits=_read(bundle, manifest.SPLITS),
        metrics=measured,
        test=measured["test"],
        external=measured.get(manifest.EXTERNAL, {}),
        controls=measured.get(manifest.CONTROLS, {}),
        calibration=calibration if "temperature" in calibration else {},
        ood=calibration.get("ood_report", {}),
        lateral=words.lateral_views(measured, description.labels[-1]),
        parameters=_parameters(bundle),
        megabytes={name: _megabytes(bundle / name) for name in (manifest.WEIGHTS, manifest.GRAPH)},
    )


def fill(template: str, folder: Path, **values: Any) -> str:
    """One of model_cards/, filled, with the figures of `folder`; raises BundleError for a missing value."""
    if not TEMPLATES.is_dir():
        raise ConfigError(f"{TEMPLATES} is missing; cards are rendered in a checkout of the project.")
    environment = Environment(  # of Markdown, so nothing is escaped
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = folder / manifest.FIGURES
    environment.filters |= {
        "figure": lambda name, alt: (
            f"![{alt}]({manifest.FIGURES}/{name})" if (figures / name).exists() else ""
        ),
        **_FILTERS,
    }
    try:
        return environment.get_template(template).render(values).strip() + "\n"
    except TemplateError as error:
        raise BundleError(f"{folder}: the card {template} cannot be filled: {error}.") from error


class Numbers(dict[str, Any]):
    """A JSON object that names what it lacks. place: where it stands, "metrics.json: test"."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__({name: _named(value, f"{place}.{name}") for name, value in values.items()})
        self._place = place

    def __missing__(self, name: str) -> Any:
        raise BundleError(
            f"{self._place}.{name} is missing, which the card states; complete the bundle with `xray-hf "
            "evaluate`, `report` or `calibrate`, or train it again."
        )


def _named(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return Numbers(value, place)
    if isinstance(value, list):
        return [_named(item, f"{place}[{number}]") for number, item in enumerate(value)]
    return value


def _read(bundle: Path, name: str) -> Numbers:
    return Numbers(manifest.read_json(bundle / name), f"{bundle / name}: ")


def _metadata(
    description: manifest.Manifest, measured: Numbers, training: Numbers, data_set: str | None
) -> ModelCardData:
    is_synthetic, is_cnn = description.is_synthetic, description.name == manifest.XRAY_CNN
    start = training["initial_weights"]
    return ModelCardData(
        license="cc-by-nc-4.0",
        library_name="transformers" if is_cnn else "timm",
        pipeline_tag="image-classification",
        tags=[
            *("chest-x-ray", "radiology", "medical-imaging", "onnx", "xray_hf"),
            *(["transformers"] if not is_cnn else ["custom_code"]),
            *(["synthetic"] if is_synthetic else []),
        ],
        datasets=[data_set] if data_set else None,
        base_model=None if start == "random" else start,
        metrics=[name for name, _ in _METRICS.values()],
        model_name=f"{SYNTHETIC_MARK if is_synthetic else ''}{description.name}",
        eval_results=list(_results(measured, training, data_set)),
    )


def _results(measured: Numbers, training: Numbers, data_set: str | None) -> Iterator[EvalResult]:
    """All tests as the Hub's model-index has them; a number without an interval has no place there."""
    synthetic, protocol = training["is_synthetic"], training["config"]["data"]["protocol"]
    of, known_as = ("Synthetic patients", "synthetic") if synthetic else ("CoronaHack", KAGGLE_SLUG)
    home = data_set or known_as
    # The Hub's client takes results of one place, configuration and split for one test.
    tests: list[tuple[str, str, str | None, str, Numbers]] = [
        (f"{of}, {title}", home, protocol, subset, measured[subset]) for subset, title in TITLES.items()
    ]
    for where, numbers in measured.get(manifest.EXTERNAL, {}).items():
        place = re.sub(r"[^\w.-]+", "-", where)  # the Hub takes no other characters
        tests.append((f"another collection: {where}", place, None, "test", numbers))
    for title, kind, configuration, split, numbers in tests:
        for key, (metric, name) in _METRICS.items():
            if numbers[key] is None or numbers["intervals"][key] is None:
                continue
            low, high = numbers["intervals"][key]
            yield EvalResult(
                task_type="image-classification",
                dataset_type=kind,
                dataset_name=title,
                dataset_config=configuration,
                dataset_split=split,
                metric_type=metric,
                metric_name=f"{name} (95 % interval {low:.3f} to {high:.3f})",
                metric_value=round(numbers[key], 4),
            )


def _parameters(bundle: Path) -> int:
    """How many numbers were learnt."""
    try:
        with safe_open(bundle / manifest.WEIGHTS, framework="numpy") as weights:
            names = [name for name in weights.keys() if not name.endswith(_STATISTICS)]  # noqa: SIM118
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{bundle / manifest.WEIGHTS} cannot be read: {error}. Train or fetch it again."
        ) from error


def _megabytes(path: Path) -> float:
    if not path.is_file():
        raise BundleError(
            f"{path} is missing, whose size the card states; run `xray-hf export {path.parent}`."
        )
    return round(path.stat().st_size / 1e6, 1)


def _found_of(numbers: Numbers, labels: Sequence[str]) -> str:
    """The cells of a table with the sensitivity of every class."""
    return " | ".join(_of_class(numbers, label, "sensitivity") for label in labels)


def _of_class(numbers: Numbers, label: str, key: str) -> str:
    value, interval = numbers["per_class"][label][key], numbers["intervals"]["per_class"][label][key]
    return (words.number if key == "auroc" else words.percent)(value, interval)


def _rejected(found: Mapping[str, Any]) -> str:
    """3, or 21.4% (4.7-50.8): the images that a share of them is."""
    return (
        f"{round(found['rejected'] * found['n'])}, or {words.percent(found['rejected'], found['interval'])}"
    )


def _changes(augmentation: Mapping[str, float]) -> str:
    """What is switched on, with its strength as config.py means it."""
    neutral = {"scale_low": 1.0, "scale_high": 1.0, "gamma": 1.0}
    changed = {name: value for name, value in augmentation.items() if value != neutral.get(name, 0)}
    return (
        ", ".join(f"{name} {value}" if value is not True else name for name, value in changed.items())
        or "nothing"
    )


_FILTERS = {
    "area": lambda numbers, key: words.number(numbers[key], numbers["intervals"][key]),
    "by_split": words.by_split,
    "changes": _changes,
    "count": lambda value: f"{value:,}",
    "counts": lambda split, labels: " | ".join(f"{split[label]:,}" for label in labels),
    "false_alarms": words.others_called,
    "found_of": _found_of,
    "listed": words.listed,
    "number": lambda value: words.number(value, None),
    "of_class": _of_class,
    "percent": lambda value: words.percent(value, None),
    "rate": words.rate,
    "rejected": _rejected,
    "valued": lambda found: words.number(found["value"], found["interval"]) if found else "-",
}
