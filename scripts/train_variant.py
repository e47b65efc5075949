"""train.py with one change that the package does not have, for scripts/ablate_sources.py.

python scripts/train_variant.py --penalty vrex --strength 1 --preset multisource --source … --out runs/vrex
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia import enhance
from PIL import Image
from timm.optim import create_optimizer_v2
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from xray_hf.data.cache import Viewed
from xray_hf.errors import exit_on_error
from xray_hf.models.create import logits_of
from xray_hf.models.lungs import SIDE as LUNGS_SIDE
from xray_hf.models.lungs import LungCrop, LungUNet, masks_of, standardise
from xray_hf.training import run
from xray_hf.training.config import parse
from xray_hf.training.loop import Trainer
from xray_hf.views import View


def main() -> None:
    """Train; options that this script does not know go to train.py."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--penalty", choices=("dro", "vrex", "coral", "dann"))
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--layer-decay", type=float, help="each layer's rate, as a share of the next one's")
    parser.add_argument("--probe", type=int, default=0, help="epochs in which only the head is trained")
    parser.add_argument("--view", choices=tuple(VIEWS))
    parser.add_argument("--more-augmentation", action="store_true")
    Variant.options, rest = parser.parse_known_args()
    run.Trainer = Variant  # type: ignore[attr-defined,misc]
    run.train(parse(rest))


