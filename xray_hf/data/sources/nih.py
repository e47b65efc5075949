"""ChestX-ray14 of the NIH Clinical Center -> samples.

DIR/Data_Entry_2017.csv                or Data_Entry_2017_v2020.csv: Image Index, Finding Labels, Patient ID,
                                       View Position, …; several findings are separated by '|'
DIR/images_001/images/00000001_000.png     to images_012, as Kaggle has it, or all in images/
DIR/train_val_list.txt, test_list.txt  optional: the official split, one file name a line
"""

from __future__ import annotations

from pathlib import Path

from xray_hf.data import tables
from xray_hf.data.sample import Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions
from xray_hf.errors import DataError

ABOUT = About(
    title="ChestX-ray14",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    origin="Frontal X-rays of the hospital's archive, published in 2017. 1024×1024 PNG, 8 bit.",
    hospital="NIH Clinical Center, Bethesda, USA; patients of clinical studies, mostly adults.",
    counts=(
        "112,120 images of 30,805 patients. More than half are No Finding, about one in a hundred is "
        "Pneumonia. The official split divides no patient."
    ),
    labels="Text-mined from the radiologists' reports; 14 findings, several an image.",
    licence="Any use, with a link to the page, the citation and the NIH Clinical Center named as provider.",
    known_errors=(
        "The labels are noisy: a radiologist who looked at samples found positive predictive values mostly "
        "10 to 30 % lower than published (Oakden-Rayner 2019).",
        "No Finding means that the report names none of the 14, not that the chest is healthy.",
        "Chest drains give pneumothorax away.",
        "rsna and the Normal images of radiography are parts of it, processed differently.",
    ),
    citation="""\
@inproceedings{wang2017chestxray8,
  title     = {ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised
               classification and localization of common thorax diseases},
  author    = {Wang, Xiaosong and Peng, Yifan and Lu, Le and Lu, Zhiyong and Bagheri, Mohammadhadi and
               Summers, Ronald M.},
  booktitle = {CVPR}, pages = {3462--3471}, year = {2017},
  doi       = {10.1109/CVPR.2017.369}
}""",
)
# The other findings have no class unless the task asks for them by their names.
CLASS_OF = {"No Finding": "Normal", "Pneumonia": "Pneumonia"}

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
SPLIT_LISTS = {"TRAIN": "train_val_list.txt", "TEST": "test_list.txt"}
HOW_TO_GET = (
    "Unpack it from nihcc.app.box.com/v/ChestXray-NIHCC or kaggle.com/datasets/nih-chest-xrays/data; then "
    f"pass the folder that holds {TABLES[1]} and the images."
)


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Read the CSV and the lists of the official split, and look for every image; no image is decoded.

    Raises DataError if the folder, the CSV or a column is missing, and for an image with two different rows.
    """
    folder = tables.require_folder(place, HOW_TO_GET)
    table, rows = tables.read_table(folder, TABLES, COLUMNS, HOW_TO_GET)
    files = {
        path.name: path for path in tables.images_below(folder, HOW_TO_GET).values() if path.suffix == ".png"
    }
    splits = {file: split for split, names in SPLIT_LISTS.items() for file in _lines(folder / names)}
    report = SourceReport(name, place, rows=len(rows), patients_from=str(table))
    samples = []
    for row in tables.without_repeats(rows, "Image Index", table, report.duplicate_rows):
        file_name = row["Image Index"]
        path = files.pop(file_name, None)
        if path is None:
            report.rows_without_file.append(file_name)
            continue
        samples.append(
            Sample(
                file_name=file_name,
                path=path,
                source=name,
                findings=tuple(finding for finding in row["Finding Labels"].split("|") if finding),
                patient_id=patient_of(row["Patient ID"]),
                site="NIH",
                official_split=splits.get(file_name, ""),
                view=row["View Position"],
                license="NIH, with attribution",
            )
        )
    report.files_without_metadata = list(files)
    return samples, report


def fits(folder: Path) -> bool:
    """Whether a folder holds the CSV."""
    return tables.has_table(folder, TABLES, COLUMNS)


def patient_of(number: str) -> str:
    """The patient of a number as the CSV or a file name writes it: "00000013" -> "nih-13"."""
    return f"nih-{number.lstrip('0') or '0'}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of file names ({error}). {HOW_TO_GET}") from error
