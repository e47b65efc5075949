"""CoronaHack chest X-ray data set in Kaggle's layout -> samples.

DIR/Chest_xray_Corona_Metadata.csv     X_ray_image_name, Label, Dataset_type, Label_1_Virus_category, …
DIR/Coronahack-Chest-XRay-Dataset/…/train/, …/test/     the images (Kaggle nests the folder twice)
DIR/covid_chestxray_metadata.csv       optional: patient and view of the COVID-19 images
"""

from __future__ import annotations

import re
from pathlib import Path

from xray_hf.data import tables
from xray_hf.data.sample import SYNTHETIC, SYNTHETIC_PREFIX, UNKNOWN_PATIENT, Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions
from xray_hf.errors import DataError
from xray_hf.task import OFFICIAL_SPLITS

ABOUT = About(
    title="CoronaHack chest X-ray data set",
    url="https://www.kaggle.com/datasets/praveengovi/coronahack-chest-xraydataset",
    origin=(
        "A merge of two collections: Kermany, Zhang and Goldbaum 2018 (children of one to five years) and "
        "Cohen et al. 2020 (COVID-19 and other infections, mostly adults, from publications and web pages)."
    ),
    hospital="Guangzhou Women and Children's Medical Center (Kermany); many hospitals, from the web (Cohen).",
    counts=(
        "5,910 images with a row, 5,286 TRAIN and 624 TEST: 1,576 Normal, 4,276 Pneumonia, 58 COVID-19 "
        "(none in TEST). 23 files of the train folder have no row."
    ),
    labels="Read from the X-ray by physicians (Kermany); stated by the publication or case report (Cohen).",
    licence="Kermany: CC BY 4.0. Cohen: per image, many non-commercial or not stated.",
    known_errors=(
        "COVID-19 and source are confounded: age, hospital, machine and picture format give the class away.",
        "58 COVID-19 images of 39 patients are few, and 4 of them are lateral views.",
        "36 pairs of images show the same picture.",
        "Patient ids come from file names; two names may be one child.",
    ),
    citation="""\
@article{kermany2018identifying,
  title   = {Identifying medical diagnoses and treatable diseases by image-based deep learning},
  author  = {Kermany, Daniel S. and Goldbaum, Michael and Zhang, Kang and others},
  journal = {Cell}, volume = {172}, pages = {1122--1131}, year = {2018},
  doi     = {10.1016/j.cell.2018.02.010}
}
@article{cohen2020covid,
  title   = {COVID-19 image data collection: prospective predictions are the future},
  author  = {Cohen, Joseph Paul and others},
  journal = {arXiv:2006.11988}, year = {2020}
}""",
)
# The real file misspells Pneumonia. COVID-19 stands in another column and becomes a finding of its own.
CLASS_OF = {"Normal": "Normal", "Pnemonia": "Pneumonia", "Pneumonia": "Pneumonia", "COVID-19": "COVID-19"}

KAGGLE_SLUG = "praveengovi/coronahack-chest-xraydataset"
CSV_NAME = "Chest_xray_Corona_Metadata.csv"
IMAGE_FOLDER = "Coronahack-Chest-XRay-Dataset"
COLUMNS = ("X_ray_image_name", "Label", "Dataset_type", "Label_1_Virus_category", "Label_2_Virus_category")
COVID_COLUMNS = ("patientid", "filename")
COVID_METADATA_NAMES = ("covid_chestxray_metadata.csv", "metadata.csv")
HOW_TO_GET = (
    f"Download it with `xray-hf download --out DIR`, or unpack it from kaggle.com/datasets/{KAGGLE_SLUG}; "
    f"then pass the folder that holds {CSV_NAME}."
)
HOW_TO_GET_COVID = "Expected metadata.csv of github.com/ieee8023/covid-chestxray-dataset."

