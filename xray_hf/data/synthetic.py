"""Synthetic chest X-rays from a small statistical atlas, so that everything can be tried without real data.

The atlas (`atlas.npz`, made by `scripts/build_atlas.py` from CoronaHack's TRAIN part) is a linear model:
a mean image, 200 principal components and, for each class, a Gaussian over their coefficients. It holds
averages over many people and nobody's own image or coefficients. Images drawn from it show no real
person and have no clinical meaning: a score on them says that the code works, and nothing about medicine.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from xray_hf.data.sample import SYNTHETIC_PREFIX
from xray_hf.data.sources.coronahack import CSV_NAME, IMAGE_FOLDER
from xray_hf.errors import ConfigError, DataError
from xray_hf.files import atomic_folder, require_new_folder
from xray_hf.task import COVID19, NORMAL, PAPER_CLASSES, PNEUMONIA

ATLAS_FILE = Path(__file__).with_name("atlas.npz")
MIN_PATIENTS = 30  # below this a class can be missing from one of three splits

CSV_HEADER = (
    "",
    "X_ray_image_name",
    "Label",
    "Dataset_type",
    "Label_2_Virus_category",
    "Label_1_Virus_category",
)

NORMAL_SHARE, COVID_SHARE = 0.30, 0.12  # of the patients; COVID-19 is 1 % in the real set, too few to try out
TEST_SHARE = 0.12
BACTERIA_SHARE = 0.65  # of the Pneumonia patients, as in the real set
IMAGES_PER_PATIENT = (0.60, 0.25, 0.15)  # the chances of 1, 2 and 3

FIRST_EXAMPLE = 10**9  # a number no data set reaches: an example is never one of the images trained on

OWN_VARIANCE = 0.15  # the part of the coefficients' variance in which one patient's images differ
MARGIN = 5  # pixels of the atlas that may be cut off a side: shifts and scales the chest
TEXTURE = 0.35  # ribs and vessels lie along lines, noise does not: at full strength it looks too rough
# A linear model adds up many people's edges, which softens them; this brings ribs and diaphragm back.
SHARPEN = ImageFilter.UnsharpMask(radius=4, percent=120, threshold=0)
GRAIN = 2.5  # grey levels, the noise of the film itself

README = """\
SYNTHETIC chest X-rays, drawn from a statistical model ({patients} patients, seed {seed}).

They show no real person. They are for trying out the software only: no clinical or scientific
conclusion may be drawn from them, or from any model trained on them. Every file name begins with
"SYNTHETIC-". The layout is that of Kaggle's CoronaHack set, with a few files that have no row in the CSV.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """A linear model of chest X-rays of S×S grey levels (0..255), with K components and 3 classes.

    mean: (S·S,). components: (K, S·S), grey levels per unit of a coefficient.
    texture: (S, S), standard deviation in grey levels of what the components leave out.
    class_means: (3, K) and class_factors: (3, K, K), lower triangular: coefficients of class c are
    `class_means[c] + class_factors[c] @ z` with z standard normal.
    """

    mean: np.ndarray
    components: np.ndarray
    texture: np.ndarray
    class_means: np.ndarray
    class_factors: np.ndarray


@dataclass(frozen=True, slots=True)
class _Film:
    """One image to draw; `patient` numbers all patients from 0, `listed` says whether the CSV has it."""

    name: str
    label: int
    split: str
    pathogen: str
    patient: int
    listed: bool

    def row(self) -> tuple[str, ...]:
        """Its CSV cells after the index, with the real file's misspelling."""
        label = "Normal" if self.label == NORMAL else "Pnemonia"
        category = PAPER_CLASSES[COVID19] if self.label == COVID19 else ""
        return self.name, label, self.split, category, self.pathogen


def write_synthetic(out: Path, patients: int, seed: int) -> dict[tuple[str, str], int]:
    """Draw a synthetic data set and write it in the layout of Kaggle's CoronaHack archive.

    out: a folder that does not exist yet or is empty. It appears only when everything is written.
    patients: at least 30, with 1 to 3 images each; about 12 % are in TEST, which has no COVID-19,
    as in the real set. A few more files have no row in the CSV, as in Kaggle's archive.
    The same (patients, seed) gives the same files. Returns {(official split, class name): images with a row}.
    Raises ConfigError for too few patients or a negative seed, OutputError if `out` is not empty or cannot
    be written, DataError if the package lacks its atlas.
    """
    if patients < MIN_PATIENTS:
        raise ConfigError(
            f"{patients} patients are too few to have all classes in all splits; "
            f"ask for at least {MIN_PATIENTS}."
        )
    _check_seed(seed)
    require_new_folder(out)
    atlas = load_atlas()
    films = _plan(patients, seed)
    with atomic_folder(out) as folder:
        _write_images(folder, atlas, films, seed)
        _write_csv(folder / CSV_NAME, films)
        (folder / "README.txt").write_text(README.format(patients=patients, seed=seed), encoding="utf-8")
    return dict(Counter((film.split, PAPER_CLASSES[film.label]) for film in films if film.listed))


def sample_images(n_per_class: int, seed: int) -> list[tuple[str, Image.Image]]:
    """Draw examples of every class: (class name, grey image of about 256 pixels), class after class.

    Raises ConfigError for a negative seed, DataError if the package lacks its atlas.
    """
    _check_seed(seed)
    atlas = load_atlas()
    labels = [label for label in range(len(PAPER_CLASSES)) for _ in range(n_per_class)]
    return [
        (PAPER_CLASSES[label], _draw(atlas, label, seed, number, number))
        for number, label in enumerate(labels, start=FIRST_EXAMPLE)
    ]


