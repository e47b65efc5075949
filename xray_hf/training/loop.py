"""Fit a network to the training rows of a split, and let it predict rows."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, set_seed
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from xray_hf.data.pixels import PixelSource
from xray_hf.data.splits import Split
from xray_hf.errors import CheckpointError, ConfigError, DivergedError
from xray_hf.evaluation import metrics
from xray_hf.labels import LABELS
from xray_hf.models.create import Network, logits_of
from xray_hf.training import checkpoints
from xray_hf.training.augment import random_flip
from xray_hf.training.batches import epoch_batches, load_ahead, share_of
from xray_hf.training.config import Config

LOG_NAME = "log.jsonl"
_EVALUATION_BATCH = (
    64  # images per forward pass; larger does not pay on a CPU, and a GPU is not filled by it alone
)
_LOOK_EVERY = 20  # steps between looks at the loss and at signals; each look makes the host wait for a GPU


@dataclass
class Progress:
    """How far a run is; everything here is plain and goes into the checkpoint.

    epoch: finished epochs. step: finished steps of the epoch after them. history: one row per epoch.
    best_score: balanced accuracy on validation of the best epoch so far; best_epoch counts from 1.
    running: sums over the unfinished epoch: loss, correct, rows, seconds.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_score: float = -1.0
    best_epoch: int = 0
    running: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])


def make_accelerator(config: Config) -> Accelerator:
    """The device, the processes and the number format of a run."""
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


