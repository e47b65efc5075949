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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numbers_in_words import mean_and_sd, points, table
from results_texts import TEXTS
from scipy.stats import fisher_exact

from xray_hf import manifest
from xray_hf.errors import BundleError, exit_on_error
from xray_hf.evaluation import uncertainty
from xray_hf.evaluation.predictions import SUBSETS, Predictions
from xray_hf.evaluation.words import false_alarms, listed, number, percent, rate
from xray_hf.files import atomic_file, write_json, write_text
from xray_hf.labels import LABELS
from xray_hf.views import VIEWS

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
VIEW_NAMES = {"view-none": "whole"} | {f"view-{view}": view.replace("_", " ") for view in VIEWS}
VIEW_HEADS = ["", "accuracy", "balanced accuracy", *(f"found: {label}" for label in LABELS), "AUROC COVID-19"]

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
    shipped = {
        model: manifest.read_json(PRETRAINED / model / manifest.METRICS)
        for model in MODELS
        if (PRETRAINED / model).is_dir()
    }
    text = page(record, shipped)
    copy_figures(text)
    write_text(DOCS / "results.md", text)


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


def compare(recipe: Path, seed: int) -> dict[str, Any] | None:
    """ResNet18 against the CNN, of one recipe and seed, on the test rows."""
    files = [recipe / model / f"seed-{seed}" / "bundle" / manifest.PREDICTIONS for model in MODELS]
    if not all(file.exists() for file in files):
        return None
    resnet, cnn = (Predictions.read(file).select("test") for file in files)
    return uncertainty.compare(cnn, resnet)


def page(record: Mapping[str, Any], shipped: Mapping[str, Any]) -> str:
    """The whole page."""
    runs = [run for run in record["runs"] if run["recipe"] in RECIPES]
    views = [run for run in record["runs"] if run["recipe"].startswith("view-")]
    speed = sorted(DOCS.glob("bench_train*.md"))
    sections = [
        opening(shipped),
        overview(runs, shipped),
        which_is_better(record["compared"]),
        leak_meter(runs),
    ]
    if shipped:
        sections += [classes(shipped), confidence(shipped), elsewhere(shipped), controls(shipped, views)]
        sections += [subgroups(shipped), source(shipped)]
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


def opening(shipped: Mapping[str, Any]) -> str:
    """What the data can and cannot teach, with the test that says so."""
    measured_on: dict[str, dict[str, Any]] = {}
    for model, measured in shipped.items():
        for name, numbers in measured.get("external", {}).items():
            measured_on.setdefault(name, {})[model] = numbers
    collapse = [collapsed(name, of_models) for name, of_models in measured_on.items()]
    return "\n\n".join([TEXTS["opening"], " ".join(collapse), TEXTS["how to read"]])


def collapsed(name: str, of_models: Mapping[str, Any]) -> str:
    """What every model does on one external test, in a sentence."""
    images = next(iter(of_models.values()))["n"]
    rates = [f"{model} has {rate(own, 'balanced_accuracy')}" for model, own in of_models.items()]
    alarms = [false_alarms(own["confusion_matrix"]) for own in of_models.values()]
    wrong = listed(called for called, _ in alarms)
    return (
        f"On {images} X-rays from elsewhere ({name}) {listed(rates)} balanced accuracy; "
        f"{wrong} of {alarms[0][1]} without COVID-19 are called so."
    )


def overview(runs: Runs, shipped: Mapping[str, Any]) -> str:
    """The paper's table beside ours."""
    starts = sorted({f"{run['model']} from {run['initial_weights']} weights" for run in runs})
    where = sorted({f"{run['device']}, {run['precision']}, torch {run['torch']}" for run in runs})
    rows: list[list[Any]] = []
    for model in MODELS:
        printed = [PAPER[model][subset] for subset in ("train", "validation", "test")]
        rows.append([f"{model}, as the paper prints", 1, *printed, *["not given"] * 3])
        for recipe, title in RECIPES.items():
            if own := [run for run in runs if (run["model"], run["recipe"]) == (model, recipe)]:
                cells = [spread(own, subset, "accuracy") for subset in NAMES]
                cells.append(spread(own, "test", "balanced_accuracy"))
                minutes = np.mean([run["seconds"] for run in own]) / 60
                rows.append([f"{model}, {title}", len(own), *cells, f"{minutes:.0f}"])
        if measured := shipped.get(model):
            cells = [rate(measured[subset], "accuracy") for subset in NAMES]
            balanced = rate(measured["test"], "balanced_accuracy")
            rows.append([f"{model}, **as shipped**", "the median", *cells, balanced, ""])
    heads = ["accuracy, %", "seeds", *NAMES.values(), "test, balanced", "minutes"]
    text = TEXTS["overview"].format(starts="; ".join(starts), where="; ".join(where))
    return f"## The paper's recipe and ours\n\n{text}\n\n{table(heads, rows)}"


