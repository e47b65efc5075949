"""No test image, held-out OOD image or external X-ray takes part in anything that is fitted or chosen.

Shown twice: by the names of all images that are looked at until the weights are chosen, and by poison: with
other files and labels in their place everything that was fitted or chosen stays the same to the byte.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_sets import KNOWN_PICTURE
from PIL import Image, ImageOps
from running import run_training, without_figures

from xray_hf import cli, manifest
from xray_hf.data.cache import Joined, prepare
from xray_hf.data.dataset import read_samples
from xray_hf.data.groups import near_duplicates
from xray_hf.data.sample import Sample
from xray_hf.data.sources import parse_specs
from xray_hf.data.sources.coronahack import CSV_NAME
from xray_hf.data.synthetic import sample_images
from xray_hf.evaluation.predictions import Predictions
from xray_hf.task import PAPER_CLASSES, SPLITS
from xray_hf.training import run
from xray_hf.training.loop import Trainer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64
RISK = "0.1"  # at which some validation rows are answered and some are not
CELLS = (
    ("Normal", ""),
    ("Pnemonia", ""),
    ("Pnemonia", "COVID-19"),
)  # the CSV's, in the classes' order
OPTIONS = [
    *("--model", "xray-cnn", "--side", str(SIDE), "--device", "cpu", "--precision", "fp32"),
    *("--epochs", "4", "--batch-size", "8", "--learning-rate", "3e-3", "--ema", "0.5"),
    *("--keep", "best", "--patience", "2"),
]


def train_on(data_dir: Path, out: Path, *options: str) -> Path:
    """Train on CoronaHack's layout as from the command line; returns the bundle."""
    run_training("--data-dir", data_dir, "--out", out, *OPTIONS, *options, draws=False)
    return out / "bundle"


def calibrate(bundle: Path, data_dir: Path, ood: Path) -> None:
    folders = ["--data-dir", str(data_dir), "--ood-dir", str(ood)]
    with without_figures():
        cli.main(["calibrate", str(bundle), "--side", str(SIDE), "--risk", RISK, *folders])


@contextmanager
def names_seen_in_fitting() -> Iterator[set[str]]:
    """The names of all files that are opened and images that the cache gives until the weights are chosen."""
    seen: set[str] = set()
    names: list[str] = []  # of the cache's rows
    fitting: list[Trainer] = []
    open_sources, gather, fit = run.open_sources, Joined.gather, Trainer.fit

    def watched_open(*arguments: Any) -> Any:
        data = open_sources(*arguments)
        names.extend(sample.file_name for sample in data.samples)
        return data

    def watched_gather(joined: Joined, rows: np.ndarray) -> np.ndarray:
        if fitting:
            seen.update(names[row] for row in rows)
        return gather(joined, rows)

    def watched_fit(trainer: Trainer) -> Any:
        fitting.append(trainer)
        try:
            return fit(trainer)
        finally:
            fitting.clear()

    def watch_files(event: str, arguments: tuple[Any, ...]) -> None:
        if fitting and event == "open":
            seen.add(Path(str(arguments[0])).name)

    sys.addaudithook(
        watch_files
    )  # whoever opens a file; it cannot be taken away, but then nothing is fitting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_sources", watched_open)
        patch.setattr(Joined, "gather", watched_gather)
        patch.setattr(Trainer, "fit", watched_fit)
        yield seen


@pytest.fixture(scope="module")
def ood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of OOD images."""
    folder = tmp_path_factory.mktemp("ood")
    rng = np.random.default_rng(0)
    for kind, size in (("noise", 1), ("blocks", 32)):
        (folder / kind).mkdir()
        for number in range(6):
            image = rng.integers(0, 256, (256 // size, 256 // size), np.uint8).repeat(size, 0).repeat(size, 1)
            Image.fromarray(image).save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(synthetic: Path, ood: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A run on the synthetic patients, calibrated, and the names of what it looked at."""
    with names_seen_in_fitting() as seen:
        bundle = train_on(synthetic, tmp_path_factory.mktemp("plain") / "run")
    cli.main(["export", str(bundle)])
    calibrate(bundle, synthetic, ood)
    return bundle, seen


