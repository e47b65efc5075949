"""pydicom without a word, for the thread that is reading and for no other.

Its warnings and log records quote the values of tags, which may name the patient. The filters of `warnings`
belong to the whole process and cannot be changed safely while threads run. So pydicom's own view of that
module is replaced by one that drops `warn` while the calling thread is inside `quiet`, and is the module
itself for everyone else; its loggers get a filter that does the same.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import misc
from pydicom.pixels import utils
from pydicom.pixels.decoders import base

_thread = threading.local()


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom warn and log nothing in this thread."""
    before = _is_quiet()
    _thread.is_quiet = True
    try:
        yield
    finally:
        _thread.is_quiet = before


def _is_quiet() -> bool:
    return getattr(_thread, "is_quiet", False)


class _Warnings:
    """The module `warnings`, as pydicom sees it."""

    def __getattr__(self, name: str) -> Any:
        return _drop if name == "warn" and _is_quiet() else getattr(warnings, name)


def _drop(*args: Any, **options: Any) -> None: ...


def _keep(record: logging.LogRecord) -> bool:
    return not _is_quiet()


vars(misc)["warnings"] = _Warnings()  # the one place where pydicom warns
for _logger in (misc.LOGGER, utils.LOGGER, base.LOGGER):
    _logger.addFilter(_keep)
