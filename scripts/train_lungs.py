"""Train the U-Net that finds the lungs (xray_hf/models/lungs.py), and measure it on held-out images.

python scripts/train_lungs.py --full MASKS IMAGES --clear MASKS2 IMAGES2 --out lungs.safetensors

MASKS holds one PNG per image, white where the lungs are. IMAGES, or a folder below it, holds the X-ray with
the same stem. `full` masks include what lies behind the heart, `clear` masks do not. A fifth of the images of
each kind is the test set and a tenth validation, by a hash of the name.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fitting import fit
from PIL import Image
from torch.nn import functional as F

from xray_hf.errors import DataError, exit_on_error
from xray_hf.files import atomic_file
from xray_hf.models.lungs import KINDS, SIDE, LungCrop, LungUNet, boxes, masks_of
from xray_hf.reading import read_grey, resize

BATCH, RATE, EPOCHS = 16, 3e-3, 100
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Pairs:
    """X-rays and their masks.

    images: (N, SIDE, SIDE) uint8. masks: (N, SIDE, SIDE) float32, 0 to 1. kinds: (N,) indices of KINDS.
    parts: (N,) names of parts of the split.
    """

    images: torch.Tensor
    masks: torch.Tensor
    kinds: torch.Tensor
    parts: np.ndarray

    def rows(self, part: str) -> np.ndarray:
        """Rows of train, validation or test."""
        return np.flatnonzero(self.parts == part)


def main() -> None:
    """Train, write the weights in half precision and print their accuracy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", nargs=2, type=Path, metavar=("MASKS", "IMAGES"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pairs = read({kind: getattr(options, kind) for kind in KINDS})
    lungs = LungCrop()
    lungs.segment = train(pairs, options.epochs)
    with atomic_file(options.out) as temporary:
        lungs.save(temporary)
    for part in ("validation", "test"):
        print(as_table(LungCrop.load(options.out).segment, pairs, part), end="\n\n")


def read(folders: dict[str, tuple[Path, Path]]) -> Pairs:
    """Read all masks with their X-rays; raises DataError for a mask without one."""
    images, masks, kinds, parts = [], [], [], []
    for kind, (of_masks, of_images) in folders.items():
        found = {path.stem: path for path in of_images.rglob("*") if path.suffix.lower() in SUFFIXES}
        for path in sorted(of_masks.glob("*.png")):
            if path.stem not in found:
                raise DataError(f"{path} has no X-ray of that name in {of_images}.")
            images.append(resize(read_grey(found[path.stem]), SIDE))
            mask = Image.open(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
            masks.append(np.asarray(mask, np.float32) / 255)
            kinds.append(KINDS.index(kind))
            parts.append(part_of(path.stem))
    stacked = (torch.from_numpy(np.stack(each)) for each in (images, masks))
    return Pairs(*stacked, torch.tensor(kinds), np.asarray(parts))


def part_of(stem: str) -> str:
    """The part of the split that an image is in, by a hash of its name."""
    drawn = int(hashlib.sha256(stem.encode()).hexdigest()[:8], 16) % 10
    return "test" if drawn < 2 else "validation" if drawn == 2 else "train"


def train(pairs: Pairs, epochs: int) -> LungUNet:
    """Train with augmentation; returns the average of the weights."""
    rows = pairs.rows("train")
    steps = math.ceil(len(rows) / BATCH)
    net = LungUNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches: Sequence[torch.Tensor] = ()

    def loss_at(step: int) -> torch.Tensor:
        nonlocal batches
        if step % steps == 0:
            batches = torch.from_numpy(rows)[torch.randperm(len(rows))].tensor_split(steps)
        batch = batches[step % steps]
        images, masks = augment(pairs.images[batch][:, None] / 255, pairs.masks[batch][:, None])
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images.contiguous(memory_format=torch.channels_last)).float()
        return loss_of(logits[torch.arange(len(batch)), pairs.kinds[batch]], masks[:, 0])

    return fit(net, epochs * steps, RATE, 0.995, loss_at)


def loss_of(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus soft Dice loss (Milletari et al. 2016): (B, SIDE, SIDE) both -> a number."""
    lung = logits.sigmoid()
    both, all_of_them = (lung * masks).sum((1, 2)), lung.sum((1, 2)) + masks.sum((1, 2))
    dice = (2 * both + 1) / (all_of_them + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + 1 - dice.mean()


def augment(images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random affine map of both; random gamma, contrast, blur and noise of the images.

    (B, 1, SIDE, SIDE) float32 in 0..1, both.
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand((n, *shape))

    def sometimes(share: float) -> torch.Tensor:
        return torch.rand(n, 1, 1, 1) < share

    angle, mirror = uniform(-math.pi / 10, math.pi / 10), torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    height = uniform(-0.35, 0.35).exp()
    width = height * uniform(-0.17, 0.17).exp()
    rows = [
        [mirror * angle.cos() * width, -angle.sin() * height, uniform(-0.25, 0.25)],
        [mirror * angle.sin() * width, angle.cos() * height, uniform(-0.25, 0.25)],
    ]
    theta = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images, masks = (F.grid_sample(each, grid, align_corners=False) for each in (images, masks))
    images = images.clamp(1e-4, 1) ** uniform(-0.7, 0.7, 1, 1, 1).exp()
    images = (images - 0.5) * uniform(0.5, 1.5, 1, 1, 1) + 0.5 + uniform(-0.2, 0.2, 1, 1, 1)
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    images = torch.where(sometimes(0.3), blurred, images)
    return (images + uniform(0, 0.06, 1, 1, 1) * torch.randn_like(images)).clamp(0, 1), masks


@torch.inference_mode()
def as_table(net: LungUNet, pairs: Pairs, part: str) -> str:
    """Dice coefficient, and intersection over union of the `full` output's box, for each kind of mask."""
    rows = torch.from_numpy(pairs.rows(part))
    lung = torch.cat([masks_of(net(pairs.images[each][:, None] / 255)) for each in rows.split(64)])
    lines = [f"{part:<12}{'images':>8}{'Dice':>8}{'lowest':>8}{'box':>8}{'lowest':>8}"]
    for number, kind in enumerate(KINDS):
        own = pairs.kinds[rows] == number
        found, true = lung[own, number] > 0.5, pairs.masks[rows][own] > 0.5
        dice = 2 * (found & true).sum((1, 2)) / (found.sum((1, 2)) + true.sum((1, 2)))
        overlap = box_overlap(boxes(lung[own, 0], 0)[0], boxes(true.float(), 0)[0])
        numbers = (dice.mean(), dice.min(), overlap.mean(), overlap.min())
        lines.append(f"{kind:<12}{int(own.sum()):>8}" + "".join(f"{float(each):>8.3f}" for each in numbers))
    return "\n".join(lines)


def box_overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes (B, 4) -> (B,)."""

    def area(box: torch.Tensor) -> torch.Tensor:
        return (box[:, 1] - box[:, 0]).clamp(min=0) * (box[:, 3] - box[:, 2]).clamp(min=0)

    low, high = torch.maximum(one, other), torch.minimum(one, other)
    both = area(torch.stack([low[:, 0], high[:, 1], low[:, 2], high[:, 3]], dim=1))
    return both / (area(one) + area(other) - both)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
