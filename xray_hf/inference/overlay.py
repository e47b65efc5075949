"""Class activation maps as pictures."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from xray_hf import cores
from xray_hf.errors import ImageError
from xray_hf.files import atomic_file
from xray_hf.inference.engine import Prediction
from xray_hf.inference.inputs import Content
from xray_hf.reading import read
from xray_hf.task import REJECTED

PICTURE_SIDE = 512  # pixels; the longer side of a map's picture
_FULL = 3.0  # logits, where peaks of 6 to 17 are usual; lower ones stay paler, as they say little
_ALPHA = 0.65  # of the strongest evidence
_STRENGTHS, _RED_GREEN_BLUE = (0, 0.5, 1), ((190, 255, 255), (0, 85, 205), (70, 0, 70))
_STEPS = 256  # of the colour scale


def top_of_scale(heatmaps: Iterable[np.ndarray]) -> float:
    """The logits that get the strongest colour when these are shown beside each other."""
    return max([_FULL, *(float(each.max()) for each in heatmaps)])


def overlay(grey: Image.Image, heatmap: np.ndarray, top: float) -> Image.Image:
    """Evidence for a class as warm colours on an X-ray; stronger evidence is less transparent.

    grey: mode "L". heatmap: (h, w) float32, in logits; only values above 0 are shown. top: the logits of the
    strongest colour, by `top_of_scale`.
    Returns an RGB image of at most 512 pixels a side.
    """
    picture = grey.copy()
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BILINEAR)
    colours, alpha = _paint(_strength(heatmap, picture.size, top))
    mixed = (1 - _ALPHA * alpha) * np.asarray(picture)[..., None] + _ALPHA * alpha * colours
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def layer(heatmap: np.ndarray, size: tuple[int, int], top: float) -> Image.Image:
    """Only the colours of `overlay`, to lay over an X-ray: an image with an RGBA palette.

    heatmap, top: as `overlay`'s. size: width and height in pixels.
    """
    return _with_palette(_strength(heatmap, size, top))


def colour_bar() -> Image.Image:
    """The colours of `layer` from 0, left, to its `top`, right."""
    return _with_palette(np.linspace(0, 1, _STEPS)[None])


def _with_palette(strength: np.ndarray) -> Image.Image:
    """An image of (H, W) strengths, 0 to 1; a palette, since PNG with one takes half the time and room."""
    image = Image.fromarray(np.rint((_STEPS - 1) * strength).astype(np.uint8))
    image.putpalette(palette(), "RGBA")
    return image


@cache
def palette() -> bytes:
    """RGBA of each step of the colour scale, 256 × 4 bytes."""
    colours, alpha = _paint(np.linspace(0, 1, _STEPS))
    return np.rint(np.concatenate([colours, 255 * alpha], axis=-1)).astype(np.uint8).tobytes()


def _strength(heatmap: np.ndarray, size: tuple[int, int], top: float) -> np.ndarray:
    """(H, W) share of `top`, 0 to 1, smoothed to `size`."""
    wide = np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BICUBIC))
    return np.clip(wide / top, 0, 1)


def _paint(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(…, 3) colours, 0 to 255, and (…, 1) how opaque they are, 0 to 1."""
    colours = np.stack([np.interp(strength, _STRENGTHS, each) for each in _RED_GREEN_BLUE], axis=-1)
    return colours, strength[..., None] ** 1.5  # the power avoids a haze over the whole image


class Pictures:
    """Draws class activation maps in threads; only a few wait at a time. folder: None for no pictures."""

    def __init__(self, folder: Path | None, threads: int | None) -> None:
        self._folder, self._threads = folder, threads or cores.usable()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="xray-heatmap")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def draw(self, number: int, source: str, content: Content, found: Prediction | ImageError) -> None:
        """Draw one in the background, unless the image has no answer or was rejected."""
        if isinstance(content, ImageError) or isinstance(found, ImageError) or found.decision == REJECTED:
            return
        if self._folder is None or found.heatmap is None:
            return
        # The number makes it unique; the name keeps only characters that every file system takes.
        stem = re.sub(r"[^\w.-]+", "_", Path(source).stem)[:40]
        path = self._folder / f"{number:07d}-{stem}.png"
        self._waiting.append(self._pool.submit(_draw, content, found.heatmap, path))
        if len(self._waiting) > 4 * self._threads:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all are written; raises OutputError if one could not be."""
        while self._waiting:
            self._waiting.popleft().result()


def _draw(content: str | bytes, heatmap: np.ndarray, path: Path) -> None:
    with suppress(ImageError):  # the file has gone since it was classified; its row stays
        picture = overlay(read(content).grey, heatmap, top_of_scale([heatmap]))
        with atomic_file(path) as temporary:
            picture.save(temporary, compress_level=1)  # four times as fast as the default
