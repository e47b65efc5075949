"""Compare choices of the recipe on validation rows only, one change at a time.

python scripts/ablate.py --data-dir data/coronahack               # hours; resumes where it stopped
python scripts/ablate.py --data-dir data/coronahack --only base   # some of them

A small proxy: 112 pixels, 8 epochs, random weights. Every variant is trained on several folds, with another
seed in each, and judged on the fold's validation rows twice: as they are, and changed as if other machines
and hands had taken them (STRESSES), since validation comes from the same source as training and hardly tells
recipes apart. Test rows are taken away before anything begins. Results: runs/ablations, one JSON a run, and
docs/ablations.json, .md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image, ImageFilter, ImageOps

from xray_hf.data.cache import Viewed
from xray_hf.data.dataset import XrayData, open_data, split_data
from xray_hf.errors import ConfigError, exit_on_error
from xray_hf.evaluation import metrics
from xray_hf.files import write_json, write_text
from xray_hf.models import create_model
from xray_hf.report import markdown
from xray_hf.report.numbers import mean_and_sd
from xray_hf.training.config import AugmentationConfig, Config, preset_values, resolve
from xray_hf.training.loop import Trainer
from xray_hf.training.predict import predict_rows
from xray_hf.training.processes import keep_freed_memory, make_accelerator
from xray_hf.views import View

DOCS = Path(__file__).resolve().parent.parent / "docs"
SETTINGS = ("model", "optimization", "augmentation")
MEASURED = ("accuracy", "balanced_accuracy", "sensitivity")
PROXY = {"side": 112, "epochs": 8, "pretrained": False}
# Where the search began; `robust` is where it ended.
START = {
    "optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.3,
    "balance": "sampling", "label_smoothing": 0.1, "ema": 0.995, "keep": "last",
    "rotate": 10.0, "shift": 0.08, "scale_low": 0.8, "scale_high": 1.1,
    "gamma": 1.6, "contrast": 0.3, "brightness": 0.15,
}  # fmt: skip
NOTHING = asdict(AugmentationConfig())
GEOMETRY = {name: NOTHING[name] for name in ("rotate", "shift", "scale_low", "scale_high")}
GREY = {name: NOTHING[name] for name in ("gamma", "contrast", "brightness")}
STRONG_GEOMETRY = {"rotate": 15.0, "shift": 0.12, "scale_low": 0.7, "scale_high": 1.2}
STRONG_GREY = {"gamma": 2.0, "contrast": 0.5, "brightness": 0.25}
DAMAGE = {"blur": 0.5, "noise": 0.5}
STRONG = STRONG_GREY | DAMAGE | STRONG_GEOMETRY

# What changes against START, by question.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "": {"base": {}},
    "augmentation": {
        "no augmentation": NOTHING,
        "grey values only": GEOMETRY,
        "geometry only": GREY,
        "stronger geometry": STRONG_GEOMETRY,
        "stronger grey values": STRONG_GREY,
        "blur and noise": {"blur": 0.3, "noise": 0.3},
        "random erasing": {"erase": 0.5},
        "mirror": {"flip": True},
        "mixup 0.2": {"mixup": 0.2},
        "cutmix 1": {"cutmix": 1.0},
    },
    "combined": {
        "grey values, blur, noise": STRONG_GREY | DAMAGE,
        "geometry too": STRONG,
        "geometry too, rate 1e-3": STRONG | {"learning_rate": 1e-3},
        "geometry too, rate 2e-3": STRONG | {"learning_rate": 2e-3},
        "geometry and mirror too, rate 1e-3": STRONG | {"learning_rate": 1e-3, "flip": True},
        "geometry, erasing, mixup too, rate 1e-3": STRONG
        | {"learning_rate": 1e-3, "erase": 0.3, "mixup": 0.2},
    },
    "class imbalance": {
        "nothing": {"balance": "none"},
        "loss weights": {"balance": "loss"},
        "logit adjustment": {"balance": "logits"},
    },
    "loss and averaging": {"no label smoothing": {"label_smoothing": 0.0}, "no EMA": {"ema": 0.0}},
    "optimisation": {
        "learning rate 2.5e-4": {"learning_rate": 2.5e-4},
        "learning rate 1e-3": {"learning_rate": 1e-3},
        "learning rate 2e-3": {"learning_rate": 2e-3},
        "warm-up 5 %": {"warmup": 0.05},
        "constant rate": {"schedule": "constant"},
        "weight decay 0.005": {"weight_decay": 0.005},
        "weight decay 0.5": {"weight_decay": 0.5},
        "decay everything": {"decay_all": True},
        "batches of 64": {"batch_size": 64},
    },
    "size and length": {
        "64 pixels": {"side": 64},
        "160 pixels": {"side": 160},
        "4 epochs": {"epochs": 4},
        "16 epochs": {"epochs": 16},
    },
}


def _seen_from(share: float) -> Callable[[Image.Image], Image.Image]:
    """The image cut to its middle (share below 1), or smaller on black (above 1)."""

    def change(image: Image.Image) -> Image.Image:
        side = image.width
        edge = side * (1 - share) / 2
        box = (edge, edge, side - edge, side - edge)
        return image.transform(image.size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)

    return change


def _curve(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Image.Image], Image.Image]:
    table = (np.clip(function(np.arange(256) / 255), 0, 1) * 255).round().astype(int).tolist()
    return lambda image: image.point(table)


def _noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 20, (image.height, image.width))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


STRESSES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker": _curve(lambda x: x**1.7),
    "brighter": _curve(lambda x: x ** (1 / 1.7)),
    "flatter": _curve(lambda x: 0.25 + 0.5 * x),
    "equalised": ImageOps.equalize,
    "softer": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 100)),
    "noisier": _noisy,
    "closer": _seen_from(0.8),
    "farther": _seen_from(1.2),
}


def main() -> None:
    """Run the variants that have no result yet, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--models", nargs="+", default=["xray-cnn", "xray-resnet18"])
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    names = [name for variants in VARIANTS.values() for name in variants]
    parser.add_argument("--only", nargs="+", choices=names, metavar="VARIANT", help=", ".join(names))
    options = parser.parse_args()
    keep_freed_memory()
    jobs = [
        (model, name, fold, change)
        for fold in options.folds
        for model in options.models
        for variants in VARIANTS.values()
        for name, change in variants.items()
        if not options.only or name in options.only
    ]
    todo = [job for job in jobs if not is_done(options.out, *job)]
    times: list[float] = []
    for number, (model, name, fold, change) in enumerate(todo, start=1):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="ablation-") as scratch:  # checkpoints, not kept
            found = run(options.data_dir, model, fold, change, scratch)
        write_json(result_file(options.out, model, name, fold), {"variant": name, "change": change, **found})
        times.append(time.perf_counter() - started)
        left = (len(todo) - number) * sum(times) / len(times) / 60
        scores = ", ".join(f"{key} {found[key]['balanced_accuracy']:.3f}" for key in ("clean", "stressed"))
        print(f"{model}, {name}, fold {fold}: {scores}; about {left:.0f} minutes left", file=sys.stderr)
    write_tables(options.out)


