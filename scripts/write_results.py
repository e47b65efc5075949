"""Write docs/results.md: the paper's numbers, ours, how sure they are, and what could prove them wrong.

python scripts/write_results.py                            # of docs/results.json and pretrained/
python scripts/write_results.py --runs runs/reproduce      # collects docs/results.json from the runs first

No number of ours is typed in: runs are read from reproduce.py's bundles, everything about the shipped models
from pretrained/, choices of the recipe from docs/ablations.md (scripts/ablate.py), speed and memory from
docs/bench_*.md (`make bench-train ARGS="--out docs/bench_train.json"`).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results_shipped
from numbers_in_words import mean_and_sd, points, table
from results_shipped import Shipped
from results_texts import TEXTS
from scipy.stats import fisher_exact

from xray_hf import manifest
from xray_hf.errors import BundleError, exit_on_error
from xray_hf.evaluation import uncertainty
from xray_hf.evaluation.predictions import SUBSETS, Predictions
from xray_hf.evaluation.words import counted, listed, rate
from xray_hf.files import atomic_file, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
DOCS, PRETRAINED = ROOT / "docs", ROOT / "pretrained"
RECORD = "results.json"
MODELS = ("xray-resnet18", "xray-cnn")
RECIPES = {
    "paper": "the paper's recipe and split",
    "paper-grouped": "the paper's recipe, honest split",
    "robust": "**our recipe**",
}
# İbişoğlu and Akçay 2021, table 1 and section III.C: percentages as printed, and right images of 638.
PAPER = {
    "xray-resnet18": {"train": 99.979, "validation": 99.885, "test": 79.623, "right": 508},
    "xray-cnn": {"train": 99.808, "validation": 99.713, "test": 77.115, "right": 492},
}
PAPER_TEST = 638
NAMES = {"train": "train", "validation": "validation", "test": "test", "test_official": "official test"}

Runs = Sequence[Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, if asked to, and write the page and its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, help="folder of reproduce.py")
    options = parser.parse_args(arguments)
    if options.runs:
        write_json(DOCS / RECORD, collect(options.runs))
    if not (DOCS / RECORD).exists():
        raise BundleError(f"{DOCS / RECORD} is missing; pass --runs, the folder of `make reproduce`.")
    record = json.loads((DOCS / RECORD).read_text(encoding="utf-8"))
    text = page(record, read_shipped())
    copy_figures(text)
    write_text(DOCS / "results.md", text)


def read_shipped() -> list[Shipped]:
    """The bundles of pretrained/, in the order of MODELS."""
    return [Shipped.read(PRETRAINED / model) for model in MODELS if (PRETRAINED / model).is_dir()]


def collect(runs: Path) -> dict[str, Any]:
    """What the page needs of the runs, so that it can be written without them."""
    folders = sorted(runs.glob("*/*/seed-*/bundle"))
    found = [of_run(folder, recipe=folder.parents[2].name) for folder in folders]
    seeds = sorted({run["seed"] for run in found})
    compared = [
        {"recipe": recipe, "seed": seed, **difference}
        for recipe in RECIPES
        for seed in seeds
        if (difference := compare(runs / recipe, seed))
    ]
    return {"runs": found, "compared": compared}


def of_run(folder: Path, recipe: str) -> dict[str, Any]:
    """One run."""
    training = manifest.read_json(folder / manifest.TRAINING)
    measured = manifest.read_json(folder / manifest.METRICS)
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
        "leak": manifest.read_json(folder / manifest.SPLITS)["leak"],
        "unleaked": unleaked(Predictions.read(folder / manifest.PREDICTIONS)),
        "metrics": {
            subset: {
                **{key: measured[subset][key] for key in keys},
                "intervals": {key: measured[subset]["intervals"][key] for key in keys[1:]},
                "per_class": measured[subset]["per_class"],
            }
            for subset in SUBSETS
            if subset in measured
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


def page(record: Mapping[str, Any], shipped: Sequence[Shipped]) -> str:
    """The whole page."""
    runs = [run for run in record["runs"] if run["recipe"] in RECIPES]
    views = [run for run in record["runs"] if run["recipe"].startswith("view-")]
    speed = sorted(DOCS.glob("bench_train*.md"))
    sections = [
        "\n\n".join(
            filter(None, [TEXTS["opening"], results_shipped.collapse(shipped), TEXTS["how to read"]])
        ),
        overview(runs, shipped),
        which_is_better(record["compared"], shipped),
        leak_meter(runs),
        *(results_shipped.sections(shipped, views) if shipped else []),
    ]
    sections.append(part(DOCS / "ablations.md", "## Choices of the recipe", TEXTS["ablations"]))
    sections.append(epochs(runs))
    sections += [part(path, *([] if n else ["## Speed", TEXTS["speed"]])) for n, path in enumerate(speed)]
    sections.append(part(DOCS / "bench_memory.md", "## Memory"))
    return "\n\n".join(section for section in sections if section) + "\n"


def part(path: Path, *before: str) -> str:
    """A page that another script has written, below these paragraphs; "" if it is not there."""
    if not path.exists():
        return ""
    return "\n\n".join([*before, path.read_text(encoding="utf-8").strip()])


def overview(runs: Runs, shipped: Sequence[Shipped]) -> str:
    """The paper's table beside ours."""
    starts = sorted({f"{run['model']} from {run['initial_weights']} weights" for run in runs})
    where = sorted({f"{run['device']}, {run['precision']}, torch {run['torch']}" for run in runs})
    measured = {each.model: each.metrics for each in shipped}
    rows: list[list[Any]] = []
    for model in MODELS:
        printed = [PAPER[model][subset] for subset in ("train", "validation", "test")]
        rows.append([f"{model}, as the paper prints", 1, *printed, *["not given"] * 3])
        for recipe, title in RECIPES.items():
            if own := of_kind(runs, model, recipe):
                cells = [spread(own, subset, "accuracy") for subset in NAMES]
                cells.append(spread(own, "test", "balanced_accuracy"))
                minutes = np.mean([run["seconds"] for run in own]) / 60
                rows.append([f"{model}, {title}", len(own), *cells, f"{minutes:.0f}"])
        if model in measured:
            cells = [rate(measured[model][subset], "accuracy") for subset in NAMES]
            balanced = rate(measured[model]["test"], "balanced_accuracy")
            rows.append([f"{model}, **as shipped**", "the median", *cells, balanced, ""])
    heads = ["accuracy, %", "seeds", *NAMES.values(), "test, balanced", "minutes"]
    text = TEXTS["overview"].format(starts="; ".join(starts), where="; ".join(where))
    return f"## The paper's recipe and ours\n\n{text}\n\n{table(heads, rows)}"


