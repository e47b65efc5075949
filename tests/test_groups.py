"""Near-duplicates survive what other collections do to a picture; groups keep patients together."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import measure_duplicates
import numpy as np
import pytest
from PIL import Image, ImageOps

from xray_hf.data import groups
from xray_hf.data.groups import THUMBNAIL_SIDE, near_duplicates, patient_groups
from xray_hf.data.synthetic import sample_images
from xray_hf.reading import resize


def with_gamma(image: Image.Image, gamma: float) -> Image.Image:
    return image.point([round(255 * (value / 255) ** gamma) for value in range(256)])


def with_less_contrast(image: Image.Image) -> Image.Image:
    return image.point([round(60 + 0.55 * value) for value in range(256)])


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker": lambda image: with_gamma(image, 1.7),
    "lighter": lambda image: with_gamma(image, 0.6),
    "less contrast": with_less_contrast,
    "equalised histogram": ImageOps.equalize,
    "another size": lambda image: image.resize((180, 230)),
    "strong JPEG": lambda image: as_jpeg(image, 40),
    "black border": lambda image: ImageOps.expand(image, (6, 8, 5, 0), fill=0),
    "white border": lambda image: ImageOps.expand(image, 8, fill=255),
    "cut margins": lambda image: cropped(image, 0.03, 0.0, 0.03, 0.02),
    "shifted": lambda image: ImageOps.expand(cropped(image, 0.03, 0.04, 0, 0), (0, 0, 8, 0), fill=0),
    "all at once": lambda image: as_jpeg(
        with_gamma(with_less_contrast(cropped(image, 0.02, 0.03, 0, 0.02)), 1.4).resize((200, 210)), 60
    ),
}


@pytest.fixture(scope="module")
def patients() -> list[Image.Image]:
    return [image for _, image in sample_images(20, seed=5)]


def thumbnails_of(images: list[Image.Image]) -> np.ndarray:
    return np.stack([resize(image.convert("L"), THUMBNAIL_SIDE) for image in images])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(patients: list[Image.Image], change: str) -> None:
    copies = [CHANGES[change](image) for image in patients]
    pairs = near_duplicates(thumbnails_of(patients + copies))
    assert pairs == [(row, row + len(patients)) for row in range(len(patients))]


def test_unrelated_patients_are_no_duplicates(patients: list[Image.Image]) -> None:
    assert near_duplicates(thumbnails_of(patients)) == []


def test_another_picture_over_a_copy_is_tolerated_up_to_the_threshold(patients: list[Image.Image]) -> None:
    """A copy with 25 % of another patient over it correlates by 0.92, one with 35 % by 0.84."""
    one, other = (patients[row].convert("L").resize((256, 256)) for row in (0, 10))
    light, heavy = (Image.blend(one, other, share) for share in (0.25, 0.35))
    assert near_duplicates(thumbnails_of([one, light])) == [(0, 1)]
    assert near_duplicates(thumbnails_of([one, heavy])) == []


def test_pairs_are_found_across_blocks(patients: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = thumbnails_of([*patients, patients[3], patients[58]])
    monkeypatch.setattr(groups, "_BLOCK", 7)
    assert near_duplicates(thumbnails) == [(3, 60), (58, 61)]


def test_many_copies_of_one_picture_end_in_one_group(patients: list[Image.Image]) -> None:
    thumbnails = thumbnails_of([patients[0]] * 20 + patients[1:5])
    numbers = patient_groups([f"file-{row}" for row in range(24)], near_duplicates(thumbnails))
    assert len(set(numbers[:20])) == 1
    assert len(set(numbers)) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_pictures_without_structure_are_no_duplicates(count: int) -> None:
    flat = np.full((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE), 128, np.uint8)
    assert near_duplicates(flat) == []


def test_groups_join_patients_through_chains_of_near_duplicates() -> None:
    numbers = patient_groups(["a", "b", "a", "c", "d"], [(1, 2), (3, 1)])
    assert numbers.dtype == np.int64
    assert len(set(numbers[:4])) == 1
    assert numbers[4] != numbers[0]
    assert patient_groups([], []).shape == (0,)


def test_near_duplicates_join_patients_of_two_sources() -> None:
    assert patient_groups(["a/1", "b/1", "b/2", "b/2"], [(0, 2)]).tolist() == [0, 1, 0, 0]


@pytest.mark.exhaustive
@pytest.mark.real
def test_twins_of_two_real_collections_are_found(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [real_data.parent / "sources" / name for name in ("thorax_scan", "radiography")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip(f"no collections with known twins under {real_data.parent}")
    monkeypatch.setattr(sys, "argv", ["measure_duplicates.py", *map(str, folders), "--changed", "0"])
    measure_duplicates.main()
    lines = capsys.readouterr().out.splitlines()
    last = next(line for line in lines if line.startswith("half B"))
    recall, precision = (float(word.split()[-1]) for word in last.partition(": ")[2].split(","))
    assert recall >= 0.95
    assert precision >= 0.99
