"""The page: where everything stands, and which event fills it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from xray_hf.demo import events
from xray_hf.errors import XrayHFError
from xray_hf.images import FORMATS
from xray_hf.inference import Engine
from xray_hf.labels import LABELS

TITLE = "Chest X-ray classifier"
STATEMENT = (
    "<strong>Not a medical device.</strong> For research and teaching only: never use it to decide "
    "about anyone's health."
)
CLASSES = f"{', '.join(LABELS[:-1])} or {LABELS[-1]}"
INTRODUCTION = f"# {TITLE}\nGive a frontal chest X-ray: each chosen model says how likely it shows {CLASSES}."
SYNTHETIC_NOTICE = (
    "**Trained on synthetic patients:** its numbers show that the software works, nothing more."
)
PRIVACY = (
    "Files are read on the computer that runs this page, sent nowhere else, and deleted within the hour."
)
MAX_FILE_SIZE = "64mb"  # a detector's full image, 18 million pixels of 16 bit, uncompressed is 36 MB
CACHE_SECONDS = (300, 1800)  # how often to look for old uploads, and how old they may get
QUEUE_LENGTH = 32  # who comes later is told that the page is busy, instead of waiting for minutes
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing to fetch
CODE_FONTS = ("ui-monospace", "Consolas", "monospace")
CSS = Path(__file__).with_name("style.css")


def build(engines: Mapping[str, Engine], examples: Sequence[tuple[Path, str]]) -> gr.Blocks:
    """Build the page for these models, with examples as (file, class name); launch it with launch_options."""
    with gr.Blocks(title=TITLE, delete_cache=CACHE_SECONDS, analytics_enabled=False) as page:
        gr.HTML(STATEMENT, elem_id="statement")
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                chosen = _add_choice(list(engines))
                xray = _add_upload()
                gr.Markdown(PRIVACY)
                if examples:
                    _add_examples(examples, xray)
            with gr.Column(scale=3, min_width=300):
                problem = gr.HTML(visible=False, elem_id="problem")
                columns, labels, decisions = _add_results(engines)
                preview = _add_preview()
        _connect(engines, xray, chosen, problem, preview, columns, labels, decisions)
        _add_api(engines, xray, chosen)
    return page.queue(max_size=QUEUE_LENGTH)


def launch_options() -> dict[str, Any]:
    """What `launch` must be told, because Gradio ignores it on Blocks: looks, limits, and no sharing."""
    return {
        "theme": gr.themes.Default(primary_hue="teal", font=SYSTEM_FONTS, font_mono=CODE_FONTS),
        "css_paths": [CSS],
        "max_file_size": MAX_FILE_SIZE,
        "footer_links": [],
        "run_history": False,  # it would keep the X-rays in the browser
        "enable_monitoring": False,
        "ssr_mode": False,
        "share": False,
    }


def _add_choice(names: Sequence[str]) -> gr.CheckboxGroup:
    return gr.CheckboxGroup(list(names), value=list(names), label="Models", elem_id="models")


def _add_upload() -> gr.File:
    # Not gr.Image: it clips 16-bit files, cannot show TIFF, and answers a damaged file with a stack trace.
    # And no file_types: the content decides what a file is, and our reader says what is wrong with it.
    return gr.File(label=f"X-ray ({', '.join(FORMATS)}, DICOM)", type="filepath", height=150, elem_id="xray")


def _add_examples(examples: Sequence[tuple[Path, str]], xray: gr.File) -> None:
    gallery = gr.Gallery(
        [(path, f"SYNTHETIC {label}") for path, label in examples],
        label="Or take a synthetic example: no real person",
        columns=len(examples),
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="examples",
    )

    def take(event: gr.SelectData) -> str:
        return str(examples[event.index][0])

    gallery.select(take, None, xray, api_visibility="private", show_progress="hidden")


def _add_results(engines: Mapping[str, Engine]) -> tuple[list[gr.Column], list[gr.Label], list[gr.Markdown]]:
    columns, labels, decisions = [], [], []
    with gr.Row():
        for name, engine in engines.items():
            with gr.Column(min_width=240) as column:
                labels.append(gr.Label(label=name, show_heading=True))
                decisions.append(gr.Markdown(elem_classes="notice"))
                if engine.manifest.is_synthetic:
                    gr.Markdown(SYNTHETIC_NOTICE, elem_classes="notice")
            columns.append(column)
    return columns, labels, decisions


def _add_preview() -> gr.Image:
    return gr.Image(
        label="The X-ray as read",
        format="png",  # the default, webp, is lossy
        image_mode=None,
        interactive=False,
        buttons=["fullscreen"],
        visible=False,
        elem_id="preview",
        alt_text="The uploaded X-ray",
    )


def _connect(
    engines: Mapping[str, Engine],
    xray: gr.File,
    chosen: gr.CheckboxGroup,
    problem: gr.HTML,
    preview: gr.Image,
    columns: Sequence[gr.Column],
    labels: Sequence[gr.Label],
    decisions: Sequence[gr.Markdown],
) -> None:
    """Show the answer whenever the file or the choice changes."""

    def show(path: str | None, names: list[str]) -> list[Any]:
        # One function fills everything at once, so that no answer can stand beside another file.
        answer = events.answer(engines, path, names)
        text = f'<p role="alert"><strong>No answer:</strong> {html.escape(answer.problem)}</p>'
        return [
            gr.HTML(text, visible=bool(answer.problem)),
            gr.Image(answer.preview, visible=answer.preview is not None),
            *(gr.Column(visible=name in names) for name in engines),
            *(events.shares(answer.predictions.get(name)) for name in engines),
            *(events.describe(answer.predictions.get(name)) for name in engines),
        ]

    gr.on(
        [xray.change, chosen.change],
        show,
        [xray, chosen],
        [problem, preview, *columns, *labels, *decisions],
        api_visibility="private",
        trigger_mode="always_last",
        show_progress_on=list(labels),
    )


def _add_api(engines: Mapping[str, Engine], xray: gr.File, chosen: gr.CheckboxGroup) -> None:
    """Offer the same answer to programs, as `/classify`: {model: decision, probabilities}, or an error."""

    def classify(path: str | None, names: list[str]) -> dict[str, Any]:
        try:
            found = events.classify(engines, path, names)
        except XrayHFError as error:
            # Gradio shows the text as HTML, and it can hold the file's name.
            raise gr.Error(html.escape(str(error)), print_exception=False) from None
        return {
            name: {"decision": each.decision, "probabilities": each.probabilities}
            for name, each in found.items()
        }

    result = gr.JSON(visible=False)
    gr.Button(visible=False).click(classify, [xray, chosen], result, api_name="classify")
