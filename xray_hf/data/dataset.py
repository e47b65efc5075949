"""A data set on disk, opened: records, pixels and groups aligned row by row; and its `datasets` form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xray_hf.data import cache, groups, splits
from xray_hf.data.cache import PixelCache
from xray_hf.data.sample import Report, Sample, labels_of
from xray_hf.data.sources import coronahack
from xray_hf.data.splits import Split
from xray_hf.errors import DataError
from xray_hf.task import LABELS, SPLITS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features


@dataclass(frozen=True)
class XrayData:
    """Everything that training, examination and splitting need; row i is the same image everywhere.

    groups: (N,) int64, rows with equal numbers must stay in one split.
    """

    samples: list[Sample]
    pixels: PixelCache
    groups: np.ndarray
    report: Report

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return LABELS

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, indexes into classes."""
        return np.asarray(labels_of(self.samples), np.int64)

    @property
    def near_duplicates(self) -> list[tuple[int, int]]:
        """Pairs of rows that show the same picture."""
        return self.pixels.near_duplicates


def open_coronahack(
    data_dir: Path,
    side: int,
    *,
    covid_metadata: Path | None = None,
    drop_bad: bool = False,
    cache_dir: Path | None = None,
) -> XrayData:
    """Read CoronaHack, decode what is not in the cache yet, find the groups.

    side: height and width of the pixels. drop_bad: go on without rows that have no file, no known label or
    an undecodable file; otherwise they are an error. Raises DataError, OutputError.
    """
    records, report = coronahack.read(data_dir, covid_metadata)
    if not drop_bad:
        report.require_clean(drop_bad=False)  # before minutes are spent on decoding
    decoded = cache.prepare(records, side, cache_dir)
    report.add_undecodable(decoded.undecodable)
    report.require_clean(drop_bad)
    kept = [record for record in records if record.file_name not in decoded.undecodable]
    if not kept:
        raise DataError(f"{data_dir} holds no usable image. {coronahack.HOW_TO_GET}")
    of_patients = groups.patient_groups([record.patient_id for record in kept], decoded.near_duplicates)
    return XrayData(kept, decoded, of_patients, report)


def split_data(
    data: XrayData, protocol: str, seed: int, splits_file: Path | None = None, *, fold: int = 0
) -> Split:
    """Split by protocol, seed and fold, or as `splits_file` says; checks that `grouped` shares nothing."""
    if splits_file:
        split = splits.read(splits_file, data.samples)
    else:
        split = splits.make_split(protocol, data.samples, data.groups, seed, fold)
    splits.require_disjoint(splits.describe(split, data.samples, data.groups))
    return split


def to_dataset(records: Sequence[Sample]) -> Dataset:
    """All records as one `datasets.Dataset`; images stay in their files until they are asked for."""
    from datasets import Dataset

    features = columns_of_records()
    columns = {name: [getattr(record, name) for record in records] for name in features if name != "image"}
    columns["image"] = [str(record.path) for record in records]
    return Dataset.from_dict(columns, features=features)


def columns_of_records() -> Features:
    """The columns of a data set: the image, and what Sample says of it."""
    from datasets import ClassLabel, Features, Image, Value

    text = Value("string")
    return Features(
        image=Image(),
        label=ClassLabel(names=list(LABELS)),
        file_name=text,
        patient_id=text,
        virus_category=text,
        pathogen=text,
        source=text,
        license=text,
    )


def to_dataset_dict(records: Sequence[Sample], split: Split) -> DatasetDict:
    """The splits as a `datasets.DatasetDict`; upsampled rows are indices, not copies."""
    from datasets import DatasetDict

    dataset = to_dataset(records)
    return DatasetDict({name: dataset.select(split.rows(name)) for name in SPLITS})
