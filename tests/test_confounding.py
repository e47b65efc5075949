"""Where the classes come from is counted, and said in words before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xray_hf.data import confounding
from xray_hf.data.sample import Sample

CLASSES = ("Normal", "Tuberculosis")


def samples(counts: dict[tuple[str, str], int]) -> list[Sample]:
    """{(origin, class): images}; an origin is a source, or source/site."""
    found = []
    for (origin, label), images in counts.items():
        source, _, site = origin.partition("/")
        name = f"{origin}-{label}"
        found += [Sample(name, Path(name), source, (label,), name, label=label, site=site)] * images
    return found


def test_the_table_counts_images_by_origin_and_class() -> None:
    own = samples({("a", "Normal"): 3, ("b/ward", "Tuberculosis"): 2, ("b/clinic", "Normal"): 1})
    names, counts = confounding.cross_table(own, CLASSES)
    assert names == ["a", "b/clinic", "b/ward"]
    assert counts.tolist() == [[3, 0], [1, 0], [0, 2]]


def test_cramers_v_is_0_for_equal_shares_and_1_where_the_origin_tells_the_class() -> None:
    assert confounding.cramers_v(np.array([[10, 20], [30, 60]])) == pytest.approx(0)
    assert confounding.cramers_v(np.array([[10, 0], [0, 60]])) == pytest.approx(1)
    assert confounding.cramers_v(np.array([[10, 60]])) == 0  # one origin tells nothing apart
    # Computed by hand: chi² = 16.667 of 150 images, V = sqrt(16.667 / 150).
    assert confounding.cramers_v(np.array([[50, 25], [25, 50]])) == pytest.approx(1 / 3)


def test_a_class_of_one_origin_and_a_strong_association_are_said_in_words() -> None:
    own = samples({("a", "Normal"): 50, ("b", "Normal"): 5, ("b", "Tuberculosis"): 40})
    first, second = confounding.warnings(own, CLASSES)
    assert first.startswith("All images of Tuberculosis come from b:")
    assert "Cramér's V 0." in second
    assert "--hold-out" in second
    assert confounding.as_table(own, CLASSES).count("warning: ") == 2


def test_a_held_out_source_of_a_site_that_is_trained_on_is_said() -> None:
    sites = ("rsna/NIH", "nih/NIH", "clinic/ward", "web")
    own = samples({(origin, label): 20 for origin in sites for label in CLASSES})
    [warning] = confounding.warnings(own, CLASSES, ["nih"])
    assert warning.startswith("Held-out images and others come from the same site, NIH: ")
    for hold_out in ([], ["clinic"], ["web"], ["nih", "rsna"]):
        assert confounding.warnings(own, CLASSES, hold_out) == []


def test_nothing_is_said_where_nothing_is_confounded() -> None:
    balanced = samples({(origin, label): 20 for origin in ("a", "b") for label in CLASSES})
    assert confounding.warnings(balanced, CLASSES) == []
    assert confounding.warnings(samples({("a", "Normal"): 5, ("a", "Tuberculosis"): 5}), CLASSES) == []
