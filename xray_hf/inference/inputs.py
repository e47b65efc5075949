"""The inputs of a bulk run as one sequence of images.

Each PATH is one of

chest.png               a file, whatever its suffix, unless that is an obvious companion's
scans/                  a folder and all below it, links too, but no hidden files and no companions (.csv)
'scans/**/*.png'        a pattern, for shells that do not expand it
rows.parquet, set/      Parquet with a column of images; a folder that holds such files and no images
hf://datasets/ID        a data set of the Hub, ID being owner/name or owner/name@revision
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tarfile import ReadError
from typing import Any
from zipfile import BadZipFile

from xray_hf.errors import ConfigError, DataError, ImageError, as_sentence, hub_errors
from xray_hf.folders import companion, in_words, kinds, list_files
from xray_hf.reading import MAX_BYTES

Content = str | bytes | ImageError  # a path, a file's bytes, or why there is neither
_HUB = "hf://datasets/"
_PARQUET = ".parquet"
_EXPECTED = f"expected an image, a folder, a pattern, a .parquet file or {_HUB}owner/name."
_WHAT_ROWS_HOLD = (
    "a row holds the bytes of its image, or, in a data set of the Hub, names a file of its own repository."
)
_HUB_ID = re.compile(r"((?:[\w.-]+/)?[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Item:
    """One image of a run. source: its name in the results. is_url: whether content is the URL of a file."""

    source: str
    content: Content
    is_url: bool = False

    def fetch(self) -> str | bytes:
        """A path or bytes; raises ImageError if there are none, DataError if a URL does not answer."""
        if isinstance(self.content, ImageError):
            raise self.content
        if not self.is_url:
            return self.content
        import fsspec  # type: ignore[import-untyped]

        failures: tuple[type[Exception], ...] = (*hub_errors(), BadZipFile, ReadError)
        try:
            with fsspec.open(self.content, "rb") as stream:
                return bytes(stream.read(MAX_BYTES + 1))  # one more than the reader takes
        except FileNotFoundError:
            return self.content  # the reader will not find it either, and will report it in the row
        except failures as error:
            raise DataError(f"{self.source} cannot be fetched: {as_sentence(error)}") from error


@dataclass(frozen=True)
class Files:
    """Image files, by name."""

    names: Sequence[str]

    @property
    def count(self) -> int:
        """How many."""
        return len(self.names)

    def __iter__(self) -> Iterator[Item]:
        return (Item(name, name) for name in self.names)

    def identity(self) -> Iterator[str]:
        """Lines that change with any file."""
        return map(_stamp, self.names)


@dataclass(frozen=True)
class Table:
    """Rows with an image each, streamed by `datasets`.

    name: for rows without a path of their own. count: of the rows, None if unknown. version: changes with the
    rows. repository: the URL on the Hub below which rows may name files or members of archives; None for no
    files.
    """

    name: str
    rows: Any
    column: str
    count: int | None
    version: tuple[str, ...]
    repository: str | None = None

    def __iter__(self) -> Iterator[Item]:
        """The rows as they are stored; raises DataError where they cannot be read."""
        from datasets import Image
        from datasets.exceptions import DatasetsError

        number = 0
        # Not decoded by `datasets`, since all images go through our one reader.
        rows = self.rows.select_columns([self.column]).cast_column(self.column, Image(decode=False))
        try:
            for row in rows:
                image = row[self.column] or {"bytes": None, "path": None}
                yield self._item(image["bytes"], image["path"], f"{self.name}#{number}")
                number += 1
        except (*hub_errors(), DatasetsError) as error:
            raise DataError(
                f"{self.name} cannot be read from row {number} on, column {self.column}: {as_sentence(error)}"
            ) from error

    def _item(self, content: bytes | None, path: str | None, number: str) -> Item:
        if content is not None or not path:
            return Item(path or number, content or b"")
        if self._is_own(path):
            return Item(path, path, is_url=True)
        return Item(path, ImageError(f"{path} is not opened; {_WHAT_ROWS_HOLD}"))

    def _is_own(self, url: str) -> bool:
        """Whether a row names a file of its repository; no other file is opened, local or remote."""
        archive, _, inner = url.rpartition("::")
        is_archive = re.fullmatch(r"(zip|tar)://[^:]*", archive) is not None
        is_here = self.repository is not None and inner.startswith(self.repository) and ".." not in inner
        return is_here and (is_archive or not archive)

    def identity(self) -> Iterator[str]:
        """Lines that change with the rows or the choice of the column."""
        return iter((self.name, self.column, *self.version))


@dataclass(frozen=True)
class Inputs:
    """All images of a run, in order. skipped: how many files in folders were left out, by kind."""

    parts: tuple[Files | Table, ...]
    skipped: Counter[str]

    def __iter__(self) -> Iterator[Item]:
        for part in self.parts:
            yield from part

    @property
    def count(self) -> int | None:
        """The number of images; None if a data set of the Hub does not state it."""
        counts = [part.count for part in self.parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change, and of the data sets' commits."""
        digest = hashlib.sha256()
        for part in self.parts:
            for line in part.identity():
                digest.update(os.fsencode(line) + b"\n")
        return digest.hexdigest()


