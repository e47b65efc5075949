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
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from xray_hf import manifest
from xray_hf.errors import BundleError, exit_on_error
from xray_hf.evaluation import controls, uncertainty
from xray_hf.evaluation.predictions import SUBSETS, Predictions
from xray_hf.files import write_json, write_text
from xray_hf.report import markdown, sections, sentences, tables
from xray_hf.report.numbers import Rate, mean_and_sd, percent, points
from xray_hf.report.report import Report, measured
from xray_hf.text import counted, listed

ROOT = Path(__file__).resolve().parent.parent
DOCS, PRETRAINED = ROOT / "docs", ROOT / "pretrained"
RECORD = "results.json"
MODELS = ("xray-resnet18", "xray-cnn")
RECIPES = {
    "paper": "the paper's recipe and split",
    "paper-grouped": "the paper's recipe, patient-level split",
    "robust": "**our recipe**",
}
# İbişoğlu and Akçay 2021, table 1 and section III.C: percentages as printed, and right images of 638.
PAPER = {
    "xray-resnet18": {"train": 99.979, "validation": 99.885, "test": 79.623, "right": 508},
    "xray-cnn": {"train": 99.808, "validation": 99.713, "test": 77.115, "right": 492},
}
PAPER_TEST = 638
NAMES = {"train": "train", "validation": "validation", "test": "test", "test_official": "official test"}
VIEW = "view-"  # recipes of runs that were trained on ablated inputs

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
    write_text(DOCS / "results.md", page(record, read_shipped()))


def read_shipped() -> list[Report]:
    """The bundles of pretrained/, in the order of MODELS; raises BundleError for one that is no release."""
    found = [Report.read(PRETRAINED / model, model) for model in MODELS if (PRETRAINED / model).is_dir()]
    for each in found:
        if each.gaps or not each.label_errors or not each.ood:
            lacks = each.gaps[0] if each.gaps else "label_noise" if each.ood else "ood_report"
            raise BundleError(
                f"{each.folder} is no release: it lacks {lacks}; `scripts/release.py` makes it, or `xray-hf "
                "report`, `calibrate` and `evaluate`."
            )
    return found


def test_rows(shipped: Report) -> Predictions:
    """What a shipped model says of the internal test set."""
    return Predictions.read(shipped.folder / manifest.PREDICTIONS).select("test")


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
    metrics = manifest.read_json(folder / manifest.METRICS)
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


def page(record: Mapping[str, Any], shipped: Sequence[Report]) -> str:
    """The whole page."""
    runs = [run for run in record["runs"] if run["recipe"] in RECIPES]
    views = [run for run in record["runs"] if run["recipe"].startswith(VIEW)]
    speed = sorted(DOCS.glob("bench_train*.md"))
    parts = [opening(shipped), overview(runs, shipped), which_is_better(record["compared"], shipped)]
    parts.append(leak_meter(runs))
    for own in sections.all_sections(shipped) if shipped else ():
        parts.append(markdown.section(own, 2, figure_of))
        if own.title == "Shortcut controls":
            parts.append(trained_on_views(views))
        if own.title == "Likely label errors":
            parts.append(errors_for_all(shipped))
    parts.append(part(DOCS / "ablations.md", "## Choices of the recipe", TEXTS["ablations"]))
    parts.append(epochs(runs))
    parts += [part(path, *([] if n else ["## Speed", TEXTS["speed"]])) for n, path in enumerate(speed)]
    parts.append(part(DOCS / "bench_memory.md", "## Memory"))
    return "\n\n".join(text for text in parts if text) + "\n"


def figure_of(figure: sections.Figure) -> str:
    """Where a shipped bundle's figure lies, as seen from docs/."""
    return f"../{PRETRAINED.name}/{figure.model}/{manifest.FIGURES}/{figure.stem}.png"


def opening(shipped: Sequence[Report]) -> str:
    """What the page can tell, and the external validation of the shipped models."""
    found = [line for each in shipped for line in sentences.headline(each)]
    about = sentences.about_data(shipped)
    how = f"{TEXTS['how to read']} {sentences.INTERVALS} [Limitations](limitations.md) has the rest."
    return "\n\n".join(["# Results", TEXTS["opening"], *map(markdown.paragraph, [*about, *found, how])])


def trained_on_views(runs: Runs) -> str:
    """Networks that never saw anything but an ablated input."""
    named = [(run, run["recipe"].removeprefix(VIEW)) for run in runs]
    sets = [
        (run["model"], tables.control_title("whole" if view == manifest.WHOLE else view), own)
        for run, view in named
        if (own := measured(run["metrics"]["test"], tuple(run["metrics"]["test"]["per_class"])))
    ]
    if not sets:
        return ""
    classes = list(sets[0][2].classes)
    found = [tables.performance("", sets), tables.class_columns("", sets, classes)]
    drawn = [markdown.table(table.without_empty()) for table in found]
    covid = [run["metrics"]["test"]["per_class"]["COVID-19"] for run, view in named if view == "border"]
    border = [TEXTS["of border"].format(**each) for each in covid[:1]]
    return "\n\n".join(["### Trained on ablated inputs", TEXTS["trained on views"], *border, *drawn])


