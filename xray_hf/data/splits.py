"""Samples and a seed -> train, validation, test and external: pure functions, nothing is copied or decoded.

Two protocols:
- `grouped`, the default: no patient and no near-duplicate in two splits, over all sources. A source that is
  held out is the external test set; images of other sources that share a patient or a picture with it are in
  no split.
- `paper`: İbişoğlu and Akçay 2021 on CoronaHack, with exactly their counts. It copies images before it splits
  off validation, so most validation images are also training images, and patients are in both. It is here
  to reproduce the paper and to measure the leak; do not select models with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from xray_hf.data.sample import Sample, labels_of
from xray_hf.errors import ConfigError, DataError, first_line
from xray_hf.task import COVID19, EXTERNAL, FOLDS, PAPER_CLASSES, PROTOCOLS, SPLITS
from xray_hf.text import counted, listed

TEST_SHARE = 0.25  # of the images of a class for which its source has no official test image
VALIDATION_SHARE = 0.15
_FIELDS = {"protocol": str, "seed": int, "fold": int, "hold_out": list, "files": dict}  # of splits.json


@dataclass(frozen=True)
class Split:
    """Row numbers of each split, ascending; a row that appears more than once was upsampled.

    fold: which of FOLDS disjoint parts is validation, with the same test in all; 0 under `paper`.
    external: the rows of the sources `hold_out`.
    """

    protocol: str
    seed: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fold: int = 0
    external: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    hold_out: tuple[str, ...] = ()

    def rows(self, name: str) -> np.ndarray:
        """Rows of "train", "validation", "test" or "external": (n,) int64."""
        rows: np.ndarray = getattr(self, name)
        return rows

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that it has; "external" only where a source was held out."""
        return (*SPLITS, EXTERNAL) if self.hold_out else SPLITS


def paper(samples: Sequence[Sample], classes: Sequence[str], seed: int) -> Split:
    """The paper's own steps (sections II.A.2 and III.A), decoded from its printed percentages.

    1. A quarter of the COVID-19 images goes from TRAIN to test. 2. Every class is upsampled to the
    largest: all its images, and copies drawn with replacement. 3. Then 15 % of the rows are split off
    for validation. Real set: 9,910 / 1,748 / 638 rows.
    Raises ConfigError for other sources or classes than CoronaHack's, DataError if there is no TRAIN image.
    """
    sources = sorted({sample.source for sample in samples})
    has_parts = all(sample.official_split for sample in samples)
    if len(sources) > 1 or tuple(classes) != PAPER_CLASSES or not has_parts:
        raise ConfigError(
            f"protocol paper is CoronaHack's, with its classes {', '.join(PAPER_CLASSES)}; "
            f"got {', '.join(sources)} with {', '.join(classes)}. Use --protocol grouped."
        )
    rng = np.random.default_rng(seed)
    labels, official_test = labels_of(samples, classes), _official_test(samples)
    covid = np.flatnonzero((labels == COVID19) & ~official_test)
    moved = rng.choice(covid, int(TEST_SHARE * len(covid)), replace=False)
    test = np.concatenate([np.flatnonzero(official_test), moved])
    pool = np.setdiff1d(np.arange(len(labels)), test)
    if not len(pool):
        raise DataError(_nothing_for("paper", "train", len(labels)))

    of_classes = [pool[labels[pool] == label] for label in range(len(classes))]
    largest = max(map(len, of_classes))
    upsampled = np.concatenate(
        [np.concatenate([rows, rng.choice(rows, largest - len(rows))]) for rows in of_classes if len(rows)]
    )
    shuffled = rng.permutation(upsampled)
    cut = int(VALIDATION_SHARE * len(shuffled))
    return Split("paper", seed, np.sort(shuffled[cut:]), np.sort(shuffled[:cut]), np.sort(test))


