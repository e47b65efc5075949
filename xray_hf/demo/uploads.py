"""A visitor's files, and the members of ZIP archives, which are never unpacked to disk."""

from __future__ import annotations

import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from xray_hf.errors import ImageError
from xray_hf.folders import HIDDEN, companion, in_words, is_hidden
from xray_hf.reading import MAX_BYTES, Reading, read

MAX_FILES = 200  # at a time
_ZIP = b"PK\x03\x04"
_MAX_MEMBERS = 10_000  # of an archive, folders and companions included; its directory is read as a whole
_RATIO = 200  # unpacked to packed size, where pictures have about 1 and empty DICOM pixels some dozens
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Upload:
    """One file of a visitor.

    name: for people. content: returns path or bytes, or raises ImageError. path: the file on this computer;
    member: its name in that archive. `find` finds it again by these two; both are empty for what was refused.
    """

    name: str
    content: Callable[[], Path | bytes]
    path: str = ""
    member: str = ""

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


def unpack(paths: Iterable[str], left_out: Counter[str] | None = None) -> list[Upload]:
    """The files and the members of archives, in order, unread; one that cannot be opened has its error.

    A name has as many folders of its archive as set it apart from all others.

    Members that are hidden, or not images by their names, are left out; `left_out` counts them, by kind.
    Only the first MAX_FILES, so that one visitor does not keep all others waiting; one more upload says how
    many are left out.
    """
    counts: Counter[str] = Counter() if left_out is None else left_out
    found = [upload for path in paths for upload in _uploads(Path(path), counts)]
    names = _told_apart([upload.name for upload in found])
    found = [replace(upload, name=name) for upload, name in zip(found, names, strict=True)]
    if (more := len(found) - MAX_FILES) > 0:
        words = f"{more:,} more files are left out; send at most {MAX_FILES} at a time."
        found[MAX_FILES:] = [Upload.refused("the others", words)]
    return found


def find(path: str, member: str) -> Upload:
    """Find a file again, or a member of an archive by its name there; `member` is empty for the file itself.

    Refused, with the reason, if the file was deleted meanwhile or the member is not one of it.
    """
    uploads = list(_uploads(Path(path), Counter()))
    found = [upload for upload in uploads if upload.path and upload.member == member]
    if len(found) == 1:
        return replace(found[0], name=Path(member or path).name)
    if not any(upload.path for upload in uploads):
        return uploads[0]
    times = "occurs more than once" if found else "is not"
    return Upload.refused(member, f"{member or 'the X-ray'} {times} in {Path(path).name}.")


def _told_apart(paths: Sequence[str]) -> list[str]:
    """The shortest ends of paths that differ; equal paths are numbered."""
    parts = [path.split("/") for path in paths]
    depths = [1] * len(parts)
    while True:
        names = ["/".join(own[-depth:]) for own, depth in zip(parts, depths, strict=True)]
        times = Counter(names)
        unclear = [k for k, own in enumerate(parts) if times[names[k]] > 1 and depths[k] < len(own)]
        if not unclear:
            break
        for k in unclear:
            depths[k] += 1
    seen: Counter[str] = Counter()
    for k, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[k] = f"{name} ({seen[name]})"
    return names


def _uploads(path: Path, left_out: Counter[str]) -> Iterator[Upload]:
    """The uploads of a file or archive, named by their whole paths in it."""
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
        yield Upload(path.name, lambda: path, str(path))
        return
    members = [info for info in archive.infolist() if not info.is_dir()]
    own = Counter({f"after the first {_MAX_MEMBERS:,}": max(0, len(members) - _MAX_MEMBERS)})
    wanted = []
    for info in members[:_MAX_MEMBERS]:
        parts = _parts(info)
        kind = HIDDEN if any(map(is_hidden, parts)) else companion(parts[-1])
        if kind:
            own[kind] += 1
        else:
            wanted.append(info)
    left_out += own
    if not wanted:
        only = f", only {in_words(own)}" if +own else ""
        yield Upload.refused(path.name, f"{path.name} is a ZIP archive without images{only}.")
    for info in wanted:
        name = "/".join((path.name, *_parts(info)))
        yield Upload(name, partial(_member, archive, info), str(path), info.filename)


def _parts(info: zipfile.ZipInfo) -> list[str]:
    """A member's folders and name, as `a/é.png` or `a\\é.png` names them; é composed."""
    name = unicodedata.normalize("NFC", info.filename.replace("\\", "/"))
    return [part for part in name.split("/") if part not in ("", ".", "..")] or [info.filename]


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    name = _parts(info)[-1]
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
