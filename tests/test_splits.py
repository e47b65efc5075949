"""Both protocols: what they keep apart, what they share, and that a written split is the split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opening import open_coronahack

from xray_hf.data import splits
from xray_hf.data.cache import Joined
from xray_hf.data.dataset import XrayData, split_data
from xray_hf.data.groups import patient_groups
from xray_hf.data.sample import Sample, SourceReport, labels_of
from xray_hf.errors import ConfigError, DataError
from xray_hf.files import write_json
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA, SPLITS


def sample(name: str, label: str, patient: str, official: str = "", source: str = "coronahack") -> Sample:
    return Sample(name, Path(name), source, (label,), patient, label=label, official_split=official)


def toy(
    normal: int = 60, pneumonia: int = 140, covid: int = 24, test: int = 40
) -> tuple[list[Sample], np.ndarray]:
    """Records without files, two images a patient, and their groups; some patients are near-duplicates.

    `test` of the Normal and Pneumonia images are official TEST.
    """
    labels = [NORMAL] * normal + [PNEUMONIA] * pneumonia + [COVID19] * covid
    samples = []
    for row, label in enumerate(labels):
        official = (
            "TEST"
            if label != COVID19 and row % (normal + pneumonia) % 10 < 10 * test // (normal + pneumonia)
            else "TRAIN"
        )
        name = f"{PAPER_CLASSES[label]}-{row}.png"
        patient = f"{official}-{PAPER_CLASSES[label]}-{row // 2}"
        samples.append(sample(name, PAPER_CLASSES[label], patient, official))
    # Joins a COVID-19 patient with another, and an official TEST image with a TRAIN one of the same class.
    pairs = [(0, 9), (normal + pneumonia, normal + pneumonia + 2)][: 2 if covid else 1]
    return samples, patient_groups([record.patient_id for record in samples], pairs)


def toy_with_classes() -> tuple[list[Sample], tuple[str, ...], np.ndarray]:
    samples, groups = toy()
    return samples, PAPER_CLASSES, groups


def two_sources(twins: int = 0) -> tuple[list[Sample], tuple[str, ...], np.ndarray]:
    """A hospital's 80 images and a clinic's 60; `twins` of the clinic's show patients of the hospital."""
    classes = ("Normal", "Tuberculosis")
    samples = [
        sample(f"{k}.png", classes[k % 3 == 0], f"{source}-{0 if k < twins else source}-{k}", source=source)
        for source, images in (("hospital", 80), ("clinic", 60))
        for k in range(images)
    ]
    pairs = [(k, 80 + k) for k in range(twins)]
    return samples, classes, patient_groups([each.patient_id for each in samples], pairs)


def make_split(
    protocol: str,
    samples: list[Sample],
    classes: tuple[str, ...],
    groups: np.ndarray,
    seed: int,
    **options: Any,
) -> splits.Split:
    """Split samples without pixels as a run splits its data."""
    reports = [SourceReport(name, "") for name in dict.fromkeys(each.source for each in samples)]
    data = XrayData(samples, classes, labels_of(samples, classes), Joined([]), 32, groups, [], reports)
    return split_data(data, protocol, seed, **options)


@pytest.fixture(scope="module")
def real(real_data: Path) -> XrayData:
    return open_coronahack(real_data, 32)


@pytest.mark.parametrize("seed", range(40))
def test_grouped_shares_no_image_patient_or_near_duplicate(seed: int) -> None:
    samples, groups = toy()
    split = make_split("grouped", samples, PAPER_CLASSES, groups, seed)
    description = splits.describe(split, samples, PAPER_CLASSES, groups)
    assert all(number == 0 for shared in description["overlap"].values() for number in shared.values())
    assert description["leak"]["image"]["all"] == description["leak"]["patient"]["all"] == 0
    splits.require_disjoint(description)
    # Every row is used once and nothing is copied.
    rows = np.concatenate([split.rows(name) for name in SPLITS])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(samples)))


