"""An external test leaves a record and its views, and changes nothing else of a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import without_figures

from xray_hf import cli, evidence, manifest
from xray_hf.data.dataset import read_samples
from xray_hf.data.sources import SourceSpec
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import BundleError, ConfigError, DataError
from xray_hf.evaluation import decisions
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import share_interval
from xray_hf.files import write_json
from xray_hf.inference import Engine
from xray_hf.inference.evaluate import evaluate
from xray_hf.task import PAPER_CLASSES, REJECTED, UNSURE

pytestmark = pytest.mark.slow

FLAT = 6  # the row of an image that the engine refuses


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Figures take longer than all else."""
    with without_figures():
        yield


@pytest.fixture
def folder(cnn_bundle: Path, tmp_path: Path) -> Path:
    """A bundle with a record of its own."""
    folder = Path(shutil.copytree(cnn_bundle, tmp_path / "bundle"))
    table_of(list("abc"), "test", [0, 1, 2], [0, 1, 2]).write(folder / manifest.PREDICTIONS)
    return folder


def table_of(
    names: list[str],
    splits: str | list[str],
    labels: list[int],
    called: list[int],
    source: str | list[str] = "own",
) -> Predictions:
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=np.asarray(names),
        source=np.asarray(source),
        patient_id=np.asarray(names),
        split=np.asarray(splits),
        label=np.asarray(labels),
        logits=np.eye(3, dtype=np.float32)[called],
    )


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Two X-rays of each class and one uniform image, in imagefolder form."""
    root = tmp_path / "elsewhere"
    (root / "images").mkdir(parents=True)
    rows = ["file_name,label,patient_id"]
    for number, (label, image) in enumerate(sample_images(2, seed=1)):
        image.save(root / "images" / f"{number}.png")
        rows.append(f"{number}.png,{label},p{number // 2}")
    Image.fromarray(np.full((200, 200), 90, np.uint8)).save(root / "images" / f"{FLAT}.png")
    rows.append(f"{FLAT}.png,Normal,p9")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def see(bundle: Path, images: Path, name: str) -> Predictions:
    """Evaluate on a folder; the record."""
    samples, *_ = read_samples((SourceSpec("folder", name, str(images)),), classes=PAPER_CLASSES)
    assert evaluate(bundle, samples, name) == {}
    return Predictions.read(bundle / "external" / f"{name}.parquet")


def run(folder: Path, *options: object) -> None:
    cli.main(["evaluate", str(folder), *map(str, options)])


def validate(folder: Path, images: Path, name: str = "elsewhere", *options: object) -> None:
    """Evaluate on a folder by the command."""
    run(folder, "--source", f"folder:{name}={images}", *options)


def test_the_record_holds_what_the_engine_says(folder: Path, elsewhere: Path) -> None:
    record = see(folder, elsewhere, "here")
    engine = Engine.from_pretrained(folder)
    found = [engine.predict(elsewhere / "images" / f"{number}.png") for number in range(FLAT + 1)]
    assert record.decision.tolist() == [each.decision for each in found]
    assert record.decision[FLAT] == REJECTED
    np.testing.assert_allclose(record.logits, [each.logits for each in found], rtol=1e-4)
    np.testing.assert_allclose(
        record.probabilities, [list(each.probabilities.values()) for each in found], rtol=1e-4
    )
    assert record.label.tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert (set(record.split), set(record.source)) == ({"external"}, {"here"})


def test_nothing_but_external_and_the_views_changes(
    folder: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder)
    capsys.readouterr()
    before = files_of(folder)
    validate(folder, elsewhere, "there")
    after = files_of(folder)
    assert {name for name in after if before.get(name) != after[name]} == {
        "external/there.parquet", "metrics.json", "figures/confusion_external_there.png",
    }  # fmt: skip
    assert before.keys() < after.keys()
    numbers = json.loads(after["metrics.json"])
    there = numbers.pop("external")["there"]
    assert numbers == json.loads(before["metrics.json"])
    assert (there["n"], there["patients"]) == (7, 4)
    assert there["decisions"]["not_decided"] == {REJECTED: 1 / 7}
    assert there["decisions"]["decided"] == 6
    printed = capsys.readouterr().out
    assert "SYNTHETIC patients" in printed
    assert "\nthere  " in printed
    assert "gives a class to 6 of 7" in printed


def test_a_second_test_stands_beside_the_first_and_a_repeated_one_replaces_it(
    folder: Path, elsewhere: Path
) -> None:
    validate(folder, elsewhere)
    first = files_of(folder)
    validate(folder, elsewhere)
    assert files_of(folder) == first
    validate(folder, elsewhere, "second")
    assert list(evidence.draw(folder)["external"]) == ["elsewhere", "second"]


@pytest.mark.usefixtures("undrawn")
def test_patients_of_the_file_names_renew_the_record(folder: Path, elsewhere: Path) -> None:
    csv = elsewhere / "labels.csv"
    rows = [line.split(",")[:2] for line in csv.read_text().splitlines()]
    csv.write_text("\n".join(",".join(row) for row in rows))
    patients = []
    for options in ([], ["--patient", "[.]png"]):  # of the latter all are one
        validate(folder, elsewhere, "elsewhere", *options)
        patients.append(evidence.draw(folder)["external"]["elsewhere"]["patients"])
    assert patients == [7, 1]
    before = files_of(folder)
    with pytest.raises(ConfigError, match="has 1 patient, but the same images would now have 7"):
        see(folder, elsewhere, "elsewhere")
    assert files_of(folder) == before


def another_image(root: Path) -> None:
    shutil.copy(root / "images" / "5.png", root / "images" / "0.png")


def another_label(root: Path) -> None:
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("0.png,Normal", "0.png,COVID-19"))


def one_more(root: Path) -> None:
    shutil.copy(root / "images" / "5.png", root / "images" / "7.png")
    with (root / "labels.csv").open("a") as stream:
        stream.write("\n7.png,Normal,p8")


@pytest.mark.parametrize("change", [another_image, another_label, one_more])
def test_a_record_of_other_images_is_not_replaced(
    folder: Path, elsewhere: Path, change: Callable[[Path], None]
) -> None:
    validate(folder, elsewhere)
    before = files_of(folder)
    change(elsewhere)
    with pytest.raises(
        ConfigError, match=r"elsewhere\.parquet has other images .*: 7 images, now .* --source KIND:NAME"
    ):
        validate(folder, elsewhere)
    assert files_of(folder) == before
    validate(folder, elsewhere, "other")


def test_a_damaged_record_can_be_replaced(folder: Path, elsewhere: Path) -> None:
    validate(folder, elsewhere)
    before = files_of(folder)
    (folder / "external" / "elsewhere.parquet").write_bytes(b"half")
    validate(folder, elsewhere)
    assert files_of(folder) == before


def test_what_is_unsure_counts_as_not_decided(folder: Path, elsewhere: Path) -> None:
    write_json(folder / manifest.CALIBRATION, {"abstain_below": 1.0})
    found = decisions.describe(see(folder, elsewhere, "here"), manifest.calibration_mark(folder))
    assert found is not None
    assert found["not_decided"] == {REJECTED: 1 / 7, UNSURE: 6 / 7}
    assert (found["decided"], found["accuracy_of_decided"]) == (0, None)
    assert found["intervals"] == {"accuracy_of_decided": None}
    for label, shares in found["by_class"].items():
        assert {shares[answer] for answer in PAPER_CLASSES} == {0}, label


def test_accuracy_of_decided_leaves_the_refused_out() -> None:
    table = table_of(list("abcd"), "external", [0, 1, 0, 0], [0, 1, 1, 2])
    record = replace(table, decision=np.asarray(["Normal", "Pneumonia", "Pneumonia", REJECTED]))
    found = decisions.describe(record, "")
    assert found is not None
    assert found["accuracy_of_decided"] == pytest.approx(2 / 3)
    assert found["by_class"]["Normal"]["Normal"] == pytest.approx(1 / 3)  # of all three, one rejected as none
    assert found["by_class"]["Normal"]["Pneumonia"] == pytest.approx(1 / 3)
    assert found["by_class"]["Pneumonia"]["Pneumonia"] == 1
    expected = share_interval(np.array([True, True, False]), table.patient_id[:3])
    assert found["intervals"]["accuracy_of_decided"] == expected


def test_sources_held_out_in_training_are_external_tests_without_decisions(folder: Path) -> None:
    splits = ["test", "test", "external", "external", "external"]
    sources = ["own", "own", "nih", "nih", "clinic"]
    table_of(list("abcde"), splits, [0, 1, 0, 2, 1], [0, 1, 0, 1, 1], sources).write(
        folder / manifest.PREDICTIONS
    )
    found = evidence.draw(folder)
    assert {name: own["n"] for name, own in found["external"].items()} == {"clinic": 1, "nih": 2}
    assert found["external"]["nih"]["accuracy"] == 0.5
    assert found["external"]["nih"]["decisions"] is None
    low, high = found["external"]["nih"]["intervals"]["accuracy"]
    assert low < 0.01 < 0.99 < high  # of two patients
    assert (folder / "figures" / "confusion_external_clinic.png").exists()
    assert "by_source" not in found  # test has one


@pytest.mark.usefixtures("undrawn")
def test_a_record_goes_before_a_held_out_source_of_its_name(folder: Path, elsewhere: Path) -> None:
    table_of(list("abc"), ["test", "test", "external"], [0, 1, 0], [0, 1, 0], ["own", "own", "here"]).write(
        folder / manifest.PREDICTIONS
    )
    assert evidence.draw(folder)["external"]["here"]["n"] == 1
    see(folder, elsewhere, "here")
    found = evidence.draw(folder)["external"]["here"]
    assert (found["n"], found["decisions"]["decided"]) == (7, 6)


@pytest.mark.usefixtures("undrawn")
def test_a_mixed_test_set_is_reported_by_source_with_the_worst_and_auroc_within_sources(folder: Path) -> None:
    sources = ["a", "a", "b", "b"]
    table_of(list("abcd"), "test", [0, 1, 0, 2], [0, 1, 2, 2], sources).write(folder / manifest.PREDICTIONS)
    found = evidence.draw(folder)
    assert found["classes"] == list(PAPER_CLASSES)
    assert {name: own["accuracy"] for name, own in found["by_source"].items()} == {"a": 1, "b": 0.5}
    assert found["by_source"]["a"]["patients_per_class"] == {"Normal": 1, "Pneumonia": 1, "COVID-19": 0}
    assert found["worst_source"] == {"source": "b", "balanced_accuracy": 0.5}
    within = found["within_source"]["COVID-19"]
    assert (within["auroc"], within["sources"], within["pairs"]) == (0.5, 1, 1)
    assert found["within_source"]["Normal"]["sources"] == 2


@pytest.mark.usefixtures("undrawn")
def test_decisions_of_an_earlier_calibration_are_not_shown_as_todays(folder: Path, elsewhere: Path) -> None:
    validate(folder, elsewhere)
    assert evidence.draw(folder)["external"]["elsewhere"]["decisions"] is not None
    write_json(folder / manifest.CALIBRATION, {"abstain_below": 0.5})
    assert evidence.draw(folder)["external"]["elsewhere"]["decisions"] is None
    validate(folder, elsewhere)
    assert evidence.draw(folder)["external"]["elsewhere"]["decisions"] is not None


@pytest.mark.usefixtures("undrawn")
def test_the_record_names_neither_files_nor_patients(folder: Path, elsewhere: Path) -> None:
    validate(folder, elsewhere)
    table = Predictions.read(folder / "external" / "elsewhere.parquet")
    assert table.file_name.tolist() == [f"image-{number}" for number in range(1, 8)]
    assert all(str(name).startswith("patient-") for name in table.patient_id)


def no_image(root: Path) -> None:
    (root / "images" / "3.png").write_bytes(b"no image")


def no_file(root: Path) -> None:
    (root / "images" / "3.png").unlink()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_image, r"1 of 7 images cannot be decoded \(first: 3\.png is not a readable image.*--drop-bad"),
        (no_file, r"1 has no image file \(first: 3\.png\)"),
    ],
)
def test_a_bad_row_is_an_error_unless_it_may_be_dropped(
    folder: Path, elsewhere: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(elsewhere)
    before = files_of(folder)
    with pytest.raises(DataError, match=message):
        validate(folder, elsewhere)
    assert files_of(folder) == before
    validate(folder, elsewhere, "elsewhere", "--drop-bad")
    assert evidence.draw(folder)["external"]["elsewhere"]["n"] == 6


@pytest.mark.usefixtures("undrawn")
def test_an_image_of_no_class_of_the_bundle_is_left_out_and_counted(
    folder: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (elsewhere / "labels.csv").read_text()
    (elsewhere / "labels.csv").write_text(text.replace("3.png,Pneumonia", "3.png,Effusion"))
    validate(folder, elsewhere)
    assert evidence.draw(folder)["external"]["elsewhere"]["n"] == 6
    assert "no class of this task     1 Effusion" in capsys.readouterr().out


def test_a_folder_of_nothing_usable_is_an_error(folder: Path, elsewhere: Path) -> None:
    shutil.rmtree(elsewhere / "images")
    with pytest.raises(DataError, match="elsewhere holds no usable image; expected at least one"):
        validate(folder, elsewhere, "elsewhere", "--drop-bad")
    assert not (folder / "external").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--external"], "--external is now --source folder:NAME=DIR"),
        (["--name", "x"], "--name belongs to the old --external; pass --source"),
        (["--patient", "x"], "go with --source; without it no data are read"),
        (["--drop-bad"], "go with --source; without it no data are read"),
        (["--source", "folder:../x=DIR"], r"has the name '\.\./x'; expected letters"),
        (["--source", "folder:.x=DIR"], r"'\.x'"),
    ],
)
def test_wrong_options_are_refused(folder: Path, elsewhere: Path, options: list[str], message: str) -> None:
    before = files_of(folder)
    with pytest.raises(ConfigError, match=message):
        run(folder, *(option.replace("DIR", str(elsewhere)) for option in options))
    assert files_of(folder) == before


def test_a_bundle_without_its_own_record_is_found_out_before_the_work(folder: Path, elsewhere: Path) -> None:
    (folder / manifest.PREDICTIONS).unlink()
    with pytest.raises(BundleError, match=r"there is no .*predictions\.parquet"):
        validate(folder, elsewhere)
    assert not (folder / "external").exists()


def test_a_damaged_record_says_how_to_make_it_again(folder: Path, elsewhere: Path) -> None:
    see(folder, elsewhere, "here")
    (folder / "external" / "here.parquet").write_bytes(b"half")
    with pytest.raises(BundleError, match=r"cannot be read as Parquet .*evaluate BUNDLE --source"):
        run(folder)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_images_that_the_bundle_was_fitted_on_are_no_external_test(
    folder: Path, elsewhere: Path, split: str
) -> None:
    names = ["3.png", "b", "c"]
    table_of(names, [split, "test", "test"], [0, 1, 2], [0, 1, 2], "clinic").write(
        folder / manifest.PREDICTIONS
    )
    before = files_of(folder)
    with pytest.raises(
        ConfigError, match=r"1 of 7 images of clinic are training or validation images .*first: 3\.png"
    ):
        validate(folder, elsewhere, "clinic")
    assert files_of(folder) == before
    validate(folder, elsewhere, "other")


@pytest.mark.parametrize("prefix", ["", "renamed-"])
def test_images_that_the_model_was_fitted_on_are_no_external_test_under_any_name(
    folder: Path, elsewhere: Path, prefix: str
) -> None:
    engine = Engine.from_pretrained(folder)
    names = [f"{number}.png" for number in range(FLAT + 1)]
    found = [engine.predict(elsewhere / "images" / name) for name in names]
    Predictions(
        classes=PAPER_CLASSES,
        file_name=np.asarray([f"{prefix}{name}" for name in names]),
        source=np.asarray("own"),
        patient_id=np.asarray(names),
        split=np.asarray(["train"] * FLAT + ["test"]),
        label=np.asarray([0, 0, 1, 1, 2, 2, 0]),
        logits=np.stack([each.logits for each in found]),
    ).write(folder / manifest.PREDICTIONS)
    with pytest.raises(ConfigError, match=r"6 of 7 images of copy are training or validation images"):
        see(folder, elsewhere, "copy")
    assert not (folder / manifest.EXTERNAL / "copy.parquet").exists()
