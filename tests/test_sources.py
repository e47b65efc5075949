"""The collections' readers, each on a tiny folder in the layout that people download; and the classes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import write_sources
from hub_server import Hub
from openpyxl import Workbook
from PIL import Image

from xray_hf.data.dataset import open_data, split_data
from xray_hf.data.sample import Sample, SourceReport
from xray_hf.data.source_options import SourceOptions
from xray_hf.data.sources import (
    KINDS,
    ReadOptions,
    SourceSpec,
    classify,
    describe,
    hub,
    parse_maps,
    parse_spec,
    parse_specs,
    reader,
)
from xray_hf.data.sources.rsna import CLASS_INFO, IMAGE_FOLDER, MAPPING, TRAIN_LABELS
from xray_hf.errors import ConfigError, DataError, HubError
from xray_hf.hub import data_set
from xray_hf.task import PAPER_CLASSES

FOLDER_KINDS = [kind for kind in KINDS if kind != "hub"]


def read(kind: str, place: Path | str) -> tuple[list[Sample], SourceReport]:
    return reader(kind).read(str(place), "here", ReadOptions())


def touch(root: Path, *names: str) -> Path:
    """Empty files: these readers decode none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def findings(samples: list[Sample]) -> dict[str, tuple[str, ...]]:
    return {sample.file_name: sample.findings for sample in samples}


# COVID-19 Radiography Database

RADIOGRAPHY = {
    "COVID": ("COVID-7.png", "COVID-1895.png"),
    "Normal": ("Normal-1.png", "Normal-1350.png", "Normal-10192.png"),
    "Lung_Opacity": ("Lung_Opacity-1.png",),
    "Viral Pneumonia": ("Viral Pneumonia-1345.png",),
}


@pytest.fixture
def radiography(tmp_path: Path) -> Path:
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for finding, names in RADIOGRAPHY.items():
        for inner in ("images", "masks"):
            touch(root / finding / inner, *names)
    return touch(root, "README.md.txt")


def write_xlsx(path: Path, *rows: tuple[object, ...]) -> None:
    book = Workbook()
    assert book.active
    for row in rows:
        book.active.append(row)
    book.save(path)


def test_radiography_has_a_finding_a_folder_and_reads_no_mask(radiography: Path) -> None:
    samples, report = read("radiography", radiography)
    assert findings(samples) == {
        f"{finding}/{name}": (finding,) for finding, names in RADIOGRAPHY.items() for name in names
    }
    assert {sample.path.parent.name for sample in samples} == {"images"}
    assert len({sample.patient_id for sample in samples}) == report.rows == 7
    assert report.patients_from is None


def test_radiography_is_found_one_folder_further_in(radiography: Path) -> None:
    assert len(read("radiography", radiography.parent)[0]) == 7


def test_numbers_tell_the_site_where_they_can(radiography: Path) -> None:
    assert {sample.file_name: sample.site for sample in read("radiography", radiography)[0]} == {
        "COVID/COVID-7.png": "",
        "COVID/COVID-1895.png": "BIMCV",
        "Normal/Normal-1.png": "Kermany",
        "Normal/Normal-1350.png": "",
        "Normal/Normal-10192.png": "NIH",
        "Lung_Opacity/Lung_Opacity-1.png": "NIH",
        "Viral Pneumonia/Viral Pneumonia-1345.png": "Kermany",
    }


def test_the_table_tells_the_site_however_it_spells_the_names(radiography: Path) -> None:
    header = ("FILE NAME", "FORMAT", "SIZE", "URL")
    urls = ["https://sirm.org/category/senza-categoria/covid-19/", "https://github.com/armiro/COVID-CXNet"]
    rows = [(f"COVID-{number}", "PNG", "256*256", url) for number, url in zip((7, 1895), urls, strict=True)]
    write_xlsx(radiography / "COVID.metadata.xlsx", header, *rows)
    page = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"
    write_xlsx(radiography / "Normal.metadata.xlsx", header, ("NORMAL-1350", "PNG", "256*256", page))
    sites = {sample.file_name: sample.site for sample in read("radiography", radiography)[0]}
    assert sites["COVID/COVID-7.png"] == "SIRM"
    assert sites["COVID/COVID-1895.png"] == "COVID-CXNet"
    assert sites["Normal/Normal-1350.png"] == "NIH"
    assert sites["Normal/Normal-1.png"] == "Kermany"


