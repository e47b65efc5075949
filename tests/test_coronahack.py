"""Reading CoronaHack: which rows become samples, who is the patient, and what is said about the rest."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_hf import cli
from xray_hf.data.sample import Sample, SourceReport
from xray_hf.data.sources import ReadOptions, coronahack
from xray_hf.data.sources.coronahack import CSV_NAME, IMAGE_FOLDER, patient_id
from xray_hf.errors import DataError
from xray_hf.task import PAPER_CLASSES

HEADER = ("", "X_ray_image_name", "Label", "Dataset_type", "Label_2_Virus_category", "Label_1_Virus_category")
Row = tuple[str, str, str, str, str]  # the cells after the index

ROWS: list[Row] = [
    ("IM-0001-0001.jpeg", "Normal", "TRAIN", "", ""),
    ("NORMAL2-IM-0001-0001.jpeg", "Normal", "TRAIN", "", ""),
    ("person1_bacteria_1.jpeg", "Pnemonia", "TRAIN", "", "bacteria"),
    ("person1_virus_7.jpeg", "Pneumonia", "TRAIN", "", "Virus"),
    ("cohen-a.png", "Pnemonia", "TRAIN", "COVID-19", "Virus"),
    ("cohen-b.png", "Pnemonia", "TRAIN", "COVID-19", "Virus"),
    ("cohen-c.jpg", "Pnemonia", "TRAIN", "SARS", "Virus"),
    ("person1_bacteria_2.jpeg", "Pnemonia", "TEST", "", "bacteria"),
    ("IM-0002-0001.jpeg", "Normal", "TEST", "", ""),
]


def write_csv(
    folder: Path, rows: Sequence[Row], header: Sequence[str] = HEADER, encoding: str = "utf-8"
) -> None:
    with (folder / CSV_NAME).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows((number, *row) for number, row in enumerate(rows))


def write_set(folder: Path, rows: Sequence[Row] = ROWS, levels: int = 2) -> Path:
    """A data set whose images are noise, so that no two are near-duplicates; returns its folder."""
    images = folder.joinpath(*[IMAGE_FOLDER] * levels)
    for split in ("train", "test"):
        (images / split).mkdir(parents=True, exist_ok=True)
    for number, (name, _, split, *_) in enumerate(rows):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(noise).save(images / split.lower() / name, "PNG")
    write_csv(folder, rows)
    return folder


def read(folder: Path, covid_metadata: Path | None = None) -> tuple[list[Sample], SourceReport]:
    return coronahack.read(str(folder), "coronahack", ReadOptions(covid_metadata=covid_metadata))


def class_of(sample: Sample) -> str:
    [finding] = sample.findings
    return coronahack.CLASS_OF[finding]


def image_path(folder: Path, name: str, split: str = "train") -> Path:
    return folder / IMAGE_FOLDER / IMAGE_FOLDER / split / name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def test_every_row_becomes_a_sample_in_the_csvs_order(data: Path) -> None:
    samples, report = read(data)
    assert [sample.file_name for sample in samples] == [row[0] for row in ROWS]
    assert all(sample.path.is_file() and sample.path.name == sample.file_name for sample in samples)
    assert report.rows == len(ROWS)
    patients = "file names; of COVID-19 images unknown: each file counts as one"
    assert report == SourceReport("coronahack", str(data), rows=len(ROWS), patients_from=patients)


def test_the_cells_go_to_their_fields(data: Path) -> None:
    samples = {sample.file_name: sample for sample in read(data)[0]}
    sars = samples["cohen-c.jpg"]
    assert (sars.findings, sars.virus_category, sars.pathogen) == (("Pnemonia",), "SARS", "Virus")
    assert (sars.official_split, sars.source, sars.site) == ("TRAIN", "coronahack", "Cohen")
    assert samples["person1_bacteria_2.jpeg"].official_split == "TEST"
    assert samples["IM-0001-0001.jpeg"].site == "Kermany"
    assert samples["NORMAL2-IM-0001-0001.jpeg"].site == "Kermany"


def test_pneumonia_is_known_misspelt_and_right_and_covid_by_its_virus(data: Path) -> None:
    labels = {sample.file_name: class_of(sample) for sample in read(data)[0]}
    assert labels["person1_bacteria_1.jpeg"] == labels["person1_virus_7.jpeg"] == "Pneumonia"
    assert labels["cohen-a.png"] == "COVID-19"
    assert labels["IM-0001-0001.jpeg"] == "Normal"


def test_a_folder_nested_once_is_read_as_well(tmp_path: Path) -> None:
    samples, _ = read(write_set(tmp_path / "set", levels=1))
    assert len(samples) == len(ROWS)


def test_a_csv_with_byte_order_mark_and_spaces_is_read(data: Path) -> None:
    rows = [", ".join(row) for row in ROWS]
    (data / CSV_NAME).write_text("\n".join([",".join(HEADER[1:]), *rows]), encoding="utf-8-sig")
    assert len(read(data)[0]) == len(ROWS)


def test_counts_of_the_synthetic_set(synthetic: Path) -> None:
    samples, report = read(synthetic)
    assert len(samples) == report.rows
    assert {class_of(sample) for sample in samples} == set(PAPER_CLASSES)
    assert {sample.site for sample in samples} == {"synthetic"}
    assert len(report.files_without_metadata) == 2


@pytest.mark.real
def test_counts_of_the_real_set(real_data: Path) -> None:
    samples, report = read(real_data)
    counts = Counter((sample.official_split, class_of(sample)) for sample in samples)
    assert counts == {
        ("TRAIN", "Normal"): 1342,
        ("TRAIN", "Pneumonia"): 3886,
        ("TRAIN", "COVID-19"): 58,
        ("TEST", "Normal"): 234,
        ("TEST", "Pneumonia"): 390,
    }
    assert report.rows == len(samples) == 5910
    if "csv" in str(report.patients_from):
        assert len({sample.patient_id for sample in samples if class_of(sample) == "COVID-19"}) == 39


@pytest.mark.parametrize(
    ("name", "split", "patient"),
    [
        ("person12_bacteria_46.jpeg", "TRAIN", "TRAIN-person12"),
        ("person12_virus_3.jpeg", "TRAIN", "TRAIN-person12"),
        ("person12_bacteria_46.jpeg", "TEST", "TEST-person12"),
        ("IM-0115-0001.jpeg", "TRAIN", "IM-0115"),
        ("IM-0115-0001-0002.jpeg", "TEST", "IM-0115"),
        ("NORMAL2-IM-0115-0001.jpeg", "TRAIN", "NORMAL2-IM-0115"),
        ("a.png", "TRAIN", "cohen-4"),
        ("b.png", "TRAIN", "file-b.png"),
        ("SYNTHETIC-person2_virus_1.jpeg", "TEST", "TEST-person2"),
        ("SYNTHETIC-IM-0003-0002.jpeg", "TEST", "IM-0003"),
        ("SYNTHETIC-covid-0002-day1.jpeg", "TRAIN", "SYNTHETIC-covid-0002"),
    ],
)
def test_the_patient_is_named_by_the_file_name_or_the_metadata(name: str, split: str, patient: str) -> None:
    assert patient_id(name, split, {"a.png": "4"}.get(name, "")) == patient


def test_covid_metadata_joins_the_images_of_a_patient(data: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "elsewhere" / "cohen.csv"
    metadata.parent.mkdir()
    metadata.write_text("patientid,filename,view\n7,cohen-a.png,PA\n7,cohen-b.png,L\n,cohen-c.jpg,PA\n")
    samples, report = read(data, metadata)
    patients = {sample.file_name: sample.patient_id for sample in samples}
    assert patients["cohen-a.png"] == patients["cohen-b.png"] == "cohen-7"
    assert patients["cohen-c.jpg"] == "file-cohen-c.jpg"
    assert [sample.view for sample in samples if sample.site == "Cohen"] == ["PA", "L", "PA"]
    assert {sample.view for sample in samples if sample.site == "Kermany"} == {""}
    assert str(report.patients_from).endswith(str(metadata))


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_covid_metadata_is_found_inside_and_beside_the_folder(data: Path, where: str) -> None:
    folder = data if where == "inside" else data.parent
    (folder / "covid_chestxray_metadata.csv").write_text("patientid,filename\n7,cohen-a.png\n")
    samples, report = read(data)
    assert "cohen-7" in {sample.patient_id for sample in samples}
    assert str(report.patients_from).endswith("covid_chestxray_metadata.csv")


def test_help_says_where_covid_metadata_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    from xray_hf.training import config

    for show in (lambda: cli.main(["splits", "--help"]), lambda: config.parse(["--help"])):
        with pytest.raises(SystemExit):
            show()
        words = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
        assert " or ".join(coronahack.COVID_METADATA_NAMES) in words
        assert "in the data's folder or its parent" in words


def test_another_sets_metadata_beside_the_folder_is_not_taken_for_it(data: Path) -> None:
    (data.parent / "metadata.csv").write_text("image,age\na.png,50\n")
    assert "metadata.csv" not in str(read(data)[1].patients_from)


def test_missing_covid_metadata_is_not_answered_with_where_coronahack_is(data: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv does not exist\. Expected metadata") as caught:
        read(data, data / "gone.csv")
    assert "xray-hf download" not in str(caught.value)


def test_files_without_metadata_are_listed_and_not_used(data: Path) -> None:
    shutil.copy(image_path(data, "cohen-a.png"), image_path(data, "stray.png"))
    image_path(data, ".hidden").touch()
    samples, report = read(data)
    assert report.files_without_metadata == ["stray.png"]
    assert len(samples) == len(ROWS)


def test_an_exact_duplicate_row_is_dropped_and_listed(data: Path) -> None:
    write_csv(data, [*ROWS, ROWS[2]])
    samples, report = read(data)
    assert len(samples) == len(ROWS)
    assert report.duplicate_rows == [ROWS[2][0]]
    report.require_clean(drop_bad=False)


@pytest.mark.parametrize("place", [1, 2])
def test_contradicting_rows_are_refused(data: Path, place: int) -> None:
    other = list(ROWS[0])
    other[place] = {1: "Pnemonia", 2: "TEST"}[place]
    write_csv(data, [*ROWS, tuple(other)])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"two different rows for IM-0001-0001\.jpeg: .*keep the right one"):
        read(data)


def test_rows_without_file_are_an_error_unless_they_may_be_dropped(data: Path) -> None:
    image_path(data, "cohen-a.png").unlink()
    image_path(data, "cohen-b.png").rename(image_path(data, "cohen-b.png", "test"))  # the wrong folder
    samples, report = read(data)
    with pytest.raises(
        DataError, match=r"of 9 rows .*2 have no image file \(first: cohen-a\.png\).*unpacked.*--drop-bad"
    ):
        report.require_clean(drop_bad=False)
    report.require_clean(drop_bad=True)
    assert report.rows_without_file == ["cohen-a.png", "cohen-b.png"]
    assert len(samples) == len(ROWS) - 2


def test_an_unknown_label_is_a_finding_without_class(data: Path) -> None:
    write_csv(data, [*ROWS[:-1], (ROWS[-1][0], "Tuberculosis", "TEST", "", "")])
    assert read(data)[0][-1].findings == ("Tuberculosis",)
    assert "Tuberculosis" not in coronahack.CLASS_OF


def test_the_report_names_the_first_of_each_kind(data: Path) -> None:
    image_path(data, "cohen-a.png").unlink()
    table = read(data)[1].as_table()
    assert "rows without file         1   first: cohen-a.png" in table
    assert "unknown: each file counts as one" in table


def test_an_unknown_dataset_type_is_refused(data: Path) -> None:
    write_csv(data, [*ROWS, ("x.png", "Normal", "DEV", "", "")])
    with pytest.raises(DataError, match=r"x\.png has Dataset_type 'DEV'; expected TRAIN or TEST"):
        read(data)


def test_a_missing_column_is_named(data: Path) -> None:
    write_csv(data, ROWS, header=[*HEADER[:2], "class", *HEADER[3:]])
    with pytest.raises(DataError, match=r"has no column Label; found: , X_ray_image_name, class"):
        read(data)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_a_csv_that_is_none_is_refused(data: Path, content: bytes) -> None:
    (data / CSV_NAME).write_bytes(content)
    with pytest.raises(DataError, match=r"has no column|is neither UTF-8 nor"):
        read(data)


def test_a_missing_root_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone is not a folder\. .*xray-hf download --out DIR"):
        read(tmp_path / "gone")


def test_an_impossible_root_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        read(tmp_path / ("a" * 300))


def test_a_wrong_root_says_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"holds no {CSV_NAME}"):
        read(tmp_path)


def test_a_root_with_only_the_csv_asks_whether_the_archive_is_unpacked(tmp_path: Path) -> None:
    write_csv(tmp_path, ROWS)
    with pytest.raises(DataError, match=r"holds the CSV but not .* is the archive unpacked whole"):
        read(tmp_path)
