"""RSNA Pneumonia Detection Challenge 2018, stage 2, as Kaggle ships it -> samples.

DIR/stage_2_detailed_class_info.csv    patientId, class
DIR/stage_2_train_labels.csv           patientId, x, y, width, height, Target
DIR/stage_2_train_images/ID.dcm        the images; those of stage_2_test_images have no labels
DIR/pneumonia-challenge-dataset-mappings_2018.json     optional, from RSNA's page: the patients of NIH

Both CSVs have one row for each box, so some images have several rows.
"""

from __future__ import annotations

import json
from pathlib import Path

from xray_hf.data.sample import UNKNOWN_PATIENT, Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions
from xray_hf.data.sources.nih import patient_of
from xray_hf.data.tables import has_table, images_below, read_table, require_folder, without_repeats
from xray_hf.errors import DataError

ABOUT = About(
    title="RSNA Pneumonia Detection Challenge 2018",
    url="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
    origin=(
        "Frontal X-rays of ChestX-ray14, read again for the RSNA and the Society of Thoracic Radiology in "
        "2018. 1024×1024, 8 bit, as DICOM."
    ),
    hospital="NIH Clinical Center, Bethesda, USA; patients of clinical studies, mostly adults.",
    counts=(
        "26,684 images with labels: 8,851 Normal, 6,012 Lung Opacity, 11,821 No Lung Opacity / Not Normal. "
        "The labels of the test images are not included."
    ),
    labels="Read from the X-ray by radiologists; Lung Opacity has boxes.",
    licence="RSNA's terms: commercial use too, with the attribution that its page asks for.",
    known_errors=(
        "A lung opacity need not be pneumonia, and no test confirms one.",
        "patientId names an image. Only RSNA's mapping to ChestX-ray14 names the patients.",
        "All images are in nih too, and the Normal and Lung Opacity ones in radiography.",
    ),
    citation="""\
@article{shih2019augmenting,
  title   = {Augmenting the National Institutes of Health chest radiograph dataset with expert annotations of
             possible pneumonia},
  author  = {Shih, George and Wu, Carol C. and Halabi, Safwan S. and others},
  journal = {Radiology: Artificial Intelligence}, volume = {1}, pages = {e180041}, year = {2019},
  doi     = {10.1148/ryai.2019180041}
}""",
)
OPACITY = "Lung Opacity"
# "No Lung Opacity / Not Normal" has no class: it shows some other finding.
CLASS_OF = {"Normal": "Normal", OPACITY: "Pneumonia"}

CLASS_INFO = "stage_2_detailed_class_info.csv"
TRAIN_LABELS = "stage_2_train_labels.csv"
IMAGE_FOLDER = "stage_2_train_images"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
HOW_TO_GET = (
    f"Unpack it from kaggle.com/c/rsna-pneumonia-detection-challenge; then pass the folder that holds "
    f"{CLASS_INFO}, {TRAIN_LABELS} and {IMAGE_FOLDER}."
)


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Read the two CSVs and look for every image file; no image is decoded.

    Raises DataError if a file, a column or the folder of images is missing, and for an image with two
    classes, within a CSV or between the two.
    """
    folder = require_folder(place, HOW_TO_GET)
    classes = _each_once(folder, CLASS_INFO, "class")
    targets = _each_once(folder, TRAIN_LABELS, "Target")
    for image, finding in classes.items():
        if (finding == OPACITY) != (targets.get(image) == "1"):
            raise DataError(
                f"{image} is {finding!r} in {CLASS_INFO}, but has Target {targets.get(image)!r} in "
                f"{TRAIN_LABELS}, of {folder}; are both of one stage? {HOW_TO_GET}"
            )
    images = images_below(require_folder(folder / IMAGE_FOLDER, HOW_TO_GET), HOW_TO_GET)
    files = {path.stem: path for path in images.values()}
    patients = _patients(folder / MAPPING)
    report = SourceReport(
        name, place, rows=len(classes), patients_from=str(folder / MAPPING) if patients else None
    )
    report.rows_without_file = [f"{image}.dcm" for image in classes if image not in files]
    report.files_without_metadata = [path.name for image, path in files.items() if image not in classes]
    samples = [
        Sample(
            file_name=f"{image}.dcm",
            path=files[image],
            source=name,
            findings=(finding,),
            patient_id=patients.get(image, f"{UNKNOWN_PATIENT}{image}.dcm"),
            site="NIH",
            license="RSNA, with attribution",
        )
        for image, finding in classes.items()
        if image in files
    ]
    return samples, report


def fits(folder: Path) -> bool:
    """Whether a folder holds the two CSVs."""
    columns = {CLASS_INFO: "class", TRAIN_LABELS: "Target"}
    return all(has_table(folder, (table,), ("patientId", column)) for table, column in columns.items())


def _each_once(folder: Path, name: str, column: str) -> dict[str, str]:
    """{image: its value in a column}; an image has one row per box, all with the same value."""
    table, rows = read_table(folder, (name,), ("patientId", column), HOW_TO_GET)
    return {row["patientId"]: row[column] for row in without_repeats(rows, "patientId", table, [])}


def _patients(mapping: Path) -> dict[str, str]:
    """{image: patient of ChestX-ray14}; empty without RSNA's file."""
    if not mapping.is_file():
        return {}
    try:
        pairs = json.loads(mapping.read_text(encoding="utf-8"))
        return {pair["subset_img_id"]: patient_of(pair["img_id"].split("_")[0]) for pair in pairs}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{mapping} is not RSNA's list with subset_img_id and img_id ({type(error).__name__}); "
            "download it again, or remove it."
        ) from error
