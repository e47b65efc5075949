"""Ways from X-ray files to probabilities: ours, the usual ones, and the floor below them all.

Latency ways return milliseconds per file, bulk ways images per second. Each runs in a process of its own, so
libraries are imported inside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_hf import manifest

WARMUP = 5  # files
PIPELINE_BATCHES = (1, 8, 32)  # of which the fastest counts
LOADER_BATCH = 64
REPEATS = 3  # of the list of files in bulk: else its last few, which leave cores idle, would count much


@dataclass(frozen=True)
class Job:
    """A bundle and the files to classify."""

    bundle: Path
    files: Sequence[Path]

    @property
    def names(self) -> list[str]:
        """The files as texts, which the pipeline wants."""
        return [str(file) for file in self.files]


def milliseconds(classify: Callable[[Path], Any], files: Sequence[Path]) -> list[float]:
    """How long each file takes, one after the other."""
    for file in files[:WARMUP]:
        classify(file)
    times = []
    for file in files:
        started = time.perf_counter()
        classify(file)
        times.append(1000 * (time.perf_counter() - started))
    return times


def ours_latency(job: Job, backend: str) -> list[float]:
    """The engine: reading with all its checks, network, class activation map, OOD detection."""
    from xray_hf.inference import Engine

    engine = Engine.from_pretrained(job.bundle, backend=backend)
    return milliseconds(engine.predict, job.files)


def pipeline_latency(job: Job, dtype: str) -> list[float]:
    """transformers.pipeline("image-classification") on the same bundle."""
    classify = _pipeline(job, dtype)
    return milliseconds(lambda file: classify(str(file)), job.files)


def floor_latency(job: Job, backend: str) -> list[float]:
    """Each file's decoding and resizing with Pillow alone, plus the median of the bare network alone."""
    network, pixels = _network(job, backend, os.cpu_count() or 1)
    forward = milliseconds(lambda _: network.run(pixels), job.files)
    forward.sort()
    median = forward[len(forward) // 2]
    return [median + decoding for decoding in milliseconds(_decoder(job), job.files)]


def ours_bulk(job: Job, backend: str) -> float:
    """Engine.stream, as `xray-hf predict` runs it."""
    from xray_hf.inference import Engine

    engine = Engine.from_pretrained(job.bundle, backend=backend)
    return _rate(lambda files: list(engine.stream(files)), job.files)


def pipeline_bulk(job: Job, dtype: str) -> float:
    """The pipeline on the whole list, at its fastest batch size."""
    classify = _pipeline(job, dtype)
    names = job.names
    rates = []
    for batch_size in PIPELINE_BATCHES:
        rates.append(_rate(lambda files, b=batch_size: classify(files, batch_size=b), names))  # type: ignore[misc]
    return max(rates)


def loader_bulk(job: Job) -> float:
    """As timm's inference.py: its transform and DataLoader with a worker for each core, then the model."""
    import torch
    from timm.data import create_transform
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(job.bundle, trust_remote_code=True).eval()
    side = manifest.read(job.bundle).side
    transform = create_transform(input_size=(3, side, side), crop_pct=1.0, crop_mode="squash")

    @torch.inference_mode()
    def classify(files: Sequence[Path]) -> None:
        loader = torch.utils.data.DataLoader(
            Folder(files, transform), batch_size=LOADER_BATCH, num_workers=os.cpu_count() or 1
        )
        for batch in loader:
            model(batch).logits.softmax(1)

    return _rate(classify, job.files)


def ceiling_bulk(job: Job, backend: str) -> float:
    """What the cores allow: CPU seconds of decoding and of the bare network, each alone, spread over all."""
    from xray_hf.inference.engine import BATCH_SIZE

    network, pixels = _network(job, backend, 1)
    batch = pixels.repeat(BATCH_SIZE, axis=0)
    decoding = _cpu_seconds(_decoder(job), job.files)
    forward = _cpu_seconds(lambda _: network.run(batch), job.files) / BATCH_SIZE
    return (os.cpu_count() or 1) / (decoding + forward)


class Folder:
    """The torch data set of a usual script."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Any], Any]) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return self.transform(Image.open(self.files[index]).convert("RGB"))


def _pipeline(job: Job, dtype: str) -> Any:
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    return pipeline("image-classification", model=str(job.bundle), trust_remote_code=True, dtype=dtype)


def _network(job: Job, backend: str, threads: int) -> tuple[Any, Any]:
    import numpy as np

    from xray_hf.inference import backends

    description = manifest.read(job.bundle)
    shape = (1, 1, description.side, description.side)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return backends.load(backend, description, threads=threads), pixels


def _decoder(job: Job) -> Callable[[Path], None]:
    from PIL import Image

    size = (manifest.read(job.bundle).side,) * 2

    def decode(file: Path) -> None:
        image = Image.open(file)
        grey = image if image.mode == "L" else image.convert("L")
        grey.resize(size, Image.Resampling.BILINEAR)

    return decode


def _rate(classify: Callable[[Any], Any], files: Sequence[Any]) -> float:
    many = list(files) * REPEATS
    classify(many[:WARMUP])
    started = time.perf_counter()
    classify(many)
    return len(many) / (time.perf_counter() - started)


def _cpu_seconds(work: Callable[[Path], Any], files: Sequence[Path]) -> float:
    """CPU seconds of this process for one file, on average."""
    for file in files[:WARMUP]:
        work(file)
    started = time.process_time()
    for file in files:
        work(file)
    return (time.process_time() - started) / len(files)
