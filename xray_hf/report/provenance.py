"""What is known of the collections behind a model, beyond their museum labels (data/sources/)."""

from __future__ import annotations

from collections.abc import Mapping

from xray_hf.data import sources
from xray_hf.data.sources import About

# {kind: why class and source are confounded in that collection}
SHORTCUTS: Mapping[str, str] = {
    "coronahack": (
        "In CoronaHack, Normal and Pneumonia are X-rays of children from one hospital; COVID-19 is 58 images "
        "collected from the web, mostly of adults. Age, hospital, machine, view, picture format and disease "
        "change together, so a model can separate COVID-19 from the rest by recognising the source. The sex, "
        "origin and exact age of the children are not recorded, so fairness is unknown."
    ),
}

# {(smaller, larger) site of one class: in words}
SITES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("Cohen", "Kermany"): ("web collection", "children's hospital"),
}

# External test sets that this project made itself, by name.
EXTERNAL_SETS: Mapping[str, str] = {
    "nih_figure1": (
        "Normal and Pneumonia are adults of NIH ChestX-ray14, with labels text-mined from reports; COVID-19 "
        "comes from another collection of the web. Nothing was trained, chosen or calibrated on this set, "
        "with one exception: the OOD detector was changed because it rejected adults. The change was chosen "
        "on training images, but its effect on this set had been seen. `radiography`, `thorax_scan` and "
        "`web_covid` have 13 of its 233 pictures, which runs that hold this set out leave out of training. "
        "For models of such sources NIH is a known hospital, and its patients may be known."
    ),
    "spain_twitter": (
        "COVID-19 alone, of Spain. Nothing was trained, chosen or calibrated on this set. `radiography` has "
        "4 of its 114 pictures, which runs that hold this set out leave out of training; other images of "
        "these patients may be there, since `radiography` names no patients."
    ),
    "openist": (
        "Normal adults alone, of one web atlas. No classifier was trained, chosen or calibrated on this set, "
        "and none of its pictures is in a training source. The network that finds the lungs was trained on "
        "part of its lung outlines."
    ),
}


def about(kind: str) -> About | None:
    """The museum label of a published collection; None for what only its owner knows."""
    label = sources.reader(kind).ABOUT if kind in sources.KINDS else None
    return label if label and label.citation else None