def errors_for_all(shipped: Sequence[Report]) -> str:
    """How many likely label errors all models agree on; "" for one model."""
    if len(shipped) < 2:
        return ""
    likely = []
    for each in shipped:
        test = test_rows(each)
        looks_like = controls.confident_classes(test)
        likely.append((looks_like >= 0) & (looks_like != test.label))
    return f"Likely label errors for every model: {int(np.logical_and.reduce(likely).sum())}."


def part(path: Path, *before: str) -> str:
    """A page that another script has written, below these paragraphs; "" if it is not there."""
    if not path.exists():
        return ""
    return "\n\n".join([*before, path.read_text(encoding="utf-8").strip()])


def overview(runs: Runs, shipped: Sequence[Report]) -> str:
    """The paper's table beside ours."""
    starts = sorted({f"{run['model']} from {run['initial_weights']} weights" for run in runs})
    where = sorted({f"{run['device']}, {run['precision']}, torch {run['torch']}" for run in runs})
    of_model = {each.name: each.subsets for each in shipped}
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
        if own_sets := of_model.get(model):
            cells = [percent(own_sets[subset].accuracy) for subset in NAMES]
            balanced = percent(own_sets["test"].balanced_accuracy)
            rows.append([f"{model}, **as shipped**", "the median", *cells, balanced, ""])
    heads = ["accuracy, %", "seeds", *NAMES.values(), "test, balanced", "minutes"]
    text = TEXTS["overview"].format(starts="; ".join(starts), where="; ".join(where))
    return f"## The paper's recipe and ours\n\n{text}\n\n{markdown.rows_below(heads, rows)}"


def which_is_better(compared: Iterable[Mapping[str, Any]], shipped: Sequence[Report]) -> str:
    """Does the paper's difference survive?"""
    pairs = [(RECIPES[row["recipe"]], row["seed"], row) for row in compared]
    if len(shipped) == len(MODELS):
        resnet, cnn = map(test_rows, shipped)
        pairs.append(("**as shipped**", "the medians", uncertainty.compare(cnn, resnet)))
    right = [PAPER[model]["right"] for model in MODELS]
    p_value = fisher_exact([[n, PAPER_TEST - n] for n in right]).pvalue
    rows = []
    for title, seed, row in pairs:
        differences, test = (row["accuracy"], row["balanced_accuracy"]), row["mcnemar"]
        cells = [points(Rate(own["difference"], own["interval"])) for own in differences]
        counts = [test["only_b_right"], test["only_a_right"], f"{test['p_value']:.2g}"]
        rows.append([title, seed, *cells, *counts])
    heads = ["recipe", "seed", "accuracy", "balanced accuracy"]
    heads += ["only ResNet18 right", "only the CNN right", "p"]
    text = TEXTS["better"].format(right=right, total=PAPER_TEST, p_value=p_value)
    parts = ["## Is one of the two models better?", text, markdown.rows_below(heads, rows)]
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
            validation, test = (spread(own, subset, "accuracy") for subset in ("validation", "test"))
            apart = mean_and_sd([run["unleaked"]["accuracy"] for run in own])
            unleaked = f"{apart} of {own[0]['unleaked']['n']}"
            gap = mean_and_sd([behind(run) for run in own])
            rows.append([model, protocol, len(own), *leak, validation, unleaked, test, gap])
    if not rows:
        return ""
    heads = ["model", "protocol", "seeds", "leak, image", "leak, patient", "validation"]
    heads += ["validation, what is not in training", "test", "gap"]
    gap = TEXTS["gap"].format(less=in_words(runs, "paper", leaking), ours=in_words(runs, "robust", behind))
    return f"## How much of 99.9 % was leak\n\n{TEXTS['leak']}\n\n{markdown.rows_below(heads, rows)}\n\n{gap}"


def of_kind(runs: Runs, model: str, recipe: str) -> list[Mapping[str, Any]]:
    """The seeds of one model and recipe."""
    return [run for run in runs if (run["model"], run["recipe"]) == (model, recipe)]


