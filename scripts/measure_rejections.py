"""How many of its own training images each bundle rejects, and by what: docs/rejections.json and .md.

python scripts/measure_rejections.py pretrained/xray-cnn-multisource pretrained/xray-cnn \\
    --source coronahack=DIR --source radiography=DIR --source thorax_scan=DIR --source web_covid=DIR

A random sample of the rows that predictions.parquet calls "train", SIZE a bundle; patients may have several.
Nothing is tuned on them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import external_sets
import numpy as np

from xray_hf import manifest
from xray_hf.errors import ConfigError, ImageError, exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json, write_text
from xray_hf.inference import Engine, Prediction
from xray_hf.inference.engine import CORRECTIONS, OUTSIDE
from xray_hf.report import markdown
from xray_hf.report.numbers import part_of, percent
from xray_hf.task import REJECTED

OUT = Path(__file__).resolve().parent.parent / "docs" / "rejections.json"
SIZE, SEED = 1500, 0
RULE, DETECTOR, QUALITY = "rule", "detector", "quality check"
BY = (RULE, DETECTOR, QUALITY)


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--source", action="append", required=True, metavar="NAME=DIR", help="repeatable")
    parser.add_argument("--out", type=Path, default=OUT, help="the table goes beside it as .md")
    options = parser.parse_args()
    places = dict(each.split("=", 1) for each in options.source)
    files = {name: {path.name: path for path in Path(place).rglob("*")} for name, place in places.items()}
    measured = {folder.name: measure(folder, files) for folder in options.bundles}
    results = {"size": SIZE, "seed": SEED, "models": measured}
    write_json(options.out, results)
    write_text(options.out.with_suffix(".md"), as_table(results) + "\n")
    print(as_table(results))


def measure(folder: Path, files: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, int]]:
    """{source, or "all": {"images", "rejected", and for each of BY how many}} of a bundle's training images.

    files: {source: {file name: path}}. An image that two of BY reject counts for both.
    Raises ConfigError for a source or a file that is missing, ImageError for one that cannot be read.
    """
    rows = Predictions.read(folder / manifest.PREDICTIONS).select("train")
    every = sorted(set(zip(rows.source.tolist(), rows.file_name.tolist(), strict=True)))
    names = [every[row] for row in np.random.default_rng(SEED).permutation(len(every))[:SIZE]]
    sources = sorted({source for source, _ in names})
    if missing := [f"{source}: {name}" for source, name in names if name not in files.get(source, {})]:
        raise ConfigError(
            f"{len(missing):,} training images of {folder} are not there, first: {missing[0]}; pass --source "
            f"NAME=DIR for each of {', '.join(sources)}."
        )
    counts = {each: dict.fromkeys(("images", "rejected", *BY), 0) for each in ("all", *sources)}
    engine = Engine.from_pretrained(folder)
    for (source, _), found in zip(names, engine.stream([files[s][n] for s, n in names]), strict=True):
        if isinstance(found, ImageError):
            raise found
        for own in (counts["all"], counts[source]):
            own["images"] += 1
            own["rejected"] += found.decision == REJECTED
            for each in rejected_by(found):
                own[each] += 1
    return counts


def rejected_by(found: Prediction) -> list[str]:
    """Which of BY reject an image; if a rule does, the others are not consulted."""
    if found.decision != REJECTED:
        return []
    is_outside = found.reason.startswith(OUTSIDE)
    is_unfit = any(advice in found.reason for advice in CORRECTIONS.values())
    return [name for name, is_so in ((DETECTOR, is_outside), (QUALITY, is_unfit)) if is_so] or [RULE]


def as_table(results: Mapping[str, Any]) -> str:
    """Markdown: shares with exact 95 % intervals."""
    rows = [
        [model, source, part_of((own["rejected"], own["images"]))]
        + [percent(external_sets.exact(own[name], own["images"])) for name in ("rejected", *BY)]
        for model, sources in results["models"].items()
        for source, own in sources.items()
        if source == "all" or len(sources) > 2
    ]
    return markdown.rows_below(["model", "source", "rejected", "share", *BY], rows)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
