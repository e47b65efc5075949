"""A visitor's files, and the members of ZIP archives, which are never unpacked to disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from xray_hf.errors import ImageError
from xray_hf.reading import MAX_BYTES, Reading, read

MAX_FILES = 200  # at a time
_ZIP = b"PK\x03\x04"
_MAX_MEMBERS = 10_000  # of an archive, folders and companions included; its directory is read as a whole
_RATIO = 200  # unpacked to packed size, where pictures have about 1 and empty DICOM pixels some dozens
# Members that file managers add.
_COMPANIONS = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Upload:
    """One file of a visitor. name: without folders. content: returns path or bytes, or raises ImageError."""

    name: str
    content: Callable[[], Path | bytes]

    @classmethod
    def refused(cls, name: str, words: str) -> Upload:
        """A file without content, and why."""

        def refuse() -> bytes:
            raise ImageError(words)

        return cls(name, refuse)

    def read(self) -> Reading | ImageError:
        """The X-ray in it, or why there is none."""
        try:
            return read(self.content())
        except ImageError as error:
            return error


def unpack(paths: Iterable[str]) -> list[Upload]:
    """The files and the members of archives, in order, unread; one that cannot be opened has its error.

    Only the first MAX_FILES, so that one visitor does not keep all others waiting; the last one says so.
    """
    found = [upload for path in paths for upload in _uploads(Path(path))]
    if (left_out := len(found) - MAX_FILES) > 0:
        words = f"{left_out:,} more files are left out; send at most {MAX_FILES} at a time."
        found[MAX_FILES:] = [Upload.refused("the others", words)]
    return found


def _uploads(path: Path) -> Iterator[Upload]:
    try:
        # Left open for its members, since each opening reads the whole directory; it closes with the last.
        archive = zipfile.ZipFile(path) if _is_zip(path) else None
    except OSError:
        yield Upload.refused(path.name, f"{path.name} is too old and was deleted here; upload it again.")
        return
    except _DAMAGE:
        yield Upload.refused(path.name, f"{path.name} is a damaged ZIP archive; pack it again.")
        return
    if archive is None:
        yield Upload(path.name, lambda: path)
        return
    infos = archive.infolist()[:_MAX_MEMBERS]
    wanted = [info for info in infos if not info.is_dir() and not _is_companion(info)]
    if not wanted:
        yield Upload.refused(path.name, f"{path.name} is a ZIP archive without files.")
    for info in wanted:
        yield Upload(PurePosixPath(info.filename).name, partial(_member, archive, info))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _is_companion(info: zipfile.ZipInfo) -> bool:
    return any(part in _COMPANIONS or part.startswith("._") for part in PurePosixPath(info.filename).parts)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    name = PurePosixPath(info.filename).name
    if info.flag_bits & 1:
        raise ImageError(f"{name} is encrypted in its archive; pack it without a password.")
    if info.file_size > MAX_BYTES or info.file_size > _RATIO * max(info.compress_size, 1000):
        raise ImageError(
            f"{name} would unpack from {info.compress_size:,} to {info.file_size:,} bytes, which no X-ray "
            "does; send it on its own."
        )
    try:
        with archive.open(info) as member:
            content = member.read(info.file_size + 1)  # the size is what the archive claims, not a promise
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged in its archive; pack it again.") from error
    if len(content) != info.file_size:
        raise ImageError(f"{name} has another size than its archive says; pack it again.")
    return content
