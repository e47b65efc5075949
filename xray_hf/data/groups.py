"""Near-duplicate images, within a source and across sources, and the groups of patients that they join.

The same picture recurs in other collections with another contrast, size and compression, with its margin cut
off or a border around it. Two thumbnails are therefore compared by their local structure (each pixel minus
its surroundings' mean, over their deviation), and the edges of one are moved until it fits the other.
docs/duplicates.md has the measurements behind the constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

THUMBNAIL_SIDE = 64  # pixels
VERSION = 1  # raise it when the same thumbnails would give other pairs: the cached ones depend on it
CORRELATION = 0.9  # of the local structure of two fitted thumbnails; above it they show the same picture

_COARSE_SIDE, _COARSE_RADIUS = 24, 1.2  # pixels, for comparing every image with every other
_FINE_RADIUS = 1.25  # pixels of a thumbnail
_CANDIDATES = 5  # of the later images, the most similar ones that are looked at closely
_COARSE_CORRELATION = 0.6  # below it no pair is looked at closely
_FITTED_CORRELATION = 0.78  # of the coarse thumbnails after fitting, likewise
_MAX_MOVE = 0.08  # of the side: how far fitting may move an edge
# The edges top, bottom, left and right of a view, in parts of the side: as it is, and moved outwards or
# inwards. Half of the 16 combinations suffice: fitting closes the gap.
_MOVES = 0.025 * np.array(
    [(0, 0, 0, 0)] + [(a, b, c, a * b * c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)],
    np.float32,
)
_NOISE = 1.0  # grey levels; structure much weaker than it counts as none
_MARGIN = 0.06  # of the side: a strip along a border that is not compared
_BLOCK = 512  # images compared at a time
_FITTED = 64  # pairs fitted at a time: more would leave the CPU's caches


def near_duplicates(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Find pairs of the same picture.

    thumbnails: (N, 64, 64) uint8. Returns pairs (i, j), i < j, ascending. If a picture occurs more than
    six times, not every pair is listed, but all its copies are linked through others.
    Memory grows with N, time with its square.
    """
    return [pair for pair, correlation in scored_pairs(thumbnails).items() if correlation > CORRELATION]


def scored_pairs(thumbnails: np.ndarray) -> dict[tuple[int, int], float]:
    """The pairs looked at closely, ascending, with the correlation of their local structure."""
    if len(thumbnails) < 2:
        return {}
    pairs, edges = _candidates(thumbnails)
    coarse = _structure(_resampled(thumbnails, _MOVES[0]), _COARSE_RADIUS)
    edges, fitted = _fit(coarse, pairs, edges, steps=4)
    pairs, edges = pairs[fitted > _FITTED_CORRELATION], edges[fitted > _FITTED_CORRELATION]
    used, rows = np.unique(pairs, return_inverse=True)
    fine = _structure(thumbnails[used], _FINE_RADIUS)
    _, fitted = _fit(fine, rows.reshape(-1, 2), edges, steps=4)
    return dict(sorted(((int(i), int(j)), float(value)) for (i, j), value in zip(pairs, fitted, strict=True)))


