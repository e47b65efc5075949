"""Answers about many files, as a table and as CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray_hf.demo import answers, models
from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Models
from xray_hf.demo.rendering import NOTHING, picture, reduced, render, said
from xray_hf.demo.uploads import MAX_FILES, unpack
from xray_hf.errors import ImageError
from xray_hf.folders import in_words
from xray_hf.inference import Prediction
from xray_hf.task import REJECTED, UNSURE

THUMBNAIL_SIDE = 64  # pixels
NO_ANSWER = "no answer"  # a file that is not an X-ray, or logits that are not finite
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet would run


@dataclass(frozen=True)
class Row:
    """One file's line.

    error: why there is no answer, or "". thumbnail: a data URI. models: as Answer's predictions.
    path, member: as Upload's, so that the page can open the answer.
    """

    file: str
    error: str = ""
    thumbnail: str = ""
    models: Mapping[str, Prediction | ImageError] = field(default_factory=dict)
    path: str = ""
    member: str = ""


def of(answer: Answer) -> Row:
    """The line of an answer, with a thumbnail in place of the X-ray."""
    if isinstance(answer.reading, ImageError):
        return Row(answer.name, error=str(answer.reading))
    thumbnail = picture(reduced(answer.reading.grey, THUMBNAIL_SIDE), "JPEG")
    return Row(answer.name, "", thumbnail, answer.predictions, answer.path, answer.member)


def collect(
    served: Models,
    paths: Sequence[str],
    progress: Callable[..., Any],
    left_out: Counter[str] | None = None,
) -> list[Row]:
    """The lines of all files and members of archives, in order.

    progress: called with (done, all). left_out: counts members that are not images, by kind.
    """
    uploads = unpack(paths, left_out)
    found: list[Row] = []
    for batch in answers.answer_in_bulk(served, uploads, of):
        found += batch
        progress((len(found), len(uploads)), unit="X-rays")
    return found


def as_html(served: Models, rows: Sequence[Row], left_out: Mapping[str, int] = NOTHING) -> str:
    """A table that table.js sorts, below the counts of decisions and the CSV to download.

    left_out: {kind: how many} members of archives that are not images.
    """
    shown = [
        {"row": row, "agreement": agreement(row), "said": [said(found) for found in row.models.values()]}
        for row in rows
    ]
    read, more = shown[:MAX_FILES], shown[MAX_FILES:]
    return render(
        "table",
        rows=shown,
        failed=sum(bool(each.error) for each in rows[:MAX_FILES]),
        read=len(read),
        more=more,
        models=list(served),
        labels=models.labels(served),
        counts=count_decisions(served, rows),
        csv=base64.b64encode(as_csv(rows).encode()).decode(),
        left_out=sum(left_out.values()),
        kinds=in_words(left_out),
    )


def count_decisions(served: Models, rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """{decision: {model: how many files}}: every class, then why there is none, with "no answer" last."""
    names = [*models.labels(served), UNSURE, REJECTED, NO_ANSWER]
    found = {name: Counter(_decision(row, name) for row in rows) for name in served}
    return {decision: {name: found[name][decision] for name in served} for decision in names}


def _decision(row: Row, model: str) -> str:
    prediction = row.models.get(model)
    return prediction.decision if isinstance(prediction, Prediction) else NO_ANSWER


def agreement(row: Row) -> str:
    """Whether the models decide for the same class: "agree", "disagree", or "undecided" if one gives none.

    Empty for a single model, and for a file without an answer.
    """
    decisions = {_decision(row, name) for name in row.models}
    if len(row.models) < 2:
        return ""
    if decisions & {UNSURE, REJECTED, NO_ANSWER}:
        return "undecided"
    return "agree" if len(decisions) == 1 else "disagree"


def as_cells(row: Row) -> dict[str, Any]:
    """{column: text or number}: file, error, agreement, of each model decision, reason and probabilities.

    Probabilities are None for an image that the model rejected: there the page, too, shows none.
    """
    cells: dict[str, Any] = {"file": row.file, "error": row.error, "agreement": agreement(row)}
    for name, found in row.models.items():
        shown = said(found)
        cells |= {f"{name}: decision": shown["decision"], f"{name}: reason": shown["reason"]}
        if isinstance(found, Prediction):
            shares = {label: round(share, 4) for label, share in shown["shares"].items()}
            cells |= {f"{name}: {label}": shares.get(label) for label in found.probabilities}
    return cells


def as_csv(rows: Sequence[Row]) -> str:
    """CSV with a header; texts that a spreadsheet would take for a formula get an apostrophe."""
    lines = [{name: _harmless(value) for name, value in as_cells(row).items()} for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for line in lines for name in line)), restval="")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