def test_old_releases_of_radiography_are_read_as_well(tmp_path: Path) -> None:
    touch(tmp_path, "COVID-19/COVID-19 (3).png", "NORMAL/NORMAL (1).png", "Viral Pneumonia/x (2).png")
    header = ("FILE NAME", "FORMAT", "SIZE", "URL")
    rows = [("COVID-19(3)", "PNG", "1024*1024", "https://github.com/ieee8023/covid-chestxray-dataset")]
    write_xlsx(tmp_path / "COVID-19.matadata.xlsx", header, *rows)
    samples, _ = read("radiography", tmp_path)
    assert [(sample.findings[0], sample.site) for sample in samples] == [
        ("COVID", "Cohen"),
        ("Normal", "Kermany"),
        ("Viral Pneumonia", "Kermany"),
    ]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 and no more"])
def test_a_table_that_is_none_is_one_clear_error(radiography: Path, content: bytes) -> None:
    (radiography / "COVID.metadata.xlsx").write_bytes(content)
    with pytest.raises(
        DataError, match=r"COVID\.metadata\.xlsx cannot be read as .* FILE NAME and URL.*or remove it"
    ):
        read("radiography", radiography)


def test_a_table_of_other_columns_is_one_clear_error(radiography: Path) -> None:
    write_xlsx(radiography / "Normal.metadata.xlsx", ("name", "URL"), ("NORMAL-1", "x"))
    with pytest.raises(DataError, match=r"Normal\.metadata\.xlsx cannot be read as"):
        read("radiography", radiography)


def test_an_empty_class_folder_asks_whether_the_archive_is_unpacked(radiography: Path) -> None:
    for path in (radiography / "COVID" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="COVID/images holds no image; is the archive unpacked whole"):
        read("radiography", radiography)


# RSNA Pneumonia Detection Challenge

RSNA_CLASSES = """\
patientId,class
a,No Lung Opacity / Not Normal
b,Normal
c,Lung Opacity
c,Lung Opacity
"""
RSNA_LABELS = """\
patientId,x,y,width,height,Target
a,,,,,0
b,,,,,0
c,264.0,152.0,213.0,379.0,1
c,562.0,152.0,256.0,453.0,1
"""


@pytest.fixture
def rsna(tmp_path: Path) -> Path:
    root = touch(tmp_path / "rsna", *(f"{IMAGE_FOLDER}/{name}.dcm" for name in "abc"))
    (root / CLASS_INFO).write_text(RSNA_CLASSES)
    (root / TRAIN_LABELS).write_text(RSNA_LABELS)
    return touch(root, "stage_2_test_images/d.dcm", "stage_2_sample_submission.csv")


def test_rsna_has_one_sample_an_image_however_many_boxes(rsna: Path) -> None:
    samples, report = read("rsna", rsna)
    assert findings(samples) == {
        "a.dcm": ("No Lung Opacity / Not Normal",),
        "b.dcm": ("Normal",),
        "c.dcm": ("Lung Opacity",),
    }
    assert {sample.site for sample in samples} == {"NIH"}
    assert {sample.patient_id for sample in samples} == {"file-a.dcm", "file-b.dcm", "file-c.dcm"}
    assert report == SourceReport("here", str(rsna), rows=3)


def test_rsnas_mapping_names_the_patients_as_nih_does(rsna: Path) -> None:
    pairs = [
        {"subset_img_id": "a", "img_id": "00000013_004.png"},
        {"subset_img_id": "b", "img_id": "00000013_018.png"},
    ]
    (rsna / MAPPING).write_text(json.dumps(pairs))
    samples, report = read("rsna", rsna)
    assert [sample.patient_id for sample in samples] == ["nih-13", "nih-13", "file-c.dcm"]
    assert report.patients_from == str(rsna / MAPPING)
    (rsna / MAPPING).write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match=r"mappings_2018\.json is not RSNA's list.*or remove it"):
        read("rsna", rsna)


def test_rsnas_missing_images_and_further_ones_are_reported(rsna: Path) -> None:
    (rsna / IMAGE_FOLDER / "b.dcm").rename(rsna / IMAGE_FOLDER / "z.dcm")
    samples, report = read("rsna", rsna)
    assert len(samples) == 2
    assert (report.rows_without_file, report.files_without_metadata) == (["b.dcm"], ["z.dcm"])


