"""The lungs of every image, cropped before training as the bundle's network does it afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from xray_hf.data.cache import PixelSource
from xray_hf.models.lungs import LungCrop, crop

_BATCH = 128


@dataclass(frozen=True, eq=False)
class Cropped:
    """Another source's images, each cropped to its box (N, 4) and resized.

    side: height and width of the crops in pixels. found: in how many images the lungs were found.
    """

    source: PixelSource
    boxes: torch.Tensor
    side: int
    found: int

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """As PixelSource.gather."""
        images = torch.from_numpy(self.source.gather(rows)).float().unsqueeze(1)
        inside = crop(images, self.boxes[torch.from_numpy(rows)], self.side)
        return np.asarray(inside.squeeze(1).round().byte())


@torch.inference_mode()
def crop_lungs(lungs: LungCrop, source: PixelSource, count: int, side: int) -> Cropped:
    """Find the lungs in the `count` images of a source."""
    boxes, found = [], 0
    for rows in np.array_split(np.arange(count), -(-count // _BATCH)):
        box, where = lungs(torch.from_numpy(source.gather(rows)).float().unsqueeze(1))
        boxes.append(box)
        found += int(where.any(dim=2).any(dim=1).sum())
    return Cropped(source, torch.cat(boxes), side, found)
