"""Synthetic patients for the demo's examples: sharper than those of `data.synthetic`, adults among them.

`patients.npz` (made by `scripts/build_patients.py` from training images of three collections) is a linear
model as `data/atlas.npz` is: a mean, principal components and, for each group, a Gaussian over their
coefficients. What such a model leaves out, from ribs to grain, is drawn as noise with the mean power spectrum
of real images at that place. Coarse noise is weaker, since it looks like opacities: at 224 pixels the power
is that of real images above 45 cycles a side, and a third to a fifth of it from 10 to 35. Nothing drawn
shows a real person or has a clinical meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from xray_hf.data.synthetic import read_arrays
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA

ATLAS_FILE = Path(__file__).with_name("patients.npz")
# {group: (collection, finding)}, in the order of the atlas
GROUPS = {
    "child-normal": ("coronahack", PAPER_CLASSES[NORMAL]),
    "child-pneumonia": ("coronahack", PAPER_CLASSES[PNEUMONIA]),
    "adult-normal": ("radiography", PAPER_CLASSES[NORMAL]),
    "adult-pneumonia": ("thorax_scan", PAPER_CLASSES[PNEUMONIA]),
    "adult-covid": ("radiography", PAPER_CLASSES[COVID19]),
}
CHILDREN = (0, 1)
SIDE = 224  # pixels of the images behind the atlas
WINDOW, STEP = 32, 16  # pixels: tiles in which the power spectrum is taken, half overlapping
OCTAVE = 12  # steps in which a doubling of an amplitude is stored
TILES = (SIDE // STEP + 1,) * 2
LOST_ABOVE = 0.31  # cycles a pixel: above this the images behind the atlas were smoothed by moving them
# Ribs and vessels lie along lines, noise does not: at full strength coarse noise looks like opacities.
ROUGH = 0.3  # the part of its strength that the coarsest noise has
FINE = 0.25  # cycles a pixel from which noise has all of it
FULL_TEXTURE = 50  # grey levels; darker places have less texture, and the black beside a patient none
FILM_SIDE = 448  # pixels of what is drawn
GRAIN = 1.1  # grey levels, standard deviation: what lies beyond the resolution of the collections


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """A linear model of S×S grey levels (0..255), with K components and G groups.

    mean: (S, S). components: (K, S, S), grey levels per unit of a coefficient. class_means: (G, K) and
    class_factors: (G, K, K), lower triangular. amplitudes: (2, *TILES, WINDOW, WINDOW // 2 + 1), of adults
    and of children: the root of the mean power of each tile's real Fourier transform.
    """

    mean: np.ndarray
    components: np.ndarray
    class_means: np.ndarray
    class_factors: np.ndarray
    amplitudes: np.ndarray


@cache
def load_atlas() -> Atlas:
    """The package's atlas; raises DataError if its file is missing."""
    stored = read_arrays(ATLAS_FILE)
    return Atlas(
        mean=stored["mean"],
        components=stored["components"] * stored["scales"][:, None, None],
        class_means=stored["class_means"],
        class_factors=stored["class_factors"],
        amplitudes=2 ** (stored["amplitudes"] / OCTAVE),
    )


def draw(group: str, seed: int) -> Image.Image:
    """A synthetic patient: FILM_SIDE×FILM_SIDE, mode "L"; the same for the same group and seed."""
    atlas, label = load_atlas(), list(GROUPS).index(group)
    rng = np.random.default_rng([label, seed])
    z = rng.standard_normal(len(atlas.components))
    coefficients = atlas.class_means[label] + atlas.class_factors[label] @ z
    # einsum and not @: the order of summation in BLAS depends on the machine.
    coarse = atlas.mean + np.einsum("k,khw->hw", coefficients, atlas.components)
    noise = texture(atlas.amplitudes[int(label in CHILDREN)], rng)
    smooth = enlarge(coarse, SIDE)
    film = enlarge(smooth + (smooth / FULL_TEXTURE).clip(0, 1) * noise, FILM_SIDE)
    film += GRAIN * rng.standard_normal(film.shape)
    return Image.fromarray(np.rint(film).clip(0, 255).astype(np.uint8))


def texture(amplitudes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE) noise with the spectrum of each tile: white noise, filtered tile by tile.

    Two half overlapping windows of a raised cosine have squares that add up to 1, so applied before and after
    the filter they leave the power as it is.
    """
    white = rng.standard_normal((SIDE, SIDE))
    # The power that white noise has in a tile, for which `amplitudes` must be made up.
    own = np.sqrt((_window() ** 2).sum())
    down, across = np.fft.fftfreq(WINDOW)[:, None], np.fft.rfftfreq(WINDOW)
    frequency = np.hypot(down, across)
    gain = 1 + (frequency / LOST_ABOVE) ** 3
    gain *= ROUGH + (1 - ROUGH) * (frequency / FINE).clip(0, 1)
    filtered = np.fft.irfft2(tiles_spectrum(white) / own * gain * amplitudes, s=(WINDOW, WINDOW)) * _window()
    padded = np.zeros((SIDE + WINDOW, SIDE + WINDOW))
    for row in range(TILES[0]):
        for column in range(TILES[1]):
            top, left = row * STEP, column * STEP
            padded[top : top + WINDOW, left : left + WINDOW] += filtered[row, column]
    inside = slice(STEP, STEP + SIDE)
    return padded[inside, inside]


def tiles_spectrum(image: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) -> (*TILES, WINDOW, WINDOW // 2 + 1) complex, of each windowed tile."""
    padded = np.pad(image, STEP, mode="reflect")
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW))[::STEP, ::STEP]
    return np.fft.rfft2(tiles * _window())


def enlarge(pixels: np.ndarray, side: int) -> np.ndarray:
    """(S, S) -> (side, side) float64, bicubic."""
    image = Image.fromarray(pixels.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float64)


def _window() -> np.ndarray:
    """(WINDOW, WINDOW), whose squares, half overlapping, add up to 1."""
    wave = np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
    return np.outer(wave, wave)
