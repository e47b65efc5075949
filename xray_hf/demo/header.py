"""What every page says above its tabs: what it is, what it is not, and the dialog of the first visit."""

from __future__ import annotations

from collections.abc import Mapping

from xray_hf.demo import models
from xray_hf.demo.models import Models
from xray_hf.demo.rendering import render
from xray_hf.report import sentences

TITLE = "Chest X-ray classifier"


def header(served: Models, tabs: Mapping[str, str], minutes: int | None) -> str:
    """The header as HTML.

    tabs: {name in the address: title}. minutes: until a visitor's files are deleted from the server; None if
    they are not sent to one.
    """
    # Of the models that answer by default; the others are described where they are chosen.
    found = dict.fromkeys(sentences.shortcut(served[name].report) for name in models.preferred(served))
    return render(
        "header",
        title=TITLE,
        models=served,
        labels=models.labels(served),
        shortcuts=[each for each in found if each],
        synthetic=sentences.synthetic([model.report for model in served.values()]),
        tabs=tabs,
        minutes=minutes,
    )
