"""Full float32 on a GPU, in place of TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

# Where torch says how it rounds, and the older switch, which keeps both of torch's interfaces readable.
_SETTINGS: tuple[tuple[Any, Any], ...] = (
    (torch.backends.cudnn.conv, torch.backends.cudnn),  # type: ignore[attr-defined]
    (torch.backends.cuda.matmul, torch.backends.cuda.matmul),
)
_lock = Lock()
_active = 0  # blocks now running, in all threads
_rounding: list[Any] = []  # the switches that were on before the first of them


@contextmanager
def full_float32() -> Iterator[None]:
    """In the block, a GPU multiplies in float32. By default torch lets it convolve in TF32.

    TF32 keeps 10 of the 23 bits of mantissa: too coarse for logits that are compared with those of another
    device. The setting is the whole process's; blocks may overlap in several threads, and the last one to end
    restores it.
    """
    global _active
    with _lock:
        if not _active:
            _rounding[:] = [switch for setting, switch in _SETTINGS if setting.fp32_precision == "tf32"]
            for switch in _rounding:
                switch.allow_tf32 = False
        _active += 1
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if not _active:
                for switch in _rounding:
                    switch.allow_tf32 = True
