"""Keep libraries that log what is in a file from doing so while we read one, and only then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_thread = threading.local()


class _NotWhileReading(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_thread, "is_reading", False)


@contextmanager
def silenced(logger: str) -> Iterator[None]:
    """Drop what this thread tells that logger; other threads, and calls that are not ours, log as ever."""
    found = logging.getLogger(logger)
    if not any(isinstance(each, _NotWhileReading) for each in found.filters):
        found.addFilter(_NotWhileReading())
    _thread.is_reading = True
    try:
        yield
    finally:
        _thread.is_reading = False