@pytest.mark.parametrize("seed", range(40))
def test_grouped_keeps_the_official_test_and_moves_about_a_quarter_of_covid(seed: int) -> None:
    samples, groups = toy()
    split = splits.grouped(samples, PAPER_CLASSES, groups, seed)
    official = {row for row, record in enumerate(samples) if record.official_split == "TEST"}
    assert official <= set(split.test.tolist())
    moved = [row for row in split.test if samples[row].label == "COVID-19"]
    assert 4 <= len(moved) <= 6  # of 24, in groups of 2 and 4
    # What else is in test shares a group with an official test image.
    others = set(split.test.tolist()) - official - set(moved)
    assert {int(groups[row]) for row in others} <= {int(groups[row]) for row in official}


@pytest.mark.parametrize("seed", range(10))
def test_grouped_draws_validation_within_each_class(seed: int) -> None:
    samples, groups = toy()
    labels = labels_of(samples, PAPER_CLASSES)
    split = splits.grouped(samples, PAPER_CLASSES, groups, seed)
    for label in range(len(PAPER_CLASSES)):
        in_validation = len(np.unique(groups[split.validation][labels[split.validation] == label]))
        in_train = len(np.unique(groups[split.train][labels[split.train] == label]))
        assert in_validation == round(0.15 * (in_validation + in_train))


def test_folds_share_the_test_and_no_validation_group() -> None:
    samples, groups = toy()
    folds = [
        make_split("grouped", samples, PAPER_CLASSES, groups, 1, fold=fold) for fold in range(splits.FOLDS)
    ]
    seen: set[int] = set()
    for split in folds:
        np.testing.assert_array_equal(split.test, folds[0].test)
        splits.require_disjoint(splits.describe(split, samples, PAPER_CLASSES, groups))
        own = set(groups[split.validation].tolist())
        assert own
        assert not own & seen
        seen |= own


def test_a_fold_that_a_small_class_does_not_reach_names_it() -> None:
    """Of five patients with tuberculosis, one goes to test, and each of four folds has one."""
    classes = ("Normal", "Tuberculosis")
    samples = [sample(f"{k}.png", classes[k >= 60], f"p{k}", source="clinic") for k in range(65)]
    groups = np.arange(65)
    assert splits.grouped(samples, classes, groups, 0).fold == 0
    for fold in range(4):
        split = splits.grouped(samples, classes, groups, 0, fold=fold)
        assert sum(samples[row].label == "Tuberculosis" for row in split.validation) == 1
    message = "fold 4 has no Tuberculosis{}: there are 4 groups of it; use a lower --fold."
    with pytest.raises(ConfigError, match=f"^{message.format('')}$"):
        splits.grouped(samples, classes, groups, 0, fold=4)
    samples += [sample(f"{k}.png", "Normal", f"p{k}", source="hospital") for k in range(65, 130)]
    with pytest.raises(ConfigError, match=f"^{message.format(' of clinic')}$"):
        splits.grouped(samples, classes, np.arange(130), 0, fold=4)
    with pytest.raises(ConfigError, match=r"^fold is 6; expected 0 to 5\.$"):
        splits.grouped(samples, classes, np.arange(130), 0, fold=6)


@pytest.mark.parametrize(("protocol", "fold"), [("grouped", -1), ("grouped", splits.FOLDS), ("paper", 1)])
def test_a_fold_that_cannot_be_is_refused(protocol: str, fold: int) -> None:
    with pytest.raises(ConfigError, match="fold"):
        make_split(protocol, *toy_with_classes(), 0, fold=fold)


