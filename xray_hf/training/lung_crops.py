"""The lungs of every image, cropped before training as the bundle's network does it afterwards."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from xray_hf.data.cache import PixelSource
from xray_hf.models.lungs import LungCrop, crop
from xray_hf.training.processes import sum_over

_BATCH = 64


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
def crop_lungs(
    lungs: LungCrop, source: PixelSource, count: int, side: int, accelerator: Accelerator
) -> Cropped:
    """Find the lungs in the `count` images of a source; each process does a share."""
    found = torch.zeros(count, 5, device=accelerator.device)  # box, and whether there are lungs
    module = copy.deepcopy(lungs).to(accelerator.device)
    own = np.arange(accelerator.process_index, count, accelerator.num_processes)
    hidden = None if accelerator.is_main_process else True  # None: where nobody watches
    for start in tqdm(range(0, len(own), _BATCH), desc="lungs", unit=" batches", disable=hidden, leave=False):
        rows = own[start : start + _BATCH]
        images = torch.from_numpy(source.gather(rows)).to(accelerator.device).float().unsqueeze(1)
        box, where = module(images)
        found[rows, :4], found[rows, 4] = box, where.amax(dim=(1, 2)).sign()
    found = sum_over(accelerator, found).cpu()
    return Cropped(source, found[:, :4], side, int(found[:, 4].sum()))