@cache
def load_atlas() -> Atlas:
    """The package's atlas; raises DataError if its file is missing."""
    stored = read_arrays(ATLAS_FILE)
    components = stored["components"] * stored["scales"][:, None, None]
    return Atlas(
        mean=stored["mean"].ravel(),
        components=components.reshape(len(components), -1),
        texture=stored["texture"],
        class_means=stored["class_means"],
        class_factors=stored["class_factors"],
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one of the package's atlases, float64; raises DataError if the file is missing."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float64) for name in arrays.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; install xray_hf again.") from error


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative; choose 0 or more.")


def _plan(patients: int, seed: int) -> list[_Film]:
    """Every image of the data set, still undrawn, in the order of the CSV."""
    rng = np.random.default_rng([seed, 0])
    numbers: defaultdict[tuple[str, ...], Iterator[int]] = defaultdict(lambda: count(1))
    films = []
    for patient, (split, label, listed) in enumerate(_cohort(patients)):
        is_bacterial = label == PNEUMONIA and rng.random() < BACTERIA_SHARE
        pathogen = "" if label == NORMAL else "bacteria" if is_bacterial else "Virus"  # as the CSV spells it
        # As in the real set, personN in TRAIN and personN in TEST are two people.
        number = next(numbers[PAPER_CLASSES[label], split if label == PNEUMONIA else ""])
        amount = 1 + int(rng.choice(len(IMAGES_PER_PATIENT), p=IMAGES_PER_PATIENT))
        for shot in range(1, amount + 1 if listed else 2):
            if label == NORMAL:
                name = f"IM-{number:04d}-{shot:04d}"
            elif label == COVID19:
                name = f"covid-{number:04d}-day{shot}"
            else:
                name = f"person{number}_{pathogen.lower()}_{next(numbers[(pathogen,)])}"
            films.append(_Film(f"{SYNTHETIC_PREFIX}{name}.jpeg", label, split, pathogen, patient, listed))
    return films


def _cohort(patients: int) -> Iterator[tuple[str, int, bool]]:
    """(official split, label, listed in the CSV) of each patient; unlisted ones are extra."""
    covid = round(COVID_SHARE * patients)
    normal = round(NORMAL_SHARE * patients)
    pneumonia = patients - covid - normal
    # TEST's share is of all patients, though COVID-19 has none there.
    test_share = TEST_SHARE / (1 - COVID_SHARE)
    normal_test, pneumonia_test = round(test_share * normal), round(test_share * pneumonia)
    yield from [("TRAIN", NORMAL, True)] * (normal - normal_test)
    yield from [("TRAIN", PNEUMONIA, True)] * (pneumonia - pneumonia_test)
    yield from [("TRAIN", COVID19, True)] * covid
    yield from [("TEST", NORMAL, True)] * normal_test
    yield from [("TEST", PNEUMONIA, True)] * pneumonia_test
    yield from [("TRAIN", PNEUMONIA, False)] * max(2, patients // 100)


def _write_images(folder: Path, atlas: Atlas, films: Sequence[_Film], seed: int) -> None:
    root = folder / IMAGE_FOLDER / IMAGE_FOLDER  # nested in itself, as in Kaggle's archive
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)

    def write(index: int) -> None:
        film = films[index]
        image = _draw(atlas, film.label, seed, film.patient, index)
        image.save(root / film.split.lower() / film.name, quality=90, comment="synthetic")

    with ThreadPoolExecutor() as pool:  # numpy and Pillow release the interpreter's lock
        list(pool.map(write, range(len(films))))  # asking for the results raises a worker's error


def _write_csv(path: Path, films: Sequence[_Film]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        listed = (film for film in films if film.listed)
        writer.writerows((index, *film.row()) for index, film in enumerate(listed))


def _draw(atlas: Atlas, label: int, seed: int, patient: int, index: int) -> Image.Image:
    """Draw image number `index` of the data set, of this patient: a PIL image of mode "L"."""
    # Separate random streams make each image independent of the order of the threads.
    rng = np.random.default_rng([seed, 1, index])
    of_patient = np.random.default_rng([seed, 2, patient])
    size = len(atlas.components)
    z = np.sqrt(1 - OWN_VARIANCE) * of_patient.standard_normal(size)
    z += np.sqrt(OWN_VARIANCE) * rng.standard_normal(size)
    coefficients = atlas.class_means[label] + atlas.class_factors[label] @ z
    # einsum and not @: BLAS would start its own threads in each of ours (four times slower), and its order
    # of summation, hence the last bits, would depend on the machine.
    pixels = atlas.mean + np.einsum("k,kp->p", coefficients, atlas.components)
    return _expose(pixels.reshape(atlas.texture.shape), atlas.texture, rng)


def _expose(pixels: np.ndarray, texture: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Make a film of about 256 pixels from (S, S) grey levels: texture, position, contrast, grain."""
    side = len(pixels)
    # Noise of half the resolution has the same correlation length as what the components leave out.
    coarse = rng.standard_normal((side // 2, side // 2), dtype=np.float32)
    noise = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    textured = (pixels + TEXTURE * texture * noise).astype(np.float32)

    left, top, right, bottom = rng.uniform(0, MARGIN, 4)
    width, height = int(rng.integers(256, 321)), int(rng.integers(224, 273))
    box = (left, top, side - right, side - bottom)
    large = Image.fromarray(textured).resize((width, height), Image.Resampling.BICUBIC, box=box)
    film = 128 + rng.uniform(0.9, 1.1) * (np.asarray(large) - 128) + rng.uniform(-8, 8)
    sharp = np.asarray(_to_image(film).filter(SHARPEN))
    return _to_image(sharp + GRAIN * rng.standard_normal(sharp.shape, dtype=np.float32))


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Round and clip (H, W) grey levels to an image of mode "L"."""
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
