"""Answers -> HTML for the page, JSON for programs.

The HTML contains everything, pictures too, so the server keeps no answer.
"""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from xray_hf.demo.answers import Answer
from xray_hf.demo.models import Model, Models
from xray_hf.errors import ImageError
from xray_hf.folders import in_words
from xray_hf.inference import Prediction
from xray_hf.inference.overlay import colour_bar, layer, top_of_scale
from xray_hf.report import sentences
from xray_hf.task import REJECTED, UNSURE
from xray_hf.text import listed

PREVIEW_SIDE = 768  # pixels, the longer side; a detector's full image would take seconds to send
NOTHING: Mapping[str, int] = MappingProxyType({})
FULL_SIDE = 4096  # pixels, the longer side of a picture to zoom into; few browsers draw much larger ones
LAYER_SIDE = 112  # pixels; heatmaps are 7×7 to 16×16, the browser smooths the rest
_TICK_STEPS = (1, 2, 5, 10, 20, 50, 100)  # logits
_MOST_TICKS = 5

TEMPLATES = Environment(
    loader=PackageLoader("xray_hf.demo"),
    autoescape=True,  # names of files and words of errors come from outside
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# For numbers: nunjucks, which fills in these templates on the static page, has them too.
TEMPLATES.filters |= {
    "listed": listed,
    "fixed": lambda value, digits: f"{value:.{digits}f}",
    "thousands": lambda value: f"{value:,}",
}


def render(template: str, **values: Any) -> str:
    """One of templates/, filled in and escaped."""
    return TEMPLATES.get_template(f"{template}.html").render(**values)


def as_html(served: Models, answers: Sequence[Answer], left_out: Mapping[str, int] = NOTHING) -> str:
    """The answers as the page shows them, each with a viewer of its X-ray and heatmaps.

    left_out: {kind: how many} members of archives that are not images.
    """
    without = {"left_out": sum(left_out.values()), "kinds": in_words(left_out)}
    return render("answers", answers=[_shown(served, answer) for answer in answers], **without)


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer for programs: {"error": words or null, "warnings": [...], "models": {name: ...}}."""
    if isinstance(answer.reading, ImageError):
        return {"error": str(answer.reading), "warnings": [], "models": {}}
    models = {name: _said(found) for name, found in answer.predictions.items()}
    return {"error": None, "warnings": _warnings(answer), "models": models}


def _warnings(answer: Answer) -> list[str]:
    """The warnings about the file, then those of the models."""
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


_SAID_BY_ONE = {UNSURE: "is unsure", REJECTED: "rejects the image"}
_SAID_BY_SEVERAL = {UNSURE: "are unsure", REJECTED: "reject the image"}


def verdict(served: Models, predictions: Mapping[str, Prediction | ImageError]) -> tuple[str, bool]:
    """The models' decisions in words, and whether they agree; one that is unsure disagrees with none."""
    decisions = {name: each.decision for name, each in predictions.items() if isinstance(each, Prediction)}
    if len(decisions) < 2:
        return "", True
    decision, *others = set(decisions.values())
    if not others:
        models = "Both models" if len(decisions) == 2 else "All models"
        answer = f"{models} {_SAID_BY_SEVERAL.get(decision, f'answer {decision}')}."
        learnt = [{source.name for source in served[name].report.sources} for name in decisions]
        warns = decision not in (REJECTED, UNSURE) and set.intersection(*learnt)
        return f"{answer} {sentences.AGREEMENT}" if warns else answer, True
    said = ", ".join(
        f"{name} {_SAID_BY_ONE.get(decision, f'answers {decision}')}" for name, decision in decisions.items()
    )
    if len(set(decisions.values()) - {UNSURE}) == 1:
        return f"{said}.", True
    which = "rely on neither" if len(decisions) == 2 else "do not rely on any of them"
    return f"Models disagree: {which} ({said}).", False


def _shown(served: Models, answer: Answer) -> dict[str, Any]:
    token = secrets.token_hex(4)  # a page shows answers of many calls
    if isinstance(answer.reading, ImageError):
        return {"id": token, "name": answer.name, "problem": str(answer.reading)}
    sentence, do_agree = verdict(served, answer.predictions)
    grey, mapped = answer.reading.grey, with_maps(answer)
    top = scale(mapped.values())
    return {
        "id": token,
        "path": answer.path,
        "member": answer.member,
        "width": grey.width,
        "height": grey.height,
        "name": answer.name,
        "problem": "",
        "warnings": _warnings(answer),
        "preview": picture(reduced(grey, PREVIEW_SIDE), "JPEG", quality=92),
        "verdict": sentence,
        "do_agree": do_agree,
        "names": list(answer.predictions),
        "models": [
            {"name": name, **said(found), "context": context(served[name], found)}
            for name, found in answer.predictions.items()
        ],
        "stages": {name: _layers(found, top) for name, found in mapped.items()},
        "labels": list(dict.fromkeys(label for found in mapped.values() for label in found.probabilities)),
        "own": {name: found.label for name, found in mapped.items()},
        "bar": bar(),
        "ticks": ticks(top),
    }


def context(model: Model, found: Prediction | ImageError) -> list[str]:
    """How often the model gave this answer, externally and internally."""
    return [] if isinstance(found, ImageError) else sentences.answer_context(model.report, found.decision)


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


def with_maps(answer: Answer) -> dict[str, Prediction]:
    """The predictions that have class activation maps to show; of a rejected image they mean nothing."""
    return {
        name: found
        for name, found in answer.predictions.items()
        if isinstance(found, Prediction) and found.decision != REJECTED and found.heatmaps is not None
    }


def scale(predictions: Iterable[Prediction]) -> float:
    """The logits of the strongest colour of all their maps."""
    return top_of_scale(each.heatmaps for each in predictions if each.heatmaps is not None)


def _layers(found: Prediction, top: float) -> dict[str, str]:
    """{class: its map as a data URI}. top: the logits of the strongest colour."""
    assert found.heatmaps is not None
    sides = LAYER_SIDE, LAYER_SIDE
    return {
        label: picture(layer(heatmap, sides, top), "PNG", compress_level=1)
        for label, heatmap in zip(found.probabilities, found.heatmaps, strict=True)
    }


@cache
def bar() -> str:
    """The colours of all maps from 0 to the top of their scale, as a data URI."""
    return picture(colour_bar(), "PNG")


def ticks(top: float) -> dict[int, float]:
    """{logits: where on the colour bar, 0 to 1}, in round steps."""
    step = next(step for step in _TICK_STEPS if top / step < _MOST_TICKS or step == _TICK_STEPS[-1])
    return {value: value / top for value in range(0, int(top) + 1, step)}


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
