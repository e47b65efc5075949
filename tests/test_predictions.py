"""The table of predictions: what is written is what is read, and nothing wrong gets in or out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xray_hf.errors import BundleError, ConfigError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.task import PAPER_CLASSES


def toy() -> Predictions:
    """One row of train, one of validation, two of the official test set, one COVID-19 image moved to test."""
    return Predictions(
        classes=PAPER_CLASSES,
        source=np.array("clinic"),
        site=np.array(["", "NIH", "NIH", "", "Cohen"]),
        file_name=np.array(["a.jpeg", "b.jpeg", "c.jpeg", "d.jpeg", "é e.png"]),
        patient_id=np.array(["p1", "p2", "p3", "p3", "p4"]),
        split=np.array(["train", "validation", "test", "test", "test"]),
        official_split=np.array(["TRAIN", "TRAIN", "TEST", "TEST", "TRAIN"]),
        label=np.array([0, 1, 0, 1, 2]),
        logits=np.array([[3, 1, 2], [0, 5, 0], [1, 2, 0], [-1, 4, 1], [0, 0, 9]], dtype=np.float32),
        decision=np.array(["Normal", "Pneumonia", "unsure", "Pneumonia", "COVID-19"]),
        calibration="abc",
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    toy().write(tmp_path / "predictions.parquet")
    read = Predictions.read(tmp_path / "predictions.parquet")
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(toy(), field.name))
    assert read.logits.dtype == np.float32
    assert read.label.dtype == np.int64


def test_a_rejection_of_an_older_table_is_read_by_its_new_name(tmp_path: Path) -> None:
    older = ["Normal", "not a frontal chest X-ray", "unsure", "Pneumonia", "COVID-19"]
    dataclasses.replace(toy(), decision=np.array(older)).write(tmp_path / "p.parquet")
    found = Predictions.read(tmp_path / "p.parquet").decision.tolist()
    assert found == ["Normal", "rejected", *older[2:]]


def test_the_file_explains_itself(tmp_path: Path) -> None:
    toy().write(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert json.loads(table.schema.metadata[b"xray_hf"]) == {
        "classes": ["Normal", "Pneumonia", "COVID-19"],
        "calibration": "abc",
    }
    assert table["source"].to_pylist() == ["clinic"] * 5
    assert table["label"].to_pylist() == ["Normal", "Pneumonia", "Normal", "Pneumonia", "COVID-19"]


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("1.parquet", "2.parquet"):
        toy().write(tmp_path / name)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_no_rows_are_a_table_too(tmp_path: Path) -> None:
    toy().select("train").select("test").write(tmp_path / "p.parquet")
    assert len(Predictions.read(tmp_path / "p.parquet")) == 0


def test_probabilities_are_the_softmax_and_survive_large_logits() -> None:
    np.testing.assert_allclose(toy().probabilities[0], np.exp([3, 1, 2]) / np.exp([3, 1, 2]).sum())
    huge = dataclasses.replace(toy(), logits=np.full((5, 3), 3e38, dtype=np.float32))
    np.testing.assert_allclose(huge.probabilities, 1 / 3)
    assert huge.probabilities.dtype == np.float64


def test_the_highest_logit_is_the_prediction() -> None:
    assert toy().predicted.tolist() == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("subset", "files"),
    [
        ("train", ["a.jpeg"]),
        ("validation", ["b.jpeg"]),
        ("test", ["c.jpeg", "d.jpeg", "é e.png"]),
        ("test_official", ["c.jpeg", "d.jpeg"]),
        ("external", []),
    ],
)
def test_a_subset_holds_its_rows(subset: str, files: list[str]) -> None:
    assert toy().select(subset).file_name.tolist() == files


def test_an_unknown_subset_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="'dev'; choose one of train, validation, test, test_official, external"
    ):
        toy().select("dev")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_not_written(tmp_path: Path, value: float) -> None:
    logits = toy().logits.copy()
    logits[3, 1] = value
    with pytest.raises(BundleError, match=r"1 of 5 rows .* not finite, first: d\.jpeg"):
        dataclasses.replace(toy(), logits=logits).write(tmp_path / "p.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros((5, 2), np.float32)}, r"logits has shape \(5, 2\), expected \(5, 3\)"),
        ({"patient_id": np.array(["p1"])}, r"patient_id has shape \(1,\), expected \(5,\)"),
        ({"label": np.array([0, 1, 2, 3, 0])}, "label holds 3"),
        ({"split": np.array(["val"] * 5)}, "split holds 'val', expected one of"),
        ({"official_split": np.array(["test"] * 5)}, "official_split holds 'test'"),
    ],
)
def test_wrong_columns_are_not_written(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        dataclasses.replace(toy(), **changes).write(tmp_path / "p.parquet")


def rewritten(path: Path, name: str, column: pa.Array) -> Path:
    """The toy table at `path`, with one column replaced."""
    toy().write(path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), path)
    return path


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("label", pa.array(["Normal", "COVID", *PAPER_CLASSES]), "label holds 'COVID', expected one of"),
        ("label", pa.array([0, 1, 2, 0, 1]), "column label is int64, expected string"),
        ("label", pa.array([None, *PAPER_CLASSES, "Normal"]), "1 rows have no label"),
        ("split", pa.array(["dev"] * 5), "split holds 'dev'"),
        ("logits", pa.array([[0.0, 1.0]] * 5), "column logits is list"),
        ("logits", pa.array([[0, 1, None]] * 5, pa.list_(pa.float32(), 3)), "5 of 5 rows .* not finite"),
    ],
)
def test_a_changed_table_is_not_read(tmp_path: Path, name: str, column: pa.Array, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Predictions.read(rewritten(tmp_path / "p.parquet", name, column))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    toy().write(tmp_path / "p.parquet")
    pq.write_table(pq.read_table(tmp_path / "p.parquet").drop_columns("patient_id"), tmp_path / "p.parquet")
    with pytest.raises(
        BundleError, match="column patient_id is missing, expected string; fetch the bundle again"
    ):
        Predictions.read(tmp_path / "p.parquet")


def test_a_table_of_five_classes_is_read_as_it_was_written(tmp_path: Path) -> None:
    classes = ("No finding", "Effusion", "Mass", "Nodule", "Hernia")
    names = np.array(["a", "b", "c"])
    label, logits = np.array([4, 0, 2]), np.eye(5, dtype=np.float32)[[4, 0, 1]]
    table = Predictions(
        classes=classes,
        file_name=names,
        source=np.array(["nih", "clinic", "nih"]),
        patient_id=names,
        split=np.array("external"),
        label=label,
        logits=logits,
    )
    table.write(tmp_path / "p.parquet")
    read = Predictions.read(tmp_path / "p.parquet")
    assert read.classes == classes
    assert read.predicted.tolist() == [4, 0, 1]
    assert (read.site.tolist(), read.decision.tolist(), read.calibration) == ([""] * 3, [""] * 3, "")
    assert {name: len(part) for name, part in read.by_source().items()} == {"clinic": 1, "nih": 2}


def written_before_there_were_sources(path: Path, **more: pa.Array) -> Path:
    texts = {name: getattr(toy(), name).tolist() for name in ("file_name", "patient_id", "split")}
    texts["official_split"] = toy().official_split.tolist()
    labels = [PAPER_CLASSES[label] for label in toy().label]
    logits = pa.array(list(toy().logits), pa.list_(pa.float32(), 3))
    pq.write_table(pa.table({**texts, "label": labels, "logits": logits, **more}), path)
    return path


def test_a_table_from_before_there_were_sources_has_the_papers_classes(tmp_path: Path) -> None:
    read = Predictions.read(written_before_there_were_sources(tmp_path / "p.parquet"))
    assert read.classes == PAPER_CLASSES
    assert set(read.source) == {"coronahack"}
    assert set(read.site) == set(read.decision) == {""}
    np.testing.assert_array_equal(read.logits, toy().logits)


def test_an_external_record_from_before_keeps_its_decisions_and_their_one_calibration(tmp_path: Path) -> None:
    decision = pa.array(toy().decision.tolist())
    path = written_before_there_were_sources(
        tmp_path / "p.parquet", decision=decision, calibration=pa.array(["abc"] * 5)
    )
    read = Predictions.read(path)
    assert (read.decision.tolist(), read.calibration) == (toy().decision.tolist(), "abc")
    written_before_there_were_sources(path, decision=decision, calibration=pa.array([*"aaaab"]))
    with pytest.raises(BundleError, match="has decisions of 2 calibrations"):
        Predictions.read(path)


@pytest.mark.parametrize("meta", [b"{", b"[]", b'{"classes": ["A"]}', b'{"classes": ["A", "A"]}', b"{}"])
def test_damaged_metadata_is_one_clear_error(tmp_path: Path, meta: bytes) -> None:
    toy().write(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet").replace_schema_metadata({b"xray_hf": meta})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(BundleError, match=r"has damaged metadata .*; fetch the bundle again"):
        Predictions.read(tmp_path / "p.parquet")


def test_classes_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected different names"):
        dataclasses.replace(toy(), classes=("Normal", "Normal", "COVID-19"))
    with pytest.raises(ConfigError, match="the class 'a, b' has a comma, which separates classes"):
        dataclasses.replace(toy(), classes=("Normal", "a, b", "COVID-19"))
    with pytest.raises(ConfigError, match="one class only"):
        dataclasses.replace(toy(), classes=("Normal",))
    with pytest.raises(ConfigError, match="'rejected' has the name of an answer without a class; rename it"):
        dataclasses.replace(toy(), classes=("Normal", "rejected", "COVID-19"))


def test_no_file_and_no_parquet_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no .*p\.parquet"):
        Predictions.read(tmp_path / "p.parquet")
    (tmp_path / "p.parquet").write_text("file_name,label\n")
    with pytest.raises(BundleError, match="cannot be read as Parquet"):
        Predictions.read(tmp_path / "p.parquet")
