"""No test image, held-out foreign image or external X-ray takes part in anything that is fitted or chosen.

Shown twice: by the names of all images that are looked at until the weights are chosen, and by poison: with
other test images and other test labels everything that was fitted stays the same to the byte.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

import train
from xray_hf import cli, manifest
from xray_hf.data.dataset import XrayData
from xray_hf.data.pixels import PixelCache
from xray_hf.data.records import Record
from xray_hf.evaluation.predictions import Predictions
from xray_hf.labels import LABELS, SPLITS
from xray_hf.training.loop import Trainer

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64
OPTIONS = ["--model", "xray-cnn", "--side", str(SIDE), "--epochs", "4", "--batch-size", "8", "--keep", "best"]
RECIPE = [
    "--no-pretrained",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--ema",
    "0.5",
    "--learning-rate",
    "3e-3",
]


@dataclass
class Observer:
    """Knows the records of the run and which images were asked for while it fitted.

    poisoned: names of images that come as noise.
    """

    poisoned: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)
    is_fitting: bool = False
    seen: set[str] = field(default_factory=set)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Stand between every reader of pixels and the pixels."""
        gather, fit, open_data = PixelCache.gather, Trainer.fit, train.open_data

        def watched_gather(cache: PixelCache, rows: np.ndarray) -> np.ndarray:
            pixels = gather(cache, rows)
            names = [self.records[row].file_name for row in rows]
            if self.is_fitting:
                self.seen.update(names)
            for place, name in enumerate(names):
                if name in self.poisoned:
                    pixels[place] = np.random.default_rng(place).integers(0, 256, pixels[place].shape)
            return pixels

        def watched_fit(trainer: Trainer) -> Any:
            self.is_fitting = True
            try:
                return fit(trainer)
            finally:
                self.is_fitting = False

        def watched_open(*arguments: Any) -> XrayData:
            data = open_data(*arguments)
            self.records = data.records
            return data

        patch.setattr(PixelCache, "gather", watched_gather)
        patch.setattr(Trainer, "fit", watched_fit)
        patch.setattr(train, "open_data", watched_open)


