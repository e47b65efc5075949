"""Full float32 on a GPU, in place of TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_lock = Lock()
_blocks = 0  # that are running, in any thread
_before = ""  # the first of them began


@contextmanager
def full_float32() -> Iterator[None]:
    """In the block, a GPU convolves in float32; cuDNN's default is TF32, with 10 of the 23 bits of mantissa.

    That is too coarse for logits that are compared with those of another device. Blocks may overlap in
    several threads; the process's own setting comes back after the last.
    """
    global _blocks, _before
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    with _lock:
        if not _blocks:
            _before, convolution.fp32_precision = convolution.fp32_precision, "ieee"
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                convolution.fp32_precision = _before
