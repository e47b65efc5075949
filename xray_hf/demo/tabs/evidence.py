"""The tab "How good is it?": what the bundles' reports say."""

from __future__ import annotations

from xray_hf.demo.tabs.tab import Served, add_part
from xray_hf.report import html

NAME, TITLE = "evidence", "How good is it?"


def add(served: Served) -> None:
    """Add the page of evidence."""
    served.parts[NAME] = html.page([model.report for model in served.models.values()])
    add_part(NAME)