def result_file(out: Path, model: str, name: str, fold: int) -> Path:
    """Where the result of a run is kept."""
    return out / model / name.replace(" ", "-") / f"fold-{fold}.json"


def configure(data_dir: Path, model: str, fold: int, change: dict[str, Any], out: str) -> Config:
    """The configuration of a variant."""
    place = {"data_dir": str(data_dir), "model": model, "seed": fold, "fold": fold, "out": out}
    return resolve({**START, **PROXY, **change, **place})


def is_done(out: Path, model: str, name: str, fold: int, change: dict[str, Any]) -> bool:
    """Whether there is a result; raises ConfigError for one of another configuration."""
    path = result_file(out, model, name, fold)
    if not path.exists():
        return False
    saved = json.loads(path.read_text(encoding="utf-8"))["config"]
    if saved != settings(configure(Path("any"), model, fold, change, "any")):
        raise ConfigError(
            f"{path} was made with other settings than {name} has now; delete it, or undo the change."
        )
    return True


def run(data_dir: Path, model: str, fold: int, change: dict[str, Any], out: str) -> dict[str, Any]:
    """Train one variant on one fold; its numbers on the fold's validation rows, and the configuration."""
    config = configure(data_dir, model, fold, change, out)
    torch.manual_seed(fold)
    network = create_model(model, pretrained=config.model.pretrained, side=config.model.side)
    data = open_data(config.data.specs, network.preprocessing.side)
    split = split_data(data, config.data.protocol, config.data.split_seed, fold=fold)
    split = replace(split, test=np.empty(0, np.int64))  # so that nothing here can look at test rows
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = make_accelerator(config)
    sources = np.asarray([sample.source for sample in data.samples])
    trainer = Trainer(
        network, data.pixels, data.labels, sources, split, config, accelerator, config.identity()
    )
    history = trainer.fit()
    return {
        "model": model,
        "fold": fold,
        "seconds": sum(row["seconds"] for row in history),
        "last": history[-1],
        "config": settings(config),
        **judge(trainer, data, split.validation),
    }