def which_is_better(compared: Iterable[Mapping[str, Any]]) -> str:
    """Does the paper's difference survive?"""
    right = [PAPER[model]["right"] for model in MODELS]
    p_value = fisher_exact([[n, PAPER_TEST - n] for n in right]).pvalue
    rows = []
    for row in compared:
        measured = [row[key] for key in ("accuracy", "balanced_accuracy")]
        cells = [points(own["difference"], own["interval"]) for own in measured]
        test = row["mcnemar"]
        counts = [test["only_b_right"], test["only_a_right"], f"{test['p_value']:.2g}"]
        rows.append([RECIPES[row["recipe"]], row["seed"], *cells, *counts])
    heads = ["recipe", "seed", "accuracy", "balanced accuracy"]
    heads += ["only ResNet18 right", "only the CNN right", "p"]
    text = TEXTS["better"].format(right=right, total=PAPER_TEST, p_value=p_value)
    return f"## Is one of the two models better?\n\n{text}\n\n{table(heads, rows)}"


def leak_meter(runs: Runs) -> str:
    """Validation against test, the same recipe under both protocols; "" before such runs are there."""
    rows = []
    for model in MODELS:
        for recipe, protocol in (("paper", "paper"), ("paper-grouped", "grouped")):
            own = [run for run in runs if (run["model"], run["recipe"]) == (model, recipe)]
            if not own:
                continue
            both = [[run["metrics"][subset]["accuracy"] for subset in ("validation", "test")] for run in own]
            leak = [f"{own[0]['leak'][what]['all']:.0%}" for what in ("image", "patient")]
            accuracies = [spread(own, subset, "accuracy") for subset in ("validation", "test")]
            gap = mean_and_sd([validation - test for validation, test in both])
            rows.append([model, protocol, len(own), *leak, *accuracies, gap])
    if not rows:
        return ""
    heads = ["model", "protocol", "seeds", "leak, image", "leak, patient", "validation", "test", "gap"]
    return f"## How much of 99.9 % was leak\n\n{TEXTS['leak']}\n\n{table(heads, rows)}\n\n{TEXTS['gap']}"


def classes(shipped: Mapping[str, Any]) -> str:
    """Per-class numbers of the shipped models on test."""
    keys = ("sensitivity", "specificity", "precision", "f1", "auroc")
    rows = []
    for model, measured in shipped.items():
        test = measured["test"]
        for label in LABELS:
            own, intervals = test["per_class"][label], test["intervals"]["per_class"][label]
            counts = [test["class_counts"][label], test["patients_per_class"][label]]
            rows.append([f"{model}, {label}", *counts, *(number(own[key], intervals[key]) for key in keys)])
    heads = ["test", "n", "patients", "sensitivity", "specificity", "precision", "F1", "AUROC"]
    figures = [
        picture(model, figure, f"{what} of {model}")
        for figure, what in (("confusion_test", "Confusion matrix on test"), ("roc_test", "ROC on test"))
        for model in shipped
    ]
    return "\n\n".join(["## The shipped models, class by class", table(heads, rows), *figures])


def confidence(shipped: Mapping[str, Any]) -> str:
    """Temperature, abstention, operating points: chosen on validation, and what they do on test."""
    rows, of_points = [], []
    for model, measured in shipped.items():
        fitted = manifest.read_json(PRETRAINED / model / manifest.CALIBRATION)
        for subset in ("validation", "test"):
            own, shares = measured[subset], measured[subset]["abstention"]
            changes = [
                f"{own['calibration']['before'][key]:.3f} → {own['calibration']['after'][key]:.3f}"
                for key in ("ece", "brier", "cross_entropy")
            ]
            answers = [rate(shares, "coverage"), rate(shares, "risk")]
            rows.append([f"{model}, {subset}", f"{fitted['temperature']:.2f}", *changes, *answers])
        for point in measured["test"]["operating_points"]:
            rates = [rate(point, "specificity"), rate(point, "sensitivity")]
            on_roc = f"{point['sensitivity_on_own_roc']:.1%}"
            of_points.append([model, f"{point['validation_specificity']:.0%}", *rates, on_roc])
    heads = ["", "temperature", "ECE, before → after", "Brier", "cross entropy", "answered", "of these wrong"]
    heads_of_points = ["Pneumonia against the rest", "specificity on validation", "specificity on test"]
    heads_of_points += ["sensitivity on test", "sensitivity read off the test ROC"]
    figures = [
        picture(model, figure, f"{what} of {model}")
        for model in shipped
        for figure, what in (("reliability_test", "Reliability"), ("risk_coverage", "Risk and coverage"))
    ]
    tables = [table(heads, rows), table(heads_of_points, of_points)]
    title = "## Probabilities, and when to say nothing"
    return "\n\n".join([title, TEXTS["confidence"], *tables, *figures])


