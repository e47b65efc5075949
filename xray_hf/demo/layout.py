"""The page: its elements, and the events that fill them."""

from __future__ import annotations

import json
from collections import Counter
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
from xray_hf.manifest import Manifest
from xray_hf.reading import KINDS
from xray_hf.report import html, sentences
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
READ = ", ".join(KINDS)
_HERE = Path(__file__).parent
Reports = Mapping[str, Report]  # by model


def build(engines: Engines, examples: Sequence[Example], settings: Settings) -> gr.Blocks:
    """Build the page for these models; it needs `looks`, too."""
    with gr.Blocks(title="Chest X-ray classifier", analytics_enabled=False) as page:
        about = {name: engine.manifest for name, engine in engines.items()}
        labels = dict.fromkeys(label for each in about.values() for label in each.labels)
        reports = {name: Report.read(each.folder, name) for name, each in about.items()}
        # Of the models that answer if nobody chooses; the others are spoken of where they are chosen.
        found = dict.fromkeys(sentences.shortcut(reports[name]) for name in events.preferred(engines))
        shortcuts = [each for each in found if each]
        gr.HTML(render("welcome", engines=engines, shortcuts=shortcuts), elem_id="welcome")
        gr.HTML(render("statement", shortcuts=shortcuts), elem_id="statement")
        gr.HTML(
            render(
                "introduction",
                engines=engines,
                labels=labels,
                synthetic=sentences.synthetic([*reports.values()]),
            )
        )
        with gr.Tabs():
            with gr.Tab(TABS["read"], id="read"):
                _add_reading(engines, reports, examples, settings)
            with gr.Tab(TABS["many"], id="many"):
                _add_many(engines, reports)
            with gr.Tab(TABS["evidence"], id="evidence"):
                gr.HTML(html.page([*reports.values()]))
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


def _add_reading(engines: Engines, reports: Reports, examples: Sequence[Example], settings: Settings) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            files = _add_upload(f"X-rays ({READ})")
            models = _add_models(engines, reports)
            gr.HTML(render("privacy"))
            _add_examples(examples, files)
        with gr.Column(scale=5, min_width=280):
            answers = gr.HTML(elem_id="answers", apply_default_css=False)

    def read(given: list[list[dict[str, Any]] | None], names: list[list[str] | None]) -> tuple[list[str]]:
        # A batch of several visitors.
        left_out: list[Counter[str]] = [Counter() for _ in given]
        uploads = [
            _few(unpack((file["path"] for file in each or []), own))
            for each, own in zip(given, left_out, strict=True)
        ]
        found = events.answer_visitors(engines, uploads, names)
        return ([as_html(each, own) for each, own in zip(found, left_out, strict=True)],)

    options = {"api_name": "show", "api_visibility": "private", "trigger_mode": "always_last"}
    gr.on([files.change, models.change], read, [files, models], answers, **options, **api.together(settings))


def _few(uploads: list[Upload]) -> list[Upload]:
    """No more than have room here; an error in place of the next sends the visitor to the table."""
    if len(uploads) <= MAX_AT_ONCE:
        return uploads
    words = f"only the first {MAX_AT_ONCE} files are shown here; the tab Many at once takes {MAX_FILES}."
    return [*uploads[:MAX_AT_ONCE], Upload.refused("The others", words)]


def _add_many(engines: Engines, reports: Reports) -> None:
    gr.HTML(render("many", files=MAX_FILES))
    files = _add_upload(f"X-rays ({READ}), or a ZIP")
    models = _add_models(engines, reports)
    table = gr.HTML(elem_id="table", min_height=60, apply_default_css=False)

    def classify(
        given: list[dict[str, Any]] | None, names: list[str] | None, progress: gr.Progress = api.PROGRESS
    ) -> str:
        chosen = events.choose(engines, names)
        left_out: Counter[str] = Counter()
        found = rows.collect(chosen, [file["path"] for file in given or []], progress, left_out)
        return rows.as_html(chosen, found, left_out) if found else ""

    options = {"api_visibility": "private", "trigger_mode": "always_last"}
    gr.on([files.change, models.change], classify, [files, models], table, **options, **api.IN_BULK)


def _add_models(engines: Engines, reports: Reports) -> gr.CheckboxGroup:
    """Which models answer, and why there are others; hidden where there is no choice."""
    preferred = events.preferred(engines)
    models = gr.CheckboxGroup(
        list(engines),
        value=preferred,
        label="Models; those trained on the most sources answer unless you choose",
        visible=len(engines) > len(preferred),
        elem_classes="choice",
    )
    others = [reports[name] for name in engines if name not in preferred]
    lessons = [each.name for each in others if sentences.of_coronahack_alone(each) and not each.is_synthetic]
    if lessons:
        gr.HTML(render("lesson", models=lessons))
    return models


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