class Trainer:
    """One run: `fit()` trains, saves checkpoints and leaves the weights to keep in `network.module`."""

    def __init__(
        self,
        network: Network,
        pixels: PixelSource,
        labels: np.ndarray,
        split: Split,
        config: Config,
        accelerator: Accelerator,
        identity: dict[str, Any],
    ) -> None:
        """labels: (N,) class of every row of `pixels`. identity: what a checkpoint must match."""
        self.network, self.split, self.config, self.accelerator = network, split, config, accelerator
        self.pixels, self.labels, self.identity = pixels, labels, identity
        self.progress = Progress()
        self.best: dict[str, torch.Tensor] | None = None
        options = config.optimization
        module = network.module.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = ModelEmaV3(module, decay=options.ema) if options.ema else None
        self.optimizer = _make_optimizer(module, options)
        self.model, self.prepared_optimizer = accelerator.prepare(module, self.optimizer)
        if config.run.compile:
            self.model = torch.compile(self.model)
        # Processes start from the same weights, but draw different noise.
        torch.manual_seed(config.run.seed + 1_000_003 * accelerator.process_index)
        self.class_weights = self._class_weights() if options.balance == "loss" else None

    def fit(self) -> list[dict[str, Any]]:
        """Train to the last epoch, or until patience ends, and return the history.

        Raises DivergedError when the loss is not finite, SystemExit(128 + signal) after SIGTERM or SIGINT,
        with the state saved.
        """
        if self.config.run.resume:
            self._restore()
        with _Signals() as signals:
            while not self._is_finished():
                self._train_epoch(signals)
                self._finish_epoch()
                self._save()
        if self.best is not None:
            self.network.module.load_state_dict(self.best)
        elif self.average is not None:
            self.network.module.load_state_dict(self.average.module.state_dict())
        return self.progress.history

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Logits of rows by the network as it is: (n,) row numbers -> (n, C) float32, in their order."""
        unique, where = np.unique(rows, return_inverse=True)
        return self._predict_unique(self.network.module, unique)[where]

    def _train_epoch(self, signals: _Signals) -> None:
        progress, options = self.progress, self.config.optimization
        batches = epoch_batches(
            self.split.train,
            self.labels[self.split.train],
            batch_size=options.batch_size,
            balanced=options.balance == "sampling",
            seed=self.config.run.seed,
            epoch=progress.epoch,
        )
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        todo = batches[progress.step :]
        own = [share_of(batch, rank, world) for batch in todo]
        pin = self.accelerator.device.type == "cuda"
        self.model.train()
        sums = torch.tensor(progress.running[:3], dtype=torch.float64, device=self.accelerator.device)
        started = time.perf_counter() - progress.running[3]
        with self._bar(sum(map(len, batches)), sum(map(len, batches[: progress.step]))) as bar:
            for rows, batch, pixels in zip(own, todo, load_ahead(self.pixels, own, pin), strict=True):
                rate = options.learning_rate * learning_rate_factor(
                    options.schedule,
                    options.warmup,
                    (progress.epoch + progress.step / len(batches)) / options.epochs,
                )
                sums += self._train_step(pixels, rows, len(batch), rate)
                progress.step += 1
                bar.update(len(batch))
                if (
                    (world == 1 and pin is False)
                    or progress.step % _LOOK_EVERY == 0
                    or progress.step == len(batches)
                ):
                    progress.running = [*sums.tolist(), time.perf_counter() - started]
                    self._look(signals, bar, batch)

    def _train_step(self, pixels: torch.Tensor, rows: np.ndarray, total: int, rate: float) -> torch.Tensor:
        """One optimiser step on this process's part of a batch of `total` rows.

        Returns [sum of losses, number correct, rows] of the part: (3,) float64 on the device.
        """
        device, options = self.accelerator.device, self.config.optimization
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = np.array_split(np.arange(len(rows)), min(options.accumulate, len(rows)))
        for part in parts:
            grey = pixels[part[0] : part[-1] + 1].to(device, non_blocking=True)
            grey = random_flip(grey) if options.flip else grey
            labels = torch.from_numpy(self.labels[rows[part]]).to(device, non_blocking=True)
            is_last = part is parts[-1]
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    logits = logits_of(self.model(self.network.preprocessing.normalise(grey))).float()
                losses = nn.functional.cross_entropy(logits, labels, self.class_weights, reduction="none")
                # Processes average their gradients; this makes it the mean over the batch, however it is divided.
                self.accelerator.backward(losses.sum() * (self.accelerator.num_processes / total))
            with torch.no_grad():
                correct = (logits.argmax(1) == labels).sum()
                sums += torch.stack([losses.sum().double(), correct.double(), sums.new_tensor(len(part))])
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network.module)
        return sums

    def _look(self, signals: _Signals, bar: tqdm[Any], batch: np.ndarray) -> None:
        """Show the loss; stop on one that is not finite, and on a signal to any process."""
        loss, _, rows, _ = self.progress.running
        state = torch.tensor([float(signals.received), loss, rows], dtype=torch.float64)
        received, loss, rows = self._sum_over_processes(state).tolist()
        if not np.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} at epoch {self.progress.epoch + 1}, step {self.progress.step} "
                f"(rows {', '.join(map(str, batch[:8]))}…). Lower --learning-rate, or use --precision fp32; "
                "the last checkpoint is from before this epoch."
            )
        bar.set_postfix(loss=f"{loss / rows:.4f}", refresh=False)
        if received:
            self._save()
            self._say(
                f"stopped by a signal at epoch {self.progress.epoch + 1}, step {self.progress.step}; "
                "the state is saved, --resume goes on from here."
            )
            raise SystemExit(128 + (signals.received or signal.SIGTERM))

    def _finish_epoch(self) -> None:
        progress = self.progress
        seconds = progress.running[3]
        loss, correct, rows = self._sum_over_processes(torch.tensor(progress.running[:3])).tolist()
        row: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": loss / rows,
            "train_accuracy": correct / rows,
            "images_per_second": rows / seconds,
            "seconds": seconds,
        }
        self._share_buffers()
        module = self.average.module if self.average is not None else self.network.module
        row.update(self._evaluate(module, "validation"))
        if self.config.run.watch_test:
            row.update(self._evaluate(module, "test"))
        progress.epoch, progress.step, progress.running = progress.epoch + 1, 0, [0.0, 0.0, 0.0, 0.0]
        progress.history.append(row)
        if row["validation_balanced_accuracy"] > progress.best_score:
            progress.best_score, progress.best_epoch = row["validation_balanced_accuracy"], progress.epoch
            if self.config.optimization.keep == "best":
                self.best = {
                    name: value.detach().cpu().clone() for name, value in module.state_dict().items()
                }
        self._report(row)

    def _evaluate(self, module: nn.Module, name: str) -> dict[str, float]:
        rows = self.split.rows(name)
        unique, where = np.unique(rows, return_inverse=True)
        logits, labels = self._predict_unique(module, unique)[where], self.labels[rows]
        matrix = metrics.confusion_matrix(labels, logits.argmax(axis=1))
        loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
        return {
            f"{name}_loss": float(loss),
            f"{name}_accuracy": metrics.accuracy(matrix),
            f"{name}_balanced_accuracy": metrics.balanced_accuracy(matrix),
        }

    @torch.inference_mode()
    def _predict_unique(self, module: nn.Module, rows: np.ndarray) -> np.ndarray:
        """Every process predicts its share; each row is filled exactly once."""
        module.eval()
        rank, world, device = (
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.accelerator.device,
        )
        filled = torch.zeros(len(rows), len(LABELS) + 1, device=device)
        places = np.array_split(
            np.arange(rank, len(rows), world), max(1, len(rows) // (world * _EVALUATION_BATCH))
        )
        places = [own for own in places if len(own)]
        for own, pixels in zip(places, load_ahead(self.pixels, [rows[p] for p in places]), strict=True):
            x = self.network.preprocessing.normalise(pixels.to(device))
            with self.accelerator.autocast():
                logits = logits_of(module(x)).float()
            filled[own] = torch.cat([logits, torch.ones(len(own), 1, device=device)], dim=1)
        filled = self._sum_over_processes(filled)
        if not bool((filled[:, -1] == 1).all()):
            raise RuntimeError("a row was predicted not at all or twice")
        return filled[:, :-1].cpu().numpy()

    def _restore(self) -> None:
        folder = self.config.out
        if not (folder / checkpoints.CHECKPOINT_NAME).exists():
            self._say(f"no checkpoint in {folder} yet: starting at epoch 1.")
            return
        state = checkpoints.load(folder, self.identity)
        self.network.module.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.best = state["best"]
        self.progress = Progress(**state["progress"])
        if len(state["rng"]) != self.accelerator.num_processes:
            raise CheckpointError(
                f"the checkpoint is of {len(state['rng'])} processes and this run has "
                f"{self.accelerator.num_processes}; start as many."
            )
        torch.set_rng_state(state["rng"][self.accelerator.process_index])

    def _save(self) -> None:
        # Only the CPU generator: augmentation draws from it, and dropout on a GPU need not repeat to the bit.
        rng = gather_object([torch.get_rng_state()])
        if self.accelerator.is_main_process:
            state = {
                "identity": self.identity,
                "network": self.network.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.module.state_dict() if self.average is not None else None,
                "best": self.best,
                "progress": vars(self.progress),
                "rng": rng,
            }
            checkpoints.save(self.config.out, state)
        self.accelerator.wait_for_everyone()

    def _is_finished(self) -> bool:
        options, progress = self.config.optimization, self.progress
        is_stale = options.patience and progress.epoch - progress.best_epoch >= options.patience
        return progress.epoch >= options.epochs or bool(is_stale)

    def _class_weights(self) -> torch.Tensor:
        counts = np.bincount(self.labels[self.split.train], minlength=len(LABELS))
        if not counts.all():
            raise ConfigError("--balance loss needs images of every class in training; use --balance none.")
        weights = counts.sum() / (len(LABELS) * counts)
        return torch.tensor(weights, dtype=torch.float32, device=self.accelerator.device)

    def _share_buffers(self) -> None:
        """Give all processes the first one's batch-norm statistics before weights are judged or saved."""
        if self.accelerator.num_processes > 1:
            for buffer in self.network.module.buffers():
                buffer.copy_(broadcast(buffer))

    def _sum_over_processes(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.accelerator.num_processes == 1:
            return tensor
        summed: torch.Tensor = self.accelerator.reduce(tensor.to(self.accelerator.device), "sum")
        return summed.to(tensor.device)

    def _bar(self, total: int, initial: int) -> tqdm[Any]:
        title = f"epoch {self.progress.epoch + 1}/{self.config.optimization.epochs}"
        # None hides the bar where nobody watches; the line after each epoch stays.
        hidden = None if self.accelerator.is_main_process else True
        return tqdm(total=total, initial=initial, desc=title, unit=" images", disable=hidden, leave=False)

    def _report(self, row: dict[str, Any]) -> None:
        self.accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=row["epoch"])
        if self.accelerator.is_main_process:
            with (self.config.out / LOG_NAME).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        test = f", test {row['test_accuracy']:.1%}" if "test_accuracy" in row else ""
        self._say(
            f"epoch {row['epoch']}: train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.1%}; "
            f"validation loss {row['validation_loss']:.4f}, accuracy {row['validation_accuracy']:.1%}, "
            f"balanced {row['validation_balanced_accuracy']:.1%}{test}; {row['images_per_second']:.0f} images/s"
        )

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, file=sys.stderr, flush=True)


def learning_rate_factor(schedule: str, warmup: float, done: float) -> float:
    """The learning rate as a share of its peak.

    schedule: "constant", "linear" or "cosine", the way down after the warm-up. warmup: share of the run, in
    0..1, in which it rises linearly. done: share of the run that is behind, in 0..1.
    """
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    rest = (done - warmup) / (1 - warmup) if warmup < 1 else 1.0
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda _: 1.0,
        "linear": lambda x: 1 - x,
        "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
    }
    return float(shapes[schedule](rest))


class _Signals:
    """Note SIGTERM and SIGINT instead of dying, so that the state can be saved between two steps."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number


def _make_optimizer(module: nn.Module, options: Any) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": 0.9} if options.optimizer == "sgd" else {}
    return kinds[options.optimizer](
        module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True, **extra
    )


def _has_fast_bf16(wants_cpu: bool) -> bool:
    if torch.cuda.is_available() and not wants_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
