"""The same recipes and seeds on two devices, side by side: does a GPU tell the CPU's story?

python scripts/compare_records.py docs/results.json runs/gpu.json      # both of collect_results.py

Numbers are percent; only runs that are in both files count. The same seed on another device is another run: a
GPU draws other noise and dropout, and rounds differently. Judge a difference by the spread over seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Any

from collect_results import RUN_KEYS

from xray_hf.errors import DataError, exit_on_error
from xray_hf.report import markdown
from xray_hf.report.numbers import UNKNOWN, mean_and_sd

METRICS = {
    "test, accuracy": ("metrics", "test", "accuracy"),
    "test, balanced accuracy": ("metrics", "test", "balanced_accuracy"),
    "external, balanced accuracy": ("external_sets", "balanced_accuracy", "value"),
}
Run = Mapping[str, Any]
Pair = tuple[Run, Run]  # the same recipe, model, start and seed


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("one", type=Path, help="record of collect_results.py")
    parser.add_argument("other", type=Path, help="record of the same recipes on another device")
    options = parser.parse_args(arguments)
    one, other = read(options.one), read(options.other)
    both = [(one[key], other[key]) for key in sorted(one.keys() & other.keys())]
    if not both:
        raise DataError(f"{options.one} and {options.other} have no recipe, model, start and seed in common.")
    devices = [describe_devices(runs) for runs in zip(*both, strict=True)]
    if devices[0] == devices[1]:
        devices = [options.one.stem, options.other.stem]
    metrics = [
        name
        for name, path in METRICS.items()
        if any(measured(run, path) is not None for pair in both for run in pair)
    ]
    headings = ["run", *(f"{metric}, {device}" for metric in metrics for device in devices)]
    print(markdown.rows_below(headings, rows(both, [METRICS[name] for name in metrics])))


def read(path: Path) -> dict[tuple[Any, ...], Run]:
    """The runs of a record by recipe, model, start and seed; raises DataError if it is none."""
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        describe_devices(runs)  # raises KeyError, as identity does, if a run does not say what it is
        return {identity(run): run for run in runs}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a record of runs ({type(error).__name__}: {error}); expected a file of "
            "scripts/collect_results.py."
        ) from error


def identity(run: Run) -> tuple[Any, ...]:
    """What two runs that are compared share."""
    return tuple(run[key] for key in RUN_KEYS)


def describe_devices(runs: Sequence[Run]) -> str:
    """What the runs were trained on, and in which number format."""
    return " and ".join(sorted({f"{run['device']}, {run['precision']}" for run in runs}))


def rows(pairs: Sequence[Pair], metrics: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Each seed, and mean ± sd over those of the same recipe, model and start."""
    for (recipe, model, start), group in groupby(pairs, lambda pair: identity(pair[0])[:-1]):
        own = list(group)
        name = f"{recipe}, {model} from {start}"
        yield from ([f"{name}, seed {pair[0]['seed']}", *cells([pair], metrics)] for pair in own)
        if len(own) > 1:
            yield [f"**{name}, {len(own)} seeds**", *cells(own, metrics)]


def cells(pairs: Sequence[Pair], metrics: Sequence[Sequence[str]]) -> list[str]:
    """Every metric on the one device and the other."""
    found = []
    for path in metrics:
        for runs in zip(*pairs, strict=True):
            values = [value for run in runs if (value := measured(run, path)) is not None]
            found.append(mean_and_sd(values) if values else UNKNOWN)
    return found


def measured(run: Run, path: Sequence[str]) -> float | None:
    """A number of a run; None if it was not measured."""
    found: Any = reduce(lambda part, key: part.get(key, {}), path, run)
    return None if found == {} else float(found)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