# By site; images from the web have one each. The atlas was also made of images with non-commercial terms.
_LICENSES = {"Kermany": "CC BY 4.0", SYNTHETIC: "CC BY-NC 4.0"}
_KERMANY_NAME = re.compile(r"^(?:SYNTHETIC-)?(?:(person\d+)_|((?:NORMAL2-)?IM-\d+)-)")
_SYNTHETIC_COVID_NAME = re.compile(r"^(SYNTHETIC-covid-\d+)-")


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Read the CSV and look for every image file; no image is decoded.

    place: the unpacked Kaggle folder. options.covid_metadata: the CSV with patient and view of the COVID-19
    images; by default `covid_chestxray_metadata.csv` or `metadata.csv` in the folder or its parent, if there.
    Returns the usable samples in the CSV's order and a report of all other rows and files.
    Raises DataError if the folder, the CSV, a column or all images are missing.
    """
    data_dir = tables.require_folder(place, HOW_TO_GET)
    csv_path, rows = tables.read_table(data_dir, (CSV_NAME,), COLUMNS, HOW_TO_GET)
    image_root = _image_root(data_dir)
    files = {split: tables.images_below(image_root / split.lower(), HOW_TO_GET) for split in OFFICIAL_SPLITS}
    covid_metadata = options.covid_metadata or _find_covid_metadata(data_dir)
    of_covid = _read_covid_metadata(covid_metadata) if covid_metadata else {}

    patients_from = f"file names; of COVID-19 images {covid_metadata or 'unknown: each file counts as one'}"
    report = SourceReport(name, str(data_dir), rows=len(rows), patients_from=patients_from)
    samples = []
    for row in tables.without_repeats(rows, "X_ray_image_name", csv_path, report.duplicate_rows):
        file_name = row["X_ray_image_name"]
        path = files.get(row["Dataset_type"], {}).get(file_name)
        if row["Dataset_type"] not in OFFICIAL_SPLITS:
            raise DataError(
                f"{csv_path}: {file_name} has Dataset_type {row['Dataset_type']!r}; expected TRAIN or TEST."
            )
        if path is None:
            report.rows_without_file.append(file_name)
        else:
            samples.append(_sample(row, path, name, of_covid.get(file_name, {})))

    listed = {row["X_ray_image_name"] for row in rows}
    report.files_without_metadata = [
        file_name for found in files.values() for file_name in found if file_name not in listed
    ]
    return samples, report


def patient_id(file_name: str, official_split: str, covid_patient: str = "") -> str:
    """The patient id of a file. covid_patient: the id in the metadata of the COVID-19 images.

    The numbers of `personN_…` restart in TEST, so the split is a part of the id; those of `IM-NNNN-…` and
    `NORMAL2-IM-NNNN-…` do not. A COVID-19 image without metadata is its own patient.
    """
    if match := _KERMANY_NAME.match(file_name):
        person, scan = match.groups()
        return f"{official_split}-{person}" if person else scan
    if match := _SYNTHETIC_COVID_NAME.match(file_name):
        return match.group(1)
    return f"cohen-{covid_patient}" if covid_patient else f"{UNKNOWN_PATIENT}{file_name}"


def fits(folder: Path) -> bool:
    """Whether a folder holds CoronaHack's CSV."""
    return tables.has_table(folder, (CSV_NAME,), COLUMNS)


def _image_root(data_dir: Path) -> Path:
    # Kaggle's archive nests the folder twice; people who tidy it up leave one level.
    for image_root in (data_dir / IMAGE_FOLDER / IMAGE_FOLDER, data_dir / IMAGE_FOLDER):
        if (image_root / "train").is_dir() and (image_root / "test").is_dir():
            return image_root
    raise DataError(
        f"{data_dir} holds the CSV but not {IMAGE_FOLDER}/{IMAGE_FOLDER}/train and …/test with the images; "
        f"is the archive unpacked whole? {HOW_TO_GET}"
    )


def _find_covid_metadata(data_dir: Path) -> Path | None:
    for folder in (data_dir, data_dir.resolve().parent):
        for name in COVID_METADATA_NAMES:
            # `metadata.csv` is a common name: one without the columns is another file.
            if tables.has_table(folder, [name], COVID_COLUMNS):
                return folder / name
    return None


def _read_covid_metadata(path: Path) -> dict[str, dict[str, str]]:
    """{file name: its row}, with patientid, view and license."""
    rows = tables.read_rows(path, COVID_COLUMNS, HOW_TO_GET_COVID, optional=("view", "license"))
    return {row["filename"]: row for row in rows}


def _sample(row: dict[str, str], path: Path, source: str, of_covid: dict[str, str]) -> Sample:
    name, category = row["X_ray_image_name"], row["Label_2_Virus_category"]
    real_site = "Kermany" if _KERMANY_NAME.match(name) else "Cohen"
    site = SYNTHETIC if name.startswith(SYNTHETIC_PREFIX) else real_site
    return Sample(
        file_name=name,
        path=path,
        source=source,
        findings=("COVID-19",) if category == "COVID-19" else (row["Label"],),
        patient_id=patient_id(name, row["Dataset_type"], of_covid.get("patientid", "")),
        site=site,
        official_split=row["Dataset_type"],
        view=of_covid.get("view", ""),
        license=_LICENSES.get(site) or of_covid.get("license", ""),
        pathogen=row["Label_1_Virus_category"],
        virus_category=category,
    )
