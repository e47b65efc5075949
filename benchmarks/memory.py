"""Peak memory of decoding and of training, on a data set and on one with ten times as many rows.

Training must not hold the data set: its peak may rise by the bookkeeping of the rows, never by their pixels.
Each phase runs in a process of its own, started by `bench_train.py --memory`.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xray_hf.data.cache import PixelSource
from xray_hf.data.dataset import XrayData, open_data, split_data
from xray_hf.data.sources import ReadOptions, coronahack, parse_specs
from xray_hf.reading import read_grey

TIMES = 10
MODEL, SIDE = "xray-cnn", 224
CUT_SIDE, MAX_CUT = 256, 32  # pixels: the size of a copied image, and what may be cut off each of its sides
_NUMBERED = re.compile(r"(person|IM-|covid-)(\d+)")


def compare(data_dir: Path, scratch: Path, batch_size: int, steps: int) -> dict[str, Any]:
    """Peak MB after each stage of both phases, for `data_dir` and for TIMES as many rows."""
    large = scratch / "large"
    multiply(data_dir, large)
    result: dict[str, Any] = {"model": MODEL, "batch_size": batch_size, "steps": steps}
    for name, folder in (("one", data_dir), ("ten", large)):
        cache = scratch / f"cache-{name}"
        # The first process finds no cache and decodes; the second finds it and trains.
        result[name] = {
            phase: _run_child(phase, str(folder), str(cache), str(batch_size), str(steps)) for phase in PHASES
        }
    before, after = (result[name]["train"] for name in ("one", "ten"))
    result["training_peak_rise_mb"] = after["peak_mb"] - before["peak_mb"]
    result["pixels_rise_mb"] = (after["rows"] - before["rows"]) * SIDE * SIDE / 2**20
    return result


def multiply(source: Path, out: Path) -> None:
    """Write TIMES as many rows in Kaggle's layout: the images of `source`, and cut-outs under other names.

    Cut-outs, because equal images would be linked as near-duplicates, all 45 pairs of each ten.
    """
    with (source / coronahack.CSV_NAME).open(newline="", encoding="utf-8-sig") as stream:
        rows = {row["X_ray_image_name"]: row for row in csv.DictReader(stream)}
    samples, _ = coronahack.read(str(source), "coronahack", ReadOptions())
    root = out / coronahack.IMAGE_FOLDER
    for name in ("train", "test"):
        (root / name).mkdir(parents=True)

    def copy(index: int) -> None:
        sample = samples[index]
        rng = np.random.default_rng(index)
        folder = root / sample.official_split.lower()
        (folder / renamed(sample.file_name, 0)).symlink_to(sample.path.resolve())
        image = read_grey(sample.path).resize((CUT_SIDE, CUT_SIDE))
        for number in range(1, TIMES):
            left, top, right, bottom = rng.integers(0, MAX_CUT, 4).tolist()
            cut = image.crop((left, top, CUT_SIDE - right, CUT_SIDE - bottom))
            cut.save(folder / renamed(sample.file_name, number), format="JPEG", quality=85)

    with ThreadPoolExecutor() as pool:
        list(pool.map(copy, range(len(samples))))  # asking for the results raises a thread's error
    with (out / coronahack.CSV_NAME).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, coronahack.COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for number in range(TIMES):
            for sample in samples:
                name = renamed(sample.file_name, number)
                writer.writerow({**rows[sample.file_name], "X_ray_image_name": name})


def renamed(file_name: str, number: int) -> str:
    """The name of a copy. Another copy of personN, IM-N or covid-N is another patient."""
    name, found = _NUMBERED.subn(lambda m: f"{m[1]}{number}{int(m[2]):06d}", file_name, count=1)
    return name if found else f"copy{number}-{file_name}"


def peak_mb() -> float:
    """The largest resident memory of this process so far, in MB of 2**20 bytes (Linux)."""
    # getrusage's ru_maxrss would count the parent's memory: it survives fork and exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def decode(data_dir: Path, cache_dir: Path, batch_size: int, steps: int) -> dict[str, Any]:
    """Open a data set for the first time."""
    peaks = {"imports_mb": peak_mb()}
    data = open_data(
        parse_specs([f"coronahack={data_dir}"]), SIDE, options=ReadOptions(cache_dir=cache_dir), drop_bad=True
    )
    return {**peaks, **_sizes(data), "peak_mb": peak_mb()}


def train(data_dir: Path, cache_dir: Path, batch_size: int, steps: int) -> dict[str, Any]:
    """Open a decoded data set, split it and train some steps, as train.py does."""
    # Here, because decoding does not need torch and must not be measured with it.
    from xray_hf.models import create_model
    from xray_hf.training.config import resolve
    from xray_hf.training.loop import Trainer
    from xray_hf.training.processes import keep_freed_memory, make_accelerator

    keep_freed_memory()
    peaks = {"imports_mb": peak_mb()}
    data = open_data(
        parse_specs([f"coronahack={data_dir}"]), SIDE, options=ReadOptions(cache_dir=cache_dir), drop_bad=True
    )
    split = split_data(data, "grouped", 0)
    peaks["opened_mb"] = peak_mb()
    with tempfile.TemporaryDirectory() as out:
        options = {"model": MODEL, "batch_size": batch_size, "data_dir": str(data_dir), "out": out}
        config = resolve({**options, "device": "cpu"})
        source, names = FirstBatches(data.pixels, steps), np.asarray([each.source for each in data.samples])
        network, accelerator = create_model(MODEL, pretrained=False), make_accelerator(config)
        with suppress(EnoughTrainedError):
            Trainer(network, source, data.labels, names, split, config, accelerator, {}).fit()
    return {**peaks, **_sizes(data), "peak_mb": peak_mb()}


PHASES: dict[str, Callable[[Path, Path, int, int], dict[str, Any]]] = {"decode": decode, "train": train}


class EnoughTrainedError(Exception):
    """Ends an epoch early."""


@dataclass
class FirstBatches:
    """Pixels that run out after so many batches, so that a whole epoch is planned but not trained."""

    source: PixelSource
    left: int

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """As the source; raises EnoughTrainedError instead of one batch too many."""
        if self.left == 0:
            raise EnoughTrainedError
        self.left -= 1
        return self.source.gather(rows)


def as_table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"Peak resident memory in MB; {result['model']}, {result['steps']} steps of {result['batch_size']}:",
        "",
        "| rows | decode: imports | decode: peak | train: imports | train: data opened | train: peak |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("one", "ten"):
        first, second = result[name]["decode"], result[name]["train"]
        cells = [first["imports_mb"], first["peak_mb"], second["imports_mb"], second["opened_mb"]]
        cells.append(second["peak_mb"])
        lines.append(f"| {second['rows']:,} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
    lines.append("")
    lines.append(
        f"Ten times the rows: training's peak rises by {result['training_peak_rise_mb']:,.0f} MB, "
        f"their pixels are {result['pixels_rise_mb']:,.0f} MB more."
    )
    return "\n".join(lines)


def _sizes(data: XrayData) -> dict[str, int]:
    return {"rows": len(data.samples), "near_duplicates": len(data.near_duplicates)}


def _run_child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peaks: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return peaks


if __name__ == "__main__":
    phase, data_dir, cache_dir, batch_size, steps = sys.argv[1:]
    print(json.dumps(PHASES[phase](Path(data_dir), Path(cache_dir), int(batch_size), int(steps))))
