"""How scripts/train_lungs.py and scripts/train_quality.py fit their networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

WEIGHT_DECAY, WARM_UP = 0.02, 0.2  # of AdamW; the share of the steps in which its rate rises

Net = TypeVar("Net", bound=nn.Module)


def fit(net: Net, steps: int, rate: float, decay: float, loss_at: Callable[[int], torch.Tensor]) -> Net:
    """Fit a network with AdamW and one cycle of its rate; the average of its weights, for evaluation.

    rate: the largest. decay: of the average. loss_at: the loss of the network at a step, 0 to steps - 1.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=WARM_UP)
    average = ModelEmaV3(net, decay=decay, use_warmup=True)
    for step in tqdm(range(steps), unit=" steps", disable=None):
        loss_at(step).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        average.update(net, step=step + 1)
    averaged: Net = average.module.eval()
    return averaged
