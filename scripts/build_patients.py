"""Build the atlas behind the demo's examples: patients.npz, from training images of several collections.

python scripts/build_patients.py pretrained/xray-resnet18-multisource --out xray_hf/demo/patients.npz \\
    --source coronahack=DIR --source radiography=DIR --source thorax_scan=DIR

Only rows that the bundle's predictions.parquet calls "train" are read, MOST a group. Each image is moved
until its lungs lie in one place, which keeps ribs and diaphragms sharp in the mean. The file holds a mean
image, principal components, one Gaussian a group over their coefficients, and the mean power spectrum of what
the components leave out, for children and for adults, place by place: averages over hundreds of people, no
image and nobody's coefficients. It takes about three minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from build_atlas import MAX_SHARE, class_gaussians
from sklearn.decomposition import PCA

from xray_hf import manifest
from xray_hf.demo import patients
from xray_hf.demo.patients import CHILDREN, GROUPS, OCTAVE, SIDE, WINDOW
from xray_hf.errors import DataError, OutputError, exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_file
from xray_hf.models.lungs import LungCrop, crop
from xray_hf.reading import read_grey, resize

MOST = 2000  # images of a group
COMPONENTS = 128
COARSE = 112  # pixels a side of mean and components
LEVELS = 24  # a component's values are rounded to this many on either side of 0, which halves the file
# The lungs take up this part of the image, a little above its middle.
LUNGS_WIDE, LUNGS_HIGH, LUNGS_AT = 0.74, 0.70, 0.46
MAX_OUTSIDE = 0.12  # of the moved image that may lie outside the file's, where its edge is repeated
MAX_BYTES = 1_000_000


def main() -> None:
    """Read, fit, check, write and report; raises DataError or OutputError."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", action="append", required=True, metavar="NAME=DIR", help="repeatable")
    parser.add_argument("--out", type=Path, default=patients.ATLAS_FILE)
    options = parser.parse_args()
    places = {name: Path(place) for name, _, place in (each.partition("=") for each in options.source)}
    rows = Predictions.read(options.bundle / manifest.PREDICTIONS).select("train")
    images, labels = [], []
    for label, (source, finding) in enumerate(GROUPS.values()):
        own = rows.take((rows.source == source) & (rows.label == rows.classes.index(finding)))
        names = np.random.default_rng(0).permutation(np.unique(own.file_name))[:MOST]
        if source not in places or not len(names):
            raise DataError(f"{options.bundle} or --source has no {finding} of {source}; pass {source}=DIR.")
        paths = {path.name: path for path in places[source].rglob("*")}
        moved = aligned(np.stack([resize(read_grey(paths[name]), SIDE) for name in names.tolist()]))
        print(f"{list(GROUPS)[label]:16} {len(moved):,} images of {source}")
        images.append(moved)
        labels += [label] * len(moved)
    arrays, share = fit(*without_outliers(np.concatenate(images), np.asarray(labels)))
    if share > MAX_SHARE:
        raise DataError(f"one image makes up {share:.1%} of a component's variance; use fewer components.")
    with atomic_file(options.out) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        size = temporary.stat().st_size
        if size > MAX_BYTES:
            raise OutputError(f"{options.out} would have {size:,} bytes; expected at most {MAX_BYTES:,}.")
    print(f"largest share of an image: {share:.2%} of a component\n{options.out}: {size:,} bytes")


@torch.inference_mode()
def aligned(images: np.ndarray) -> np.ndarray:
    """(N, SIDE, SIDE) uint8 -> (M, SIDE, SIDE) float32: those in which the lungs are found, moved."""
    lungs, found = LungCrop.load().eval(), []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(images[start : start + 64]).float().unsqueeze(1)
        box, where = lungs(batch)
        top, bottom, left, right = box.unbind(1)
        height, width = (bottom - top) / LUNGS_HIGH, (right - left) / LUNGS_WIDE
        middle, centre = (top + bottom) / 2 + (0.5 - LUNGS_AT) * height, (left + right) / 2
        frame = torch.stack(
            [middle - height / 2, middle + height / 2, centre - width / 2, centre + width / 2], dim=1
        )
        outside = torch.maximum(-frame.amin(dim=1), frame.amax(dim=1) - 1)
        chosen = (outside <= MAX_OUTSIDE) & (where.amax(dim=(1, 2)) > 0)
        found.append(crop(batch[chosen], frame[chosen], SIDE).squeeze(1).numpy())
    return np.concatenate(found)


def without_outliers(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (N, SIDE, SIDE) images and (N,) labels without the images that are too much of a component."""
    while True:
        _, scores = components(images)
        kept = ((scores / scores.std(axis=0)) ** 2).max(axis=1) <= MAX_SHARE * len(images)
        if kept.all():
            print(f"{len(images):,} images, after those that stand out are left out")
            return images, labels
        images, labels = images[kept], labels[kept]


def components(images: np.ndarray) -> tuple[PCA, np.ndarray]:
    """The principal components of (N, SIDE, SIDE) images at COARSE pixels, and scores (N, COMPONENTS)."""
    small = images.reshape(len(images), COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean(axis=(2, 4))
    pixels = small.reshape(len(images), -1)
    pca = PCA(COMPONENTS, svd_solver="randomized", iterated_power=4, random_state=0).fit(pixels)
    return pca, pca.transform(pixels)


def fit(images: np.ndarray, labels: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Fit mean, components, Gaussians and spectra; see `patients.Atlas`.

    images: (N, SIDE, SIDE) float32. labels: (N,) indices into GROUPS.
    Returns the arrays as they are stored, and the largest share of an image in a component's variance.
    """
    pca, scores = components(images)
    deviations = scores.std(axis=0)
    coefficients = (scores / deviations).astype(np.float64)
    means, factors = class_gaussians(coefficients, labels)
    weighted = pca.components_ * deviations[:, None]
    scales = np.abs(weighted).max(axis=1) / LEVELS
    spectra = np.zeros((2, *patients.TILES, WINDOW, WINDOW // 2 + 1))
    counts = np.bincount(np.isin(labels, CHILDREN).astype(int), minlength=2)
    for image, score, label in zip(images, scores, labels, strict=True):
        coarse = (pca.mean_ + score @ pca.components_).reshape(COARSE, COARSE)
        residual = image - patients.enlarge(coarse, SIDE)
        is_child = int(label in CHILDREN)
        spectra[is_child] += np.abs(patients.tiles_spectrum(residual)) ** 2 / counts[is_child]
    steps = np.rint(OCTAVE * np.log2(np.sqrt(spectra) + 1e-3))
    arrays = {
        "mean": pca.mean_.reshape(COARSE, COARSE).astype(np.float16),
        "components": np.rint(weighted / scales[:, None]).astype(np.int8).reshape(-1, COARSE, COARSE),
        "scales": scales.astype(np.float32),
        "class_means": means.astype(np.float32),
        "class_factors": factors.astype(np.float16),
        "amplitudes": steps.clip(-127, 127).astype(np.int8),
    }
    return arrays, float((coefficients**2).max() / len(images))


if __name__ == "__main__":
    raise SystemExit(exit_on_error(main))
