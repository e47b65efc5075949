"""Atomic writing: a temporary name first, then a rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xray_hf.errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes that name.

    Raises OutputError when the folder or file cannot be written; an old `path` then stays as it was.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, because some writers choose the format by it.
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces `path` as a whole.

    Raises OutputError when it cannot be written; an old `path` then stays as it was.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            for file in temporary.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # some writers, safetensors for one, make files for their owner only
                    _sync(file)
            _put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a folder and its parents; remove them again if the body fails.

    Raises OutputError when it cannot be made, or files cannot be written there.
    """
    made: list[Path] = []
    try:
        with output_errors(path):
            made = [each for each in (path, *path.parents) if not each.exists()]
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        yield
    except BaseException:
        for each in made:
            with suppress(OSError):
                each.rmdir()
        raise


def require_new_folder(path: Path) -> None:
    """Raise OutputError unless `path` is an empty folder or does not exist."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not an empty folder; choose another --out.")


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically; raises OutputError."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; raises OutputError."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """Indented JSON, as a file's text."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _put_in_place(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; an old `path` is deleted afterwards, or stays if this fails."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
    try:
        with suppress(FileNotFoundError):
            path.replace(old)
        try:
            new.replace(path)
        except OSError:
            if any(old.iterdir()):
                old.replace(path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise OutputError for any OSError of the body, which writes `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}. Nothing was left half-written; "
            "check the space and the permissions there, or choose another folder."
        ) from error