def patient_groups(patient_ids: Sequence[str], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Number the groups that must stay together: same patient, or joined by near-duplicate images.

    patient_ids: (N,) equal ones are one patient, whatever the source. Returns (N,) int64; equal numbers mean
    the same group.
    """
    _, patients = np.unique(np.asarray(patient_ids, dtype=np.str_), return_inverse=True)
    count = int(patients.max(initial=-1)) + 1
    ends = patients[np.asarray(pairs, np.int64).reshape(-1, 2)]
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, group_of_patient = connected_components(links, directed=False)
    return group_of_patient[patients].astype(np.int64)


def _candidates(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs worth a closer look: (P, 2) rows i < j, and (P, 4) the moves of i's edges that fit j best."""
    plain = _view(thumbnails, _MOVES[0])
    found, edges = [], []
    blocks = range(0, len(thumbnails), _BLOCK)
    hidden = True if len(blocks) < 2 else None  # None: shown on a terminal only
    for start in tqdm(blocks, desc="comparing", unit=" blocks", disable=hidden, leave=False):
        rows = thumbnails[start : start + _BLOCK]
        views = [_view(rows, moves) for moves in _MOVES]
        best = views[0] @ plain[start:].T
        for view in views[1:]:
            np.maximum(best, view @ plain[start:].T, out=best)
        best[np.tril_indices(len(rows), m=best.shape[1])] = -1  # itself, and images before it
        kept = min(_CANDIDATES, best.shape[1])
        top = np.argpartition(best, best.shape[1] - kept, axis=1)[:, -kept:]
        i, k = np.nonzero(np.take_along_axis(best, top, axis=1) > _COARSE_CORRELATION)
        j = top[i, k]
        found.append(np.stack([i, j], axis=1) + start)
        edges.append(_MOVES[np.argmax([(view[i] * plain[start + j]).sum(axis=1) for view in views], axis=0)])
    return np.concatenate(found), np.concatenate(edges)


def _fit(
    structure: np.ndarray, pairs: np.ndarray, edges: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move the edges of each pair's first image until it fits the second, by Gauss-Newton steps.

    structure: (N, S, S) float32. pairs: (P, 2) rows of it. edges: (P, 4) where to begin.
    Returns the best fit met on the way: (P, 4) edges and (P,) correlations.
    """
    side = structure.shape[1]
    ramp = ((np.arange(side) + 0.5) / side).astype(np.float32)
    ends = np.stack([1 - ramp, ramp])  # how much a pixel moves with its two edges
    best, fitted = edges.copy(), np.full(len(pairs), -1, np.float32)
    for start in range(0, len(pairs), _FITTED):
        part = slice(start, start + _FITTED)
        first, second = structure[pairs[part, 0]], structure[pairs[part, 1]]
        here = edges[part]
        for step in range(steps + 1):
            down, across = (_interpolation(here[:, k], here[:, k + 1], side) for k in (0, 2))
            moved = down @ first @ across.transpose(0, 2, 1)
            target = second * np.any(down, axis=2)[:, :, None] * np.any(across, axis=2)[:, None, :]
            product, energy = (moved * target).sum(axis=(1, 2)), (moved**2).sum(axis=(1, 2))
            correlation = product / np.sqrt(np.maximum(energy * (target**2).sum(axis=(1, 2)), 1e-6))
            better = correlation > fitted[part]
            fitted[part][better], best[part][better] = correlation[better], here[better]
            if step == steps:
                break
            gain = (product / np.maximum(energy, 1e-6))[:, None, None]
            by_row, by_column = (np.gradient(moved, axis=axis) * (gain * side) for axis in (1, 2))
            rows, columns = by_row[:, None] * ends[:, :, None], by_column[:, None] * ends[:, None, :]
            slopes = np.concatenate([rows, columns], axis=1).reshape(len(here), 4, -1)
            normal = slopes @ slopes.transpose(0, 2, 1) + 1e-3 * np.eye(4, dtype=np.float32)
            error = (target - gain * moved).reshape(len(here), -1, 1)
            here = np.clip(here + np.linalg.solve(normal, slopes @ error)[:, :, 0], -_MAX_MOVE, _MAX_MOVE)
    return best, fitted


def _interpolation(low: np.ndarray, high: np.ndarray, side: int) -> np.ndarray:
    """Linear weights (P, side, side): pixels over the edges low..1 + high, from pixels over 0..1.

    0 near and beyond either one's border, whose own structure would hide the picture's.
    """
    pixels = np.arange(side, dtype=np.float32)
    at = low[:, None] * side + (1 + high - low)[:, None] * (pixels + 0.5) - 0.5
    margin, end = side * _MARGIN, side - 1 - side * _MARGIN
    inside = (at >= margin) & (at <= end) & (pixels >= margin) & (pixels <= end)
    return np.maximum(1 - np.abs(at[:, :, None] - pixels), 0) * inside[:, :, None]


def _resampled(thumbnails: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Thumbnails (N, S, S) within the moved edges, as (N, 24, 24) float32; beyond them the edge repeats."""
    source, side = thumbnails.shape[1], _COARSE_SIDE
    weights = []
    for low, high in (moves[:2], moves[2:]):
        at = (low + (1 + high - low) * (np.arange(4 * side) + 0.5) / (4 * side)) * source - 0.5
        hats = np.maximum(1 - np.abs(at.clip(0, source - 1)[:, None] - np.arange(source)), 0)
        weights.append(hats.reshape(side, 4, source).mean(axis=1).astype(np.float32))
    return weights[0] @ thumbnails.astype(np.float32) @ weights[1].T


def _structure(images: np.ndarray, radius: float) -> np.ndarray:
    """Each pixel minus the mean around it, over the deviation around it: (N, S, S) float32."""
    spread = (0, radius, radius)
    detail = images - gaussian_filter(images.astype(np.float32), spread)
    return detail / (np.sqrt(gaussian_filter(detail**2, spread)) + _NOISE)


def _view(thumbnails: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The coarse structure within the moved edges, but for a strip along them: (N, D) of length 1, or 0."""
    margin = 1 + int(_MARGIN * _COARSE_SIDE)
    structure = _structure(_resampled(thumbnails, moves), _COARSE_RADIUS)
    flat = structure[:, margin:-margin, margin:-margin].reshape(len(thumbnails), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
