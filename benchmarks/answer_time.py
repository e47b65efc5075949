"""How long the demo's server computes for one visitor: from an uploaded file to the answer of all models.

python benchmarks/answer_time.py --images DIR --bundle DIR [--bundle DIR]

Without HTTP and the browser. Every image once, one after the other; nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reporting import cpu_name

from xray_hf.demo import answers, models, rendering
from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Models
from xray_hf.demo.uploads import unpack
from xray_hf.errors import exit_on_error
from xray_hf.inference import backends, inputs


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--images", type=Path, required=True, help="folder of X-rays")
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="may be repeated")
    options = parser.parse_args()
    files = [item.source for item in inputs.find([str(options.images)])]
    served = models.load(options.bundle, backends.DEFAULT)
    ways: dict[str, Callable[[list[Answer]], object]] = {
        "the page, class activation maps of all classes": partial(rendering.as_html, served),
        "`/read`": lambda found: [rendering.as_json(each) for each in found],
    }
    print(f"{cpu_name()}, {os.cpu_count()} cores; {', '.join(served)}; {len(files)} images\n")
    print("| answer | median, ms | 99th percentile, ms | longest, ms |\n| --- | ---: | ---: | ---: |")
    for name, show in ways.items():
        answer = partial(_milliseconds, served, show)
        answer(files[0])  # what is loaded at the first
        times = [answer(file) for file in files]
        last = statistics.quantiles(times, n=100)[98]
        print(f"| {name} | {statistics.median(times):.0f} | {last:.0f} | {max(times):.0f} |")


def _milliseconds(served: Models, show: Callable[[list[Answer]], object], file: str) -> float:
    started = time.perf_counter()
    show(answers.answer(served, unpack([file])))
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
