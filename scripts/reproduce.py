"""Train everything that docs/results.md reports: every recipe, both models, all seeds.

python scripts/reproduce.py --data-dir data/coronahack --source folder:adults=data/adults   # hours; resumes
python scripts/reproduce.py --data-dir data/coronahack --recipes robust --seeds 0 1

paper          the paper's preset under its own protocol, which leaks
paper-grouped  the same preset under the patient-level protocol: the effect of the leak
robust         our preset, under the patient-level protocol
multisource    our preset for several sources: CoronaHack and every --source, but for --hold-out
view-VIEW      the CNN on a control view, and view-none on whole images; small: 112 pixels, 8 epochs
Each run is `train.py` in a process of its own, in runs/reproduce/RECIPE/MODEL/seed-N. ResNet18 can start from
ImageNet, as in the paper: `--out runs/imagenet`, with `--models xray-resnet18 --pretrained` to fetch the
weights or `--initial-weights FILE`, from which the CNN takes nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_hf import manifest
from xray_hf.errors import ConfigError, XrayHFError, exit_on_error
from xray_hf.training.checkpoints import CHECKPOINT_NAME
from xray_hf.training.config import parse
from xray_hf.views import VIEWS

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("xray-cnn", "xray-resnet18")
SEEDS = tuple(range(5))
# Augmentation would take away what a view has left: greys of a histogram, a border that is shifted out.
SMALL = ["--preset", "robust", "--side", "112", "--epochs", "8", "--rotate", "0", "--shift", "0"]
SMALL += ["--scale-low", "1", "--scale-high", "1", "--gamma", "1", "--contrast", "0", "--brightness", "0"]
SMALL += ["--blur", "0", "--noise", "0"]


@dataclass(frozen=True)
class Recipe:
    """Options of train.py, and the models and seeds to run them for.

    has_all_sources: whether on every --source, or only on CoronaHack.
    """

    options: list[str]
    models: tuple[str, ...] = MODELS
    seeds: tuple[int, ...] = SEEDS[:3]
    has_all_sources: bool = False


RECIPES = {
    "robust": Recipe(["--preset", "robust"], seeds=SEEDS),
    "multisource": Recipe(["--preset", "multisource"], has_all_sources=True),
    "paper": Recipe(["--preset", "paper", "--watch-test"]),
    "paper-grouped": Recipe(["--preset", "paper", "--protocol", "grouped", "--watch-test"]),
    **{
        f"view-{view}": Recipe([*SMALL, "--view", view], ("xray-cnn",), (0,))
        for view in ("none", *sorted(VIEWS))
    },
}


@dataclass(frozen=True)
class Job:
    """One training."""

    recipe: str
    model: str
    seed: int

    @property
    def options(self) -> list[str]:
        """Its options of train.py."""
        own = ["--model", self.model, "--seed", str(self.seed)]
        return ["--no-pretrained", *RECIPES[self.recipe].options, *own]

    def folder(self, out: Path) -> Path:
        """Where its run is kept."""
        return out / self.recipe / self.model / f"seed-{self.seed}"

    def is_done(self, out: Path) -> bool:
        """Whether its bundle is there."""
        return (self.folder(out) / "bundle" / manifest.METRICS).exists()

    def command(self, given: argparse.Namespace, more: list[str]) -> list[str]:
        """The options of train.py, with the data and the start that were given."""
        sources = []
        if RECIPES[self.recipe].has_all_sources:
            sources += [f"--source={source}" for source in given.source]
            sources += [f"--hold-out={name}" for name in given.hold_out]
        start = given.initial_weights if self.model == "xray-resnet18" else None
        return [
            f"--data-dir={given.data_dir}",
            *sources,
            *self.options,
            *([f"--initial-weights={start}"] if start else []),
            *more,
        ]

    def require_same(self, out: Path, command: list[str]) -> None:
        """Raise ConfigError if the finished run had other options than it would have now."""
        now, then = parse(command).as_dict(), self.training(out)["config"]
        if start := now["model"]["initial_weights"]:
            now["model"]["initial_weights"] = Path(start).name  # all that a bundle says of it
        for group in ("model", "optimization", "augmentation"):
            if now[group] != then[group]:
                raise ConfigError(
                    f"{self.folder(out)} was trained with other options than {self.recipe} has now "
                    f"({group}); move it away, or undo the change."
                )

    def training(self, out: Path) -> dict[str, Any]:
        """What its bundle says of the run."""
        return manifest.read_json(self.folder(out) / "bundle" / manifest.TRAINING)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the jobs that are not done yet, and estimate the remaining time."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog="Other options are those of train.py."
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="CoronaHack, for every recipe")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="KIND[:NAME]=PLACE",
        help="another source of the recipe multisource; repeatable",
    )
    parser.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="NAME",
        help="a --source to keep as an external set; images that share a picture with it are left out",
    )
    parser.add_argument("--initial-weights", metavar="FILE", help="initial weights of ResNet18")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    options, more = parser.parse_known_args(arguments)
    if not options.source and (
        several := [name for name in options.recipes if RECIPES[name].has_all_sources]
    ):
        raise ConfigError(
            f"the recipe {several[0]} trains on several sources, but only CoronaHack is given; pass --source "
            "KIND[:NAME]=PLACE for each of the others, or choose other --recipes."
        )
    jobs = [
        Job(name, model, seed)
        for name in options.recipes
        for seed in RECIPES[name].seeds
        for model in RECIPES[name].models
        if seed in options.seeds and model in options.models
    ]
    for number, job in enumerate(jobs, start=1):
        if job.is_done(options.out):
            job.require_same(options.out, job.command(options, more))
            continue
        print(f"run {number} of {len(jobs)}: {job}; {left(jobs, options.out)}", file=sys.stderr)
        train(job, options.out, job.command(options, more))


def train(job: Job, out: Path, options: list[str]) -> None:
    """Train, or go on with it; raises XrayHFError if train.py ends with an error."""
    folder = job.folder(out)
    command = [sys.executable, str(ROOT / "train.py"), *options, f"--out={folder}", "--resume"]
    started = time.perf_counter()
    code = subprocess.run(command, check=False).returncode
    if code:
        raise XrayHFError(f"{' '.join(command)} ended with exit code {code}; fix the cause and start again.")
    (folder / CHECKPOINT_NAME).unlink()  # 180 MB that a finished run does not need
    print(f"{job}: {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


def left(jobs: list[Job], out: Path) -> str:
    """The time that the open jobs will take, by the finished ones of the same recipe and model."""
    minutes, unknown = 0.0, 0
    for job in (job for job in jobs if not job.is_done(out)):
        kind = (job.recipe, job.model)
        alike = [own for own in jobs if (own.recipe, own.model) == kind and own.is_done(out)]
        seconds = [own.training(out)["seconds"] for own in alike]
        minutes += sum(seconds) / len(seconds) / 60 if seconds else 0
        unknown += not seconds
    parts = [f"about {minutes:.0f} minutes left"] if minutes or not unknown else []
    parts += [f"{unknown} runs of a kind that has not been timed yet"] if unknown else []
    return " and ".join(parts)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