def elsewhere(shipped: Mapping[str, Any]) -> str:
    """The external test beside the internal one."""
    rows, figures = [], []
    for model, measured in shipped.items():
        for name, own in {"test": measured["test"], **measured.get("external", {})}.items():
            intervals = own["intervals"]["per_class"]
            areas = [number(own["per_class"][k]["auroc"], intervals[k]["auroc"]) for k in LABELS]
            decisions = (own.get("decisions") or {}).get("not_decided", {})
            said = ", ".join(f"{what} {share:.0%}" for what, share in decisions.items())
            rates = [rate(own, "accuracy"), rate(own, "balanced_accuracy")]
            rows.append([f"{model}, {name}", own["n"], *rates, *areas, said])
            if name != "test":
                figures.append(picture(model, f"confusion_external_{name}", f"{model} on {name}"))
    heads = ["", "n", "accuracy", "balanced accuracy", *(f"AUROC {label}" for label in LABELS), "not decided"]
    return "\n\n".join(["## X-rays from elsewhere", TEXTS["elsewhere"], table(heads, rows), *figures])


def controls(shipped: Mapping[str, Any], views: Runs) -> str:
    """The test images without what a diagnosis needs, and networks that never saw anything else."""
    rows = [
        view_row(f"{model}, {view.replace('_', ' ')}", own)
        for model, measured in shipped.items()
        for view, own in {"whole": measured["test"], **measured["controls"]}.items()
    ]
    figures = [picture(model, "control_sensitivity", f"{model} in each view") for model in shipped]
    figures.insert(0, picture(next(iter(shipped)), "control_views", "The views, of a synthetic patient"))
    sections = ["## Without the lungs", TEXTS["controls"], table(VIEW_HEADS, rows), *figures]
    if views:
        trained = [
            view_row(f"{run['model']}, {VIEW_NAMES[run['recipe']]}", run["metrics"]["test"]) for run in views
        ]
        sections += ["### Trained on nothing else", TEXTS["trained on views"], table(VIEW_HEADS, trained)]
    return "\n\n".join(sections)


def view_row(name: str, own: Mapping[str, Any]) -> list[str]:
    """A line of VIEW_HEADS."""
    found = [f"{own['per_class'][label]['sensitivity']:.0%}" for label in LABELS]
    rates = [rate(own, "accuracy"), rate(own, "balanced_accuracy")]
    return [name, *rates, *found, f"{own['per_class'][LABELS[-1]]['auroc']:.3f}"]


def subgroups(shipped: Mapping[str, Any]) -> str:
    """Parts of test, and its repeated pictures."""
    rows, repeated = [], []
    for model, measured in shipped.items():
        groups = {k: v for k, v in measured["subgroups"].items() if isinstance(v, Mapping)}
        for what, group, own in ((w, g, o) for w, of_what in groups.items() for g, o in of_what.items()):
            for label, found in own["classes"].items():
                share = percent(found["sensitivity"], found["interval"])
                rows.append([f"{model}, {what.replace('_', ' ')} {group}", label, found["n"], share])
        repeats = measured["duplicates"]
        one, all_rows = (
            percent(repeats[key]["accuracy"], repeats[key]["interval"]) for key in ("one_of_each", "all_rows")
        )
        repeated.append(f"{model} has {one} right instead of {all_rows}")
    count = repeats["repeated_pictures"]
    dropped = f"{count} pictures stand in test more than once; with one row of each {listed(repeated)}."
    heads = ["", "class", "n", "found"]
    return "\n\n".join(["## Subgroups of test", TEXTS["subgroups"], table(heads, rows), dropped])


def source(shipped: Mapping[str, Any]) -> str:
    """How well the two collections can be told apart within one class, and where the heatmaps lie."""
    rows, maps = [], []
    for model, measured in shipped.items():
        own = measured["source"]
        areas = [own["auroc"][name] for name in ("thumbnail", "histogram", "embedding")]
        told = [number(area["value"], area["interval"]) if area else "-" for area in areas]
        called = [
            f"{seen['called']} of {seen['images']} in {split}"
            for split, seen in own["web_called_covid"].items()
            if seen["images"]
        ]
        rows.append([model, own["web"]["images"], own["web"]["patients"], *told, ", ".join(called)])
        for label, heat in measured["heatmap"]["per_class"].items():
            if heat["n"]:
                maps.append([f"{model}, {label}", heat["n"], f"{heat['lungs']:.0%}", f"{heat['border']:.0%}"])
        uniform = measured["heatmap"]["uniform"]
    maps.append(["a uniform map", "", f"{uniform['lungs']:.0%}", f"{uniform['border']:.0%}"])
    heads = [
        "",
        "images",
        "patients",
        "AUROC by thumbnail",
        "by histogram",
        "by embedding",
        "called COVID-19",
    ]
    tables = [table(heads, rows), TEXTS["heatmaps"], table(["", "n", "lungs", "frame"], maps)]
    return "\n\n".join(["## What the COVID-19 figure is worth", TEXTS["source"], *tables])


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


def picture(model: str, figure: str, text: str) -> str:
    """A figure of a shipped bundle, as Markdown; `copy_figures` brings it there."""
    return f"![{text}](figures/{model}_{figure}.png)"


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
