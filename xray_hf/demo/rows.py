"""Answers about many files: a table to look at, the same as CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from xray_hf.demo import events
from xray_hf.demo.events import Answer, Engines
from xray_hf.demo.formatting import picture, reduced, render
from xray_hf.demo.uploads import MAX_FILES, unpack
from xray_hf.errors import ImageError
from xray_hf.inference import Prediction

THUMBNAIL_SIDE = 64  # pixels
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run


@dataclass(frozen=True)
class Row:
    """One file's line. thumbnail: a data URI, or "". cells: {column: text or number}, "" where nothing is."""

    thumbnail: str
    cells: dict[str, Any]


def of(answer: Answer) -> Row:
    """The line of an answer; it holds no more than a thumbnail of the X-ray."""
    error = str(answer.reading) if isinstance(answer.reading, ImageError) else ""
    cells: dict[str, Any] = {"file": answer.name, "error": error}
    for model, found in answer.predictions.items():
        if isinstance(found, Prediction):
            cells[f"{model}: decision"] = found.decision
            cells |= {f"{model}: {label}": round(share, 4) for label, share in found.probabilities.items()}
        else:
            cells["error"] = str(found)
    if isinstance(answer.reading, ImageError):
        return Row("", cells)
    return Row(picture(reduced(answer.reading.grey, THUMBNAIL_SIDE), "JPEG"), cells)


def collect(engines: Engines, paths: Sequence[str], progress: Callable[..., Any]) -> list[Row]:
    """The lines of all files and members of archives, in order.

    progress: is told (how many are done, of how many). Raises gr.Error if there are too many.
    """
    uploads = unpack(paths)
    if len(uploads) > MAX_FILES:
        raise gr.Error(
            f"{len(uploads)} files were given, {MAX_FILES} are answered at a time; send fewer.",
            print_exception=False,
        )
    found: list[Row] = []
    for batch in events.answer_in_bulk(engines, uploads, of):
        found += batch
        progress((len(found), len(uploads)), unit="X-rays")
    return found


def as_html(rows: Sequence[Row]) -> str:
    """A table that page.js sorts, above it the CSV to download."""
    columns = _columns(rows)
    shown = [column for column in columns if column != "error"]
    return render(
        "table",
        rows=rows,
        columns=shown,
        failed=sum(bool(row.cells["error"]) for row in rows),
        csv=base64.b64encode(as_csv(rows).encode()).decode(),
    )


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated, with a head; names that a spreadsheet would take for a formula get an apostrophe."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _columns(rows), restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _harmless(value) for column, value in row.cells.items()})
    return stream.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(column for row in rows for column in row.cells if column != "error")
    return [*names, "error"]


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
