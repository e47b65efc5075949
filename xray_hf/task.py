"""The task: class names in the order of the logits, splits and protocols, answers without a class.

The paper's three classes are the default of the `paper` protocol and of synthetic patients. Everything else
takes its classes from the run, the table of predictions or the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence

from xray_hf.errors import ConfigError

PAPER_CLASSES = ("Normal", "Pneumonia", "COVID-19")
NORMAL, PNEUMONIA, COVID19 = range(3)

SPLITS = ("train", "validation", "test")  # ours
EXTERNAL = "external"  # the split of a source that was held out
OFFICIAL_SPLITS = ("TRAIN", "TEST")  # a collection's own
PROTOCOLS = ("grouped", "paper")  # how to split
FOLDS = 6  # disjoint validation parts of 15 %

# The engine's answers in place of a class.
UNSURE, REJECTED = "unsure", "rejected"

SYNTHETIC_MARK = "SYNTHETIC patients: "  # in front of every title and table made from the atlas
PARTLY_MARK = "PARTLY SYNTHETIC patients: "  # likewise, where there are real ones as well


def check_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Strip and check class names: two or more, all different.

    Raises ConfigError for others, and for a name that is blank, has a comma or is UNSURE or REJECTED.
    """
    classes = tuple(name.strip() for name in names)
    if len(classes) < 2:
        raise ConfigError(
            f"there is one class only ({', '.join(classes) or 'none'}); expected two or more, "
            'as in --classes "Normal,Tuberculosis".'
        )
    if len(set(classes)) < len(classes) or not all(classes):
        raise ConfigError(f"the classes are {list(classes)}; expected different names, none of them empty.")
    if taken := [name for name in classes if name in (UNSURE, REJECTED)]:
        raise ConfigError(
            f"the class {taken[0]!r} has the name of an answer without a class; rename it, as in "
            f'--map "NAME:{taken[0]}=CLASS".'
        )
    if comma := [name for name in classes if "," in name]:
        raise ConfigError(
            f"the class {comma[0]!r} has a comma, which separates classes; rename it, as in "
            f'--map "NAME:{comma[0]}=CLASS".'
        )
    return classes
