"""A folder of one's own: which rows and subfolders become samples, and what is an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from xray_hf.data.sample import Sample, SourceReport
from xray_hf.data.sources import ReadOptions, folder
from xray_hf.errors import ConfigError, DataError

ROWS = """\
file_name,label,patient_id,age
a.png,Normal,7,51
b.png,Pneumonia,7,51
c.png,Pneumonia,,
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


def read(root: Path, patient: str | None = None) -> tuple[list[Sample], SourceReport]:
    return folder.read(str(root), "clinic", ReadOptions(patient=patient))


def test_rows_become_samples_in_the_csvs_order(tmp_path: Path) -> None:
    samples, report = read(write(tmp_path))
    assert [sample.file_name for sample in samples] == ["a.png", "b.png", "c.png", "d.png"]
    assert [sample.findings for sample in samples] == [
        ("Normal",),
        ("Pneumonia",),
        ("Pneumonia",),
        ("COVID-19",),
    ]
    assert {sample.label for sample in samples} == {None}
    assert [sample.patient_id for sample in samples] == ["7", "7", "file-c.png", "9"]
    assert {(sample.official_split, sample.source) for sample in samples} == {("", "clinic")}
    report.require_clean(drop_bad=False)
    assert report.rows == 4


def test_the_csv_may_be_the_hubs_metadata_csv(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "labels.csv").rename(root / "metadata.csv")
    assert len(read(root)[0]) == 4


def test_without_patients_each_image_is_its_own(tmp_path: Path) -> None:
    samples, report = read(write(tmp_path, "file_name,label\na.png,Normal\nb.png,Normal\n"))
    assert [sample.patient_id for sample in samples] == ["file-a.png", "file-b.png"]
    assert report.patients_from is None
    assert report.files_without_metadata == ["c.png", "d.png"]


def test_file_names_can_name_the_patients_that_the_csv_does_not(tmp_path: Path) -> None:
    rows = "file_name,label,patient_id\n0012_000.png,Normal,\n0012_001.png,Normal,\n0013_000.png,Normal,12\n"
    files = ("0012_000.png", "0012_001.png", "0013_000.png")
    samples, _ = read(write(tmp_path, rows, files), patient=r"^\d+")
    assert [sample.patient_id for sample in samples] == ["0012", "0012", "12"]


