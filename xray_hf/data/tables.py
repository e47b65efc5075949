"""Helpers that the readers share: find a collection's table and images, read the table row by row."""

from __future__ import annotations

import codecs
import csv
import io
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from xray_hf.data.sources import KINDS, reader
from xray_hf.errors import DataError
from xray_hf.folders import is_hidden, list_files


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
    """The path of the first of `names` that the folder holds, and its rows as read_rows gives them.

    Raises DataError, which names the right kind of source where it can.
    """
    path = next(iter(files_of(folder, names)), None)
    if path is None:
        raise DataError(f"{folder} holds no {' or '.join(names)}. {right_kind(folder) or how_to_get}")
    if not has_table(folder, (path.name,), columns):
        how_to_get = right_kind(folder) or how_to_get
    return path, read_rows(path, columns, how_to_get, optional)


def files_of(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names in a folder, in the order of `names`; case is ignored."""
    try:
        there = {path.name.lower(): path for path in sorted(folder.iterdir())}
    except OSError:
        return []
    found = (there[name.lower()] for name in names if name.lower() in there)
    return [path for path in found if path.is_file()]


def has_table(folder: Path, names: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether the folder holds one of these tables with all `columns`."""
    try:
        return any(set(columns) <= set(_parse(path, columns)[0]) for path in files_of(folder, names))
    except (OSError, ValueError, csv.Error):
        return False


def right_kind(folder: Path) -> str:
    """A sentence that names the kind whose layout a folder has; "" if there is none."""
    kind = next((kind for kind in KINDS if reader(kind).fits(folder)), None)
    return f"It has the layout of {kind}: pass --source {kind}={folder}." if kind else ""


def read_rows(
    path: Path, columns: Sequence[str], how_to_get: str, optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The columns of a table, row by row, without blanks around names and cells; a missing cell is "".

    Takes CSV (RFC 4180) with commas, semicolons or tabs, in UTF-8, or UTF-16 with a byte order mark, as
    spreadsheets write it. Rows without any text are left out.
    how_to_get: ends every error. optional: columns that may be missing; their cells are "" then.
    Raises DataError if the file cannot be read, lacks one of `columns` or has one twice, and for a row with
    more cells than the header.
    """
    try:
        header, rows = _parse(path, columns)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. {how_to_get}") from error
    except UnicodeError as error:
        raise DataError(
            f"{path} is neither UTF-8 nor UTF-16 with a byte order mark; save it as CSV UTF-8. {how_to_get}"
        ) from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file ({error}). {how_to_get}") from error
    wanted = [*columns, *(column for column in optional if column in header)]
    if missing := [column for column in columns if column not in header]:
        found = ", ".join(header) or "none"
        raise DataError(f"{path} has no column {', '.join(missing)}; found: {found}. {how_to_get}")
    if twice := [column for column in wanted if header.count(column) > 1]:
        raise DataError(f"{path} has two columns {twice[0]}; keep one. {how_to_get}")
    if longer := next((number for number, row in enumerate(rows, 1) if any(row[len(header) :])), None):
        raise DataError(
            f"{path} has {len(header)} columns, but row {longer} has more cells: "
            f"{', '.join(rows[longer - 1])}. "
            'Put any text that contains the separator in quotes, "a,b".'
        )
    places = {column: header.index(column) for column in wanted}
    empty = dict.fromkeys(optional, "")
    return [
        empty | {column: row[place] if place < len(row) else "" for column, place in places.items()}
        for row in rows
    ]


def without_repeats(
    rows: Iterable[dict[str, str]], key: str, table: Path, repeated: list[str]
) -> Iterator[dict[str, str]]:
    """Yield the rows, each name in the column `key` once; names of identical repeats go to `repeated`.

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
    r"""Normalise a path, so that tables and disks agree on it: './a\é.png' -> 'a/é.png', é composed."""
    return posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted; none where it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    except OSError:
        return []


def images_below(folder: Path, how_to_get: str) -> dict[str, Path]:
    """{normal name below the folder: file} of all that may be images, sorted, as list_files finds them.

    Raises DataError if a folder cannot be read, and as by_name does.
    """
    return by_name(folder, list_files(folder, advice=how_to_get).images)


def by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """{normal name below the folder: file}, sorted; raises DataError for two files of one name."""
    found: dict[str, Path] = {}
    for path in files:
        name = normal_name(path.relative_to(folder).as_posix())
        if name in found:
            raise DataError(f"{folder} holds two files whose names look alike, {name}; rename one.")
        found[name] = path
    return dict(sorted(found.items()))


def _parse(path: Path, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The header of a table and its rows, without blanks around the cells.

    The separator is the first of comma, semicolon and tab that finds `columns`, else the one that finds most.
    Raises OSError, UnicodeError, csv.Error.
    """
    text = _text(path)
    found: list[list[str]] = []
    for separator in ",;\t":
        table = csv.reader(io.StringIO(text, ""), delimiter=separator, skipinitialspace=True)
        lines = ([cell.strip() for cell in row] for row in table)
        rows = (row for row in lines if any(row))
        header = next(rows, [])
        if set(columns) <= set(header):
            return header, list(rows)
        found.append(header)
    return max(found, key=len), []


def _text(path: Path) -> str:
    """Raises OSError, UnicodeError."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if b"\0" in data:
        raise UnicodeError("binary, or UTF-16 that does not say so")
    return data.decode("utf-8-sig")
