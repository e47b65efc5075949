"""Out-of-distribution (OOD) detection: rules on an image's appearance, and a detector on the embedding.

The engine decides with these, so neither SciPy nor scikit-learn is imported here; `fit_ood` fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from xray_hf.reading import Reading, resize

MIN_SIDE = 96  # pixels; smaller ones are thumbnails
ASPECTS = (0.5, 3.5)  # width to height; CoronaHack's widest child has 3.2
MAX_COLOUR = 0.10  # mean difference between the channels; the most tinted film of CoronaHack has 0.08
MIN_CONTRAST = 8.0  # grey levels, standard deviation of the thumbnail; the flattest of CoronaHack has 23
THUMBNAIL_SIDE = 32  # pixels
REJECT_ABOVE = 0.5  # the detector's score; its bias puts the chosen threshold there
NO_CHEST = "not a frontal chest X-ray"
# What is said of an image that breaks a rule; the first broken one counts.
RULES = {
    "too small": f"too small: it has {{width}}×{{height}} pixels, fewer than {MIN_SIDE} on a side",
    "aspect ratio": f"{NO_CHEST}: it is {{aspect:.1f}} times as wide as high",
    "coloured": f"{NO_CHEST}: it is coloured; if it is an X-ray, export it in greyscale",
    "uniform": f"{NO_CHEST}: it is almost uniform",
}
SOFTENING = 5.0  # grey levels, so that the noise of a uniform image stays small


def rule_against(reading: Reading, thumbnail: np.ndarray) -> str | None:
    """The reason to reject an image by its appearance, or None.

    thumbnail: (THUMBNAIL_SIDE, THUMBNAIL_SIDE) uint8.
    """
    width, height = reading.grey.size
    breaks = {
        "too small": min(width, height) < MIN_SIDE,
        "aspect ratio": not ASPECTS[0] <= width / height <= ASPECTS[1],
        "coloured": reading.colour > MAX_COLOUR,
        "uniform": thumbnail.std() < MIN_CONTRAST,
    }
    broken = next((name for name, is_broken in breaks.items() if is_broken), None)
    return broken and RULES[broken].format(width=width, height=height, aspect=width / height)


@dataclass(frozen=True, eq=False)
class Detector:
    """A logistic regression on the network's embedding and on a thumbnail.

    embedding: (D,) and thumbnail: (THUMBNAIL_SIDE²,) float32, the weights of the network's embedding and of
    the standardised thumbnail. bias: chosen so that a score above 0.5 is rejected.
    """

    embedding: np.ndarray
    thumbnail: np.ndarray
    bias: float

    def __post_init__(self) -> None:
        """Raise ValueError for weights that are not finite numbers or of the wrong shape."""
        if self.embedding.ndim != 1 or self.thumbnail.shape != (THUMBNAIL_SIDE**2,):
            raise ValueError(f"weights of shape {self.embedding.shape} and {self.thumbnail.shape}")
        if not all(np.isfinite(part).all() for part in (self.embedding, self.thumbnail, self.bias)):
            raise ValueError("weights that are not finite")

    def scores(self, embedding: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
        """Score images, 0 to 1; above 0.5 is OOD: (B,) float32.

        embedding: (B, D) float32. thumbnails: (B, THUMBNAIL_SIDE, THUMBNAIL_SIDE) uint8.
        """
        return 1 / (1 + np.exp(-self.logits(embedding, standardised(thumbnails)).clip(-80, 80)))

    def logits(self, embedding: np.ndarray, standardised: np.ndarray) -> np.ndarray:
        """Unbounded scores, from standardised thumbnails; above 0 is OOD: (B,) float32.

        Row by row, since the rounding of a matrix product depends on the number of images in the batch.
        """
        return np.vecdot(embedding, self.embedding) + np.vecdot(standardised, self.thumbnail) + self.bias

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Detector:
        """From what as_dict gives; raises ValueError, LookupError or TypeError for anything else."""
        embedding, thumbnail = (np.asarray(saved[name], np.float32) for name in ("embedding", "thumbnail"))
        return cls(embedding, thumbnail, float(saved["bias"]))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in float32's precision."""
        short = [[float(f"{value:.7g}") for value in part] for part in (self.embedding, self.thumbnail)]
        return {"embedding": short[0], "thumbnail": short[1], "bias": self.bias}


def thumbnail_of(pixels: np.ndarray) -> np.ndarray:
    """(side, side) uint8 -> (THUMBNAIL_SIDE, THUMBNAIL_SIDE) uint8."""
    return resize(Image.fromarray(pixels), THUMBNAIL_SIDE)


def standardised(thumbnails: np.ndarray) -> np.ndarray:
    """(B, n, n) uint8 -> (B, n²) float32: each of mean 0 and deviation about 1."""
    values = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / (values.std(axis=1, keepdims=True) + SOFTENING)
