"""Write docs/results.md: the paper's numbers beside those of two bundles trained with its recipe.

python scripts/write_results.py runs/paper/xray-resnet18/bundle runs/paper/xray-cnn/bundle

Everything about our models is read from the bundles, and speed from docs/bench_train*.md, one for each
machine, which `make bench-train ARGS="--out docs/bench_train.json"` writes; nothing is typed in.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from xray_hf import manifest
from xray_hf.errors import exit_on_error
from xray_hf.files import atomic_file, write_text

# İbişoğlu and Akçay 2021, table 1 and section III.C; percentages as printed.
PAPER = {
    "xray-resnet18": {"train": 99.979, "validation": 99.885, "test": 79.623},
    "xray-cnn": {"train": 99.808, "validation": 99.713, "test": 77.115},
}
SUBSETS = {"train": "train", "validation": "validation", "test": "test", "test_official": "official test"}
DOCS = Path(__file__).resolve().parent.parent / "docs"
SPEED = sorted(DOCS.glob("bench_train*.md"))
MEMORY = DOCS / "bench_memory.md"  # of `--rounds 0 --memory`
SPEED_TEXT = """`make bench-train DATA=…`: images per second in training, medians of interleaved rounds
with their spread. `ours` is the loop of train.py; `pure` the same step on one constant batch, the ceiling;
`plain` a loop over JPEG files and torchvision transforms in float32; `hf` transformers' Trainer on the
`datasets` object."""


def main() -> None:
    """Write the page and copy its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    runs = {}
    for folder in parser.parse_args().bundles:
        training = manifest.read_json(folder / manifest.TRAINING)
        runs[training["model"]] = (folder, training, manifest.read_json(folder / manifest.METRICS))
    splits = manifest.read_json(next(iter(runs.values()))[0] / manifest.SPLITS)
    sections = [head(runs), comparison(runs), reading(splits)]
    sections += [epochs(name, training) for name, (_, training, _) in runs.items()]
    sections += [on_test(name, measured) for name, (_, _, measured) in runs.items()]
    if SPEED:
        sections += [
            f"## Speed\n\n{SPEED_TEXT}",
            *(page.read_text(encoding="utf-8").strip() for page in SPEED),
        ]
    if MEMORY.exists():
        sections.append(f"## Memory\n\n{MEMORY.read_text(encoding='utf-8').strip()}")
    write_text(DOCS / "results.md", "\n\n".join(sections) + "\n")
    for name, (folder, _, _) in runs.items():
        for figure in ("curves", "confusion_test"):
            with atomic_file(DOCS / "figures" / f"paper_{name}_{figure}.png") as temporary:
                shutil.copyfile(folder / manifest.FIGURES / f"{figure}.png", temporary)


def head(runs: dict[str, Any]) -> str:
    """What was run, on what."""
    training = next(iter(runs.values()))[1]
    starts = ", ".join(f"{name} from {t['initial_weights']} weights" for name, (_, t, _) in runs.items())
    config = training["config"]
    arguments = "" if config["model"]["pretrained"] else " with `ARGS=--no-pretrained`"
    return f"""# Results

What this data can teach is little: Normal and Pneumonia are children of one hospital, COVID-19 are 58 images,
mostly of adults, collected from the web. A model that tells COVID-19 from the rest may only tell the sources
apart. Nothing below is evidence for any clinical use.

## The paper's recipe, run as it was

`make reproduce DATA=…`{arguments}: protocol `{config["data"]["protocol"]}`, preset `{config["preset"]}`,
seed {config["run"]["seed"]}; {starts}.
The paper started ResNet18 from ImageNet weights, as this command does without that argument.
{training["device"]}, {training["precision"]}, torch {training["versions"]["torch"]}. Weights of the last
epoch; nothing was tuned, nothing chosen by the test set."""


