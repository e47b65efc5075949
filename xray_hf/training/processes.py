"""The device and the processes of a run, and the communication between them."""

from __future__ import annotations

import ctypes
import os
import platform
from datetime import timedelta
from importlib.util import find_spec

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object, parse_flag_from_env, set_seed
from torch import nn

from xray_hf.errors import ConfigError
from xray_hf.training.config import Config


def make_accelerator(config: Config) -> Accelerator:
    """Choose device and number format, join the processes that `accelerate launch` started, seed them.

    Raises ConfigError for more processes than GPUs on this machine, fp16 without a GPU, a missing tracker.
    """
    wants_cpu = config.run.device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU")
    on_gpu = torch.cuda.is_available() and not wants_cpu
    if on_gpu:
        _require_a_gpu_each()
    tracker = None if config.run.track == "none" else config.run.track
    if tracker and find_spec(tracker) is None:
        raise ConfigError(f"--track {tracker} needs the package {tracker}; run `pip install {tracker}`.")
    precision = config.run.precision
    if precision == "auto":
        precision = "bf16" if _has_fast_bf16(on_gpu) else "fp32"
    if precision == "fp16" and not on_gpu:
        raise ConfigError("--precision fp16 needs an NVIDIA GPU; use bf16 or fp32 on this device.")
    set_seed(config.run.seed)
    return Accelerator(
        cpu=wants_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=tracker,
        project_dir=str(config.out),
        # While one process decodes a data set for the first time, the others wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )


def keep_freed_memory() -> None:
    """Let this process keep large blocks that it has freed, for the next step.

    glibc gives them back to the kernel at once, which fills them with zeros page by page when the next step
    asks again: on a CPU that costs a fifth to a third of training's time. Does nothing without glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: take blocks up to 1 GB from the heap
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and do not shrink it


def sum_over(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every process's `tensor`, known to all; on the tensor's own device."""
    if accelerator.num_processes == 1:
        return tensor
    summed: torch.Tensor = accelerator.reduce(tensor.to(accelerator.device), "sum")
    return summed.to(tensor.device)


def is_same_everywhere(value: object) -> bool:
    """Whether every process has an equal `value`."""
    values = gather_object([value])
    return all(other == values[0] for other in values)


def share_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Give all processes the first one's batch-norm statistics; each has seen its own rows only."""
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _require_a_gpu_each() -> None:
    """Raise ConfigError if processes of this machine would share a GPU, which NCCL refuses later on."""
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > gpus:
        raise ConfigError(
            f"{processes} processes were started on a machine with {gpus} GPU{'s' if gpus > 1 else ''}, and "
            f"each needs its own; use `accelerate launch --num_processes {gpus}`, or pass --device cpu."
        )


def _has_fast_bf16(on_gpu: bool) -> bool:
    if on_gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
