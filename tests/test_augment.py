"""Augmentation changes training images, each its own way, within the range of grey values, and repeatably."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from xray_hf.training.augment import Augmentation, mix, random_flip
from xray_hf.training.config import AugmentationConfig, preset_values

SIDE = 224
ALL = {
    "flip": True, "rotate": 10.0, "shift": 0.1, "scale_low": 0.8, "scale_high": 1.2, "gamma": 1.6,
    "contrast": 0.3, "brightness": 0.2, "blur": 0.5, "noise": 0.5, "erase": 0.5,
}  # fmt: skip
ALONE = [
    {"rotate": 20.0}, {"shift": 0.2}, {"scale_low": 0.5}, {"scale_high": 2.0}, {"gamma": 2.0},
    {"contrast": 0.5}, {"brightness": 0.3}, {"blur": 1.0}, {"noise": 1.0}, {"erase": 1.0},
]  # fmt: skip


def xrays(count: int = 6) -> torch.Tensor:
    """The same picture `count` times: bright, with a dark left half and a frame."""
    image = torch.full((SIDE, SIDE), 180, dtype=torch.uint8)
    image[:, : SIDE // 2] = 60
    image[:4], image[:, :4] = 230, 120
    return image.repeat(count, 1, 1)


def augmented(images: torch.Tensor, seed: int = 0, **options: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    return Augmentation(AugmentationConfig(**options), SIDE, images.device)(images)


def test_nothing_asked_for_nothing_done() -> None:
    images = xrays()
    assert augmented(images) is images


@pytest.mark.parametrize("options", [ALL, *ALONE], ids=lambda options: "+".join(options))
def test_shape_and_range_stay_and_every_image_changes_its_own_way(options: dict[str, Any]) -> None:
    images = xrays()
    before = images.clone()
    changed = augmented(images, **options)
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert torch.equal(images, before)
    assert all((image - images[0].float()).abs().max() > 0.05 for image in changed)
    assert all((changed[0] - other).abs().max() > 0.05 for other in changed[1:])


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    assert torch.equal(augmented(xrays(), **ALL), augmented(xrays(), **ALL))
    assert not torch.equal(augmented(xrays(), **ALL), augmented(xrays(), seed=1, **ALL))


def test_geometry_moves_no_more_than_it_was_allowed_to() -> None:
    image = torch.zeros(64, SIDE, SIDE, dtype=torch.uint8)
    image[:, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1] = 255
    moved = augmented(image, shift=0.1)
    weights = moved / moved.sum(dim=(1, 2), keepdim=True)
    places = torch.arange(SIDE) - (SIDE - 1) / 2
    for axis in (1, 2):
        centre = (weights.sum(dim=axis) * places).sum(dim=1)
        assert centre.abs().max() <= 0.1 * SIDE + 0.5
        assert centre.abs().max() > 0.05 * SIDE


def test_a_flip_mirrors_or_leaves() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (64, 4, 4), dtype=torch.uint8)
    flipped = random_flip(images)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48


@pytest.mark.parametrize("options", [{"mixup": 0.4, "cutmix": 0}, {"mixup": 0, "cutmix": 1.0}])
def test_mixing_keeps_the_share_it_names(options: dict[str, float]) -> None:
    """Images of the constant value of their label: the mean must be what share and labels say."""
    torch.manual_seed(1)
    labels = torch.arange(6)
    pixels = (labels * 40)[:, None, None].expand(6, SIDE, SIDE).to(torch.uint8)
    shares = []
    for _ in range(20):
        mixed, others, share = mix(pixels, labels, **options)
        expected = 40 * (share * labels + (1 - share) * others)
        torch.testing.assert_close(mixed.float().mean(dim=(1, 2)), expected.float(), atol=0.01, rtol=0)
        shares.append(share)
    assert min(shares) < 0.3
    assert max(shares) > 0.7


def test_without_mixing_nothing_is_touched() -> None:
    pixels, labels = xrays(), torch.arange(6)
    assert mix(pixels, labels, mixup=0, cutmix=0) == (pixels, labels, 1.0)


def test_the_default_recipe_neither_mirrors_nor_turns_patients_over() -> None:
    options = preset_values("robust", "xray-resnet18")
    fields = {field.name for field in dataclasses.fields(AugmentationConfig)}
    augmentation = AugmentationConfig(**{name: options[name] for name in fields & set(options)})
    assert not augmentation.flip
    assert 0 < augmentation.rotate <= 20
