"""Silence libraries while we read a file: in our thread, and in no other.

Their warnings and log records quote what is in the file, which may name the patient. The filters of
`warnings` belong to the whole process and cannot be changed safely while threads run. So a library's own view
of that module is replaced by one that drops `warn` inside `quiet`, and is the module itself for everyone
else; its loggers get a filter that does the same.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_thread = threading.local()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence, in this thread, the libraries that `can_be_quiet` has prepared."""
    before = _is_quiet()
    _thread.is_quiet = True
    try:
        yield
    finally:
        _thread.is_quiet = before


def can_be_quiet(*loggers: logging.Logger, warns: ModuleType | None = None) -> None:
    """Prepare a library, once. loggers: its loggers. warns: its module that calls `warnings.warn`."""
    for logger in loggers:
        logger.addFilter(_keep)
    if warns is not None:
        vars(warns)["warnings"] = _Warnings()


def _is_quiet() -> bool:
    return getattr(_thread, "is_quiet", False)


class _Warnings:
    """The module `warnings`, as the library sees it."""

    def __getattr__(self, name: str) -> Any:
        return _drop if name == "warn" and _is_quiet() else getattr(warnings, name)


def _drop(*args: Any, **options: Any) -> None: ...


def _keep(record: logging.LogRecord) -> bool:
    return not _is_quiet()