def which_is_better(compared: Iterable[Mapping[str, Any]], shipped: Sequence[Shipped]) -> str:
    """Does the paper's difference survive?"""
    pairs = [(RECIPES[row["recipe"]], row["seed"], row) for row in compared]
    if len(shipped) == len(MODELS):
        resnet, cnn = (each.test for each in shipped)
        pairs.append(("**as shipped**", "the medians", uncertainty.compare(cnn, resnet)))
    right = [PAPER[model]["right"] for model in MODELS]
    p_value = fisher_exact([[n, PAPER_TEST - n] for n in right]).pvalue
    rows = []
    for title, seed, row in pairs:
        measured = [row[key] for key in ("accuracy", "balanced_accuracy")]
        cells = [points(own["difference"], own["interval"]) for own in measured]
        test = row["mcnemar"]
        counts = [test["only_b_right"], test["only_a_right"], f"{test['p_value']:.2g}"]
        rows.append([title, seed, *cells, *counts])
    heads = ["recipe", "seed", "accuracy", "balanced accuracy"]
    heads += ["only ResNet18 right", "only the CNN right", "p"]
    text = TEXTS["better"].format(right=right, total=PAPER_TEST, p_value=p_value)
    parts = ["## Is one of the two models better?", text, table(heads, rows)]
    seeds = {recipe: [row for _, _, row in pairs if row.get("recipe") == recipe] for recipe in RECIPES}
    parts.append("\n".join(survives(RECIPES[recipe], rows) for recipe, rows in seeds.items() if rows))
    return "\n\n".join(parts)


