"""A folder of another collection: which rows become records, and what is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from xray_hf.data.sources import folder
from xray_hf.errors import ConfigError, DataError
from xray_hf.task import COVID19, NORMAL, PNEUMONIA

ROWS = """\
file_name,label,patient_id,age
a.png,Normal,7,51
b.png,Pneumonia,7,51
c.png,Pnemonia,,
d.png,COVID-19,9,60
"""


def write(
    root: Path, rows: str = ROWS, files: tuple[str, ...] = ("a.png", "b.png", "c.png", "d.png")
) -> Path:
    """A folder whose images are empty files: this reader decodes none."""
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(rows)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_rows_become_records_in_the_csvs_order(tmp_path: Path) -> None:
    records, report = folder.read(write(tmp_path))
    assert [record.file_name for record in records] == ["a.png", "b.png", "c.png", "d.png"]
    assert [record.label for record in records] == [NORMAL, PNEUMONIA, PNEUMONIA, COVID19]
    assert [record.patient_id for record in records] == ["7", "7", "file-c.png", "9"]
    assert {(record.official_split, record.source) for record in records} == {("TEST", "external")}
    report.require_clean(drop_bad=False)
    assert report.rows == 4


def test_the_csv_may_be_the_hubs_metadata_csv(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "labels.csv").rename(root / "metadata.csv")
    assert len(folder.read(root)[0]) == 4


def test_without_patients_each_image_is_its_own(tmp_path: Path) -> None:
    records, report = folder.read(write(tmp_path, "file_name,label\na.png,Normal\nb.png,Normal\n"))
    assert [record.patient_id for record in records] == ["file-a.png", "file-b.png"]
    assert report.covid_patients_from is None
    assert report.files_without_metadata == ["c.png", "d.png"]


def test_file_names_can_name_the_patients_that_the_csv_does_not(tmp_path: Path) -> None:
    rows = "file_name,label,patient_id\n0012_000.png,Normal,\n0012_001.png,Normal,\n0013_000.png,Normal,12\n"
    files = ("0012_000.png", "0012_001.png", "0013_000.png")
    records, _ = folder.read(write(tmp_path, rows, files), patient=r"^\d+")
    assert [record.patient_id for record in records] == ["0012", "0012", "12"]


@pytest.mark.parametrize(
    ("patient", "error", "says"),
    [
        ("(", ConfigError, "is no regular expression .*expected one such as"),
        (r"^\d+", DataError, "finds no patient in a.png; expected one in every name"),
        ("", DataError, "finds no patient in a.png"),
    ],
)
def test_a_pattern_without_patients_is_an_error(
    tmp_path: Path, patient: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        folder.read(write(tmp_path, "file_name,label\na.png,Normal\n"), patient=patient)


@pytest.mark.parametrize("name", ["x.png", "deep/x.png", "images/deep/x.png"])
def test_an_image_is_found_by_its_path_or_its_name(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, f"file_name,label\n{name},Normal\n", ("images/deep/x.png",))
    records, _ = folder.read(root)
    assert records[0].path == root / "images" / "deep" / "x.png"
    assert records[0].file_name == name


def test_a_path_wins_over_a_name(tmp_path: Path) -> None:
    root = write(tmp_path, "file_name,label\nx.png,Normal\ny/x.png,COVID-19\n", ("x.png", "y/x.png"))
    assert [record.path for record in folder.read(root)[0]] == [root / "x.png", root / "y" / "x.png"]


def test_what_is_outside_or_hidden_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    rows = "file_name,label\n../secret.png,Normal\n.x.png,Normal\nx.png,Normal\na.png,Normal\n"
    _, report = folder.read(write(tmp_path / "set", rows, (".x.png", ".hidden/x.png", "a.png")))
    assert report.rows_without_file == ["../secret.png", ".x.png", "x.png"]


def test_an_unknown_label_is_shown_beside_the_known_ones_and_no_archive_is_asked_for(tmp_path: Path) -> None:
    _, report = folder.read(write(tmp_path, "file_name,label\na.png,Normal\nb.png,COVID19\n"))
    with pytest.raises(DataError) as caught:
        report.require_clean(drop_bad=False)
    assert (
        "1 have an unknown label (first: b.png has label 'COVID19'; expected Normal, Pneumonia or COVID-19). "
        "Repair them" in str(caught.value)
    )


def test_bad_rows_are_an_error_that_counts_them(tmp_path: Path) -> None:
    rows = "file_name,label\na.png,Normal\nb.png,normal\nc.png,\ngone.png,Normal\n"
    records, report = folder.read(write(tmp_path, rows))
    assert len(records) == 1
    with pytest.raises(
        DataError, match=r"1 have no image file \(first: gone\.png\); 2 have an unknown label \(first: b"
    ):
        report.require_clean(drop_bad=False)
    report.require_clean(drop_bad=True)


@pytest.mark.parametrize(
    ("rows", "files", "message"),
    [
        ("file_name,class\na.png,Normal\n", ("a.png",), "has no column label; found: file_name, class"),
        (
            "file_name;label\na.png;Normal\n",
            ("a.png",),
            r"found: file_name;label\. Columns are parted by commas",
        ),
        ("file_name,label\nx.png,Normal\n", ("a/x.png", "b/x.png"), r"x\.png fits 2 files, .*write the path"),
        ("file_name,label\na.png,Normal\na.png,COVID-19\n", ("a.png",), r"two different rows for a\.png"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error(
    tmp_path: Path, rows: str, files: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        folder.read(write(tmp_path, rows, files))


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    records, report = folder.read(write(tmp_path, "file_name,label\na.png,Normal\na.png,Normal\n"))
    assert (len(records), report.duplicate_rows) == (1, ["a.png"])


def test_exactly_one_csv_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder\. Expected a folder of images with labels\.csv or"):
        folder.read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds neither labels\.csv nor metadata\.csv\. Expected"):
        folder.read(tmp_path)
    (write(tmp_path) / "metadata.csv").write_text(ROWS)
    with pytest.raises(DataError, match=r"holds both labels\.csv and metadata\.csv"):
        folder.read(tmp_path)
