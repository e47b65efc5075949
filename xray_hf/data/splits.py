"""Records and a seed -> train, validation and test: pure functions, nothing is copied or decoded.

Two protocols:
- `grouped`, the default: no patient and no near-duplicate in two splits.
- `paper`: İbişoğlu and Akçay 2021, to the count. It copies images before it splits validation off, so
  most validation images are also training images, and patients are shared with training. It is here to
  reproduce the paper and to measure the leak; do not select models with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from xray_hf.data.sample import Sample, labels_of
from xray_hf.errors import ConfigError, DataError
from xray_hf.evaluation.words import counted
from xray_hf.task import COVID19, FOLDS, LABELS, PROTOCOLS, SPLITS

COVID_TEST_SHARE = 0.25
VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class Split:
    """Row numbers of each split, ascending; a row that stands more than once was upsampled.

    fold: which of FOLDS disjoint parts is validation, with the same test in all; 0 under `paper`.
    """

    protocol: str
    seed: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    fold: int = 0

    def rows(self, name: str) -> np.ndarray:
        """Rows of "train", "validation" or "test": (n,) int64."""
        rows: np.ndarray = getattr(self, name)
        return rows


def make_split(
    protocol: str, records: Sequence[Sample], groups: np.ndarray, seed: int, fold: int = 0
) -> Split:
    """Split by protocol name; raises ConfigError for an unknown one, DataError if a split is empty."""
    if protocol == "grouped":
        split = grouped(records, groups, seed, fold)
    elif protocol == "paper" and fold:
        raise ConfigError("protocol paper has no folds; use --protocol grouped, or --fold 0.")
    elif protocol == "paper":
        split = paper(records, seed)
    else:
        raise ConfigError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}.")
    for name in SPLITS:
        if not len(split.rows(name)):
            raise DataError(_nothing_for(protocol, name, len(records)))
    return split


def paper(records: Sequence[Sample], seed: int) -> Split:
    """The paper's own steps (sections II.A.2 and III.A), decoded from its printed percentages.

    1. A quarter of the COVID-19 images goes from TRAIN to test. 2. Every class is upsampled to the
    largest: all its images, and copies drawn with replacement. 3. Then 15 % of the rows are split off
    for validation. Real set: 9,910 / 1,748 / 638 rows. Raises DataError if there is no TRAIN image.
    """
    rng = np.random.default_rng(seed)
    labels, official_test = _arrays(records)
    covid = np.flatnonzero((labels == COVID19) & ~official_test)
    moved = rng.choice(covid, int(COVID_TEST_SHARE * len(covid)), replace=False)
    test = np.concatenate([np.flatnonzero(official_test), moved])
    pool = np.setdiff1d(np.arange(len(labels)), test)
    if not len(pool):
        raise DataError(_nothing_for("paper", "train", len(labels)))

    classes = [pool[labels[pool] == label] for label in range(len(LABELS))]
    largest = max(map(len, classes))
    upsampled = np.concatenate(
        [np.concatenate([rows, rng.choice(rows, largest - len(rows))]) for rows in classes if len(rows)]
    )
    shuffled = rng.permutation(upsampled)
    cut = int(VALIDATION_SHARE * len(shuffled))
    return Split("paper", seed, np.sort(shuffled[cut:]), np.sort(shuffled[:cut]), np.sort(test))


def grouped(records: Sequence[Sample], groups: np.ndarray, seed: int, fold: int = 0) -> Split:
    """The honest protocol: groups (patients, joined by near-duplicates) are never divided.

    Test: every group with an official TEST image, and whole COVID-19 groups up to a quarter of the
    COVID-19 images. Validation: 15 % of the other groups, drawn within each class; another fold has another
    15 %, and the same test. Nothing is copied. Raises ConfigError for a fold outside 0..FOLDS-1, and for one
    that a small class does not reach.
    """
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"fold is {fold}; expected 0 to {FOLDS - 1}.")
    rng = np.random.default_rng(seed)
    labels, official_test = _arrays(records)
    test_groups = set(groups[official_test].tolist())
    wanted = int(COVID_TEST_SHARE * np.count_nonzero(labels == COVID19))
    sizes = Counter(groups[labels == COVID19].tolist())
    taken = sum(sizes[group] for group in test_groups)
    for group in rng.permutation(sorted(sizes)).tolist():
        if group not in test_groups and taken + sizes[group] <= wanted:
            test_groups.add(group)
            taken += sizes[group]

    # A mixed group counts as COVID-19 before Pneumonia before Normal: the few COVID-19 ones are spread.
    class_of_group = {int(g): int(labels[groups == g].max()) for g in np.unique(groups)}
    validation_groups: set[int] = set()
    for label in range(len(LABELS)):
        own = [g for g, c in class_of_group.items() if c == label and g not in test_groups]
        size = round(VALIDATION_SHARE * len(own))
        if own and fold * size >= len(own):
            raise ConfigError(
                f"fold {fold} has no {LABELS[label]}: there are {len(own)} groups of it; use a lower --fold."
            )
        validation_groups.update(rng.permutation(own).tolist()[fold * size : (fold + 1) * size])

    in_test = np.isin(groups, list(test_groups))
    in_validation = np.isin(groups, list(validation_groups))
    train, validation = np.flatnonzero(~in_test & ~in_validation), np.flatnonzero(in_validation)
    return Split("grouped", seed, train, validation, np.flatnonzero(in_test), fold)


def describe(split: Split, records: Sequence[Sample], groups: np.ndarray) -> dict[str, Any]:
    """Count rows, images, patients and classes of each split, and what any two splits share.

    `leak`: share of the validation rows whose very image, or whose patient or near-duplicate, is in train.
    """
    labels = np.asarray(labels_of(records))
    patients = np.asarray([record.patient_id for record in records])
    counts: dict[str, Any] = {}
    for name in SPLITS:
        rows = split.rows(name)
        per_class = {
            LABELS[k]: int(n) for k, n in enumerate(np.bincount(labels[rows], minlength=len(LABELS)))
        }
        counts[name] = {
            "rows": len(rows),
            "images": len(np.unique(rows)),
            "patients": len(np.unique(patients[rows])),
            **per_class,
        }
    overlap = {}
    for one, other in combinations(SPLITS, 2):
        a, b = split.rows(one), split.rows(other)
        overlap[f"{one}/{other}"] = {
            "images": len(np.intersect1d(a, b)),
            "patients": len(np.intersect1d(patients[a], patients[b])),
            "groups": len(np.intersect1d(groups[a], groups[b])),
        }
    leak = {
        "image": _share_in(split.validation, split.train, labels[split.validation]),
        "patient": _share_in(groups[split.validation], groups[split.train], labels[split.validation]),
    }
    return {
        "protocol": split.protocol,
        "seed": split.seed,
        "fold": split.fold,
        "splits": counts,
        "overlap": overlap,
        "leak": leak,
    }


def as_table(description: dict[str, Any]) -> str:
    """The description for a terminal."""
    columns = ["rows", "images", "patients", *LABELS]
    fold = f", fold {description['fold']}" if description["fold"] else ""
    lines = [f"protocol {description['protocol']}, seed {description['seed']}{fold}"]
    lines.append(f"{'':<18}" + "".join(f"{column:>11}" for column in columns))
    for name, counts in description["splits"].items():
        lines.append(f"{name:<18}" + "".join(f"{counts[column]:>11,}" for column in columns))
    lines.append(
        f"\n{'shared':<18}" + "".join(f"{column:>11}" for column in ("images", "patients", "groups"))
    )
    for pair, shared in description["overlap"].items():
        lines.append(f"{pair:<18}" + "".join(f"{number:>11,}" for number in shared.values()))
    lines.append("\nvalidation rows with the same image or patient in train")
    lines.append(f"{'':<18}" + "".join(f"{column:>11}" for column in (*LABELS, "all")))
    for what, shares in description["leak"].items():
        cells = ("-" if share is None else f"{share:.0%}" for share in shares.values())
        lines.append(f"{what:<18}" + "".join(f"{cell:>11}" for cell in cells))
    if description["protocol"] == "paper":
        lines.append("\nThis protocol leaks: validation accuracy under it says nothing about new patients.")
    return "\n".join(lines)


def require_disjoint(description: dict[str, Any]) -> None:
    """Raise DataError if a `grouped` split shares a patient, an image or a near-duplicate."""
    if description["protocol"] != "grouped":
        return
    for pair, shared in description["overlap"].items():
        if any(shared.values()):
            raise DataError(f"{pair} share {shared}, although the protocol is grouped; make the split anew.")


def as_dict(split: Split, records: Sequence[Sample], groups: np.ndarray) -> dict[str, Any]:
    """The content of splits.json: the counts of `describe` and, per split, {file name: copies}."""
    files = {
        name: {
            records[row].file_name: copies
            for row, copies in sorted(Counter(split.rows(name).tolist()).items())
        }
        for name in SPLITS
    }
    return {**describe(split, records, groups), "files": files}


def read(path: Path, records: Sequence[Sample]) -> Split:
    """Rebuild a split from splits.json, on any machine that has the same files.

    Raises DataError if the file is not a splits.json or names images that `records` lacks.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        files = {name: _copies(saved["files"][name], name) for name in SPLITS}
        protocol, seed, fold = str(saved["protocol"]), int(saved["seed"]), int(saved.get("fold", 0))
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol {protocol!r}")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; write one with `xray-hf splits --out`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no readable splits.json ({error!r}); write one with `xray-hf splits --out`."
        ) from error
    row_of = {record.file_name: row for row, record in enumerate(records)}
    missing = [file for names in files.values() for file in names if file not in row_of]
    if missing:
        raise DataError(
            f"{path} names {counted(len(missing), 'image')} that this data set lacks (first: {missing[0]}); "
            "use the data set that the split was made from."
        )
    rows = {
        name: np.sort(np.repeat([row_of[file] for file in names], list(names.values())).astype(np.int64))
        for name, names in files.items()
    }
    return Split(protocol, seed, fold=fold, **rows)


def _copies(names: Any, split: str) -> dict[str, int]:
    """Check the {file name: copies} of a split; raises ValueError."""
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{split} is no object of file names")
    wrong = [name for name, copies in names.items() if type(copies) is not int or copies < 1]
    if wrong:
        raise ValueError(f"{split} has {names[wrong[0]]!r} copies of {wrong[0]}")
    return names


def _nothing_for(protocol: str, name: str, images: int) -> str:
    return (
        f"protocol {protocol} leaves nothing for {name} out of {images} images; "
        "the data set is too small or lacks one of TRAIN and TEST."
    )


def _arrays(records: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels_of(records), np.int64)
    return labels, np.asarray([record.official_split == "TEST" for record in records], bool)


def _share_in(values: np.ndarray, pool: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    found = np.isin(values, pool)
    shares: dict[str, float | None] = {
        name: float(found[labels == k].mean()) if (labels == k).any() else None
        for k, name in enumerate(LABELS)
    }
    return {**shares, "all": float(found.mean())}
