"""Example X-rays for the page: drawn from the atlas, so that no person's image is shipped, or the owner's."""

from __future__ import annotations

from pathlib import Path

from xray_hf.data.atlas import sample_images
from xray_hf.data.records import SYNTHETIC_PREFIX
from xray_hf.errors import ConfigError
from xray_hf.files import atomic_file
from xray_hf.images import FORMATS

SEED = 0
MAX_EXAMPLES = 12
_SUFFIXES = {".dcm", ".jpg", *(f".{name.lower()}" for name in FORMATS)}


def find(folder: Path | None, temporary: Path) -> list[tuple[Path, str]]:
    """(file, caption) of what the page offers: the first images of `folder`, or synthetic ones without it.

    temporary: where the synthetic ones are written, one of each class.
    Raises ConfigError if `folder` holds no image, OutputError if `temporary` cannot be written.
    """
    if folder is None:
        return write_examples(temporary)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise ConfigError(f"--examples {folder} holds no image ({', '.join(sorted(_SUFFIXES))}).")
    return [(path, path.stem) for path in found[:MAX_EXAMPLES]]


def write_examples(folder: Path) -> list[tuple[Path, str]]:
    """Write one synthetic X-ray per class as PNG: (file, caption), in the order of the classes.

    Raises OutputError if the folder cannot be written, DataError if the package lacks its atlas.
    """
    examples = []
    for label, image in sample_images(1, SEED):
        path = folder / f"{SYNTHETIC_PREFIX}{label}.png"
        with atomic_file(path) as temporary:
            image.save(temporary)
        examples.append((path, f"SYNTHETIC {label}"))
    return examples
