"""Every image decoded once, at the network's size, into files that any number of runs share.

Each source has a folder, named after it, the side and what else decides the pixels (the reader's version,
Pillow's). A new file adds a row to `pixels.u8` and `thumbnails.u8`; `index.json` has the row of each file, by
path, size and time of change. Rows are written before the index that names them, and never changed: a killed
process leaves only rows that the index does not name. One process writes at a time, the others wait.
Rows are read with `pread`, not through a memory map: the operating system's page cache serves both equally
fast, but mapped pages would count as this process's memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import PIL
from tqdm import tqdm

from xray_hf import cores
from xray_hf.data import groups
from xray_hf.data.groups import THUMBNAIL_SIDE
from xray_hf.data.sample import Sample
from xray_hf.errors import DataError, ImageError
from xray_hf.files import output_errors, write_text
from xray_hf.manifest import WHOLE
from xray_hf.reading import READER_VERSION, read_grey, resize
from xray_hf.views import VIEWS, View

PIXELS_NAME = "pixels.u8"
THUMBNAILS_NAME = "thumbnails.u8"
INDEX_NAME = "index.json"
_LOCK_NAME = "lock"
_CHUNK = 512  # images decoded between two updates of the index


class PixelSource(Protocol):
    """The source of batches: rows in, grey images out."""

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(B,) row numbers -> (B, side, side), 0 to 255, uint8 unless they were computed."""
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