def test_a_fold_is_written_and_read_back(tmp_path: Path) -> None:
    samples, groups = toy()
    split = make_split("grouped", samples, PAPER_CLASSES, groups, 1, fold=2)
    write_json(tmp_path / "s.json", splits.as_dict(split, samples, PAPER_CLASSES, groups))
    again = splits.read(tmp_path / "s.json", samples)
    assert again.fold == 2
    saved = json.loads((tmp_path / "s.json").read_text())
    del saved["fold"], saved["hold_out"]  # as older files
    write_json(tmp_path / "s.json", saved)
    older = splits.read(tmp_path / "s.json", samples)
    assert (older.fold, older.hold_out) == (0, ())
    np.testing.assert_array_equal(again.validation, split.validation)


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_the_same_seed_gives_the_same_split_and_another_seed_another(protocol: str) -> None:
    samples, groups = toy()
    first, again, other = (make_split(protocol, samples, PAPER_CLASSES, groups, seed) for seed in (3, 3, 4))
    for name in SPLITS:
        np.testing.assert_array_equal(first.rows(name), again.rows(name))
    assert first.train.tolist() != other.train.tolist()
    assert first.test.tolist() != other.test.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_paper_has_the_papers_steps(seed: int) -> None:
    samples, groups = toy()
    labels = labels_of(samples, PAPER_CLASSES)
    split = make_split("paper", samples, PAPER_CLASSES, groups, seed)
    assert np.count_nonzero(labels[split.test] == COVID19) == 6  # int(0.25 × 24)
    official = [row for row, each in enumerate(samples) if each.official_split == "TEST"]
    assert set(official) < set(split.test.tolist())
    assert len(np.unique(split.test)) == len(split.test) == len(official) + 6
    rows = np.concatenate([split.train, split.validation])
    pool = np.setdiff1d(np.arange(len(samples)), split.test)
    largest = max(Counter(labels[pool].tolist()).values())
    # Upsampled to equal classes, every image of the pool at least once, then 15 % split off.
    assert Counter(labels[rows].tolist()) == dict.fromkeys(range(3), largest)
    assert set(rows.tolist()) == set(pool.tolist())
    assert len(split.validation) == int(0.15 * len(rows))
    assert not set(split.test.tolist()) & set(rows.tolist())


def test_paper_shows_its_leak() -> None:
    samples, groups = toy()
    description = splits.describe(
        make_split("paper", samples, PAPER_CLASSES, groups, 0), samples, PAPER_CLASSES, groups
    )
    assert description["overlap"]["train/validation"]["images"] > 0
    assert description["leak"]["image"]["COVID-19"] > 0.9
    assert "This protocol leaks" in splits.as_table(description)
    splits.require_disjoint(description)  # nothing is promised, so nothing is refused


def test_the_leak_is_counted_in_validation_rows() -> None:
    samples, groups = toy()
    first, second = np.array([100, 100, 102]), np.array([101, 102, 104])
    split = splits.Split("paper", 0, train=second, validation=first, test=np.array([0]))
    description = splits.describe(split, samples, PAPER_CLASSES, groups)
    # Rows 100 and 101 are of one patient, 102 and 103 of another.
    assert description["overlap"]["train/validation"] == {"images": 1, "patients": 2, "groups": 2}
    assert description["leak"]["image"]["Pneumonia"] == pytest.approx(1 / 3)
    assert description["leak"]["patient"]["Pneumonia"] == 1
    assert description["leak"]["image"]["COVID-19"] is None
    assert description["splits"]["validation"] == {
        "rows": 3,
        "images": 2,
        "patients": 2,
        "sources": {"coronahack": 3},
        "Normal": 0,
        "Pneumonia": 3,
        "COVID-19": 0,
    }


def test_the_table_counts_what_is_shared() -> None:
    samples, groups = toy()
    table = splits.as_table(
        splits.describe(
            make_split("grouped", samples, PAPER_CLASSES, groups, 0), samples, PAPER_CLASSES, groups
        )
    )
    assert [
        line.split()[1:] for line in table.splitlines() if line.startswith(("train/", "validation/"))
    ] == [["0", "0", "0"]] * 3


