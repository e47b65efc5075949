"""Stop on a signal between two steps, not in the middle of one."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Signals:
    """Record SIGTERM and SIGINT inside this context, so that a loop can stop where nothing is lost."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
