"""List the files below a folder: those that may be images, and those whose names show that they are not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xray_hf.errors import DataError

# Files that accompany images, by suffix or whole name, in lower case.
COMPANIONS = frozenset(
    {".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".txt", ".md", ".parquet"}
    | {".xml", ".yaml", ".yml", ".html", "dicomdir", "thumbs.db", "desktop.ini"}
)
HIDDEN = "hidden"
# Folders of macOS, of Synology's disks and of Windows, with thumbnails or deleted files.
_SERVICE = frozenset({"__macosx", "@eadir", "$recycle.bin"})


@dataclass(frozen=True)
class Listing:
    """The files below a folder.

    images: files that may be images. companions: files that are not. Both are sorted. left_out: {kind: how
    many} of everything that is not in `images`, by suffix or name; a hidden folder counts as one.
    """

    images: list[Path]
    companions: list[Path]
    left_out: Counter[str]


def list_files(folder: Path, besides: Path | None = None, advice: str = "") -> Listing:
    """List every file below a folder, visiting each folder once, however many links lead to it.

    Links to folders are followed, except to those that hold `folder` itself. A broken link counts as an
    image, so that it is reported as unreadable. besides: a subfolder to leave out. advice: ends the error.
    Raises DataError if a folder cannot be listed.
    """

    def fail(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}. {advice}".rstrip()) from error

    found = Listing([], [], Counter())
    around = set(folder.resolve().parents)
    seen = {besides.resolve()} - {folder.resolve()} if besides else set()
    waiting = [folder]  # links last, so that a file reached both ways is listed without them
    while waiting:
        for parent, inner, names in os.walk(waiting.pop(0), onerror=fail):
            here, real = Path(parent), Path(parent).resolve()
            shown = [name for name in inner if not is_hidden(name)]
            found.left_out[HIDDEN] += len(inner) - len(shown)
            inner[:] = shown
            if real in around:
                found.left_out["link to a folder around it"] += 1
            if real in seen or real in around:
                inner.clear()
                continue
            seen.add(real)
            waiting += sorted(here / name for name in shown if (here / name).is_symlink())
            for name in names:
                _sort_in(here / name, found)
    found.images.sort(key=str)
    found.companions.sort(key=str)
    return Listing(found.images, found.companions, +found.left_out)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or belongs to the operating system."""
    return name.startswith(".") or name.lower() in _SERVICE


def companion(name: str) -> str | None:
    """The lower-case suffix or name that shows that a file is not an image; None if it may be one."""
    path = Path(name.lower())
    return next((each for each in (path.name, path.suffix) if each in COMPANIONS), None)


def in_words(left_out: Mapping[str, int]) -> str:
    """The files left out, in words: "2 .csv, 1 hidden"; "" if there are none."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()) if count)


def kinds(names: Iterable[str | Path]) -> Counter[str]:
    """{kind: how many} of companions."""
    return Counter(kind for name in names if (kind := companion(str(name))))


def _sort_in(path: Path, found: Listing) -> None:
    kind = HIDDEN if is_hidden(path.name) else companion(path.name)
    if kind is None and path.exists() and not path.is_file():  # reading a pipe would never end
        kind = "pipe or device"
    if kind is None:
        found.images.append(path)
        return
    found.left_out[kind] += 1
    if kind in COMPANIONS:
        found.companions.append(path)
