"""The tab "Many at once": a table of answers, and its CSV."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gradio as gr

from xray_hf.demo import api, table
from xray_hf.demo.models import choose
from xray_hf.demo.rendering import render
from xray_hf.demo.tabs.tab import READ, Served, add_models, add_upload
from xray_hf.demo.uploads import MAX_FILES

NAME, TITLE = "many", "Many at once"


def add(served: Served) -> None:
    """Add the tab's fields and events."""
    gr.HTML(render("many", files=MAX_FILES, kinds=READ))
    files = add_upload(f"Up to {MAX_FILES} X-rays, or a ZIP")
    models = add_models(served.models)
    shown = gr.HTML(elem_id="table", min_height=60, apply_default_css=False)

    def classify(
        given: list[dict[str, Any]] | None, names: list[str] | None, progress: gr.Progress = api.PROGRESS
    ) -> str:
        chosen = choose(served.models, names)
        left_out: Counter[str] = Counter()
        rows = table.collect(chosen, [file["path"] for file in given or []], progress, left_out)
        return table.as_html(chosen, rows, left_out) if rows else ""

    options = {"api_visibility": "private", "trigger_mode": "always_last"}
    gr.on([files.change, models.change], classify, [files, models], shown, **options, **api.IN_BULK)
