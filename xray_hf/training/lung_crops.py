"""Crop every image to its lungs before training, as the bundle's network does it afterwards."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from xray_hf.data.cache import PixelSource, default_cache_dir
from xray_hf.errors import DataError
from xray_hf.files import atomic_file
from xray_hf.models.full_float32 import full_float32
from xray_hf.models.lungs import LungCrop, crop, standardise
from xray_hf.training.processes import sum_over

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Cropped:
    """Another source's images, each cropped to its box (N, 4), resized and standardised.

    side: height and width of the crops in pixels. found: in how many images the lungs were found.
    """

    source: PixelSource
    boxes: torch.Tensor
    side: int
    found: int

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(B,) row numbers -> (B, side, side) float32, 0 to 255 and as exact as in the bundle's graph."""
        images = torch.from_numpy(self.source.gather(rows)).float().unsqueeze(1)
        inside = standardise(crop(images, self.boxes[torch.from_numpy(rows)], self.side))
        return np.asarray(inside.squeeze(1))


def crop_lungs(
    lungs: LungCrop,
    source: PixelSource,
    count: int,
    side: int,
    accelerator: Accelerator,
    cache_dir: Path | None = None,
) -> Cropped:
    """Crop the `count` images of a source to their lungs.

    The boxes are cached: finding them takes two minutes for 15,000 images on two cores.
    cache_dir: as in cache.prepare. Raises OutputError if the cache cannot be written, DataError if it is
    damaged.
    """
    path = (cache_dir or default_cache_dir()) / f"lungs-{_digest(lungs, source, count)}.npy"
    is_known = sum_over(accelerator, torch.tensor(float(path.exists()))) == accelerator.num_processes
    if is_known:
        found = _read(path, count)
    else:
        found = _find(lungs, source, count, accelerator)
        if accelerator.is_local_main_process:
            with atomic_file(path) as temporary:
                np.save(temporary, found)
    boxes = torch.from_numpy(found[:, :4])
    return Cropped(source, boxes, side, int(found[:, 4].sum()))


@torch.inference_mode()
def _find(lungs: LungCrop, source: PixelSource, count: int, accelerator: Accelerator) -> np.ndarray:
    """Each image's box, and 1 where there are lungs: (count, 5) float32. Each process does a share."""
    found = torch.zeros(count, 5, device=accelerator.device)
    module = copy.deepcopy(lungs).to(accelerator.device)
    own = np.arange(accelerator.process_index, count, accelerator.num_processes)
    hidden = None if accelerator.is_main_process else True  # None: on a terminal only
    for start in tqdm(range(0, len(own), _BATCH), desc="lungs", unit=" batches", disable=hidden, leave=False):
        rows = own[start : start + _BATCH]
        images = torch.from_numpy(source.gather(rows)).to(accelerator.device).float().unsqueeze(1)
        with full_float32():
            box, where = module(images)
        found[rows, :4], found[rows, 4] = box, where.amax(dim=(1, 2)).sign()
    return np.asarray(sum_over(accelerator, found).cpu())


def _read(path: Path, count: int) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
        if found.shape != (count, 5) or found.dtype != np.float32:
            raise ValueError(f"it holds {found.dtype} {found.shape}, not boxes of {count} images")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); delete this file, and it will be rebuilt.") from error
    return found


def _digest(lungs: LungCrop, source: PixelSource, count: int) -> str:
    """A hash of everything that the boxes depend on: the weights and every pixel."""
    digest = hashlib.sha256()
    for value in lungs.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    for start in range(0, count, _BATCH):
        digest.update(source.gather(np.arange(start, min(start + _BATCH, count))).data)
    return digest.hexdigest()[:16]