def survives(title: str, rows: Runs) -> str:
    """What the seeds of one recipe say of the difference, in words."""
    gaps = mean_and_sd([row["accuracy"]["difference"] for row in rows])
    intervals = [row["accuracy"]["interval"] for row in rows]
    smallest = f"smallest p {min(row['mcnemar']['p_value'] for row in rows):.2g}"
    if all(low > 0 for low, _ in intervals):
        verdict = "ResNet18 is better with every seed"
    elif all(high < 0 for _, high in intervals):
        verdict = "the CNN is better with every seed"
    elif all(low <= 0 <= high for low, high in intervals):
        verdict = "no seed shows a difference that chance would not"
    else:
        verdict = "it depends on the seed"
    return f"- {title}: {gaps} points over {counted(len(rows), 'seed')}; {verdict} ({smallest})."


def leak_meter(runs: Runs) -> str:
    """Validation against test, the same recipe under both protocols; "" before such runs are there."""
    rows = []
    for model in MODELS:
        for recipe, protocol in (("paper", "paper"), ("paper-grouped", "grouped")):
            own = of_kind(runs, model, recipe)
            if not own:
                continue
            leak = [f"{own[0]['leak'][what]['all']:.0%}" for what in ("image", "patient")]
            accuracies = [spread(own, subset, "accuracy") for subset in ("validation", "test")]
            apart = [run["unleaked"] for run in own]
            accuracies.insert(1, f"{mean_and_sd([each['accuracy'] for each in apart])} of {apart[0]['n']}")
            gap = mean_and_sd([behind(run) for run in own])
            rows.append([model, protocol, len(own), *leak, *accuracies, gap])
    if not rows:
        return ""
    heads = ["model", "protocol", "seeds", "leak, image", "leak, patient", "validation"]
    heads += ["validation, what is not in training", "test", "gap"]
    gap = TEXTS["gap"].format(less=in_words(runs, "paper", leaking), ours=in_words(runs, "robust", behind))
    return f"## How much of 99.9 % was leak\n\n{TEXTS['leak']}\n\n{table(heads, rows)}\n\n{gap}"


def of_kind(runs: Runs, model: str, recipe: str) -> list[Mapping[str, Any]]:
    """The seeds of one model and recipe."""
    return [run for run in runs if (run["model"], run["recipe"]) == (model, recipe)]


def in_words(runs: Runs, recipe: str, difference: Callable[[Mapping[str, Any]], float]) -> str:
    """A recipe's difference in points, model by model: 2.3 ± 1.5 (xray-resnet18) and …"""
    of_models = {model: of_kind(runs, model, recipe) for model in MODELS}
    return listed(
        f"{mean_and_sd([difference(run) for run in own])} ({model})"
        for model, own in of_models.items()
        if own
    )


def leaking(run: Mapping[str, Any]) -> float:
    """How much better all validation rows are than those that training does not know."""
    return float(run["metrics"]["validation"]["accuracy"] - run["unleaked"]["accuracy"])


def behind(run: Mapping[str, Any]) -> float:
    """How much better validation is than test."""
    return float(run["metrics"]["validation"]["accuracy"] - run["metrics"]["test"]["accuracy"])


def epochs(runs: Runs) -> str:
    """The paper's recipe, epoch by epoch: what its validation hides."""
    keys = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_balanced_accuracy")
    heads = ["epoch", "train loss", *(key.replace("_", " ") for key in keys)]
    sections = []
    for run in (run for run in runs if (run["recipe"], run["seed"]) == ("paper", 0)):
        history = run["history"]
        rows = [
            [row["epoch"], f"{row['train_loss']:.4f}", *(f"{row[key]:.1%}" for key in keys)]
            for row in history
        ]
        tests = [row["test_accuracy"] for row in history]
        swing = f"Test accuracy lies between {min(tests):.1%} and {max(tests):.1%} over the epochs."
        sections += [f"### {run['model']}", table(heads, rows), swing]
    return (
        "\n\n".join(["## The paper's recipe, epoch by epoch", TEXTS["epochs"], *sections]) if sections else ""
    )


def copy_figures(page: str) -> None:
    """Copy the figures that the page shows from the shipped bundles to docs/figures."""
    for model, figure in re.findall(r"\(figures/(xray-[a-z0-9]+)_([\w.-]+)\.png\)", page):
        with atomic_file(DOCS / "figures" / f"{model}_{figure}.png") as temporary:
            shutil.copyfile(PRETRAINED / model / manifest.FIGURES / f"{figure}.png", temporary)


def spread(runs: Runs, subset: str, key: str) -> str:
    """Mean ± sd over seeds, in percent."""
    return mean_and_sd([run["metrics"][subset][key] for run in runs])


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
