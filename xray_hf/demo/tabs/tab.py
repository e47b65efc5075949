"""The input of every tab, and the fields that tabs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import gradio as gr

from xray_hf.demo import models
from xray_hf.demo.examples import Example
from xray_hf.demo.models import Models
from xray_hf.demo.rendering import render
from xray_hf.demo.settings import Settings
from xray_hf.reading import KINDS
from xray_hf.report import sentences
from xray_hf.text import listed

READ = listed(KINDS, "or")


@dataclass(frozen=True)
class Served:
    """The models, examples and settings that the page serves.

    parts: {name: HTML that the browser fetches when it comes into view}; tabs add theirs.
    """

    models: Models
    examples: Sequence[Example]
    settings: Settings
    parts: dict[str, str] = field(default_factory=dict)


def add_part(name: str) -> gr.HTML:
    """A place for one of `Served.parts`."""
    return gr.HTML(render("part", name=name), padding=False)


def add_upload(label: str) -> gr.File:
    """A field for files."""
    # Not gr.Image: it clips 16-bit files, cannot show TIFF, and answers a damaged file with a stack trace.
    # And no file_types: the content decides what a file is, and our reader says what is wrong with it.
    field = gr.File(label=label, file_count="multiple", type="filepath", height=150, elem_classes="upload")
    gr.HTML(render("add_more"), elem_classes="add-more")  # Gradio's own is a button in a button
    return field


def add_models(served: Models) -> gr.CheckboxGroup:
    """A field to choose the models, and a note on the CoronaHack ones; hidden where there is no choice."""
    preferred = models.preferred(served)
    field = gr.CheckboxGroup(
        list(served),
        value=preferred,
        label="Models (none chosen: those trained on the most sources)",
        visible=len(served) > len(preferred),
        elem_classes="choice",
    )
    others = [model.report for name, model in served.items() if name not in preferred]
    lessons = [each.name for each in others if sentences.of_coronahack_alone(each) and not each.is_synthetic]
    if lessons:
        gr.HTML(render("lesson", models=lessons))
    return field
