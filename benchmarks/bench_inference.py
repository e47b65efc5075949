"""Inference beside its peers, in one run: our engine, transformers' pipeline, a timm-style loop, the floor.

python benchmarks/bench_inference.py --images DIR --bundle DIR [--bundle DIR] --out results.json

Every way runs in a process of its own, in interleaved rounds, so that a slow minute of the machine falls on
all alike. The bundles need their model.onnx (`xray-hf export`). Nothing else may run meanwhile.

one file    milliseconds from bytes to probabilities; ours with CAM and OOD detection, the others without
in bulk     images per second over all files, three times
start-up    seconds from starting the process to the first answer, and its peak resident memory
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import inference_ways as ways
from inference_ways import Job
from reporting import cell, machine, summary

from xray_hf import manifest
from xray_hf.errors import ConfigError, exit_on_error
from xray_hf.files import write_json, write_text
from xray_hf.inference import inputs

BACKENDS = tuple(name for name in ("onnxruntime", "openvino") if find_spec(name))
OUT = Path("runs/bench_inference.json")
LIBRARIES = ("numpy", "onnxruntime", "openvino", "pillow", "timm", "torch", "torchvision", "transformers")
STARTS = {
    "ours": """
from xray_hf.inference import Engine
Engine.from_pretrained(bundle).predict(image)""",
    "pipeline": """
from transformers import pipeline
pipeline("image-classification", model=bundle, trust_remote_code=True)(image)""",
}
MEASURE_PEAK = """
import resource
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"""


def main() -> None:
    """Measure; write JSON and tables, print the tables."""
    options = parse()
    files = [Path(item.source) for item in inputs.find([str(options.images)])][: options.limit]
    if len(files) <= ways.WARMUP:
        raise ConfigError(f"{options.images} holds {len(files)} images; expected more than {ways.WARMUP}.")
    results = describe(options, len(files))
    for folder in options.bundle:
        job = Job(folder, files)
        results["models"][manifest.read(folder).name] = {
            "refuses_foreign": (folder / manifest.CALIBRATION).exists(),
            "one_file": one_file(job, options.rounds),
            "bulk": in_rounds(job, bulk_ways(), options.rounds),
            "start_up": start_up(job, options.rounds),
        }
    write_json(options.out, results)
    write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--images", type=Path, required=True, help="folder of X-rays at original size")
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="may be repeated")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="JSON; the table goes beside it as .md (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default %(default)s)")
    parser.add_argument("--limit", type=int, help="use only so many images")
    return parser.parse_args()


def latency_ways() -> dict[str, Callable[[Job], list[float]]]:
    """Name -> milliseconds of every file."""
    ours = {f"ours, {name}": partial(ways.ours_latency, backend=name) for name in BACKENDS}
    floors = {f"floor, {name}": partial(ways.floor_latency, backend=name) for name in BACKENDS}
    return {**ours, **floors, **pipelines(ways.pipeline_latency)}


def bulk_ways() -> dict[str, Callable[[Job], float]]:
    """Name -> images per second."""
    ours = {f"ours, {name}": partial(ways.ours_bulk, backend=name) for name in BACKENDS}
    ceilings = {f"ceiling, {name}": partial(ways.ceiling_bulk, backend=name) for name in BACKENDS}
    return {**ours, **ceilings, **pipelines(ways.pipeline_bulk), "loader": ways.loader_bulk}


def pipelines(measure: Callable[..., Any]) -> dict[str, Callable[[Job], Any]]:
    """The pipeline as it comes, and in the number format that OpenVINO may use."""
    return {
        "pipeline": partial(measure, dtype="float32"),
        "pipeline, bfloat16": partial(measure, dtype="bfloat16"),
    }


def one_file(job: Job, rounds: int) -> dict[str, Any]:
    """Median and 99th percentile over all files, round by round."""
    times = in_processes(job, latency_ways(), rounds)
    return {
        way: {
            "median_ms": summary([statistics.median(of_round) for of_round in own]),
            "p99_ms": summary([statistics.quantiles(of_round, n=100)[98] for of_round in own]),
        }
        for way, own in times.items()
    }


def in_rounds(job: Job, measured: dict[str, Callable[[Job], float]], rounds: int) -> dict[str, Any]:
    """Each way's number, round by round."""
    return {way: summary(own) for way, own in in_processes(job, measured, rounds).items()}