def test_an_image_of_two_classes_is_refused(rsna: Path) -> None:
    (rsna / CLASS_INFO).write_text(RSNA_CLASSES + "b,Lung Opacity\n")
    with pytest.raises(
        DataError, match=r"two different rows for b: .*'Normal'.* and .*'Lung Opacity'.*; keep the right"
    ):
        read("rsna", rsna)


def test_rsnas_tables_of_two_stages_are_refused(rsna: Path) -> None:
    (rsna / TRAIN_LABELS).write_text(RSNA_LABELS.replace("b,,,,,0", "b,1,1,1,1,1"))
    with pytest.raises(DataError, match=r"b is 'Normal' in .* has Target '1' in .* both of one stage"):
        read("rsna", rsna)


@pytest.mark.parametrize("missing", [CLASS_INFO, TRAIN_LABELS])
def test_rsna_needs_both_tables(rsna: Path, missing: str) -> None:
    (rsna / missing).unlink()
    with pytest.raises(DataError, match=rf"holds no {missing}\. Unpack it from kaggle\.com/c/rsna"):
        read("rsna", rsna)


# ChestX-ray14

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
NIH_ROWS = [
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143,\n",
    "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171,\n",
    "00000002_001.png,Effusion|Pneumonia,1,2,81,M,AP,2500,2048,0.171,0.171,\n",
]
NIH_FILES = [f"images_00{number}/images/{row.split(',')[0]}" for number, row in enumerate(NIH_ROWS, 1)]


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    root = touch(tmp_path / "nih", *NIH_FILES, "README_CHESTXRAY.pdf")
    (root / "Data_Entry_2017.csv").write_text(NIH_HEADER + "".join(NIH_ROWS))
    (root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    (root / "train_val_list.txt").write_text("00000002_000.png\n00000002_001.png\n")
    (root / "test_list.txt").write_text("00000001_000.png")
    return root


def test_nih_keeps_all_findings_of_an_image(nih: Path) -> None:
    samples, report = read("nih", nih)
    assert findings(samples) == {
        "00000001_000.png": ("Cardiomegaly", "Emphysema"),
        "00000002_000.png": ("No Finding",),
        "00000002_001.png": ("Effusion", "Pneumonia"),
    }
    assert [sample.official_split for sample in samples] == ["TEST", "TRAIN", "TRAIN"]
    assert [sample.patient_id for sample in samples] == ["nih-1", "nih-2", "nih-2"]
    assert [sample.view for sample in samples] == ["PA", "PA", "AP"]
    assert report == SourceReport("here", str(nih), rows=3, patients_from=str(nih / "Data_Entry_2017.csv"))


def test_nihs_later_table_all_in_one_folder_and_no_lists(tmp_path: Path) -> None:
    header = NIH_HEADER.removesuffix(",\n") + "\n"
    rows = [row.removesuffix(",\n") + "\n" for row in NIH_ROWS]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(header + "".join(rows))
    samples, _ = read("nih", touch(tmp_path, *(f"images/{Path(name).name}" for name in NIH_FILES)))
    assert [sample.view for sample in samples] == ["PA", "PA", "AP"]
    assert {sample.official_split for sample in samples} == {""}


def test_nihs_missing_and_repeated_rows_are_reported_and_different_ones_refused(nih: Path) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(
        NIH_HEADER + "".join([*NIH_ROWS[:2], NIH_ROWS[0], "00000009_000.png,Mass,0,9,1,M,PA,1,1,1,1,\n"])
    )
    samples, report = read("nih", nih)
    assert len(samples) == 2
    assert report.duplicate_rows == ["00000001_000.png"]
    assert report.rows_without_file == ["00000009_000.png"]
    assert report.files_without_metadata == ["00000002_001.png"]
    table.write_text(NIH_HEADER + NIH_ROWS[0] + NIH_ROWS[0].replace("Emphysema", "Mass"))
    with pytest.raises(DataError, match=r"two different rows for 00000001_000\.png"):
        read("nih", nih)


# COVID-19 image data collection

COHEN = """\
patientid,offset,sex,age,finding,RT_PCR_positive,survival,view,modality,date,location,folder,filename,doi,url,license
2,0,M,65,Pneumonia/Viral/COVID-19,Y,Y,PA,X-ray,2020,"Cho Ray Hospital, Vietnam",images,a.jpg,,,CC BY-NC-SA
2,3,M,65,Pneumonia/Viral/COVID-19,Y,Y,L,X-ray,2020,,images,b.jpg,,,
2,3,M,65,Pneumonia/Viral/COVID-19,Y,Y,Axial,CT,2020,,images,c.jpg,,,
,,,,Pneumonia/Bacterial/Streptococcus,,,AP Supine,X-ray,2017,,images,d.png,,,
7,,,,todo,,,AP,X-ray,2017,,images,e.png,,,
8,,,,"COVID-19, ARDS",,,PA,X-ray,2017,,images,f.png,,,
9,,,,Pneumonia,,,Coronal,CT,2020,,volumes,g.nii.gz,,,
"""


@pytest.fixture
def cohen(tmp_path: Path) -> Path:
    names = ("a.jpg", "b.jpg", "c.jpg", "d.png", "e.png", "f.png")
    root = touch(tmp_path / "cohen", *(f"images/{name}" for name in names), "volumes/g.nii.gz")
    (root / "metadata.csv").write_text(COHEN)
    return root


def test_cohen_keeps_frontal_xrays_and_notes_the_rest(cohen: Path) -> None:
    samples, report = read("cohen", cohen)
    assert findings(samples) == {
        "a.jpg": ("Pneumonia/Viral/COVID-19",),
        "d.png": ("Pneumonia/Bacterial/Streptococcus",),
        "e.png": ("todo",),
        "f.png": ("COVID-19", "ARDS"),
    }
    assert report.not_frontal == ["b.jpg", "c.jpg", "g.nii.gz"]
    assert report.rows == 7
    assert (report.rows_without_file, report.files_without_metadata) == ([], [])
    first = samples[0]
    assert (first.patient_id, first.site, first.view, first.license) == (
        "cohen-2",
        "Cohen",
        "PA",
        "CC BY-NC-SA",
    )
    assert samples[1].patient_id == "file-d.png"


def test_covid_wins_over_the_pneumonia_in_its_path(cohen: Path) -> None:
    samples, _ = read("cohen", cohen)
    labelled, classes = classify(samples, [SourceSpec("cohen", "here", "")], None, {})
    assert [sample.label for sample in labelled] == ["COVID-19", "Pneumonia", None, "COVID-19"]
    assert classes == ("Pneumonia", "COVID-19")


def test_cohens_missing_images_and_columns_are_said(cohen: Path) -> None:
    (cohen / "images" / "a.jpg").unlink()
    assert read("cohen", cohen)[1].rows_without_file == ["a.jpg"]
    (cohen / "metadata.csv").write_text("patientid,view,filename\n")
    with pytest.raises(
        DataError, match=r"has no column finding; found: patientid, view, filename\. Clone https"
    ):
        read("cohen", cohen)


@pytest.mark.real
def test_all_findings_of_the_real_metadata_have_a_class(real_data: Path, tmp_path: Path) -> None:
    table = real_data.parent / "covid_chestxray_metadata.csv"
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    touch(tmp_path, *(f"images/{row['filename']}" for row in rows))
    (tmp_path / "metadata.csv").write_bytes(table.read_bytes())
    samples, report = read("cohen", tmp_path)
    assert Counter(row["view"] for row in rows)["L"] == len(report.not_frontal) == 4
    labelled, _ = classify(samples, [SourceSpec("cohen", "here", "")], None, {})
    assert len(samples) == 66
    assert {finding for sample in labelled if not sample.label for finding in sample.findings} <= {"ARDS"}


# The Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """\
---
configs:
- config_name: second
  data_files: second/train-*
- config_name: first
  default: true
  data_files: first/train-*
---
"""


def png(shade: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(np.full((32, 32), shade, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path: Path, columns: dict[str, list[object]], classes: list[str] | None = None) -> None:
    """A Parquet file as `datasets` writes it, of images, labels and texts."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageColumn

    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"image": ImageColumn(), "label": ClassLabel(names=classes) if classes else Value("string")}
    features = Features({name: known.get(name, Value("string")) for name in columns})
    Dataset.from_dict(columns, features=features).to_parquet(path)


