"""Fit a network to the training rows of a split."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from xray_hf.data.cache import PixelSource
from xray_hf.data.splits import Split
from xray_hf.errors import CheckpointError, ConfigError, DivergedError
from xray_hf.evaluation import metrics
from xray_hf.files import write_text
from xray_hf.models.create import Network, logits_of
from xray_hf.signals import Signals
from xray_hf.training import checkpoints
from xray_hf.training.augment import Augmentation, mix
from xray_hf.training.batches import epoch_batches, load_ahead, share_of
from xray_hf.training.config import Config
from xray_hf.training.predict import predict_rows
from xray_hf.training.processes import is_same_everywhere, share_buffers, sum_over

LOG_NAME = "log.jsonl"
_ADVICE = "Lower --learning-rate, or use --precision fp32; the last checkpoint was saved before this epoch."
_LOOK_EVERY = 20  # steps between checks of loss and signals, if the host has to wait for a GPU or processes


@dataclass
class Progress:
    """How far a run is; plain values only, for the checkpoint.

    epoch: finished epochs. step: finished steps of the epoch after them. history: one row per epoch.
    best_score: highest balanced accuracy on validation so far, of epoch best_epoch, counted from 1.
    running: of the unfinished epoch, this process's sum of losses, number correct, rows; and seconds.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_score: float = -1.0
    best_epoch: int = 0
    running: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])