def test_the_table_is_laid_out_for_a_terminal() -> None:
    def counts(images: int, patients: int, sources: dict[str, int], *classes: int) -> dict[str, Any]:
        named = dict(zip(("Normal", "Tuberculosis"), classes, strict=True))
        return {"rows": images, "images": images, "patients": patients, "sources": sources, **named}

    description = {
        "protocol": "grouped",
        "seed": 3,
        "fold": 2,
        "hold_out": ["web"],
        "classes": ["Normal", "Tuberculosis"],
        "splits": {
            "train": counts(1200, 900, {"hospital": 1000, "web": 200}, 1000, 200),
            "external": counts(7, 5, {"web": 7}, 7, 0),
        },
        "left_out": 1,
        "overlap": {"train/external": {"images": 0, "patients": 1, "groups": 2}},
        "leak": {"image": {"Normal": 0.0, "Tuberculosis": None, "all": 0.5}},
    }
    assert (
        splits.as_table(description)
        == """\
protocol grouped, seed 3, fold 2
                            rows        images      patients        Normal  Tuberculosis
train                      1,200         1,200           900         1,000           200
external                       7             7             5             7             0

shared                    images      patients        groups
train/external                 0             1             2

validation rows with the same image or patient in train
                          Normal  Tuberculosis           all
image                         0%             -           50%

sources
train              hospital 1,000, web 200
external           web 7

1 image in no split: they share a patient or a picture with a held-out source."""
    )
    of_paper = {"protocol": "paper", "fold": 0, "hold_out": [], "classes": ["A"], "overlap": {}, "leak": {}}
    of_paper["splits"] = {"test": {"rows": 2, "images": 1, "patients": 1, "sources": {"web": 2}, "A": 2}}
    assert (
        splits.as_table(description | of_paper)
        == """\
protocol paper, seed 3
                         rows     images   patients          A
test                        2          1          1          2

shared                 images   patients     groups

validation rows with the same image or patient in train
                            A        all

1 image in no split: the splits file leaves them out.

This protocol leaks: validation accuracy under it says nothing about new patients."""
    )


def test_a_grouped_split_that_shares_a_patient_is_refused() -> None:
    samples, groups = toy()
    split = splits.Split("grouped", 0, np.array([100]), np.array([101]), np.array([0]))
    with pytest.raises(
        DataError,
        match=r"^train and validation have 1 patient and 1 group in common, although .*; split again\.$",
    ):
        splits.require_disjoint(splits.describe(split, samples, PAPER_CLASSES, groups))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'random'; expected one of grouped, paper"):
        make_split("random", *toy_with_classes(), 0)


@pytest.mark.parametrize("seed", range(10))
def test_sources_without_an_official_test_give_a_quarter_of_each_class(seed: int) -> None:
    samples, classes, groups = two_sources(twins=10)
    split = make_split("grouped", samples, classes, groups, seed)
    description = splits.describe(split, samples, classes, groups)
    splits.require_disjoint(description)
    for label in classes:
        n = sum(each.label == label for each in samples)
        # A twin comes along, whatever its own source has given.
        assert 0.15 * n <= description["splits"]["test"][label] <= 0.25 * n + 5
        assert description["splits"]["validation"][label] > 0
    assert set(description["splits"]["train"]["sources"]) == {"hospital", "clinic"}


def test_the_test_set_takes_a_quarter_to_the_image() -> None:
    classes = ("Normal", "Tuberculosis")
    samples = [sample(f"{k}.png", classes[k % 2], f"p{k}") for k in range(16)]
    split = splits.grouped(samples, classes, np.arange(16), 0)
    assert Counter(samples[row].label for row in split.test) == {"Normal": 2, "Tuberculosis": 2}


@pytest.mark.parametrize("classes", [("Normal", "Tuberculosis"), ("Tuberculosis", "Normal")])
@pytest.mark.parametrize("seed", range(3))
def test_a_mixed_group_counts_for_its_rarest_class(seed: int, classes: tuple[str, ...]) -> None:
    """Each patient with tuberculosis has a Normal image, too, among many who have no other."""
    samples = [sample(f"n{k}.png", "Normal", f"p{k}") for k in range(200)]
    samples += [sample(f"t{k}.png", "Tuberculosis", f"p{k}") for k in range(40)]
    groups = np.asarray([int(each.patient_id[1:]) for each in samples])
    split = splits.grouped(samples, classes, groups, seed)
    validation, train = (
        sum(samples[row].label == "Tuberculosis" for row in rows) for rows in (split.validation, split.train)
    )
    assert validation == round(0.15 * (validation + train))


