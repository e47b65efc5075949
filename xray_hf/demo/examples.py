"""Example X-rays for the page: drawn from an atlas, so that no person's image is shipped, or the owner's.

The synthetic ones were chosen among many seeds by the answers of the shipped models, so that each outcome is
shown: they illustrate, and prove nothing. `scripts/choose_examples.py` chooses again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from xray_hf.data.sample import SYNTHETIC_PREFIX
from xray_hf.demo import patients
from xray_hf.errors import ConfigError, ImageError
from xray_hf.files import atomic_file
from xray_hf.inference import inputs
from xray_hf.inference.inputs import Item, Table
from xray_hf.reading import read
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA, REJECTED, UNSURE

CHOSEN = Path(__file__).with_name("examples.json")  # {name: {"group", "seed"}}
CAPTIONS = "examples.csv"  # beside an owner's images: which to show, in which order
COLUMNS = ("file_name", "caption", "licence")
MAX_EXAMPLES = 12
PREVIEW_SIDE = 320  # pixels


@dataclass(frozen=True)
class Example:
    """An X-ray to offer. file: of any format that is read. preview: a PNG, which every browser shows."""

    file: Path
    preview: Path
    caption: str


@dataclass(frozen=True)
class Outcome:
    """The outcome that a synthetic example shows.

    groups: of `patients.GROUPS`, to choose from. caption: what to look at. decision: of both multisource
    models. of_coronahack: of both models that were trained only on CoronaHack, where the caption names it.
    is_turned: whether it is shown upside down.
    """

    groups: tuple[str, ...]
    caption: str
    decision: str
    of_coronahack: str = ""
    is_turned: bool = False


OUTCOMES = {
    "normal": Outcome(
        ("child-normal", "adult-normal"),
        "The multisource models answer Normal: see where their heatmaps lie.",
        PAPER_CLASSES[NORMAL],
    ),
    "pneumonia": Outcome(
        ("adult-pneumonia", "child-pneumonia"),
        "The multisource models answer Pneumonia: compare their heatmaps.",
        PAPER_CLASSES[PNEUMONIA],
    ),
    "covid-19": Outcome(
        ("adult-covid",),
        "The multisource models answer COVID-19: does the evidence lie in the lungs?",
        PAPER_CLASSES[COVID19],
    ),
    "unsure": Outcome(
        ("adult-pneumonia",), "Too uncertain: the multisource models abstain. Read why.", UNSURE
    ),
    "rejected": Outcome(
        ("adult-normal",), "Upside down: rejected, with advice on what to do.", REJECTED, is_turned=True
    ),
    "shortcut": Outcome(
        ("adult-normal",),
        "Add the CoronaHack models: they call this healthy adult COVID-19, the multisource models do not.",
        PAPER_CLASSES[NORMAL],
        of_coronahack=PAPER_CLASSES[COVID19],
    ),
}


def find(source: str | None, temporary: Path) -> list[Example]:
    """The first images of `source`, or without it a synthetic one of each of OUTCOMES.

    source: a folder, a pattern, Parquet, or a data set on the Hub as hf://datasets/owner/name. A folder with
    CAPTIONS offers the images that it lists; the columns caption and licence of Parquet are shown, too.
    temporary: where copies are written, since the page shows no files of other folders.
    Raises DataError or ConfigError if `source` cannot be read or an image is not an X-ray, OutputError if
    `temporary` cannot be written.
    """
    contents = synthetic() if source is None else _owned(source)
    return [_write(temporary / f"{number:02}", *each) for number, each in enumerate(contents)]


def draw(outcome: Outcome, group: str, seed: int) -> Image.Image:
    """A synthetic example, mode "L"."""
    image = patients.draw(group, seed)
    return image.transpose(Image.Transpose.ROTATE_180) if outcome.is_turned else image


def synthetic() -> Iterator[tuple[str, str, bytes]]:
    """(file name, caption, PNG), in the order of OUTCOMES."""
    chosen = json.loads(CHOSEN.read_text(encoding="utf-8"))
    for name, outcome in OUTCOMES.items():
        stream = io.BytesIO()
        draw(outcome, **chosen[name]).save(stream, "PNG")
        yield f"{SYNTHETIC_PREFIX}{name}.png", f"SYNTHETIC. {outcome.caption}", stream.getvalue()


def _owned(source: str) -> Iterator[tuple[str, str, bytes]]:
    for item, about in islice(_captioned(source), MAX_EXAMPLES):
        content = item.fetch()
        name = re.sub(r"[^\w.-]", "_", item.source.rpartition("/")[2])
        words = [str(about.get(column) or "").strip() for column in ("caption", "licence")]
        caption = " · ".join(filter(None, [words[0] or Path(name).stem, words[1]]))
        try:
            yield name, caption, content if isinstance(content, bytes) else Path(content).read_bytes()
        except OSError as error:
            raise ConfigError(f"--examples: {item.source} cannot be read: {error.strerror}.") from error


def _captioned(source: str) -> Iterator[tuple[Item, Mapping[str, Any]]]:
    """Each image of an owner, with its caption and licence if there are any."""
    listed = Path(source, CAPTIONS)
    if not source.startswith("hf://") and listed.is_file():
        yield from ((Item(name, name), row) for name, row in _read_captions(listed))
        return
    for part in inputs.find([source]).parts:
        texts: Iterator[Mapping[str, Any]] = iter(())
        if isinstance(part, Table):
            columns = [name for name in COLUMNS[1:] if name in (part.rows.column_names or ())]
            texts = iter(part.rows.select_columns(columns)) if columns else texts
        for item in part:
            yield item, next(texts, {})


def _read_captions(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(image, row) of each line of a CAPTIONS file; raises ConfigError if it is not one."""
    expected = f"expected CSV in UTF-8 with the columns {', '.join(COLUMNS)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows, names = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--examples: {path} cannot be read ({error}); {expected}.") from error
    if set(names) != set(COLUMNS):
        raise ConfigError(f"--examples: {path} has the columns {', '.join(names) or 'none'}; {expected}.")
    if not rows:
        raise ConfigError(f"--examples: {path} lists no image; {expected}, and a line for each image.")
    for number, row in enumerate(rows, start=1):
        image = path.parent / (row["file_name"] or "")
        if not image.is_file():
            raise ConfigError(
                f"--examples: row {number} of {path} names {row['file_name']!r}, which is not a file in "
                f"{path.parent}; name files by their path in that folder."
            )
        yield str(image), row


def _write(folder: Path, name: str, caption: str, content: bytes) -> Example:
    try:
        preview = read(content).grey
    except ImageError as error:
        raise ConfigError(f"--examples: {name}: {error}") from error
    preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    example = Example(folder / name, folder.with_suffix(".png"), caption)
    with atomic_file(example.file) as temporary:
        temporary.write_bytes(content)
    with atomic_file(example.preview) as temporary:
        preview.save(temporary)
    return example
