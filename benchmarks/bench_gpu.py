"""Training on a GPU: checks that it is correct, then its speed compared with its peers, in a given time.

python benchmarks/bench_gpu.py --data-dir DATA --out runs/bench_gpu.json --seconds 500

Results are written after every part; a second call measures what is missing or has failed. A part that fails
is written with its error, and the next one follows; the exit code is 1 then. No part starts after --seconds,
but one that runs is not cut off. Without a GPU all parts that need none run on the CPU, as a rehearsal. DATA
is a folder in Kaggle's layout.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gpu_checks
import inference_ways
import torch
from bench_train import LIBRARIES, MODELS, SIDE, make_job
from peers import hf, plain, timm_recipe
from reporting import machine
from time_to_quality import time_to_quality
from ways import Job, ours, pure, resident

from xray_hf.data.dataset import open_data
from xray_hf.data.sources import ReadOptions, parse_specs
from xray_hf.errors import ConfigError, exit_on_error
from xray_hf.files import write_json, write_text
from xray_hf.task import PROTOCOLS
from xray_hf.training.config import DEFAULT_PRESET

OUT = Path("runs/bench_gpu.json")
CHECKED_BATCH = 32
BATCHES = (128, 512, 1024)
IMAGES = 20_000  # that are timed, of each way
FILES = 300  # for engine and pipeline; the latter reads all nine times, one after the other
Part = Callable[[Path], dict[str, Any]]  # of an empty folder


def main() -> int:
    """Measure what is missing, in the time given; write JSON and table, print the table."""
    options = parse()
    stop = time.monotonic() + options.seconds
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic kernels need
    first, *_ = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if options.device == "cpu" else first
    reading = ReadOptions(cache_dir=options.cache_dir)
    data = open_data(parse_specs([f"coronahack={options.data_dir}"]), SIDE, options=reading, drop_bad=True)
    job = make_job(
        "",
        data,
        batch_size=min(CHECKED_BATCH, *(options.batch_size or BATCHES)),
        steps=3 * gpu_checks.STEPS,
        hf_workers=os.cpu_count() or 1,
        device=options.device,
    )
    results = begin_or_continue(options, job)
    write_json(options.out, results)
    planned = parts(job, options)
    missing = [name for name in planned if has_failed(results["parts"].get(name, {"error": "not measured"}))]
    for number, name in enumerate(missing):
        if time.monotonic() > stop:
            left = f"{len(missing) - number} of {len(planned)} parts are left; run it again."
            print(f"{options.seconds:g} seconds are over: {left}", file=sys.stderr)
            break
        results["parts"][name] = measure(planned[name])
        print(f"{name}: {results['parts'][name]}", file=sys.stderr, flush=True)
        write_json(options.out, results)
        write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))
    return int(any(map(has_failed, results["parts"].values())))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path, required=True, help="data set in Kaggle's layout")
    parser.add_argument("--cache-dir", type=Path, help="where decoded pixels are kept, as in train.py")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="JSON; the table goes beside it as .md (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=500, help="no part starts later (default %(default)s)"
    )
    parser.add_argument("--model", action="append", choices=MODELS, help="may be repeated (default: both)")
    parser.add_argument(
        "--batch-size", action="append", type=int, help="may be repeated (default: 128, 512, 1024)"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="timed images (default %(default)s)")
    parser.add_argument(
        "--bundle", action="append", type=Path, help="classify with engine and pipeline, too; may be repeated"
    )
    parser.add_argument(
        "--source",
        action="append",
        metavar="KIND[:NAME]=PLACE",
        help="train on this, too, in a run to quality with the preset multisource; may be repeated",
    )
    parser.add_argument("--initial-weights", type=Path, help="of that run: a safetensors file")
    parser.add_argument("--epochs", type=int, help="of the runs to quality (default: the preset's)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="where to train")
    return parser.parse_args()


def parts(job: Job, options: argparse.Namespace) -> dict[str, Part]:
    """{name: what to measure}, the most valuable first."""
    models, batches = options.model or MODELS, options.batch_size or BATCHES
    jobs = {model: replace(job, model=model) for model in models}
    found: dict[str, Part] = {}
    for own in jobs.values():
        found |= checks(own)
    if job.torch_device.type == "cuda":
        found["two processes on one GPU"] = partial(gpu_checks.processes, jobs[models[0]])
    for own in jobs.values():
        for name, training in trainings(options).items():
            found[f"{own.model}, to quality, {name}"] = partial(time_to_quality, own, training)
    sizes = [
        replace(own, batch_size=batch_size, steps=max(1, options.images // batch_size))
        for own in jobs.values()
        for batch_size in batches
    ]
    for timed in sizes:
        found |= eager(timed) | (peers(timed) if timed.batch_size == batches[0] else {})  # they take long
    files = [sample.path for sample in job.data.samples[: min(FILES, options.images)]]
    for bundle in options.bundle or ():
        scans = inference_ways.Job(bundle, files)
        found[f"{bundle.name}, engine"] = partial(rate, partial(inference_ways.ours_bulk, scans, "torch"))
        found[f"{bundle.name}, pipeline"] = partial(
            rate, partial(inference_ways.pipeline_bulk, scans, "float32")
        )
    for timed in sizes:
        found |= compiled(timed)
    return found


def checks(job: Job) -> dict[str, Part]:
    """Of one model; only a GPU trains in fp16."""
    found: dict[str, Part] = {f"{job.model}, losses as on the CPU": partial(gpu_checks.losses, job)}
    for precision in ("bf16", "fp16") if job.torch_device.type == "cuda" else ("bf16",):
        own = replace(job, precision=precision)
        short = replace(own, steps=gpu_checks.STEPS, preset=DEFAULT_PRESET)  # it draws more than the paper's
        found[f"{job.model}, {precision} resumed"] = partial(gpu_checks.resume, short)
        found[f"{job.model}, {precision} trains"] = partial(gpu_checks.loss_falls, own)
    return found


def eager(job: Job) -> dict[str, Part]:
    """Our loop and the bare network; our loop with all pixels on the device, and with the default preset."""
    timed = {"ours": (ours, job), "pure": (pure, job), "ours, pixels on the device": (resident, job)}
    timed["ours, default preset"] = (ours, replace(job, preset=DEFAULT_PRESET))
    return {
        f"{job.model}, {name}, {job.batch_size}": partial(speed, way, own)
        for name, (way, own) in timed.items()
    }


def compiled(job: Job) -> dict[str, Part]:
    """Our loop and the bare network, compiled."""
    own = replace(job, compile=True)
    return {
        f"{job.model}, {name}, compiled, {job.batch_size}": partial(speed, way, own)
        for name, way in {"ours": ours, "pure": pure}.items()
    }


def peers(job: Job) -> dict[str, Part]:
    """The usual ways of training."""
    return {
        f"{job.model}, {name}, {job.batch_size}": partial(speed, way, job)
        for name, way in {"plain": plain, "timm": timm_recipe, "hf": hf}.items()
    }


def trainings(options: argparse.Namespace) -> dict[str, list[str]]:
    """{name: options of train.py}: both protocols with the default preset; all sources, if there are more."""
    epochs = ["--epochs", str(options.epochs)] if options.epochs else []
    found = {protocol: ["--protocol", protocol, *epochs] for protocol in PROTOCOLS}
    if options.source:
        start = ["--initial-weights", str(options.initial_weights)] if options.initial_weights else []
        sources = [word for source in options.source for word in ("--source", source)]
        found["multisource"] = ["--preset", "multisource", *sources, *start, *epochs]
    return found


def rate(classify: Callable[[], float], folder: Path) -> dict[str, Any]:
    """Images per second of classifying files."""
    return {"images_per_second": classify()}


def speed(way: Callable[[Job, Path], float], job: Job, folder: Path) -> dict[str, Any]:
    """Images per second, and the memory that tensors took at most."""
    on_gpu = job.torch_device.type == "cuda"
    torch.compiler.reset()  # else a graph that an earlier part made for another batch size is used again
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found: dict[str, Any] = {"images_per_second": way(job, folder)}
    return {**found, "peak_gb": torch.cuda.max_memory_allocated() / 1e9} if on_gpu else found


def measure(part: Part) -> dict[str, Any]:
    """What a part found, or the error it ended with; and its seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xray-gpu-") as folder:
        try:
            found = part(Path(folder))
        except Exception as error:  # noqa: BLE001 - one part must not cost the others their time on the GPU
            found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def has_failed(found: dict[str, Any]) -> bool:
    """Whether a part ended with an error, or what it checks does not hold."""
    return "error" in found or found.get("holds") is False


