"""The tab "Read an X-ray": a few X-rays, each with its answers and a viewer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import gradio as gr

from xray_hf.demo import answers, api
from xray_hf.demo.cleanup import MINUTES
from xray_hf.demo.examples import Example
from xray_hf.demo.rendering import as_html, render
from xray_hf.demo.tabs.tab import READ, Served, add_models, add_upload
from xray_hf.demo.uploads import MAX_FILES, Upload, unpack

NAME, TITLE = "read", "Read an X-ray"
MAX_AT_ONCE = 8  # X-rays with a viewer each; more are a table
_CHOOSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { index: button.dataset.index });
});
"""


def add(served: Served) -> None:
    """Add the tab's fields and events."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            files = add_upload(f"Up to {MAX_AT_ONCE} X-rays")
            models = add_models(served.models)
            gr.HTML(render("privacy", kinds=READ, minutes=MINUTES))
            _add_examples(served.examples, files)
        with gr.Column(scale=5, min_width=280):
            gr.HTML(render("visit"), apply_default_css=False)
            shown = gr.HTML(elem_id="answers", apply_default_css=False)

    def read(given: list[list[dict[str, Any]] | None], names: list[list[str] | None]) -> tuple[list[str]]:
        # A batch of several visitors.
        left_out: list[Counter[str]] = [Counter() for _ in given]
        uploads = [
            _few(unpack((file["path"] for file in each or []), own))
            for each, own in zip(given, left_out, strict=True)
        ]
        found = answers.answer_visitors(served.models, uploads, names)
        pages = [as_html(served.models, *each) for each in zip(found, left_out, strict=True)]
        return (pages,)

    options = {"api_name": "show", "api_visibility": "private", "trigger_mode": "always_last"}
    together = api.together(served.settings)
    gr.on([files.change, models.change], read, [files, models], shown, **options, **together)


def _few(uploads: list[Upload]) -> list[Upload]:
    """The first MAX_AT_ONCE; an error in place of the others sends the visitor to the table."""
    if len(uploads) <= MAX_AT_ONCE:
        return uploads
    words = f"only the first {MAX_AT_ONCE} files are shown here; the tab Many at once takes {MAX_FILES}."
    return [*uploads[:MAX_AT_ONCE], Upload.refused("The others", words)]


def _add_examples(examples: Sequence[Example], files: gr.File) -> None:
    # Not gr.Gallery: it loads a library for videos, and its pictures repeat their captions to screen readers.
    shown = [
        {"address": f"gradio_api/file={quote(str(each.preview))}", "caption": each.caption}
        for each in examples
    ]
    html = render("examples", examples=shown)
    gallery = gr.HTML(html, elem_id="examples", apply_default_css=False, js_on_load=_CHOOSE)

    def take(event: gr.EventData) -> list[str]:
        return [str(examples[int(event.index)].file)]

    gallery.select(take, None, files, api_visibility="private", show_progress="hidden")