def comparison(runs: dict[str, Any]) -> str:
    """The paper's table 1 beside ours."""
    measured = next(iter(runs.values()))[2]
    sizes = [f"{name} (n = {measured[subset]['n']:,})" for subset, name in SUBSETS.items()]
    lines = [f"| accuracy (%) | {' | '.join(sizes)} | minutes |"]
    lines.append("|---|---|---|---|---|---|")
    for name, (_, training, measured) in runs.items():
        if paper := PAPER.get(name):
            printed = f"{paper['train']} | {paper['validation']} | {paper['test']}"
            lines.append(f"| {name}, paper | {printed} | not given | not given |")
        cells = " | ".join(f"{100 * measured[subset]['accuracy']:.2f}" for subset in SUBSETS)
        lines.append(f"| {name}, ours | {cells} | {training['seconds'] / 60:.0f} |")
    return "\n".join(lines) + (
        "\n\nMinutes are of training alone, on a machine that had other work as well. The 95 % interval of "
        "an accuracy near 80 % on 638 images is ±3.1 points (binomial): a difference of 2.5 points between "
        "two models, the paper's or ours, means nothing by itself."
    )


def reading(splits: dict[str, Any]) -> str:
    """What the numbers mean, with the leak."""
    image, patient = splits["leak"]["image"]["all"], splits["leak"]["patient"]["all"]
    return f"""The paper upsamples before it splits validation off: of the validation rows, {image:.0%} show
an image that is also in training and {patient:.0%} a patient who is (`xray-hf splits --protocol paper`).
Its validation accuracy therefore measures memory, and cannot tell when a model begins to overfit; the test
column below can. Under the honest protocol, `grouped`, the same command prints an overlap of 0."""


def epochs(name: str, training: dict[str, Any]) -> str:
    """Accuracy of every epoch: what validation shows, and what it hides."""
    history = training["history"]
    lines = [f"### {name}, epoch by epoch\n"]
    lines.append(
        "| epoch | train loss | train accuracy | validation accuracy | test accuracy | test balanced |"
    )
    lines.append("|---|---|---|---|---|---|")
    for row in history:
        keys = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_balanced_accuracy")
        cells = " | ".join(f"{row[key]:.1%}" for key in keys)
        lines.append(f"| {row['epoch']} | {row['train_loss']:.4f} | {cells} |")
    tests = [row["test_accuracy"] for row in history]
    highest = max(row["validation_accuracy"] for row in history)
    lines.append(
        f"\nTest accuracy lies between {min(tests):.1%} and {max(tests):.1%} over the epochs and ends at "
        f"{tests[-1]:.1%}; validation accuracy reaches {highest:.1%}. Here train accuracy is measured while "
        "the weights change, the rest in the training's number format; the table above is of the final "
        "weights, in float32, as the bundle is loaded."
    )
    lines.append(f"\n![Loss and accuracy of {name} by epoch](figures/paper_{name}_curves.png)")
    return "\n".join(lines)


def on_test(name: str, measured: dict[str, Any]) -> str:
    """Per-class numbers on the test set, and the confusion matrix."""
    test = measured["test"]
    lines = [f"### {name} on the {test['n']} test images\n"]
    lines.append("| class | n | sensitivity | specificity | precision | F1 | AUROC |")
    lines.append("|---|---|---|---|---|---|---|")
    for label, numbers in test["per_class"].items():
        order = ("sensitivity", "specificity", "precision", "f1", "auroc")
        cells = " | ".join("-" if numbers[key] is None else f"{numbers[key]:.3f}" for key in order)
        lines.append(f"| {label} | {test['class_counts'][label]} | {cells} |")
    lines.append(
        f"\nBalanced accuracy {test['balanced_accuracy']:.1%}, macro F1 {test['macro_f1']:.3f}, "
        f"macro AUROC {test['macro_auroc']:.3f}."
    )
    lines.append(f"\n![Confusion matrix of {name} on test](figures/paper_{name}_confusion_test.png)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
