"""What is compared with other devices is computed in full float32 on a GPU, and only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import make_trainer, one_thread

from xray_hf.inference import Engine
from xray_hf.models.full_float32 import full_float32
from xray_hf.models.lungs import LungCrop
from xray_hf.models.one_pass import OnePass
from xray_hf.training.lung_crops import crop_lungs

__all__ = ["one_thread"]  # a fixture of every test that trains
ROUNDED, FULL = (True, True), (False, False)


@pytest.fixture(autouse=True)
def tf32() -> Any:
    """Rounding in convolutions, as by default, and in products of matrices."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    assert setting() == ROUNDED
    torch.backends.cuda.matmul.allow_tf32 = False


def setting() -> tuple[bool, bool]:
    """Whether torch rounds in convolutions, and in products of matrices."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def watched(monkeypatch: pytest.MonkeyPatch, kind: type[torch.nn.Module]) -> list[tuple[bool, bool]]:
    """The settings that modules of this kind will be called with."""
    seen: list[tuple[bool, bool]] = []
    forward = kind.forward

    def watching(*args: Any, **kwargs: Any) -> Any:
        seen.append(setting())
        return forward(*args, **kwargs)

    monkeypatch.setattr(kind, "forward", watching)
    return seen


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_blocks_may_overlap(first_to_end: int) -> None:
    blocks = [full_float32(), full_float32()]
    for block in blocks:
        block.__enter__()
        assert setting() == FULL
    blocks.pop(first_to_end).__exit__(None, None, None)
    assert setting() == FULL
    blocks.pop().__exit__(None, None, None)
    assert setting() == ROUNDED


def test_an_error_ends_a_block_and_what_was_full_before_stays_so() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    with pytest.raises(ZeroDivisionError), full_float32():
        1 / 0  # noqa: B018
    assert setting() == (True, False)
    torch.backends.cuda.matmul.allow_tf32 = True


def test_training_may_round_and_the_predictions_of_a_bundle_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    seen = watched(monkeypatch, torch.nn.BatchNorm2d)
    trainer.fit()
    assert set(seen) == {ROUNDED}
    seen.clear()
    trainer.predict(np.arange(4))
    assert set(seen) == {FULL}


def test_the_engine_on_torch_does_not_round(cnn_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.from_pretrained(cnn_bundle, backend="torch")
    seen = watched(monkeypatch, OnePass)
    engine.predict(np.zeros((64, 64), np.uint8))
    assert set(seen) == {FULL}


def test_lungs_are_found_without_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, lungs = make_trainer(tmp_path), LungCrop.load()
    seen = watched(monkeypatch, LungCrop)
    crop_lungs(lungs, trainer.pixels, 4, 64, trainer.accelerator, tmp_path)
    assert set(seen) == {FULL}
