"""Random changes of training images, on the device, before normalisation."""

from __future__ import annotations

import torch


def random_flip(pixels: torch.Tensor) -> torch.Tensor:
    """Mirror each image with probability 1/2: (B, H, W) uint8 -> same.

    Draws from torch's CPU generator, whose state a checkpoint holds, whatever the device.
    """
    chosen = torch.rand(len(pixels)) < 0.5
    return torch.where(chosen.to(pixels.device, non_blocking=True)[:, None, None], pixels.flip(-1), pixels)
