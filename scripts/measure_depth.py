"""How often the reader finds the depth of X-rays that were re-encoded: the table of docs/reading.md.

python scripts/measure_depth.py DIR … --images 600

DIR: folders of X-rays of 8 bits. Each image is brought to 500 pixels and written with 10, 12, 14 and 16 bits,
as cameras and programs leave them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from xray_hf.errors import DataError, ImageError, exit_on_error
from xray_hf.reading import read_grey
from xray_hf.reading.levels import to_eight_bits
from xray_hf.report import markdown

DEPTHS = (10, 12, 14, 16)
SIDE = 500
WHITE = 65_535


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=600, help="how many, drawn at random")
    options = parser.parse_args()
    files = [file for folder in options.folders for file in sorted(folder.rglob("*.[jp][pn]*g"))]
    if len(files) < options.images:
        raise DataError(f"there are {len(files)} images; expected at least {options.images}.")
    chosen = np.random.default_rng(0).choice(len(files), options.images, replace=False)
    tries: dict[str, list[bool]] = {}
    for number in tqdm(chosen, disable=None):
        try:
            share = shrunk(read_grey(files[number]))
        except ImageError:
            continue
        for bits in DEPTHS:
            for name, values in encodings(share, 2**bits - 1):
                tries.setdefault(name, []).append(found_bits(values) == bits)
    rows = [[name, len(right), len(right) - sum(right)] for name, right in tries.items()]
    print(markdown.rows_below(["X-rays re-encoded", "files", "another depth found"], rows))


def shrunk(grey: Image.Image) -> np.ndarray:
    """(H, W) of 0..1, with values between the 256 of the file."""
    scale = SIDE / max(grey.size)
    size = (round(grey.width * scale), round(grey.height * scale))
    return np.asarray(grey.convert("F").resize(size, Image.Resampling.BICUBIC)).clip(0, 255) / 255


def encodings(share: np.ndarray, full: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and (H, W) uint16 of ways to write a picture whose white is `full`."""
    values = share * full
    yield "as they are", whole(values)
    yield "negative", whole(full - values)
    yield "darkened by a gamma of 2", whole(share**2 * full)
    yield "darkened by a gamma of 3", whole(share**3 * full)
    yield "marker and hot pixels of 65,535", marked(values)
    for percent in (2, 5, 30):
        edge, bordered = share.shape[1] * percent // 100, whole(values)
        bordered[:, :edge] = bordered[:, -edge:] = WHITE
        yield f"border of 65,535, {percent} % at each side", bordered
    low, high = np.quantile(share, [0.01, 0.99])
    stretched = Image.fromarray((((share - low) / (high - low)).clip(0, 1) * full).astype(np.float32))
    for scale in (0.4, 0.7, 1.6):
        size = (int(stretched.width * scale), int(stretched.height * scale))
        resized = stretched.resize(size, Image.Resampling.LANCZOS)
        yield f"stretched, resized by {scale} with Lanczos", whole(np.asarray(resized))
    small = stretched.resize((stretched.width // 4, stretched.height // 4), Image.Resampling.BOX)
    blurred = np.asarray(small.resize(stretched.size, Image.Resampling.BICUBIC))
    yield "stretched, unsharp mask", whole(1.5 * np.asarray(stretched) - 0.5 * blurred)


def marked(values: np.ndarray) -> np.ndarray:
    text = Image.new("L", values.shape[::-1])
    ImageDraw.Draw(text).text((9, 9), "L  AP ERECT", fill=255, font_size=values.shape[0] // 14)
    cover = np.asarray(text) / 255
    changed = whole(values * (1 - cover) + WHITE * cover)
    changed.flat[np.random.default_rng(0).integers(0, values.size, 10)] = WHITE
    return changed


def whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, WHITE).astype(np.uint16)


def found_bits(values: np.ndarray) -> int:
    """What the reader's warning says; 16 without one, 0 for a picture that it shows from end to end."""
    warnings = to_eight_bits(values, "the image")[1]
    if not warnings:
        return 16
    return int(warnings[0].split()[-1].rstrip(".")) if "suggest" in warnings[0] else 0


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