def grouped(
    samples: Sequence[Sample],
    classes: Sequence[str],
    groups: np.ndarray,
    seed: int,
    *,
    fold: int = 0,
    hold_out: Sequence[str] = (),
) -> Split:
    """The patient-level protocol: groups (patients, joined by near-duplicates) are never divided.

    External: all images of the sources `hold_out`. Test: every group with an official TEST image; for a
    class without such an image in its source, whole groups up to a quarter of its images. Validation: 15 %
    of the other groups, drawn within each class of each source; each fold takes different ones, and test is
    the same in all. Nothing is copied. Groups that reach into a held-out source are in no split.
    Raises ConfigError for a fold outside 0..FOLDS-1, and for one for which a class has too few groups.
    """
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"fold is {fold}; expected 0 to {FOLDS - 1}.")
    sources = list(dict.fromkeys(sample.source for sample in samples))
    rng = np.random.default_rng(seed)
    labels, official_test = labels_of(samples, classes), _official_test(samples)
    is_external = np.isin([sample.source for sample in samples], list(hold_out))
    usable = ~np.isin(groups, groups[is_external])
    strata = np.asarray([sources.index(sample.source) for sample in samples]) * len(classes) + labels

    test_groups = set(groups[official_test & usable].tolist())
    for stratum in np.unique(strata[usable]).tolist():
        rows = usable & (strata == stratum)
        if official_test[rows].any():
            continue
        sizes = Counter(groups[rows].tolist())
        wanted = int(TEST_SHARE * np.count_nonzero(rows))
        taken = sum(sizes[group] for group in test_groups)
        for group in rng.permutation(sorted(sizes)).tolist():
            if group not in test_groups and taken + sizes[group] <= wanted:
                test_groups.add(group)
                taken += sizes[group]

    validation_groups: set[int] = set()
    stratum_of_group = _rarest(groups[usable], strata[usable])
    for stratum in np.unique(strata[usable]).tolist():
        own = [g for g, rarest in stratum_of_group.items() if rarest == stratum and g not in test_groups]
        size = round(VALIDATION_SHARE * len(own))
        if own and fold * size >= len(own):
            source, name = sources[stratum // len(classes)], classes[stratum % len(classes)]
            of = f" of {source}" if len(sources) > 1 else ""
            raise ConfigError(
                f"fold {fold} has no {name}{of}: there are {len(own)} groups of it; use a lower --fold."
            )
        validation_groups.update(rng.permutation(own).tolist()[fold * size : (fold + 1) * size])

    in_test = usable & np.isin(groups, list(test_groups))
    in_validation = usable & np.isin(groups, list(validation_groups))
    return Split(
        "grouped",
        seed,
        train=np.flatnonzero(usable & ~in_test & ~in_validation),
        validation=np.flatnonzero(in_validation),
        test=np.flatnonzero(in_test),
        fold=fold,
        external=np.flatnonzero(is_external),
        hold_out=tuple(hold_out),
    )


def describe(
    split: Split, samples: Sequence[Sample], classes: Sequence[str], groups: np.ndarray
) -> dict[str, Any]:
    """Count rows, images, patients, classes and sources of each split, and what any two splits share.

    `leak`: share of the validation rows whose very image, or whose patient or near-duplicate, is in train.
    `left_out`: images in no split, because they share a patient or a picture with a held-out source.
    """
    labels, names = labels_of(samples, classes), split.names
    patients = np.asarray([sample.patient_id for sample in samples])
    sources = np.asarray([sample.source for sample in samples])
    counts: dict[str, Any] = {}
    for name in names:
        rows = split.rows(name)
        per_class = np.bincount(labels[rows], minlength=len(classes)).tolist()
        counts[name] = {
            "rows": len(rows),
            "images": len(np.unique(rows)),
            "patients": len(np.unique(patients[rows])),
            "sources": dict(Counter(sources[rows].tolist()).most_common()),
            **dict(zip(classes, per_class, strict=True)),
        }
    overlap = {}
    for one, other in combinations(names, 2):
        a, b = split.rows(one), split.rows(other)
        overlap[f"{one}/{other}"] = {
            "images": len(np.intersect1d(a, b)),
            "patients": len(np.intersect1d(patients[a], patients[b])),
            "groups": len(np.intersect1d(groups[a], groups[b])),
        }
    used = np.unique(np.concatenate([split.rows(name) for name in names]))
    in_validation = labels[split.validation]
    leak = {
        "image": _share_in(split.validation, split.train, in_validation, classes),
        "patient": _share_in(groups[split.validation], groups[split.train], in_validation, classes),
    }
    return {
        "protocol": split.protocol,
        "seed": split.seed,
        "fold": split.fold,
        "hold_out": list(split.hold_out),
        "classes": list(classes),
        "splits": counts,
        "left_out": len(samples) - len(used),
        "overlap": overlap,
        "leak": leak,
    }


def as_table(description: dict[str, Any]) -> str:
    """The description for a terminal."""
    classes = description["classes"]
    columns = ["rows", "images", "patients", *classes]
    width = max(11, *(len(name) + 2 for name in classes))
    fold = f", fold {description['fold']}" if description["fold"] else ""
    lines = [f"protocol {description['protocol']}, seed {description['seed']}{fold}"]
    lines.append(f"{'':<18}" + "".join(f"{column:>{width}}" for column in columns))
    for name, counts in description["splits"].items():
        lines.append(f"{name:<18}" + "".join(f"{counts[column]:>{width},}" for column in columns))
    lines.append(
        f"\n{'shared':<18}" + "".join(f"{column:>{width}}" for column in ("images", "patients", "groups"))
    )
    for pair, shared in description["overlap"].items():
        lines.append(f"{pair:<18}" + "".join(f"{number:>{width},}" for number in shared.values()))
    lines.append("\nvalidation rows with the same image or patient in train")
    lines.append(f"{'':<18}" + "".join(f"{column:>{width}}" for column in (*classes, "all")))
    for what, shares in description["leak"].items():
        cells = ("-" if share is None else f"{share:.0%}" for share in shares.values())
        lines.append(f"{what:<18}" + "".join(f"{cell:>{width}}" for cell in cells))
    if len({source for counts in description["splits"].values() for source in counts["sources"]}) > 1:
        lines.append("\nsources")
        for name, counts in description["splits"].items():
            own = ", ".join(f"{source} {images:,}" for source, images in counts["sources"].items())
            lines.append(f"{name:<18} {own}")
    if description["left_out"]:
        held_out = "they share a patient or a picture with a held-out source"
        why = held_out if description["hold_out"] else "the splits file leaves them out"
        lines.append(f"\n{counted(description['left_out'], 'image')} in no split: {why}.")
    if description["protocol"] == "paper":
        lines.append("\nThis protocol leaks: validation accuracy under it says nothing about new patients.")
    return "\n".join(lines)


def require_usable(split: Split, classes: Sequence[str], labels: np.ndarray) -> None:
    """Raise DataError if a split is empty or training has no image of a class. labels: (N,) int64."""
    for name in split.names:
        if not len(split.rows(name)):
            raise DataError(_nothing_for(split.protocol, name, len(labels)))
    if len(missing := np.setdiff1d(np.arange(len(classes)), labels[split.train])):
        raise DataError(
            f"protocol {split.protocol} leaves no image of {', '.join(classes[k] for k in missing)} for "
            "training; hold out another source, or add images of that class."
        )


def require_disjoint(description: dict[str, Any]) -> None:
    """Raise DataError if a `grouped` split shares a patient, an image or a near-duplicate."""
    for pair, shared in description["overlap"].items():
        if description["protocol"] == "grouped" and any(shared.values()):
            what = listed(counted(n, name.removesuffix("s")) for name, n in shared.items() if n)
            raise DataError(
                f"{pair.replace('/', ' and ')} have {what} in common, although the protocol is grouped; "
                "split again."
            )


def as_dict(
    split: Split, samples: Sequence[Sample], classes: Sequence[str], groups: np.ndarray
) -> dict[str, Any]:
    """The content of splits.json: the counts of `describe`, and {split: {source: {file name: copies}}}."""
    files: dict[str, dict[str, dict[str, int]]] = {}
    for name in split.names:
        of_sources: dict[str, dict[str, int]] = {}
        for row, copies in sorted(Counter(split.rows(name).tolist()).items()):
            of_sources.setdefault(samples[row].source, {})[samples[row].file_name] = copies
        files[name] = of_sources
    return {**describe(split, samples, classes, groups), "files": files}


def read(path: Path, samples: Sequence[Sample]) -> Split:
    """Rebuild a split from splits.json, on any machine that has the same files.

    Raises DataError if the file is not a splits.json or names images that `samples` lack.
    """
    sources = {sample.source for sample in samples}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError("it is not a JSON object")
        saved = {"fold": 0, "hold_out": [], **saved}  # older files have neither
        for key, kind in _FIELDS.items():
            if not isinstance(saved[key], kind):
                raise ValueError(f"{key} is a {type(saved[key]).__name__}, expected {kind.__name__}")
        if saved["protocol"] not in PROTOCOLS:
            raise ValueError(f"protocol is {saved['protocol']!r}")
        names = (*SPLITS, EXTERNAL) if saved["hold_out"] else SPLITS
        files = {name: _copies(saved["files"][name], name, sources) for name in names}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; write one with `xray-hf splits --out`.") from error
    except (OSError, ValueError, KeyError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise DataError(
            f"{path} is not a valid splits.json: {reason}; write one with `xray-hf splits --out`."
        ) from error
    row_of = {(sample.source, sample.file_name): row for row, sample in enumerate(samples)}
    missing = [
        f"{source}/{name}" for own in files.values() for source, name in own if (source, name) not in row_of
    ]
    if missing:
        raise DataError(
            f"{path} names {counted(len(missing), 'image')} that the sources of this run lack "
            f"(first: {missing[0]}); name the sources that the split was made from."
        )
    rows = {
        name: np.sort(np.repeat([row_of[file] for file in own], list(own.values())).astype(np.int64))
        for name, own in files.items()
    }
    return Split(
        saved["protocol"], saved["seed"], fold=saved["fold"], hold_out=tuple(saved["hold_out"]), **rows
    )


def _copies(files: Any, split: str, sources: set[str]) -> dict[tuple[str, str], int]:
    """Check the {source: {file name: copies}} of a split; raises ValueError.

    Before version 0.3 this was {file name: copies}, which now belong to the run's only source.
    """
    if isinstance(files, dict) and files and not any(isinstance(own, dict) for own in files.values()):
        if len(sources) > 1:
            raise ValueError("it names no sources, and this run has several")
        files = dict.fromkeys(sources, files)
    if not isinstance(files, dict) or not all(isinstance(own, dict) and own for own in files.values()):
        raise ValueError(f"{split} is not an object of sources and file names")
    named = {(source, name): copies for source, own in files.items() for name, copies in own.items()}
    if not named:
        raise ValueError(f"{split} names no image")
    wrong = [file for file, copies in named.items() if type(copies) is not int or copies < 1]
    if wrong:
        count = named[wrong[0]]
        raise ValueError(
            f"{split} has {count!r} as the number of copies of {wrong[0][1]}, expected 1 or more"
        )
    return named


def _nothing_for(protocol: str, name: str, images: int) -> str:
    return (
        f"protocol {protocol} leaves nothing for {name} out of {images} images; "
        "the data set is too small or lacks one of TRAIN and TEST."
    )


def _official_test(samples: Sequence[Sample]) -> np.ndarray:
    return np.asarray([sample.official_split == "TEST" for sample in samples], bool)


def _rarest(groups: np.ndarray, strata: np.ndarray) -> dict[int, int]:
    """{group: the rarest stratum among its rows}, by group: a mixed group counts where it is needed most."""
    counts = Counter(strata.tolist())
    rarest: dict[int, int] = {}
    for group, stratum in sorted(zip(groups.tolist(), strata.tolist(), strict=True)):
        rarest[group] = min(rarest.get(group, stratum), stratum, key=lambda each: (counts[each], each))
    return rarest


def _share_in(
    values: np.ndarray, pool: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> dict[str, float | None]:
    found = np.isin(values, pool)
    shares: dict[str, float | None] = {
        name: float(found[labels == k].mean()) if (labels == k).any() else None
        for k, name in enumerate(classes)
    }
    return {**shares, "all": float(found.mean())}
