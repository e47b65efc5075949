"""The synthetic data set: its layout, its marks, its determinism, and an atlas that holds no person."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from opening import samples_of
from PIL import Image

from xray_hf.data import synthetic as atlas
from xray_hf.data.dataset import read_samples
from xray_hf.data.sources import SourceSpec
from xray_hf.data.synthetic import ATLAS_FILE, SYNTHETIC_PREFIX, sample_images, write_synthetic
from xray_hf.errors import ConfigError, DataError, OutputError
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA

PATIENTS = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    write_synthetic(folder, PATIENTS, seed=0)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "Chest_xray_Corona_Metadata.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def images_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpeg"))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_is_kaggles(written: Path) -> None:
    header = (written / "Chest_xray_Corona_Metadata.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == ",X_ray_image_name,Label,Dataset_type,Label_2_Virus_category,Label_1_Virus_category"
    images = written / "Coronahack-Chest-XRay-Dataset" / "Coronahack-Chest-XRay-Dataset"
    for index, row in enumerate(rows_of(written)):
        assert row[""] == str(index)
        assert (images / row["Dataset_type"].lower() / row["X_ray_image_name"]).is_file()


def test_cells_are_those_of_the_real_file(written: Path) -> None:
    found = {
        (row["Label"], row["Label_2_Virus_category"], row["Label_1_Virus_category"])
        for row in rows_of(written)
    }
    assert found == {
        ("Normal", "", ""),
        ("Pnemonia", "", "bacteria"),
        ("Pnemonia", "", "Virus"),
        ("Pnemonia", "COVID-19", "Virus"),
    }


def test_the_reader_of_the_real_set_finds_every_patient(written: Path) -> None:
    samples, _, [report] = read_samples([SourceSpec("coronahack", "coronahack", str(written))])
    assert len({sample.patient_id for sample in samples}) == PATIENTS
    assert not report.rows_without_file
    assert not report.duplicate_rows
    assert not report.without_class


def test_the_counts_that_are_returned_are_those_on_disk(tmp_path: Path) -> None:
    counts = write_synthetic(tmp_path / "again", PATIENTS, seed=0)
    assert counts == Counter((each.official_split, each.label) for each in samples_of(tmp_path / "again"))


def test_some_files_have_no_metadata_as_in_kaggles_folder(written: Path) -> None:
    listed = {row["X_ray_image_name"] for row in rows_of(written)}
    without = [path for path in images_of(written) if path.name not in listed]
    assert len(without) == max(2, PATIENTS // 100)
    assert {path.parent.name for path in without} == {"train"}


def test_patients_have_one_to_three_images(written: Path) -> None:
    patients = [sample.patient_id for sample in samples_of(written)]
    assert {patients.count(patient) for patient in patients} == {1, 2, 3}


def test_person_numbers_are_reused_between_train_and_test(written: Path) -> None:
    persons = {
        split: {
            sample.file_name.split("_")[0]
            for sample in samples_of(written)
            if sample.label == "Pneumonia" and sample.official_split == split
        }
        for split in ("TRAIN", "TEST")
    }
    assert persons["TEST"] < persons["TRAIN"]


@pytest.mark.parametrize("patients", [30, 31, 100, 1234])
def test_every_class_is_in_train_and_only_covid_is_missing_in_test(patients: int) -> None:
    cohort = [(split, label) for split, label, listed in atlas._cohort(patients) if listed]
    assert len(cohort) == patients
    train = {label for split, label in cohort if split == "TRAIN"}
    test = {label for split, label in cohort if split == "TEST"}
    assert train == {NORMAL, PNEUMONIA, COVID19}
    assert test == {NORMAL, PNEUMONIA}
    # Enough COVID-19 patients for one in each of train, validation and test.
    assert sum(label == COVID19 for _, label in cohort) >= 3


def test_everything_is_marked_synthetic(written: Path) -> None:
    assert "no real person" in " ".join((written / "README.txt").read_text(encoding="utf-8").split())
    for path in images_of(written):
        assert path.name.startswith(SYNTHETIC_PREFIX)
        with Image.open(path) as image:
            assert image.info["comment"] == b"synthetic"


def test_images_are_grey_jpegs_of_about_256_pixels(written: Path) -> None:
    sizes = set()
    for path in images_of(written):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "L")
            sizes.add(image.size)
            assert 20 < np.asarray(image).std() < 110  # neither flat nor black and white
    assert len(sizes) > 10
    assert all(224 <= side <= 320 for size in sizes for side in size)


def test_same_seed_gives_the_same_files(written: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "again", PATIENTS, seed=0)
    assert digests(tmp_path / "again") == digests(written)


def test_another_seed_gives_other_images(written: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "other", PATIENTS, seed=1)
    assert not set(digests(tmp_path / "other").values()) & set(digests(written).values())


def test_images_of_a_patient_are_alike_but_not_copies() -> None:
    model = atlas.load_atlas()

    def small(patient: int, index: int) -> np.ndarray:
        image = atlas._draw(model, NORMAL, 0, patient, index)
        return np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).ravel()

    same = [np.corrcoef(small(p, 2 * p), small(p, 2 * p + 1))[0, 1] for p in range(10)]
    different = [np.corrcoef(small(p, 2 * p), small(p + 1, 2 * p + 2))[0, 1] for p in range(10)]
    assert max(same) < 0.99  # near-duplicates of the real set correlate above 0.999
    assert np.mean(same) > np.mean(different) + 0.05


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        write_synthetic(tmp_path, PATIENTS, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    write_synthetic(tmp_path, 30, seed=0)
    assert len(images_of(tmp_path)) > 30


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atlas, "_write_csv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "out", 30, seed=0)
    assert not list(tmp_path.iterdir())


def test_too_few_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"29 patients are too few .* at least 30"):
        write_synthetic(tmp_path / "out", 29, seed=0)


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed -1 is negative"):
        write_synthetic(tmp_path / "out", 30, seed=-1)


def test_sample_images_show_every_class_and_repeat() -> None:
    first, again = sample_images(2, seed=3), sample_images(2, seed=3)
    assert [name for name, _ in first] == [name for name in PAPER_CLASSES for _ in range(2)]
    assert [image.tobytes() for _, image in first] == [image.tobytes() for _, image in again]
    assert len({image.tobytes() for _, image in first}) == len(first)


def test_an_example_is_no_image_of_the_data_set_with_the_same_seed() -> None:
    (_, example), *_ = sample_images(1, seed=0)
    first = atlas._draw(atlas.load_atlas(), NORMAL, seed=0, patient=0, index=0)
    assert example.tobytes() != first.tobytes()


def test_classes_can_be_told_apart_but_not_trivially() -> None:
    model = atlas.load_atlas()
    # Separation of each pair of class means in standard deviations along the line between them.
    for one, two in ((NORMAL, PNEUMONIA), (NORMAL, COVID19), (PNEUMONIA, COVID19)):
        line = model.class_means[one] - model.class_means[two]
        line /= np.linalg.norm(line)
        spreads = [np.linalg.norm(model.class_factors[label].T @ line) for label in (one, two)]
        assert 1 < abs((model.class_means[one] - model.class_means[two]) @ line) / np.mean(spreads) < 5


def test_atlas_is_small_plain_and_holds_no_person() -> None:
    assert ATLAS_FILE.stat().st_size < 4_000_000
    with np.load(ATLAS_FILE, allow_pickle=False) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        assert all(arrays[name].dtype.kind in "if" for name in arrays.files)
    # No axis is as long as the number of images or patients: nothing can be stored for each of them.
    assert shapes == {
        "mean": (112, 112),
        "components": (200, 112, 112),
        "scales": (200,),
        "texture": (112, 112),
        "class_means": (3, 200),
        "class_factors": (3, 200, 200),
    }


def test_a_missing_atlas_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas, "ATLAS_FILE", tmp_path / "atlas.npz")
    with pytest.raises(DataError, match="install xray_hf again"):
        atlas.load_atlas.__wrapped__()
