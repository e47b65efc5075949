"""The page: where everything stands, and which event fills it."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from xray_hf.report import html
from xray_hf.report.report import Report
from xray_hf.text import listed

# {name in the address, as #many: words on it}
TABS = {
    "read": "Read an X-ray",
    "many": "Many at once",
    "evidence": "How good is it?",
    "use": "Use it yourself",
}
MAX_AT_ONCE = 8  # X-rays with a viewer each; more are a table
STATUS_SECONDS = 2  # between two words on the place in the queue
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing to fetch
CODE_FONTS = ("ui-monospace", "Consolas", "monospace")
# Only the browser knows at which address the page is seen.
SAY_ADDRESS = """
for (const each of element.querySelectorAll(".address"))
  each.textContent = (location.origin + location.pathname).replace(/\\/$/, "");
"""
KINDS = f"{', '.join(FORMATS)}, DICOM"
_PROGRESS = gr.Progress()
_HERE = Path(__file__).parent


def build(
    engines: Engines, described: dict[str, Any], examples: Sequence[Example], settings: Settings
) -> gr.Blocks:
    """Build the page for these models; it needs `looks`, too.

    described: the models in a few words, of events.describe.
    """
    with gr.Blocks(title="Chest X-ray classifier", analytics_enabled=False) as page:
        names = listed(engines)
        synthetic = listed([name for name, engine in engines.items() if engine.manifest.is_synthetic])
        uncalibrated = {name: each.calibration.lacks for name, each in engines.items()}
        labels = listed(next(iter(engines.values())).labels, "or")
        # Their classes come from two collections, of children and of adults.
        about = [engine.manifest for engine in engines.values()]
        is_confounded = any(each.sources == ("coronahack",) and not each.is_synthetic for each in about)
        gr.HTML(render("welcome", models=names, is_confounded=is_confounded), elem_id="welcome")
        gr.HTML(render("statement", is_confounded=is_confounded), elem_id="statement")
        gr.HTML(
            render(
                "introduction",
                models=names,
                is_one=len(engines) == 1,
                labels=labels,
                synthetic=synthetic,
                uncalibrated=uncalibrated,
            )
        )
        with gr.Tabs():
            with gr.Tab(TABS["read"], id="read"):
                _add_reading(engines, examples, settings)
            with gr.Tab(TABS["many"], id="many"):
                _add_many(engines)
            _add_evidence(engines)
            _add_use(engines, settings)
        api.add(engines, described, settings)
    # "auto" sends everybody in the queue a message at every start of a batch.
    return page.queue(max_size=settings.queue, status_update_rate=STATUS_SECONDS)


def looks() -> dict[str, Any]:
    """What Gradio ignores on Blocks and must be told when they are mounted or launched."""
    return {
        "theme": gr.themes.Default(primary_hue="teal", font=SYSTEM_FONTS, font_mono=CODE_FONTS),
        "css_paths": [_HERE / "style.css"],
        "js": f"() => ({(_HERE / 'page.js').read_text(encoding='utf-8')})({json.dumps(TABS)})",
    }


def _add_reading(engines: Engines, examples: Sequence[Example], settings: Settings) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            files = _add_upload(f"X-rays ({KINDS})")
            gr.HTML(render("privacy"))
            _add_examples(examples, files)
        with gr.Column(scale=5, min_width=280):
            answers = gr.HTML(elem_id="answers", apply_default_css=False)

    def read(given: list[list[dict[str, Any]] | None]) -> tuple[list[str]]:
        # A batch of several visitors.
        uploads = [_few(unpack(file["path"] for file in each or [])) for each in given]
        return ([as_html(each) for each in events.answer_visitors(engines, uploads)],)

    files.change(
        read,
        files,
        answers,
        api_name="show",
        api_visibility="private",
        trigger_mode="always_last",
        **api.together(settings),
    )


def _few(uploads: list[Upload]) -> list[Upload]:
    """No more than have room here; what is said of the next one sends the visitor to the table."""
    if len(uploads) <= MAX_AT_ONCE:
        return uploads
    words = f"only the first {MAX_AT_ONCE} files are shown here; the tab Many at once takes {MAX_FILES}."
    return [*uploads[:MAX_AT_ONCE], Upload.refused("The others", words)]


def _add_many(engines: Engines) -> None:
    gr.HTML(render("many", files=MAX_FILES))
    files = _add_upload(f"X-rays ({KINDS}), or a ZIP")
    table = gr.HTML(elem_id="table", min_height=60, apply_default_css=False)

    def classify(given: list[dict[str, Any]] | None, progress: gr.Progress = _PROGRESS) -> str:
        found = rows.collect(engines, [file["path"] for file in given or []], progress)
        return rows.as_html(engines, found) if found else ""

    files.change(
        classify,
        files,
        table,
        api_visibility="private",
        trigger_mode="always_last",
        **api.IN_BULK,
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


def _add_evidence(engines: Engines) -> None:
    with gr.Tab(TABS["evidence"], id="evidence"):
        reports = [Report.read(engine.manifest.folder, name) for name, engine in engines.items()]
        gr.HTML(html.page(reports))


def _add_use(engines: Engines, settings: Settings) -> None:
    with gr.Tab(TABS["use"], id="use"):
        descriptions = {name: engine.manifest for name, engine in engines.items()}
        address = f"http://{settings.host}:{settings.port}{settings.root_path}"
        gr.HTML(usage.as_html(descriptions, address), js_on_load=SAY_ADDRESS)
        for number, (name, description) in enumerate(descriptions.items()):
            if text := usage.card_of(description.folder, number):
                with gr.Accordion(f"The model card of {name}", open=False):
                    gr.Markdown(text, sanitize_html=True)
            else:
                gr.HTML(render("no_card", model=name))