@pytest.mark.parametrize("held_out", ["hospital", "clinic"])
def test_a_held_out_source_shares_nothing_with_the_rest(held_out: str, tmp_path: Path) -> None:
    samples, classes, groups = two_sources(twins=10)
    split = make_split("grouped", samples, classes, groups, 0, hold_out=[held_out])
    description = splits.describe(split, samples, classes, groups)
    splits.require_disjoint(description)
    assert description["splits"]["external"]["sources"] == {
        held_out: sum(each.source == held_out for each in samples)
    }
    assert all(
        held_out not in description["splits"][name]["sources"] for name in ("train", "validation", "test")
    )
    assert description["left_out"] == 10  # the twins in the other source
    assert "10 images in no split" in splits.as_table(description)
    write_json(tmp_path / "s.json", splits.as_dict(split, samples, classes, groups))
    again = splits.read(tmp_path / "s.json", samples)
    assert again.hold_out == (held_out,)
    for name in split.names:
        np.testing.assert_array_equal(again.rows(name), split.rows(name))


@pytest.mark.parametrize(
    ("hold_out", "words"),
    [
        (["elsewhere"], "--hold-out elsewhere is not one of the sources; expected hospital, clinic"),
        (["clinic", "hospital"], "leaves no source to train on"),
    ],
)
def test_what_cannot_be_held_out_is_refused(hold_out: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_split("grouped", *two_sources(), 0, hold_out=hold_out)


def test_a_class_of_the_held_out_source_alone_cannot_be_learnt() -> None:
    samples, classes, groups = two_sources()
    normal = [row for row, each in enumerate(samples) if each.source == "clinic" or each.label == "Normal"]
    with pytest.raises(
        DataError, match=r"^protocol grouped leaves no .* Tuberculosis for training; hold .* class\.$"
    ):
        make_split(
            "grouped", [samples[row] for row in normal], classes, groups[normal], 0, hold_out=["clinic"]
        )


def test_the_papers_protocol_is_for_coronahack() -> None:
    with pytest.raises(
        ConfigError, match=r"protocol paper is CoronaHack's.*got clinic, hospital with Normal"
    ):
        make_split("paper", *two_sources(), 0)


@pytest.mark.parametrize("change", ["a second source", "other classes", "no official part"])
def test_the_papers_protocol_wants_all_that_coronahack_has(change: str) -> None:
    samples, _ = toy()
    classes = (*PAPER_CLASSES[:2], "Mass") if change == "other classes" else PAPER_CLASSES
    if change == "a second source":
        samples[0] = replace(samples[0], source="clinic")
    if change == "other classes":
        samples = [replace(each, label="Mass") if each.label == "COVID-19" else each for each in samples]
    if change == "no official part":
        samples[0] = replace(samples[0], official_split="")
    with pytest.raises(
        ConfigError, match=f"with its classes Normal, Pneumonia, COVID-19; .* with {', '.join(classes)}\\."
    ):
        splits.paper(samples, classes, 0)


def test_a_splits_json_of_before_there_were_sources_is_read(tmp_path: Path) -> None:
    samples, groups = toy()
    split = make_split("grouped", samples, PAPER_CLASSES, groups, 1)
    saved = splits.as_dict(split, samples, PAPER_CLASSES, groups)
    old = {**saved, "files": {name: own["coronahack"] for name, own in saved["files"].items()}}
    write_json(tmp_path / "s.json", old)
    again = splits.read(tmp_path / "s.json", samples)
    for name in SPLITS:
        np.testing.assert_array_equal(again.rows(name), split.rows(name))
    with pytest.raises(DataError, match=": it names no sources, and this run has several; write"):
        splits.read(tmp_path / "s.json", [*samples, sample("x.png", "Normal", "p", source="clinic")])


@pytest.mark.parametrize(("protocol", "part"), [("grouped", "TEST"), ("paper", "TRAIN"), ("paper", "TEST")])
def test_a_set_without_train_or_test_is_refused(protocol: str, part: str) -> None:
    samples, groups = toy(covid=0)
    rows = [row for row, record in enumerate(samples) if record.official_split == part]
    message = (
        rf"protocol {protocol} leaves nothing for (train|test) out of {len(rows)} images; the data set is "
    )
    with pytest.raises(DataError, match=rf"^{message}too small or lacks one of TRAIN and TEST\.$"):
        make_split(protocol, [samples[row] for row in rows], PAPER_CLASSES, groups[rows], 0)


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_splits_json_gives_the_same_split_back_in_any_order_of_records(protocol: str, tmp_path: Path) -> None:
    samples, groups = toy()
    split = make_split(protocol, samples, PAPER_CLASSES, groups, 5)
    write_json(tmp_path / "splits.json", splits.as_dict(split, samples, PAPER_CLASSES, groups))
    order = np.random.default_rng(0).permutation(len(samples))
    shuffled = [samples[row] for row in order]
    for known in (samples, shuffled):
        read = splits.read(tmp_path / "splits.json", known)
        assert (read.protocol, read.seed) == (protocol, 5)
        for name in SPLITS:
            before = Counter(samples[row].file_name for row in split.rows(name))
            assert Counter(known[row].file_name for row in read.rows(name)) == before
            assert read.rows(name).dtype == np.int64
            assert (np.diff(read.rows(name)) >= 0).all()
    for name in SPLITS:
        np.testing.assert_array_equal(
            splits.read(tmp_path / "splits.json", samples).rows(name), split.rows(name)
        )


def test_splits_json_of_another_data_set_is_refused(tmp_path: Path) -> None:
    samples, groups = toy()
    write_json(
        tmp_path / "s.json",
        splits.as_dict(splits.grouped(samples, PAPER_CLASSES, groups, 0), samples, PAPER_CLASSES, groups),
    )
    with pytest.raises(
        DataError, match=r"names 2 images that the sources of this run lack \(first: coronahack/.*\.png\)"
    ):
        splits.read(tmp_path / "s.json", samples[:-2])
    with pytest.raises(DataError, match="names 1 image that"):
        splits.read(tmp_path / "s.json", samples[:-1])


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda saved: {name: value for name, value in saved.items() if name != key}


def _with_files(**files: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda saved: {**saved, "files": {**saved["files"], **files}}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without("files"), "it lacks 'files'"),
        (_without("protocol"), "it lacks 'protocol'"),
        (_with_files(train=["Normal-1.png"]), "train is not an object of sources and file names"),
        (
            _with_files(train={"coronahack": {"Normal-1.png": -1}}),
            "train has -1 as the number of copies of Normal-1.png, expected 1 or more",
        ),
        (
            _with_files(train={"coronahack": {"a.png": "twice"}}),
            "train has 'twice' as the number of copies of a.png, expected 1 or more",
        ),
        (
            _with_files(train={"coronahack": {"Normal-1.png": 0.5}}),
            "train has 0.5 as the number of copies of Normal-1.png, expected 1 or more",
        ),
        (_with_files(train={"coronahack": {}}), "train is not an object of sources and file names"),
        (_with_files(validation={}), "validation names no image"),
        (lambda saved: {**saved, "files": ["a.png"]}, "files is a list, expected dict"),
        (lambda saved: {**saved, "seed": "zero"}, "seed is a str, expected int"),
        (lambda saved: {**saved, "seed": None}, "seed is a NoneType, expected int"),
        (lambda saved: {**saved, "protocol": "random"}, "protocol is 'random'"),
        (lambda saved: [saved], "it is not a JSON object"),
        (lambda saved: None, "it is not a JSON object"),
    ],
)
def test_a_damaged_splits_json_is_refused(
    damage: Callable[[dict[str, Any]], Any], reason: str, tmp_path: Path
) -> None:
    samples, groups = toy()
    saved = splits.as_dict(splits.grouped(samples, PAPER_CLASSES, groups, 0), samples, PAPER_CLASSES, groups)
    (tmp_path / "s.json").write_text(json.dumps(damage(saved)))
    with pytest.raises(DataError) as found:
        splits.read(tmp_path / "s.json", samples)
    assert f"s.json is not a valid splits.json: {reason}; write one with `xray-hf splits" in str(found.value)


