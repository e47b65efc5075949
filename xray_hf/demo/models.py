"""The models that the page serves, each with its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_hf import manifest
from xray_hf.errors import BundleError
from xray_hf.inference import Engine
from xray_hf.report.report import Report


@dataclass(frozen=True)
class Model:
    """A bundle that answers. version: a hash that changes with any of its answers."""

    engine: Engine
    report: Report
    version: str

    @classmethod
    def of(cls, engine: Engine, name: str) -> Model:
        """A loaded engine, with the report and the version of its bundle."""
        folder = engine.manifest.folder
        return cls(engine, Report.read(folder, name), manifest.version(folder))


Models = Mapping[str, Model]  # by name


def load(sources: Sequence[Path | str], backend: str) -> dict[str, Model]:
    """Load bundles from folders or the Hub.

    They are named by manifest.title; names that occur twice get their source in brackets. Those trained on
    the most sources come first.

    Raises BundleError for an incomplete bundle, and for models of different classes.
    """
    folders = {source: manifest.locate(source, views=True) for source in sources}
    loaded = [(source, Engine.from_pretrained(at, backend=backend)) for source, at in folders.items()]
    if len({engine.labels for _, engine in loaded}) > 1:
        said = "; ".join(f"{source}: {', '.join(engine.labels)}" for source, engine in loaded)
        raise BundleError(f"the models have different classes ({said}); serve them one by one.")
    loaded.sort(key=lambda each: len(each[1].manifest.sources), reverse=True)
    titles = [manifest.title(source, engine.name, engine.manifest.sources) for source, engine in loaded]
    times = Counter(titles)
    names = [
        f"{title} ({source})" if times[title] > 1 else title
        for title, (source, _) in zip(titles, loaded, strict=True)
    ]
    return {name: Model.of(engine, name) for name, (_, engine) in zip(names, loaded, strict=True)}


def labels(models: Models) -> tuple[str, ...]:
    """The classes, in the order of the logits; `load` requires all models to have the same."""
    return tuple(dict.fromkeys(label for model in models.values() for label in model.engine.labels))


def preferred(models: Models) -> list[str]:
    """The models that answer by default: those that were trained on the most sources."""
    most = max((len(model.engine.manifest.sources) for model in models.values()), default=0)
    return [name for name, model in models.items() if len(model.engine.manifest.sources) == most]


def choose(models: Models, names: Any = None) -> Models:
    """The models of these names; those preferred if `names` is not a list, or none of them is a model's.

    A program can send anything as a visitor's choice, and must not spoil the batch of others.
    """
    known = [name for name in models if isinstance(names, list | tuple) and name in names]
    return {name: models[name] for name in known or preferred(models)}


def describe(models: Models) -> dict[str, Any]:
    """{model: {"version", "labels", "is_synthetic"}}."""
    return {
        name: {
            "version": model.version,
            "labels": list(model.engine.labels),
            "is_synthetic": model.engine.manifest.is_synthetic,
        }
        for name, model in models.items()
    }
