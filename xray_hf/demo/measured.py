"""What bundles' own files say of how good their models are -> HTML. Nothing is computed anew.

A bundle may lack any of it: an older one its intervals, one without `xray-hf report` its controls. The page
says so in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xray_hf.demo.formatting import render
from xray_hf.demo.measured_bundle import GAPS, Measured
from xray_hf.demo.measured_figures import pictures
from xray_hf.demo.measured_tables import TOPICS, lines_of, table
from xray_hf.evaluation.words import others_called, percent, rate
from xray_hf.manifest import Manifest


def as_html(models: Mapping[str, Manifest]) -> str:
    """The page's evidence for these models, in the order of the page."""
    found = [Measured.read(name, k, each.folder) for k, (name, each) in enumerate(models.items())]
    known = [each for each in found if each.metrics]
    parts = {}
    for name, topic in TOPICS.items() if known else ():
        lines = [(kind, [(each.name, lines_of(kind, each)) for each in known]) for kind in topic.kinds]
        without = {model for _, of_models in lines for model, own in of_models if not own}
        parts[name] = {
            "tables": [table(kind, of_models) for kind, of_models in lines],
            "pictures": pictures(topic.figures, known),
            "without": [each.name for each in known if each.name in without],
            "made_by": topic.made_by,
        }
    return render(
        "evidence",
        parts=parts,
        elsewhere=[line for each in known for line in _elsewhere(each)],
        repeated=[line for each in known for line in _repeated(each)],
        from_the_web=[line for each in known for line in _from_the_web(each)],
        unknown=[each.name for each in found if not each.metrics],
        synthetic=[name for name, each in models.items() if each.is_synthetic],
        without_intervals=[each.name for each in known if not _has_intervals(each)],
    )


def _has_intervals(bundle: Measured) -> bool:
    try:
        return bool(bundle.metrics["test"]["intervals"])
    except GAPS:
        return False


def _elsewhere(bundle: Measured) -> Iterator[dict[str, Any]]:
    """What becomes of the model on each other collection, for the sentences that the page opens with."""
    try:
        for name, own in bundle.metrics["external"].items():
            decisions = own.get("decisions") or {}
            yield {
                "model": bundle.name,
                "collection": name,
                "n": own["n"],
                "balanced": rate(own, "balanced_accuracy"),
                "at_home": rate(bundle.metrics["test"], "balanced_accuracy"),
                "called": others_called(own["confusion_matrix"]),
                "decided": decisions.get("decided"),
                "right": rate(decisions, "accuracy_of_decided") if decisions else None,
            }
    except GAPS:
        return


def _repeated(bundle: Measured) -> Iterator[dict[str, Any]]:
    """What the pictures that stand in test more than once add."""
    try:
        own = bundle.metrics["duplicates"]
        accuracies = {
            key: percent(own[key]["accuracy"], own[key]["interval"]) for key in ("all_rows", "one_of_each")
        }
        yield {"model": bundle.name, "pictures": own["repeated_pictures"], **accuracies}
    except GAPS:
        return


def _from_the_web(bundle: Measured) -> Iterator[dict[str, Any]]:
    """On how many of the web's images of Pneumonia the network was trained that tells them apart."""
    try:
        own = bundle.metrics["source"]
        yield {"model": bundle.name, **own["web"], "trained": own["web_called_covid"]["train"]["images"]}
    except GAPS:
        return
