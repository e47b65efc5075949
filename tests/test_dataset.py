"""The `datasets` form of the data: documented features, aligned rows, no copies, and a round trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, DatasetDict, Features, Image, Value, load_from_disk
from opening import open_coronahack
from PIL import Image as PillowImage

from xray_hf.data.dataset import XrayData, read_samples, split_data, to_dataset, to_dataset_dict
from xray_hf.data.sources import SourceSpec
from xray_hf.task import PAPER_CLASSES, SPLITS

TEXTS = ("file_name", "source", "site", "patient_id", "view", "pathogen", "virus_category", "license")


@pytest.fixture(scope="module")
def data(synthetic: Path) -> XrayData:
    return open_coronahack(synthetic, 32)


def test_features_are_as_documented(data: XrayData) -> None:
    assert to_dataset(data.samples, data.classes).features == Features(
        image=Image(),
        label=ClassLabel(names=list(PAPER_CLASSES)),
        **{name: Value("string") for name in TEXTS},
    )


def test_rows_are_aligned_with_the_records(data: XrayData) -> None:
    dataset = to_dataset(data.samples, data.classes)
    assert len(dataset) == len(data.samples)
    assert dataset["label"][:] == data.labels.tolist()
    for name in TEXTS:
        assert dataset[name][:] == [getattr(sample, name) for sample in data.samples]
    for row in (0, len(dataset) // 2, len(dataset) - 1):
        with PillowImage.open(data.samples[row].path) as image:
            assert dataset[row]["image"].tobytes() == image.tobytes()


def test_images_stay_in_their_files_until_asked_for(data: XrayData) -> None:
    stored = to_dataset(data.samples, data.classes).cast_column("image", Image(decode=False))[0]["image"]
    assert stored == {"bytes": None, "path": str(data.samples[0].path)}


@pytest.mark.parametrize("protocol", ["grouped", "paper"])
def test_the_splits_hold_the_rows_of_the_split(data: XrayData, protocol: str) -> None:
    split = split_data(data, protocol, 0)
    dataset = to_dataset_dict(data, split)
    assert list(dataset) == list(SPLITS)
    for name in SPLITS:
        names = [data.samples[row].file_name for row in split.rows(name)]
        assert dataset[name]["file_name"][:] == names
        assert dataset[name].features["label"].names == list(PAPER_CLASSES)


def test_upsampled_rows_are_indices_and_not_copies(data: XrayData) -> None:
    split = split_data(data, "paper", 0)
    train = to_dataset_dict(data, split)["train"]
    assert len(train) == len(split.train) > len(np.unique(split.train))
    assert train.data.num_rows == len(data.samples)
    assert train._indices is not None


def test_records_of_a_folder_that_was_never_decoded_are_enough(synthetic: Path) -> None:
    samples, classes, _ = read_samples([SourceSpec("coronahack", "coronahack", str(synthetic))])
    assert len(to_dataset(samples, classes)) == len(samples)


def test_what_is_saved_to_disk_is_loaded_with_its_images(data: XrayData, tmp_path: Path) -> None:
    split = split_data(data, "grouped", 0)
    dataset = to_dataset_dict(data, split)
    dataset.save_to_disk(tmp_path / "saved")
    loaded = load_from_disk(tmp_path / "saved")
    assert isinstance(loaded, DatasetDict)
    for name in SPLITS:
        assert loaded[name].features == dataset[name].features
        for column in ("label", *TEXTS):
            assert loaded[name][column][:] == dataset[name][column][:]
    # The bytes travel along: the saved folder does not depend on where the images were.
    stored = loaded["test"].cast_column("image", Image(decode=False))[0]["image"]
    record = data.samples[split.test[0]]
    assert stored["bytes"] == record.path.read_bytes()