def images(*shades: int) -> list[object]:
    return [{"bytes": png(shade), "path": None} for shade in shades]


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What would come from the Hub: a folder named by the commit; the pixel cache is empty."""
    monkeypatch.setenv("XRAY_HF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / COMMIT
    folder.mkdir()
    monkeypatch.setattr(hub, "_fetch", lambda repo_id, revision: folder)
    return folder


def test_what_push_publishes_is_read_back(snapshot: Path, synthetic: Path) -> None:
    data = open_data([parse_spec(f"coronahack={synthetic}")], 32)
    card = data_set.plan(data, "owner/data", snapshot).files["README.md"]
    assert isinstance(card, bytes)
    (snapshot / "README.md").write_bytes(card)
    samples, report = read("hub", "owner/data@v1")
    found = {each.file_name: each for each in samples}
    split = split_data(data, "grouped", 0)
    for name, official in (("train", "TRAIN"), ("validation", "TRAIN"), ("test", "TEST")):
        for sent in (data.samples[row] for row in set(split.rows(name))):
            back = found.pop(sent.file_name)
            assert back.path.read_bytes() == sent.path.read_bytes()
            assert back.findings == (sent.label,)
            assert (back.patient_id, back.site) == (sent.patient_id, sent.site)
            assert (back.license, back.official_split) == (sent.license, official)
    assert found == {}
    assert len(samples) + len(report.duplicate_rows) == report.rows
    assert report.patients_from == "the column patient_id"


def test_the_default_configuration_is_read_and_copies_count_once(snapshot: Path, tmp_path: Path) -> None:
    (snapshot / "README.md").write_text(CARD)
    part: dict[str, list[object]] = {
        "image": images(1, 2, 2),
        "label": [2, 0, 0],
        "file_name": ["a.png", "b.png", "b.png"],
    }
    for name in ("second/train", "first/train"):
        write_parquet(snapshot / f"{name}-00000-of-00001.parquet", part, list(PAPER_CLASSES))
    samples, report = read("hub", "owner/data")
    assert findings(samples) == {"a.png": ("COVID-19",), "b.png": ("Normal",)}
    assert (report.rows, report.duplicate_rows, report.patients_from) == (3, ["b.png"], None)
    assert {each.path.parent for each in samples} == {tmp_path / "cache" / f"hub-owner--data-{COMMIT[:12]}"}


def test_images_are_written_once(snapshot: Path) -> None:
    file = snapshot / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, {"image": images(1), "label": ["Normal"]})
    before = read("hub", "owner/data")[0]
    file.unlink()
    assert read("hub", "owner/data")[0] == before


def test_images_of_the_hub_are_written_where_cache_dir_says(snapshot: Path, tmp_path: Path) -> None:
    file = snapshot / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, {"image": images(1), "label": ["Normal"]})
    asked = SourceOptions(source=("hub=owner/data",), cache_dir=str(tmp_path / "own")).read_options
    [sample], _ = reader("hub").read("owner/data", "here", asked)
    assert sample.path.parent.parent == tmp_path / "own"


def test_labels_may_be_texts_or_missing_and_names_too(snapshot: Path) -> None:
    for split in ("train", "validation"):
        file = snapshot / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(file, {"image": [*images(1, 2), None], "label": ["Mass", None, "Mass"]})
    samples, report = read("hub", "owner/data")
    assert [sample.findings for sample in samples] == [("Mass",), (), ("Mass",), ()]
    assert len({sample.file_name for sample in samples}) == 4
    assert {sample.official_split for sample in samples} == {""}
    assert report.rows_without_file == ["train-00000-of-00001-2", "validation-00000-of-00001-2"]


def test_equal_names_in_two_splits_are_told_apart(snapshot: Path) -> None:
    for split in ("train", "test"):
        columns: dict[str, list[object]] = {"image": images(1), "label": ["Mass"], "file_name": ["1.png"]}
        write_parquet(snapshot / "data" / f"{split}-00000-of-00001.parquet", columns)
    assert findings(read("hub", "owner/data")[0]) == {"train/1.png": ("Mass",), "test/1.png": ("Mass",)}


def test_a_data_set_without_image_or_label_is_one_clear_error(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="owner/data holds no Parquet files"):
        read("hub", "owner/data")
    write_parquet(snapshot / "data" / "train-00000-of-00001.parquet", {"text": ["a"], "label": ["b"]})
    with pytest.raises(DataError, match=r"no column image; found: text, label\. Expected both columns"):
        read("hub", "owner/data")
    assert list((tmp_path / "cache").iterdir()) == []
    (snapshot / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="the data set owner/data"):
        read("hub", "owner/data")


def test_a_place_that_is_no_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "data/own/a.png"))
    for place in ("data/clinic/more", "clinic", "../clinic", "owner/name@", "data/own"):
        with pytest.raises(ConfigError, match="is not a data set of the Hub; expected owner/name"):
            read("hub", place)


PUBLISH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("owner/data", repo_type="dataset", private=True)
api.upload_folder(repo_id="owner/data", repo_type="dataset", folder_path=sys.argv[1])
"""
READ = """
import sys
from xray_hf.data.sources import ReadOptions, hub
from xray_hf.errors import exit_on_error
def main():
    samples, _ = hub.read(sys.argv[1], "here", ReadOptions())
    print(*((sample.findings[0], sample.path.stat().st_size) for sample in samples))
sys.exit(exit_on_error(main))
"""


