"""The page: where everything stands, and which event fills it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from xray_hf.demo import events
from xray_hf.demo.events import Engines
from xray_hf.demo.formatting import as_html, as_json, render
from xray_hf.demo.settings import Settings
from xray_hf.demo.uploads import MAX_FILES, unpack
from xray_hf.images import FORMATS
from xray_hf.inference.engine import BATCH_SIZE

MAX_AT_ONCE = 8  # X-rays with a viewer each; more are a table
CACHE_SECONDS = (60, 300)  # how often to look for old uploads, and how old they may get
STATUS_SECONDS = 2  # between two words on the place in the queue
QUEUE_LENGTH = 2000  # who comes later is told that the page is busy
SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing to fetch
CODE_FONTS = ("ui-monospace", "Consolas", "monospace")
KINDS = f"{', '.join(FORMATS)}, DICOM"
_HERE = Path(__file__).parent

Example = tuple[Path, str]


def build(engines: Engines, examples: Sequence[Example], settings: Settings) -> gr.Blocks:
    """Build the page for these models, with examples as (file, caption); it needs `looks`, too."""
    with gr.Blocks(
        title="Chest X-ray classifier",
        delete_cache=CACHE_SECONDS,
        analytics_enabled=False,
    ) as page:
        names = listed(engines)
        synthetic = listed([name for name, engine in engines.items() if engine.manifest.is_synthetic])
        labels = listed(next(iter(engines.values())).labels, "or")
        gr.HTML(render("welcome", models=names), elem_id="welcome")
        gr.HTML(render("statement"), elem_id="statement")
        gr.HTML(render("introduction", models=names, labels=labels, synthetic=synthetic))
        with gr.Tabs():
            with gr.Tab("Read an X-ray", id="read"):
                _add_reading(engines, examples, settings)
            with gr.Tab("Many at once", id="many"):
                _add_many(engines, settings)
        _add_api(engines, settings)
    # "auto" sends everybody in the queue a message at every start of a batch.
    return page.queue(max_size=QUEUE_LENGTH, status_update_rate=STATUS_SECONDS)


def listed(names: Iterable[str], word: str = "and") -> str:
    """a, b and c."""
    *most, last = [*names] or [""]
    return f"{', '.join(most)} {word} {last}" if most else last


def looks() -> dict[str, Any]:
    """What Gradio ignores on Blocks and must be told when they are mounted or launched."""
    return {
        "theme": gr.themes.Default(primary_hue="teal", font=SYSTEM_FONTS, font_mono=CODE_FONTS),
        "css_paths": [_HERE / "style.css"],
        "js": (_HERE / "page.js").read_text(encoding="utf-8"),
    }


def _add_reading(engines: Engines, examples: Sequence[Example], settings: Settings) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            files = _add_upload(f"X-rays ({KINDS})")
            gr.HTML(render("privacy"))
            _add_examples(examples, files)
        with gr.Column(scale=5, min_width=280):
            answers = gr.HTML(elem_id="answers")

    def read(given: list[list[dict[str, Any]] | None]) -> tuple[list[str]]:
        uploads = [unpack(file["path"] for file in each or []) for each in given]
        return ([as_html(each) for each in _answer_visitors(engines, uploads)],)

    files.change(
        read,
        files,
        answers,
        api_name="show",
        preprocess=False,  # it would leave an empty file in the cache for each that is read
        batch=True,
        max_batch_size=BATCH_SIZE,
        concurrency_id="read",
        concurrency_limit=settings.concurrency,
        api_visibility="private",
        trigger_mode="always_last",
    )


def _add_api(engines: Engines, settings: Settings) -> None:
    """The same for programs: one file in, JSON out."""
    file = gr.File(type="filepath", visible=False)
    answer = gr.JSON(visible=False)

    def read(file: list[dict[str, Any] | None]) -> tuple[list[dict[str, Any]]]:
        uploads = [unpack([each["path"]] if each else [])[:1] for each in file]
        return ([as_json(each[0]) if each else {} for each in _answer_visitors(engines, uploads)],)

    gr.Button(visible=False).click(
        read,
        file,
        answer,
        api_name="read",
        preprocess=False,  # as above
        batch=True,
        max_batch_size=BATCH_SIZE,
        concurrency_id="read",
        concurrency_limit=settings.concurrency,
    )


def _answer_visitors(engines: Engines, uploads: Sequence[Sequence[Any]]) -> list[list[events.Answer]]:
    """The answers of several visitors, whose images go through the networks together."""
    answers = iter(events.answer(engines, [upload for each in uploads for upload in each]))
    return [[next(answers) for _ in each] for each in uploads]


def _add_many(engines: Engines, settings: Settings) -> None:
    gr.HTML(render("many", files=MAX_FILES))
    files = _add_upload(f"X-rays ({KINDS}), or a ZIP")
    table = gr.HTML(elem_id="table")


def _add_upload(label: str) -> gr.File:
    # Not gr.Image: it clips 16-bit files, cannot show TIFF, and answers a damaged file with a stack trace.
    # And no file_types: the content decides what a file is, and our reader says what is wrong with it.
    return gr.File(label=label, file_count="multiple", type="filepath", height=150, elem_classes="upload")


def _add_examples(examples: Sequence[Example], files: gr.File) -> None:
    gallery = gr.Gallery(
        [(path, caption) for path, caption in examples],
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
        return [str(examples[event.index][0])]

    gallery.select(take, None, files, api_visibility="private", show_progress="hidden")