@pytest.mark.parametrize("content", [b"", b'{"files": ', b"\xff\xfe"])
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(DataError, match=r"not a valid splits\.json"):
        splits.read(tmp_path / "s.json", [])


def test_a_missing_splits_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json does not exist; write one"):
        splits.read(tmp_path / "gone.json", [])


def test_a_split_file_that_breaks_its_promise_is_refused(synthetic: Path, tmp_path: Path) -> None:
    data = open_coronahack(synthetic, 32)
    patients = [record.patient_id for record in data.samples]
    twice = next(p for p, n in Counter(patients).items() if n > 1)
    one, other = [row for row, patient in enumerate(patients) if patient == twice][:2]
    rest = np.setdiff1d(np.arange(len(patients)), [one, other])
    split = splits.Split("grouped", 0, np.array([one, *rest[1:]]), np.array([other]), rest[:1])
    write_json(tmp_path / "s.json", splits.as_dict(split, data.samples, data.classes, data.groups))
    with pytest.raises(DataError, match="although the protocol is grouped"):
        split_data(data, "grouped", 0, tmp_path / "s.json")


@pytest.mark.exhaustive
@pytest.mark.real
def test_paper_on_the_real_set_has_the_counts_behind_its_percentages(real: XrayData) -> None:
    split = split_data(real, "paper", 0)
    assert [len(split.rows(name)) for name in SPLITS] == [9910, 1748, 638]
    description = splits.describe(split, real.samples, real.classes, real.groups)
    assert description["splits"]["test"]["COVID-19"] == 14
    assert description["leak"]["image"]["all"] == pytest.approx(0.62, abs=0.02)
    assert description["leak"]["image"]["Pneumonia"] == 0
    assert description["leak"]["image"]["COVID-19"] == 1
    assert description["leak"]["patient"]["all"] == pytest.approx(0.90, abs=0.03)