class Trainer:
    """One run: `fit()` trains, saves checkpoints and leaves the weights to keep in `network.module`."""

    def __init__(
        self,
        network: Network,
        pixels: PixelSource,
        labels: np.ndarray,
        sources: np.ndarray,
        split: Split,
        config: Config,
        accelerator: Accelerator,
        identity: dict[str, Any],
    ) -> None:
        """labels: (N,) int64, the class of every row of `pixels`; sources: (N,) where it comes from.

        identity: what a checkpoint must match.
        """
        self.network, self.pixels, self.split = network, pixels, split
        self.labels, self.sources = labels, sources
        self.config, self.accelerator = config, accelerator
        self.identity = {**identity, "processes": accelerator.num_processes}
        self.progress = Progress()
        self.sum_type = torch.float32 if accelerator.device.type == "mps" else torch.float64
        self.best: dict[str, torch.Tensor] | None = None
        options = config.optimization
        module = network.module.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Without a warm-up, the initial weights would dominate the average for a long time.
        self.average = ModelEmaV3(module, decay=options.ema, use_warmup=True) if options.ema else None
        self.optimizer = create_optimizer_v2(
            module,
            opt=options.optimizer,
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            filter_bias_and_bn=not options.decay_all,  # they have no scale to be decayed
            fused=True,
        )
        self.model, self.prepared_optimizer = accelerator.prepare(module, self.optimizer)
        if config.run.compile:
            self.model = torch.compile(self.model)
        # Processes start from the same weights, but draw different noise.
        torch.manual_seed(config.run.seed + 1_000_003 * accelerator.process_index)
        self.augment = Augmentation(config.augmentation, network.preprocessing.side, accelerator.device)
        self.class_weights = (
            1 / (len(network.classes) * self._class_shares()) if options.balance == "loss" else None
        )
        self.shift = self._class_shares().log() if options.balance == "logits" else None

    @property
    def judged(self) -> nn.Module:
        """The network as it is evaluated and kept: the average of the weights, if there is one."""
        return self.network.module if self.average is None else self.average.module

    def fit(self) -> list[dict[str, Any]]:
        """Train to the last epoch, or until patience ends, and return the history.

        With `resume`, continue from the checkpoint, or begin if there is none yet. Raises DivergedError
        when the loss is not finite, CheckpointError when the checkpoint is another run's, and
        SystemExit(128 + signal) after SIGTERM or SIGINT, with the state saved.
        """
        if self.config.run.resume:
            self._restore()
        with Signals() as signals:
            while not self._is_finished():
                self._train_epoch(signals)
                self._finish_epoch()
                self._save()
                self._stop_on_signal(signals)
        self.network.module.load_state_dict(self.best or self.judged.state_dict())
        return self.progress.history

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Logits of rows by the kept weights: (n,) row numbers -> (n, C) float32, in their order.

        In float32 whatever the training's number format, because the weights will be used in float32.
        """
        # accelerate has wrapped forward in autocast; this takes it off.
        module = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False, keep_torch_compile=False)
        return self._predict(module, rows, autocast=False)

    def _train_epoch(self, signals: Signals) -> None:
        progress, options, accelerator = self.progress, self.config.optimization, self.accelerator
        batches = epoch_batches(
            self.split.train,
            self.labels[self.split.train],
            self.sources[self.split.train],
            batch_size=options.batch_size,
            balanced=options.balance == "sampling",
            seed=self.config.run.seed,
            epoch=progress.epoch,
        )
        todo = batches[progress.step :]
        own = [share_of(batch, accelerator.process_index, accelerator.num_processes) for batch in todo]
        has_to_wait = accelerator.device.type != "cpu" or accelerator.num_processes > 1
        look_every = _LOOK_EVERY if has_to_wait else 1
        sums = torch.tensor(progress.running[:3], dtype=self.sum_type, device=accelerator.device)
        losses: list[torch.Tensor] = []  # of each step since the last look
        started = time.perf_counter() - progress.running[3]
        self.model.train()
        with self._bar(sum(map(len, batches)), sum(map(len, batches[: progress.step]))) as bar:
            for rows, batch, pixels in zip(own, todo, self._load(own), strict=True):
                done = (progress.epoch + progress.step / len(batches)) / options.epochs
                self._set_rate(learning_rate_factor(options.schedule, options.warmup, done))
                step = self._train_step(pixels, rows, len(batch))
                sums += step
                losses.append(step[0])
                progress.step += 1
                if self.average is not None:
                    step_of_run = progress.epoch * len(batches) + progress.step
                    self.average.update(self.network.module, step=step_of_run)
                bar.update(len(batch))
                if progress.step % look_every == 0 or progress.step == len(batches):
                    progress.running = [*sums.tolist(), time.perf_counter() - started]
                    self._require_finite(torch.stack(losses), batches)
                    bar.set_postfix(loss=f"{progress.running[0] / progress.running[2]:.4f}", refresh=False)
                    losses.clear()
                    self._stop_on_signal(signals, save=True)

    def _load(self, batches: list[np.ndarray]) -> Iterator[torch.Tensor]:
        return load_ahead(self.pixels, batches, pin=self.accelerator.device.type == "cuda")

    def _set_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimization.learning_rate * factor

    def _train_step(self, pixels: torch.Tensor, rows: np.ndarray, total: int) -> torch.Tensor:
        """One optimiser step on this process's part of a batch of `total` rows.

        Returns [sum of losses, number correct, rows] of the part: (3,) on the device.
        """
        sums = torch.zeros(3, dtype=self.sum_type, device=self.accelerator.device)
        accumulate = min(self.config.optimization.accumulate, len(rows))
        parts = list(zip(pixels.tensor_split(accumulate), np.array_split(rows, accumulate), strict=True))
        for number, (grey, part) in enumerate(parts, start=1):
            is_last = number == len(parts)
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                losses, correct = self._forward(grey, part)
                # Processes average their gradients; this makes it the mean over the batch, however divided.
                self.accelerator.backward(losses.sum() * (self.accelerator.num_processes / total))
            found = losses.detach().sum().to(self.sum_type), correct.to(self.sum_type)
            sums += torch.stack([*found, sums.new_full((), len(part))])
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad(set_to_none=True)
        return sums

    def _forward(self, grey: torch.Tensor, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (B,) and the number correct of grey images (B, side, side), 0 to 255."""
        device, options = self.accelerator.device, self.config.augmentation
        grey = self.augment(grey.to(device, non_blocking=True))
        labels = torch.from_numpy(self.labels[rows]).to(device, non_blocking=True)
        grey, others, share = mix(grey, labels, mixup=options.mixup, cutmix=options.cutmix)
        with self.accelerator.autocast():
            logits = logits_of(self.model(self.network.preprocessing.normalise(grey))).float()
        losses = self._losses(logits, labels)
        if share < 1:
            losses = share * losses + (1 - share) * self._losses(logits, others)
        return losses, (logits.detach().argmax(1) == labels).sum()

    def _losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy of each row: (B, C) float32 and (B,) -> (B,).

        The smoothed part of a label goes to all classes equally, or under logit adjustment by their shares:
        equal parts would ask for the rare class more often than it occurs, whatever the label.
        """
        smoothing = self.config.optimization.label_smoothing
        if self.shift is not None:
            adjusted = (logits + self.shift).log_softmax(dim=1)  # Menon et al. 2021, eq. 10
            of_label, of_all = adjusted.gather(1, labels[:, None]).squeeze(1), adjusted @ self.shift.exp()
            return -(1 - smoothing) * of_label - smoothing * of_all
        losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        return losses if self.class_weights is None else losses * self.class_weights[labels]

    def _require_finite(self, losses: torch.Tensor, batches: list[np.ndarray]) -> None:
        """Raise DivergedError, naming step and batch, if a loss of the last k steps, (k,), is not finite."""
        bad = (~torch.isfinite(sum_over(self.accelerator, losses))).nonzero().flatten().tolist()
        if bad:
            step = self.progress.step - len(losses) + bad[0] + 1
            rows = ", ".join(map(str, batches[step - 1][:16]))
            raise DivergedError(
                f"the loss is not finite at epoch {self.progress.epoch + 1}, step {step}, "
                f"whose batch begins with rows {rows} of the data set. {_ADVICE}"
            )

    def _stop_on_signal(self, signals: Signals, save: bool = False) -> None:
        """Leave with the state saved if any process has received a signal."""
        told = sum_over(self.accelerator, torch.tensor(float(signals.received)))
        if not told:
            return
        if save:
            self._save()
        where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
        self._say(f"stopped by a signal at {where}; the state is saved, --resume continues from here.")
        raise SystemExit(128 + (signals.received or 15))  # 15, SIGTERM: another process received it

    def _finish_epoch(self) -> None:
        progress = self.progress
        totals = torch.tensor(progress.running[:3], dtype=torch.float64)
        loss, correct, rows = sum_over(self.accelerator, totals).tolist()
        row: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss / rows,
            "train_accuracy": correct / rows,
            "images_per_second": rows / progress.running[3],
            "seconds": progress.running[3],
        }
        self._share_buffers()
        row.update(self._evaluate("validation"))
        if not math.isfinite(row["validation_loss"]):
            raise DivergedError(
                f"the weights are not finite after the last step of epoch {row['epoch']}. {_ADVICE}"
            )
        if self.config.run.watch_test:
            row.update(self._evaluate("test"))
        progress.epoch, progress.step, progress.running = progress.epoch + 1, 0, [0.0, 0.0, 0.0, 0.0]
        progress.history.append(row)
        if row["validation_balanced_accuracy"] > progress.best_score:
            progress.best_score, progress.best_epoch = row["validation_balanced_accuracy"], progress.epoch
            if self.config.optimization.keep == "best":
                weights = self.judged.state_dict()
                self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        self._report(row)

    def _evaluate(self, name: str) -> dict[str, float]:
        rows = self.split.rows(name)
        logits, labels = self._predict(self.judged, rows, autocast=True), self.labels[rows]
        matrix = metrics.confusion_matrix(labels, logits.argmax(axis=1), len(self.network.classes))
        loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
        return {
            f"{name}_loss": float(loss),
            f"{name}_accuracy": float(metrics.accuracy(matrix)),
            f"{name}_balanced_accuracy": float(metrics.balanced_accuracy(matrix)),
        }

    def _predict(self, module: nn.Module, rows: np.ndarray, *, autocast: bool) -> np.ndarray:
        return predict_rows(module, self.network, self.pixels, rows, self.accelerator, autocast=autocast)

    def _share_buffers(self) -> None:
        share_buffers(self.accelerator, self.network.module)
        if self.average is not None:
            share_buffers(self.accelerator, self.average.module)

    def _restore(self) -> None:
        folder, accelerator = self.config.out, self.accelerator
        exists = (folder / checkpoints.CHECKPOINT_NAME).exists()
        if not is_same_everywhere(exists):
            raise CheckpointError(
                f"not all processes see the checkpoint in {folder}; put --out on a shared disk."
            )
        if not exists:
            self._say(f"no checkpoint in {folder} yet: starting at epoch 1.")
            return
        state = checkpoints.load(folder, self.identity)
        self.network.module.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if accelerator.scaler is not None:  # of fp16
            accelerator.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.best = state["best"]
        self.progress = Progress(**state["progress"])
        if not accelerator.is_main_process:
            self.progress.running[:3] = [0.0, 0.0, 0.0]  # the saved sums are those of all processes
        for_cpu, for_device = state["rng"][accelerator.process_index]
        torch.set_rng_state(for_cpu)
        if for_device is not None:
            torch.get_device_module(accelerator.device).set_rng_state(for_device)

    def _save(self) -> None:
        self._share_buffers()
        device = self.accelerator.device
        of_device = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()
        rng = gather_object([[torch.get_rng_state(), of_device]])
        totals = torch.tensor(self.progress.running[:3], dtype=torch.float64)
        running = [*sum_over(self.accelerator, totals).tolist(), self.progress.running[3]]
        if self.accelerator.is_main_process:
            state = {
                "identity": self.identity,
                "network": self.network.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict(),
                "average": None if self.average is None else self.average.module.state_dict(),
                "best": self.best,
                "progress": {**vars(self.progress), "running": running},
                "rng": rng,
            }
            checkpoints.save(self.config.out, state)
        self.accelerator.wait_for_everyone()

    def _is_finished(self) -> bool:
        patience, progress = self.config.optimization.patience, self.progress
        is_stale = patience > 0 and progress.epoch - progress.best_epoch >= patience
        return is_stale or progress.epoch >= self.config.optimization.epochs

    def _class_shares(self) -> torch.Tensor:
        """(C,) float32, each class's share of the training rows; raises ConfigError if one has none."""
        counts = np.bincount(self.labels[self.split.train], minlength=len(self.network.classes))
        if not counts.all():
            choice = self.config.optimization.balance
            raise ConfigError(
                f"--balance {choice} needs images of every class in training; use --balance none."
            )
        return torch.tensor(counts / counts.sum(), dtype=torch.float32, device=self.accelerator.device)

    def _bar(self, total: int, initial: int) -> tqdm[Any]:
        title = f"epoch {self.progress.epoch + 1}/{self.config.optimization.epochs}"
        # None: shown on a terminal only; the line after each epoch is always printed.
        hidden = None if self.accelerator.is_main_process else True
        return tqdm(total=total, initial=initial, desc=title, unit=" images", disable=hidden, leave=False)

    def _report(self, row: dict[str, Any]) -> None:
        self.accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=row["epoch"])
        if self.accelerator.is_main_process:
            # Rewritten each time: appending would log an epoch twice after a kill before its checkpoint.
            lines = (json.dumps(epoch) + "\n" for epoch in self.progress.history)
            write_text(self.config.out / LOG_NAME, "".join(lines))
        test = f", test {row['test_accuracy']:.1%}" if "test_accuracy" in row else ""
        self._say(
            f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.1%}; "
            f"validation loss {row['validation_loss']:.4f}, accuracy {row['validation_accuracy']:.1%}, "
            f"balanced {row['validation_balanced_accuracy']:.1%}{test}; "
            f"{row['images_per_second']:.0f} images/s"
        )

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, file=sys.stderr, flush=True)


def learning_rate_factor(schedule: str, warmup: float, done: float) -> float:
    """The learning rate as a share of its peak.

    schedule: "constant", "linear" or "cosine", the way down after the warm-up. warmup: share of the run, in
    0..1, in which it rises linearly. done: share of the run that is completed, in 0..1.
    """
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)  # not 0: the first step counts too
    left = 1 - (done - warmup) / (1 - warmup) if warmup < 1 else 0.0
    if schedule == "linear":
        return left
    return (1 - math.cos(math.pi * left)) / 2 if schedule == "cosine" else 1.0
