"""CoronaHack chest X-ray data set in Kaggle's layout -> checked records.

Origin     Kaggle `praveengovi/coronahack-chest-xraydataset`, a merge of two collections:
           Kermany, Zhang and Goldbaum 2018 (children of 1 to 5 years, one hospital in Guangzhou) and
           Cohen et al. 2020 (COVID-19 and other infections, mostly adults, collected from the web).
Counts     5,910 rows, 5,286 TRAIN and 624 TEST; 1,576 Normal, 4,276 Pneumonia, 58 COVID-19;
           no COVID-19 in TEST. 23 files of the train folder have no row.
Labels     read by physicians (Kermany), taken from publications and case reports (Cohen).
Known      the class COVID-19 and the source are confounded: a model can tell children of one hospital
errors     from adults of the web. 34 pairs of images are near-duplicates, 4 COVID-19 images are lateral.
"""

from __future__ import annotations

import re
from pathlib import Path

from xray_hf.data.sample import SYNTHETIC, SYNTHETIC_PREFIX, Report, Sample, read_rows, without_repeats
from xray_hf.errors import DataError
from xray_hf.task import COVID19, NORMAL, OFFICIAL_SPLITS, PNEUMONIA

KAGGLE_SLUG = "praveengovi/coronahack-chest-xraydataset"
CSV_NAME = "Chest_xray_Corona_Metadata.csv"
IMAGE_FOLDER = "Coronahack-Chest-XRay-Dataset"
COLUMNS = ("X_ray_image_name", "Label", "Dataset_type", "Label_1_Virus_category", "Label_2_Virus_category")
COVID_METADATA_NAMES = ("covid_chestxray_metadata.csv", "metadata.csv")
HOW_TO_GET = (
    f"Download it with `xray-hf download --out DIR`, or unpack it from kaggle.com/datasets/{KAGGLE_SLUG}; "
    f"then pass the folder that holds {CSV_NAME}."
)

HELP_ON_COVID_METADATA = (
    "CSV with the patients of the COVID-19 images "
    f"(default: {' or '.join(COVID_METADATA_NAMES)} in the data's folder or its parent, if there is one)"
)
HOW_TO_GET_COVID = "Expected metadata.csv of github.com/ieee8023/covid-chestxray-dataset."
EXPECTED_LABELS = "Normal or Pnemonia, and COVID-19 in Label_2_Virus_category"

_LABELS = {"Normal": NORMAL, "Pnemonia": PNEUMONIA, "Pneumonia": PNEUMONIA}  # the real file is misspelt
# By source; of the web, one per image. The atlas was made of images with non-commercial terms, too.
_LICENSES = {"Kermany": "CC BY 4.0", SYNTHETIC: "CC BY-NC 4.0"}
_KERMANY_NAME = re.compile(r"^(?:SYNTHETIC-)?(?:(person\d+)_|((?:NORMAL2-)?IM-\d+)-)")
_SYNTHETIC_COVID_NAME = re.compile(r"^(SYNTHETIC-covid-\d+)-")


def read(data_dir: Path, covid_metadata: Path | None = None) -> tuple[list[Sample], Report]:
    """Read the CSV and look for every image file; no image is decoded.

    data_dir: the unpacked Kaggle folder. covid_metadata: the metadata CSV of
    ieee8023/covid-chestxray-dataset, which tells patient and view of the COVID-19 images; without it
    `covid_chestxray_metadata.csv` or `metadata.csv` in `data_dir` or its parent is used if there is one.
    Returns the usable records in the CSV's order and a report of all other rows and files.
    Raises DataError if the folder, the CSV, a column or all images are missing.
    """
    try:
        csv_path, image_root = _locate(data_dir)
        files = {split: _files_in(image_root / split.lower()) for split in OFFICIAL_SPLITS}
    except OSError as error:
        raise DataError(f"{data_dir} cannot be read: {error.strerror}. {HOW_TO_GET}") from error
    rows = read_rows(csv_path, COLUMNS, HOW_TO_GET)
    covid_metadata = covid_metadata or _find_covid_metadata(data_dir)
    of_covid = _read_covid_metadata(covid_metadata) if covid_metadata else {}

    report = Report(str(data_dir), rows=len(rows), covid_patients_from=str(covid_metadata or "") or None)
    records: dict[str, Sample] = {}
    for row in without_repeats(rows, "X_ray_image_name", csv_path, report):
        name = row["X_ray_image_name"]
        path = files.get(row["Dataset_type"], {}).get(name)
        label = _label_of(row)
        if row["Dataset_type"] not in OFFICIAL_SPLITS:
            raise DataError(
                f"{csv_path}: {name} has Dataset_type {row['Dataset_type']!r}; expected TRAIN or TEST."
            )
        if label is None:
            report.unknown_labels.append(name)
            report.complaints[name] = f"{name} has Label {row['Label']!r}; expected {EXPECTED_LABELS}"
        elif path is None:
            report.rows_without_file.append(name)
        else:
            records[name] = _record(row, path, label, of_covid.get(name, {}))

    listed = {row["X_ray_image_name"] for row in rows}
    report.files_without_metadata = [
        name for found in files.values() for name in sorted(found) if name not in listed
    ]
    return list(records.values()), report


