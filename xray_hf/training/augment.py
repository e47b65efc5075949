"""Random changes of training images, drawn for each image, on the device, before normalisation.

Noise is drawn on the images' device, since it takes a number per pixel; torch's CPU generator draws all else.
A checkpoint holds the state of both generators.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from xray_hf.training.config import AugmentationConfig

BLUR_SIGMA = (0.3, 1.5)  # pixels at a side of 224
NOISE = 0.04  # standard deviation, of a range of 1
ERASED = (0.02, 0.15)  # share of the image


class Augmentation:
    """The changes that AugmentationConfig asks for, as one function of a batch; by default the identity."""

    def __init__(self, options: AugmentationConfig, side: int, device: torch.device) -> None:
        """side: height and width of the images in pixels. device: where they are."""
        self.flip = options.flip
        self.layers = _layers(options, side, device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, side, side), 0 to 255 -> the same; float32 where grey values were computed."""
        if self.flip:
            pixels = random_flip(pixels)
        if not self.layers:
            return pixels
        images = pixels.to(torch.float32).div_(255).unsqueeze(1)
        for layer in self.layers:
            images = layer(images).clamp_(0, 1)
        return images.squeeze(1).mul_(255)


def random_flip(pixels: torch.Tensor) -> torch.Tensor:
    """Mirror each image with probability 1/2: (B, H, W) -> same."""
    chosen = torch.rand(len(pixels)) < 0.5
    return torch.where(chosen.to(pixels.device, non_blocking=True)[:, None, None], pixels.flip(-1), pixels)


def mix(
    pixels: torch.Tensor, labels: torch.Tensor, *, mixup: float, cutmix: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix each image with another of its batch: mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019).

    pixels: (B, H, W). labels: (B,). mixup, cutmix: alpha of the Beta distribution that the share is drawn
    from, 0 for never; with both, a batch gets the one or the other. Returns the mixed images, the labels of
    the others, and the share in 0..1 that the first ones keep.
    """
    if not mixup and not cutmix:
        return pixels, labels, 1.0
    is_cut = bool(torch.rand(()) < 0.5) if mixup and cutmix else bool(cutmix)
    alpha = torch.tensor(cutmix if is_cut else mixup)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(pixels)).to(pixels.device, non_blocking=True)
    others = pixels[order]
    if not is_cut:
        mixed = torch.lerp(others.float(), pixels.float(), share)
    else:
        mixed, share = _paste(pixels, others, share)
    return mixed, labels[order], share


def _paste(pixels: torch.Tensor, others: torch.Tensor, share: float) -> tuple[torch.Tensor, float]:
    """Paste a rectangle of the others, about 1 - share of the area; also return the share that is left."""
    height, width = pixels.shape[1:]
    h, w = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    top = int(torch.randint(height - h + 1, ()))
    left = int(torch.randint(width - w + 1, ()))
    mixed = pixels.clone()
    mixed[:, top : top + h, left : left + w] = others[:, top : top + h, left : left + w]
    return mixed, 1 - h * w / (height * width)


def _layers(options: AugmentationConfig, side: int, device: torch.device) -> list[Any]:
    if options == AugmentationConfig(flip=options.flip, mixup=options.mixup, cutmix=options.cutmix):
        return []
    from kornia import augmentation as kornia  # here, since the import takes two seconds

    layers: list[Any] = []
    if options.rotate or options.shift or options.scale_low != 1 or options.scale_high != 1:
        shift, scale = (options.shift, options.shift), (options.scale_low, options.scale_high)
        layers.append(kornia.RandomAffine(options.rotate, shift, scale, p=1.0))
    if options.gamma > 1:
        layers.append(kornia.RandomGamma((1 / options.gamma, options.gamma), p=1.0))
    if options.contrast:
        layers.append(kornia.RandomContrast((1 - options.contrast, 1 + options.contrast), p=1.0))
    if options.brightness:
        layers.append(kornia.RandomBrightness((1 - options.brightness, 1 + options.brightness), p=1.0))
    if options.blur:
        low, high = (sigma * side / 224 for sigma in BLUR_SIGMA)
        kernel = 2 * math.ceil(2 * high) + 1  # two standard deviations to either side
        layers.append(kornia.RandomGaussianBlur((kernel, kernel), (low, high), p=options.blur))
    if options.noise:
        noise = kornia.RandomGaussianNoise(std=NOISE, p=options.noise)
        noise.set_rng_device_and_dtype(device, torch.float32)
        layers.append(noise)
    if options.erase:
        layers.append(kornia.RandomErasing(ERASED, p=options.erase))
    return layers
