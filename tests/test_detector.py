"""What rules and detector of OOD input say, worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xray_hf.calibration.ood import (
    NO_CHEST,
    THUMBNAIL_SIDE,
    Detector,
    rule_against,
    standardised,
    thumbnail_of,
)
from xray_hf.reading import Reading

FLAT = np.zeros(THUMBNAIL_SIDE**2, np.float32)
CHECKS = np.indices((THUMBNAIL_SIDE, THUMBNAIL_SIDE)).sum(axis=0) % 2


def reading(width: int, height: int, colour: float = 0.0) -> Reading:
    return Reading(Image.new("L", (width, height)), colour=colour)


@pytest.mark.parametrize("one", [reading(96, 96), reading(96, 192), reading(350, 100), reading(99, 99, 0.1)])
def test_what_lies_within_the_limits_of_the_rules_is_not_rejected(one: Reading) -> None:
    assert rule_against(one, (16 * CHECKS).astype(np.uint8)) is None


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (reading(95, 100), "too small: it has 95×100 pixels, fewer than 96 on a side"),
        (reading(100, 95), "too small: it has 100×95 pixels, fewer than 96 on a side"),
        (reading(360, 100), f"{NO_CHEST}: it is 3.6 times as wide as high"),
        (reading(100, 250), f"{NO_CHEST}: it is 0.4 times as wide as high"),
        (reading(99, 99, 0.11), f"{NO_CHEST}: it is coloured; if it is an X-ray, export it in greyscale"),
    ],
)
def test_what_lies_beyond_them_is_rejected_with_the_reason(one: Reading, reason: str) -> None:
    assert rule_against(one, (16 * CHECKS).astype(np.uint8)) == reason


def test_an_almost_uniform_image_is_rejected() -> None:
    assert (
        rule_against(reading(99, 99), (14 * CHECKS).astype(np.uint8)) == f"{NO_CHEST}: it is almost uniform"
    )


def test_a_score_is_the_logistic_of_the_weighted_sum() -> None:
    thumbnail = FLAT.copy()
    thumbnail[0] = 0.01
    detector = Detector(np.array([1, -2], np.float32), thumbnail, 0.25)
    embedding, small = np.array([[3, 1]], np.float32), np.zeros((1, 32, 32), np.uint8)
    small[0, 0, 0] = 255
    seen = standardised(small)
    assert detector.logits(embedding, seen) == pytest.approx(3 - 2 + 0.01 * seen[0, 0] + 0.25)
    assert detector.logits(embedding, 0 * seen) == pytest.approx(1.25)
    expected = 1 / (1 + np.exp(-(1.25 + 0.01 * seen[0, 0])))
    assert detector.scores(embedding, small) == pytest.approx(expected)
    with np.errstate(all="raise"):
        assert detector.scores(np.float32([[1e6, 0], [-1e6, 0]]), np.repeat(0 * small, 2, axis=0)) == (
            pytest.approx([1, 0])
        )


def test_a_thumbnail_is_standardised_with_softened_contrast() -> None:
    """Half the pixels 10 grey levels above the others: deviation 5, softened by 5."""
    one = (10 * CHECKS).astype(np.uint8)
    found = standardised(np.stack([one, 100 + 0 * one]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], (CHECKS - 0.5).ravel())
    np.testing.assert_allclose(found[1], 0)
    assert thumbnail_of(np.full((64, 64), 7, np.uint8)).tolist() == [[7] * 32] * 32


def test_a_detector_survives_json_to_seven_digits() -> None:
    detector = Detector(np.array([1 / 3], np.float32), FLAT, 0.1)
    saved = json.loads(json.dumps(detector.as_dict()))
    assert saved == {"embedding": [0.3333333], "thumbnail": [0.0] * 1024, "bias": 0.1}
    again = Detector.from_dict(saved)
    assert (again.embedding.dtype, again.thumbnail.dtype, again.bias) == (np.float32, np.float32, 0.1)
    np.testing.assert_allclose(again.embedding, detector.embedding, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": np.zeros((1, 2))}, r"^weights of shape \(1, 2\) and \(1024,\)$"),
        ({"thumbnail": FLAT[1:]}, r"^weights of shape \(1,\) and \(1023,\)$"),
        ({"embedding": np.array([np.inf])}, "^weights that are not finite$"),
        ({"thumbnail": FLAT + np.nan}, "^weights that are not finite$"),
        ({"bias": float("nan")}, "^weights that are not finite$"),
    ],
)
def test_weights_that_are_none_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(**{"embedding": np.zeros(1), "thumbnail": FLAT, "bias": 0.0} | change)