def in_processes(job: Job, measured: dict[str, Callable[[Job], Any]], rounds: int) -> dict[str, list[Any]]:
    """Every way in turn, round after round, each in a new process."""
    values: dict[str, list[Any]] = {way: [] for way in measured}
    for number in range(1, rounds + 1):
        for way, measure in measured.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                values[way].append(pool.submit(measure, job).result())
            print(f"{job.bundle.name}, round {number}, {way}: done", file=sys.stderr, flush=True)
    return values


def start_up(job: Job, rounds: int) -> dict[str, Any]:
    """Seconds and peak megabytes of a process that classifies one file."""
    given = f"bundle, image = {json.dumps([str(job.bundle), str(job.files[0])])}"
    seconds: dict[str, list[float]] = {way: [] for way in STARTS}
    peaks: dict[str, list[float]] = {way: [] for way in STARTS}
    for _ in range(rounds):
        for way, code in STARTS.items():
            command = [sys.executable, "-c", given + code + MEASURE_PEAK]
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[way].append(time.perf_counter() - started)
            peaks[way].append(float(done.stdout.split()[-1]))
    return {way: {"seconds": summary(seconds[way]), "peak_mb": summary(peaks[way])} for way in STARTS}


def describe(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        **machine(LIBRARIES),
        "images": count,
        "rounds": options.rounds,
        "ways": {
            way: (getattr(measure, "func", measure).__doc__ or "").strip()
            for way, measure in {**latency_ways(), **bulk_ways()}.items()
        },
        "models": {},
    }


def as_table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines = [
        f"{results['cpu']}, {results['cores']} cores, load {results['load_average_before']:.1f}; "
        f"{results['images']} files; onnxruntime {results['versions']['onnxruntime']}, "
        f"torch {results['versions']['torch']}; {results['date']}",
        "",
        "One file, from bytes to probabilities:",
        "",
        "| model | way | median, ms | 99th percentile, ms | times faster than pipeline | of the floor |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for model, result in results["models"].items():
        lines += _latency_rows(model, result["one_file"])
    lines += [
        "",
        "In bulk:",
        "",
        "| model | way | images/s | times pipeline | times loader | of the ceiling |",
    ]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for model, result in results["models"].items():
        lines += _bulk_rows(model, result["bulk"])
    lines += ["", "From the start of the process to the first answer:", "", "| model | way | s | peak, MB |"]
    lines.append("| --- | --- | ---: | ---: |")
    for model, result in results["models"].items():
        for way, value in result["start_up"].items():
            lines.append(f"| {model} | {way} | {cell(value['seconds'], 2)} | {cell(value['peak_mb'], 0)} |")
    return "\n".join(lines)


def _latency_rows(model: str, found: dict[str, Any]) -> list[str]:
    rows = []
    slow = found["pipeline"]["median_ms"]["median"]
    for way, value in found.items():
        own = value["median_ms"]["median"]
        kind, _, backend = way.partition(", ")
        of_floor = f"{own / found[f'floor, {backend}']['median_ms']['median']:.2f}" if kind == "ours" else ""
        times = f"{slow / own:.2f}"
        cells = (cell(value["median_ms"], 1), cell(value["p99_ms"], 1), times, of_floor)
        rows.append(f"| {model} | {way} | " + " | ".join(cells) + " |")
    return rows


def _bulk_rows(model: str, found: dict[str, Any]) -> list[str]:
    rows = []
    for way, value in found.items():
        own = value["median"]
        kind, _, backend = way.partition(", ")
        of_ceiling = f"{own / found[f'ceiling, {backend}']['median']:.2f}" if kind == "ours" else ""
        times = (f"{own / found[peer]['median']:.2f}" for peer in ("pipeline", "loader"))
        rows.append(f"| {model} | {way} | {cell(value, 1)} | " + " | ".join((*times, of_ceiling)) + " |")
    return rows


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
