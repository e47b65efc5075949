"""Example X-rays for the page, drawn from the atlas, so that no person's image is shipped."""

from __future__ import annotations

from pathlib import Path

from xray_hf.data.atlas import sample_images
from xray_hf.data.records import SYNTHETIC_PREFIX
from xray_hf.files import atomic_file

SEED = 0


def write_examples(folder: Path) -> list[tuple[Path, str]]:
    """Write one synthetic X-ray per class as PNG: (file, class name), in the order of the classes.

    Raises OutputError if the folder cannot be written, DataError if the package lacks its atlas.
    """
    examples = []
    for label, image in sample_images(1, SEED):
        path = folder / f"{SYNTHETIC_PREFIX}{label}.png"
        with atomic_file(path) as temporary:
            image.save(temporary)
        examples.append((path, label))
    return examples
