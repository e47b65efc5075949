"""One module per collection: how to read its folder, and what is known about it.

A source is named on the command line as KIND[:NAME]=PLACE, for instance `coronahack=data/coronahack` or
`folder:clinic=data/clinic`. Its reader gives the collection's own findings; `classify` maps them to classes.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Protocol

from xray_hf.errors import ConfigError
from xray_hf.task import PAPER_CLASSES, check_classes

if TYPE_CHECKING:  # it imports numpy, for which --help need not wait
    from xray_hf.data.sample import Sample, SourceReport

KINDS = tuple(sorted(module.name for module in iter_modules(__path__)))  # each file here reads a kind
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class About:
    """What is known about a collection; every text is one or a few plain sentences.

    title: its name as published. url: its page. origin: who collected it, from where, when.
    hospital: the sites it comes from. counts: images and patients by label.
    labels: who labelled it, and how. licence: the terms of its images.
    known_errors: what misleads a model or an evaluation. citation: BibTeX.
    """

    title: str
    url: str
    origin: str
    hospital: str
    counts: str
    labels: str
    licence: str
    known_errors: tuple[str, ...]
    citation: str


@dataclass(frozen=True)
class ReadOptions:
    """Options that only some readers use.

    covid_metadata: the metadata CSV of ieee8023/covid-chestxray-dataset, for `coronahack`.
    patient: a regular expression for the part of a file's name that names the patient, for `folder`.
    cache_dir: where `hub` writes the images of a data set; None for $XRAY_HF_CACHE, else ~/.cache/xray_hf.
    """

    covid_metadata: Path | None = None
    patient: str | None = None
    cache_dir: Path | None = None


class Reader(Protocol):
    """The interface of a module of this package.

    CLASS_OF: {finding of the collection: class}; empty where every finding is a class of its own name.
    """

    ABOUT: About
    CLASS_OF: Mapping[str, str]

    def read(self, place: str, name: str, options: ReadOptions) -> tuple[list[Sample], SourceReport]:
        """Read a collection's tables and look for its files; no image is decoded.

        place: a folder, or the id of a data set on the Hub. name: the source's name in this run.
        Samples have no label yet. Raises DataError, or ConfigError for an option that it cannot use.
        """
        ...

    def fits(self, folder: Path) -> bool:
        """Whether a folder has this collection's tables or folders; reads no more than headers."""
        ...


@dataclass(frozen=True)
class SourceSpec:
    """One source, KIND[:NAME]=PLACE."""

    kind: str
    name: str
    place: str

    def __str__(self) -> str:
        """As typed on the command line."""
        kind = self.kind if self.kind == self.name else f"{self.kind}:{self.name}"
        return f"{kind}={self.place}"


def reader(kind: str) -> Reader:
    """The module of a kind."""
    return import_module(f"{__name__}.{kind}")  # a module has what Reader asks for


def describe(kind: str | None = None) -> str:
    """What is known about a kind as text, with its layout and classes; without a kind, one line per kind.

    Raises ConfigError for an unknown kind.
    """
    if kind is None:
        return "\n".join(f"{each:<12} {reader(each).ABOUT.title}" for each in KINDS)
    if kind not in KINDS:
        raise ConfigError(f"there is no kind of source {kind!r}; expected one of {', '.join(KINDS)}.")
    module = reader(kind)
    about, of_class = module.ABOUT, defaultdict(list)
    for finding, name in module.CLASS_OF.items():
        of_class[name].append(finding)
    classes = "; ".join(f"{name} from {', '.join(found)}" for name, found in of_class.items())
    layout = (module.__doc__ or "").partition("\n")[2].strip("\n")
    paragraphs = {
        "Origin": about.origin,
        "Hospital": about.hospital,
        "Counts": about.counts,
        "Labels": about.labels,
        "Classes": f"{classes}." if classes else "Each label is a class of its own name.",
        "Licence": about.licence,
        "Known errors": " ".join(about.known_errors),
    }
    wrapped = [
        textwrap.fill(f"{title}: {text}", 100, subsequent_indent="  ", break_on_hyphens=False)
        for title, text in paragraphs.items()
    ]
    parts = [f"{kind}: {about.title}", about.url, *wrapped, "", layout.rstrip(), "", about.citation]
    return "\n".join(parts).replace("\n\n\n", "\n\n").strip()


