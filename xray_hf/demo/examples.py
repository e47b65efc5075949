"""Example X-rays for the page: drawn from the atlas, so that no person's image is shipped, or the owner's."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from xray_hf.data.sample import SYNTHETIC_PREFIX
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import ConfigError, ImageError
from xray_hf.files import atomic_file
from xray_hf.inference import inputs
from xray_hf.reading import read

SEED = 0
MAX_EXAMPLES = 12
PREVIEW_SIDE = 320  # pixels


@dataclass(frozen=True)
class Example:
    """An X-ray to offer. file: of any format that is read. preview: a PNG, which every browser shows."""

    file: Path
    preview: Path
    caption: str


def find(source: str | None, temporary: Path) -> list[Example]:
    """The first images of `source`, or without it a synthetic one of each class.

    source: a folder, a pattern, Parquet, or a data set on the Hub as hf://datasets/owner/name. temporary:
    where copies are written, since the page shows no files of other folders.
    Raises DataError or ConfigError if `source` cannot be read or an image is no X-ray, OutputError if
    `temporary` cannot be written.
    """
    contents = _synthetic() if source is None else _owned(source)
    return [_write(temporary / f"{number:02}", *each) for number, each in enumerate(contents)]


def _synthetic() -> Iterator[tuple[str, str, bytes]]:
    """(file name, caption, PNG), in the order of the classes."""
    for label, image in sample_images(1, SEED):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        yield f"{SYNTHETIC_PREFIX}{label}.png", f"SYNTHETIC {label}", stream.getvalue()


def _owned(source: str) -> Iterator[tuple[str, str, bytes]]:
    for item in islice(inputs.find([source]), MAX_EXAMPLES):
        content = item.fetch()
        name = re.sub(r"[^\w.-]", "_", item.source.rpartition("/")[2])
        try:
            yield name, Path(name).stem, content if isinstance(content, bytes) else Path(content).read_bytes()
        except OSError as error:
            raise ConfigError(f"--examples: {item.source} cannot be read: {error.strerror}.") from error


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
