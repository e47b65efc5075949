"""Write docs/sources.md from data/sources/: what `xray-hf sources KIND` prints.

python scripts/write_sources.py
"""

from __future__ import annotations

from pathlib import Path

from xray_hf.data.sources import KINDS, describe, reader
from xray_hf.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sources.md"
OPENING = """\
# Sources

These kinds of collections can be read as they are downloaded. Name one with `--source KIND[:NAME]=PLACE`, for
instance `--source nih=data/nih` or `--source folder:clinic=data/clinic`. Each kind has one file in
`xray_hf/data/sources/`, and `xray-hf sources KIND` prints what is known about it, as shown below. To add a
collection, add a file there; nothing else changes."""


def page() -> str:
    """The page, one section a kind."""
    sections = [
        f"## `{kind}`: {reader(kind).ABOUT.title}\n\n```text\n{describe(kind)}\n```" for kind in KINDS
    ]
    return "\n\n".join([OPENING, *sections]) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page())
