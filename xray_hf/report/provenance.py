"""What is known of the collections behind a model: for texts that hold for their images and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Collection:
    """A source's museum label.

    address: of its page. known_as: its id there. origin: what it was made of, with links. shortcut: why class
    and source cannot be told apart in it. limits: what follows for a model trained on it alone. terms: of its
    images. citation: BibTeX.
    """

    title: str
    address: str
    known_as: str
    origin: str
    shortcut: str
    limits: Sequence[str]
    terms: str
    citation: str


CORONAHACK = Collection(
    title="CoronaHack",
    address="https://www.kaggle.com/datasets/praveengovi/coronahack-chest-xraydataset",
    known_as="praveengovi/coronahack-chest-xraydataset",
    origin="a merge of [Kermany et al. 2018](https://doi.org/10.1016/j.cell.2018.02.010) and "
    "[Cohen et al. 2020](https://github.com/ieee8023/covid-chestxray-dataset)",
    shortcut="In CoronaHack, Normal and Pneumonia are X-rays of children from one hospital; COVID-19 is 58 "
    "images collected from the web, mostly of adults. Age, hospital, machine, view, picture format and "
    "disease change together, so a model can separate COVID-19 from the rest by recognising the source.",
    limits=(
        "COVID-19 against the rest is mostly a difference of source.",
        "CoronaHack has 58 COVID-19 images of 39 patients; 14 images of 9 patients are in the test set.",
        "Normal and Pneumonia come from children of 1 to 5 years at one hospital: adults, other hospitals "
        "and other machines are a different problem.",
        "“Normal” means like the normal children of this set, not healthy.",
        "Sex, origin and exact age of the children are not recorded, so fairness is unknown.",
    ),
    terms="some of the images have non-commercial terms or state none",
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
COLLECTIONS: Mapping[str, Collection] = {"coronahack": CORONAHACK}  # by the kind of the source

# External test sets that this project made itself, by name.
EXTERNAL_SETS: Mapping[str, str] = {
    "nih_figure1": (
        "Normal and Pneumonia are adults of NIH ChestX-ray14, with labels text-mined from reports; COVID-19 "
        "comes from another collection of the web. Nothing was trained, chosen or calibrated on this set, "
        "with one exception: the OOD detector was changed because it rejected adults. The change was chosen "
        "on training images, but its effect on this set had been seen."
    ),
}
