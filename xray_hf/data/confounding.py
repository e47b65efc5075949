"""Confounding of class and origin, reported before training: a network may learn the origin instead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats.contingency import association

from xray_hf.data.sample import Sample, labels_of
from xray_hf.text import listed

BOUND = 0.5  # from this Cramér's V on, the origin says much about the class


def cross_table(samples: Sequence[Sample], classes: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The O origins (source, and site if known), and (O, C) int64 counts of each class's images."""
    origins = [f"{each.source}/{each.site}" if each.site else each.source for each in samples]
    names, rows = np.unique(origins, return_inverse=True)
    counts = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(counts, (rows, labels_of(samples, classes)), 1)
    return names.tolist(), counts


def cramers_v(counts: np.ndarray) -> float:
    """Association of origin and class, 0 (none) to 1 (one tells the other); Cramér 1946, chapter 21.

    counts: (O, C). Returns 0 for a single origin or a single class.
    """
    used = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    return float(association(used, method="cramer")) if min(used.shape) > 1 else 0.0


def warnings(samples: Sequence[Sample], classes: Sequence[str], hold_out: Sequence[str] = ()) -> list[str]:
    """Warnings about these images, one sentence each. hold_out: the sources that are held out."""
    names, counts = cross_table(samples, classes)
    if len(names) < 2:
        return []
    found = [
        f"All images of {name} come from {names[int(column.argmax())]}: "
        "a model can recognise the class by its origin."
        for name, column in zip(classes, counts.T, strict=True)
        if np.count_nonzero(column) == 1
    ]
    if (v := cramers_v(counts)) >= BOUND:
        found.append(
            f"Class and origin are associated (Cramér's V {v:.2f}, 0 none, 1 complete): high accuracy on "
            "these sources may come from recognising the origin. Hold a source out to find out (--hold-out)."
        )
    held_out = {sample.site for sample in samples if sample.source in hold_out}
    used = {sample.site for sample in samples if sample.source not in hold_out}
    if shared := sorted(held_out & used - {""}):
        found.append(
            f"Held-out images and others come from the same site, {listed(shared)}: results on them say "
            "little about another hospital. Hold out all sources of that site."
        )
    return found


def as_table(samples: Sequence[Sample], classes: Sequence[str], hold_out: Sequence[str] = ()) -> str:
    """Images by origin and class, and the warnings, for a terminal."""
    names, counts = cross_table(samples, classes)
    first, width = max(map(len, names)), max(11, *(len(name) + 2 for name in classes))
    lines = [f"{'':<{first}}" + "".join(f"{name:>{width}}" for name in classes)]
    for name, row in zip(names, counts.tolist(), strict=True):
        lines.append(f"{name:<{first}}" + "".join(f"{count:>{width},}" for count in row))
    return "\n".join([*lines, *(f"warning: {text}" for text in warnings(samples, classes, hold_out))])
