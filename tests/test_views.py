"""Control views take away what they claim and nothing else; a run can be trained on one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from opening import open_coronahack
from running import run_training

from xray_hf import bundle, manifest
from xray_hf.data.cache import seen_in
from xray_hf.errors import BundleError, ConfigError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.models.create import logits_of
from xray_hf.training.config import parse
from xray_hf.views import (
    UNIFORM,
    VIEWS,
    View,
    blurred,
    border,
    centre_masked,
    evidence_for,
    histogram,
    share_within,
    shares_of_mass,
)

SIDE = 100
LUNGS, INNER = np.s_[:, 10:90, 15:85], np.s_[:, 8:92, 8:92]


def images(side: int = SIDE) -> np.ndarray:
    """Two images of noise, without a black pixel."""
    return np.random.default_rng(0).integers(1, 256, (2, side, side), dtype=np.uint8)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("side", [32, 224])
def test_a_view_keeps_shape_and_type_and_its_input(view: View, side: int) -> None:
    given = images(side)
    before = given.copy()
    seen = view(given)
    assert (seen.shape, seen.dtype) == (given.shape, np.uint8)
    assert np.array_equal(given, before)
    assert not np.array_equal(seen, given)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_of_an_image_does_not_depend_on_its_batch(view: View) -> None:
    assert np.array_equal(view(images())[1:], view(images()[1:]))


@pytest.mark.parametrize(("view", "hidden"), [(centre_masked, LUNGS), (border, INNER)])
def test_masks_hide_their_part_and_show_the_rest_as_it_is(view: View, hidden: tuple[slice, ...]) -> None:
    seen = view(images())
    assert not seen[hidden].any()
    seen[hidden] = images()[hidden]
    assert np.array_equal(seen, images())


def test_the_blur_leaves_brightness_but_no_detail() -> None:
    board = (np.indices((1, SIDE, SIDE)).sum(axis=0) % 2 * 200).astype(np.uint8)
    assert (abs(blurred(board).astype(int) - 100) <= 1).all()
    halves = np.zeros((1, SIDE, SIDE), np.uint8)
    halves[:, :, SIDE // 2 :] = 200
    assert (blurred(halves)[:, :, 0] < 5).all()
    assert (blurred(halves)[:, :, -1] > 195).all()


def test_the_histogram_forgets_where_a_pixel_was() -> None:
    shuffled = np.random.default_rng(1).permutation(images().reshape(2, -1), axis=1).reshape(images().shape)
    assert np.array_equal(histogram(shuffled), histogram(images()))
    assert np.array_equal(np.bincount(histogram(images()).ravel()), np.bincount(images().ravel()))


@pytest.mark.parametrize("cells", [3, 7, 14, 100])
def test_a_uniform_heatmap_has_the_rectangles_own_share(cells: int) -> None:
    lungs, frame = shares_of_mass(np.ones((1, cells, cells), np.float32))
    np.testing.assert_allclose([lungs[0], frame[0]], UNIFORM)


def test_mass_counts_where_it_lies_and_no_mass_is_no_share() -> None:
    maps = np.zeros((3, SIDE, SIDE))
    maps[0, 50, 50], maps[1, 0, 0] = 7, 0.1
    np.testing.assert_allclose(shares_of_mass(maps), [[1, 0, np.nan], [0, 1, np.nan]], atol=1e-9)


def test_heat_counts_where_the_lungs_are_and_where_it_decides() -> None:
    heatmaps = np.zeros((2, 2, 4, 4), np.float32)
    heatmaps[0, 1, :2] = 3
    heatmaps[0, :, 2:] = 5  # of both classes alike
    evidence = evidence_for(heatmaps, np.asarray([1, 0]))
    np.testing.assert_allclose(evidence[0, :2], 1.5)
    assert not evidence[0, 2:].any()
    lungs = np.zeros((2, 4, 4), np.float32)
    lungs[:, 0] = 0.5
    np.testing.assert_allclose(share_within(evidence, lungs), [0.25, np.nan])
    np.testing.assert_allclose(share_within(np.ones((2, 4, 4)), 0 * lungs), [np.nan, np.nan])


def test_a_view_of_a_source_changes_what_is_gathered(synthetic: Path) -> None:
    pixels = open_coronahack(synthetic, 64).pixels
    rows = np.asarray([3, 0, 3])
    assert seen_in(pixels, "none") is pixels
    assert np.array_equal(seen_in(pixels, "border").gather(rows), border(pixels.gather(rows)))


def test_an_unknown_view_is_refused() -> None:
    assert parse(["--data-dir", "DATA"]).data.view == "none"
    with pytest.raises(ConfigError, match=r"'--view': 'lungs' is not one of .*centre_masked"):
        parse(["--data-dir", "DATA", "--view", "lungs"])


@pytest.fixture(scope="module")
def border_bundle(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one epoch of `train.py --view border` leaves."""
    out = tmp_path_factory.mktemp("run") / "border"
    options = ["--model", "xray-cnn", "--epochs", "1", "--batch-size", "8", "--precision", "fp32"]
    where = ["--data-dir", synthetic, "--out", out, "--view", "border", "--device", "cpu"]
    run_training(*where, *options, draws=False)
    return out / "bundle"


@pytest.mark.slow
def test_a_run_on_a_view_records_it(border_bundle: Path) -> None:
    training = json.loads((border_bundle / manifest.TRAINING).read_text())
    assert training["config"]["data"]["view"] == "border"
    assert manifest.mark_of(training) == "SYNTHETIC patients: control view border: "


@pytest.mark.slow
def test_a_run_on_a_view_is_evaluated_on_it(border_bundle: Path, synthetic: Path) -> None:
    data = open_coronahack(synthetic, 224)
    recorded = Predictions.read(border_bundle / manifest.PREDICTIONS).select("test")
    row_of = {record.file_name: row for row, record in enumerate(data.samples)}
    whole = data.pixels.gather(np.asarray([row_of[name] for name in recorded.file_name]))
    network = bundle.load(border_bundle)

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return logits_of(
                network.module(network.preprocessing.normalise(torch.from_numpy(pixels)))
            ).numpy()

    np.testing.assert_allclose(logits(border(whole)), recorded.logits, atol=1e-4)
    assert abs(logits(whole) - recorded.logits).max() > 1e-2


@pytest.mark.slow
def test_a_network_trained_on_a_view_answers_nothing_about_xrays(border_bundle: Path) -> None:
    with pytest.raises(BundleError, match="was trained on the control view border: it has metrics"):
        manifest.read(border_bundle)
