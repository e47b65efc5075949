"""Collect what docs/results.md needs of finished runs into docs/results.json, so that these can be deleted.

python scripts/collect_results.py runs/reproduce runs/imagenet       # folders of reproduce.py

A run replaces the one of the same recipe, model, start and seed; the others in the file stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import external_sets
import numpy as np

from xray_hf import manifest
from xray_hf.errors import DataError, exit_on_error
from xray_hf.evaluation import uncertainty
from xray_hf.evaluation.predictions import SUBSETS, Predictions
from xray_hf.files import write_json

RECORD = Path(__file__).resolve().parent.parent / "docs" / "results.json"
MODELS = ("xray-resnet18", "xray-cnn")
RUN_KEYS = ("recipe", "model", "initial_weights", "seed")
PAIR_KEYS = ("recipe", "initial_weights", "seed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, and merge into the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of reproduce.py")
    parser.add_argument("--record", type=Path, default=RECORD, help="default docs/results.json")
    options = parser.parse_args(arguments)
    known = json.loads(options.record.read_text(encoding="utf-8")) if options.record.exists() else {}
    for folder in options.runs:
        runs, pairs = collect(folder)
        known = {
            "runs": merge(known.get("runs", []), runs, RUN_KEYS),
            "compared": merge(known.get("compared", []), pairs, PAIR_KEYS),
        }
    write_json(options.record, known)


def merge(
    known: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> list[Mapping[str, Any]]:
    """All rows, sorted by their keys; new ones replace those with the same keys."""
    rows = {tuple(row[key] for key in keys): row for row in (*known, *new)}
    return [rows[key] for key in sorted(rows)]


def collect(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The finished runs of a folder, and ResNet18 against the CNN for every recipe and seed with both.

    Raises DataError for a folder without any.
    """
    bundles = [path.parent for path in sorted(folder.glob(f"*/*/seed-*/bundle/{manifest.METRICS}"))]
    if not bundles:
        raise DataError(f"{folder} has no finished run of reproduce.py, RECIPE/MODEL/seed-N/bundle.")
    runs = [of_run(bundle, recipe=bundle.parents[2].name) for bundle in bundles]
    start_of = {(run["recipe"], run["model"], run["seed"]): run["initial_weights"] for run in runs}
    pairs = []
    for recipe, model, seed in start_of:
        if model == MODELS[0] and (difference := compare(folder / recipe, seed)):
            start = start_of[recipe, model, seed]
            pairs.append({"recipe": recipe, "initial_weights": start, "seed": seed, **difference})
    return runs, pairs


def of_run(bundle: Path, recipe: str) -> dict[str, Any]:
    """The record of one run."""
    training = manifest.read_json(bundle / manifest.TRAINING)
    metrics = manifest.read_json(bundle / manifest.METRICS)
    config = training["config"]
    keys = ("n", "accuracy", "balanced_accuracy", "macro_auroc")
    return {
        "recipe": recipe,
        "model": training["model"],
        "seed": config["run"]["seed"],
        "initial_weights": training["initial_weights"],
        "device": training["device"],
        "precision": training["precision"],
        "torch": training["versions"]["torch"],
        "seconds": training["seconds"],
        "leak": manifest.read_json(bundle / manifest.SPLITS)["leak"],
        "unleaked": unleaked(Predictions.read(bundle / manifest.PREDICTIONS)),
        "external_sets": external_sets.measure(bundle),
        "metrics": {
            subset: {
                **{key: metrics[subset][key] for key in keys},
                "intervals": {key: metrics[subset]["intervals"][key] for key in keys[1:]},
                "per_class": metrics[subset]["per_class"],
            }
            for subset in SUBSETS
            if subset in metrics
        },
        "history": training["history"],
    }


def unleaked(predictions: Predictions) -> dict[str, Any]:
    """n and accuracy of the validation rows whose image and patient training does not have."""
    train, validation = predictions.select("train"), predictions.select("validation")
    keys = ("file_name", "patient_id")
    known = [np.isin(getattr(validation, key), getattr(train, key)) for key in keys]
    rest = validation.take(~np.logical_or(*known))
    return {"n": len(rest), "accuracy": float((rest.predicted == rest.label).mean())}


def compare(recipe: Path, seed: int) -> dict[str, Any] | None:
    """ResNet18 against the CNN, of one recipe and seed, on the test rows."""
    files = [recipe / model / f"seed-{seed}" / "bundle" / manifest.PREDICTIONS for model in MODELS]
    if not all(file.exists() for file in files):
        return None
    resnet, cnn = (Predictions.read(file).select("test") for file in files)
    return uncertainty.compare(cnn, resnet)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
