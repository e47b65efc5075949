"""Ablated inputs: X-rays without what a diagnosis needs. A model that still finds the class uses a shortcut.

The idea is that of Maguolo and Nanni 2021 ("A critic evaluation of methods for COVID-19 automatic detection
from X-ray images"), who blacked the lungs out, and of DeGrave et al. 2021 ("AI for radiographic COVID-19
detection selects shortcuts over signal"). Testing a model on a view shows what it attends to; training
one on it shows what the data set gives away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LUNGS_DOWN, LUNGS_ACROSS = (0.10, 0.90), (0.15, 0.85)  # a rectangle around the lungs, shares of the side
FRAME = 0.08  # width of the outer frame, share of the side
UNIFORM = (0.56, 1 - 0.84**2)  # the rectangle's and the frame's share of the image
SIGMA = 1 / 16  # of the blur, share of the side: ribs and vessels go, the heart's outline stays

View = Callable[[np.ndarray], np.ndarray]


def centre_masked(images: np.ndarray) -> np.ndarray:
    """The lungs black: (B, side, side) uint8 -> the same. Shoulders, belly, edges and letters remain."""
    side = images.shape[-1]
    top, bottom, left, right = (round(share * side) for share in (*LUNGS_DOWN, *LUNGS_ACROSS))
    masked = images.copy()
    masked[:, top:bottom, left:right] = 0
    return masked


def border(images: np.ndarray) -> np.ndarray:
    """All but the outer frame black: (B, side, side) uint8 -> the same."""
    width = round(FRAME * images.shape[-1])
    framed = images.copy()
    framed[:, width:-width, width:-width] = 0
    return framed


def blurred(images: np.ndarray) -> np.ndarray:
    """Low frequencies only: (B, side, side) uint8 -> the same."""
    from scipy.ndimage import gaussian_filter  # takes longer to import than `train.py --help` should

    sigma = SIGMA * images.shape[-1]
    smooth = gaussian_filter(images.astype(np.float32), (0, sigma, sigma))
    return np.rint(smooth).astype(np.uint8)


def histogram(images: np.ndarray) -> np.ndarray:
    """The pixels sorted, dark ones first: (B, side, side) uint8 -> the same. Only grey levels are left."""
    return np.sort(images.reshape(len(images), -1)).reshape(images.shape)


VIEWS = {view.__name__: view for view in (centre_masked, border, blurred, histogram)}


def shares_of_mass(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each map lies in the rectangle around the lungs, and how much in the outer frame.

    heatmaps: (B, h, w), 0 or more. Returns (B,) and (B,) float64, 0 to 1; NaN for a map without mass. The
    area between the two is in neither. A uniform map gives UNIFORM. Cells on an edge count in proportion.
    """
    _, height, width = heatmaps.shape
    inner = (FRAME, 1 - FRAME)
    lungs = np.outer(_coverage(height, LUNGS_DOWN), _coverage(width, LUNGS_ACROSS))
    frame = 1 - np.outer(_coverage(height, inner), _coverage(width, inner))
    total = heatmaps.sum(axis=(1, 2), dtype=np.float64)
    total[total == 0] = np.nan
    return (heatmaps * lungs).sum(axis=(1, 2)) / total, (heatmaps * frame).sum(axis=(1, 2)) / total


def evidence_for(heatmaps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The map of a class minus the mean map of all classes: evidence for all alike decides nothing.

    heatmaps: (B, C, h, w). chosen: (B,) the classes. Returns (B, h, w), 0 or more.
    """
    maps = heatmaps[np.arange(len(chosen)), chosen]
    return np.asarray((maps - heatmaps.mean(axis=1)).clip(min=0))


def share_within(heatmaps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How much of each map lies in a region of its own.

    heatmaps: (B, h, w), 0 or more. region: (B, h, w), the share of each position that belongs to it, 0 to 1.
    Returns (B,) float64, 0 to 1; NaN for a map without mass or an empty region.
    """
    inside = (heatmaps * region).sum(axis=(1, 2), dtype=np.float64)
    total = heatmaps.sum(axis=(1, 2), dtype=np.float64)
    return np.divide(inside, total, np.full(len(total), np.nan), where=(total > 0) & region.any(axis=(1, 2)))


def _coverage(cells: int, span: tuple[float, float]) -> np.ndarray:
    """(cells,) the share of each of `cells` equal parts of 0..1 that lies within the span, 0 to 1."""
    edges = np.linspace(0, 1, cells + 1).clip(*span)
    return np.diff(edges) * cells
