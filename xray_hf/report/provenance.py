"""Facts about the collections behind a model, beyond those that data/sources/ states for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from xray_hf.data import sources
from xray_hf.data.sources import About


@dataclass(frozen=True)
class Shortcut:
    """Why class and source are confounded in the data of a model.

    title, brief: for the demo's page, a sentence each. full: for cards and reports.
    """

    title: str
    brief: str
    full: str


# {kind of a collection: the shortcut in it}
SHORTCUTS: Mapping[str, Shortcut] = {
    "coronahack": Shortcut(
        "Children and adults come from different sources.",
        "In the training data, Normal and Pneumonia images are of children; COVID-19 images are mostly of "
        "adults, from other sources.",
        "In CoronaHack, Normal and Pneumonia are X-rays of children from one hospital; COVID-19 is 58 images "
        "collected from the web, mostly of adults. Age, hospital, machine, view, picture format and disease "
        "change together, so a model can separate COVID-19 from the rest by recognising the source. The sex, "
        "origin and exact age of the children are not recorded, so fairness is unknown.",
    ),
}

# {names of sources: the shortcut in these together}, for the mixture of this project's own models.
_MIXTURES: Mapping[frozenset[str], Shortcut] = {
    frozenset({"coronahack", "radiography", "thorax_scan", "web_covid"}): Shortcut(
        "COVID-19 comes from other hospitals.",
        "In the training data the COVID-19 images come from other hospitals than the Normal and Pneumonia "
        "images.",
        "No hospital contributed a useful number of both COVID-19 and other images, so these data cannot "
        "show whether a model finds the disease or recognises the hospital. Nearly all Normal and Pneumonia "
        "come from NIH (adults) and one hospital in Guangzhou (children); COVID-19 comes from BIMCV "
        "(Valencia) and the web. Pooled numbers reward recognising the hospital. Rely on the external "
        "results. Of the within-source results only Pneumonia is informative, since within `radiography`, "
        "too, COVID-19 and Normal come from different hospitals. `radiography` and `thorax_scan` name no "
        "patients: there each image counts as one, so a patient may be in two splits, and intervals may be "
        "too narrow.",
    ),
}
_SEVERAL = Shortcut(
    "Hospitals differ.",
    "The training data come from several sources, which differ in more than disease.",
    "Where a class comes mostly from one source, a model can recognise the source instead of the disease. "
    "Pooled numbers reward that; trust the external and the within-source numbers, where there are any.",
)

# {(smaller, larger) site of one class: both in words, and what it means if they can be told apart}
SITES: Mapping[tuple[str, str], tuple[str, str, str]] = {
    ("Cohen", "Kermany"): (
        "web collection",
        "children's hospital",
        "{label} also has a few images from the web. If these can be separated from the children's, the "
        "source itself is visible.",
    ),
    ("Kermany", "NIH"): (
        "children of Guangzhou",
        "adults of NIH",
        "{label} of Kermany are children, of NIH adults. If these can be separated, age or site is visible; "
        "nothing tells which.",
    ),
}


@dataclass(frozen=True)
class ExternalSet:
    """An external test set that this project made itself. brief: who, in a few words."""

    brief: str
    about: str


EXTERNAL_SETS: Mapping[str, ExternalSet] = {
    "nih_figure1": ExternalSet(
        "NIH adults, COVID-19 from the web",
        "Normal and Pneumonia are adults of NIH ChestX-ray14, with labels text-mined from reports; COVID-19 "
        "comes from another web collection. Nothing was trained, chosen or calibrated on this set, "
        "with one exception: the OOD detector was changed because it rejected adults. The change was chosen "
        "on training images, but its effect on this set had been seen. `radiography`, `thorax_scan` and "
        "`web_covid` contain 13 of its 233 images; these were removed before training. "
        "Models trained on these sources have seen other NIH images, possibly of the same patients.",
    ),
    "spain_twitter": ExternalSet(
        "Spain",
        "COVID-19 only, from Spain. Nothing was trained, chosen or calibrated on this set. `radiography` has "
        "4 of the collection's 114 images: 3 were removed before training, the fourth was missed and then "
        "removed from this set. `radiography` names no patients, so it may contain other images of the same "
        "patients.",
    ),
    "openist": ExternalSet(
        "adults",
        "Normal adults only, from one web atlas. No classifier was trained, chosen or calibrated on this "
        "set, and none of its pictures is in a training source. The network that finds the lungs was trained "
        "on part of its lung outlines.",
    ),
}

# The content of the folders of those mixtures, by name.
_FOLDERS: Mapping[str, str] = {
    "radiography": (
        "adults of the COVID-19 Radiography Database: Normal of NIH, read by RSNA, and COVID-19, mostly of "
        "BIMCV. Licence: none for the whole; each merged collection has its own."
    ),
    "thorax_scan": (
        "adults of NIH, Normal and Pneumonia (lung opacity), read by RSNA; from ThoraxScan. Licence: RSNA's "
        "terms, for research, with attribution."
    ),
    "web_covid": (
        "COVID-19 collected from the web by COVID-CXNet. Licence: CC BY 4.0 for the collection; most images "
        "state none."
    ),
}


def of_sources(names: Collection[str]) -> Shortcut:
    """Why class and source are confounded in several sources together."""
    return _MIXTURES.get(frozenset(names), _SEVERAL)


def folder(name: str, names: Collection[str]) -> str:
    """The content of one of these sources, if data/sources/ does not describe it."""
    known = _FOLDERS if frozenset(names) in _MIXTURES else {}
    return known.get(name, "no published description is known.")


def about(kind: str) -> About | None:
    """The description of a published collection in data/sources/; None for an owner's own data."""
    label = sources.reader(kind).ABOUT if kind in sources.KINDS else None
    return label if label and label.citation else None