def begin_or_continue(options: argparse.Namespace, job: Job) -> dict[str, Any]:
    """The results of an earlier call, or none so far.

    Raises ConfigError if they are damaged, or of other hardware, libraries or options.
    """
    on_gpu = job.torch_device.type == "cuda"
    fixed = {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "cuda": torch.version.cuda if on_gpu else None,
        "data": Path(job.data.reports[0].root).name,
        "images": options.images,
        "epochs": options.epochs,
        "sources": [source.partition("=")[0] for source in options.source or ()],
        "initial_weights": options.initial_weights and options.initial_weights.name,
    }
    new = {**machine(LIBRARIES), **fixed, "parts": {}}
    if not options.out.exists():
        return new
    try:
        earlier: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{options.out} is not JSON ({error}); remove it, or choose another --out."
        ) from error
    for name in ("versions", *fixed):
        if earlier.get(name) != new[name]:
            raise ConfigError(
                f"{options.out} was measured with {name} {earlier.get(name)}, now it is {new[name]}; choose "
                "another --out."
            )
    return earlier


def as_table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines = [
        f"{results['device']}; {results['cpu']}, {results['cores']} cores; "
        f"torch {results['versions']['torch']}, CUDA {results['cuda']}; {results['date']}",
        "",
        "| part | result | seconds |",
        "| --- | --- | ---: |",
    ]
    for name, found in results["parts"].items():
        lines.append(f"| {name} | {describe_result(found)} | {found['seconds']:.0f} |")
    return "\n".join(lines)


def describe_result(found: dict[str, Any]) -> str:
    """One part's result in words."""
    if "error" in found:
        return f"failed: {found['error'].splitlines()[0].replace('|', '/')}"
    if "holds" in found:
        return "holds" if found["holds"] else "DOES NOT HOLD"
    if "to quality" in found:
        times = ", ".join(f"{name} {value:.0f} s" for name, value in found["to quality"].items())
        return f"accuracy {found['test accuracy']:.1%} after {found['epochs']} epochs; {times}"
    memory = f", {found['peak_gb']:.1f} GB" if "peak_gb" in found else ""
    return f"{found['images_per_second']:,.0f} images/s{memory}"


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
