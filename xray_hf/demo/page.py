"""The page: a header in plain HTML, and below it Gradio's part, the tabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from xray_hf.demo import api, header, models
from xray_hf.demo.cleanup import MINUTES
from xray_hf.demo.examples import Example
from xray_hf.demo.header import TITLE
from xray_hf.demo.models import Models
from xray_hf.demo.rendering import render
from xray_hf.demo.settings import Settings
from xray_hf.demo.shell import STATIC
from xray_hf.demo.tabs import api_docs, evidence, many, read, use
from xray_hf.demo.tabs.tab import Served

_MODULES = (read, many, evidence, use, api_docs)
TABS = {each.NAME: each.TITLE for each in _MODULES}  # {name in the address, as #many: words on it}
STATUS_SECONDS = 2  # between two messages about the place in the queue
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing to fetch
CODE_FONTS = ("ui-monospace", "Consolas", "monospace")


@dataclass(frozen=True)
class Page:
    """The page's pieces.

    description: for link previews, a sentence. header: HTML that stands above `blocks`, Gradio's part.
    parts: {name: HTML that the browser fetches when it comes into view}.
    """

    description: str
    header: str
    blocks: gr.Blocks
    parts: Mapping[str, str]


def build(served: Models, examples: Sequence[Example], settings: Settings) -> Page:
    """Build the page for these models; its blocks need `looks`, too."""
    shown = Served(served, examples, settings)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        for module in _MODULES:
            # Not gr.Tabs: on a phone it moves tabs into a menu, and back and forward do not reach them.
            with gr.Column(elem_id=f"tab-{module.NAME}", elem_classes="tab-panel"):
                module.add(shown)
        api.add(served, settings)
    # "auto" would send a message to every visitor in the queue whenever a batch starts.
    blocks.queue(max_size=settings.queue, status_update_rate=STATUS_SECONDS)
    shown.parts[api_docs.NAME] = api_docs.document(blocks, settings)
    labels = models.labels(served)
    description = render("description", models=served, labels=labels)
    return Page(description, header.header(served, TABS, MINUTES), blocks, shown.parts)


def looks() -> dict[str, Any]:
    """Options that Gradio ignores on Blocks and takes when they are mounted or launched."""
    return {
        "theme": gr.themes.Default(primary_hue="teal", font=SYSTEM_FONTS, font_mono=CODE_FONTS),
        "css_paths": sorted(STATIC.glob("*.css")),
    }
