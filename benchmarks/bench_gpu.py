"""Training on a GPU: first whether it is right, then how fast it is beside its peers, in a given time.

python benchmarks/bench_gpu.py --data-dir DATA --out runs/bench_gpu.json --seconds 500

What was measured is written after every part; a second call measures what is missing or has failed. A
part that fails is written with its error, and the next one follows. Without a GPU all parts that need none
run on the CPU, as a rehearsal. DATA is a folder in Kaggle's layout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gpu_checks
import inference_ways
import torch
from bench_train import LIBRARIES, MIN_WARMUP, MODELS, SIDE
from peers import hf, plain, timm_recipe
from reporting import machine
from time_to_quality import time_to_quality
from ways import Job, ours, pure

from xray_hf.data.dataset import open_data
from xray_hf.data.sources import ReadOptions, parse_specs
from xray_hf.errors import exit_on_error
from xray_hf.files import write_json, write_text
from xray_hf.task import PROTOCOLS

OUT = Path("runs/bench_gpu.json")
CHECKED_BATCH = 32
BATCHES = (128, 512, 1024)
IMAGES = 20_000  # that are timed, of each way
Part = Callable[[Path], dict[str, Any]]  # of an empty folder


def main() -> None:
    """Measure what is missing, in the time given; write JSON and table, print the table."""
    options = parse()
    stop = time.monotonic() + options.seconds
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic kernels need
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    reading = ReadOptions(cache_dir=options.cache_dir)
    data = open_data(parse_specs([f"coronahack={options.data_dir}"]), SIDE, options=reading, drop_bad=True)
    workers = os.cpu_count() or 1
    job = Job(
        model="",
        data=data,
        batch_size=min(CHECKED_BATCH, *(options.batch_size or BATCHES)),  # of the checks
        steps=3 * gpu_checks.STEPS,
        warmup=max(MIN_WARMUP, 2 * workers),  # as in bench_train.make_job
        workers=workers,
        hf_workers=workers,
        device=options.device,
    )
    results = earlier(options.out) or {**machine(LIBRARIES), **device(job), "parts": {}}
    for name, part in parts(job, options).items():
        if "error" not in results["parts"].get(name, {"error": "missing"}):
            continue
        if time.monotonic() > stop:
            print(f"{options.seconds} seconds are over; run it again for the rest.", file=sys.stderr)
            break
        results["parts"][name] = measured(part)
        print(f"{name}: {results['parts'][name]}", file=sys.stderr, flush=True)
        write_json(options.out, results)
        write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path, required=True, help="data set in Kaggle's layout")
    parser.add_argument("--cache-dir", type=Path, help="where decoded pixels are kept, as in train.py")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="JSON; the table goes beside it as .md (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=500, help="no part begins later (default %(default)s)"
    )
    parser.add_argument("--model", action="append", choices=MODELS, help="may be repeated (default: both)")
    parser.add_argument(
        "--batch-size", action="append", type=int, help="may be repeated (default: 128, 512, 1024)"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="timed images (default %(default)s)")
    parser.add_argument(
        "--bundle", action="append", type=Path, help="classify with engine and pipeline, too; may be repeated"
    )
    parser.add_argument("--epochs", type=int, help="of the runs to quality (default: the preset's)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="where to train")
    return parser.parse_args()


def parts(job: Job, options: argparse.Namespace) -> dict[str, Part]:
    """{name: what to measure}, the most valuable first."""
    models, batches = options.model or MODELS, options.batch_size or BATCHES
    jobs = {model: replace(job, model=model) for model in models}
    has_gpu = job.torch_device.type == "cuda"
    found: dict[str, Part] = {}
    for model, own in jobs.items():
        found[f"{model}, losses as on the CPU"] = partial(gpu_checks.losses, own)
        found[f"{model}, resumed"] = partial(gpu_checks.resume, replace(own, steps=gpu_checks.STEPS))
        for precision in ("bf16", "fp16") if has_gpu else ("bf16",):
            found[f"{model}, {precision} trains"] = partial(
                gpu_checks.trains, replace(own, precision=precision)
            )
    if has_gpu:
        found["two processes on one GPU"] = partial(gpu_checks.processes, jobs[models[0]])
    more = ["--epochs", str(options.epochs)] if options.epochs else []
    for model, own in jobs.items():
        for protocol in PROTOCOLS:
            found[f"{model}, to quality, {protocol}"] = partial(time_to_quality, own, protocol, more)
    for model, own in jobs.items():
        for batch_size in batches:
            timed = replace(own, batch_size=batch_size, steps=max(1, options.images // batch_size))
            for name, way in {"ours": ours, "pure": pure}.items():
                for kind, is_compiled in {"eager": False, "compiled": True}.items():
                    found[f"{model}, {name}, {kind}, {batch_size}"] = partial(
                        speed, way, replace(timed, compile=is_compiled)
                    )
            if batch_size == batches[0]:  # the peers take long
                for name, way in {"plain": plain, "timm": timm_recipe, "hf": hf}.items():
                    found[f"{model}, {name}, {batch_size}"] = partial(speed, way, timed)
    files = [sample.path for sample in job.data.samples[: options.images]]
    for bundle in options.bundle or ():
        scans = inference_ways.Job(bundle, files)
        found[f"{bundle.name}, engine"] = partial(rate, partial(inference_ways.ours_bulk, scans, "torch"))
        found[f"{bundle.name}, pipeline"] = partial(
            rate, partial(inference_ways.pipeline_bulk, scans, "float32")
        )
    return found


def rate(classify: Callable[[], float], folder: Path) -> dict[str, Any]:
    """Images per second of classifying files."""
    return {"images_per_second": classify()}


def speed(way: Callable[[Job, Path], float], job: Job, folder: Path) -> dict[str, Any]:
    """Images per second, and the memory that tensors took at most."""
    on_gpu = job.torch_device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found: dict[str, Any] = {"images_per_second": way(job, folder)}
    return {**found, "peak_gb": torch.cuda.max_memory_allocated() / 1e9} if on_gpu else found


def measured(part: Part) -> dict[str, Any]:
    """What a part found, or the error it ended with; and its seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xray-gpu-") as folder:
        try:
            found = part(Path(folder))
        except Exception as error:  # noqa: BLE001 - one part must not cost the others their time on the GPU
            found = {"error": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def device(job: Job) -> dict[str, Any]:
    """The GPU and its software."""
    if job.torch_device.type == "cpu":
        return {"device": "CPU"}
    return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def earlier(path: Path) -> dict[str, Any] | None:
    """What an earlier call wrote."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def as_table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines = [
        f"{results['device']}; {results['cpu']}, {results['cores']} cores; "
        f"torch {results['versions']['torch']}, CUDA {results.get('cuda', '-')}; {results['date']}",
        "",
        "| part | result | seconds |",
        "| --- | --- | ---: |",
    ]
    for name, found in results["parts"].items():
        lines.append(f"| {name} | {said(found)} | {found['seconds']:.0f} |")
    return "\n".join(lines)


def said(found: dict[str, Any]) -> str:
    """One part's result in words."""
    if "error" in found:
        return f"failed: {found['error'].splitlines()[0]}"
    if "holds" in found:
        return "holds" if found["holds"] else "DOES NOT HOLD"
    if "to quality" in found:
        times = ", ".join(f"{name} {value:.0f} s" for name, value in found["to quality"].items())
        return f"accuracy {found['test accuracy']:.1%} after {found['epochs']} epochs; {times}"
    memory = f", {found['peak_gb']:.1f} GB" if "peak_gb" in found else ""
    return f"{found['images_per_second']:,.0f} images/s{memory}"


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
