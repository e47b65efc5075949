"""Logits -> probabilities: the one softmax that predictions, fits and the engine share.

NumPy only, because the engine runs without SciPy.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", np.float32, np.float64)


def softmax(logits: NDArray[Float], temperature: float = 1.0) -> NDArray[Float]:
    """(N, C) logits, divided by the temperature (Guo et al. 2017) -> (N, C); rows sum to 1."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))  # the largest is 1, so nothing overflows
    return powers / powers.sum(axis=1, keepdims=True)
