"""Reports as the page's HTML. Names come from outside, so everything is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from urllib.parse import quote

from xray_hf.report import sections, sentences
from xray_hf.report.captions import Figure
from xray_hf.report.numbers import UNKNOWN, Rate, percent
from xray_hf.report.report import Report
from xray_hf.report.sections import Section
from xray_hf.report.summary import HEALTHY, FalseAlarms, Line, Summary, summarise
from xray_hf.report.tables import Table

_DATA, _LIMITS = "What this data can and cannot teach", "Known limits"


def page(reports: Sequence[Report]) -> str:
    """All that the bundles' files say about the performance of their models: a summary, then the details."""
    known = [each for each in reports if each.subsets]
    unknown = [each.name for each in reports if not each.subsets]
    place = {report.name: number for number, report in enumerate(reports)}
    details = sections.all_sections(known) if known else []
    titles = [_DATA, *(each.title for each in details), _LIMITS]
    items = "".join(f"<li>{_text(line)}</li>" for line in sentences.limits(reports))
    parts = [
        *_paragraphs(sentences.synthetic(reports), "notice"),
        *([_summary(summarise(known), known)] if known else []),
        *_paragraphs(
            [f"{name} came without `metrics.json`, so its performance is unknown." for name in unknown], "gap"
        ),
        _contents(titles),
        _heading(_DATA),
        *_paragraphs(sentences.about_data(reports)),
        *_paragraphs(line for each in known if not each.external for line in sentences.headline(each)),
        *(section(own, place) for own in details),
        _heading(_LIMITS),
        f"<ul>{items}</ul>",
        *_paragraphs(["The repository's `docs/limitations.md` has the reasons and the rest."]),
    ]
    return f'<article class="evidence">\n{chr(10).join(parts)}\n</article>'


def _summary(summary: Summary, reports: Sequence[Report]) -> str:
    """One row a model; balanced accuracy with its interval as a bar."""
    columns = _columns(summary)
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(line.model)}</th>'
        # On a phone the title stands before each number, in place of the table's head.
        + "".join(f'<td data-title="{escape(title)}">{cell(line)}</td>' for title, cell in columns.items())
        + "</tr>"
        for line in summary.lines
    )
    chances = {percent(line.chance) for line in summary.lines}
    by_chance = [f"Chance is {chances.pop()}, marked by a line."] if len(chances) == 1 else []
    note = " ".join([*by_chance, sentences.SUMMARY, *sentences.without_intervals(reports)])
    return (
        '<div class="summary" role="region" tabindex="0" aria-label="Summary"><table>'
        f"<caption>Summary</caption><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody>"
        f'</table></div>\n<p class="small">{_text(note)}</p>'
    )


def _columns(summary: Summary) -> dict[str, Callable[[Line], str]]:
    """{title: a function that writes its cell of a line as HTML}; external numbers first."""
    outside = dict.fromkeys(name for line in summary.lines for name in line.external)
    healthy = dict.fromkeys(name for line in summary.lines for name in line.false_alarms)
    return {
        **{
            f"Balanced accuracy, external: {name}": partial(
                lambda line, name: _bar(line.external.get(name, Rate()), line.chance), name=name
            )
            for name in outside
        },
        "Balanced accuracy, internal": lambda line: _bar(line.internal, line.chance),
        **{
            f"{HEALTHY} X-rays of {name} called {summary.disease}, before → after abstention": partial(
                lambda line, name: _alarms(line.false_alarms.get(name)), name=name
            )
            for name in healthy
        },
        "Coverage": lambda line: "<br>".join(
            escape(f"{name} {percent(share, 0)}") for name, share in line.coverage.items()
        ),
    }


def _bar(rate: Rate, chance: Rate) -> str:
    """A share above its interval and a line at chance, on an axis from 0 to 100 %."""
    if rate.value is None:
        return UNKNOWN
    low, high = rate.interval or (rate.value, rate.value)
    places = {"at": rate.value, "low": low, "high": high, "chance": chance.value or 0}
    style = "; ".join(f"--{name}: {share:.4f}" for name, share in places.items())
    return f'{percent(rate)}<span class="interval" style="{style}"></span>'


def _alarms(found: FalseAlarms | None) -> str:
    if not found:
        return UNKNOWN
    after = "" if found.after.value is None else f"<br>→ {percent(found.after)}"
    return f"{percent(found.before)}{after}<br>of {found.images:,}"


def _contents(titles: Iterable[str]) -> str:
    links = "".join(f'<li><a href="#{_anchor(title)}">{escape(title)}</a></li>' for title in titles)
    return f'<nav class="contents" aria-label="Contents"><ul>{links}</ul></nav>'


def _anchor(title: str) -> str:
    return f"evidence-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}"


def section(own: Section, place: Mapping[str, int]) -> str:
    """A section with its heading. place: each model's number, as in the addresses of its figures."""
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
    return f'<h2 id="{_anchor(title)}">{escape(title)}</h2>'


def _paragraphs(texts: Iterable[str], kind: str = "") -> list[str]:
    attribute = f' class="{kind}"' if kind else ""
    return [f"<p{attribute}>{_text(text)}</p>" for text in texts]


def _text(markdown: str) -> str:
    """**bold** and `code`, escaped."""
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(markdown))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", strong)
