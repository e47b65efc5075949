"""What all ways of training share, our own way, and the ceiling above it.

Every way is a function of a Job and an empty folder, and returns images per second.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from xray_hf.data.dataset import XrayData
from xray_hf.data.splits import Split
from xray_hf.models import create_model
from xray_hf.models.create import logits_of
from xray_hf.training.config import Config, preset_values, resolve
from xray_hf.training.loop import Trainer
from xray_hf.training.processes import keep_freed_memory, make_accelerator

TRAIN = Path(__file__).parents[1] / "train.py"


@dataclass(frozen=True)
class Job:
    """What to train on, and how long.

    steps: optimiser steps that are timed, after `warmup` others. workers: loader processes of plain PyTorch.
    hf_workers: those of transformers' Trainer, whose default is 0. device: "auto" or "cpu".
    preset: of ours. precision, compile: of ours and pure, as train.py has them.
    """

    model: str
    data: XrayData
    batch_size: int
    steps: int
    warmup: int
    workers: int
    hf_workers: int
    device: str
    preset: str = "paper"
    precision: str = "auto"
    compile: bool = False

    @property
    def torch_device(self) -> torch.device:
        """Where all ways train."""
        return torch.device("cuda" if torch.cuda.is_available() and self.device != "cpu" else "cpu")

    def rows(self, steps: int) -> np.ndarray:
        """Rows for so many batches: every image once, in random order, then again from the start."""
        order = np.random.default_rng(0).permutation(len(self.data.samples))
        return np.resize(order, steps * self.batch_size)

    def split(self, steps: int) -> Split:
        """The same rows as the training part of a split; one batch in each other part."""
        rows = self.rows(steps)
        return Split("paper", 0, rows, rows[: self.batch_size], rows[: self.batch_size])

    def config(self, out: Path) -> Config:
        """The preset's configuration, with one epoch to warm up and one to time."""
        own = {"model": self.model, "batch_size": self.batch_size, "device": self.device, "epochs": 2}
        own |= {"precision": self.precision, "compile": self.compile}
        folders = {"data_dir": self.data.reports[0].root, "out": str(out)}
        return resolve({**preset_values(self.preset, self.model), **own, **folders}, self.preset)

    def clock(self) -> float:
        """Seconds, read when all work given to the device is done."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def rate(self, training: Iterator[None]) -> float:
        """Images per second of an iterator that trains one step each time it is asked."""
        for _ in islice(training, self.warmup):
            pass
        started = self.clock()
        for _ in islice(training, self.steps):
            pass
        return self.steps * self.batch_size / (self.clock() - started)


def ours(job: Job, folder: Path) -> float:
    """xray_hf's own Trainer as train.py drives it: the second epoch's rate, which is what it logs itself."""
    return _rate_of(Trainer, job, folder)


def resident(job: Job, folder: Path) -> float:
    """Ours, with the pixels of all images on the device before the first step."""
    return _rate_of(ResidentTrainer, job, folder)


class ResidentTrainer(Trainer):
    """A trainer that takes its batches from pixels that it copied to the device."""

    def fit(self) -> list[dict[str, Any]]:
        """As Trainer.fit."""
        every = self.pixels.gather(np.arange(len(self.labels)))
        self.copied = torch.from_numpy(every).to(self.accelerator.device)
        return super().fit()

    def _load(self, batches: list[np.ndarray]) -> Iterator[torch.Tensor]:
        for rows in batches:
            yield self.copied[torch.from_numpy(rows).to(self.copied.device, non_blocking=True)]


def _rate_of(trainer_class: type[Trainer], job: Job, folder: Path) -> float:
    keep_freed_memory()
    config = job.config(folder)
    network, accelerator = create_model(job.model, pretrained=False), fresh_accelerator(config)
    data, split = job.data, job.split(job.steps)
    sources = np.asarray([sample.source for sample in data.samples])
    trainer = trainer_class(network, data.pixels, data.labels, sources, split, config, accelerator, {})
    with redirect_stderr(io.StringIO()):  # its line per epoch is of no interest here
        history = trainer.fit()
    return float(history[-1]["images_per_second"])


def pure(job: Job, folder: Path) -> float:
    """The ceiling: network, number format and optimiser of `ours` on one batch already on the device."""
    keep_freed_memory()
    config = job.config(folder)
    network, accelerator = create_model(job.model, pretrained=False), fresh_accelerator(config)
    device, side = accelerator.device, network.preprocessing.side
    module = network.module.to(device, memory_format=torch.channels_last).train()
    model = torch.compile(module) if job.compile else module
    optimizer = torch.optim.Adam(module.parameters(), lr=config.optimization.learning_rate, fused=True)
    images = torch.randn(job.batch_size, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(len(network.classes), (job.batch_size,), device=device)

    def train() -> Iterator[None]:
        while True:
            with accelerator.autocast():
                logits = logits_of(model(images)).float()
            update(logits, labels, optimizer)
            yield

    return job.rate(train())


def update(logits: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The second half of a training step: (B, C) logits and (B,) labels -> new weights."""
    nn.functional.cross_entropy(logits, labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def fresh_accelerator(config: Config) -> Accelerator:
    """The accelerator of train.py, whatever an earlier way left behind."""
    # One process has one state of accelerate, and transformers' Trainer sets it to float32.
    AcceleratorState._reset_state(reset_partial_state=True)
    return make_accelerator(config)