def settings(config: Config) -> dict[str, Any]:
    """The options that decide the result, without paths."""
    return {name: asdict(part) for name, part in vars(config).items() if name in SETTINGS}


def judge(trainer: Trainer, data: XrayData, rows: np.ndarray) -> dict[str, Any]:
    """Numbers of the kept weights on these rows: as they are, averaged with their mirror, under stress."""
    labels = data.labels[rows]

    def logits(view: View) -> np.ndarray:
        pixels = Viewed(data.pixels, view)
        return predict_rows(trainer.judged, trainer.network, pixels, rows, trainer.accelerator, autocast=True)

    clean, mirrored = logits(lambda images: images), logits(lambda images: images[:, :, ::-1].copy())
    stresses = {name: measure(labels, logits(partial(stressed, name=name))) for name in STRESSES}
    mean = {key: np.mean([each[key] for each in stresses.values()], axis=0).tolist() for key in MEASURED}
    return {
        "clean": measure(labels, clean),
        "with_mirror": measure(labels, (clean + mirrored) / 2),
        "stressed": mean,
        "stresses": {name: each["balanced_accuracy"] for name, each in stresses.items()},
    }


def stressed(images: np.ndarray, name: str) -> np.ndarray:
    """(N, side, side) uint8 -> same, every image changed."""
    return np.stack([np.asarray(STRESSES[name](Image.fromarray(image))) for image in images])


def measure(labels: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Accuracy, balanced accuracy and the sensitivity to each class."""
    matrix = metrics.confusion_matrix(labels, found.argmax(axis=1), found.shape[1])
    return {
        "accuracy": metrics.accuracy(matrix),
        "balanced_accuracy": metrics.balanced_accuracy(matrix),
        "sensitivity": metrics.sensitivity(matrix).tolist(),
    }


def write_tables(out: Path) -> None:
    """docs/ablations.json: every run; docs/ablations.md: mean ± sd over the folds."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/*/fold-*.json"))]
    write_json(DOCS / "ablations.json", {"proxy": PROXY, "runs": runs})
    models = sorted({run["model"] for run in runs}, reverse=True)
    write_text(DOCS / "ablations.md", "\n\n".join(of_model(runs, model) for model in models) + "\n")


def of_model(runs: list[dict[str, Any]], model: str) -> str:
    """One model's table as Markdown."""
    columns = {
        "balanced accuracy": ("clean", "balanced_accuracy"),
        "stressed": ("stressed", "balanced_accuracy"),
        "stressed, accuracy": ("stressed", "accuracy"),
        "with mirror": ("with_mirror", "balanced_accuracy"),
    }
    shipped = {**preset_values("robust", model), **PROXY, "model": model, "data_dir": "any"}
    preset = settings(resolve(shipped))
    own = [run for run in runs if run["model"] == model]
    base = {run["fold"]: score(run) for run in own if run["variant"] == "base"}
    rows = []
    for question, name in ((question, name) for question, of_it in VARIANTS.items() for name in of_it):
        if folds := [run for run in own if run["variant"] == name]:
            title = f"{question}: {name}" if question else name
            title = f"**{title}, the preset**" if folds[0]["config"] == preset else title
            cells = [mean_and_sd([run[part][key] for run in folds]) for part, key in columns.values()]
            gains = [score(run) - base[run["fold"]] for run in folds if run["fold"] in base]
            gain = mean_and_sd(gains) if name != "base" else ""
            minutes = np.mean([run["seconds"] for run in folds]) / 60
            rows.append([title, len(folds), *cells, gain, f"{minutes:.1f}"])
    return f"### {model}\n\n{markdown.rows_below(['', 'folds', *columns, 'gain', 'minutes'], rows)}"


def score(run: dict[str, Any]) -> float:
    """The number that decides between recipes."""
    return float(run["stressed"]["balanced_accuracy"])


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
