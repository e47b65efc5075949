"""One answer -> a report to keep: a self-contained page, and the same as data."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from xray_hf import __version__
from xray_hf.calibration.ood import REJECT_ABOVE
from xray_hf.demo import rendering
from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Model, Models
from xray_hf.demo.rendering import picture
from xray_hf.errors import ImageError
from xray_hf.inference import Prediction
from xray_hf.inference.overlay import PICTURE_SIDE, overlay
from xray_hf.report import sentences

CAVEATS = (
    "Not a medical device. For research and teaching only: never use it to decide about anyone's health.",
    sentences.CAM,
    "The probabilities cover only the model's classes: a disease that is not one of them still gets "
    "one of their names.",
)


def as_json(served: Models, answer: Answer) -> dict[str, Any]:
    """The report as data. The answer must have an X-ray; `served` must hold its models."""
    assert not isinstance(answer.reading, ImageError)
    found, models = rendering.as_json(answer), [served[name] for name in answer.predictions]
    of_models = {
        name: about(served[name]) | own | _beside(served[name], answer.predictions[name])
        for name, own in found["models"].items()
    }
    return {
        "file": answer.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "xray_hf": __version__,
        "image": {"width": answer.reading.grey.width, "height": answer.reading.grey.height},
        "warnings": found["warnings"],
        "agreement": rendering.verdict(served, answer.predictions)[0],
        "models": of_models,
        "caveats": [*CAVEATS, *dict.fromkeys(filter(None, map(shortcut, models)))],
    }


def shortcut(model: Model) -> str:
    """Why class and source are confounded in a model's training data; "" if they are not."""
    found = sentences.shortcut(model.report)
    return found.full.replace("`", "") if found else ""


def about(model: Model) -> dict[str, Any]:
    """The version and the thresholds of a model."""
    settings = model.engine.calibration
    return {
        "version_hash": model.version,
        "thresholds": {
            "temperature": settings.temperature,
            "abstain_below": settings.abstain_below,
            "ood_above": REJECT_ABOVE if settings.detector else None,
        },
    }


def _beside(model: Model, found: Prediction | ImageError) -> dict[str, Any]:
    """Changes to the answer of /read: the context added, the probabilities of a rejected image removed."""
    return {
        "probabilities": rendering.said(found)["shares"] or None,
        "context": rendering.context(model, found),
    }


def as_html(content: Mapping[str, Any], answer: Answer) -> str:
    """The report as a page that fetches nothing. content: by `as_json`, of the same answer."""
    assert not isinstance(answer.reading, ImageError)
    grey, mapped = answer.reading.grey, rendering.with_maps(answer)
    top = rendering.scale(mapped.values())
    maps = {
        name: {
            label: picture(overlay(grey, heatmap, top), "JPEG", quality=85)
            for label, heatmap in zip(found.probabilities, found.heatmaps, strict=True)
        }
        for name, found in mapped.items()
        if found.heatmaps is not None
    }
    xray = picture(rendering.reduced(grey, PICTURE_SIDE), "JPEG", quality=90)
    return rendering.render(
        "report", **content, xray=xray, maps=maps, bar=rendering.bar(), ticks=rendering.ticks(top)
    )
