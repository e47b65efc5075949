"""What is compared with other devices is computed in full float32 on a GPU, and only that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from test_training import make_trainer, one_process, one_thread

from xray_hf.inference import Engine
from xray_hf.models.full_float32 import full_float32
from xray_hf.models.lungs import LungCrop
from xray_hf.models.one_pass import OnePass
from xray_hf.training.lung_crops import crop_lungs

__all__ = ["one_process", "one_thread"]  # fixtures of every test that trains
CONVOLUTION = torch.backends.cudnn.conv


@pytest.fixture(autouse=True)
def tf32() -> Any:
    """What is set where nobody has chosen."""
    before, CONVOLUTION.fp32_precision = CONVOLUTION.fp32_precision, "tf32"
    yield
    assert CONVOLUTION.fp32_precision == "tf32"
    CONVOLUTION.fp32_precision = before


def watched(monkeypatch: pytest.MonkeyPatch, kind: type[torch.nn.Module]) -> list[str]:
    """The settings that modules of this kind will be called with."""
    seen: list[str] = []
    forward = kind.forward

    def watching(*args: Any, **kwargs: Any) -> Any:
        seen.append(CONVOLUTION.fp32_precision)
        return forward(*args, **kwargs)

    monkeypatch.setattr(kind, "forward", watching)
    return seen


def test_blocks_may_overlap_in_threads_and_end_by_an_error() -> None:
    both_inside, one_left = Barrier(2), Barrier(2)

    def short() -> None:
        with full_float32():
            both_inside.wait(10)
        one_left.wait(10)

    def long() -> str:
        with full_float32():
            both_inside.wait(10)
            one_left.wait(10)
            return CONVOLUTION.fp32_precision

    with ThreadPoolExecutor(2) as pool:
        pool.submit(short)
        assert pool.submit(long).result() == "ieee"
    with pytest.raises(ZeroDivisionError), full_float32():
        1 / 0  # noqa: B018


def test_training_may_round_and_the_predictions_of_a_bundle_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    seen = watched(monkeypatch, torch.nn.BatchNorm2d)
    trainer.fit()
    assert set(seen) == {"tf32"}
    seen.clear()
    trainer.predict(np.arange(4))
    assert set(seen) == {"ieee"}


def test_the_engine_on_torch_does_not_round(cnn_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.from_pretrained(cnn_bundle, backend="torch")
    seen = watched(monkeypatch, OnePass)
    engine.predict(np.zeros((64, 64), np.uint8))
    assert set(seen) == {"ieee"}


def test_lungs_are_found_without_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, lungs = make_trainer(tmp_path), LungCrop.load()
    seen = watched(monkeypatch, LungCrop)
    crop_lungs(lungs, trainer.pixels, 4, 64, trainer.accelerator, tmp_path)
    assert set(seen) == {"ieee"}
