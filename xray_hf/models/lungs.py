"""Find the lungs in a chest X-ray, cut out the box around them, standardise its grey values.

A U-Net (Ronneberger et al. 2015) of 0.47 M parameters. It was trained on two kinds of masks and has an output
for each: `full` masks include the part of the lungs that lies behind the heart, `clear` masks do not.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS = Path(__file__).with_name("lungs.safetensors")

SIDE = 128  # pixels that the U-Net sees
GRID = 16  # parts of each side, in which lungs and heatmaps are given
LARGE = 1_000  # tensors with more elements are stored in half precision
KINDS = ("full", "clear")
WIDTHS = (12, 24, 48, 96)  # channels at a side of 128, 64, 32 and 16 pixels
SMALLEST_AREA = 0.08  # share of the image; less cannot be a pair of lungs
MARGIN = 0.03  # share of the image's side by which the box is enlarged on each of its sides
MEAN, DEVIATION = 127.5, 51.0  # of the grey values that the network sees
_STEPS = 1024  # a box is rounded to 1/1024 of the side, so that all runtimes cut out the same
_EDGE = 0.01  # share of the lungs that may lie beyond each side of the box: specks, not lungs


class LungUNet(nn.Module):
    """(B, 1, SIDE, SIDE) float32, grey in 0..1 -> (B, 2, SIDE, SIDE) logits of lung, one channel of KINDS."""

    def __init__(self) -> None:
        super().__init__()
        first, *others = WIDTHS
        self.down = nn.ModuleList([_block(1, first)])
        self.down.extend(_block(each // 2, each) for each in others)
        self.bottom = _block(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(_block(2 * each, each // 2) for each in reversed(others))
        self.top = _block(2 * first, first)
        self.head = nn.Conv2d(first, len(KINDS), 1)

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        """Standardise each image, since collections differ in grey, and segment it."""
        mean = grey.mean(dim=(2, 3), keepdim=True)
        x = (grey - mean) / ((grey - mean).square().mean(dim=(2, 3), keepdim=True).sqrt() + 1e-3)
        skipped = []
        for block in self.down:
            x = block(x)
            skipped.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for block in [*self.up, self.top]:
            x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skipped.pop()], dim=1))
        return self.head(x)


def _block(before: int, after: int) -> nn.Sequential:
    """Two convolutions with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class LungCrop(nn.Module):
    """Finds the lungs: (B, 1, side, side) float32 in 0..255 -> their box and where they are.

    Returns (B, 4) float32, top, bottom, left and right as shares of the side, and (B, GRID, GRID) float32,
    the share of each part of the image that is lung. Without lungs the box is the whole image, all shares 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.segment = LungUNet()

    @classmethod
    def load(cls, weights: Path = WEIGHTS) -> LungCrop:
        """Read the weights, by default those that come with this package.

        Raises ValueError for values that are not finite, and what safetensors and torch raise on a damaged
        file.
        """
        module, state = cls(), load_file(weights)
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise ValueError(f"{weights} has values that are not finite")
        module.segment.load_state_dict(state)
        return module.eval().to(memory_format=torch.channels_last)

    def save(self, weights: Path) -> None:
        """Write the weights, the large ones in half precision."""
        state = {name: value.contiguous() for name, value in self.segment.state_dict().items()}
        save_file(
            {name: each.half() if each.numel() > LARGE else each for name, each in state.items()}, weights
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the lungs, as the class describes."""
        small = nn.functional.interpolate(images / 255, (SIDE, SIDE), mode="bilinear")
        masks = masks_of(self.segment(small)[:, :1])
        box, found = boxes(masks[:, 0])
        return box, nn.functional.avg_pool2d(masks, SIDE // GRID)[:, 0] * found[:, None, None]


def masks_of(logits: torch.Tensor) -> torch.Tensor:
    """Soft masks: 0 to 1 while the probability goes from 1/4 to 3/4, so that rounding makes no jump."""
    return (2 * logits.sigmoid() - 0.5).clamp(0, 1)


def boxes(masks: torch.Tensor, margin: float = MARGIN) -> tuple[torch.Tensor, torch.Tensor]:
    """The box around the lungs of each image.

    masks: (B, h, w) float32, 0 to 1. Returns (B, 4) float32, top, bottom, left and right as shares of the
    side, and (B,), 1 where lungs were found; else 0, and the box is the whole image.
    """
    found = (masks.mean(dim=(1, 2)) >= SMALLEST_AREA).to(masks.dtype)
    top, bottom = _ends(masks.sum(dim=2))
    left, right = _ends(masks.sum(dim=1))
    box = torch.stack([top - margin, bottom + margin, left - margin, right + margin], dim=1).clamp(0, 1)
    box = (box * _STEPS).round() / _STEPS
    whole = box.new_tensor([0.0, 1.0, 0.0, 1.0])
    return torch.lerp(whole, box, found[:, None]), found


def _ends(profile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The ends, as shares of n, beyond which a profile (B, n) has _EDGE of its mass each."""
    before = profile.cumsum(dim=1) - profile

    def reach(share: float) -> torch.Tensor:
        part = (share * profile.sum(dim=1, keepdim=True) - before) / (profile + 1e-6)
        return part.clamp(0, 1).mean(dim=1)

    return reach(_EDGE), reach(1 - _EDGE)


def crop(images: torch.Tensor, box: torch.Tensor, side: int) -> torch.Tensor:
    """The inside of each image's box, stretched: (B, 1, h, w) float32 -> (B, 1, side, side)."""
    top, bottom, left, right = box.unbind(1)
    return _resample(images, right - left, left + right - 1, bottom - top, top + bottom - 1, side)


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Give all images the same brightness and contrast, in which collections differ.

    (B, 1, h, w) float32, 0 to 255 -> the same, of mean MEAN and standard deviation DEVIATION, except where
    values are clipped at 0 and 255.
    """
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    deviation = centred.square().mean(dim=(2, 3), keepdim=True).sqrt() + 0.25
    return (MEAN + DEVIATION * centred / deviation).clamp(0, 255)


def uncrop(maps: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Maps of the boxes' insides, (B, C, h, w), in the whole image: (B, C, GRID, GRID), 0 outside."""
    top, bottom, left, right = box.unbind(1)
    width, height = right - left, bottom - top
    across, down = (1 - left - right) / width, (1 - top - bottom) / height
    return _resample(maps, 1 / width, across, 1 / height, down, GRID, padding_mode="zeros")


def _resample(
    images: torch.Tensor,
    width: torch.Tensor,
    across: torch.Tensor,
    height: torch.Tensor,
    down: torch.Tensor,
    side: int,
    padding_mode: str = "border",
) -> torch.Tensor:
    """Bilinear, at x·width + across and y·height + down for x, y from -1 to 1: (B, C, side, side)."""
    ramp = (torch.arange(side, device=images.device, dtype=images.dtype) * 2 + 1) / side - 1
    x = (ramp * width[:, None] + across[:, None])[:, None, :].expand(-1, side, -1)
    y = (ramp * height[:, None] + down[:, None])[:, :, None].expand(-1, -1, side)
    grid = torch.stack([x, y], dim=-1)
    return nn.functional.grid_sample(images, grid, padding_mode=padding_mode, align_corners=False)
