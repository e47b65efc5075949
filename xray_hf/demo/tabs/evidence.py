"""The tab "How good is it?": what the bundles' reports say."""

from __future__ import annotations

import gradio as gr

from xray_hf.demo.tabs.tab import Served
from xray_hf.report import html

NAME, TITLE = "evidence", "How good is it?"


def add(served: Served) -> None:
    """Add the page of evidence."""
    gr.HTML(html.page([model.report for model in served.models.values()]))
