"""Build the statistical atlas behind the synthetic data set from the real CoronaHack set.

    python scripts/build_atlas.py --data-dir DATA --out xray_hf/data/atlas.npz

Only the TRAIN part is read. The file holds a mean image, principal components and one Gaussian a class,
that is, averages over many people; no image and no person's coefficients. It takes about 20 seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from xray_hf.data.dataset import read_samples
from xray_hf.data.sample import labels_of
from xray_hf.data.sources import ReadOptions, parse_specs
from xray_hf.errors import DataError, OutputError, exit_on_error
from xray_hf.files import atomic_file
from xray_hf.reading import read_grey, resize
from xray_hf.task import PAPER_CLASSES

SIDE = 112  # pixels: finer detail would be texture, which is drawn as noise
COMPONENTS = 200
# The strength, in images, of a prior from all classes. The 54 frontal COVID-19 images come from fewer than
# 40 patients: by themselves they would describe those people, so a third of their mean and nine tenths of
# their covariance are everyone's. The large classes hardly change.
MEAN_PRIOR = 27
COVARIANCE_PRIOR = 500
MAX_SHARE = 0.02  # of a component's variance that may come from one image
MAX_BYTES = 4_000_000


def main() -> None:
    """Read, fit, check, write and report; raises DataError or OutputError."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="the real set, in Kaggle's layout")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument(
        "--covid-metadata", type=Path, help="as for train.py; its lateral views (L) are left out"
    )
    args = parser.parse_args()
    specs, options = parse_specs([f"coronahack={args.data_dir}"]), ReadOptions(args.covid_metadata)
    everything, _, _ = read_samples(specs, classes=PAPER_CLASSES, options=options)
    samples = [each for each in everything if each.official_split == "TRAIN" and each.view != "L"]
    labels = labels_of(samples, PAPER_CLASSES)
    missing = [name for label, name in enumerate(PAPER_CLASSES) if label not in labels]
    if missing:
        raise DataError(f"{args.data_dir} has no TRAIN image of {', '.join(missing)}; is it unpacked whole?")
    images = np.stack([resize(read_grey(sample.path), SIDE) for sample in samples])
    arrays, explained, largest = fit_atlas(images, labels)
    if largest > MAX_SHARE:
        raise DataError(
            f"one image makes up {largest:.1%} of a component's variance; at most {MAX_SHARE:.0%} "
            "is allowed, so that no image can be found in the atlas. Use more images or fewer components."
        )
    with atomic_file(args.out) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        size = temporary.stat().st_size
        if size > MAX_BYTES:
            raise OutputError(f"{args.out} would have {size:,} bytes; at most {MAX_BYTES:,} may be embedded.")
    counts = ", ".join(f"{name} {np.sum(labels == label):,}" for label, name in enumerate(PAPER_CLASSES))
    print(f"images                     {len(images):,} ({counts})")
    print(f"explained variance         {explained:.1%} by {COMPONENTS} components")
    print(f"largest share of an image  {largest:.2%} of a component")
    print(f"{args.out}: {size:,} bytes")


def fit_atlas(images: np.ndarray, labels: np.ndarray) -> tuple[dict[str, np.ndarray], float, float]:
    """Fit the linear model.

    images: (N, S, S) uint8. labels: (N,) indices into PAPER_CLASSES, every class present.
    Returns the arrays as they are stored, the explained variance and the largest share that one image has in
    the variance of a component (both 0..1).
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    pca = PCA(COMPONENTS, svd_solver="randomized", iterated_power=5, random_state=0).fit(pixels)
    scores = pca.transform(pixels)
    deviations = scores.std(axis=0)
    residual = pixels - pca.mean_ - scores @ pca.components_
    coefficients = (scores / deviations).astype(np.float64)
    means, factors = class_gaussians(coefficients, labels)
    components, scales = _to_int8(pca.components_ * deviations[:, None])
    shape = images.shape[1:]
    arrays = {
        "mean": pca.mean_.reshape(shape).astype(np.float16),
        "components": components.reshape(-1, *shape),
        "scales": scales,
        "texture": residual.std(axis=0).reshape(shape).astype(np.float16),
        "class_means": means.astype(np.float32),
        "class_factors": factors.astype(np.float32),
    }
    largest = (coefficients**2).max() / len(images)
    return arrays, float(pca.explained_variance_ratio_.sum()), float(largest)


def class_gaussians(coefficients: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C, K) and Cholesky factor (C, K, K) of each class's (N, K) coefficients, shrunken.

    The fewer images a class has, the more of its mean is the grand mean (which is 0) and the more of its
    covariance is the one within all classes. labels: (N,), from 0; every class is present.
    """
    classes = [coefficients[labels == label] for label in range(labels.max() + 1)]
    scatters = [(values - values.mean(axis=0)).T @ (values - values.mean(axis=0)) for values in classes]
    pooled = sum(scatters) / len(coefficients)
    means, factors = [], []
    for values, scatter in zip(classes, scatters, strict=True):
        means.append(values.sum(axis=0) / (len(values) + MEAN_PRIOR))
        covariance = (scatter + COVARIANCE_PRIOR * pooled) / (len(values) + COVARIANCE_PRIOR)
        factors.append(np.linalg.cholesky(covariance))
    return np.stack(means), np.stack(factors)


def _to_int8(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise each row of (K, P) to -127..127; returns int8 (K, P) and the scales (K,) float32."""
    scales = np.abs(rows).max(axis=1) / 127
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


if __name__ == "__main__":
    raise SystemExit(exit_on_error(main))
