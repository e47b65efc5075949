"""COVID-19 Radiography Database as Kaggle ships it -> samples.

DIR/COVID/images/COVID-1.png           likewise Normal/, Lung_Opacity/, Viral Pneumonia/
DIR/COVID/masks/                       lung masks, never read as images
DIR/COVID.metadata.xlsx                optional, one a class: FILE NAME, FORMAT, SIZE, URL

Old versions have the images directly in COVID-19/, NORMAL/ and Viral Pneumonia/. Kaggle's archive puts all
of it into one more folder, COVID-19_Radiography_Dataset/. The URL tells the site; without it, the number does
for most.
"""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from zipfile import BadZipFile

from xray_hf.data.sample import UNKNOWN_PATIENT, Sample, SourceReport
from xray_hf.data.sources import About, ReadOptions
from xray_hf.data.tables import images_below, require_folder, right_kind, subfolders
from xray_hf.errors import DataError, as_sentence

ABOUT = About(
    title="COVID-19 Radiography Database",
    url="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
    origin=(
        "A merge of public collections by Qatar University and the University of Dhaka, with doctors of "
        "Pakistan and Malaysia; 2020 to 2021, in several releases. 299×299 PNG with lung masks."
    ),
    hospital=(
        "COVID: hospitals of the Valencian region (BIMCV, 2,473), the web (SIRM, Eurorad, Cohen and others, "
        "559), COVID-CXNet (400), Hannover Medical School (183). Normal: NIH by RSNA (8,851) and Guangzhou's "
        "children (Kermany, 1,341). Lung_Opacity: NIH by RSNA. Viral Pneumonia: Guangzhou's children."
    ),
    counts=(
        "21,165 images: 3,616 COVID, 10,192 Normal, 6,012 Lung_Opacity, 1,345 Viral Pneumonia. No patient "
        "ids."
    ),
    labels=(
        "Those of the merged collections: COVID by the source's report or test, Normal and Lung_Opacity of "
        "NIH by RSNA's radiologists, children by physicians in Guangzhou."
    ),
    licence="None for the whole; each image has the terms of the collection that it comes from.",
    known_errors=(
        "Class and source are confounded: no hospital has both COVID and Normal.",
        "Children and adults are mixed in Normal.",
        "A lung opacity need not be an infection.",
        "Without patient ids a random split may share patients; BIMCV has several images a patient.",
        "It repeats images of rsna, nih, coronahack and cohen.",
        "The page counts 3,616 images of COVID, but the parts that it lists add up to 3,615.",
    ),
    citation="""\
@article{chowdhury2020can,
  title   = {Can AI help in screening viral and COVID-19 pneumonia?},
  author  = {Chowdhury, Muhammad E. H. and Rahman, Tawsifur and Khandakar, Amith and others},
  journal = {IEEE Access}, volume = {8}, pages = {132665--132676}, year = {2020},
  doi     = {10.1109/ACCESS.2020.3010287}
}
@article{rahman2021exploring,
  title   = {Exploring the effect of image enhancement techniques on COVID-19 detection using chest X-ray
             images},
  author  = {Rahman, Tawsifur and Khandakar, Amith and Qiblawey, Yazan and others},
  journal = {Computers in Biology and Medicine}, volume = {132}, pages = {104319}, year = {2021},
  doi     = {10.1016/j.compbiomed.2021.104319}
}""",
)
CLASS_OF = {
    "Normal": "Normal",
    "Viral Pneumonia": "Pneumonia",
    "Lung_Opacity": "Pneumonia",
    "COVID": "COVID-19",
}
HOW_TO_GET = (
    "Unpack it from kaggle.com/datasets/tawsifurrahman/covid19-radiography-database; then pass the folder "
    "that holds COVID and Normal."
)

_FOLDERS = {  # a folder's or table's name in small letters, letters only: the finding
    "normal": "Normal",
    "viralpneumonia": "Viral Pneumonia",
    "lungopacity": "Lung_Opacity",
    "covid": "COVID",
}
_SITE_OF_URL = {  # a part of the URL column
    "bimcv": "BIMCV",
    "rsna-pneumonia": "NIH",
    "chest-xray-pneumonia": "Kermany",
    "ieee8023": "Cohen",
    "ml-workgroup": "Hannover",
    "COVID-CXNet": "COVID-CXNet",
    "sirm.org": "SIRM",
    "eurorad": "Eurorad",
}
_LICENSES = {"Kermany": "CC BY 4.0"}
# What openpyxl raises for a damaged file, in addition to its own exceptions.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, SyntaxError, BadZipFile)


