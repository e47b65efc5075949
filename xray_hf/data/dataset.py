"""The sources of a run, opened: samples, labels, pixels, groups, row by row; and their `datasets` form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xray_hf.data import cache, groups, splits
from xray_hf.data.cache import PixelSource
from xray_hf.data.sample import UNKNOWN_PATIENT, Sample, SourceReport, labels_of
from xray_hf.data.sources import ReadOptions, SourceSpec, check_hold_out, classify, parse_maps, reader
from xray_hf.data.splits import Split
from xray_hf.errors import ConfigError, DataError
from xray_hf.task import PROTOCOLS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features


@dataclass(frozen=True)
class XrayData:
    """Everything that training, examination and splitting need; row i is the same image everywhere.

    samples: all have a label of `classes`. labels: (N,) int64, indexes into `classes`.
    groups: (N,) int64, rows with equal numbers must stay in one split.
    near_duplicates: pairs of rows that show the same picture. reports: one a source.
    """

    samples: list[Sample]
    classes: tuple[str, ...]
    labels: np.ndarray
    pixels: PixelSource
    side: int
    groups: np.ndarray
    near_duplicates: list[tuple[int, int]]
    reports: list[SourceReport]

    @property
    def reading(self) -> str:
        """The reports of all sources, for a terminal."""
        return "\n\n".join(report.as_table() for report in self.reports)


def open_data(
    specs: Sequence[SourceSpec],
    side: int,
    *,
    classes: Sequence[str] | None = None,
    label_map: Sequence[str] = (),
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
    drop_bad: bool = False,
) -> XrayData:
    """`read_samples`, then `open_pixels`."""
    read = read_samples(specs, classes=classes, label_map=label_map, options=options)
    return open_pixels(*read, side, drop_bad=drop_bad, cache_dir=options.cache_dir)


def open_pixels(
    samples: Sequence[Sample],
    classes: tuple[str, ...],
    reports: list[SourceReport],
    side: int,
    *,
    drop_bad: bool = False,
    cache_dir: Path | None = None,
) -> XrayData:
    """Decode what is not in the sources' caches yet, and find the groups.

    samples, classes, reports: as `read_samples` gives them. side: height and width of the pixels.
    drop_bad: continue without rows whose file is missing or undecodable; otherwise they are an error.
    Raises ConfigError for a class that no image has, DataError, OutputError.
    """
    for report in reports if not drop_bad else ():
        report.require_clean(drop_bad=False)  # before minutes are spent on decoding
    kept: list[Sample] = []
    caches = []
    for report in reports:
        own = [sample for sample in samples if sample.source == report.source]
        if not own:
            raise DataError(
                f"no image of the source {report.source} ({report.root}) has a class of this task "
                f"({', '.join(classes)}); map its findings with --map, or leave the source out."
            )
        decoded = cache.prepare(own, side, cache_dir)
        report.add_undecodable(decoded.undecodable)
        report.require_clean(drop_bad)
        kept += [sample for sample in own if sample.file_name not in decoded.undecodable]
        caches.append(decoded)
    labels = labels_of(kept, classes)
    if len(missing := np.setdiff1d(np.arange(len(classes)), labels)):
        found = [classes[k] for k in np.unique(labels)]
        found += sorted({finding for report in reports for finding in report.without_class} - {*found})
        raise ConfigError(
            f"no image has the class {', '.join(classes[k] for k in missing)}; "
            f"the sources have {', '.join(found)}. "
            'Change --classes, or map a finding with --map "NAME:FINDING=CLASS".'
        )
    thumbnails = np.concatenate([each.thumbnails for each in caches])
    pairs = cache.find_duplicates(thumbnails, cache_dir)
    return XrayData(
        samples=kept,
        classes=classes,
        labels=labels,
        pixels=cache.Joined(caches),
        side=side,
        groups=groups.patient_groups([sample.patient_id for sample in kept], pairs),
        near_duplicates=pairs,
        reports=reports,
    )


def read_samples(
    specs: Sequence[SourceSpec],
    *,
    classes: Sequence[str] | None = None,
    label_map: Sequence[str] = (),
    options: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
) -> tuple[list[Sample], tuple[str, ...], list[SourceReport]]:
    """Read the sources and give every image its class; no image is decoded.

    classes: of the task; None for those that the sources have. label_map: "NAME:FINDING=CLASS" each.
    Returns the samples that have a class, the classes, and a report of each source with what was left out.
    Raises ConfigError for no source, a map that fits none and for fewer than two classes; DataError, also for
    a file that two sources have.
    """
    if not specs:
        raise ConfigError("no source is named; pass --source KIND[:NAME]=PLACE.")
    mapped = parse_maps(label_map, specs)
    read = [reader(spec.kind).read(spec.place, spec.name, options) for spec in specs]
    if classes is None and not any(own for own, _ in read):  # else the error would be about missing classes
        for _, report in read:
            report.require_clean(drop_bad=False)
    everything, names = classify([sample for own, _ in read for sample in own], specs, classes, mapped)
    reports = [report for _, report in read]
    for spec, report in zip(specs, reports, strict=True):
        report.kind = spec.kind
        report.count_without_class(
            sample for sample in everything if sample.label is None and sample.source == report.source
        )
    found = [sample for sample in everything if sample.label is not None]
    _require_one_source(found)
    return (_with_own_patients(found) if len(specs) > 1 else found), names, reports


def _require_one_source(samples: Sequence[Sample]) -> None:
    """Raise DataError for a file that is in two sources."""
    source_of: dict[Path, str] = {}
    for sample in samples:
        path = sample.path.resolve()
        if source_of.setdefault(path, sample.source) != sample.source:
            raise DataError(
                f"{path} is in the sources {source_of[path]} and {sample.source}; leave one of them out, "
                "or move the images that both have."
            )


def _with_own_patients(samples: Sequence[Sample]) -> list[Sample]:
    """Prefix patient ids that mean nothing outside their source, digits only or unknown, with its name.

    Any other id that occurs in two sources is taken for the same patient.
    """
    return [
        replace(sample, patient_id=f"{sample.source}/{sample.patient_id}")
        if sample.patient_id.isdigit() or sample.patient_id.startswith(UNKNOWN_PATIENT)
        else sample
        for sample in samples
    ]


def split_data(
    data: XrayData,
    protocol: str,
    seed: int,
    splits_file: Path | None = None,
    *,
    fold: int = 0,
    hold_out: Sequence[str] = (),
) -> Split:
    """Split by protocol, seed and fold, or as `splits_file` says.

    Raises ConfigError for an unknown protocol or source, for a choice that the protocol lacks, and for
    sources to hold out that the file does not hold out. Raises DataError if a split is empty, if training has
    no image of a class, or if a `grouped` split shares anything.
    """
    if splits_file:
        split = splits.read(splits_file, data.samples)
        if hold_out and set(hold_out) != set(split.hold_out):
            raise ConfigError(
                f"--hold-out {', '.join(hold_out)} is not what {splits_file} holds out, "
                f"{', '.join(split.hold_out) or 'no source'}; pass one of --hold-out and --splits."
            )
    elif protocol == "grouped":
        check_hold_out(hold_out, [report.source for report in data.reports])
        split = splits.grouped(data.samples, data.classes, data.groups, seed, fold=fold, hold_out=hold_out)
    elif protocol == "paper" and (fold or hold_out):
        raise ConfigError("protocol paper has no folds and holds out no source; use --protocol grouped.")
    elif protocol == "paper":
        split = splits.paper(data.samples, data.classes, seed)
    else:
        raise ConfigError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}.")
    splits.require_usable(split, data.classes, data.labels)
    splits.require_disjoint(splits.describe(split, data.samples, data.classes, data.groups))
    return split


def to_dataset(samples: Sequence[Sample], classes: Sequence[str]) -> Dataset:
    """All samples as one `datasets.Dataset`; images stay in their files until they are asked for."""
    from datasets import Dataset

    features = columns_of_samples(classes)
    columns = {name: [getattr(sample, name) for sample in samples] for name in features if name != "image"}
    columns["image"] = [str(sample.path) for sample in samples]
    return Dataset.from_dict(columns, features=features)


def columns_of_samples(classes: Sequence[str]) -> Features:
    """The columns of a data set: the image, and what Sample says of it."""
    from datasets import ClassLabel, Features, Image, Value

    text = Value("string")
    names = ("file_name", "source", "site", "patient_id", "view", "pathogen", "virus_category", "license")
    return Features(image=Image(), label=ClassLabel(names=list(classes)), **dict.fromkeys(names, text))


def to_dataset_dict(data: XrayData, split: Split) -> DatasetDict:
    """The splits as a `datasets.DatasetDict`; upsampled rows are indices, not copies."""
    from datasets import DatasetDict

    dataset = to_dataset(data.samples, data.classes)
    return DatasetDict({name: dataset.select(split.rows(name)) for name in split.names})
