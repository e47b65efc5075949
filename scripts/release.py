"""Make bundles of pretrained/ from the runs of a recipe of reproduce.py: the median by validation, complete.

python scripts/release.py --data-dir data/coronahack --ood-dir data/ood --external nih=data/nih \
    --patient 'nih=^(COVID-)?[0-9]+'
python scripts/release.py --recipe multisource --data-dir data/coronahack --source folder:adults=data/adults …

`robust` makes pretrained/MODEL, `multisource` pretrained/MODEL-multisource; pass the sources of training.
It takes the median by balanced accuracy on validation (cross entropy among equals), since the best run would
be better than the recipe promises. All rows are predicted again in float32. The weights are stored in half
precision if no logit moves by more than 0.01 and no decision changes on validation and test rows. Then it
exports, calibrates, writes engine.onnx and reports.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from xray_hf import bundle, cli, manifest
from xray_hf.calibration.abstention import TARGET_RISK
from xray_hf.data.dataset import XrayData
from xray_hf.data.source_options import SourceOptions
from xray_hf.errors import ConfigError, DataError, exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_folder
from xray_hf.training.lung_crops import crop_lungs
from xray_hf.training.predict import predict_rows

MODELS = ("xray-resnet18", "xray-cnn")
RECIPES = ("robust", "multisource")
MAX_LOGIT_CHANGE = 1e-2
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose and complete a run of each model; a folder appears when it is complete."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"), help="--out of reproduce.py")
    parser.add_argument("--recipe", choices=RECIPES, default=RECIPES[0])
    parser.add_argument("--data-dir", metavar="DIR", help="short for --source coronahack=DIR")
    parser.add_argument("--source", action="append", default=[], metavar="KIND[:NAME]=PLACE")
    parser.add_argument("--ood-dir", type=Path, required=True)
    parser.add_argument("--external", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument(
        "--patient", nargs="*", default=[], metavar="NAME=REGEX", help="of --external NAME, as for evaluate"
    )
    parser.add_argument("--risk", default=str(TARGET_RISK), help="as for calibrate (default %(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args(arguments)
    if options.data_dir:
        options.source.insert(0, f"coronahack={options.data_dir}")
    options.external, options.patient = named(options.external), named(options.patient)
    if unknown := options.patient.keys() - options.external:
        raise ConfigError(
            f"--patient names {min(unknown)}, which is not an --external; expected one of them."
        )
    for model in options.models:
        name = model if options.recipe == RECIPES[0] else f"{model}-{options.recipe}"
        chosen = median(sorted(options.runs.glob(f"{options.recipe}/{model}/seed-*/bundle")))
        print(f"{name}: {chosen.parent.name}")
        with atomic_folder(PRETRAINED / name) as folder:
            shutil.copytree(chosen, folder, dirs_exist_ok=True)
            complete(folder, options)


def named(texts: Sequence[str]) -> dict[str, str]:
    """{NAME: VALUE} of NAME=VALUE each; raises ConfigError."""
    if wrong := [text for text in texts if not all(text.partition("="))]:
        raise ConfigError(f"{wrong[0]!r} lacks a name or a value; expected NAME=VALUE, as nih=data/nih.")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def median(bundles: list[Path]) -> Path:
    """The median by validation; of an even number, the worse of the middle two."""
    if not bundles:
        raise DataError("there is no finished run of this recipe; scripts/reproduce.py makes them.")

    def by_validation(folder: Path) -> tuple[float, float]:
        measured = manifest.read_json(folder / manifest.METRICS)["validation"]
        return measured["balanced_accuracy"], -measured["cross_entropy"]

    return sorted(bundles, key=by_validation)[(len(bundles) - 1) // 2]


def complete(folder: Path, options: argparse.Namespace) -> None:
    """Predict and round, export, calibrate, evaluate and report."""
    description = manifest.read(folder)
    data = SourceOptions(source=tuple(options.source), classes=description.labels).open(description.side)
    is_half = predict_and_round(folder, data)
    print(f"half precision: {'yes' if is_half else 'no, it changes what the network says'}")
    cli.main(["export", str(folder)])
    sources = [f"--source={source}" for source in options.source]
    cli.main(["calibrate", str(folder), *sources, f"--ood-dir={options.ood_dir}", f"--risk={options.risk}"])
    cli.main(["export", str(folder), "--whole"])
    for name, place in options.external.items():
        patient = [f"--patient={options.patient[name]}"] if name in options.patient else []
        cli.main(["evaluate", str(folder), "--source", f"folder:{name}={place}", *patient])
    cli.main(["report", str(folder), *sources])


def predict_and_round(folder: Path, data: XrayData) -> bool:
    """Predict all rows in float32, with weights in half precision if that changes nothing.

    Returns whether the weights are now stored so. Raises DataError if the bundle's sources are not all there.
    """
    recorded = Predictions.read(folder / manifest.PREDICTIONS)
    network = bundle.load(folder)
    row_of = {(sample.source, sample.file_name): row for row, sample in enumerate(data.samples)}
    if missing := set(recorded.source.tolist()) - {sample.source for sample in data.samples}:
        raise DataError(f"the run also has images of {', '.join(sorted(missing))}; pass --source for each.")
    rows = np.asarray([row_of[each] for each in zip(recorded.source, recorded.file_name, strict=True)])
    accelerator, pixels = Accelerator(cpu=True), data.pixels
    if network.lungs:
        side = network.preprocessing.side
        pixels = crop_lungs(network.lungs, pixels, len(data.samples), side, accelerator)

    def predictions() -> Predictions:
        logits = predict_rows(network.module, network, pixels, rows, accelerator, autocast=False)
        return replace(recorded, logits=logits)

    whole = predictions()
    bundle.round_to_half(network.module)
    half = predictions()
    has_moved = abs(half.logits - whole.logits).max() > MAX_LOGIT_CHANGE
    has_moved |= bool((half.predicted != whole.predicted)[recorded.split != "train"].any())
    if not has_moved:
        bundle.store_in_half(folder)
    # calibrate draws figures and metrics from them
    (whole if has_moved else half).write(folder / manifest.PREDICTIONS)
    return not has_moved


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
