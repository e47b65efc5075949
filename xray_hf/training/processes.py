"""The device and the processes of a run, what they tell each other, and the signals that stop them."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from xray_hf.training.config import Config


def make_accelerator(config: Config) -> Accelerator:
    """Choose device and number format, join the processes that `accelerate launch` started, seed them."""
    wants_cpu = config.run.device == "cpu"
    precision = config.run.precision
    if precision == "auto":
        precision = "bf16" if _has_fast_bf16(wants_cpu) else "fp32"
    set_seed(config.run.seed)
    return Accelerator(
        cpu=wants_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=None if config.run.track == "none" else config.run.track,
        project_dir=str(config.out),
    )


def sum_over(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every process's `tensor`, known to all; on the tensor's own device."""
    if accelerator.num_processes == 1:
        return tensor
    summed: torch.Tensor = accelerator.reduce(tensor.to(accelerator.device), "sum")
    return summed.to(tensor.device)


def share_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Give all processes the first one's batch-norm statistics; each has seen its own rows only."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


class Signals:
    """Inside this context SIGTERM and SIGINT are noted, so that the state can be saved between two steps."""

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


def _has_fast_bf16(wants_cpu: bool) -> bool:
    if torch.cuda.is_available() and not wants_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