@pytest.mark.parametrize(
    ("patient", "error", "says"),
    [
        ("(", ConfigError, "is not a regular expression .*expected one such as"),
        (r"^\d+", DataError, "finds no patient in a.png; expected one in every name"),
        ("", DataError, "finds no patient in a.png"),
    ],
)
def test_a_pattern_without_patients_is_an_error(
    tmp_path: Path, patient: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read(write(tmp_path, "file_name,label\na.png,Normal\n"), patient=patient)


@pytest.mark.parametrize("name", ["x.png", "deep/x.png", "images/deep/x.png"])
def test_an_image_is_found_by_its_path_or_its_name(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, f"file_name,label\n{name},Normal\n", ("images/deep/x.png",))
    samples, _ = read(root)
    assert samples[0].path == root / "images" / "deep" / "x.png"
    assert samples[0].file_name == name


def test_a_path_wins_over_a_name(tmp_path: Path) -> None:
    root = write(tmp_path, "file_name,label\nx.png,Normal\ny/x.png,COVID-19\n", ("x.png", "y/x.png"))
    assert [sample.path for sample in read(root)[0]] == [root / "x.png", root / "y" / "x.png"]


def test_what_is_outside_or_hidden_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    rows = "file_name,label\n../secret.png,Normal\n.x.png,Normal\nx.png,Normal\na.png,Normal\n"
    _, report = read(write(tmp_path / "set", rows, (".x.png", ".hidden/x.png", "a.png")))
    assert report.rows_without_file == ["../secret.png", ".x.png", "x.png"]


def test_a_row_without_label_says_nothing_of_its_image(tmp_path: Path) -> None:
    samples, report = read(write(tmp_path, "file_name,label\na.png,Normal\nb.png,\n"))
    assert [sample.findings for sample in samples] == [("Normal",), ()]
    report.require_clean(drop_bad=False)


def test_bad_rows_are_an_error_that_counts_them(tmp_path: Path) -> None:
    samples, report = read(write(tmp_path, "file_name,label\na.png,Normal\ngone.png,Normal\n"))
    assert len(samples) == 1
    with pytest.raises(DataError, match=r"1 has no image file \(first: gone\.png\)"):
        report.require_clean(drop_bad=False)
    report.require_clean(drop_bad=True)


def test_the_further_columns_go_to_their_fields(tmp_path: Path) -> None:
    rows = "file_name,label,patient_id,site,view,license\na.png,Normal,7,Ward 3,AP,CC0\n"
    [sample] = read(write(tmp_path, rows))[0]
    assert (sample.patient_id, sample.site, sample.view, sample.license) == ("7", "Ward 3", "AP", "CC0")


@pytest.mark.parametrize(
    ("rows", "file"),
    [
        ("file_name,label\n./images/x.png,Normal\n", "images/x.png"),
        ("file_name,label\nimages\\x.png,Normal\n", "images/x.png"),
        ("file_name, label\nx.png, Normal\n", "images/x.png"),
        ("file_name,label\nthorax_\u00e9.png,Normal\n", "images/thorax_e\u0301.png"),
        ("file_name,label\nimages/thorax_e\u0301.png,Normal\n", "images/thorax_\u00e9.png"),
    ],
)
def test_names_are_found_however_they_are_written(tmp_path: Path, rows: str, file: str) -> None:
    [sample] = read(write(tmp_path, rows, (file,)))[0]
    assert (sample.path, sample.findings) == (tmp_path / file, ("Normal",))


def test_a_link_to_a_folder_is_followed_and_a_circle_is_not(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "x.png").touch()
    root = write(tmp_path / "set", "file_name,label\nimages/x.png,Normal\n", ())
    (root / "images").symlink_to(outside)
    (outside / "circle").symlink_to(root)
    samples, report = read(root)
    assert [sample.path for sample in samples] == [root / "images" / "x.png"]
    assert report.files_without_metadata == []


def test_a_name_may_lead_through_a_link_inside_the_folder(tmp_path: Path) -> None:
    rows = "file_name,label\nimages/x.png,Normal\nscans/y.png,Normal\nimages/../../secret.png,Normal\n"
    root = write(tmp_path / "set", rows, ("scans/x.png", "scans/y.png"))
    (root / "images").symlink_to(root / "scans")
    (tmp_path / "secret.png").touch()
    samples, report = read(root)
    assert [sample.path for sample in samples] == [root / "scans" / "x.png", root / "scans" / "y.png"]
    assert report.rows_without_file == ["images/../../secret.png"]


def test_an_image_may_be_a_link_and_one_to_nothing_is_said(tmp_path: Path) -> None:
    root = write(tmp_path / "set", "file_name,label\nx.png,Normal\ngone.png,Normal\n", ())
    (tmp_path / "x.png").touch()
    (root / "x.png").symlink_to(tmp_path / "x.png")
    (root / "gone.png").symlink_to(tmp_path / "nowhere")
    samples, report = read(root)  # whoever decodes it will say that it cannot be opened
    assert [sample.path for sample in samples] == [root / "x.png", root / "gone.png"]
    assert report.rows_without_file == []


TABLE = "file_name,label,patient_id\na.png,Normal,7\n\u00e9.png,Pneumonia,\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_however_a_spreadsheet_writes_it(
    tmp_path: Path, encoding: str, separator: str, line_end: str
) -> None:
    root = write(tmp_path, files=("a.png", "\u00e9.png"))
    text = TABLE.replace(",", separator).replace("\n", line_end)
    (root / "labels.csv").write_bytes(text.encode(encoding))
    found = [(sample.file_name, sample.findings, sample.patient_id) for sample in read(root)[0]]
    assert found == [("a.png", ("Normal",), "7"), ("\u00e9.png", ("Pneumonia",), "file-\u00e9.png")]