def patient_id(file_name: str, official_split: str, covid_patient: str = "") -> str:
    """Name the patient behind a file; covid_patient: what the metadata of the COVID-19 images call them.

    `personN_…` is numbered anew in TRAIN and TEST; `IM-NNNN-…` and `NORMAL2-IM-NNNN-…` are not. COVID-19
    images have the patient of their collection's metadata; without it each file is its own patient.
    """
    if match := _KERMANY_NAME.match(file_name):
        person, scan = match.groups()
        return f"{official_split}-{person}" if person else scan
    if match := _SYNTHETIC_COVID_NAME.match(file_name):
        return match.group(1)
    return f"cohen-{covid_patient}" if covid_patient else f"file-{file_name}"


def _locate(data_dir: Path) -> tuple[Path, Path]:
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is not a folder; expected the CoronaHack data set. {HOW_TO_GET}")
    csv_path = data_dir / CSV_NAME
    if not csv_path.is_file():
        raise DataError(f"{data_dir} holds no {CSV_NAME}. {HOW_TO_GET}")
    # Kaggle's archive nests the folder twice; people who tidy it up leave one level.
    for image_root in (data_dir / IMAGE_FOLDER / IMAGE_FOLDER, data_dir / IMAGE_FOLDER):
        if (image_root / "train").is_dir() and (image_root / "test").is_dir():
            return csv_path, image_root
    raise DataError(
        f"{data_dir} holds the CSV but not {IMAGE_FOLDER}/{IMAGE_FOLDER}/train and …/test with the images; "
        f"is the archive unpacked whole? {HOW_TO_GET}"
    )


def _find_covid_metadata(data_dir: Path) -> Path | None:
    candidates = (
        folder / name for folder in (data_dir, data_dir.resolve().parent) for name in COVID_METADATA_NAMES
    )
    return next((path for path in candidates if path.is_file() and _is_covid_metadata(path)), None)


def _is_covid_metadata(path: Path) -> bool:
    """Whether a file that merely lies there has the columns; `metadata.csv` is a common name."""
    try:
        _read_covid_metadata(path)
    except DataError:
        return False
    return True


def _read_covid_metadata(path: Path) -> dict[str, dict[str, str]]:
    """{file name: its row}, with patientid, view and license."""
    rows = read_rows(path, ("patientid", "filename"), HOW_TO_GET_COVID, optional=("view", "license"))
    return {row["filename"]: row for row in rows}


def _files_in(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}


def _label_of(row: dict[str, str]) -> int | None:
    if row["Label_2_Virus_category"] == "COVID-19":
        return COVID19
    return _LABELS.get(row["Label"])


def _record(row: dict[str, str], path: Path, label: int, of_covid: dict[str, str]) -> Sample:
    name = row["X_ray_image_name"]
    source = _source_of(name)
    return Sample(
        file_name=name,
        path=path,
        label=label,
        patient_id=patient_id(name, row["Dataset_type"], of_covid.get("patientid", "")),
        official_split=row["Dataset_type"],
        pathogen=row["Label_1_Virus_category"],
        virus_category=row["Label_2_Virus_category"],
        site=source,
        license=_LICENSES.get(source) or of_covid.get("license", ""),
        view=of_covid.get("view", ""),
    )


def _source_of(file_name: str) -> str:
    if file_name.startswith(SYNTHETIC_PREFIX):
        return SYNTHETIC
    return "Kermany" if _KERMANY_NAME.match(file_name) else "Cohen"