def find(
    paths: Sequence[str],
    *,
    split: str | None = None,
    image_column: str | None = None,
    besides: Path | None = None,
) -> Inputs:
    """Find the images of `paths`, in order; within a folder or a pattern, sorted.

    split: of data sets on the Hub. image_column: of these and of Parquet files. besides: a folder to leave
    out, since the run itself writes there.
    Raises DataError for a path that does not exist or is empty, and for a data set without images;
    ConfigError if the package `datasets` is needed and not installed, and for an option that applies to none
    of `paths`.
    """
    if split and not any(path.startswith(_HUB) for path in paths):
        raise ConfigError(
            f"--split applies to data sets of the Hub, {_HUB}owner/name; no PATH is one. Leave it out."
        )
    skipped: Counter[str] = Counter()
    parts: list[Files | Table] = []
    for path in paths:
        if path.startswith(_HUB):
            parts.append(_open_hub(path, split, image_column))
            continue
        images, parquet = _files(path, besides, skipped)
        parts.append(_open_parquet(path, parquet, image_column) if parquet else Files(images))
    if image_column and not any(isinstance(part, Table) for part in parts):
        raise ConfigError("--image-column applies to Parquet and data sets; no PATH holds any. Leave it out.")
    return Inputs(tuple(parts), skipped)


def _files(path: str, besides: Path | None, skipped: Counter[str]) -> tuple[list[str], list[str]]:
    """The images that a path names, or its Parquet files if there are no images."""
    if Path(path).is_dir():
        listing = list_files(Path(path), besides)
        return _images_or_parquet(path, listing.images, listing.companions, listing.left_out, skipped)
    if os.path.lexists(path):
        kind = companion(path)
        if kind == _PARQUET:
            return [], [path]
        if kind:
            raise DataError(
                f"{path} is not an image; {_EXPECTED} Pass the folder of the images that it lists."
            )
        return [path], []
    if not glob.has_magic(path):
        raise DataError(f"{path} does not exist; {_EXPECTED}")
    names = _matches(path)
    images = [name for name in names if not companion(name.name)]
    others = [name for name in names if companion(name.name)]
    return _images_or_parquet(path, images, others, kinds(others), skipped)


def _matches(pattern: str) -> list[Path]:
    """The files of a pattern, sorted; `**` finds what list_files does: `glob` follows links in circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        names = map(Path, glob.iglob(pattern))  # noqa: PTH207  # Path.glob takes no absolute pattern
        return sorted((name for name in names if not name.is_dir()), key=str)
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    top = Path(*parts[:fixed])
    listing = list_files(top)
    files = [*listing.images, *listing.companions]
    return sorted((file for file in files if _fits(file.relative_to(top).parts, parts[fixed:])), key=str)


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the parts of a path fit those of a pattern; `**` is any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[place:], pattern[1:]) for place in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _images_or_parquet(
    path: str, images: list[Path], companions: list[Path], left_out: Counter[str], skipped: Counter[str]
) -> tuple[list[str], list[str]]:
    """Images by name, or Parquet files where there are none; adds to `skipped` what is neither."""
    parquet = [] if images else [name for name in companions if companion(name.name) == _PARQUET]
    if not images and not parquet:
        if not left_out:
            raise DataError(f"there are no files in {path}.")
        raise DataError(f"there are no images in {path}, only {in_words(left_out)}.")
    skipped.update(left_out - Counter({_PARQUET: len(parquet)}))
    return list(map(str, images)), list(map(str, parquet))


def _stamp(name: str) -> str:
    try:
        stat = Path(name).stat()
    except OSError:  # its row will say why
        return f"{name}\0missing"
    return f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}"


def _open_parquet(name: str, files: list[str], column: str | None) -> Table:
    from datasets import load_dataset
    from pyarrow import parquet

    try:
        count = sum(parquet.read_metadata(file).num_rows for file in files)
        if not count:
            raise DataError(f"{name} has no rows; expected one for each image.")
        rows = load_dataset("parquet", data_files=files, split="train", streaming=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read as Parquet: {as_sentence(error)}") from error
    return Table(name, rows, _image_column(name, rows, column), count, tuple(map(_stamp, files)))


def _open_hub(path: str, split: str | None, column: str | None) -> Table:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub import HfApi

    found = _HUB_ID.fullmatch(path.removeprefix(_HUB))
    if found is None:
        raise DataError(f"{path} is not a data set; expected {_HUB}owner/name or {_HUB}owner/name@revision.")
    name, revision = found.groups()
    try:
        # The commit that the revision names now, so that a resumed run gets the same rows.
        commit = HfApi().dataset_info(name, revision=revision).sha
        splits: dict[str, Any] = load_dataset(name, revision=commit, streaming=True)
    except (*hub_errors(), DatasetsError) as error:
        raise DataError(
            f"the data set {name} cannot be fetched from the Hub: {as_sentence(error)} Check the name and "
            "the network."
        ) from error
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split is None or split not in splits:
        asked = f"there is no split {split}" if split else "choose a --split"
        raise DataError(f"{asked}; the data set {name} has {', '.join(splits)}.")
    rows = splits[split]
    count = (rows.info.splits or {})[split].num_examples if split in (rows.info.splits or {}) else None
    repository = f"{_HUB}{name}@{commit}/"
    return Table(name, rows, _image_column(name, rows, column), count, (str(commit), split), repository)


def _image_column(name: str, rows: Any, wanted: str | None) -> str:
    from datasets import Image

    features = rows.features or {}
    images = [column for column, kind in features.items() if isinstance(kind, Image)]
    found = wanted or (images[0] if images else "image")
    if found not in features:
        raise DataError(
            f"{name} has no column {found}; found: {', '.join(features) or 'none'}. Choose --image-column."
        )
    return found
