"""Synthetic chest X-rays from a small statistical atlas, for trying everything without the real data.

The atlas (`atlas.npz`, made by `scripts/build_atlas.py` from CoronaHack's TRAIN part) is a linear model:
a mean image, 200 principal components and, for each class, a Gaussian over their coefficients. It keeps
sums over many people and nobody's image or coefficients. What is drawn from it shows no real person and
carries no clinical meaning: results on it say that the code works, and nothing about medicine.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import batched, count
from pathlib import Path
