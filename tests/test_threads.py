"""A generator with threads can be closed anywhere: it does not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from xray_hf.inference import Engine
from xray_hf.training.batches import load_ahead


class Block:
    """Work that is stuck until the test ends."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = Event(), Event()

    def work(self) -> None:
        self.has_begun.set()
        self.may_end.wait(60)


@pytest.fixture
def block() -> Iterator[Block]:
    block = Block()
    yield block
    block.may_end.set()


def streaming(block: Block, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An engine's answers; all but the first are stuck."""
    engine, first = Engine.from_pretrained(bundle, threads=1), np.zeros((64, 64), np.uint8)
    answer = engine._answer

    def answering(sources: Any, *given: Any) -> Any:
        return answer(sources, *given) if sources[0] is first else block.work()

    monkeypatch.setattr(engine, "_answer", answering)
    return engine.stream([first, *(np.ones((64, 64), np.uint8) for _ in range(2))], batch_size=1)


def loading(block: Block, *_: Any) -> Iterator[Any]:
    """Batches of pixels; all but the first are stuck."""

    class Pixels:
        def gather(self, rows: np.ndarray) -> np.ndarray:
            if rows[0]:
                block.work()
            return np.zeros((len(rows), 8, 8), np.uint8)

    return load_ahead(Pixels(), [np.array([number]) for number in range(3)])


@pytest.mark.parametrize("start", [streaming, loading])
def test_a_generator_is_closed_while_its_threads_work(
    start: Callable[..., Any], block: Block, cnn_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = start(block, cnn_bundle, monkeypatch)
    next(generator)
    assert block.has_begun.wait(10)
    closing = Thread(target=generator.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
