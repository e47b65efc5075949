"""Sections and tables for a terminal: equal columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from xray_hf.report import sections, sentences, tables
from xray_hf.report.report import Report
from xray_hf.report.sections import Section
from xray_hf.report.tables import Table

WIDTH = 120


def part(report: Report, name: str) -> str:
    """One of PARTS, below the report's mark, if any."""
    return "\n\n".join(filter(None, [report.mark.rstrip(": "), PARTS[name](report)]))


def splits(report: Report) -> str:
    """Every split of the bundle, all classes together and each class; by source where there are several."""
    sets = tables.subsets([report])
    classes = tables.class_columns("Each class", sets, report.classes)
    by_source = sections.sources([report])
    parts = [table(tables.performance("All classes together", sets)), table(classes)]
    return "\n\n".join([*parts, *([section(by_source)] if by_source else [])])


def section(own: Section) -> str:
    """A section's tables below its title."""
    return "\n\n".join([own.title.upper(), *map(table, own.tables)])


def leave_one_source_out(reports: Sequence[Report]) -> str:
    """The performance of models on the sources that they held out; "" if none held one out."""
    found = sections.leave_one_source_out(reports)
    return section(found) if found else ""


def external(report: Report) -> str:
    """External validation, in words and tables."""
    return "\n\n".join([*map(paragraph, sentences.headline(report)), section(sections.external([report]))])


def controls(report: Report) -> str:
    """The shortcut controls, and the files with the lowest self-confidence."""
    found = [make([report]) for make in (sections.controls, sections.subgroups, sections.label_errors)]
    said = [
        *sentences.no_label_errors(report),
        *sentences.not_recorded([report]),
        *sentences.duplicates(report),
    ]
    least = tables.least_self_confidence(report)
    parts = [*map(section, found), *map(paragraph, said), table(least) if least.rows else ""]
    return "\n\n".join(filter(None, parts))


def calibration(report: Report) -> str:
    """Calibration and abstention, and what was fitted."""
    said = [*sentences.fitted(report), *sentences.worst_calibrated_sources(report)]
    return "\n\n".join([section(sections.calibration([report])), *map(paragraph, said)])


PARTS: Mapping[str, Callable[[Report], str]] = {
    "splits": splits,
    "external": external,
    "controls": controls,
    "calibration": calibration,
    "ood": lambda report: section(sections.ood([report])),
}


def table(own: Table) -> str:
    """A title, and rows of equal columns; the first flush left, the others flush right."""
    return "\n".join([own.title, columns([["", *own.headings], *own.named_rows()])])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of equal columns; columns that do not fit follow below, after the first one."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        used = widths[0] + sum(widths[k] + 2 for k in blocks[-1])
        if blocks[-1] and used + widths[column] + 2 > WIDTH:
            blocks.append([])
        blocks[-1].append(column)
    return "\n\n".join(
        "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in block)]).rstrip()
            for row in rows
        )
        for block in blocks
    )


def paragraph(text: str) -> str:
    """A sentence without its markup, wrapped."""
    return textwrap.fill(re.sub(r"\*\*|`", "", text), WIDTH, break_on_hyphens=False)
