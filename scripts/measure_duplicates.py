"""Measure the search for near-duplicates on collections whose twins are known, and draw what it finds.

python scripts/measure_duplicates.py A B --other C D --sheet pairs.png

A and B: folders with `images/` and `labels.csv` (file_name, patient_id). A patient_id in both, unless it is
digits only, means the same picture, processed differently. Half of these patients show the effect of the
threshold, the other half the accuracy of the one in use. The images of other folders are searched too.
Finally, CHANGED images are copied, cropped, framed, resized, made paler and compressed, and searched for.
"""

from __future__ import annotations

import argparse
import csv
import io
import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from xray_hf import cores
from xray_hf.data import groups
from xray_hf.reading import read_grey, resize

TILE = 160  # pixels
CHANGED = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("twins", type=Path, nargs=2, help="two folders of the same pictures")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders to search as well")
    parser.add_argument("--changed", type=int, default=CHANGED, help="copies to search (default %(default)s)")
    parser.add_argument("--sheet", type=Path, help="where to draw the found pairs that are not known twins")
    options = parser.parse_args()

    folders = [*options.twins, *options.other]
    files = [(folder, path) for folder in folders for path in _images(folder)]
    with ThreadPoolExecutor(cores.usable()) as pool:
        thumbnails = np.stack(list(pool.map(lambda file: _thumbnail(file[1]), files)))
    started, busy = time.perf_counter(), time.process_time()
    scored = groups.scored_pairs(thumbnails)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(files):,} images searched in {seconds:.0f} s ({busy:.0f} s of CPU time); {peak:.1f} GB at most"
    )

    patients = {folder: _patients(folder) for folder in options.twins}
    one, two = ({p: name for name, p in patients[folder].items()} for folder in options.twins)
    shared = sorted(set(one) & set(two))
    halves = {p: half for half in (0, 1) for p in np.random.default_rng(0).permutation(shared)[half::2]}
    row_of = {(folder, path.name): row for row, (folder, path) in enumerate(files)}
    twins = {tuple(sorted((row_of[folders[0], one[p]], row_of[folders[1], two[p]]))): p for p in shared}
    across = {pair: s for pair, s in scored.items() if {files[r][0] for r in pair} == set(options.twins)}

    for half, thresholds in ((0, (0.75, 0.8, 0.85, groups.CORRELATION, 0.95)), (1, (groups.CORRELATION,))):
        real = {pair for pair, patient in twins.items() if halves[patient] == half}
        # A pair that is not a twin belongs to the half of its first image's name, whatever that is.
        own = {p: s for p, s in across.items() if p in real or (p not in twins and p[0] % 2 == half)}
        for threshold in thresholds:
            found = {pair for pair, score in own.items() if score > threshold}
            print(
                f"half {'AB'[half]}, {len(real)} twins, threshold {threshold}: "
                f"recall {len(found & real) / len(real):.3f}, precision {len(found & real) / len(found):.3f}"
            )

    strange = [pair for pair, s in scored.items() if s > groups.CORRELATION and pair not in twins]
    for names, count in Counter(tuple(files[row][0].name for row in pair) for pair in strange).most_common():
        print(f"{count:5} other pairs in {' and '.join(names)}")
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(files), min(options.changed, len(files)), replace=False)
    for most in (0.03, 0.05) if len(chosen) else ():
        copies = [
            resize(_changed(read_grey(files[row][1]), most, rng), groups.THUMBNAIL_SIDE) for row in chosen
        ]
        pairs = set(groups.near_duplicates(np.concatenate([np.stack(copies), thumbnails[chosen]])))
        found = sum((row, row + len(chosen)) in pairs for row in range(len(chosen)))
        print(f"changed copies, up to {most:.0%} of each side cut or added: recall {found / len(chosen):.3f}")

    if options.sheet:
        strange.sort(key=lambda pair: scored[pair])
        _sheet([[files[row][1] for row in pair] for pair in strange]).save(options.sheet)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))


def _patients(folder: Path) -> dict[str, str]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = [(row["file_name"], row["patient_id"]) for row in csv.DictReader(stream)]
    return {name: patient for name, patient in rows if patient and not patient.isdigit()}


def _thumbnail(path: Path) -> np.ndarray:
    return resize(read_grey(path), groups.THUMBNAIL_SIDE)


def _changed(image: Image.Image, most: float, rng: np.random.Generator) -> Image.Image:
    """As another collection might have it; most: the part of a side that may be cut off, or added."""
    if rng.random() < 0.7:
        left, top, right, bottom = rng.uniform(0, most, 4) * np.tile(image.size, 2)
        image = image.crop((int(left), int(top), int(image.width - right), int(image.height - bottom)))
    if rng.random() < 0.5:
        border = tuple(int(width) for width in rng.uniform(0, most, 4) * image.width)
        image = ImageOps.expand(image, border, fill=int(rng.choice([0, 255])))
    image = image.resize((int(rng.integers(150, 400)), int(rng.integers(150, 400))))
    gamma, contrast = np.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0.5, 1)
    offset = rng.uniform(0, 1 - contrast)
    image = image.point([round(255 * (offset + contrast * (grey / 255) ** gamma)) for grey in range(256)])
    if rng.random() < 0.2:
        image = ImageOps.equalize(image)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(30, 90)))
    return read_grey(stream.getvalue())


def _sheet(pairs: list[list[Path]], columns: int = 5) -> Image.Image:
    """Pairs side by side, the least similar first."""
    sheet = Image.new("L", (2 * TILE * columns, TILE * -(-len(pairs) // columns)))
    for number, pair in enumerate(pairs):
        for side, path in enumerate(pair):
            at = (TILE * (2 * (number % columns) + side), TILE * (number // columns))
            sheet.paste(read_grey(path).resize((TILE - 2 * side, TILE)), at)
    return sheet


if __name__ == "__main__":
    main()
