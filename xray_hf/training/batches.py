"""The rows of each step: a pure function of seed and epoch, so any run can resume at any step.

`accelerate` would shard a DataLoader for us, but it repeats rows to fill the last batch. Here the rows
of an epoch do not depend on the number of processes: an epoch is cut into batches whose sizes differ by
one at most, and each process takes every `world`-th row of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from xray_hf.data.cache import PixelSource
from xray_hf.errors import ConfigError
from xray_hf.threads import pool_of_generator


def epoch_batches(
    rows: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    *,
    batch_size: int,
    balanced: bool,
    seed: int,
    epoch: int,
) -> list[np.ndarray]:
    """Shuffle an epoch and cut it into global batches.

    rows: (n,) row numbers of the training split. labels, sources: (n,) their classes and collections.
    balanced: draw n / classes rows of every class, and within a class equally many of every source, so that
    rare rows repeat and some frequent ones are left out.
    Returns ceil(n / batch_size) arrays of row numbers.
    """
    rng = np.random.default_rng([seed, epoch])
    if balanced:
        share = len(rows) // len(np.unique(labels))
        drawn = []
        for label in np.unique(labels):
            is_class = labels == label
            parts = [rows[is_class & (sources == source)] for source in np.unique(sources[is_class])]
            drawn += [_cycle(rng, part, len(range(k, share, len(parts)))) for k, part in enumerate(parts)]
        rows = np.concatenate(drawn)
    return np.array_split(rng.permutation(rows), -(-len(rows) // batch_size))


def share_of(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The rows of a global batch that process `rank` of `world` works on; never empty.

    Raises ConfigError if there are more processes than rows.
    """
    if len(batch) < world:
        raise ConfigError(
            f"a batch of {len(batch)} rows is too small for {world} processes; raise --batch-size."
        )
    return batch[rank::world]


def load_ahead(
    source: PixelSource, batches: Iterable[np.ndarray], pin: bool = False
) -> Iterator[torch.Tensor]:
    """Yield the pixels of each batch, (B, side, side), 0 to 255, read one batch ahead in a thread."""

    def load(rows: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(source.gather(rows))
        return pixels.pin_memory() if pin else pixels

    with pool_of_generator(1, "xray-load") as pool:
        pending = None
        for rows in batches:
            ready, pending = pending, pool.submit(load, rows)
            if ready is not None:
                yield ready.result()
        if pending is not None:
            yield pending.result()


def _cycle(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows, each as often as any other, or once more."""
    repeats = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(repeats)[:count]