@pytest.mark.slow
def test_a_repository_is_fetched_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {"image": images(1, 2), "label": ["Normal", "Mass"]}
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", columns)

    def run(code: str, argument: str, token: str | None = "hf_owner") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **hub.environment(tmp_path / str(token), token)}
        command = [sys.executable, "-c", code, argument]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run(PUBLISH, str(tmp_path / "set"))
    assert done.returncode == 0, done.stderr
    found = run(READ, "owner/data@main")
    expected = [("Normal", len(png(1))), ("Mass", len(png(2)))]
    assert found.stdout.strip() == " ".join(map(str, expected)), found.stderr
    for place, token in (("owner/data@v9", "hf_owner"), ("owner/gone", "hf_owner"), ("owner/data", None)):
        refused = run(READ, place, token)
        assert refused.returncode == 1
        [line] = refused.stderr.strip().splitlines()[-1:]
        assert line.startswith(f"error: the data set {place.split('@')[0]} cannot be fetched from the Hub:")
        assert "HF_TOKEN" in line


def test_without_a_network_the_hub_is_one_clear_error() -> None:
    with pytest.raises(
        HubError,
        match=r"the data set owner/data cannot be fetched from the Hub: .*Check the name and the network",
    ):
        read("hub", "owner/data")


# All kinds