@dataclass(frozen=True, eq=False)
class PixelCache:
    """Decoded images of one source on disk, in the order of the samples that could be decoded.

    undecodable: {file name: why}. thumbnails: (count, 64, 64) uint8. rows: (count,) where each image lies.
    """

    folder: Path
    side: int
    undecodable: dict[str, str]
    thumbnails: np.ndarray
    rows: np.ndarray = field(repr=False)

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.rows)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Read images, in any order, with repeats: (B,) integers in 0..count-1 -> (B, side, side) uint8."""
        batch = np.empty((len(rows), self.side, self.side), np.uint8)
        if not len(rows):
            return batch  # a source without images has no files
        size = self.side * self.side
        try:
            with (self.folder / PIXELS_NAME).open("rb", buffering=0) as stream:
                for image, row in zip(batch, self.rows[rows].tolist(), strict=True):
                    if os.preadv(stream.fileno(), [image.data], row * size) != size:
                        raise OSError(f"{PIXELS_NAME} ends before row {row}")
        except OSError as error:
            raise _damaged(self.folder, error) from error
        return batch


@dataclass(frozen=True, eq=False)
class Joined:
    """Several sources as one: the rows of the first, then those of the second, and so on."""

    sources: Sequence[PixelCache]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """As PixelSource.gather."""
        ends = np.cumsum([source.count for source in self.sources])
        which = np.searchsorted(ends, rows, side="right")
        batch = np.empty((len(rows), self.sources[0].side, self.sources[0].side), np.uint8)
        for number in np.unique(which):
            own = which == number
            source = self.sources[number]
            batch[own] = source.gather(rows[own] - (ends[number] - source.count))
        return batch


def prepare(samples: Sequence[Sample], side: int, cache_dir: Path | None = None) -> PixelCache:
    """Open the cache of one source's pixels, and decode what it lacks, with a progress bar.

    side: height and width of the network's input in pixels. cache_dir: default $XRAY_HF_CACHE, else
    ~/.cache/xray_hf. Files that cannot be decoded are listed in the result, never replaced, and not tried
    again until they change.
    Raises OutputError if the cache cannot be written, DataError if it is damaged or a file cannot be opened.
    """
    options = hashlib.sha256(f"{READER_VERSION} {PIL.__version__} {THUMBNAIL_SIDE}".encode()).hexdigest()
    source = samples[0].source if samples else "none"
    folder = (cache_dir or default_cache_dir()) / f"{source}-{side}-{options[:8]}"
    files = [_state_of(sample.path) for sample in samples]
    index = _Index.read(folder, side)
    if any(file not in index.found for file in files):
        with output_errors(folder), _locked(folder):
            index = _Index.read(folder, side)  # another process may have been here
            index.add([file for file in dict.fromkeys(files) if file not in index.found])
    results = [index.found[file] for file in files]
    rows = np.asarray([result for result in results if isinstance(result, int)], np.int64)
    undecodable = {
        sample.file_name: result
        for sample, result in zip(samples, results, strict=True)
        if isinstance(result, str)
    }
    return PixelCache(folder, side, undecodable, index.thumbnails()[rows], rows)


def find_duplicates(thumbnails: np.ndarray, cache_dir: Path | None = None) -> list[tuple[int, int]]:
    """`groups.near_duplicates` of these thumbnails, cached: the search takes most of a minute for 15,000.

    Raises OutputError if the cache cannot be written, DataError if it is damaged.
    """
    digest = hashlib.sha256(f"{groups.VERSION} {thumbnails.shape}".encode())
    digest.update(np.ascontiguousarray(thumbnails).data)
    path = (cache_dir or default_cache_dir()) / f"duplicates-{digest.hexdigest()[:16]}.json"
    try:
        return [(int(i), int(j)) for i, j in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        pairs = groups.near_duplicates(thumbnails)
        write_text(path, json.dumps(pairs))
        return pairs
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, error, "file") from error


def default_cache_dir() -> Path:
    """$XRAY_HF_CACHE, else ~/.cache/xray_hf."""
    return Path(os.environ.get("XRAY_HF_CACHE") or Path.home() / ".cache" / "xray_hf")


class _File(NamedTuple):
    """One state of a file: other content means another size or time of change (in ns)."""

    path: str
    size: int
    changed: int


def _state_of(path: Path) -> _File:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.") from error
    return _File(os.path.realpath(path), status.st_size, status.st_mtime_ns)


@dataclass
class _Index:
    """The content of a cache: the row of every file, or why it cannot be decoded; and the number of rows."""

    folder: Path
    side: int
    found: dict[_File, int | str]
    rows: int

    @classmethod
    def read(cls, folder: Path, side: int) -> _Index:
        """Raises DataError if the folder is damaged; without an index it is empty."""
        try:
            index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
            found = {_File(*file): result for *file, result in index["files"]}
            rows = [result for result in found.values() if type(result) is int]
            if max(rows, default=-1) >= index["rows"]:
                raise ValueError(f"{INDEX_NAME} names rows that are not there")
            for name, size in ((PIXELS_NAME, side**2), (THUMBNAILS_NAME, THUMBNAIL_SIDE**2)):
                if (folder / name).stat().st_size < index["rows"] * size:
                    raise ValueError(f"{name} is shorter than {INDEX_NAME} says")
            return cls(folder, side, found, index["rows"])
        except (FileNotFoundError, NotADirectoryError) as error:
            if (folder / INDEX_NAME).exists():
                raise _damaged(folder, error) from error
            return cls(folder, side, {}, 0)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(folder, error) from error

    def thumbnails(self) -> np.ndarray:
        """All of them: (rows, 64, 64) uint8."""
        size = self.rows * THUMBNAIL_SIDE**2
        flat = np.fromfile(self.folder / THUMBNAILS_NAME, np.uint8, size) if size else np.empty(0, np.uint8)
        return flat.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)

    def add(self, files: Sequence[_File]) -> None:
        """Decode files; the index is updated after each _CHUNK of them, where a stopped run resumes."""
        with (
            _open_at(self.folder / PIXELS_NAME, self.rows * self.side**2) as pixels,
            _open_at(self.folder / THUMBNAILS_NAME, self.rows * THUMBNAIL_SIDE**2) as thumbnails,
            ThreadPoolExecutor(cores.usable()) as pool,
            # None: shown on a terminal only.
            tqdm(total=len(files), desc="decoding", unit=" images", disable=None) as bar,
        ):
            for start in range(0, len(files), _CHUNK):
                chunk = files[start : start + _CHUNK]
                # Pillow releases the GIL while it decodes and resizes: threads use all cores.
                decoded = pool.map(lambda file: _decode(Path(file.path), self.side), chunk)
                for file, result in zip(chunk, decoded, strict=True):
                    if isinstance(result, ImageError):
                        self.found[file] = str(result)
                    else:
                        pixels.write(result[0].tobytes())
                        thumbnails.write(result[1].tobytes())
                        self.found[file] = self.rows
                        self.rows += 1
                    bar.update()
                for stream in (pixels, thumbnails):
                    stream.flush()
                    os.fsync(stream.fileno())
                # Keep only the latest state of each path.
                latest = {file.path: [*file, result] for file, result in self.found.items()}
                index = {"rows": self.rows, "files": list(latest.values())}
                write_text(self.folder / INDEX_NAME, json.dumps(index))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process writes this folder; the system ends the lock with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_NAME).open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _open_at(path: Path, offset: int) -> BinaryIO:
    """Open a file to write on after `offset` bytes; what a killed process left behind them is cut off."""
    stream = path.open("ab")
    stream.truncate(offset)
    return stream


def _decode(path: Path, side: int) -> tuple[np.ndarray, np.ndarray] | ImageError:
    try:
        path.open("rb").close()
    except OSError as error:  # not the image's fault and perhaps temporary: not remembered
        raise DataError(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        image = read_grey(path)
    except ImageError as error:
        return error
    return resize(image, side), resize(image, THUMBNAIL_SIDE)


def _damaged(path: Path, error: Exception, kind: str = "folder") -> DataError:
    if isinstance(error, PermissionError):
        return DataError(f"{path} cannot be read: {error.strerror}. Choose another --cache-dir.")
    return DataError(f"{path} is damaged ({error}); delete this {kind}, and it will be rebuilt.")
