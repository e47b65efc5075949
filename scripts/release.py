"""Make pretrained/MODEL of the runs that reproduce.py left: the median of them by validation, complete.

python scripts/release.py --data-dir data/coronahack --ood-dir data/ood --external nih=data/nih \
    --patient '^(COVID-)?[0-9]+'

The run in the middle by balanced accuracy on validation (cross entropy among equals) is taken, not the best
one, which would be better than what the recipe promises. Its weights are stored in half precision if no logit
moves by more than 0.01 and no decision changes on validation and test rows; then it is predicted with again,
exported, calibrated, and reported on.
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
from xray_hf.models import Network
from xray_hf.training.predict import predict_rows

MODELS = ("xray-resnet18", "xray-cnn")
MAX_LOGIT_CHANGE = 1e-2
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose, shrink, export, calibrate and report; each folder appears when it is complete."""
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
    """The one in the middle by validation; of an even number the worse of the two."""
    if not bundles:
        raise DataError("there is no finished run; `make reproduce` makes them.")

    def by_validation(folder: Path) -> tuple[float, float]:
        measured = manifest.read_json(folder / manifest.METRICS)["validation"]
        return measured["balanced_accuracy"], -measured["cross_entropy"]

    return sorted(bundles, key=by_validation)[(len(bundles) - 1) // 2]


def complete(folder: Path, options: argparse.Namespace) -> None:
    """Everything that a bundle of a run lacks."""
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
    """Store large weights in half precision, and what they predict; False, and nothing, where it matters."""
    before = Predictions.read(folder / manifest.PREDICTIONS)
    network = bundle.load(folder)
    bundle.round_to_half(network.module)
    after = predict(network, data, before)
    has_moved = abs(after.logits - before.logits).max() > MAX_LOGIT_CHANGE
    if has_moved or (after.predicted != before.predicted)[before.split != "train"].any():
        return False
    bundle.store_in_half(folder)
    after.write(folder / manifest.PREDICTIONS)  # of which calibrate draws the views
    return True


def predict(network: Network, data: XrayData, table: Predictions) -> Predictions:
    """The same rows, predicted by another network, in float32."""
    row_of = {(sample.source, sample.file_name): row for row, sample in enumerate(data.samples)}
    rows = np.asarray([row_of[each] for each in zip(table.source, table.file_name, strict=True)])
    accelerator = Accelerator(cpu=True)
    logits = predict_rows(network.module, network, data.pixels, rows, accelerator, autocast=False)
    return replace(table, logits=logits)


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
