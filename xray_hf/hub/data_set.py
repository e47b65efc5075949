"""Sources as a data set repository: Parquet for each protocol that fits, and a card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xray_hf import manifest
from xray_hf.data import splits
from xray_hf.data.dataset import XrayData, columns_of_samples, split_data
from xray_hf.data.sample import is_synthetic, mark_of
from xray_hf.data.sources import reader
from xray_hf.data.splits import Split
from xray_hf.errors import ConfigError, DataError
from xray_hf.files import atomic_file
from xray_hf.hub import cards
from xray_hf.hub.publish import Plan, require_repo_id
from xray_hf.task import SPLITS
from xray_hf.text import counted

if TYPE_CHECKING:
    from datasets import Features

SEED = 0  # of both splits
SHARD_BYTES = 500_000_000  # of pictures in one file
ROWS = 100  # of a row group, which readers load as a whole
PAGE_BYTES = 2**30  # a page holds a whole row group, so that equal pictures compress to nothing
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))


def plan(data: XrayData, repo_id: str, folder: Path, *, with_all: bool = False) -> Plan:
    """The files of a data set's repository; its Parquet files are written below `folder`.

    Pictures are stored unchanged, to the byte. with_all: also those whose collection states no licence, for a
    repository that only their owner sees.
    Raises DataError if no picture may be shared or one can no longer be read, OutputError.
    """
    require_repo_id(repo_id)
    is_licensed = np.asarray([bool(sample.license) for sample in data.samples])
    may_go = is_licensed | with_all
    found = _splits_of(data)
    files: dict[str, Path | bytes] = {}
    for protocol, split in found.items():
        for name in SPLITS:
            rows = split.rows(name)
            if not may_go[rows].any():
                raise DataError(f"no picture of {protocol}/{name} has a licence that allows sharing it.")
            files |= _write(data, rows[may_go[rows]], folder, f"{protocol}/{name}")
    files[manifest.CARD] = _card(data, may_go, found, repo_id).encode()
    left = int((~may_go).sum())
    note = f"Left out, because their collection states no licence: {counted(left, 'image')}." if left else ""
    return Plan("dataset", "dataset", repo_id, files, note, is_restricted=not is_licensed[may_go].all())


def _splits_of(data: XrayData) -> dict[str, Split]:
    """{protocol: split}; load_dataset takes the first one by default."""
    found = {"grouped": split_data(data, "grouped", SEED)}
    with suppress(ConfigError):  # it fits CoronaHack's images and classes only
        found["paper"] = split_data(data, "paper", SEED)
    return found


def features(classes: Sequence[str]) -> Features:
    """The columns: those of a sample, and the group whose rows must stay in one split."""
    from datasets import Features, Value

    return Features({**columns_of_samples(classes), "group": Value("int64")})


def _write(data: XrayData, rows: np.ndarray, folder: Path, name: str) -> dict[str, Path | bytes]:
    """Write rows, sorted by file name, so that the copies of an upsampled one are neighbours."""
    from pyarrow import Table, parquet

    ordered = np.asarray(sorted(rows, key=lambda row: data.samples[row].file_name))
    shards, schema = _shards(data, ordered), features(data.classes).arrow_schema
    files: dict[str, Path | bytes] = {}
    for number, shard in enumerate(shards):
        path = f"{name}-{number:05}-of-{len(shards):05}.parquet"
        with atomic_file(folder / path) as temporary:
            options: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "use_dictionary": False}
            with parquet.ParquetWriter(temporary, schema, data_page_size=PAGE_BYTES, **options) as writer:
                for start in range(0, len(shard), ROWS):
                    group = [_row(data, row) for row in shard[start : start + ROWS]]
                    writer.write_table(Table.from_pylist(group, schema))
        files[path] = folder / path
    return files


def _shards(data: XrayData, rows: np.ndarray) -> list[np.ndarray]:
    """The rows in parts with about SHARD_BYTES of different pictures."""
    sizes = [
        0 if row == before else data.samples[row].path.stat().st_size
        for before, row in pairwise([-1, *rows.tolist()])
    ]
    numbers = np.cumsum(sizes) // SHARD_BYTES
    return [rows[numbers == number] for number in np.unique(numbers)]


def _row(data: XrayData, row: int) -> dict[str, Any]:
    """A row as stored; pyarrow leaves out entries that the schema lacks."""
    sample = data.samples[row]
    try:
        image = {"bytes": sample.path.read_bytes(), "path": sample.file_name}
    except OSError as error:
        raise DataError(
            f"{sample.path} cannot be read any more ({error.strerror}); check the disk, and push again."
        ) from error
    return {**asdict(sample), "image": image, "label": data.labels[row], "group": data.groups[row]}


def _card(data: XrayData, may_go: np.ndarray, found: dict[str, Split], repo_id: str) -> str:
    sources, labels = [_source(report.source, report.kind, data) for report in data.reports], data.labels
    leak = None
    if "paper" in found:
        leak = splits.describe(found["paper"], data.samples, data.classes, data.groups)["leak"]
    return cards.fill(
        "dataset.md",
        Path(repo_id),
        repo_id=repo_id,
        mark=mark_of(data.samples),
        is_synthetic=all(source["is_synthetic"] for source in sources),
        sources=sources,
        labels=data.classes,
        protocols=list(found),
        splits=SPLITS,
        seed=SEED,
        size=next((words for most, words in _SIZES if len(labels) < most), "100K<n<1M"),
        images=len(labels),
        shared=int(may_go.sum()),
        left_out=_counts(labels[~may_go], data.classes),
        licences=sorted(Counter(sample.license or "none stated" for sample in data.samples).items()),
        rows={
            protocol: {
                name: _counts(labels[split.rows(name)][may_go[split.rows(name)]], data.classes)
                for name in SPLITS
            }
            for protocol, split in found.items()
        },
        whole={
            protocol: {name: len(split.rows(name)) for name in SPLITS} for protocol, split in found.items()
        },
        leak=leak,
        patients=len({sample.patient_id for sample in data.samples}),
        groups=len(np.unique(data.groups)),
    )


def _source(name: str, kind: str, data: XrayData) -> dict[str, Any]:
    """A source's description, its number of images, and whether the atlas drew them."""
    own = [sample for sample in data.samples if sample.source == name]
    about = asdict(reader(kind).ABOUT)
    return {"name": name, "kind": kind, "images": len(own), "is_synthetic": is_synthetic(own), "about": about}


def _counts(labels: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """{class: how many}."""
    counts = np.bincount(labels, minlength=len(classes))
    return {label: int(count) for label, count in zip(classes, counts, strict=True)}
