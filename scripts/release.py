"""Make pretrained/MODEL from the runs of reproduce.py: the median by validation, complete.

python scripts/release.py --data-dir data/coronahack --ood-dir data/ood --external nih=data/nih \
    --patient '^(COVID-)?[0-9]+'

It takes the median by balanced accuracy on validation (cross entropy among equals), since the best run would
be better than the recipe promises. It stores the weights in half precision if no logit moves by more than
0.01 and no decision changes on validation and test rows. Then it exports, calibrates and reports.
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
from xray_hf.data.dataset import XrayData, open_data
from xray_hf.data.sources import parse_specs
from xray_hf.errors import DataError, exit_on_error
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_folder
from xray_hf.training.lung_crops import crop_lungs
from xray_hf.training.predict import predict_rows

MODELS = ("xray-resnet18", "xray-cnn")
MAX_LOGIT_CHANGE = 1e-2
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose and complete a run of each model; a folder appears when it is complete."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce/robust"))
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ood-dir", type=Path, required=True)
    parser.add_argument("--external", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--patient", metavar="REGEX", help="as of xray-hf evaluate")
    parser.add_argument("--risk", default=str(TARGET_RISK), help="as of calibrate (default %(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args(arguments)
    for model in options.models:
        chosen = median(sorted(options.runs.glob(f"{model}/seed-*/bundle")))
        print(f"{model}: {chosen.parent.name}")
        with atomic_folder(PRETRAINED / model) as folder:
            shutil.copytree(chosen, folder, dirs_exist_ok=True)
            complete(folder, options)


def median(bundles: list[Path]) -> Path:
    """The median by validation; of an even number, the worse of the middle two."""
    if not bundles:
        raise DataError("there is no finished run; `make reproduce` makes them.")

    def by_validation(folder: Path) -> tuple[float, float]:
        measured = manifest.read_json(folder / manifest.METRICS)["validation"]
        return measured["balanced_accuracy"], -measured["cross_entropy"]

    return sorted(bundles, key=by_validation)[(len(bundles) - 1) // 2]


def complete(folder: Path, options: argparse.Namespace) -> None:
    """Shrink, export, calibrate, evaluate and report."""
    side = manifest.read(folder).side
    data = open_data(parse_specs([f"coronahack={options.data_dir}"]), side)
    print(f"half precision: {'yes' if shrink(folder, data) else 'no, it changes what the network says'}")
    cli.main(["export", str(folder)])
    data_options = ["--data-dir", str(options.data_dir), "--side", str(side)]
    ood = ["--ood-dir", str(options.ood_dir), "--risk", options.risk]
    cli.main(["calibrate", str(folder), *data_options, *ood])
    for external in options.external:
        name, _, place = external.partition("=")
        patient = ["--patient", options.patient] if options.patient else []
        cli.main(["evaluate", str(folder), "--source", f"folder:{name}={place}", *patient])
    cli.main(["report", str(folder), *data_options])


def shrink(folder: Path, data: XrayData) -> bool:
    """Store large weights in half precision, and their predictions; False, and nothing, if it matters."""
    before = Predictions.read(folder / manifest.PREDICTIONS)
    network = bundle.load(folder)
    bundle.round_to_half(network.module)
    row_of = {(sample.source, sample.file_name): row for row, sample in enumerate(data.samples)}
    rows = np.asarray([row_of[each] for each in zip(before.source, before.file_name, strict=True)])
    accelerator, pixels = Accelerator(cpu=True), data.pixels
    if network.lungs:
        side = network.preprocessing.side
        pixels = crop_lungs(network.lungs, pixels, len(data.samples), side, accelerator)
    logits = predict_rows(network.module, network, pixels, rows, accelerator, autocast=False)
    after = replace(before, logits=logits)
    has_moved = abs(after.logits - before.logits).max() > MAX_LOGIT_CHANGE
    if has_moved or (after.predicted != before.predicted)[before.split != "train"].any():
        return False
    bundle.store_in_half(folder)
    after.write(folder / manifest.PREDICTIONS)  # calibrate draws figures and metrics from them
    return True


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
