"""The page: a warning, an introduction and the tabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from xray_hf.demo import api, models
from xray_hf.demo.examples import Example
from xray_hf.demo.models import Models
from xray_hf.demo.rendering import render
from xray_hf.demo.settings import Settings
from xray_hf.demo.shell import STATIC
from xray_hf.demo.tabs import evidence, many, read, use
from xray_hf.demo.tabs.tab import Served
from xray_hf.report import sentences

_MODULES = (read, many, evidence, use)
TABS = {each.NAME: each.TITLE for each in _MODULES}  # {name in the address, as #many: words on it}
STATUS_SECONDS = 2  # between two messages about the place in the queue
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing to fetch
CODE_FONTS = ("ui-monospace", "Consolas", "monospace")


def build(served: Models, examples: Sequence[Example], settings: Settings) -> gr.Blocks:
    """Build the page for these models; it needs `looks`, too."""
    with gr.Blocks(title="Chest X-ray classifier", analytics_enabled=False) as page:
        reports = [model.report for model in served.values()]
        # Of the models that answer if nobody chooses; the others are spoken of where they are chosen.
        found = dict.fromkeys(sentences.shortcut(served[name].report) for name in models.preferred(served))
        shortcuts = [each for each in found if each]
        gr.HTML(render("welcome", models=served, shortcuts=shortcuts), elem_id="welcome")
        gr.HTML(render("statement", shortcuts=shortcuts), elem_id="statement")
        introduced = {"labels": models.labels(served), "synthetic": sentences.synthetic(reports)}
        gr.HTML(render("introduction", models=served, **introduced))
        with gr.Tabs():
            for module in _MODULES:
                with gr.Tab(module.TITLE, id=module.NAME):
                    module.add(Served(served, examples, settings))
        api.add(served, settings)
    # "auto" would send everybody in the queue a message whenever a batch starts.
    return page.queue(max_size=settings.queue, status_update_rate=STATUS_SECONDS)


def looks() -> dict[str, Any]:
    """Options that Gradio ignores on Blocks and takes when they are mounted or launched."""
    return {
        "theme": gr.themes.Default(primary_hue="teal", font=SYSTEM_FONTS, font_mono=CODE_FONTS),
        "css_paths": sorted(STATIC.glob("*.css")),
    }