@pytest.mark.parametrize("kind", FOLDER_KINDS)
def test_a_place_that_is_no_folder_says_how_to_get_the_data(kind: str, tmp_path: Path) -> None:
    for place in (tmp_path / "gone", tmp_path / ("a" * 300)):
        with pytest.raises(DataError, match=r"(is not a folder|cannot be read: File name too long)\. \w+"):
            read(kind, place)
    with pytest.raises(DataError, match=" holds n"):
        read(kind, tmp_path)


@pytest.mark.parametrize("given", FOLDER_KINDS)
@pytest.mark.parametrize("kind", ["coronahack", "radiography", "rsna", "nih", "cohen", "folder"])
def test_a_folder_of_another_kind_is_named(
    request: pytest.FixtureRequest, tmp_path: Path, given: str, kind: str
) -> None:
    if kind == given:
        return
    if kind == "folder":
        place = touch(tmp_path / "own", "a.png")
        (place / "labels.csv").write_text("file_name,label\na.png,Normal\n")
    else:
        place = request.getfixturevalue("synthetic" if kind == "coronahack" else kind)
    with pytest.raises(DataError, match=rf"It has the layout of {kind}: pass --source {kind}={place}\."):
        read(given, place)


def test_an_archives_outer_folder_is_not_taken_for_classes(radiography: Path) -> None:
    with pytest.raises(DataError, match="It has the layout of radiography"):
        read("folder", radiography.parent)