def run(data_dir: Path, out: Path, observer: Observer, labels: dict[str, int] | None = None) -> Path:
    """Train as from the command line, and calibrate; labels: other classes of some. Returns the bundle."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        observer.watch(patch)
        if labels:
            split_data = train.split_data

            def poisoned_split(data: XrayData, *arguments: Any, **more: Any) -> Any:
                split = split_data(data, *arguments, **more)  # it draws within classes: of the true labels
                for place, record in enumerate(data.records):
                    data.records[place] = replace(record, label=labels.get(record.file_name, record.label))
                return split

            patch.setattr(train, "split_data", poisoned_split)
            patch.setattr(train, "fingerprint", lambda *_: "of the labels too")
        arguments = ["--data-dir", str(data_dir), "--out", str(out), *OPTIONS, *RECIPE]
        patch.setattr(sys, "argv", ["train.py", *arguments])
        train.main()
    PartialState._reset_state()
    cli.main(["export", str(out)])
    cli.main(["calibrate", str(out), "--risk", "0.99"])
    return out / "bundle"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of foreign images."""
    folder = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(0)
    for kind, size in (("noise", 1), ("blocks", 32)):
        (folder / kind).mkdir()
        for number in range(6):
            image = rng.integers(0, 256, (256 // size, 256 // size), np.uint8).repeat(size, 0).repeat(size, 1)
            Image.fromarray(image).save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(
    synthetic: Path, foreign: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Observer]:
    """A run on the synthetic patients, with its observer."""
    observer = Observer()
    bundle = run(synthetic, tmp_path_factory.mktemp("plain") / "run", observer)
    calibrate_foreign(bundle, synthetic, foreign)
    return bundle, observer


def calibrate_foreign(bundle: Path, data_dir: Path, foreign: Path) -> None:
    folders = ["--data-dir", str(data_dir), "--foreign-dir", str(foreign)]
    cli.main(["calibrate", str(bundle), "--side", str(SIDE), "--risk", "0.99", *folders])


def files_of(bundle: Path, name: str) -> set[str]:
    return set(json.loads((bundle / manifest.SPLITS).read_text())["files"][name])


def fitted(bundle: Path) -> dict[str, Any]:
    """Everything of a bundle that was fitted or chosen, without dates, times and measurements."""
    calibration = json.loads((bundle / manifest.CALIBRATION).read_text())
    del calibration["foreign_report"], calibration["fitted_on"]["date"]
    history = json.loads((bundle / manifest.TRAINING).read_text())["history"]
    timed = ("seconds", "images_per_second")
    return {
        "weights": (bundle / manifest.WEIGHTS).read_bytes(),
        "graph": (bundle / manifest.GRAPH).read_bytes(),
        "history": [{key: value for key, value in row.items() if key not in timed} for row in history],
        "calibration": calibration,
    }


def test_fitting_looks_at_all_training_and_validation_images_and_no_other(
    trained: tuple[Path, Observer],
) -> None:
    bundle, observer = trained
    files = {name: files_of(bundle, name) for name in SPLITS}
    assert observer.seen <= files["train"] | files["validation"]
    assert files["validation"] <= observer.seen
    assert len(observer.seen & files["train"]) > 0.5 * len(files["train"])  # sampling draws the most
    assert not observer.seen & files["test"]


def test_other_test_images_and_labels_change_nothing_that_was_fitted(
    trained: tuple[Path, Observer], synthetic: Path, foreign: Path, tmp_path: Path
) -> None:
    bundle, _ = trained
    test = files_of(bundle, "test")
    before = Predictions.read(bundle / manifest.PREDICTIONS)
    wrong = {
        name: (int(label) + 1) % len(LABELS)
        for name, label in zip(before.file_name, before.label, strict=True)
        if name in test
    }
    observer = Observer(poisoned=test)
    poisoned = run(synthetic, tmp_path / "run", observer, wrong)
    with pytest.MonkeyPatch.context() as patch:
        observer.watch(patch)
        calibrate_foreign(poisoned, synthetic, foreign)

    assert fitted(poisoned) == fitted(bundle)
    after = Predictions.read(poisoned / manifest.PREDICTIONS)
    changed = {
        str(name)
        for name, one, other in zip(before.file_name, before.logits, after.logits, strict=True)
        if not np.array_equal(one, other)
    }
    assert changed == test  # the poison works


def test_other_held_out_foreign_images_change_nothing_that_was_fitted(
    trained: tuple[Path, Observer], synthetic: Path, foreign: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(trained[0], tmp_path / "bundle"))
    other = Path(shutil.copytree(foreign, tmp_path / "foreign"))
    for file in sorted(other.rglob("[135].png")):
        Image.fromarray(np.full((200, 200), 77, np.uint8)).save(file)
    reports = [json.loads((bundle / manifest.CALIBRATION).read_text())["foreign_report"]]
    calibrate_foreign(bundle, synthetic, other)
    reports.append(json.loads((bundle / manifest.CALIBRATION).read_text())["foreign_report"])
    assert fitted(bundle) == fitted(trained[0])
    assert reports[0]["scores"] != reports[1]["scores"]  # the poison works


def imports_of(module: str) -> set[str]:
    """Every module of ours that a module needs, however deep, imports inside functions included."""
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name in found or not path.exists():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize(
    "fits",
    [
        "train",
        "scripts.ablate",
        "xray_hf.inference.calibrate_confidence",
        "xray_hf.inference.calibrate_foreign",
    ],
)
def test_what_fits_cannot_even_read_another_collection(fits: str) -> None:
    needed = imports_of(fits)
    assert fits in needed
    readers = {"xray_hf.data.folder", "xray_hf.inference.external", "xray_hf.inference.report"}
    assert not readers & needed
    assert readers <= imports_of("xray_hf.cli")  # the search finds them where they are used


def test_an_external_test_changes_nothing_that_was_fitted(
    trained: tuple[Path, Observer], synthetic: Path, foreign: Path, tmp_path: Path
) -> None:
    """Nor does calibrating after it differ from calibrating before."""
    bundle = Path(shutil.copytree(trained[0], tmp_path / "bundle"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = ["file_name,label"]
    for number in range(4):
        image = np.random.default_rng(number).integers(0, 256, (90, 80), np.uint8)
        Image.fromarray(image).save(elsewhere / f"{number}.png")
        rows.append(f"{number}.png,{LABELS[number % 3]}")
    (elsewhere / "labels.csv").write_text("\n".join(rows))
    cli.main(["evaluate", str(bundle), "--external", "--data-dir", str(elsewhere)])
    assert fitted(bundle) == fitted(trained[0])
    calibrate_foreign(bundle, synthetic, foreign)
    assert fitted(bundle) == fitted(trained[0])