@pytest.mark.exhaustive
@pytest.mark.real
@pytest.mark.parametrize("seed", range(3))
def test_grouped_on_the_real_set_keeps_patients_apart(real: XrayData, seed: int) -> None:
    split = split_data(real, "grouped", seed)
    counts = splits.describe(split, real.samples, real.classes, real.groups)["splits"]
    assert 12 <= counts["test"]["COVID-19"] <= 16
    assert counts["test"]["Normal"] == 234
    assert counts["test"]["Pneumonia"] == 390
    assert sum(counts[name]["rows"] for name in SPLITS) == 5910
    assert (
        0.12 < counts["validation"]["rows"] / (counts["validation"]["rows"] + counts["train"]["rows"]) < 0.18
    )
    assert counts["validation"]["COVID-19"] > 0


@pytest.mark.exhaustive
@pytest.mark.real
@pytest.mark.parametrize("model", ["xray-cnn", "xray-resnet18"])
def test_the_shipped_models_split_is_still_that_of_its_seed(real: XrayData, model: str) -> None:
    path = Path(__file__).resolve().parents[1] / "pretrained" / model / "splits.json"
    shipped, now = splits.read(path, real.samples), split_data(real, "grouped", 0)
    for name in SPLITS:
        np.testing.assert_array_equal(shipped.rows(name), now.rows(name))


def test_a_splits_file_and_another_source_to_hold_out_contradict(tmp_path: Path, synthetic: Path) -> None:
    """The source would be trained on, and its numbers be taken for external ones."""
    data = open_coronahack(synthetic, 32)
    split = split_data(data, "grouped", 0)
    path = tmp_path / "splits.json"
    write_json(path, splits.as_dict(split, data.samples, data.classes, data.groups))
    with pytest.raises(ConfigError, match=r"coronahack is not what .* holds out, no source"):
        split_data(data, "grouped", 0, path, hold_out=["coronahack"])


def test_images_that_a_splits_file_does_not_name_are_not_said_to_be_twins() -> None:
    samples, classes, groups = two_sources()
    split = make_split("grouped", samples, classes, groups, 0)
    fewer = replace(split, train=split.train[1:])
    text = splits.as_table(splits.describe(fewer, samples, classes, groups))
    assert "1 image in no split: the splits file leaves them out." in text
