"""Sections and tables as Markdown, for cards and docs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from xray_hf.report.captions import Figure
from xray_hf.report.sections import Section
from xray_hf.report.tables import Table

WIDTH = 110
_ROUND = str.maketrans("[]", "()")  # square brackets end an alternative text


def section(own: Section, level: int, url: Callable[[Figure], str]) -> str:
    """A section with a heading of this level; if something was not measured, it names the command for it."""
    parts = [f"{'#' * level} {own.title}", *map(paragraph, filter(None, [own.gap, *own.text]))]
    for each in own.tables:
        parts += [f"**{each.title}**"] if len(own.tables) > 1 else []
        parts += [paragraph(each.note), table(each)] if each.note else [table(each)]
    parts += [f"![{each.alt.translate(_ROUND)}]({url(each)})" for row in own.figures for each in row]
    return "\n\n".join(parts)


def paragraph(text: str) -> str:
    """Wrap a paragraph at WIDTH."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def quotation(text: str) -> str:
    """A paragraph as a block quotation."""
    return textwrap.indent(paragraph(text), "> ")


def table(own: Table) -> str:
    """A table without its title."""
    return rows_below(["", *own.headings], own.named_rows())


def rows_below(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines of cells below their headings; the first column flush left, the others flush right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(cell: Any) -> str:
    return str(cell).replace("|", "\\|")
