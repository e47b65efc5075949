"""The examples' synthetic patients: the same for a seed, as sharp as real X-rays, from an atlas of nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xray_hf.data.synthetic import sample_images
from xray_hf.demo import patients
from xray_hf.demo.patients import ATLAS_FILE, FILM_SIDE, GROUPS, SIDE, TILES, WINDOW
from xray_hf.errors import DataError
from xray_hf.reading import resize


def fine_power(image: np.ndarray) -> float:
    """The mean power of 40 to 60 cycles a side of a (SIDE, SIDE) image."""
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2 / SIDE**2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE, 1 / SIDE)] * 2))
    return float(power[(frequency > 40) & (frequency < 60)].mean())


@pytest.mark.parametrize("group", GROUPS)
def test_a_seed_is_a_patient(group: str) -> None:
    first, again, other = (patients.draw(group, seed) for seed in (3, 3, 4))
    assert (first.mode, first.size) == ("L", (FILM_SIDE, FILM_SIDE))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_groups_differ_for_the_same_seed() -> None:
    assert len({patients.draw(group, 0).tobytes() for group in GROUPS}) == len(GROUPS)


def test_they_are_sharper_than_those_of_the_synthetic_data_set() -> None:
    drawn = [fine_power(resize(patients.draw("child-pneumonia", seed), SIDE)) for seed in range(5)]
    smooth = [fine_power(resize(image, SIDE)) for _, image in sample_images(2, seed=0)]
    assert np.mean(drawn) > 5 * np.mean(smooth)


def test_texture_has_the_power_that_it_is_asked_for() -> None:
    white = np.full((*TILES, WINDOW, WINDOW // 2 + 1), WINDOW / 2.0)  # of noise of deviation 1
    of_ones = patients.texture(white, np.random.default_rng(0))
    assert patients.texture(3 * white, np.random.default_rng(0)) == pytest.approx(3 * of_ones)
    assert of_ones.shape == (SIDE, SIDE)
    assert abs(of_ones.mean()) < 0.1


def test_the_atlas_is_small_plain_and_holds_no_person() -> None:
    assert ATLAS_FILE.stat().st_size < 1_000_000
    with np.load(ATLAS_FILE, allow_pickle=False) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
        assert all(arrays[name].dtype.kind in "if" for name in arrays.files)
    # No axis is as long as the number of images: nothing can be stored for each of them.
    assert shapes == {
        "mean": (112, 112),
        "components": (128, 112, 112),
        "scales": (128,),
        "class_means": (len(GROUPS), 128),
        "class_factors": (len(GROUPS), 128, 128),
        "amplitudes": (2, *TILES, WINDOW, WINDOW // 2 + 1),
    }


def test_a_missing_atlas_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "ATLAS_FILE", tmp_path / "patients.npz")
    with pytest.raises(DataError, match="install xray_hf again"):
        patients.load_atlas.__wrapped__()
