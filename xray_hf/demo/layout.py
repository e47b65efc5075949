"""The page: its elements, and the events that fill them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from xray_hf.demo import api, events, rows, usage
from xray_hf.demo.events import Engines
from xray_hf.demo.examples import Example
from xray_hf.demo.formatting import as_html, render
from xray_hf.demo.settings import Settings
from xray_hf.demo.uploads import MAX_FILES, Upload, unpack
from xray_hf.images import FORMATS
from xray_hf.manifest import Manifest
from xray_hf.report import html
from xray_hf.report.report import Report

# {name in the address, as #many: words on it}
TABS = {
    "read": "Read an X-ray",
    "many": "Many at once",
    "evidence": "How good is it?",
    "use": "Use it yourself",
}
MAX_AT_ONCE = 8  # X-rays with a viewer each; more are a table
STATUS_SECONDS = 2  # between two messages about the place in the queue
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing to fetch
CODE_FONTS = ("ui-monospace", "Consolas", "monospace")
# Only the browser knows at which address the page is seen.
SAY_ADDRESS = """
for (const each of element.querySelectorAll(".address"))
  each.textContent = (location.origin + location.pathname).replace(/\\/$/, "");
"""
KINDS = f"{', '.join(FORMATS)}, DICOM"
_HERE = Path(__file__).parent


def build(engines: Engines, examples: Sequence[Example], settings: Settings) -> gr.Blocks:
    """Build the page for these models; it needs `looks`, too."""
    with gr.Blocks(title="Chest X-ray classifier", analytics_enabled=False) as page:
        about = {name: engine.manifest for name, engine in engines.items()}
        synthetic = [name for name, each in about.items() if each.is_synthetic]
        labels = dict.fromkeys(label for each in about.values() for label in each.labels)
        # Their classes come from two collections, of children and of adults.
        is_confounded = any(
            each.sources == ("coronahack",) and not each.is_synthetic for each in about.values()
        )
        gr.HTML(render("welcome", engines=engines, is_confounded=is_confounded), elem_id="welcome")
        gr.HTML(render("statement", is_confounded=is_confounded), elem_id="statement")
        gr.HTML(render("introduction", engines=engines, labels=labels, synthetic=synthetic))
        with gr.Tabs():
            with gr.Tab(TABS["read"], id="read"):
                _add_reading(engines, examples, settings)
            with gr.Tab(TABS["many"], id="many"):
                _add_many(engines)
            with gr.Tab(TABS["evidence"], id="evidence"):
                gr.HTML(html.page([Report.read(each.folder, name) for name, each in about.items()]))
            with gr.Tab(TABS["use"], id="use"):
                _add_use(about, settings)
        api.add(engines, settings)
    # "auto" would send everybody in the queue a message whenever a batch starts.
    return page.queue(max_size=settings.queue, status_update_rate=STATUS_SECONDS)


def looks() -> dict[str, Any]:
    """Options that Gradio ignores on Blocks and takes when they are mounted or launched."""
    return {
        "theme": gr.themes.Default(primary_hue="teal", font=SYSTEM_FONTS, font_mono=CODE_FONTS),
        "css_paths": [_HERE / "style.css"],
        "js": f"() => ({(_HERE / 'page.js').read_text(encoding='utf-8')})({json.dumps(TABS)})",
    }


def _add_reading(engines: Engines, examples: Sequence[Example], settings: Settings) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            files = _add_upload(f"X-rays ({KINDS})")
            models = _add_models(engines)
            gr.HTML(render("privacy"))
            _add_examples(examples, files)
        with gr.Column(scale=5, min_width=280):
            answers = gr.HTML(elem_id="answers", apply_default_css=False)

    def read(given: list[list[dict[str, Any]] | None], names: list[list[str] | None]) -> tuple[list[str]]:
        # A batch of several visitors.
        uploads = [_few(unpack(file["path"] for file in each or [])) for each in given]
        found = events.answer_visitors(engines, uploads, names)
        return ([as_html(each) for each in found],)

    options = {"api_name": "show", "api_visibility": "private", "trigger_mode": "always_last"}
    gr.on([files.change, models.change], read, [files, models], answers, **options, **api.together(settings))


def _few(uploads: list[Upload]) -> list[Upload]:
    """No more than have room here; an error in place of the next sends the visitor to the table."""
    if len(uploads) <= MAX_AT_ONCE:
        return uploads
    words = f"only the first {MAX_AT_ONCE} files are shown here; the tab Many at once takes {MAX_FILES}."
    return [*uploads[:MAX_AT_ONCE], Upload.refused("The others", words)]


def _add_many(engines: Engines) -> None:
    gr.HTML(render("many", files=MAX_FILES))
    files = _add_upload(f"X-rays ({KINDS}), or a ZIP")
    models = _add_models(engines)
    table = gr.HTML(elem_id="table", min_height=60, apply_default_css=False)

    def classify(
        given: list[dict[str, Any]] | None, names: list[str] | None, progress: gr.Progress = api.PROGRESS
    ) -> str:
        chosen = events.choose(engines, names)
        found = rows.collect(chosen, [file["path"] for file in given or []], progress)
        return rows.as_html(chosen, found) if found else ""

    options = {"api_visibility": "private", "trigger_mode": "always_last"}
    gr.on([files.change, models.change], classify, [files, models], table, **options, **api.IN_BULK)


def _add_models(engines: Engines) -> gr.CheckboxGroup:
    """Which models answer; hidden where there is no choice."""
    return gr.CheckboxGroup(
        list(engines),
        value=events.preferred(engines),
        label="Models; those trained on the most sources answer unless you choose",
        visible=len(engines) > len(events.preferred(engines)),
        elem_classes="models",
    )


def _add_upload(label: str) -> gr.File:
    # Not gr.Image: it clips 16-bit files, cannot show TIFF, and answers a damaged file with a stack trace.
    # And no file_types: the content decides what a file is, and our reader says what is wrong with it.
    return gr.File(label=label, file_count="multiple", type="filepath", height=150, elem_classes="upload")


def _add_examples(examples: Sequence[Example], files: gr.File) -> None:
    gallery = gr.Gallery(
        [(each.preview, each.caption) for each in examples],
        label="Or take an example",
        columns=3,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="examples",
    )

    def take(event: gr.SelectData) -> list[str]:
        return [str(examples[event.index].file)]

    gallery.select(take, None, files, api_visibility="private", show_progress="hidden")


def _add_use(about: Mapping[str, Manifest], settings: Settings) -> None:
    address = f"http://{settings.host}:{settings.port}{settings.root_path}"
    gr.HTML(usage.as_html(about, address), js_on_load=SAY_ADDRESS)
    for number, (name, description) in enumerate(about.items()):
        if text := usage.card_of(description.folder, number):
            with gr.Accordion(f"The model card of {name}", open=False):
                gr.Markdown(text, sanitize_html=True)
        else:
            gr.HTML(render("no_card", model=name))
