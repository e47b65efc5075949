"""COVID-19 image data collection, github.com/ieee8023/covid-chestxray-dataset -> samples.

DIR/metadata.csv    patientid, finding, view, modality, filename, license, …
DIR/images/         the X-rays, and slices of CT

A finding is a path from the general to the particular, such as Pneumonia/Viral/COVID-19. Old versions have
only its last part, and no modality.
"""

from __future__ import annotations

from pathlib import Path

from xray_hf.data import tables
from xray_hf.data.sample import UNKNOWN_PATIENT, Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions

ABOUT = About(
    title="COVID-19 image data collection",
    url="https://github.com/ieee8023/covid-chestxray-dataset",
    origin="Figures of publications and web pages, collected by Joseph Paul Cohen and others, 2020.",
    hospital="Many, in many countries; mostly adults.",
    counts=(
        "Hundreds of frontal X-rays as of its paper, June 2020; it grew afterwards. Most are COVID-19, the "
        "rest other pneumonia, tuberculosis and a few without finding."
    ),
    labels="Stated by the publication, case report or web page.",
    licence="Per image (column license): Apache 2.0, CC BY, CC BY-NC-SA, CC BY-NC-ND or not stated.",
    known_errors=(
        "Published cases are severe or striking ones, not a sample of any clinic.",
        "Figures are cropped, compressed, annotated.",
        "There is hardly any Normal: pooled with another collection, class and source are confounded.",
        "coronahack, radiography and many others contain parts of it.",
    ),
    citation="""\
@article{cohen2020covid,
  title   = {COVID-19 image data collection: prospective predictions are the future},
  author  = {Cohen, Joseph Paul and Morrison, Paul and Dao, Lan and Roth, Karsten and Duong, Tim Q and
             Ghassemi, Marzyeh},
  journal = {arXiv:2006.11988}, year = {2020}
}""",
)
_PNEUMONIA = (
    *("Aspiration", "Lipoid", "Bacterial", "Fungal/Aspergillosis", "Fungal/Pneumocystis"),
    *("Bacterial/Chlamydophila", "Bacterial/E.Coli", "Bacterial/Klebsiella", "Bacterial/Legionella"),
    *("Bacterial/Mycoplasma", "Bacterial/Nocardia", "Bacterial/Staphylococcus/MRSA"),
    *("Bacterial/Streptococcus", "Viral/Herpes", "Viral/Influenza", "Viral/Influenza/H1N1"),
    *("Viral/MERS-CoV", "Viral/SARS", "Viral/Varicella"),
)
# Unknown, todo, Tuberculosis and ARDS, which has many causes, have no class.
CLASS_OF = {
    "No Finding": "Normal",
    "Pneumonia": "Pneumonia",
    **{f"Pneumonia/{kind}": "Pneumonia" for kind in _PNEUMONIA},
    **dict.fromkeys(("SARS", "Streptococcus", "Pneumocystis"), "Pneumonia"),
    **dict.fromkeys(("COVID-19", "Pneumonia/Viral/COVID-19"), "COVID-19"),
}

TABLE = "metadata.csv"
COLUMNS = ("patientid", "finding", "view", "filename")
OPTIONAL = ("modality", "license")
HOW_TO_GET = f"Clone {ABOUT.url}; then pass the folder that holds {TABLE} and images."


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Read the CSV and look for the file of every frontal X-ray; no image is decoded.

    Lateral views and CT are noted in the report and left out. Raises DataError if the folder, the CSV or a
    column is missing, and for an image with two different rows.
    """
    folder = tables.require_folder(place, HOW_TO_GET)
    table, rows = tables.read_table(folder, (TABLE,), COLUMNS, HOW_TO_GET, OPTIONAL)
    files = tables.images_below(tables.require_folder(folder / "images", HOW_TO_GET), HOW_TO_GET)
    report = SourceReport(name, place, rows=len(rows), patients_from=str(table))
    samples = []
    for row in tables.without_repeats(rows, "filename", table, report.duplicate_rows):
        file_name = row["filename"]
        path = files.pop(tables.normal_name(file_name), None)
        if not _is_frontal(row):
            report.not_frontal.append(file_name)
        elif path is None:
            report.rows_without_file.append(file_name)
        else:
            samples.append(_sample(row, path, name))
    report.files_without_metadata = list(files)
    return samples, report


def fits(folder: Path) -> bool:
    """Whether a folder holds its metadata.csv."""
    return tables.has_table(folder, (TABLE,), COLUMNS)


def _is_frontal(row: dict[str, str]) -> bool:
    """Whether it is a frontal X-ray: PA, AP, AP Supine or AP Erect; CT is Axial or Coronal."""
    return row["modality"] in ("X-ray", "") and row["view"].startswith(("PA", "AP"))


def _sample(row: dict[str, str], path: Path, source: str) -> Sample:
    file_name, patient = row["filename"], row["patientid"]
    return Sample(
        file_name=file_name,
        path=path,
        source=source,
        # Old versions have several, as "COVID-19, ARDS".
        findings=tuple(finding for finding in map(str.strip, row["finding"].split(",")) if finding),
        patient_id=f"cohen-{patient}" if patient else f"{UNKNOWN_PATIENT}{file_name}",
        site="Cohen",
        view=row["view"],
        license=row["license"],
    )
