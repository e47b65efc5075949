"""Near-duplicate images, and the groups of patients that they join."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_SIDE = 32
CORRELATION = 0.999  # above it two thumbnails show the same picture; found by looking at the pairs


def near_duplicates(thumbnails: np.ndarray, block: int = 512) -> list[tuple[int, int]]:
    """Find pairs of the same picture.

    thumbnails: (N, 32, 32) uint8. Returns pairs (i, j), i < j, whose Pearson correlation is above
    CORRELATION. Compares block by block, so memory grows with N and not with its square.
    """
    if not len(thumbnails):
        return []
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    pairs = []
    for start in range(0, len(flat), block):
        correlation = flat[start : start + block] @ flat[start:].T
        for i, j in np.argwhere(correlation > CORRELATION):
            if i < j:
                pairs.append((start + int(i), start + int(j)))
    return pairs


def patient_groups(patient_ids: Sequence[str], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Number the groups that must stay together: same patient, or joined by near-duplicate images.

    Returns (N,) int64; equal numbers mean the same group.
    """
    _, patients = np.unique(np.asarray(patient_ids), return_inverse=True)
    count = int(patients.max(initial=-1)) + 1
    ends = patients[np.asarray(pairs, np.int64).reshape(-1, 2)]
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, group_of_patient = connected_components(links, directed=False)
    return group_of_patient[patients].astype(np.int64)
