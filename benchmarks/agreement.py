"""Whether Python, the command line and transformers' pipeline say the same of real images.

python benchmarks/agreement.py --images DIR [--images DIR] --bundle DIR [--bundle DIR] --out results.json

Only images whose channels are equal, as X-rays' are: our reader takes the grey of a tinted one, the pipeline
its colours. Probabilities are compared before calibration, which the pipeline does not know.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from transformers import pipeline
from transformers.utils import logging

from xray_hf import manifest
from xray_hf.errors import exit_on_error
from xray_hf.files import write_json, write_text
from xray_hf.inference import Engine, inputs

OUT = Path("runs/agreement.json")
COUNT = 300
COMMAND = "from xray_hf.cli import console; console()"


def main() -> None:
    """Compare; write JSON and a table, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--images", type=Path, action="append", required=True, help="may be repeated")
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="may be repeated")
    parser.add_argument("--out", type=Path, default=OUT, help="the table goes beside it as .md")
    options = parser.parse_args()
    found = inputs.find([str(folder) for folder in options.images])
    files, tinted = choose([Path(item.source) for item in found])
    results = {"images": len(files), "tinted_left_out": tinted, "models": {}}
    for folder in options.bundle:
        results["models"][manifest.read(folder).name] = compare(folder, files)
    write_json(options.out, results)
    write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))


def choose(images: Sequence[Path]) -> tuple[list[Path], int]:
    """COUNT grey images, all that are not 224×224 and others evenly spaced; and how many were tinted."""
    is_grey = {path: _is_grey(path) for path in images}
    grey = [path for path in images if is_grey[path]]
    # Those that must be shrunk, where readers may differ, are all among them.
    large = [path for path in grey if _size(path) != (224, 224)][:COUNT]
    rest = sorted(set(grey) - set(large))
    step = max(1, len(rest) // max(1, COUNT - len(large)))
    return (large + rest[::step])[:COUNT], len(images) - len(grey)


def compare(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """The largest differences between the three ways, and the share of equal labels."""
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(shutil.copytree(folder, Path(scratch) / "bundle"))
        (plain / manifest.CALIBRATION).unlink(missing_ok=True)
        ways = {
            "python": by_engine(plain, files),
            "cli": by_command(plain, files, Path(scratch) / "found.parquet"),
            "pipeline": by_pipeline(plain, files),
        }
    ours = ways["python"]
    return {
        other: {
            "max_difference": float(np.abs(ours - ways[other]).max()),
            "equal_labels": float((ours.argmax(1) == ways[other].argmax(1)).mean()),
        }
        for other in ("cli", "pipeline")
    }


def by_engine(folder: Path, files: Sequence[Path]) -> np.ndarray:
    """(N, C) probabilities, one image at a time."""
    engine = Engine.from_pretrained(folder)
    return np.asarray([list(engine.predict(file).probabilities.values()) for file in files])


def by_command(folder: Path, files: Sequence[Path], out: Path) -> np.ndarray:
    """(N, C) probabilities of `xray-hf predict`."""
    command = [sys.executable, "-c", COMMAND, "predict", folder, *files, "--out", out]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    table = pq.read_table(out)
    names = [f"probability_{label}" for label in manifest.read(folder).labels]
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def by_pipeline(folder: Path, files: Sequence[Path]) -> np.ndarray:
    """(N, C) probabilities of transformers."""
    logging.disable_progress_bar()
    classify = pipeline("image-classification", model=str(folder), trust_remote_code=True, top_k=None)
    rows = [{row["label"]: row["score"] for row in classify(str(file))} for file in files]
    return np.asarray([[row[label] for label in manifest.read(folder).labels] for row in rows])


def as_table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| model | compared with Python | largest difference of a probability | equal labels |"]
    lines.append("| --- | --- | ---: | ---: |")
    for model, found in results["models"].items():
        for way, row in found.items():
            lines.append(f"| {model} | {way} | {row['max_difference']:.1e} | {row['equal_labels']:.1%} |")
    lines += ["", f"{results['images']} images; {results['tinted_left_out']} tinted ones left out."]
    return "\n".join(lines)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _is_grey(path: Path) -> bool:
    with Image.open(path) as image:
        if image.mode != "RGB":
            return image.mode == "L"
        red, green, blue = (channel.tobytes() for channel in image.split())
        return red == green == blue


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
