"""Models and files in, predictions or errors out; the page and its API show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from xray_hf import cores
from xray_hf.demo.models import Models, choose
from xray_hf.demo.uploads import Upload
from xray_hf.errors import ImageError
from xray_hf.inference import Prediction
from xray_hf.inference.engine import BATCH_SIZE
from xray_hf.reading import Reading
from xray_hf.threads import pool_of_generator

BUSY = "too many visitors are waiting; try again in a minute."
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """All models' predictions about one file.

    reading: the X-ray, or why there is none. predictions: {model: its prediction, or why it makes none};
    empty without an X-ray. path, member: as Upload's.
    """

    name: str
    reading: Reading | ImageError
    predictions: dict[str, Prediction | ImageError]
    path: str = ""
    member: str = ""


def answer(models: Models, uploads: Sequence[Upload]) -> list[Answer]:
    """Answer about every file, in order; up to BATCH_SIZE files go through each network together."""
    return [found for batch in _batches(uploads) for found in _answer_together(models, batch)]


def answer_visitors(
    models: Models, uploads: Sequence[Sequence[Upload]], names: Sequence[Any]
) -> list[list[Answer]]:
    """Each visitor's answers by the models that they chose.

    Images of visitors with the same models go through the networks together.
    """
    chosen = [tuple(choose(models, each)) for each in names]
    found: list[list[Answer]] = [[] for _ in uploads]
    for own in set(chosen):
        visitors = [k for k, each in enumerate(chosen) if each == own]
        answers = iter(answer(choose(models, own), [one for k in visitors for one in uploads[k]]))
        for k in visitors:
            found[k] = [next(answers) for _ in uploads[k]]
    return found


def answer_in_bulk(
    models: Models, uploads: Sequence[Upload], view: Callable[[Answer], T]
) -> Iterator[list[T]]:
    """`view` of each answer, on all cores, batch by batch; the X-rays are not kept."""

    def work(batch: Sequence[Upload]) -> list[T]:
        return [view(found) for found in _answer_together(models, batch)]

    with pool_of_generator(cores.usable(), "xray-demo") as pool:  # the visitor may leave
        yield from pool.map(work, _batches(uploads))


def _batches(uploads: Sequence[Upload]) -> list[Sequence[Upload]]:
    return [uploads[start : start + BATCH_SIZE] for start in range(0, len(uploads), BATCH_SIZE)]


def _answer_together(models: Models, uploads: Sequence[Upload]) -> list[Answer]:
    answers = [Answer(upload.name, upload.read(), {}, upload.path, upload.member) for upload in uploads]
    readable = [answer for answer in answers if isinstance(answer.reading, Reading)]
    for name, model in models.items() if readable else ():
        predictions = model.engine.predict_batch([answer.reading for answer in readable])
        for answer, prediction in zip(readable, predictions, strict=True):
            answer.predictions[name] = prediction
    return answers
