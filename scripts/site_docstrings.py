"""Shows the docstrings of this package as the API reference needs them; an extension of griffe (mkdocs.yml).

Our docstrings explain parameters in running text, "path: a file. threads: how many.", and end paragraphs with
a short line. The extension makes a list of the former and real paragraphs of the latter.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import griffe

WIDTH = 96  # a word that would have fitted within it begins a paragraph
SENTENCE = re.compile(r"(?<=[.;:])\s+(?=(?:Raises|Returns|Yields) )")


class HouseStyle(griffe.Extension):
    """Rewrites every docstring of a package once it is read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        rewrite(pkg)


def rewrite(thing: griffe.Object) -> None:
    """Rewrite the docstring of a module, class or function, and of everything in it."""
    if thing.docstring and not thing.is_module:
        thing.docstring.value = as_markdown(thing.docstring.value, names_in(thing))
    for member in thing.members.values():
        if isinstance(member, griffe.Module | griffe.Class | griffe.Function):
            rewrite(member)


def names_in(thing: griffe.Object) -> list[str]:
    """The parameters of a function, the attributes of a class."""
    if isinstance(thing, griffe.Function):
        return [each.name for each in thing.parameters]
    return [name for name, member in thing.members.items() if member.is_attribute]


def as_markdown(text: str, names: list[str]) -> str:
    """A docstring with a list where it explains these names, and its paragraphs apart."""
    lines = text.split("\n")
    for place, (line, following) in enumerate(pairwise(lines)):
        if line.endswith(".") and len(f"{line} {following.split(' ')[0]}") <= WIDTH:
            lines[place] += "\n"
    text = SENTENCE.sub("\n\n", "\n".join(lines))
    name = f"(?:{'|'.join(map(re.escape, names))})"
    explained = re.compile(rf"(?:^|(?<=[.;]) )({name}(?:(?:, | and ){name})*): ", re.MULTILINE)
    text = explained.sub(lambda found: f"\n\n- `{found[1]}`: ", text) if names else text
    return re.sub(r"\n{3,}", "\n\n", text)
