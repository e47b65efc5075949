"""Logits of any rows, each predicted exactly once, whatever the number of processes."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from xray_hf.data.cache import PixelSource
from xray_hf.models.create import Network, logits_of
from xray_hf.models.full_float32 import full_float32
from xray_hf.training.batches import load_ahead
from xray_hf.training.processes import sum_over

BATCH = 64  # images per forward pass and process


@torch.inference_mode()
def predict_rows(
    module: nn.Module,
    network: Network,
    pixels: PixelSource,
    rows: np.ndarray,
    accelerator: Accelerator,
    *,
    autocast: bool,
) -> np.ndarray:
    """Predict rows in evaluation mode: (n,) row numbers, repeats allowed -> (n, C) float32, in their order.

    module: the network's own, or the average of its weights.
    autocast: in the run's number format, else in float32. Every process predicts a share of the distinct rows
    and all get the whole. Raises RuntimeError if a row was not filled exactly once.
    """
    module.eval()
    unique, where = np.unique(rows, return_inverse=True)
    own = np.arange(accelerator.process_index, len(unique), accelerator.num_processes)
    parts = [own[start : start + BATCH] for start in range(0, len(own), BATCH)]
    filled = torch.zeros(len(unique), len(network.classes) + 1, device=accelerator.device)
    for part, grey in zip(parts, load_ahead(pixels, [unique[part] for part in parts]), strict=True):
        with accelerator.autocast() if autocast else full_float32():
            logits = logits_of(module(network.preprocessing.normalise(grey.to(accelerator.device)))).float()
        filled[part] = nn.functional.pad(logits, (0, 1), value=1)  # the last column counts
    filled = sum_over(accelerator, filled)
    if not bool((filled[:, -1] == 1).all()):
        raise RuntimeError("a row was predicted not at all, or twice")
    return filled[:, :-1].cpu().numpy()[where]
