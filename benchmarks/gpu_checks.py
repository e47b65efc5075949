"""Does training on this GPU do what it does on a CPU? Checks that come before any number of its speed.

Each check is a function of a Job and an empty folder. It returns what it measured, with `holds`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ways import TRAIN, Job, fresh_accelerator

from xray_hf.models import create_model
from xray_hf.models.full_float32 import full_float32
from xray_hf.training.loop import Trainer

STEPS = 10
CLOSE = 1e-3  # of a loss


def losses(job: Job, folder: Path) -> dict[str, Any]:
    """The losses of the first ten steps in float32: equal to the CPU's within 1e-3."""
    exact = replace(job, precision="fp32", steps=STEPS)
    with exact_arithmetic():
        on_gpu, on_cpu = (
            fit(replace(exact, device=device), folder / device, stop_after=1, dropout=False).losses
            for device in ("auto", "cpu")
        )
    differences = [abs(one - other) for one, other in zip(on_gpu, on_cpu, strict=True)]
    return {"holds": max(differences) <= CLOSE, "differences": differences, "losses": on_gpu}


def resume(job: Job, folder: Path) -> dict[str, Any]:
    """A run that stops after one epoch and is resumed: the weights of a run that never stopped."""
    with exact_arithmetic():
        whole = fit(job, folder / "whole").network.module.state_dict()
        fit(job, folder / "parts", stop_after=1)
        parts = fit(job, folder / "parts", resume=True).network.module.state_dict()
    different = [name for name, value in whole.items() if not torch.equal(value, parts[name])]
    return {"holds": not different, "different tensors": different}


def loss_falls(job: Job, folder: Path) -> dict[str, Any]:
    """The loss falls, in the job's number format."""
    found = fit(job, folder).losses
    first, last = (float(np.mean(part)) for part in (found[:STEPS], found[-STEPS:]))
    return {"holds": bool(np.isfinite(found).all()) and last < first, "first": first, "last": last}


def processes(job: Job, folder: Path) -> dict[str, Any]:
    """Two processes on one GPU: refused with one sentence, and an exit code that is not 0."""
    options = ["--data-dir", str(job.data.reports[0].root), "--out", str(folder / "run")]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [*launch, str(TRAIN), "--preset", "smoke", "--model", job.model, "--no-pretrained", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = {line for line in done.stderr.splitlines() if line.startswith("error:")}
    is_refused = done.returncode != 0 and len(errors) == 1
    return {"holds": is_refused, "exit code": done.returncode, "stderr": done.stderr[-2000:]}


class Recorder(Trainer):
    """A trainer that keeps the mean loss of each step, and can stop after an epoch as by a kill."""

    losses: list[float]
    stop_after: int = 0

    def _train_step(self, pixels: torch.Tensor, rows: np.ndarray, total: int) -> torch.Tensor:
        sums = super()._train_step(pixels, rows, total)
        self.losses.append(float(sums[0] / sums[2]))
        return sums

    def _is_finished(self) -> bool:
        return super()._is_finished() or 0 < self.stop_after <= self.progress.epoch


def fit(
    job: Job, folder: Path, *, stop_after: int = 0, resume: bool = False, dropout: bool = True
) -> Recorder:
    """Train the job's two epochs, or the first alone. dropout: the network's own, which each device draws."""
    config = job.config(folder)
    config = replace(config, run=replace(config.run, resume=resume))
    accelerator = fresh_accelerator(config)  # it seeds the weights, too
    network = create_model(job.model, pretrained=False)
    for module in network.module.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    sources = np.asarray([sample.source for sample in job.data.samples])
    split = job.split(job.steps)
    trainer = Recorder(network, job.data.pixels, job.data.labels, sources, split, config, accelerator, {})
    trainer.losses, trainer.stop_after = [], stop_after
    trainer.fit()
    return trainer


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Deterministic kernels, and float32 that is not rounded to TF32."""
    torch.use_deterministic_algorithms(True)
    try:
        with full_float32():
            yield
    finally:
        torch.use_deterministic_algorithms(False)
