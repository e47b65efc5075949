"""The controls count what they say, and the report leaves records from which its views are drawn."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from opening import open_coronahack
from sklearn.metrics import roc_auc_score

from xray_hf import cli, evidence, manifest
from xray_hf.data import splits
from xray_hf.data.dataset import XrayData, split_data
from xray_hf.data.sources.coronahack import CSV_NAME, IMAGE_FOLDER
from xray_hf.errors import BundleError, ConfigError, DataError
from xray_hf.evaluation import controls
from xray_hf.evaluation.controls import TwoSites, auroc_interval
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.inference.report import SHEET, report
from xray_hf.report import terminal
from xray_hf.report.report import Report
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA, SPLITS
from xray_hf.views import VIEWS

WEB_IMAGES = 6  # of the class Pneumonia
SECTIONS = {"controls", "subgroups", "duplicates", "heatmap", "source", "label_noise"}


def predictions_of(labels: list[int], called: list[int], splits_: str | list[str] = "test") -> Predictions:
    n = len(labels)
    names = np.asarray([f"{row}.png" for row in range(n)])
    logits = 3 * np.eye(3, dtype=np.float32)[called]
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=names,
        source=np.asarray("coronahack"),
        patient_id=names,
        split=np.asarray(splits_),
        label=np.asarray(labels),
        logits=logits,
    )


def rows_of(n: int, **columns: list) -> dict[str, np.ndarray]:
    """Columns of test.parquet; those not given say nothing."""
    texts = {name: np.full(n, "") for name in ("view_position", "pathogen", "same_as")}
    heat = {name: np.full(n, np.nan) for name in ("heat_lungs", "heat_border")}
    return {**texts, **heat, **{name: np.asarray(values) for name, values in columns.items()}}


def test_subgroups_count_their_own_rows() -> None:
    test = predictions_of([1, 1, 1, 2, 0], [1, 0, 1, 2, 0])
    rows = rows_of(
        5, pathogen=["bacteria", "bacteria", "Virus", "Virus", ""], view_position=["", "", "", "AP", ""]
    )
    found = controls.subgroups(test, rows)
    bacterial = found["pathogen"]["bacteria"]["classes"]
    of_two_patients = pytest.approx([0.0015, 0.9985], abs=1e-4)
    assert bacterial == {"Pneumonia": {"n": 2, "sensitivity": 0.5, "interval": of_two_patients}}
    assert found["pathogen"]["Virus"]["n"] == 1  # of Pneumonia: COVID-19 is a virus too
    assert list(found["view_position"]) == ["AP", "not recorded"]
    assert found["view_position"]["not recorded"]["accuracy"] == 0.75
    assert "sex and age" in found["left_out"]


def test_subgroups_are_those_that_a_source_tells_of() -> None:
    test = replace(predictions_of([0, 1, 0], [0, 0, 0]), site=np.array(["NIH", "NIH", "Cohen"]))
    rows = rows_of(3) | {"scanner": np.array(["CR", "", "DX"])}
    found = controls.subgroups(test, rows)
    assert list(found) == ["site", "scanner", "near_duplicate", "left_out"]
    assert {name: own["n"] for name, own in found["site"].items()} == {"Cohen": 1, "NIH": 2}
    assert list(found["scanner"]) == ["CR", "DX", "not recorded"]


def test_pictures_of_one_name_in_two_sources_are_no_repeats() -> None:
    test = predictions_of([0, 1], [0, 1])
    test = replace(test, file_name=np.array(["1.png", "1.png"]), source=np.array(["a", "b"]))
    assert controls.duplicates(test, rows_of(2))["repeated_pictures"] == 0


def test_a_repeated_picture_counts_once() -> None:
    test = predictions_of([1, 1, 1, 0], [1, 1, 0, 0])
    rows = rows_of(4, same_as=["0.png", "0.png", "elsewhere.png", ""])
    found = controls.duplicates(test, rows)
    assert found["repeated_pictures"] == 1
    assert (found["all_rows"]["n"], found["all_rows"]["accuracy"]) == (4, 0.75)
    assert (found["one_of_each"]["n"], found["one_of_each"]["accuracy"]) == (3, pytest.approx(2 / 3))
    groups = controls.subgroups(test, rows)["near_duplicate"]
    assert {name: own["n"] for name, own in groups.items()} == {"far": 1, "near": 3}


def test_heat_is_averaged_by_the_class_predicted() -> None:
    test = predictions_of([0, 0, 1], [1, 1, 0])
    found = controls.heatmap(test, rows_of(3, heat_lungs=[0.2, 0.4, 0.9], heat_border=[0.5, 0.3, 0.1]))
    assert found["per_class"]["Pneumonia"] == {
        "n": 2,
        "lungs": pytest.approx(0.3),
        "border": pytest.approx(0.4),
    }
    assert found["per_class"]["COVID-19"] == {"n": 0, "lungs": None, "border": None}
    lungs = {"heat_in_lungs": [0.2, np.nan, 0.7], "uniform_in_lungs": [0.4, np.nan, 0.6]}
    cropped = controls.heatmap(
        test, rows_of(3, heat_lungs=[0.2, 0.4, 0.9], heat_border=[0.5, 0.3, 0.1], **lungs)
    )
    assert (cropped["per_class"]["Pneumonia"]["n"], cropped["per_class"]["Pneumonia"]["in_lungs"]) == (1, 0.2)
    assert cropped["uniform"]["in_lungs"] == pytest.approx(0.5)
    without = controls.heatmap(test, rows_of(3))["per_class"]
    assert {own["n"] for own in without.values()} == {0}


def test_the_least_believed_label_comes_first_and_no_right_one_is_named() -> None:
    test = predictions_of([0, 1, 2, 1], [0, 0, 1, 2])
    test.logits[:] *= np.asarray([[1], [2], [3], [1]], np.float32)
    found = controls.label_noise(test)["worst"]
    assert [each["file_name"] for each in found] == ["2.png", "1.png", "3.png"]
    assert (found[0]["label"], found[0]["predicted"]) == ("COVID-19", "Pneumonia")
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1)


def test_a_label_is_in_doubt_where_another_class_is_as_likely_as_in_its_own_rows() -> None:
    test = predictions_of([0, 0, 1, 1], [0, 0, 0, 1])
    test.logits[:] = np.log([[0.9, 0.05, 0.05], [0.7, 0.2, 0.1], [0.85, 0.1, 0.05], [0.1, 0.8, 0.1]])
    # Mean probability of its own rows: Normal 0.8, Pneumonia 0.45; of COVID-19 there are none.
    assert controls.confident_classes(test).tolist() == [0, -1, 0, 1]
    found = controls.label_noise(test)
    assert found["joint"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert (found["without_doubted"]["n"], found["without_doubted"]["accuracy"]) == (3, 1.0)


def source_rows(scores: list[float], patients: list[int], web: int) -> dict[str, np.ndarray]:
    n = len(scores)
    columns = {name: np.asarray(scores) for name in controls.FEATURES}
    names = np.asarray([f"{row}.png" for row in range(n)])
    return {
        "file_name": names,
        "source": np.full(n, "coronahack"),
        "patient": np.asarray(patients),
        "is_web": np.arange(n) < web,
        **columns,
    }


SITES = TwoSites("Pneumonia", "Cohen", "Kermany", "COVID-19")


def test_the_class_with_most_images_of_a_second_site_is_asked_about() -> None:
    classes = ("Normal", "Effusion", "Mass")
    labels = np.repeat([0, 0, 1, 1, 2], [9, 2, 5, 4, 8])
    sites = np.repeat(["NIH", "Cohen", "NIH", "Cohen", "NIH"], [9, 2, 5, 4, 8])
    assert TwoSites.choose(labels, sites, classes) == TwoSites("Effusion", "Cohen", "NIH", "Normal")


def test_where_no_class_has_two_sites_the_second_is_nobody() -> None:
    labels, sites = np.repeat([0, 1], [2, 3]), np.repeat(["a", "b"], [2, 3])
    assert TwoSites.choose(labels, sites, ("Normal", "Mass")) == TwoSites("Mass", "", "b", "Normal")


def test_the_images_asked_about_of_a_source_are_found_by_source_and_name() -> None:
    table = predictions_of([1, 1], [2, 2])
    table = replace(table, file_name=np.array(["0.png", "0.png"]), source=np.array(["coronahack", "other"]))
    found = controls.source(table, source_rows([2, -1], [0, 1], web=1), SITES)
    assert found["web_called_covid"]["test"] == {"images": 1, "called": 1}


def test_web_pneumonia_called_covid_is_counted_by_split_without_copies() -> None:
    split = ["train", "train", "test", "train"]
    table = predictions_of([1] * 4, [2, 1, 2, 2], split)
    table.file_name[3] = "0.png"  # the paper's protocol copies rows
    found = controls.source(table, source_rows([2, 1, 3, -1, -2], [0, 0, 1, 2, 3], web=3), SITES)
    assert found["web_called_covid"] == {
        "train": {"images": 2, "called": 1},
        "validation": {"images": 0, "called": 0},
        "test": {"images": 1, "called": 1},
    }
    assert found["web"] == {"images": 3, "patients": 2}
    assert (found["class"], found["called"]) == ("Pneumonia", "COVID-19")
    assert found["sites"] == {"web": "Cohen", "children": "Kermany"}
    assert found["auroc"]["embedding"] == {"value": 1, "interval": [1, 1]}


def test_the_area_is_sklearns_and_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    truth, patients = np.arange(60) < 12, np.arange(60) // 2
    scores = np.round(rng.normal(size=60) + truth, 1)  # with ties
    found = auroc_interval(truth, scores, patients)
    assert found is not None
    assert found["value"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["interval"][0] < found["value"] < found["interval"][1]
    alone = auroc_interval(truth, scores, np.arange(60))
    one_patient = auroc_interval(truth, scores, np.where(truth, 0, patients + 1))
    assert alone is not None
    assert one_patient is not None
    assert np.ptp(one_patient["interval"]) < np.ptp(alone["interval"])  # only the others vary


def test_without_both_sources_or_scores_there_is_no_area() -> None:
    nobody = np.zeros(4, bool)
    assert auroc_interval(nobody, np.ones(4), np.arange(4)) is None
    assert auroc_interval(~nobody, np.ones(4), np.arange(4)) is None
    assert auroc_interval(np.arange(4) < 2, np.full(4, np.nan), np.arange(4)) is None


# --- the report on a bundle


def rename(data: Path, row: dict[str, str], name: str) -> None:
    folder = data / IMAGE_FOLDER / IMAGE_FOLDER / row["Dataset_type"].lower()
    (folder / row["X_ray_image_name"]).rename(folder / name)
    row["X_ray_image_name"] = name


@pytest.fixture(scope="module")
def two_sources(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic patients under the names of both collections, one TEST picture twice, some views known."""
    data = Path(shutil.copytree(synthetic, tmp_path_factory.mktemp("sources") / "set"))
    with (data / CSV_NAME).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    web = 0
    for row in rows:
        is_pneumonia = row["Label"] == "Pnemonia" and not row["Label_2_Virus_category"]
        if is_pneumonia and row["Dataset_type"] == "TRAIN" and web < WEB_IMAGES:
            rename(data, row, f"web-{web}.jpeg")
            web += 1
        else:
            rename(data, row, row["X_ray_image_name"].removeprefix("SYNTHETIC-"))
    twin = next(row for row in rows if row["Dataset_type"] == "TEST")
    images = data / IMAGE_FOLDER / IMAGE_FOLDER / "test"
    name = twin["X_ray_image_name"].replace(".jpeg", "-again.jpeg")
    shutil.copy(images / twin["X_ray_image_name"], images / name)
    rows.append({**twin, "X_ray_image_name": name})
    with (data / CSV_NAME).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    covid = [row["X_ray_image_name"] for row in rows if row["Label_2_Virus_category"]]
    lines = [f"{number},{name},{'PA' if number % 2 else 'L'}" for number, name in enumerate(covid)]
    (data / "metadata.csv").write_text("\n".join(["patientid,filename,view", *lines]))
    return data


