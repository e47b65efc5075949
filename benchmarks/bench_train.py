"""Training speed beside its peers, in one run: our loop, pure compute, plain PyTorch, transformers' Trainer.

python benchmarks/bench_train.py --data-dir DATA --out results.json
python benchmarks/bench_train.py --data-dir DATA --out results.json --memory    # peak memory too

Measured in steady state: images per second of training at equal batch size, in interleaved rounds, so that
a slow minute of the machine falls on all ways alike. `ours/pure` is the share of the hardware's speed that
the data path leaves; `ours/plain` and `ours/hf` are what a user gains. DATA is a folder in Kaggle's layout;
without it synthetic patients are drawn into a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import memory
import torch
from peers import hf, plain
from reporting import cell, machine, summary
from ways import Job, fresh_accelerator, ours, pure

from xray_hf.data.dataset import XrayData, open_data
from xray_hf.data.sample import is_synthetic
from xray_hf.data.sources import ReadOptions, parse_specs
from xray_hf.data.synthetic import write_synthetic
from xray_hf.errors import exit_on_error
from xray_hf.files import write_json, write_text

MODELS = ("xray-resnet18", "xray-cnn")
WAYS: dict[str, Callable[[Job, Path], float]] = {"ours": ours, "pure": pure, "plain": plain, "hf": hf}
OUT = Path("runs/bench_train.json")
SIDE = 224  # of both models' input, in pixels
PATIENTS = 300  # of the synthetic set, about 470 images
MIN_WARMUP = 5  # steps in which the libraries choose kernels and fill their caches
LIBRARIES = ("accelerate", "datasets", "numpy", "pillow", "timm", "torch", "torchvision", "transformers")


def main() -> None:
    """Measure; write JSON and tables, print the tables."""
    options = parse()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # transformers' Trainer would take every GPU
    with tempfile.TemporaryDirectory(prefix="xray-bench-") as folder:
        scratch = Path(folder)
        data_dir = options.data_dir or scratch / "data"
        if not options.data_dir:
            write_synthetic(data_dir, PATIENTS, seed=0)
        cache_dir = options.cache_dir or (None if options.data_dir else scratch / "cache")
        data = open_data(
            parse_specs([f"coronahack={data_dir}"]),
            SIDE,
            options=ReadOptions(cache_dir=cache_dir),
            drop_bad=True,
        )
        results = describe(options, data)
        if options.rounds:
            same = {name: getattr(options, name) for name in ("batch_size", "steps", "hf_workers", "device")}
            results["models"] = {
                model: measure(make_job(model, data, **same), options.rounds, scratch)
                for model in options.model or MODELS
            }
        if options.memory:
            results["memory"] = memory.compare(data_dir, scratch, options.batch_size, options.steps)
    write_json(options.out, results)
    write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path, help="data set in Kaggle's layout (default: synthetic)")
    parser.add_argument("--cache-dir", type=Path, help="where decoded pixels are kept, as in train.py")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="JSON; the table goes beside it as .md (default %(default)s)"
    )
    parser.add_argument("--model", action="append", choices=MODELS, help="may be repeated (default: both)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step (default %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default %(default)s; GPU: 200)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each way, 0: no speed (default %(default)s)"
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="where to train")
    parser.add_argument("--hf-workers", type=int, default=0, help="transformers' dataloader_num_workers")
    parser.add_argument("--memory", action="store_true", help="peak memory too (needs 4 GB in $TMPDIR)")
    return parser.parse_args()


def make_job(model: str, data: XrayData, *, batch_size: int, steps: int, hf_workers: int, device: str) -> Job:
    """The work of every way."""
    workers = os.cpu_count() or 1
    return Job(
        model=model,
        data=data,
        batch_size=batch_size,
        steps=steps,
        # What a DataLoader's workers decode ahead, two batches each, must be used up before the clock starts.
        warmup=max(MIN_WARMUP, 2 * workers),
        workers=workers,
        hf_workers=hf_workers,
        device=device,
    )


def measure(job: Job, rounds: int, scratch: Path) -> dict[str, Any]:
    """Every way in turn, round after round: rates, and ratios of ours to the others of its round."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(1, rounds + 1):
        for way, train in WAYS.items():
            # A process each: what one way sets for its process, memory above all, must not help another.
            alone = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            with tempfile.TemporaryDirectory(dir=scratch) as folder, alone as pool:
                rate = pool.submit(train, job, Path(folder)).result()
            rates[way].append(rate)
            print(f"{job.model}, round {number}, {way}: {rate:.1f} images/s", file=sys.stderr, flush=True)
    ratios = {
        f"ours/{way}": summary([mine / other for mine, other in zip(rates["ours"], own, strict=True)])
        for way, own in rates.items()
        if way != "ours"
    }
    return {
        "precision_of_ours": fresh_accelerator(job.config(scratch)).mixed_precision,
        "images_per_second": {way: summary(own) for way, own in rates.items()},
        "ratios": ratios,
    }


def describe(options: argparse.Namespace, data: XrayData) -> dict[str, Any]:
    """What the numbers depend on."""
    is_gpu = torch.cuda.is_available() and options.device != "cpu"
    return {
        **machine(LIBRARIES),
        "device": torch.cuda.get_device_name() if is_gpu else "CPU",
        "threads": torch.get_num_threads(),
        "batch_size": options.batch_size,
        "steps": options.steps,
        "hf_workers": options.hf_workers,
        "images": len(data.samples),
        "is_synthetic": is_synthetic(data.samples),
        "ways": {way: (train.__doc__ or "").strip() for way, train in WAYS.items()},
    }


def as_table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    processor = f"{results['cpu']}, {results['cores']} cores, load {results['load_average_before']:.1f}"
    lines = [
        f"{results['device']}; {processor}; torch {results['versions']['torch']}; "
        f"batches of {results['batch_size']}; {results['date']}"
    ]
    if "models" in results:
        lines += [
            "",
            "| model | "
            + " | ".join(f"{way}, images/s" for way in WAYS)
            + " | ours/pure | ours/plain | ours/hf |",
        ]
        lines.append("| --- |" + " ---: |" * 7)
    for model, result in results.get("models", {}).items():
        rates = [cell(value, 1) for value in result["images_per_second"].values()]
        ratios = [cell(value, 2) for value in result["ratios"].values()]
        lines.append(f"| {model} | " + " | ".join(rates + ratios) + " |")
    if "memory" in results:
        lines += ["", memory.as_table(results["memory"])]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
