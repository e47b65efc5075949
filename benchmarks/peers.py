"""The peers: what the common PyTorch and transformers example scripts do on the same images.

Every way is a function of a Job and an empty folder, and returns images per second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import default_loader
from transformers import (
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from ways import Job, update

from xray_hf.data.dataset import XrayData, to_dataset_dict
from xray_hf.models import create_model
from xray_hf.models.create import IMAGENET_MEAN, IMAGENET_STD, RESNET18, logits_of
from xray_hf.task import PAPER_CLASSES

Transform = Callable[[Image.Image], torch.Tensor]


def plain(job: Job, folder: Path) -> float:
    """A plain PyTorch loop: JPEG files, torchvision transforms, DataLoader, float32, Adam."""
    device = job.torch_device
    network = create_model(job.model, pretrained=False)
    module = network.module.to(device).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    # More batches than are trained on: else the workers would be idle while the last ones are timed.
    rows = job.rows(job.warmup + job.steps + 2 * job.workers)
    files = ImageFiles(job.data, rows, transform_of(network.preprocessing.side))
    loader = DataLoader(
        files, job.batch_size, shuffle=True, num_workers=job.workers, pin_memory=device.type == "cuda"
    )

    def train() -> Iterator[None]:
        for images, labels in loader:
            update(logits_of(module(images.to(device))), labels.to(device), optimizer)
            yield

    return job.rate(train())


def hf(job: Job, folder: Path) -> float:
    """transformers' Trainer with default arguments on a `datasets.Dataset`, float32, AdamW."""
    AcceleratorState._reset_state(reset_partial_state=True)  # ours has set it to its own number format
    steps = job.warmup + job.steps
    dataset = to_dataset_dict(job.data, job.split(steps))["train"]
    transform = transform_of(job.data.side)

    def prepare(rows: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": [transform(i.convert("RGB")) for i in rows["image"]], "labels": rows["label"]}

    dataset.set_transform(prepare)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=job.batch_size,
        dataloader_num_workers=job.hf_workers,
        use_cpu=job.torch_device.type == "cpu",
        remove_unused_columns=False,  # else the images go before the transform sees them
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    timer = StepTimer(job)
    trainer = Trainer(model_of(job.model), arguments, train_dataset=dataset, callbacks=[timer])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return job.steps * job.batch_size / (timer.finished - timer.started)


def timm_recipe(job: Job, folder: Path) -> float:
    """timm's train.py with its options for speed: its loader, --amp --amp-dtype bfloat16 --channels-last."""
    device = job.torch_device
    network = create_model(job.model, pretrained=False)
    module = network.module.to(device, memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(module, opt="sgd", lr=0.05, momentum=0.9, weight_decay=2e-5)
    rows = job.rows(job.warmup + job.steps + 2 * job.workers)
    loader = create_loader(
        ImageFiles(job.data, rows, None),
        input_size=(3, network.preprocessing.side, network.preprocessing.side),
        batch_size=job.batch_size,
        is_training=True,
        num_workers=job.workers,
        pin_memory=device.type == "cuda",
        device=device,
    )

    def train() -> Iterator[None]:
        for images, labels in loader:
            with torch.autocast(device.type, torch.bfloat16):
                logits = logits_of(module(images.contiguous(memory_format=torch.channels_last))).float()
            update(logits, labels, optimizer)
            yield

    return job.rate(train())


class ImageFiles(Dataset[tuple[torch.Tensor, int]]):
    """torchvision's ImageFolder, for labels that are in a CSV and not in folder names."""

    def __init__(self, data: XrayData, rows: np.ndarray, transform: Transform | None) -> None:
        self.data, self.rows, self.transform = data, rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        assert self.transform is not None  # timm's loader sets its own
        row = self.rows[index]
        return self.transform(default_loader(str(self.data.samples[row].path))), int(self.data.labels[row])


class StepTimer(TrainerCallback):
    """Reads the clock after the warm-up and after the last step."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.started = self.finished = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each optimiser step."""
        if state.global_step == self.job.warmup:
            self.started = self.job.clock()
        elif state.global_step == self.job.warmup + self.job.steps:
            self.finished = self.job.clock()


def transform_of(side: int) -> Transform:
    """RGB image -> (3, side, side) float32, normalised: image by image, on the CPU."""
    return transforms.Compose(
        [
            transforms.Resize((side, side)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def model_of(name: str) -> PreTrainedModel:
    """The same architecture as a transformers model; xray-cnn is one already."""
    if name == "xray-cnn":
        return create_model(name, pretrained=False).module
    config = TimmWrapperConfig(architecture=RESNET18.split(".")[0], num_labels=len(PAPER_CLASSES))
    return AutoModelForImageClassification.from_config(config)