class Variant(Trainer):
    """A Trainer with the change that `options` name; for one process.

    The penalties are DomainBed's (Gulrajani and Lopez-Paz 2021). Their domains are the sources within each
    class: a source that has one class only must not be made to look like one with another.
    """

    options: argparse.Namespace

    def __init__(self, *given: Any) -> None:
        """As Trainer."""
        super().__init__(*given)
        options, classes = self.options, len(self.network.classes)
        if options.view:
            self.pixels = Viewed(self.pixels, as_view(VIEWS[options.view]))
        if options.more_augmentation:
            self.augment.layers += [collimate, mark, sharpen, re_encode]
        names, source = np.unique(self.sources, return_inverse=True)
        self.group = self.labels * len(names) + source
        device = self.accelerator.device
        self.weights = torch.full((classes * len(names),), 1.0, device=device)
        self.features: list[torch.Tensor] = []
        self.head = self.network.module.get_classifier()  # type: ignore[operator]
        if options.penalty:
            self.head.register_forward_pre_hook(lambda _, given: self.features.append(given[0]))
        self.judge = nn.Linear(self.head.in_features + classes, len(names)).to(device)
        if options.layer_decay or options.penalty == "dann":
            optimization = self.config.optimization
            self.optimizer = create_optimizer_v2(
                self.network.module,
                opt=optimization.optimizer,
                lr=optimization.learning_rate,
                weight_decay=optimization.weight_decay,
                layer_decay=options.layer_decay,
            )
            self.optimizer.add_param_group({"params": self.judge.parameters(), "lr_scale": 5.0})
            self.prepared_optimizer = self.accelerator.prepare(self.optimizer)

    def _set_rate(self, factor: float) -> None:
        super()._set_rate(factor)
        for group in self.optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        self.network.module.requires_grad_(self.progress.epoch >= self.options.probe)
        self.head.requires_grad_(True)

    def _forward(self, grey: torch.Tensor, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.options.penalty:
            return super()._forward(grey, rows)
        self.features.clear()
        device = self.accelerator.device
        labels = torch.from_numpy(self.labels[rows]).to(device)
        grey = self.augment(grey.to(device))
        with self.accelerator.autocast():
            logits = logits_of(self.model(self.network.preprocessing.normalise(grey))).float()
        objective = self._objective(self._losses(logits, labels), self.features[0].float(), labels, rows)
        return objective.expand(len(rows)), (logits.detach().argmax(1) == labels).sum()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """As Trainer's, in the training's number format: faster, and enough to compare recipes."""
        module = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return self._predict(module, rows, autocast=True)

    def _objective(
        self, losses: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, rows: np.ndarray
    ) -> torch.Tensor:
        penalty, strength = self.options.penalty, self.options.strength
        group = torch.from_numpy(self.group[rows]).to(losses.device)
        here = group.unique()
        of_group = torch.stack([losses[group == each].mean() for each in here])
        if penalty == "dro":  # Sagawa et al. 2020
            self.weights[here] *= (strength * of_group.detach()).exp()
            self.weights /= self.weights.sum()
            return (self.weights[here] * of_group).sum() / self.weights[here].sum()
        if penalty == "vrex":  # Krueger et al. 2021, from the second quarter on
            is_on = self.progress.epoch * 4 >= self.config.optimization.epochs
            return losses.mean() + is_on * strength * of_group.var(unbiased=False)
        if penalty == "coral":  # Sun and Saenko 2016
            return losses.mean() + strength * coral(features, labels, group)
        known = nn.functional.one_hot(labels, len(self.network.classes))  # Ganin et al. 2016
        reversed_ = Reverse.apply(features, strength)
        guess = self.judge(torch.cat([reversed_, known], dim=1))
        source = group % self.judge.out_features
        return losses.mean() + nn.functional.cross_entropy(guess, source)


def flattened(images: torch.Tensor) -> torch.Tensor:
    """As models.lungs.standardise, but by neighbourhood, an eighth of the side wide.

    (B, 1, side, side) in 0..1 -> the same.
    """
    width = images.shape[-1] // 8 | 1

    def around(values: torch.Tensor) -> torch.Tensor:
        for size in ((1, width), (width, 1), (1, width), (width, 1)):
            padding = (size[0] // 2, size[1] // 2)
            values = nn.functional.avg_pool2d(values, size, 1, padding, count_include_pad=False)
        return values

    detail = images - around(images)
    deviation = around(detail.square()).sqrt() + 0.25 * detail.std(dim=(2, 3), keepdim=True) + 1e-3
    return (0.5 + 0.2 * detail / deviation).clamp(0, 1)


@cache
def _lungs() -> LungUNet:
    return LungCrop.load().segment


@torch.inference_mode()
def masked(images: torch.Tensor) -> torch.Tensor:
    """The mean grey outside the lungs and a narrow rim around them: (B, 1, side, side) in 0..1 -> the same.

    For crops to the lungs; whole where no lungs are found.
    """
    small = nn.functional.interpolate(images, (LUNGS_SIDE, LUNGS_SIDE), mode="bilinear")
    inside = nn.functional.max_pool2d(masks_of(_lungs()(small)[:, :1]), 9, 1, 4)
    inside = torch.where(inside.mean(dim=(1, 2, 3), keepdim=True) > 0.1, inside, 1)
    inside = nn.functional.interpolate(inside, images.shape[-2:], mode="bilinear")
    return inside * images + (1 - inside) * images.mean(dim=(2, 3), keepdim=True)


VIEWS = {
    "masked": masked,
    "flattened": flattened,
    "equalised": enhance.equalize,
    "clahe": lambda images: enhance.equalize_clahe(images, 2.0, (8, 8)),
    "standardised": lambda images: standardise(255 * images) / 255,
}


def as_view(change: Callable[[torch.Tensor], torch.Tensor]) -> View:
    """A change of (B, 1, side, side) in 0..1 as one of images (B, side, side) in 0..255."""

    def view(images: np.ndarray) -> np.ndarray:
        changed = change(torch.from_numpy(images).unsqueeze(1) / 255)
        return np.asarray((255 * changed).squeeze(1))

    return view


class Reverse(torch.autograd.Function):
    """The identity, whose gradient is reversed and multiplied by `strength`."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, strength: float) -> torch.Tensor:
        """(B, D) -> the same."""
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """(B, D) -> the same, reversed."""
        return -ctx.strength * gradient[0], None


def coral(features: torch.Tensor, labels: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """How far mean and covariance of the features (B, D) differ between the groups of each class."""
    distance = features.new_zeros(())
    pairs = 0
    for label in labels.unique():
        parts = [features[group == each] for each in group[labels == label].unique()]
        for one, other in combinations([part for part in parts if len(part) > 1], 2):
            distance = distance + (one.mean(0) - other.mean(0)).square().mean()
            distance = distance + (one.T.cov() - other.T.cov()).square().mean()
            pairs += 1
    return distance / max(pairs, 1)


def _some(images: torch.Tensor, share: float) -> np.ndarray:
    return np.flatnonzero(torch.rand(len(images)).numpy() < share)


def collimate(images: torch.Tensor) -> torch.Tensor:
    """Black bands at the edges of half of the images: (B, 1, side, side) in 0..1 -> the same."""
    side = images.shape[-1]
    for k in _some(images, 0.5):
        top, bottom, left, right = (torch.rand(4) * 0.1 * side).int().tolist()
        inside = images[k, :, top : side - bottom, left : side - right].clone()
        images[k] = 0
        images[k, :, top : side - bottom, left : side - right] = inside
    return images


def mark(images: torch.Tensor) -> torch.Tensor:
    """One to three bright bars, as letters are, in half of the images: (B, 1, side, side) -> the same."""
    side = images.shape[-1]
    for k in _some(images, 0.5):
        for _ in range(int(torch.randint(1, 4, ()))):
            high, wide = (1 + torch.rand(2) * 0.08 * side).int().tolist()
            top, left = (torch.rand(2) * 0.92 * side).int().tolist()
            images[k, :, top : top + high, left : left + wide] = 0.7 + 0.3 * float(torch.rand(()))
    return images


def sharpen(images: torch.Tensor) -> torch.Tensor:
    """Unsharp mask of up to 1.5, half of the images: (B, 1, side, side) -> the same."""
    smooth = nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    amount = 1.5 * torch.rand(len(images), 1, 1, 1) * (torch.rand(len(images), 1, 1, 1) < 0.5)
    return images + amount.to(images.device) * (images - smooth)


def re_encode(images: torch.Tensor) -> torch.Tensor:
    """Half of the images as JPEG of quality 20 to 90: (B, 1, side, side) in 0..1 -> the same."""
    for k in _some(images, 0.5):
        stream = io.BytesIO()
        grey = Image.fromarray((255 * images[k, 0].clamp(0, 1)).byte().cpu().numpy())
        grey.save(stream, "JPEG", quality=int(torch.randint(20, 91, ())))
        images[k, 0] = torch.from_numpy(np.asarray(Image.open(stream), np.float32) / 255)
    return images


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
