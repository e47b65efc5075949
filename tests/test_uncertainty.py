"""Intervals are over patients, by formula or row by row; two models are compared on the same images."""

from __future__ import annotations

import dataclasses
import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from xray_hf.errors import ConfigError
from xray_hf.evaluation import metrics, uncertainty
from xray_hf.evaluation.predictions import Predictions
from xray_hf.evaluation.uncertainty import (
    Draws,
    Ranking,
    areas,
    compare,
    describe,
    share_interval,
    within_source,
)
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA


def table(labels: np.ndarray, logits: np.ndarray, patients: np.ndarray | None = None) -> Predictions:
    """Test rows; a patient for each unless `patients` says otherwise."""
    n = len(labels)
    names = np.array([f"{row}.jpeg" for row in range(n)])
    owners = names if patients is None else np.array([f"p{patient}" for patient in patients])
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=names,
        source=np.array("coronahack"),
        patient_id=owners,
        split=np.array("test"),
        label=labels,
        logits=logits,
    )


def toy(seed: int = 0, n: int = 60, patients: int = 25) -> Predictions:
    """All classes, several images a patient, equal logits here and there."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    logits = (rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]).round(1).astype(np.float32)
    return table(labels, logits, rng.integers(patients, size=n))


def of_answers(labels: Any, answers: Any, patients: Any = None) -> Predictions:
    """A table of these true and predicted classes."""
    logits = 4 * np.eye(3, dtype=np.float32)[np.asarray(answers)]
    return table(np.asarray(labels), logits, None if patients is None else np.asarray(patients))


def flat(numbers: dict[str, Any]) -> dict[str, Any]:
    """Overall numbers and those of the classes, side by side."""
    names = (*metrics.OVERALL, "macro_auroc", "cross_entropy")
    classes = {
        f"{label} {name}": value for label, own in numbers["per_class"].items() for name, value in own.items()
    }
    return {name: numbers[name] for name in names} | classes


def test_every_number_has_an_interval_that_holds_it() -> None:
    numbers, intervals = flat(metrics.describe(toy())), flat(describe(toy())["intervals"])
    assert set(numbers) == set(intervals)
    assert all(low < numbers[name] < high for name, (low, high) in intervals.items())


def test_intervals_are_those_of_measuring_each_draw_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertainty, "DRAWS", 60)
    predictions = toy()
    draws = Draws(predictions.patient_id)
    measured: dict[str, list[float]] = {}
    for times in np.concatenate(list(draws.times())).astype(int):
        drawn = predictions.take(np.repeat(np.arange(len(predictions)), times[draws.patient]))
        for name, value in flat(metrics.describe(drawn)).items():
            measured.setdefault(name, []).append(value)
    found = flat(describe(predictions)["intervals"])
    drawn = {name for name in found if name.split()[-1] in {"macro_f1", "f1", "auroc", "macro_auroc"}}
    for name in drawn | {"cross_entropy"}:
        assert found[name] == pytest.approx(np.quantile(measured[name], [0.025, 0.975])), name


def test_every_draw_has_as_many_patients_as_there_are_and_all_their_rows() -> None:
    predictions = toy()
    draws = Draws(predictions.patient_id)
    times = np.concatenate(list(draws.times()))
    assert times.shape == (2000, len(np.unique(predictions.patient_id)))
    assert (times.sum(axis=1) == times.shape[1]).all()
    for weights in draws.weights():
        for row in range(1, len(predictions)):
            same = predictions.patient_id == predictions.patient_id[row]
            assert (weights[:, same] == weights[:, [row]]).all()


def test_draws_in_blocks_are_those_of_one_large_block(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(toy().patient_id)
    monkeypatch.setattr(uncertainty, "BLOCK", 7 * 60)
    blocks = list(draws.times())
    assert {len(block) for block in blocks} == {7, 2000 % 7}
    drawn = np.random.default_rng(uncertainty.SEED).integers(draws.patients, size=(2000, draws.patients))
    expected = [np.bincount(row, minlength=draws.patients) for row in drawn]
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_draws() -> None:
    """All draws of 20,000 patients at once would take 320 MB."""
    labels = np.arange(20_000) % 3
    logits = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    predictions = table(labels, logits)
    predictions = dataclasses.replace(predictions, source=np.where(labels == 2, "a", "b"))
    tracemalloc.start()
    describe(predictions)
    within_source(predictions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_more_images_of_the_same_patients_make_no_interval_narrower() -> None:
    once = dataclasses.replace(toy(), patient_id=toy().file_name)
    four_times = once.take(np.tile(np.arange(len(once)), 4))
    expected = flat(describe(once)["intervals"])
    for name, interval in flat(describe(four_times)["intervals"]).items():
        assert interval == pytest.approx(expected[name]), name


def test_one_patient_shows_nothing_of_others() -> None:
    for name, (low, high) in flat(describe(toy(patients=1))["intervals"]).items():
        if name.split()[-1] in {"accuracy", "sensitivity", "specificity", "precision"}:
            assert low < 0.05 < 0.95 < high, name


@pytest.mark.parametrize(
    ("right", "of", "expected"),
    [
        # By hand: r = 8/10, t of 9 degrees of freedom 2.2622, n = 9 since the variance is r (1 - r) / 9.
        (8, 10, [0.4270, 0.9555]),
        # All right: n = 10, so the lower end is 1 / (1 + t^2 / 10).
        (10, 10, [0.6615, 1]),
        (0, 10, [0, 0.3385]),
        (1, 1, [0.0062, 1]),  # t of 1 degree of freedom is 12.706
    ],
)
def test_the_interval_of_a_share_worked_out_by_hand(right: int, of: int, expected: list[float]) -> None:
    found = share_interval(np.arange(of) < right, np.arange(of))
    assert found == pytest.approx(expected, abs=1e-4)


def test_images_that_are_right_together_count_as_one() -> None:
    is_right = np.arange(40) < 30
    alone = share_interval(is_right, np.arange(40))
    assert share_interval(np.repeat(is_right, 3), np.repeat(np.arange(40), 3)) == pytest.approx(alone)


def test_images_that_agree_no_more_than_by_chance_count_each() -> None:
    """Of two images of nearly each patient one is right: they count as 80, not as more."""
    patients, is_right = np.repeat(np.arange(40), 2), np.tile([True, False], 40)
    is_right[[0, 3]] = [False, True]  # none of the first patient, both of the second
    # t of 39 degrees of freedom is 2.0227.
    assert share_interval(is_right, patients) == pytest.approx([0.5 - 0.1103, 0.5 + 0.1103], abs=1e-4)


def test_a_share_is_that_of_the_rows_among_which_it_is_asked() -> None:
    is_right, patients = np.array([1, 1, 0, 1, 0, 0], bool), np.arange(6)
    among = patients < 4
    assert share_interval(is_right, patients, among) == share_interval(is_right[:4], patients[:4])
    assert share_interval(is_right, patients, patients > 6) is None


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        # Three images a patient that are right or wrong together.
        is_right = np.repeat(rng.random(80) < 0.8, 3)
        low, high = share_interval(is_right, np.arange(240) // 3) or (1, 0)
        held += low <= 0.8 <= high
    assert 0.935 <= held / 1000 <= 0.975


@pytest.mark.parametrize("seed", range(3))
def test_weighted_areas_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    is_case, scores = rng.random(80) < 0.4, rng.random(80).round(1)  # most scores have equals
    weights = rng.integers(0, 4, size=(20, 80)).astype(float)
    expected = [roc_auc_score(is_case, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(areas([[Ranking.of(is_case, scores)]], weights)[:, 0], expected)


def test_a_draw_without_cases_has_no_area() -> None:
    weights = np.array([[1.0, 1, 0], [0, 0, 3]])
    ranking = Ranking.of(np.array([True, False, False]), np.array([0.9, 0.5, 0.1]))
    np.testing.assert_array_equal(areas([[ranking]], weights)[:, 0], [1, np.nan])


def test_a_rate_of_all_or_none_counts_each_patient_once() -> None:
    """Fourteen images of nine patients, all found: the true rate may still be below two thirds."""
    patients = [*range(9), *range(5), 20, 21]
    found = describe(of_answers([2] * 14 + [0, 1], [2] * 14 + [1, 0], patients))["intervals"]["per_class"]
    assert found["COVID-19"]["sensitivity"] == pytest.approx([0.629, 1], abs=1e-3)
    assert found["Normal"]["sensitivity"] == pytest.approx([0, 0.994], abs=1e-3)


def test_a_class_without_cases_is_null_and_has_no_patients() -> None:
    found = describe(of_answers([0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]))
    assert found["patients_per_class"] == {"Normal": 1, "Pneumonia": 2, "COVID-19": 0}
    of_covid = found["intervals"]["per_class"]["COVID-19"]
    assert (of_covid["sensitivity"], of_covid["precision"], of_covid["auroc"]) == (None, None, None)
    assert of_covid["specificity"] == pytest.approx([2 / (2 + 12.706**2), 1], rel=1e-3)  # two patients
    assert found["intervals"]["balanced_accuracy"] is not None


def test_a_draw_that_lacks_a_class_takes_no_part_in_means_over_classes() -> None:
    # Who is never right on COVID-19 has a macro F1 of 2/3 at most; draws without its patient would have 1.
    labels = np.repeat([NORMAL, PNEUMONIA, COVID19], [10, 10, 1])
    found = describe(of_answers(labels, np.minimum(labels, PNEUMONIA)))["intervals"]
    assert found["macro_f1"][1] <= 2 / 3
    of_b = of_answers(labels, np.minimum(labels, PNEUMONIA) * 0)
    assert compare(of_answers(labels, labels), of_b)["balanced_accuracy"]["interval"] == pytest.approx(
        [-2 / 3] * 2
    )


def test_the_interval_of_balanced_accuracy_worked_out_by_hand() -> None:
    """Each end is as far from the mean as the ends of the classes are from theirs, by Pythagoras, over C."""
    labels, answers = np.repeat([0, 1], 10), np.repeat([0, 1, 0], [8, 11, 1])
    found = describe(of_answers(labels, answers))["intervals"]
    (one_low, one_high), (two_low, two_high) = (
        found["per_class"][name]["sensitivity"] for name in ("Normal", "Pneumonia")
    )
    below = math.hypot(0.8 - one_low, 0.9 - two_low) / 2
    above = math.hypot(one_high - 0.8, two_high - 0.9) / 2
    assert found["balanced_accuracy"] == pytest.approx([0.85 - below, 0.85 + above])


@pytest.mark.parametrize("answers", [[2] * 9, [0] * 9, [2] * 6 + [0] * 3], ids=["all", "none", "some"])
def test_of_one_class_alone_balanced_accuracy_is_accuracy_interval_and_all(answers: list[int]) -> None:
    predictions = of_answers([2] * 9, answers)
    intervals = describe(predictions)["intervals"]
    assert intervals["balanced_accuracy"] == pytest.approx(intervals["accuracy"])
    assert intervals["accuracy"] == intervals["per_class"]["COVID-19"]["sensitivity"]
    found = compare(of_answers([2] * 9, [2] * 9), predictions)
    assert found["balanced_accuracy"]["interval"] == found["accuracy"]["interval"]


def test_the_interval_of_a_perfect_model_ends_at_one() -> None:
    labels = np.arange(30) % 3
    low, high = describe(of_answers(labels, labels))["intervals"]["balanced_accuracy"]
    assert high == 1
    assert low == pytest.approx(1 - 0.3385 / math.sqrt(3), abs=1e-4)  # ten patients in each of three classes


def test_two_models_that_both_find_all_of_a_class_do_not_differ_in_it() -> None:
    labels = np.repeat([NORMAL, PNEUMONIA, COVID19], [20, 20, 5])
    found = compare(of_answers(labels, labels), of_answers(labels, labels))
    assert found["balanced_accuracy"]["interval"] == [0, 0]


def test_the_same_table_has_the_same_intervals_and_they_are_json() -> None:
    assert json.loads(json.dumps(describe(toy()), allow_nan=False)) == describe(toy())


def test_mcnemar_worked_out_by_hand() -> None:
    # One image only a has right, nine only b: 2 * (1 + 10) / 2**10.
    a = of_answers(np.zeros(15, int), [0] * 6 + [1] * 9)
    b = of_answers(np.zeros(15, int), [0] * 5 + [1] + [0] * 9)
    found = compare(a, b)
    assert found["mcnemar"] == {"only_a_right": 1, "only_b_right": 9, "p_value": pytest.approx(22 / 1024)}
    assert (found["n"], found["patients"]) == (15, 15)
    assert (found["accuracy"]["a"], found["accuracy"]["b"]) == pytest.approx((6 / 15, 14 / 15))
    assert found["accuracy"]["difference"] == pytest.approx(8 / 15)
    assert found["accuracy"]["interval"][0] > 0
    assert compare(b, a)["accuracy"]["difference"] == pytest.approx(-8 / 15)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_model_does_not_differ_from_itself() -> None:
    found = compare(toy(), toy())
    assert found["mcnemar"]["p_value"] == 1
    for name in ("accuracy", "balanced_accuracy"):
        assert (found[name]["difference"], found[name]["interval"]) == (0, [0, 0])
        assert found[name]["a"] == metrics.describe(toy())[name]


def test_the_difference_of_two_models_is_taken_on_the_same_patients() -> None:
    # b mends one of a's errors: on no draw can it be worse, though each alone is wide.
    a = toy()
    logits = a.logits.copy()
    wrong = np.flatnonzero(a.predicted != a.label)[0]
    logits[wrong] = 9 * np.eye(3)[a.label[wrong]]
    found = compare(a, dataclasses.replace(a, logits=logits))
    assert found["accuracy"]["interval"][0] == 0
    assert 0 < found["accuracy"]["interval"][1] < 0.1
    assert found["balanced_accuracy"]["interval"][0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": np.array(["x", "1.jpeg", "y"])}, r"2 of 3 rows .* first: 0\.jpeg and x\. Compare two"),
        ({"label": np.array([0, 1, 1])}, r"1 of 3 rows .* first: 2\.jpeg and 2\.jpeg"),
        ({"patient_id": np.array(["a", "b", "c"])}, "3 of 3 rows"),
    ],
)
def test_models_on_different_images_are_not_compared(change: dict[str, np.ndarray], message: str) -> None:
    one = of_answers([0, 1, 2], [0, 1, 2])
    with pytest.raises(ConfigError, match=message):
        compare(one, dataclasses.replace(one, **change))


def test_more_or_no_rows_are_not_compared() -> None:
    with pytest.raises(
        ConfigError, match=r"60 rows against 30; expected .* one\. Compare the same .* same split\.$"
    ):
        compare(toy(), toy(n=30))
    with pytest.raises(ConfigError, match="0 rows against 0"):
        compare(toy(n=0), toy(n=0))


def test_patients_of_each_class_are_counted_once() -> None:
    found = describe(of_answers([0, 0, 1, 2, 2, 2], [0, 0, 1, 2, 2, 2], [1, 1, 1, 2, 2, 3]))
    assert found["patients_per_class"] == dict(zip(PAPER_CLASSES, (1, 1, 2), strict=True))


def of_two_hospitals(n: int = 300) -> Predictions:
    """Hospital b has most cases of COVID-19; the model knows the hospital, and nothing of the disease."""
    rng = np.random.default_rng(0)
    is_b = rng.random(n) < 0.5
    labels = np.where(rng.random(n) < np.where(is_b, 0.8, 0.05), COVID19, NORMAL)
    logits = rng.normal(size=(n, 3)) + np.outer(3 * is_b, [0, 0, 1])
    return dataclasses.replace(
        table(labels, logits.astype(np.float32)), source=np.where(is_b, "hospital b", "hospital a")
    )


def test_who_knows_the_hospital_only_has_a_high_auroc_over_all_and_none_within_sources() -> None:
    predictions = of_two_hospitals()
    pooled = metrics.describe(predictions)["per_class"]["COVID-19"]["auroc"]
    within = within_source(predictions)["COVID-19"]
    assert pooled > 0.8
    assert within["interval"][0] < 0.5 < within["interval"][1] < 0.7


def test_the_auroc_within_sources_is_the_mean_of_theirs_by_pairs() -> None:
    predictions = of_two_hospitals()
    found = within_source(predictions)["COVID-19"]
    won = pairs = 0.0
    for part in predictions.by_source().values():
        is_case = part.label == COVID19
        own = is_case.sum() * (~is_case).sum()
        won += own * roc_auc_score(is_case, part.probabilities[:, COVID19])
        pairs += own
    assert found["auroc"] == pytest.approx(won / pairs)
    assert (found["sources"], found["pairs"]) == (2, pairs)


def test_the_auroc_within_sources_worked_out_by_hand() -> None:
    """A has one case above both of its others, B one below its other, C cases only: 2 of 3 pairs."""
    scores = np.array([0.9, 0.1, 0.8, 0.2, 0.3, 0.5, 0.6])
    labels = np.where([1, 0, 0, 1, 0, 1, 1], COVID19, NORMAL)
    rest = (1 - scores) / 2
    predictions = dataclasses.replace(
        table(labels, np.log(np.stack([rest, rest, scores], axis=1)).astype(np.float32)),
        source=np.array([*"aaabbcc"]),
    )
    found = within_source(predictions)["COVID-19"]
    assert found == {"auroc": pytest.approx(2 / 3), "interval": found["interval"], "sources": 2, "pairs": 3}


def test_a_class_that_no_source_has_beside_another_has_no_auroc_within() -> None:
    labels = np.repeat([NORMAL, COVID19], 5)
    predictions = dataclasses.replace(of_answers(labels, labels), source=np.repeat(["a", "b"], 5))
    found = within_source(predictions)["COVID-19"]
    assert found == {"auroc": None, "interval": None, "sources": 0, "pairs": 0}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_two_classes_have_their_intervals_too() -> None:
    two = dataclasses.replace(
        toy(), classes=("Normal", "Tuberculosis"), label=toy().label % 2, logits=toy().logits[:, :2]
    )
    numbers, intervals = flat(metrics.describe(two)), flat(describe(two)["intervals"])
    assert set(numbers) == set(intervals)
    assert all(low <= numbers[name] <= high for name, (low, high) in intervals.items())