def in_words(runs: Runs, recipe: str, difference: Callable[[Mapping[str, Any]], float]) -> str:
    """A recipe's difference in points, model by model: 2.3 ± 1.5 (xray-resnet18) and …"""
    return listed(
        f"{mean_and_sd([difference(run) for run in own])} ({model})"
        for model in MODELS
        if (own := of_kind(runs, model, recipe))
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
    parts = ["## The paper's recipe, epoch by epoch", TEXTS["epochs"]]
    shown = [run for run in runs if (run["recipe"], run["seed"]) == ("paper", 0)]
    for run in shown:
        rows = [
            [row["epoch"], f"{row['train_loss']:.4f}", *(f"{row[key]:.1%}" for key in keys)]
            for row in run["history"]
        ]
        tests = [row["test_accuracy"] for row in run["history"]]
        swing = f"Test accuracy lies between {min(tests):.1%} and {max(tests):.1%} over the epochs."
        parts += [f"### {run['model']}", markdown.rows_below(heads, rows), swing]
    return "\n\n".join(parts) if shown else ""


def spread(runs: Runs, subset: str, key: str) -> str:
    """Mean ± sd over seeds, in percent."""
    return mean_and_sd([run["metrics"][subset][key] for run in runs])


TEXTS = {
    "opening": """\
**These data can teach little, and these models are not for patients.** External validation and the
shortcut controls below show how much of the internal performance is the source, not the disease.""",
    "how to read": """\
These data can teach how a split that copies images hides this, and how to find out. ± is the standard
deviation over seeds, all with the same split and the same test patients.""",
    "overview": """\
`make reproduce DATA=…`: {starts} (the paper started ResNet18 from ImageNet weights); {where}. Nothing was
chosen on test images.""",
    "better": """\
The paper says that ResNet18 is 2.5 % better: {right[0]} against {right[1]} of {total} images. Its
predictions were not published; an unpaired exact test gives p = {p_value:.2f}. Below are ours on the same
test images, ResNet18 minus the CNN in points: the interval over patients, and McNemar's exact test, which
treats images as independent, so p is optimistic.""",
    "leak": """\
The paper's recipe under its own protocol and under the patient-level split. Leak: the share of the
validation images that are in training, or whose patient is (`xray-hf splits`). Upsampling is part of the
paper's split; under the patient-level split its recipe has nothing that balances the classes, and an
epoch has half as many steps. So the leak is also shown within the paper's runs: by the validation images
whose file and patient are both absent from training (none of COVID-19).""",
    "gap": """\
Within the paper's own runs, accuracy on the images that do not leak is {less} points lower than on all
validation images. Its 99.9 % was not reached from random weights, so how much of it was leak remains
unknown. The gaps of the two protocols do not compare: without upsampling the recipe learns something
else. What remains without the leak comes from the official test set, which differs from the training set
that it comes with, and from a recipe that does not cope with the difference: on the same split and test
set ours has gaps of {ours}. Validation images cannot show it.""",
    "trained on views": """\
`train.py --view VIEW`, tested on the same view, one small run each (112 pixels, 8 epochs, one seed): what
the data give away without the lungs. There is no augmentation, which would destroy what the view has
left; so even the run on whole images is far below the shipped model. The order of the rows means nothing;
that every view without lungs separates COVID-19 from the rest does.""",
    "of border": """\
The sensitivity to COVID-19 is **next to no evidence of recognising the disease:** a CNN trained on
only the outer frame has {sensitivity:.0%} in the test set, with an AUROC of {auroc:.3f}.""",
    "epochs": """\
Protocol `paper`, seed 0. Train accuracy is measured while the weights change, the rest in the training's
number format.""",
    "ablations": """\
`scripts/ablate.py`: one change at a time against the recipe that the search began with, at 112 pixels and
8 epochs, from random weights; mean ± standard deviation over folds, each with its own seed and validation
images and all with the same test images, which take no part. Validation images come from the same source
as the training images and hardly tell recipes apart. So every network is also tested on validation images
made darker, brighter, flatter, equalised, softer, noisier, closer and farther than they are (`stressed`,
mean of the eight); choices follow that column, and `gain` is its difference from the starting recipe,
fold by fold. Augmentation that resembles a stress has an advantage in it. Choices were made on fold 0,
for ResNet18 only those that decided; the other folds came later and show how far to trust them. Weight
decay, warm-up, schedule and label smoothing stayed as they were, since nothing told them apart; averaging
with the mirror image is not used, since it gained nothing. 224 pixels and the preset's 12 and 20 epochs
follow from the time of a run and were not compared; an auxiliary head for bacteria and virus was not
tried. Minutes are from a machine that had other work as well, or was halted.""",
    "speed": """\
`make bench-train DATA=…`: images per second in training, medians of interleaved rounds with their spread.
`ours` is the loop of train.py; `pure` the same step on one constant batch, the ceiling; `plain` a loop
over JPEG files and torchvision transforms in float32; `hf` transformers' Trainer on the `datasets`
object.""",
}


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