@pytest.fixture(scope="module")
def data(two_sources: Path) -> XrayData:
    return open_coronahack(two_sources, 224)


@pytest.fixture(scope="module")
def reported(cnn_bundle: Path, data: XrayData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with its report; tests leave it as it is."""
    folder = Path(shutil.copytree(cnn_bundle, tmp_path_factory.mktemp("reported") / "bundle"))
    split = split_data(data, "grouped", 0)
    write_json(folder / manifest.SPLITS, splits.as_dict(split, data.samples, data.classes, data.groups))
    rows = np.concatenate([split.rows(name) for name in SPLITS])
    records = [data.samples[row] for row in rows]
    logits = np.random.default_rng(0).normal(size=(len(rows), len(data.classes))).astype(np.float32)
    Predictions(
        classes=data.classes,
        file_name=np.asarray([record.file_name for record in records]),
        source=np.asarray([record.source for record in records]),
        patient_id=np.asarray([record.patient_id for record in records]),
        split=np.repeat(SPLITS, [len(split.rows(name)) for name in SPLITS]),
        official_split=np.asarray([record.official_split for record in records]),
        label=data.labels[rows],
        logits=logits,
    ).write(folder / manifest.PREDICTIONS)
    report(folder, data)
    evidence.draw(folder)
    return folder


@pytest.fixture
def folder(reported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported, tmp_path / "bundle"))


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / manifest.METRICS).read_text())


@pytest.mark.slow
def test_a_report_adds_its_sections_and_figures(reported: Path) -> None:
    found = metrics_of(reported)
    assert found.keys() > SECTIONS
    assert list(found["controls"]) == list(VIEWS)
    assert all(own["n"] == found["test"]["n"] for own in found["controls"].values())
    assert {"control_sensitivity.png", "control_views.png"} < {
        p.name for p in (reported / "figures").iterdir()
    }


def test_what_is_known_of_the_rows_is_found(reported: Path) -> None:
    found = metrics_of(reported)
    assert set(found["subgroups"]["view_position"]) <= {"L", "PA", "not recorded"}
    assert len(found["subgroups"]["view_position"]) > 1
    assert set(found["subgroups"]["pathogen"]) == {"bacteria", "Virus"}
    assert found["duplicates"]["repeated_pictures"] == 1
    assert found["duplicates"]["one_of_each"]["n"] == found["test"]["n"] - 1
    assert found["source"]["web"]["images"] == WEB_IMAGES
    assert all(area["interval"][0] <= area["value"] for area in found["source"]["auroc"].values())
    called = found["source"]["web_called_covid"]
    assert sum(own["images"] for own in called.values()) == WEB_IMAGES
    assert sum(own["n"] for own in found["heatmap"]["per_class"].values()) == found["test"]["n"]


@pytest.mark.slow
def test_a_repeated_report_gives_the_same_bytes(folder: Path, data: XrayData) -> None:
    before = files_of(folder)
    report(folder, data)
    evidence.draw(folder)
    assert files_of(folder) == before


def test_the_views_are_redrawn_from_the_records_alone(folder: Path) -> None:
    before = files_of(folder)
    for name in (manifest.WEIGHTS, manifest.GRAPH, manifest.SPLITS, manifest.METRICS):
        (folder / name).unlink()
    shutil.rmtree(folder / "figures")
    cli.main(["evaluate", str(folder)])
    after = files_of(folder)
    assert after == {name: before[name] for name in after}
    assert metrics_of(folder)["controls"]


def test_without_a_report_there_are_no_sections(folder: Path) -> None:
    shutil.rmtree(folder / "controls")
    assert not SECTIONS & evidence.draw(folder).keys()
    assert not list((folder / "figures").glob("control*"))


@pytest.mark.slow
def test_the_command_prints_a_table_and_draws_the_sheet_outside(
    folder: Path, two_sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(folder)
    cli.main(["report", str(folder), "--data-dir", str(two_sources), "--sheets", str(tmp_path / "private")])
    printed, log = capsys.readouterr()
    assert "images/s" not in log  # no progress bar where nobody watches
    for said in ("lungs blacked out ", "Subgroups of the internal test set", "by embedding", "in train"):
        assert said in printed
    assert (tmp_path / "private" / SHEET).stat().st_size > 1000
    assert files_of(folder) == before


@pytest.mark.parametrize("place", ["bundle", "bundle/figures", "repository/sheets"])
def test_a_sheet_of_xrays_is_drawn_neither_in_a_bundle_nor_in_a_repository(
    folder: Path, data: XrayData, tmp_path: Path, place: str
) -> None:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    with pytest.raises(ConfigError, match="meant for publication; a sheet shows X-rays"):
        report(folder, data, sheets=tmp_path / place)
    assert not list(tmp_path.rglob(SHEET))


@pytest.mark.slow
def test_one_source_alone_tells_nothing_and_breaks_nothing(folder: Path, data: XrayData) -> None:
    alone = [replace(sample, site="Kermany") for sample in data.samples]
    report(folder, replace(data, samples=alone))
    found = evidence.draw(folder)["source"]
    assert found["sites"] == {"web": "", "children": "Kermany"}
    assert found["web"] == {"images": 0, "patients": 0}
    assert set(found["auroc"].values()) == {None}
    assert "Source detection" not in terminal.part(Report.read(folder), "controls")


def test_another_data_set_is_refused(
    folder: Path, synthetic: Path, two_sources: Path, data: XrayData
) -> None:
    before = files_of(folder)
    with pytest.raises(DataError, match=r"lack \d+ of the bundle's \d+ test images .*that it was trained on"):
        report(folder, open_coronahack(synthetic, 224))
    with pytest.raises(ConfigError, match=r"opened at 64 pixels, .* takes 224; pass --side 224"):
        report(folder, open_coronahack(two_sources, 64))
    table = Predictions.read(folder / manifest.PREDICTIONS)
    table.label[table.split == "test"] = (table.label[table.split == "test"] + 1) % 3
    table.write(folder / manifest.PREDICTIONS)
    with pytest.raises(DataError, match="have another label than the bundle for"):
        report(folder, data)
    after = files_of(folder)
    assert {name for name in before if before[name] != after[name]} == {manifest.PREDICTIONS}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"there is no .*border\.parquet; run `xray-hf report` again"),
        ("other rows", "has other images than the bundle's test rows; run `xray-hf report` again"),
        ("no table", r"source\.parquet cannot be read as Parquet .*`xray-hf report` again"),
    ],
)
def test_damaged_records_say_how_to_make_them_again(folder: Path, damage: str, message: str) -> None:
    border = folder / "controls" / "border.parquet"
    if damage == "missing":
        border.unlink()
    elif damage == "other rows":
        predictions_of([NORMAL, PNEUMONIA, COVID19], [0, 1, 2]).write(border)
    else:
        (folder / "controls" / "source.parquet").write_text("no table")
    with pytest.raises(BundleError, match=message):
        evidence.draw(folder)


# --- other classes than the paper's


@pytest.mark.parametrize(
    "classes", [("Normal", "Tuberculosis"), ("No finding", "Mass", "Nodule", "Edema", "Hernia")]
)
def test_every_section_is_that_of_the_classes_at_hand(classes: tuple[str, ...]) -> None:
    label = np.arange(40) % len(classes)
    logits = np.random.default_rng(0).normal(size=(40, len(classes))).astype(np.float32)
    test = replace(predictions_of([0] * 40, [0] * 40), classes=classes, label=label, logits=logits)
    rows = rows_of(40, pathogen=["Virus"] * 40, heat_lungs=[0.5] * 40, heat_border=[0.1] * 40)
    assert set(controls.subgroups(test, rows)["pathogen"]["Virus"]["classes"]) == set(classes)
    assert set(controls.heatmap(test, rows)["per_class"]) == set(classes)
    noise = controls.label_noise(test)
    assert np.shape(noise["joint"]) == (len(classes), len(classes))
    assert {each["label"] for each in noise["worst"]} <= set(classes)
    sites = TwoSites(classes[0], "a", "b", classes[1])
    found = controls.source(test, source_rows([1.0, 0.0], [0, 1], web=1), sites)
    assert found["called"] == classes[1]
