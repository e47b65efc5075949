"""Reports as the page's HTML. Names come from outside, so everything is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import quote

from xray_hf.report import sections, sentences
from xray_hf.report.captions import Figure
from xray_hf.report.report import Report
from xray_hf.report.sections import Section
from xray_hf.report.tables import Table


def page(reports: Sequence[Report]) -> str:
    """All that the bundles' files say about the performance of their models."""
    known = [each for each in reports if each.subsets]
    unknown = [each.name for each in reports if not each.subsets]
    parts = [_heading("What this data can and cannot teach"), *_paragraphs(sentences.about_data(reports))]
    parts += _paragraphs(sentences.synthetic(reports), "notice")
    parts += _paragraphs([line for each in known for line in sentences.headline(each)], "collapse")
    parts += _paragraphs(
        [f"{name} came without `metrics.json`, so its performance is unknown." for name in unknown], "gap"
    )
    if known:
        read = [
            f"{sentences.INTERVALS} Numbers and figures are those of the bundles.",
            *sentences.without_intervals(known),
        ]
        parts += _paragraphs([" ".join(read)], "small")
        place = {report.name: number for number, report in enumerate(reports)}
        parts += [section(own, place) for own in sections.all_sections(known)]
    items = "".join(f"<li>{_text(line)}</li>" for line in sentences.limits(reports))
    parts += [_heading("Known limits"), f"<ul>{items}</ul>"]
    parts += _paragraphs(["The repository's `docs/limitations.md` has the reasons and the rest."])
    return f'<article class="evidence">\n{chr(10).join(parts)}\n</article>'


def section(own: Section, place: Mapping[str, int]) -> str:
    """A section with its heading. place: of each model on the page, as in the addresses of its figures."""
    parts = [
        _heading(own.title),
        *_paragraphs(filter(None, [own.gap]), "gap"),
        *_paragraphs(own.text),
        *(
            part
            for each in own.tables
            for part in (*_paragraphs([each.note] if each.note else []), table(each))
        ),
        *(
            f'<div class="figures">{"".join(_figure(each, place) for each in row)}</div>'
            for row in own.figures
        ),
    ]
    return "\n".join(parts)


def table(own: Table) -> str:
    """Grouped by what is measured, one row a model; for a single model without the groups' titles."""
    if len(own.models) == 1:
        bodies = [_body("", own.named_rows(), own)]
    else:
        groups = own.by_what().items()
        bodies = [_body(what, [[row.model, *row.cells] for row in rows], own) for what, rows in groups]
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in own.headings)
    title = escape(own.title)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{title}"><table><caption>{title}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead>{''.join(bodies)}</table></div>"
    )


def _body(title: str, rows: Iterable[Sequence[str]], own: Table) -> str:
    span = len(own.headings) + 1
    head = (
        f'<tr class="title"><th scope="rowgroup" colspan="{span}">{escape(title)}</th></tr>' if title else ""
    )
    lines = (f'<tr><th scope="row">{escape(name)}</th>{_cells(rest)}</tr>' for name, *rest in rows)
    return f"<tbody>{head}{''.join(lines)}</tbody>"


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _figure(own: Figure, place: Mapping[str, int]) -> str:
    url = f"figures/{place[own.model]}/{quote(own.stem)}.png"
    image = f'<img loading="lazy" src="{url}" alt="{escape(own.alt)}">'
    return (
        f'<figure><a href="{url}" target="_blank">{image}</a>'
        f"<figcaption>{escape(own.caption)}</figcaption></figure>"
    )


def _heading(title: str) -> str:
    return f"<h2>{escape(title)}</h2>"


def _paragraphs(texts: Iterable[str], kind: str = "") -> list[str]:
    attribute = f' class="{kind}"' if kind else ""
    return [f"<p{attribute}>{_text(text)}</p>" for text in texts]


def _text(markdown: str) -> str:
    """**bold** and `code`, escaped."""
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(markdown))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", strong)
