"""Reference predictions: synthetic X-rays in a bundle and its network's outputs for them, to check a port.

The images have the size of the network's input, so their pixels go into the graph as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xray_hf import manifest
from xray_hf.data.sample import SYNTHETIC_PREFIX
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import BundleError
from xray_hf.files import atomic_folder, write_json
from xray_hf.inference import backends
from xray_hf.inference.engine import Engine
from xray_hf.reading import resize

SEED = 0
TOLERANCE = 1e-3  # of any number; in float32 another CPU moves them by about 1e-6
_DECIMALS = 6
_OF_EMBEDDING = 8  # numbers of the embedding that are kept


def write(folder: Path) -> None:
    """Write reference.json, and reference/ with a synthetic X-ray of each class of the atlas.

    Raises BundleError as Engine.from_pretrained, OutputError.
    """
    engine = Engine.from_pretrained(folder)
    with atomic_folder(folder / manifest.REFERENCE_IMAGES) as temporary:
        for label, image in sample_images(1, SEED):
            pixels = resize(image, engine.manifest.side)
            Image.fromarray(pixels).save(temporary / f"{SYNTHETIC_PREFIX}{label}.png")
        answers = {file.name: _answer(engine, file) for file in sorted(temporary.iterdir())}
    write_json(folder / manifest.REFERENCE, {"tolerance": TOLERANCE, "answers": answers})


def check(folder: Path, backend: str = backends.DEFAULT, tolerance: float = TOLERANCE) -> float:
    """Answer the reference images again, and return the largest difference of any number.

    Raises BundleError if it is above `tolerance`, if files are missing or damaged, and as
    Engine.from_pretrained; ImageError for an image that cannot be read.
    """
    path = folder / manifest.REFERENCE
    if not path.is_file():
        raise BundleError(f"{folder} holds no {manifest.REFERENCE}; run `xray-hf export {folder}`.")
    expected = manifest.read_json(path).get("answers", {})
    engine = Engine.from_pretrained(folder, backend=backend)
    try:
        differences = [
            _difference(found, answer[part])
            for name, answer in expected.items()
            for part, found in _answer(engine, folder / manifest.REFERENCE_IMAGES / name).items()
        ]
        worst = float(np.max(differences))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged ({error}); run `xray-hf export {folder}` again.") from error
    if not worst <= tolerance:  # NaN is not agreement either
        raise BundleError(
            f"{folder} differs from its {manifest.REFERENCE} by {worst:.1e} on backend {backend}; at most "
            f"{tolerance:.1e} is accepted. Fetch the bundle again, or allow more with --tolerance."
        )
    return worst


def _answer(engine: Engine, image: Path) -> dict[str, Any]:
    """The values to compare, ready for JSON."""
    found = engine.predict(image)
    return {
        "logits": _rounded(found.logits),
        "embedding_begins": _rounded(found.embedding[:_OF_EMBEDDING]),
        "probabilities": _rounded(list(found.probabilities.values())),
        "ood_score": None if found.ood_score is None else round(found.ood_score, _DECIMALS),
    }


def _rounded(values: Any) -> list[float]:
    return [round(float(value), _DECIMALS) for value in values]


def _difference(found: Any, expected: Any) -> float:
    """The largest difference of two lists of numbers, or of two numbers; 0 for None and None."""
    if found is None and expected is None:
        return 0.0
    return float(np.abs(np.subtract(found, expected)).max())
