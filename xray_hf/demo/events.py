"""The page's answers, without the page: models and files in, predictions or errors out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xray_hf import cores, manifest
from xray_hf.demo.uploads import Upload
from xray_hf.errors import BundleError, ImageError
from xray_hf.inference import Engine, Prediction
from xray_hf.inference.engine import BATCH_SIZE
from xray_hf.reading import Reading

BUSY = "too many visitors are waiting; try again in a minute."
Engines = Mapping[str, Engine]
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """All models' predictions about one file.

    reading: the X-ray, or why there is none. predictions: {model: its prediction, or why it makes none};
    empty without an X-ray.
    """

    name: str
    reading: Reading | ImageError
    predictions: dict[str, Prediction | ImageError]


def load_engines(sources: Sequence[Path | str], backend: str) -> dict[str, Engine]:
    """Load bundles from folders or the Hub.

    They are named as by manifest.title; names that occur twice get their source in brackets.

    Raises BundleError for an incomplete bundle, and for models of different classes.
    """
    folders = {source: manifest.locate(source, views=True) for source in sources}
    loaded = [(source, Engine.from_pretrained(at, backend=backend)) for source, at in folders.items()]
    if len({engine.labels for _, engine in loaded}) > 1:
        said = "; ".join(f"{source}: {', '.join(engine.labels)}" for source, engine in loaded)
        raise BundleError(f"the models have different classes ({said}); serve them one by one.")
    names = [manifest.title(source, engine.name, engine.manifest.sources) for source, engine in loaded]
    times = Counter(names)
    return {
        f"{name} ({source})" if times[name] > 1 else name: engine
        for name, (source, engine) in zip(names, loaded, strict=True)
    }


def preferred(engines: Engines) -> list[str]:
    """The models that answer if nobody chooses: those that were trained on the most sources."""
    most = max((len(engine.manifest.sources) for engine in engines.values()), default=0)
    return [name for name, engine in engines.items() if len(engine.manifest.sources) == most]


def choose(engines: Engines, names: Any = None) -> Engines:
    """The models of these names; those preferred if `names` is no list, or none of them is a model's.

    A program can send anything as a visitor's choice, and must not spoil the batch of others.
    """
    known = [name for name in engines if isinstance(names, list | tuple) and name in names]
    return {name: engines[name] for name in known or preferred(engines)}


def describe(engines: Engines) -> dict[str, Any]:
    """{model: {"version", "labels", "is_synthetic"}}; a version changes with any answer."""
    return {
        name: {
            "version": manifest.version(engine.manifest.folder),
            "labels": list(engine.labels),
            "is_synthetic": engine.manifest.is_synthetic,
        }
        for name, engine in engines.items()
    }


def answer(engines: Engines, uploads: Sequence[Upload]) -> list[Answer]:
    """Answer about every file, in order; up to BATCH_SIZE files go through each network together."""
    return [found for batch in _batches(uploads) for found in _answer_together(engines, batch)]


def answer_visitors(
    engines: Engines, uploads: Sequence[Sequence[Upload]], names: Sequence[Any]
) -> list[list[Answer]]:
    """Each visitor's answers by the models that they chose.

    Images of visitors with the same models go through the networks together.
    """
    chosen = [tuple(choose(engines, each)) for each in names]
    found: list[list[Answer]] = [[] for _ in uploads]
    for models in set(chosen):
        visitors = [k for k, each in enumerate(chosen) if each == models]
        answers = iter(answer(choose(engines, models), [one for k in visitors for one in uploads[k]]))
        for k in visitors:
            found[k] = [next(answers) for _ in uploads[k]]
    return found


def answer_in_bulk(
    engines: Engines, uploads: Sequence[Upload], view: Callable[[Answer], T]
) -> Iterator[list[T]]:
    """`view` of each answer, on all cores, batch by batch; the X-rays are not kept."""

    def work(batch: Sequence[Upload]) -> list[T]:
        return [view(found) for found in _answer_together(engines, batch)]

    with ThreadPoolExecutor(cores.usable(), thread_name_prefix="xray-demo") as pool:
        try:
            yield from pool.map(work, _batches(uploads))
        finally:  # the visitor may have gone
            pool.shutdown(cancel_futures=True)


def _batches(uploads: Sequence[Upload]) -> list[Sequence[Upload]]:
    return [uploads[start : start + BATCH_SIZE] for start in range(0, len(uploads), BATCH_SIZE)]


def _answer_together(engines: Engines, uploads: Sequence[Upload]) -> list[Answer]:
    answers = [Answer(upload.name, upload.read(), {}) for upload in uploads]
    readable = [answer for answer in answers if isinstance(answer.reading, Reading)]
    for name, engine in engines.items() if readable else ():
        predictions = engine.predict_batch([answer.reading for answer in readable])
        for answer, prediction in zip(readable, predictions, strict=True):
            answer.predictions[name] = prediction
    return answers
