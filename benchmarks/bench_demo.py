"""The demo under load beside the one that everybody writes: 50 visitors who each send 20 images at once.

python benchmarks/bench_demo.py --images DIR --bundle DIR [--bundle DIR] --out results.json

Every server runs alone, in a process of its own, and answers `--rounds` such crowds one after another; the
visitors run on the same machine. What each image's answer must be is computed before, in this process's own
children, without HTTP: a lost, swapped or wrong answer is counted, never averaged away.

plain, MODEL    gr.Interface around a pipeline of transformers, as launch() starts it (plain_demo.py)
ours, MODEL     app.py with the same model
ours, all       app.py with all models: as many answers to an image

latency         seconds from sending an image to its answer; all of a visitor are sent in the same moment
memory          the server's resident MB, after every round
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import plain_demo
import psutil
from PIL import Image
from reporting import cell, machine, summary
from visitors import Answer, Endpoint, crowd

from xray_hf import manifest
from xray_hf.errors import ConfigError, XrayHFError, exit_on_error
from xray_hf.files import write_json, write_text
from xray_hf.inference import Engine, inputs

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("runs/bench_demo.json")
START_SECONDS = 120
WARMUP = 4  # images, before the first round
# Else the plain demo asks several hosts before it starts.
OFFLINE = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
LIBRARIES = ("aiohttp", "gradio", "onnxruntime", "torch", "transformers", "uvicorn")


@dataclass(frozen=True)
class Way:
    """A server: its name, its command without the port, what it calls its function, how it answers."""

    name: str
    command: tuple[str, ...]
    api_name: str
    parse: Callable[[Any], Answer]
    expect: Callable[[list[Path]], list[Answer]]


def main() -> None:
    """Measure; write JSON and the table, print the table."""
    options = parse()
    files = [Path(item.source) for item in inputs.find([str(options.images)])]
    needed = options.visitors * options.each
    if len(files) < needed:
        raise ConfigError(
            f"{options.images} holds {len(files)} images; expected {needed}, one for each call."
        )
    results = describe(options)
    for way in ways(options.bundle):
        results["ways"][way.name] = measure(way, files[:needed], options)
    write_json(options.out, results)
    write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--images", type=Path, required=True, help="folder of X-rays, all different")
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="may be repeated")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="JSON; the table goes beside it as .md (default %(default)s)"
    )
    parser.add_argument("--visitors", type=int, default=50, help="at once (default %(default)s)")
    parser.add_argument("--each", type=int, default=20, help="images of a visitor (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of all visitors (default %(default)s)")
    return parser.parse_args()


def ways(bundles: Sequence[Path]) -> Iterator[Way]:
    """The plain demo and ours with one model each, and ours with all."""
    names = {folder: manifest.read(folder).name for folder in bundles}
    for folder, name in names.items():
        command = (str(Path(plain_demo.__file__)), str(folder.resolve()))
        yield Way(f"plain, {name}", command, "predict", said_by_label, partial(expected_of_plain, folder))
        yield ours(f"ours, {name}", [folder])
    if len(bundles) > 1:
        yield ours("ours, all", bundles)


def ours(name: str, bundles: Sequence[Path]) -> Way:
    """app.py with these models and without a limit of requests."""
    chosen = [argument for folder in bundles for argument in ("--bundle", str(folder.resolve()))]
    command = (str(ROOT / "app.py"), "--rate", "0", *chosen, "--port")
    return Way(name, command, "read", said_by_json, partial(expected_of_ours, bundles))


def said_by_json(output: dict[str, Any]) -> Answer:
    """Our answer."""
    return {name: found["probabilities"] for name, found in output["models"].items()}


def said_by_label(output: dict[str, Any]) -> Answer:
    """The answer of gr.Label."""
    return {"": {each["label"]: each["confidence"] for each in output["confidences"]}}


def expected_of_ours(bundles: Sequence[Path], files: list[Path]) -> list[Answer]:
    """What the engines say of each file."""
    engines = [Engine.from_pretrained(folder) for folder in bundles]
    said = [engine.predict(files) for engine in engines]
    names = [engine.name for engine in engines]
    return [
        dict(zip(names, (each.probabilities for each in row), strict=True)) for row in zip(*said, strict=True)
    ]


def expected_of_plain(bundle: Path, files: list[Path]) -> list[Answer]:
    """What the pipeline says of each file."""
    classify = plain_demo.load(str(bundle))
    answers = []
    for file in files:
        with Image.open(file) as image:
            answers.append({"": classify(image.convert("RGB"))})
    return answers


def measure(way: Way, files: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """Start the server, send it all crowds; what each round took and what it left in memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        expected = dict(zip(files, pool.submit(way.expect, files).result(), strict=True))
    rounds, problems = [], Counter[str]()
    with running(way) as (url, process):
        endpoint = Endpoint(url, way.api_name, way.parse)
        asyncio.run(crowd(endpoint, [files[:WARMUP]], expected))
        for number in range(1, options.rounds + 1):
            batches = [files[start :: options.visitors] for start in range(options.visitors)]
            begun = time.perf_counter()
            outcomes = asyncio.run(crowd(endpoint, batches, expected))
            took = time.perf_counter() - begun
            problems += Counter(outcome.problem.partition(":")[0] for outcome in outcomes if outcome.problem)
            rounds.append(
                {
                    "images_per_second": len(outcomes) / took,
                    "p50_s": statistics.median(outcome.seconds for outcome in outcomes),
                    "p99_s": statistics.quantiles((outcome.seconds for outcome in outcomes), n=100)[98],
                    "rss_mb": process.memory_info().rss / 2**20,
                }
            )
            print(f"{way.name}, round {number}: done", file=sys.stderr, flush=True)
    measured = {name: summary([each[name] for each in rounds]) for name in rounds[0]}
    return {**measured, "answers": options.rounds * len(files), "problems": dict(problems)}


@contextmanager
def running(way: Way) -> Iterator[tuple[str, psutil.Process]]:
    """The server's address and process; raises XrayHFError with its words if it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    url, command = f"http://127.0.0.1:{port}", [sys.executable, *way.command, port]
    environment = {**os.environ, **OFFLINE}
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment) as server,
    ):
        try:
            end = time.monotonic() + START_SECONDS
            while not answers(url):
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise XrayHFError(f"{way.name} did not start: {log.read()[-2000:]}")
                time.sleep(0.2)
            yield url, psutil.Process(server.pid)
        finally:
            server.terminate()


def answers(url: str) -> bool:
    """Whether a page is served there."""
    try:
        with urlopen(url, timeout=5):
            return True
    except URLError:
        return False


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        **machine(LIBRARIES),
        "visitors": options.visitors,
        "images_each": options.each,
        "rounds": options.rounds,
        "ways": {},
    }


def as_table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines = [
        f"{results['cpu']}, {results['cores']} cores, load {results['load_average_before']:.1f}; "
        f"{results['visitors']} visitors with {results['images_each']} images each, "
        f"{results['rounds']} rounds; gradio {results['versions']['gradio']}; {results['date']}",
        "",
        "| server | images/s | median, s | 99th percentile, s | MB after first round | after last | "
        "answers | errors | lost | wrong |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in results["ways"].items():
        memory = found["rss_mb"]["rounds"]
        problems = [found["problems"].get(kind, 0) for kind in ("error", "lost", "wrong")]
        cells = (
            cell(found["images_per_second"], 1),
            cell(found["p50_s"], 2),
            cell(found["p99_s"], 2),
            f"{memory[0]:.0f}",
            f"{memory[-1]:.0f}",
            *map(str, (found["answers"], *problems)),
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
