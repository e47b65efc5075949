"""What the readers share: find a collection's table and images, and read the table row by row."""

from __future__ import annotations

import csv
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from xray_hf.data.sources import KINDS, reader
from xray_hf.errors import DataError
from xray_hf.files import COMPANIONS


def require_folder(place: str | Path, how_to_get: str) -> Path:
    """The folder at `place`; raises DataError if there is none."""
    folder = Path(place)
    try:
        if folder.is_dir():
            return folder
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. {how_to_get}") from error
    raise DataError(f"{folder} is not a folder. {how_to_get}")


def read_table(
    folder: Path, names: Sequence[str], columns: Sequence[str], how_to_get: str, optional: Sequence[str] = ()
) -> tuple[Path, list[dict[str, str]]]:
    """The first of `names` that the folder holds, and its rows as read_rows gives them.

    Raises DataError, which names the right kind of source where it can.
    """
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds no {' or '.join(names)}. {right_kind(folder) or how_to_get}")
    if not has_table(folder, (path.name,), columns):
        how_to_get = right_kind(folder) or how_to_get
    return path, read_rows(path, columns, how_to_get, optional)


def has_table(folder: Path, names: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether the folder holds one of these CSV files with all `columns`."""
    return any(set(columns) <= set(_header(folder / name)) for name in names)


def right_kind(folder: Path) -> str:
    """A sentence that names the kind in whose layout a folder is; "" for none."""
    kind = next((kind for kind in KINDS if reader(kind).fits(folder)), None)
    return f"It has the layout of {kind}: pass --source {kind}={folder}." if kind else ""


def read_rows(
    path: Path, columns: Sequence[str], how_to_get: str, optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The columns of a CSV, row by row, without blanks around names and cells; a missing cell is "".

    how_to_get: ends every error. optional: columns that may be missing; their cells are "" then.
    Raises DataError if the file cannot be read or lacks one of `columns`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            table.fieldnames = header = [name.strip() for name in table.fieldnames or ()]
            if missing := [column for column in columns if column not in header]:
                found = ", ".join(header) or "none"
                hint = "Separate the columns with commas, not ';'. " if ";" in found else ""
                raise DataError(
                    f"{path} has no column {', '.join(missing)}; found: {found}. {hint}{how_to_get}"
                )
            wanted = (*columns, *optional)
            return [{column: (row.get(column) or "").strip() for column in wanted} for row in table]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. {how_to_get}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file ({error}). {how_to_get}") from error


def without_repeats(
    rows: Iterable[dict[str, str]], key: str, table: Path, repeated: list[str]
) -> Iterator[dict[str, str]]:
    """The rows, each name in the column `key` once; names of further rows that say the same go to `repeated`.

    Raises DataError for two rows of one name that differ.
    """
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        name = row[key]
        if name not in seen:
            seen[name] = row
            yield row
        elif seen[name] == row:
            repeated.append(name)
        else:
            raise DataError(
                f"{table} has two different rows for {name}: "
                f"{list(seen[name].values())} and {list(row.values())}; keep the right one."
            )


def normal_name(name: str) -> str:
    r"""A path as tables and disks may both write it: './a\é.png' -> 'a/é.png', é composed."""
    return posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted; none where it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def images_below(folder: Path, how_to_get: str) -> dict[str, Path]:
    """{normal name below the folder: file} of all that may be images, sorted.

    Links to folders are followed, each folder once. Hidden files and folders are left out, and files that
    are known to be no images. Raises DataError if a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}. {how_to_get}") from error

    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here, real = Path(parent), Path(parent).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        inner = here.relative_to(folder)
        for name in names:
            low = name.lower()
            if low[0] == "." or {low, posixpath.splitext(low)[1]} & COMPANIONS:
                continue
            path = here / name
            if path.is_file():
                found[normal_name(f"{inner}/{name}")] = path
    return dict(sorted(found.items()))


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [cell.strip() for cell in next(csv.reader(stream), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
