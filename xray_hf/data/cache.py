"""Every image decoded once, at the network's size, into one file that any number of runs share.

The cache is a folder named by a fingerprint of all that decides its content: the files (name, size, time
of change), the side, the reader's version and Pillow's. It is written under another name and renamed when
whole. Rows are read with `pread`, not through a memory map: the operating system's page cache serves both
equally fast, but mapped pages would count as this process's memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
from tqdm import tqdm

from xray_hf import cores
from xray_hf.data.groups import CORRELATION, THUMBNAIL_SIDE, near_duplicates
from xray_hf.data.sample import Sample
from xray_hf.errors import DataError, ImageError
from xray_hf.files import atomic_folder, write_json
from xray_hf.images import READER_VERSION, read_grey, resize
from xray_hf.manifest import WHOLE
from xray_hf.views import VIEWS, View

PIXELS_NAME = "pixels.u8"
INDEX_NAME = "index.json"
_CHUNK = 512  # images decoded ahead of the writer


class PixelSource(Protocol):
    """Where batches come from: rows in, grey images out."""

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(B,) row numbers -> (B, side, side) uint8."""
        ...


@dataclass(frozen=True)
class Viewed:
    """Another source's images, seen in a control view."""

    source: PixelSource
    view: View

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """As PixelSource.gather."""
        return self.view(self.source.gather(rows))


def seen_in(source: PixelSource, view: str) -> PixelSource:
    """The images of `source` in one of VIEWS, or themselves for "none"."""
    return source if view == WHOLE else Viewed(source, VIEWS[view])


@dataclass(frozen=True)
class PixelCache:
    """Decoded images on disk, in the order of the records that could be decoded.

    undecodable: {file name: why}. near_duplicates: pairs of rows that show the same picture.
    """

    folder: Path
    side: int
    count: int
    undecodable: dict[str, str]
    near_duplicates: list[tuple[int, int]]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Read rows, in any order, with repeats: (B,) integers in 0..count-1 -> (B, side, side) uint8."""
        batch = np.empty((len(rows), self.side, self.side), np.uint8)
        size = self.side * self.side
        try:
            with (self.folder / PIXELS_NAME).open("rb", buffering=0) as stream:
                for image, row in zip(batch, rows, strict=True):
                    if os.preadv(stream.fileno(), [image.data], int(row) * size) != size:
                        raise OSError(f"there is no row {row}")
        except OSError as error:
            raise DataError(f"{self.folder}: {error}; delete this folder, it is made anew.") from error
        return batch


def prepare(records: Sequence[Sample], side: int, cache_dir: Path | None = None) -> PixelCache:
    """Open the cache of these records' pixels, or decode them all, with a progress bar.

    side: height and width of the network's input in pixels. cache_dir: default $XRAY_HF_CACHE, else
    ~/.cache/xray_hf. Files that cannot be decoded are listed in the result, never replaced.
    Raises OutputError if the cache cannot be written, DataError if it is damaged or a file cannot be opened.
    """
    fingerprint = _fingerprint(records, side)
    folder = (cache_dir or default_cache_dir()) / f"pixels-{fingerprint}"
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            _decode_all(records, side, temporary)
    try:
        index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
        pairs = [(i, j) for i, j in index["near_duplicates"]]
        if (folder / PIXELS_NAME).stat().st_size != index["count"] * side * side:
            raise ValueError(f"{PIXELS_NAME} has another size than {INDEX_NAME} says")
        return PixelCache(folder, side, index["count"], index["undecodable"], pairs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is damaged ({error}); delete this folder, it is made anew.") from error


def default_cache_dir() -> Path:
    """$XRAY_HF_CACHE, else ~/.cache/xray_hf."""
    return Path(os.environ.get("XRAY_HF_CACHE") or Path.home() / ".cache" / "xray_hf")


def _fingerprint(records: Sequence[Sample], side: int) -> str:
    options = [side, READER_VERSION, PIL.__version__, THUMBNAIL_SIDE, CORRELATION]
    digest = hashlib.sha256(json.dumps(options).encode())
    for record in records:
        stat = record.path.stat()
        digest.update(f"{record.path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _decode_all(records: Sequence[Sample], side: int, folder: Path) -> None:
    # One array, since small ones kept between large ones freed would hold on to the memory of all pixels.
    thumbnails = np.empty((len(records), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    count, undecodable = 0, {}
    with (
        (folder / PIXELS_NAME).open("wb") as stream,
        ThreadPoolExecutor(cores.usable()) as pool,
        tqdm(total=len(records), desc="decoding", unit=" images") as bar,
    ):
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            # Pillow releases the GIL while it decodes and resizes: threads use all cores.
            for record, result in zip(chunk, pool.map(lambda r: _decode(r, side), chunk), strict=True):
                if isinstance(result, ImageError):
                    undecodable[record.file_name] = str(result)
                else:
                    pixels, thumbnails[count] = result
                    stream.write(pixels.tobytes())
                    count += 1
                bar.update()
    pairs = near_duplicates(thumbnails[:count])
    write_json(folder / INDEX_NAME, {"count": count, "undecodable": undecodable, "near_duplicates": pairs})


def _decode(record: Sample, side: int) -> tuple[np.ndarray, np.ndarray] | ImageError:
    try:
        record.path.open("rb").close()
    except OSError as error:  # not the image's fault, and perhaps soon repaired: nothing to remember
        raise DataError(f"{record.path} cannot be opened: {error.strerror}.") from error
    try:
        image = read_grey(record.path)
    except ImageError as error:
        return error
    return resize(image, side), resize(image, THUMBNAIL_SIDE)
