"""Answers -> HTML for the page, JSON for programs.

The HTML contains everything, pictures too, so the server keeps no answer.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Models
from xray_hf.errors import ImageError
from xray_hf.folders import in_words
from xray_hf.inference import Prediction
from xray_hf.inference.overlay import layer
from xray_hf.task import REJECTED, UNSURE
from xray_hf.text import listed

PREVIEW_SIDE = 768  # pixels, the longer side; a detector's full image would take seconds to send
NOTHING: Mapping[str, int] = MappingProxyType({})
LAYER_SIDE = 112  # pixels; heatmaps are 7×7 to 16×16, the browser smooths the rest

TEMPLATES = Environment(
    loader=PackageLoader("xray_hf.demo"),
    autoescape=True,  # names of files and words of errors come from outside
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["listed"] = listed


def render(template: str, **values: Any) -> str:
    """One of templates/, filled in and escaped."""
    return TEMPLATES.get_template(f"{template}.html").render(**values)


def as_html(served: Models, answers: Sequence[Answer], left_out: Mapping[str, int] = NOTHING) -> str:
    """The answers as the page shows them, each with a viewer of its X-ray and heatmaps.

    left_out: {kind: how many} members of archives that are no images.
    """
    without = {"left_out": sum(left_out.values()), "kinds": in_words(left_out)}
    return render("answers", answers=map(_shown, answers), **without)


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer for programs: {"error": words or null, "warnings": [...], "models": {name: ...}}."""
    if isinstance(answer.reading, ImageError):
        return {"error": str(answer.reading), "warnings": [], "models": {}}
    models = {name: _said(found) for name, found in answer.predictions.items()}
    return {"error": None, "warnings": _warnings(answer), "models": models}


def _warnings(answer: Answer) -> list[str]:
    """What to know of the file, and what a model has to add."""
    found = [each for each in answer.predictions.values() if isinstance(each, Prediction)]
    assert not isinstance(answer.reading, ImageError)
    return list(
        dict.fromkeys([*answer.reading.warnings, *(text for each in found for text in each.warnings)])
    )


def _said(found: Prediction | ImageError) -> dict[str, Any]:
    if isinstance(found, ImageError):
        return {"error": str(found)}
    return {
        "decision": found.decision,
        "reason": found.reason,
        "label": found.label,
        "probabilities": found.probabilities,
        "ood_score": found.ood_score,
        "heat_in_lungs": found.heat_in_lungs,
    }


def verdict(predictions: Mapping[str, Prediction | ImageError]) -> tuple[str, bool]:
    """The models' decisions in a sentence, and whether they agree; one that is unsure disagrees with none."""
    decisions = {name: each.decision for name, each in predictions.items() if isinstance(each, Prediction)}
    if len(decisions) < 2:
        return "", True
    if len(set(decisions.values())) == 1:
        return f"All of them say: {next(iter(decisions.values()))}.", True
    said = ", ".join(f"{name} says {decision}" for name, decision in decisions.items())
    if len({decision for decision in decisions.values() if decision != UNSURE}) == 1:
        return f"{said}.", True
    return f"The models disagree: {said}. Trust none.", False


def _shown(answer: Answer) -> dict[str, Any]:
    if isinstance(answer.reading, ImageError):
        return {"name": answer.name, "problem": str(answer.reading)}
    sentence, do_agree = verdict(answer.predictions)
    maps = list(_maps(answer))
    return {
        "name": answer.name,
        "problem": "",
        "warnings": _warnings(answer),
        "preview": picture(reduced(answer.reading.grey, PREVIEW_SIDE), "JPEG", quality=92),
        "verdict": sentence,
        "do_agree": do_agree,
        "models": [{"name": name, **said(found)} for name, found in answer.predictions.items()],
        "maps": maps,
        "first_map": next((place for place, each in enumerate(maps) if each["is_said"]), -1),
    }


def said(found: Prediction | ImageError) -> dict[str, Any]:
    """A model's answer for the page: decision, reason, headline, why, kind and shares.

    headline, why: decision and reason as two sentences, of a rejected image "rejected: what is known of it".
    kind: "decided" or "withheld". shares: {class: 0..1}; empty for a rejected image, where they mean nothing.
    """
    if isinstance(found, ImageError):
        decision, reason, shares = "no answer", str(found), {}
    else:
        decision, reason = found.decision, found.reason
        shares = {} if decision == REJECTED else found.probabilities
    known, _, why = reason.rpartition(": ") if decision == REJECTED else ("", "", reason)
    return {
        "decision": decision,
        "reason": reason,
        "headline": f"{decision}: {known}" if known else decision,
        "why": why,
        "kind": "withheld" if decision in ("no answer", REJECTED, UNSURE) else "decided",
        "shares": shares,
    }


def _maps(answer: Answer) -> Iterator[dict[str, Any]]:
    """Each heatmap as a layer, unless the model rejected the image."""
    for name, found in answer.predictions.items():
        if isinstance(found, ImageError) or found.decision == REJECTED or found.heatmaps is None:
            continue
        for label, heatmap in zip(found.probabilities, found.heatmaps, strict=True):
            drawn = picture(layer(heatmap, (LAYER_SIDE, LAYER_SIDE)), "PNG", compress_level=1)
            yield {"model": name, "label": label, "is_said": label == found.label, "picture": drawn}


def reduced(image: Image.Image, side: int) -> Image.Image:
    """A copy of at most `side` pixels a side."""
    small = image.copy()
    small.thumbnail((side, side))
    return small


def picture(image: Image.Image, form: str, **options: Any) -> str:
    """An image as a data URI."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