@pytest.fixture(scope="module")
def poisoned(
    trained: tuple[Path, set[str]], synthetic: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same patients; every test image is noise on disk, for whoever reads it, and of another class.

    It is one picture, so that all get the same answer: a third is right after every epoch, the first is best.
    """
    folder = Path(shutil.copytree(synthetic, tmp_path_factory.mktemp("poisoned") / "data"))
    test = Predictions.read(trained[0] / manifest.PREDICTIONS).select("test")
    wrong = dict(zip(test.file_name.tolist(), np.roll(CELLS, -1, axis=0)[test.label].tolist(), strict=True))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8))
    for file in folder.rglob("*.jpeg"):
        if file.name in wrong:
            noise.save(file)
    with (folder / CSV_NAME).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if cells := wrong.get(row["X_ray_image_name"]):
            row["Label"], row["Label_2_Virus_category"] = cells
    with (folder / CSV_NAME).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def files_of(bundle: Path, name: str) -> set[str]:
    """The names of a split's files, which no two sources here share."""
    of_sources = json.loads((bundle / manifest.SPLITS).read_text())["files"][name]
    return {file for own in of_sources.values() for file in own}


def history_of(bundle: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((bundle / manifest.TRAINING).read_text())["history"]
    return rows


def fitted(bundle: Path) -> dict[str, Any]:
    """Everything of a bundle that was fitted or chosen, without dates, times and measurements."""
    calibration = json.loads((bundle / manifest.CALIBRATION).read_text())
    del calibration["ood_report"], calibration["fitted_on"]["date"]
    measured = ("seconds", "images_per_second", "test_")
    return {
        "weights": (bundle / manifest.WEIGHTS).read_bytes(),
        "graph": (bundle / manifest.GRAPH).read_bytes(),
        "history": [
            {key: value for key, value in row.items() if not key.startswith(measured)}
            for row in history_of(bundle)
        ],
        "calibration": calibration,
    }


def test_fitting_looks_at_all_training_and_validation_images_and_no_other(
    trained: tuple[Path, set[str]],
) -> None:
    bundle, seen = trained
    files = {name: files_of(bundle, name) for name in SPLITS}
    assert files["validation"] <= seen
    assert len(seen & files["train"]) > 0.5 * len(files["train"])  # sampling draws the most
    assert not seen & files["test"]


def test_other_test_images_and_labels_change_nothing_that_was_fitted(
    trained: tuple[Path, set[str]], poisoned: Path, ood: Path, tmp_path: Path
) -> None:
    """Not even where the test rows are watched, by which another epoch would be the best."""
    bundle, _ = trained
    again = train_on(poisoned, tmp_path / "run", "--splits", str(bundle / manifest.SPLITS), "--watch-test")
    cli.main(["export", str(again)])
    calibrate(again, poisoned, ood)
    assert fitted(again) == fitted(bundle)

    # The poison works, and the threshold could have moved.
    assert 0 < fitted(bundle)["calibration"]["abstain_below"] < 1
    history = history_of(again)
    best = {name: max(history, key=lambda row: row[f"{name}_balanced_accuracy"]) for name in SPLITS[1:]}
    assert best["validation"] != best["test"]
    before, after = (Predictions.read(folder / manifest.PREDICTIONS) for folder in (bundle, again))
    for is_changed in ((before.logits != after.logits).all(axis=1), before.label != after.label):
        assert set(before.file_name[is_changed]) == files_of(bundle, "test")


@pytest.mark.parametrize("balance", ["loss", "logits"])
def test_classes_are_balanced_by_training_labels_alone(
    trained: tuple[Path, set[str]], synthetic: Path, poisoned: Path, tmp_path: Path, balance: str
) -> None:
    options = ["--splits", str(trained[0] / manifest.SPLITS), "--balance", balance, "--epochs", "1"]
    runs = [train_on(folder, tmp_path / folder.name, *options) for folder in (synthetic, poisoned)]
    assert len({(bundle / manifest.WEIGHTS).read_bytes() for bundle in runs}) == 1


def test_other_held_out_ood_images_change_nothing_that_was_fitted(
    trained: tuple[Path, set[str]], synthetic: Path, ood: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(trained[0], tmp_path / "bundle"))
    other = Path(shutil.copytree(ood, tmp_path / "ood"))
    for file in sorted(other.rglob("[135].png")):
        Image.fromarray(np.full((200, 200), 77, np.uint8)).save(file)
    reports = [json.loads((bundle / manifest.CALIBRATION).read_text())["ood_report"]]
    calibrate(bundle, synthetic, other)
    reports.append(json.loads((bundle / manifest.CALIBRATION).read_text())["ood_report"])
    assert fitted(bundle) == fitted(trained[0])
    assert reports[0]["scores"] != reports[1]["scores"]  # the poison works


def modules_of(name: str) -> set[str]:
    """Every module of ours that one needs, however deep, packages and imports inside functions included."""
    finder = ModuleFinder([str(ROOT), str(ROOT / "scripts")])
    finder.import_hook(name)
    return set(finder.modules)


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of 60 images, one a patient; 15 of `second` are those of `first`, reprocessed."""
    folder = tmp_path_factory.mktemp("sources")
    drawn = sample_images(53, seed=7)[:105]
    for name, own in (("first", drawn[:60]), ("second", [*drawn[:15], *drawn[60:105]])):
        (folder / name).mkdir()
        rows = ["file_name,label"]
        for number, (_, image) in enumerate(own):
            if name == "second":
                image = ImageOps.expand(image.point([round(255 * (k / 255) ** 1.5) for k in range(256)]), 6)
            image.save(folder / name / f"{name}-{number:02}.jpeg", quality=70)
            # The atlas draws class after class; every third image is the finding that is learnt here.
            rows.append(f"{name}-{number:02}.jpeg,{('Normal', 'Normal', 'Tuberculosis')[number % 3]}")
        (folder / name / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("held_out", ["", "first", "second"])
def test_of_two_sources_nothing_in_test_or_held_out_is_looked_at_nor_its_twin(
    two_sources: Path, tmp_path: Path, held_out: str
) -> None:
    sources = [f"--source=folder:{name}={two_sources / name}" for name in ("first", "second")]
    hold_out = ["--hold-out", held_out] if held_out else []
    options = ["--model", "xray-cnn", "--side", "64", "--epochs", "2", "--device", "cpu", *hold_out]
    with names_seen_in_fitting() as seen:
        run_training(*sources, *options, "--out", tmp_path / "run", draws=False)
    bundle = tmp_path / "run" / "bundle"
    unseen = files_of(bundle, "test") | (files_of(bundle, "external") if held_out else set())
    assert len(unseen) > 20
    assert files_of(bundle, "validation") <= seen
    assert not seen & unseen
    twins = {f"first-{number:02}.jpeg": f"second-{number:02}.jpeg" for number in range(15)}
    pairs = {**twins, **{other: name for name, other in twins.items()}}
    assert not seen & {pairs[name] for name in unseen if name in pairs}
    if held_out:
        assert files_of(bundle, "external") == {f"{held_out}-{number:02}.jpeg" for number in range(60)}
        assert held_out in json.loads((bundle / manifest.METRICS).read_text())["external"]


@pytest.mark.parametrize(
    "fits",
    [
        "xray_hf.training.run",
        "ablate",
        "xray_hf.calibration.fit",
        "xray_hf.calibration.fit_ood",
    ],
)
def test_what_fits_cannot_even_read_another_collection(fits: str) -> None:
    readers = {"xray_hf.inference.evaluate", "xray_hf.inference.report"}
    assert not readers & modules_of(fits)
    assert readers <= modules_of("xray_hf.cli")  # the search finds them where they are used


EXTERNAL = ("sources/spain_twitter", "sources/openist", "external_nih_figure1")
# How many pictures an external set shares with a training source, which runs that hold it out do not use.
SHARED = {
    ("spain_twitter", "radiography"): 4,
    ("external_nih_figure1", "radiography"): 5,
    ("external_nih_figure1", "thorax_scan"): 2,
    ("external_nih_figure1", "web_covid"): 6,
}
TRAINED_ON = ("sources/radiography", "sources/thorax_scan", "sources/web_covid")


def read_folder(folder: Path) -> list[Sample]:
    """The labelled images of a folder; skips the test where it is missing."""
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return read_samples(parse_specs([f"folder:{folder.name}={folder}"]), classes=PAPER_CLASSES)[0]


@pytest.fixture(scope="module")
def external(real_data: Path) -> list[Sample]:
    """Every image of the external sets."""
    return [sample for name in EXTERNAL for sample in read_folder(real_data.parent / name)]


@pytest.fixture(scope="module")
def sources(real_data: Path) -> list[Sample]:
    """Every image of the training sources."""
    others = [sample for name in TRAINED_ON for sample in read_folder(real_data.parent / name)]
    return read_samples(parse_specs([f"coronahack={real_data}"]))[0] + others


@pytest.fixture(scope="module")
def shared(external: list[Sample], sources: list[Sample]) -> list[tuple[Sample, Sample]]:
    """Pictures that an external set shares with a training source."""
    thumbnails, found = prepare(external, 32).thumbnails, []
    for start in range(0, len(sources), 2500):  # since time grows with the square
        part = sources[start : start + 2500]
        pairs = near_duplicates(np.concatenate([thumbnails, prepare(part, 32).thumbnails]))
        found += [(external[i], part[j - len(external)]) for i, j in pairs if i < len(external) <= j]
    return found


@pytest.mark.exhaustive
@pytest.mark.real
def test_external_sets_share_no_name_or_patient_with_the_sources_and_few_pictures(
    external: list[Sample], sources: list[Sample], shared: list[tuple[Sample, Sample]]
) -> None:
    for what in ("file_name", "patient_id"):
        assert not {getattr(each, what) for each in external} & {getattr(each, what) for each in sources}
    assert Counter((one.source, other.source) for one, other in shared) == SHARED  # as provenance.py says


@pytest.mark.exhaustive
@pytest.mark.real
def test_no_shipped_bundle_was_trained_chosen_or_tested_on_an_external_set_or_a_picture_of_it(
    external: list[Sample], shared: list[tuple[Sample, Sample]]
) -> None:
    bundles = sorted((ROOT / "pretrained").iterdir())
    assert len(bundles) >= 2
    used = [pair for pair in shared if (pair[0].source, pair[0].file_name) != KNOWN_PICTURE]
    assert len(used) == len(shared) - 1  # this one is in no external set that was reported on
    for bundle in bundles:
        table = Predictions.read(bundle / manifest.PREDICTIONS)
        own = table.take(np.isin(table.split, SPLITS))
        assert len(own) > 5000
        assert not {sample.file_name for sample in external} & set(own.file_name.tolist()), bundle.name
        rows = set(zip(own.source.tolist(), own.file_name.tolist(), strict=True))
        assert not {(other.source, other.file_name) for _, other in used} & rows, bundle.name
        assert len(Predictions.read(bundle / manifest.EXTERNAL / "spain_twitter.parquet")) == 113


def test_an_external_test_changes_nothing_that_was_fitted(
    trained: tuple[Path, set[str]], synthetic: Path, ood: Path, tmp_path: Path
) -> None:
    """Nor does calibrating after it differ from calibrating before."""
    bundle = Path(shutil.copytree(trained[0], tmp_path / "bundle"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = ["file_name,label"]
    for number in range(4):
        image = np.random.default_rng(number).integers(0, 256, (90, 80), np.uint8)
        Image.fromarray(image).save(elsewhere / f"{number}.png")
        rows.append(f"{number}.png,{PAPER_CLASSES[number % 3]}")
    (elsewhere / "labels.csv").write_text("\n".join(rows))
    cli.main(["evaluate", str(bundle), "--external", "--data-dir", str(elsewhere)])
    assert fitted(bundle) == fitted(trained[0])
    calibrate(bundle, synthetic, ood)
    assert fitted(bundle) == fitted(trained[0])
