"""The tab "Use it yourself": code for each model, its card, and the licences of its training data."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from xray_hf import manifest
from xray_hf.demo.rendering import render
from xray_hf.demo.tabs.tab import Served, add_part
from xray_hf.report import sentences
from xray_hf.snippets import of_model

NAME, TITLE = "use", "Use it yourself"
_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)
_EMPTY_HEAD = re.compile(r"<th[^>]*></th>")  # above the names of rows; as a head it would be read out as one
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(
    "table"
)  # cards of the Hub are not to be trusted


def add(served: Served) -> None:
    """Add the code, the model cards and the licences of the training data."""
    manifests = {name: model.engine.manifest for name, model in served.models.items()}
    code = {name: of_model(description) for name, description in manifests.items()}
    cards = {}
    for number, (name, description) in enumerate(manifests.items()):
        if card := card_of(description.folder, number):
            cards[name] = f"{NAME}-card-{number}"
            served.parts[cards[name]] = card
    data: dict[tuple[str, ...], list[str]] = {}  # {lines about sources: the models that learnt from these}
    for name, model in served.models.items():
        data.setdefault(tuple(sentences.sources(model.report)), []).append(name)
    data.pop((), None)
    served.parts[NAME] = render(
        "use",
        models=code,
        cards=cards,
        data=[(names, map(_MARKDOWN.renderInline, lines)) for lines, names in data.items()],
    )
    add_part(NAME)


def card_of(folder: Path, number: int) -> str:
    """A bundle's model card as HTML, without its front matter; "" if there is no readable one.

    number: the model's place on the page, below which the card's figures are served.
    """
    try:
        card = (folder / manifest.CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    card = _FRONT_MATTER.sub("", card).replace(f"]({manifest.FIGURES}/", f"]({manifest.FIGURES}/{number}/")
    html = _EMPTY_HEAD.sub("<td></td>", _MARKDOWN.render(card))
    html = html.replace("<table>", '<table tabindex="0">')  # a phone scrolls it, also by keys
    return render("card", card=html)