@pytest.mark.parametrize("name", ["labels.tsv", "labels.txt", "metadata.tsv", "Labels.CSV", "METADATA.csv"])
def test_a_table_is_found_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, TABLE.replace(",", "\t"), ("scans/a.png", "scans/\u00e9.png"))
    (root / "labels.csv").rename(root / name)
    assert [sample.findings for sample in read(root)[0]] == [("Normal",), ("Pneumonia",)]
    assert folder.fits(root)


def test_commas_in_a_table_of_semicolons_stay_in_their_cells(tmp_path: Path) -> None:
    rows = 'file_name;label;site\n"a;b,c.png";Normal;"Ward 3, left"\n'
    [sample] = read(write(tmp_path, rows, ("a;b,c.png",)))[0]
    assert (sample.file_name, sample.site) == ("a;b,c.png", "Ward 3, left")


def test_blank_rows_and_cells_behind_the_table_do_not_count(tmp_path: Path) -> None:
    samples, report = read(write(tmp_path, ",,,\nfile_name,label\n,,\na.png,Normal,,,\n ,\n", ("a.png",)))
    assert ([sample.file_name for sample in samples], report.rows) == (["a.png"], 1)
    report.require_clean(drop_bad=False)


@pytest.mark.parametrize(
    "content",
    [
        "file_name,label\n\u00e9.png,Normal\n".encode("latin-1"),
        "file_name,label\na.png,Normal\n".encode("utf-16-le"),
        b"PK\x03\x04 a spreadsheet of another name \0",
    ],
)
def test_a_table_that_is_no_text_says_how_to_save_it(tmp_path: Path, content: bytes) -> None:
    root = write(tmp_path)
    (root / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.csv is neither UTF-8 nor .*; save it as CSV UTF-8\. "):
        read(root)


@pytest.mark.parametrize("name", ["labels.xlsx", "metadata.jsonl", "Labels.ods"])
def test_labels_in_another_kind_of_file_are_not_taken_from_folders_instead(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, files=("scans/a.png", "more/b.png"))
    (root / "labels.csv").rename(root / name)
    with pytest.raises(DataError, match=f"{name} cannot be read; save it as CSV UTF-8, "):
        read(root)


def test_what_is_no_image_is_counted_in_the_report(tmp_path: Path) -> None:
    files = ("a.png", "Thumbs.db", "notes.txt", "deep/Thumbs.db", ".DS_Store", "__MACOSX/._a.png")
    report = read(write(tmp_path, "file_name,label\na.png,Normal\n", files))[1]
    assert report.no_images == {"thumbs.db": 2, ".txt": 1, "hidden": 2}
    assert re.search(r"^no images +5   1 \.txt, 2 hidden, 2 thumbs\.db$", report.as_table(), re.MULTILINE)


def test_folders_of_splits_are_known_beside_those_of_a_system(tmp_path: Path) -> None:
    sorted_by_class(tmp_path, "train/Normal/a.png", "test/Tuberculosis/a.png", "__MACOSX/train/._a.png")
    assert {sample.findings for sample in read(tmp_path)[0]} == {("Normal",), ("Tuberculosis",)}


def sorted_by_class(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_without_a_csv_each_subfolder_is_a_class(tmp_path: Path) -> None:
    files = ("Normal/a.png", "Tuberculosis/deep/b.png", "Normal/Thumbs.db", "Normal/.c.png", "README.md")
    samples, report = read(sorted_by_class(tmp_path, *files))
    assert [(sample.file_name, sample.findings) for sample in samples] == [
        ("Normal/a.png", ("Normal",)),
        ("Tuberculosis/deep/b.png", ("Tuberculosis",)),
    ]
    assert {sample.official_split for sample in samples} == {""}
    assert (report.rows, report.files_without_metadata) == (2, [])


def test_folders_of_splits_are_the_official_split(tmp_path: Path) -> None:
    files = ("train/Normal/a.png", "val/Normal/a.png", "test/Tuberculosis/a.png", "test/Tuberculosis/b.png")
    samples, _ = read(sorted_by_class(tmp_path, *files))
    assert {sample.file_name: sample.official_split for sample in samples} == {
        "train/Normal/a.png": "TRAIN",
        "val/Normal/a.png": "TRAIN",
        "test/Tuberculosis/a.png": "TEST",
        "test/Tuberculosis/b.png": "TEST",
    }


def test_each_split_may_have_its_own_csv(tmp_path: Path) -> None:
    for split in ("train", "test"):
        sorted_by_class(tmp_path, f"{split}/a.png")
        (tmp_path / split / "metadata.csv").write_text("file_name,label,patient_id\na.png,Normal,3\n")
    samples, report = read(tmp_path)
    assert [sample.file_name for sample in samples] == ["test/a.png", "train/a.png"]
    assert {sample.patient_id for sample in samples} == {"3"}
    assert report.rows == 2


@pytest.mark.parametrize("files", [(), ("a.png",), ("images/a.png", "images/b.png"), ("train/a.png",)])
def test_a_folder_without_labels_is_one_clear_error(tmp_path: Path, files: tuple[str, ...]) -> None:
    sorted_by_class(tmp_path, *files)
    with pytest.raises(
        DataError, match=r"nor subfolders with the images of each class\. Expected a folder of"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("rows", "files", "message"),
    [
        ("file_name,class\na.png,Normal\n", ("a.png",), "has no column label; found: file_name, class"),
        (
            "file_name|label\na.png|Normal\n",
            ("a.png",),
            r"no column file_name, label; found: file_name\|label\.",
        ),
        ("file_name;class\na.png;Normal\n", ("a.png",), "has no column label; found: file_name, class"),
        ("file_name,label,label\na.png,Normal,\n", ("a.png",), "has two columns label; keep one"),
        (
            "file_name,label,patient_id\na.png,Pneumonia, viral,7\n",
            ("a.png",),
            "has 3 columns, but row 1 has more cells: a.png, Pneumonia, viral, 7. Put any text",
        ),
        (
            "file_name,label\né.png,Normal\n",
            ("\u00e9.png", "e\u0301.png"),
            "two files whose names look alike, \u00e9.png; rename one",
        ),
        ("file_name,label\nx.png,Normal\n", ("a/x.png", "b/x.png"), r"x\.png fits 2 files, .*write the path"),
        ("file_name,label\na.png,Normal\na.png,COVID-19\n", ("a.png",), r"two different rows for a\.png"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error(
    tmp_path: Path, rows: str, files: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, rows, files))


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    samples, report = read(write(tmp_path, "file_name,label\na.png,Normal\na.png,Normal\n"))
    assert (len(samples), report.duplicate_rows) == (1, ["a.png"])


def test_exactly_one_csv_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder\. Expected a folder of images with labels\.csv or"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds neither labels\.csv nor metadata\.csv nor subfolders"):
        read(tmp_path)
    (write(tmp_path) / "metadata.csv").write_text(ROWS)
    with pytest.raises(DataError, match=r"holds both labels\.csv and metadata\.csv"):
        read(tmp_path)


def test_quotes_after_a_blank_are_quotes(tmp_path: Path) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "a, b.png")
    (tmp_path / "labels.csv").write_text('"file_name", "label"\n"a, b.png", "Normal"\n', encoding="utf-8")
    samples, _ = folder.read(str(tmp_path), "mine", ReadOptions())
    assert [(sample.file_name, sample.findings) for sample in samples] == [("a, b.png", ("Normal",))]


def test_classes_one_folder_deeper_are_no_class_of_their_own(tmp_path: Path) -> None:
    for label in ("Normal", "Pneumonia"):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("L", (40, 40)).save(tmp_path / "data" / label / "a.png")
    with pytest.raises(DataError, match="has one subfolder, data, with more below it; pass that one"):
        folder.read(str(tmp_path), "mine", ReadOptions())


def test_splits_beside_other_folders_are_no_classes(tmp_path: Path) -> None:
    for inner in ("train/Normal", "test/Normal", "extra/Normal"):
        (tmp_path / inner).mkdir(parents=True)
        Image.new("L", (40, 40)).save(tmp_path / inner / "a.png")
    with pytest.raises(DataError, match=r"has subfolders of splits \(test, train\) beside others"):
        folder.read(str(tmp_path), "mine", ReadOptions())