def read(place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
    """Look for the images of every class folder; no image is decoded.

    place: the unpacked folder. A file_name is "COVID/COVID-1.png" and so on. Raises DataError if there is no
    class folder or no image in one, and for an .xlsx that cannot be read.
    """
    root = require_folder(place, HOW_TO_GET)
    root = next((path for path in (root, *subfolders(root)) if _class_folders(path)), root)
    folders = _class_folders(root)
    if not folders:
        raise DataError(
            f"{root} holds no class folder, such as COVID or Normal. {right_kind(root) or HOW_TO_GET}"
        )
    report = SourceReport(name, str(root))
    samples = []
    for finding, folder in folders:
        images = folder / "images" if (folder / "images").is_dir() else folder
        # Below `images` only, and no deeper: masks are PNG files of the same names.
        found = {inner: path for inner, path in images_below(images, HOW_TO_GET).items() if "/" not in inner}
        if not found:
            raise DataError(f"{images} holds no image; is the archive unpacked whole? {HOW_TO_GET}")
        urls = _urls(root, finding)
        samples += [
            _sample(path, f"{folder.name}/{path.name}", finding, name, urls) for path in found.values()
        ]
    report.rows = len(samples)
    return samples, report


def fits(folder: Path) -> bool:
    """Whether a folder has a class folder with masks, or the .xlsx of one."""
    found = [each for root in (folder, *subfolders(folder)) for each in _class_folders(root)]
    return any((path / "masks").is_dir() or _tables(path.parent, finding) for finding, path in found)


def _finding_of(name: str) -> str | None:
    """The finding that a folder's or table's name stands for: "COVID-19" -> "COVID"."""
    return _FOLDERS.get(re.sub(r"[^a-z]", "", name.lower()))


def _class_folders(root: Path) -> list[tuple[str, Path]]:
    return [(finding, path) for path in subfolders(root) if (finding := _finding_of(path.name))]


def _tables(root: Path, finding: str) -> list[Path]:
    # One of an old version is called "matadata".
    return [path for path in sorted(root.glob("*.m?tadata.xlsx")) if _finding_of(path.name[:-14]) == finding]


def _urls(root: Path, finding: str) -> dict[int, str]:
    """{number of an image: its URL}; names in the table differ from the files' in case and signs."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    urls: dict[int, str] = {}
    for path in _tables(root, finding):
        try:
            with closing(load_workbook(path, read_only=True)) as book:
                cells = book.worksheets[0].iter_rows(values_only=True)
                header, *rows = [[str(cell or "").strip() for cell in row] for row in cells]
            name, url = header.index("FILE NAME"), header.index("URL")
            urls |= {number: row[url] for row in rows if (number := _number(row[name])) is not None}
        except (*_DAMAGE, InvalidFileException) as error:
            raise DataError(
                f"{path} cannot be read as the database's table with FILE NAME and URL: {as_sentence(error)} "
                "Unpack it again, or remove it: only the site of an image is read from it."
            ) from error
    return urls


def _number(name: str) -> int | None:
    """The last number in a name: "COVID-19 (7)" -> 7."""
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


def _sample(path: Path, file_name: str, finding: str, source: str, urls: dict[int, str]) -> Sample:
    number = _number(path.stem)
    url = urls.get(number, "") if number is not None else ""
    site = next((site for part, site in _SITE_OF_URL.items() if part in url), "")
    site = site or _site_of_number(finding, number or 0)
    return Sample(
        file_name=file_name,
        path=path,
        source=source,
        findings=(finding,),
        patient_id=f"{UNKNOWN_PATIENT}{file_name}",
        site=site,
        license=_LICENSES.get(site, ""),
    )


def _site_of_number(finding: str, number: int) -> str:
    """The site by number: as the images show, each collection was numbered in one run; "" at its ends."""
    if finding == "Viral Pneumonia" or (finding == "Normal" and 1 <= number <= 1341):
        return "Kermany"
    if finding == "Lung_Opacity" or (finding == "Normal" and number > 1372):
        return "NIH"
    return "BIMCV" if finding == "COVID" and number >= 1895 else ""
