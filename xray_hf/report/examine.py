"""Images by origin and class; for CoronaHack also the paper's figures 2.1 to 2.3 and 3.1 to 3.3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xray_hf.data import confounding, splits
from xray_hf.data.dataset import XrayData
from xray_hf.data.sample import Sample, mark_of
from xray_hf.errors import ConfigError
from xray_hf.files import write_json, write_text
from xray_hf.report import figures
from xray_hf.task import OFFICIAL_SPLITS, SPLITS

EXAMPLES_PER_CLASS = 4


def examine(data: XrayData, out: Path, seed: int = 0) -> str:
    """Write distribution.json, distribution.md and the figures into `out`; return the tables as text.

    seed: of the paper's split, which is the rebalancing shown, and of the choice of examples.
    """
    tables = distributions(data, _papers_split(data, seed))
    mark = mark_of(data.samples)
    text = f"{mark}\n\n{as_markdown(tables)}" if mark else as_markdown(tables)
    write_json(out / "distribution.json", tables)
    write_text(out / "distribution.md", text)
    for name, figure in _drawn(data, tables, mark, seed).items():
        figures.save(figure, out / name)
    return text


def _papers_split(data: XrayData, seed: int) -> splits.Split | None:
    """The paper's rebalancing; None for sources that it does not fit."""
    try:
        return splits.paper(data.samples, data.classes, seed)
    except ConfigError:
        return None


def distributions(data: XrayData, split: splits.Split | None) -> dict[str, Any]:
    """The counts of every table and figure, and the reports of the reading; JSON-ready.

    split: the paper's; without one there are only the images by origin and class.
    """
    names, counts = confounding.cross_table(data.samples, data.classes)
    found: dict[str, Any] = {
        "reports": [report.as_dict() for report in data.reports],
        "origins": {
            name: dict(zip(data.classes, row, strict=True))
            for name, row in zip(names, counts.tolist(), strict=True)
        },
        "cramers_v": confounding.cramers_v(counts),
        "warnings": confounding.warnings(data.samples, data.classes),
    }
    if split is None:
        return found
    official = np.asarray([sample.official_split for sample in data.samples])
    return found | {
        "csv_content": csv_content(data.samples),
        "before": {
            part: _class_counts(data.labels[official == part], data.classes) for part in OFFICIAL_SPLITS
        },
        "after": {name: _class_counts(data.labels[split.rows(name)], data.classes) for name in SPLITS},
    }


def csv_content(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Figure 3.1: images per label, pathogen and virus; COVID-19 counts as Pneumonia, as in the CSV."""
    kinds = Counter(
        ("Normal" if sample.label == "Normal" else "Pneumonia", sample.pathogen, sample.virus_category)
        for sample in samples
    )
    names = ("label", "label_1_virus_category", "label_2_virus_category")
    return [dict(zip(names, kind, strict=True)) | {"images": n} for kind, n in sorted(kinds.items())]


def _drawn(data: XrayData, tables: dict[str, Any], mark: str, seed: int) -> dict[str, Figure]:
    sheet = figures.sheet(_examples(data, seed), EXAMPLES_PER_CLASS, f"{mark}examples")
    if "before" not in tables:
        origins = figures.bars(tables["origins"], f"{mark}images by origin and class")
        return {"origins.png": origins, "examples.png": sheet}
    before, after = tables["before"], tables["after"]
    train = {f"after: {name}": after[name] for name in ("train", "validation")}
    totals: Counter[str] = Counter()
    for row in tables["csv_content"]:
        totals[row["label"]] += row["images"]
    counts = {
        "figure_2_1_train_labels.png": (
            "train, before and after",
            {"before: TRAIN": before["TRAIN"], **train},
        ),
        "figure_2_2_test_labels.png": (
            "test, before and after",
            {"before: TEST": before["TEST"], "after": after["test"]},
        ),
        "figure_3_2_distribution.png": ("labels of the CSV", {"data set": totals}),
        "figure_3_3_official_split.png": ("the data set's own parts", before),
    }
    drawn = {name: figures.bars(own, f"{mark}{title}") for name, (title, own) in counts.items()}
    return {**drawn, "figure_2_3_examples.png": sheet}


def as_markdown(tables: dict[str, Any]) -> str:
    """All tables in Markdown."""
    lines = ["# The data\n", "Images by origin and class\n", _of_classes(tables["origins"])]
    lines += [f"\nWarning: {text}" for text in tables["warnings"]]
    if "before" in tables:
        content = [[value or "-" for value in row.values()] for row in tables["csv_content"]]
        lines += [
            "\nContent of the CSV (the paper's figure 3.1)\n",
            _table(["Label", "Label_1_Virus_category", "Label_2_Virus_category", "images"], content),
            "\nBefore the rebalancing: the data set's own parts (figure 3.3)\n",
            _of_classes(tables["before"]),
            "\nAfter the paper's rebalancing: a quarter of COVID-19 moved to test, classes upsampled,",
            "15 % of the rows split off for validation (figures 2.1 and 2.2)\n",
            _of_classes(tables["after"]),
        ]
    return "\n".join([*lines, ""])


def _of_classes(counts: dict[str, dict[str, int]]) -> str:
    classes = next(iter(counts.values()))
    return _table(["", *classes, "all"], [[name, *n.values(), sum(n.values())] for name, n in counts.items()])


def _examples(data: XrayData, seed: int) -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(data.classes)):
        rows = np.flatnonzero(data.labels == label)
        chosen += rng.choice(rows, min(EXAMPLES_PER_CLASS, len(rows)), replace=False).tolist()
    pixels = data.pixels.gather(np.asarray(chosen))
    return [(data.classes[data.labels[row]], image) for row, image in zip(chosen, pixels, strict=True)]


def _class_counts(labels: Iterable[int], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(labels)
    return {name: counts.get(k, 0) for k, name in enumerate(classes)}


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += [
        "| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in row) + " |" for row in rows
    ]
    return "\n".join(lines)
