"""Compare recipes for several sources: train without some of them, judge on these.

python scripts/ablate_sources.py --source coronahack=A --source folder:clinic=B --hold-out clinic  # resumes
python scripts/ablate_sources.py … --hold-out clinic+web ward --only base "whole image" --seeds 0 1 2

Pooled validation rewards a network that recognises the hospital. Here a recipe is judged on sources that it
has not seen, one or, joined by +, several at a time: the AUROC of two classes by the difference of their
logits. Where they have one class, its sensitivity counts. Test images of other sources are never looked at.
Each run is scripts/train_variant.py with a proxy of the preset in a process of its own; other options are
train.py's. Results: one JSON a run in --out, and a table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from xray_hf import manifest
from xray_hf.errors import ConfigError, XrayHFError, exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.report import markdown
from xray_hf.report.numbers import mean_and_sd

ROOT = Path(__file__).resolve().parent.parent
PROXY = ["--preset", "multisource", "--epochs", "1"]
# What changes against the proxy: options of train.py.
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "whole image": ["--crop", "none"],
    "twice as long": ["--epochs", "2"],
    "four times as long": ["--epochs", "4"],
    "rate 1e-4": ["--learning-rate", "1e-4"],
    "rate 1e-3": ["--learning-rate", "1e-3"],
    "no label smoothing": ["--label-smoothing", "0"],
    "mirror": ["--flip"],
    "mixup 0.2": ["--mixup", "0.2"],
    "cutmix 1": ["--cutmix", "1"],
    "random erasing": ["--erase", "0.5"],
    "gamma 3, contrast 0.7": ["--gamma", "3", "--contrast", "0.7"],
}
# The same in options of train_variant.py.
CHANGES: dict[str, list[str]] = {
    "re-encoded, sharpened, marked, collimated": ["--more-augmentation"],
    "lungs masked": ["--view", "masked"],
    "head first": ["--epochs", "2", "--probe", "1"],
    "flattened": ["--view", "flattened"],
    "equalised": ["--view", "equalised"],
    "CLAHE": ["--view", "clahe"],
    "group DRO": ["--penalty", "dro", "--strength", "0.01"],
    "V-REx": ["--penalty", "vrex"],
    "CORAL": ["--penalty", "coral"],
    "reversed source head": ["--penalty", "dann", "--strength", "0.3"],
    "layer decay 0.6": ["--layer-decay", "0.6"],
}


@dataclass(frozen=True)
class Job:
    """One training.

    held_out: names of sources, joined by +. given: the options of train.py that all trainings have.
    """

    variant: str
    held_out: str
    seed: int
    given: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """Its options of train.py."""
        held_out = [f"--hold-out={name}" for name in self.held_out.split("+")]
        return [*PROXY, *self.given, *VARIANTS.get(self.variant, ()), *held_out, "--seed", str(self.seed)]

    @property
    def command(self) -> list[str]:
        """Its options of train_variant.py."""
        return [*CHANGES.get(self.variant, ()), *self.options]

    def result(self, out: Path) -> Path:
        """Where its numbers are kept."""
        return out / self.variant.replace(" ", "-") / f"{self.held_out}-seed-{self.seed}.json"

    def is_done(self, out: Path) -> bool:
        """Whether there are numbers; raises ConfigError for those of other options."""
        path = self.result(out)
        if path.exists() and manifest.read_json(path)["options"] != self.command:
            raise ConfigError(f"{path} was made with other options than now; delete it, or undo the change.")
        return path.exists()


def main() -> None:
    """Run the jobs that have no result yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--hold-out", nargs="+", required=True, metavar="NAME[+NAME]", help="sources to judge on"
    )
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *CHANGES], metavar="VARIANT")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/sources"))
    options, given = parser.parse_known_args()
    jobs = [
        Job(variant, held_out, seed, tuple(given))
        for seed in options.seeds
        for held_out in options.hold_out
        for variant in options.only or [*VARIANTS, *CHANGES]
    ]
    todo = [job for job in jobs if not job.is_done(options.out)]
    started = time.perf_counter()
    for number, job in enumerate(todo, start=1):
        write_json(job.result(options.out), run(job))
        left = (time.perf_counter() - started) / number * (len(todo) - number) / 60
        print(
            f"{job.variant} without {job.held_out}, seed {job.seed}; {left:.0f} minutes left", file=sys.stderr
        )
    print(as_table([manifest.read_json(job.result(options.out)) for job in jobs]))


def run(job: Job) -> dict[str, Any]:
    """Train and judge; raises XrayHFError if the training ends with an error."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sources-") as scratch:
        script = str(ROOT / "scripts" / "train_variant.py")
        command = [sys.executable, script, *job.command, "--out", f"{scratch}/run"]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if code:
            raise XrayHFError(
                f"{' '.join(command)} ended with exit code {code}; fix the cause and start again."
            )
        predictions = Predictions.read(Path(scratch, "run", "bundle", manifest.PREDICTIONS))
    return {
        "variant": job.variant,
        "held_out": job.held_out,
        "seed": job.seed,
        "options": job.command,
        "seconds": time.perf_counter() - started,
        "unseen": judge(predictions.select(manifest.EXTERNAL)),
        "validation": {
            source: judge(part) for source, part in predictions.select("validation").by_source().items()
        },
    }


def judge(part: Predictions) -> dict[str, Any]:
    """Numbers of one source: AUROC of each two classes, and what share of each class is called what."""
    return {
        "auroc": dict(contrasts(part)),
        "called": {
            name: {
                other: float((part.predicted[part.label == k] == j).mean())
                for j, other in enumerate(part.classes)
            }
            for k, name in enumerate(part.classes)
            if (part.label == k).any()
        },
    }


def contrasts(part: Predictions) -> Iterator[tuple[str, float]]:
    """(classes, AUROC by the difference of their logits) of each two classes that the images have."""
    for one, other in combinations(np.unique(part.label).tolist(), 2):
        own = np.isin(part.label, (one, other))
        difference = part.logits[own, other] - part.logits[own, one]
        title = f"{part.classes[other]} against {part.classes[one]}"
        yield title, float(roc_auc_score(part.label[own] == other, difference))


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """A row a variant: its AUROCs, or a single class's sensitivity, on each held-out source, mean and sd."""
    columns: dict[str, None] = {}
    cells: dict[str, dict[str, list[float]]] = {}
    for result in results:
        for title, number in _headline(result["unseen"]):
            column = f"{result['held_out']}: {title}"
            columns[column] = None
            cells.setdefault(result["variant"], {}).setdefault(column, []).append(number)
    rows = []
    for variant, own in cells.items():
        numbers = [mean_and_sd(own[column]) if column in own else "" for column in columns]
        rows.append([variant, max(map(len, own.values())), *numbers])
    return markdown.rows_below(["", "seeds", *columns], rows)


def _headline(unseen: dict[str, Any]) -> Iterator[tuple[str, float]]:
    yield from unseen["auroc"].items()
    if len(unseen["called"]) == 1:
        for name, called in unseen["called"].items():
            yield f"{name} found", called[name]


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