def test_a_table_of_another_collection_by_the_name_of_ones_own_is_told_too(cohen: Path) -> None:
    (cohen / "metadata.csv").rename(cohen / "labels.csv")
    with pytest.raises(DataError, match=r"labels\.csv has no column file_name, label; found: patientid"):
        read("folder", cohen)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_is_known(kind: str) -> None:
    text = describe(kind)
    about = reader(kind).ABOUT
    assert text.startswith(f"{kind}: {about.title}\n")
    for title in ("Origin:", "Hospital:", "Counts:", "Labels:", "Classes:", "Licence:", "Known errors:"):
        assert f"\n{title} " in text
    assert "DIR/" in text or "owner/name" in text
    assert about.citation in text
    assert bool(about.citation) == (kind not in ("folder", "hub"))
    assert max(map(len, text.splitlines())) <= 110
    assert set(reader(kind).CLASS_OF.values()) <= set(PAPER_CLASSES)


def test_all_kinds_are_listed_and_others_are_not_known() -> None:
    assert [line.split()[0] for line in describe().splitlines()] == list(KINDS)
    with pytest.raises(ConfigError, match="no kind of source 'mimic'; expected one of cohen, coronahack, "):
        describe("mimic")


# Naming sources


def test_a_source_is_kind_name_and_place() -> None:
    assert parse_spec("folder:clinic=a=b/c") == SourceSpec("folder", "clinic", "a=b/c")
    assert parse_spec("nih=data") == SourceSpec("nih", "nih", "data")
    assert [str(parse_spec(text)) for text in ("folder:x=d", "nih=d")] == ["folder:x=d", "nih=d"]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["mimic=data"], "unknown kind 'mimic'; expected KIND"),
        (["data/clinic"], "A folder of your own is --source folder=data/clinic."),
        (["folder:clinic"], "names no place"),
        (["folder="], "names no place"),
        (["folder:a b=data"], "has the name 'a b'; expected letters"),
        (["folder=a", "folder=b"], "2 sources are called 'folder'; give each its own name"),
        (["nih=a", "folder:nih=b"], "2 sources are called 'nih'"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(texts: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_specs(texts)


SPECS = (SourceSpec("folder", "clinic", "a"), SourceSpec("nih", "nih", "b"))


def test_a_map_names_source_finding_and_class() -> None:
    for text in ("clinic:TB: active=Tuberculosis", "folder:clinic:TB: active=Tuberculosis"):
        assert parse_maps([text], SPECS) == {("clinic", "TB: active"): "Tuberculosis"}
    assert parse_maps(["nih:Mass=", "clinic:Mass=A"], SPECS) == {("nih", "Mass"): "", ("clinic", "Mass"): "A"}
    for text in ("openist:Mass=Normal", "Mass=Normal", "nih:Mass", "nih:=Normal"):
        with pytest.raises(
            ConfigError, match="fits no source; expected NAME:FINDING=CLASS with a name of clinic, nih"
        ):
            parse_maps([text], SPECS)


# From findings to classes


def sample(*findings: str, source: str = "clinic") -> Sample:
    name = "+".join(findings)
    return Sample(f"{name}.png", Path(name), source, findings, f"file-{name}")


def labels(
    *samples: Sample, classes: list[str] | None = None, mapped: dict[tuple[str, str], str] | None = None
) -> tuple[list[str | None], tuple[str, ...]]:
    labelled, names = classify(samples, SPECS, classes, mapped or {})
    assert [replace(each, label=None) for each in labelled] == list(samples)
    return [each.label for each in labelled], names


def test_classes_are_found_the_papers_first_in_their_order() -> None:
    found = labels(*(sample(name) for name in ("Zoster", "COVID-19", "Asthma", "Normal")))
    assert found == (["Zoster", "COVID-19", "Asthma", "Normal"], ("Normal", "COVID-19", "Asthma", "Zoster"))


def test_a_collections_findings_map_to_classes_and_others_have_none() -> None:
    nih = [
        sample(*names, source="nih") for names in (("No Finding",), ("Effusion", "Pneumonia"), ("Mass",), ())
    ]
    assert labels(*nih) == (["Normal", "Pneumonia", None, None], ("Normal", "Pneumonia"))


def test_findings_become_classes_where_the_task_names_them() -> None:
    nih = [
        sample(*names, source="nih")
        for names in (("Mass",), ("Pneumonia",), ("No Finding",), ("Mass", "Edema"))
    ]
    found, names = labels(*nih, sample("Mass"), classes=["Mass", "Normal"])
    assert found == ["Mass", None, "Normal", "Mass", "Mass"]
    assert names == ("Mass", "Normal")


def test_findings_of_two_classes_are_no_class() -> None:
    nih = [sample(*names, source="nih") for names in (("Mass", "Edema"), ("Mass",), ("Edema",))]
    assert labels(*nih, classes=["Mass", "Edema"])[0] == [None, "Mass", "Edema"]


def test_a_map_wins_over_the_collections_own() -> None:
    samples = [
        sample("Pneumonia", source="nih"),
        sample("Mass", source="nih"),
        sample("normal"),
        sample("Pneumonia"),
    ]
    mapped = {("nih", "Pneumonia"): "", ("nih", "Mass"): "Tumour", ("clinic", "normal"): "Normal"}
    assert labels(*samples, mapped=mapped) == (
        [None, "Tumour", "Normal", "Pneumonia"],
        ("Normal", "Pneumonia", "Tumour"),
    )


@pytest.mark.parametrize(
    ("classes", "mapped", "says"),
    [
        (["Normal"], None, r"there is one class only \(Normal\)"),
        (["Normal", "Normal"], None, "expected different names"),
        (None, {("clinic", "Pneumonia"): "Normal"}, r"there is one class only \(Normal\)"),
        (
            ["Normal", "Pneumonia"],
            {("clinic", "Normal"): "Healthy"},
            "clinic:Normal=Healthy names no class",
        ),
        (
            None,
            {("clinic", "normal"): ""},
            r"--map clinic:normal fits no image; the findings of clinic are Normal, Pneumonia\.",
        ),
    ],
)
def test_classes_that_cannot_be_meant_are_refused(
    classes: list[str] | None, mapped: dict[tuple[str, str], str] | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        labels(sample("Normal"), sample("Pneumonia"), classes=classes, mapped=mapped)


def test_no_image_at_all_is_no_class() -> None:
    with pytest.raises(ConfigError, match=r"there is one class only \(none\)"):
        labels()


def test_a_class_without_images_is_refused(synthetic: Path) -> None:
    with pytest.raises(ConfigError, match=r"no image has the class Mass; the sources have Normal, .*--map"):
        open_data([parse_spec(f"coronahack={synthetic}")], 32, classes=["Normal", "Mass"])


# Real data


@pytest.mark.real
def test_the_real_sources_are_read_and_classified_together(real_data: Path) -> None:
    root = real_data.parent / "sources"
    if not root.is_dir():
        pytest.skip(f"no further real data at {root}")
    specs = parse_specs([f"folder:{path.name}={path}" for path in sorted(root.iterdir()) if path.is_dir()])
    samples = []
    for spec in (*specs, parse_spec(f"coronahack={real_data}")):
        found, report = reader(spec.kind).read(spec.place, spec.name, ReadOptions())
        report.require_clean(drop_bad=False)
        assert report.files_without_metadata == []
        samples += found
    labelled, classes = classify(samples, (*specs, parse_spec(f"coronahack={real_data}")), None, {})
    assert classes == PAPER_CLASSES
    counts = Counter((sample.source, sample.label) for sample in labelled)
    assert counts["radiography", "Normal"] == 3969
    assert counts["radiography", "COVID-19"] == 2584
    assert counts["thorax_scan", "Pneumonia"] == 1099
    assert counts["coronahack", "Pneumonia"] == 4276
    assert sum(counts.values()) == len(samples)


@pytest.mark.slow
@pytest.mark.real
def test_the_numbers_of_radiography_tell_the_sites_that_were_measured(
    real_data: Path, tmp_path: Path
) -> None:
    root = real_data.parent / "sources" / "radiography"
    if not root.is_dir():
        pytest.skip(f"no real data at {root}")
    known = {sample.file_name: sample.site for sample in read("folder", root)[0]}
    for name in known:  # "Normal_Normal-1377.jpg"
        touch(tmp_path, name.replace("_", "/", 1))
    sites = {
        sample.file_name.replace("/", "_", 1): sample.site for sample in read("radiography", tmp_path)[0]
    }
    assert {(known[name], site) for name, site in sites.items()} == {
        ("NIH", "NIH"),
        ("BIMCV", "BIMCV"),
        ("BIMCV?", ""),
    }


def test_the_page_of_sources_says_what_is_known() -> None:
    assert write_sources.PAGE.read_text(encoding="utf-8") == write_sources.page()