def parse_spec(text: str) -> SourceSpec:
    """Read KIND[:NAME]=PLACE; the name is the kind where none is given. Raises ConfigError."""
    named, equals, place = text.partition("=")
    kind, _, name = named.partition(":")
    if kind not in KINDS:
        raise ConfigError(
            f"--source {text!r} is of an unknown kind {kind!r}; expected KIND[:NAME]=PLACE with one of "
            f"{', '.join(KINDS)}.{'' if equals else f' A folder of your own is --source folder={text}.'}"
        )
    if not equals or not place:
        raise ConfigError(f"--source {text!r} names no place; expected KIND[:NAME]=PLACE.")
    name = name or kind
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--source {text!r} has the name {name!r}; expected letters, digits, '_', '-' and '.'."
        )
    return SourceSpec(kind, name, place)


def parse_specs(texts: Sequence[str]) -> tuple[SourceSpec, ...]:
    """All sources of a run; raises ConfigError also for two of one name."""
    specs = tuple(parse_spec(text) for text in texts)
    name, times = Counter(spec.name for spec in specs).most_common(1)[0] if specs else ("", 0)
    if times > 1:
        raise ConfigError(
            f"{times} sources are called {name!r}; give each its own name, as in --source folder:other=DIR."
        )
    return specs


def check_hold_out(hold_out: Sequence[str], names: Sequence[str]) -> None:
    """Raise ConfigError for an unknown source to hold out, and if none is left to train on."""
    if unknown := [name for name in hold_out if name not in names]:
        raise ConfigError(f"--hold-out {unknown[0]} is not one of the sources; expected {', '.join(names)}.")
    if hold_out and set(names) == set(hold_out):
        raise ConfigError(f"--hold-out {', '.join(names)} leaves no source to train on; hold fewer out.")


def parse_maps(texts: Sequence[str], specs: Sequence[SourceSpec]) -> dict[tuple[str, str], str]:
    """Read each [KIND:]NAME:FINDING=CLASS into {(name, finding): class, or "" for none}.

    Raises ConfigError, also for a source that the run does not have and for a finding mapped twice.
    """
    mapped: dict[tuple[str, str], str] = {}
    for text in texts:
        left, equals, label = text.rpartition("=")
        fitting = [
            (spec.name, left.removeprefix(prefix))
            for spec in specs
            for prefix in (f"{spec.kind}:{spec.name}:", f"{spec.name}:")
            if equals and left.startswith(prefix) and left != prefix
        ]
        if not fitting:
            known = ", ".join(spec.name for spec in specs)
            raise ConfigError(
                f"--map {text!r} fits no source; expected NAME:FINDING=CLASS with a name of {known}, "
                "and nothing after '=' to leave the finding out."
            )
        name, finding = fitting[0]
        if (name, finding) in mapped:
            raise ConfigError(f"--map {name}:{finding} is given more than once; expected one class for it.")
        mapped[name, finding] = label
    return mapped


def classify(
    samples: Sequence[Sample],
    specs: Sequence[SourceSpec],
    classes: Sequence[str] | None,
    mapped: Mapping[tuple[str, str], str],
) -> tuple[list[Sample], tuple[str, ...]]:
    """Give every image the class of its findings, or None, and return the classes.

    classes: the task's; None for all that the sources have: the paper's first, in its order, then the others.
    mapped: as parse_maps gives it. An unmapped finding gets the class of its own name if the task has it,
    else the class that its source's CLASS_OF gives. An image with findings of two classes has none.
    Raises ConfigError for a map to a class that the task lacks or of a finding that no image has, and for
    fewer than two classes.
    """
    kinds = {spec.name: reader(spec.kind).CLASS_OF for spec in specs}
    there = {(sample.source, finding) for sample in samples for finding in sample.findings}
    for (source, finding), label in mapped.items():
        if label and classes is not None and label not in classes:
            raise ConfigError(
                f"--map {source}:{finding}={label} names no class of this task; "
                f"expected one of {', '.join(classes)}, or nothing to leave the finding out."
            )
        if (source, finding) not in there:
            known = ", ".join(sorted(own for name, own in there if name == source))
            raise ConfigError(
                f"--map {source}:{finding} fits no image; the findings of {source} are {known}."
            )

    def class_of(source: str, finding: str) -> str | None:
        if (source, finding) in mapped:
            return mapped[source, finding] or None
        if classes is not None and finding in classes:
            return finding
        label = kinds[source].get(finding) if kinds[source] else finding
        return label if classes is None or label in classes else None

    labelled = []
    for sample in samples:
        names = {class_of(sample.source, finding) for finding in sample.findings} - {None}
        labelled.append(replace(sample, label=names.pop() if len(names) == 1 else None))
    if classes is None:
        found = {sample.label for sample in labelled if sample.label is not None}
        classes = [*(name for name in PAPER_CLASSES if name in found), *sorted(found - set(PAPER_CLASSES))]
    return labelled, check_classes(classes)
