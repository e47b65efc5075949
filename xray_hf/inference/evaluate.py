"""External validation: a bundle's engine on a source -> external/NAME.parquet; nothing is fitted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from xray_hf import manifest
from xray_hf.data.sample import Sample, labels_of
from xray_hf.errors import BundleError, ConfigError, DataError, ImageError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.inference.engine import Engine, Prediction
from xray_hf.task import EXTERNAL
from xray_hf.text import counted

_NAME = re.compile(r"\w[\w.-]*")
_EQUAL_LOGITS = 1e-3  # largest difference for the same pixels; other images rarely come so close
_SAME_LOGITS = 0.01  # largest difference for one image; rounding the weights moves logits by less


def evaluate(bundle: Path, samples: Sequence[Sample], name: str, *, drop_bad: bool = False) -> dict[str, str]:
    """Run the engine on every image and write external/NAME.parquet.

    The record names neither files nor patients; its rows are in the order of the samples, whose labels are
    classes of the bundle. It may replace a record of the same images, but not one of others.
    drop_bad: continue without undecodable files.
    Returns {file name: why it cannot be decoded} of the images left out.
    Raises ConfigError for a name that no file can have or a record of other images has, and for images that
    the bundle was fitted on; DataError for no image and, unless drop_bad, for an undecodable one,
    BundleError, OutputError; then nothing is written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the source's name is {name!r}; expected letters, digits, '_', '-' and '.', as in nih-adults."
        )
    own = Predictions.read(bundle / manifest.PREDICTIONS)
    fitted = own.take(np.isin(own.split, ("train", "validation")))
    _refuse_fitted_by_name(fitted, samples, name, bundle)
    engine = Engine.from_pretrained(bundle)
    why: dict[str, str] = {}
    seen: list[tuple[Sample, Prediction]] = []
    for sample, found in zip(samples, engine.stream([sample.path for sample in samples]), strict=True):
        if isinstance(found, ImageError):
            why[sample.file_name] = str(found)
        else:
            seen.append((sample, found))
    if why and not drop_bad:
        raise DataError(
            f"{len(why):,} of {counted(len(samples), 'image')} cannot be decoded (first: "
            f"{next(iter(why.values())).rstrip('.')}). Repair them, or pass --drop-bad to go on without them."
        )
    if not seen:
        raise DataError(f"{name} holds no usable image; expected at least one of a class of the bundle.")
    answered = [sample for sample, _ in seen]
    logits = np.stack([found.logits for _, found in seen])
    _refuse_fitted_by_answer(fitted, answered, logits, name, bundle)
    _, patients = np.unique([sample.patient_id for sample in answered], return_inverse=True)
    table = Predictions(
        classes=engine.labels,
        file_name=np.asarray([f"image-{number}" for number in range(1, len(seen) + 1)]),
        source=np.asarray(name),
        site=np.asarray([sample.site for sample in answered]),
        patient_id=np.asarray([f"patient-{number + 1}" for number in patients]),
        split=np.asarray(EXTERNAL),
        official_split=np.asarray([sample.official_split for sample in answered]),
        label=labels_of(answered, engine.labels),
        logits=logits,
        decision=np.asarray([found.decision for _, found in seen]),
        calibration=manifest.calibration_mark(bundle),
    )
    path = bundle / manifest.EXTERNAL / f"{name}.parquet"
    _require_same_images(path, table)
    table.write(path)
    return why


def _refuse_fitted_by_name(fitted: Predictions, samples: Sequence[Sample], name: str, bundle: Path) -> None:
    """Raise ConfigError for training and validation images, known by the names of their source and file."""
    own_names = set(fitted.file_name[fitted.source == name].tolist())
    if seen := {sample.file_name for sample in samples} & own_names:
        raise ConfigError(
            f"{len(seen):,} of {counted(len(samples), 'image')} of {name} are training or validation images "
            f"of {bundle} (first: {min(seen)}), so this is not external validation. If they are other images "
            "of the same names, give the source another name: --source KIND:NAME=PLACE."
        )


def _refuse_fitted_by_answer(
    fitted: Predictions, samples: Sequence[Sample], logits: np.ndarray, name: str, bundle: Path
) -> None:
    """Raise ConfigError if over a tenth of the images, under whatever names, are fitted ones.

    Such an image has the logits of a training or validation image: nearly, if their files have the same name,
    and exactly otherwise, since the logits of many images are nearly equal by chance.
    """
    answers: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for file_name, answer in zip(fitted.file_name, fitted.logits, strict=True):
        answers[Path(file_name).name].append(answer)
    away = np.asarray(KDTree(fitted.logits).query(logits, p=np.inf)[0])
    known = [
        sample.file_name
        for sample, own, apart in zip(samples, logits, away, strict=True)
        if apart < _EQUAL_LOGITS
        or any(np.allclose(own, each, atol=_SAME_LOGITS) for each in answers[Path(sample.file_name).name])
    ]
    if len(known) > len(samples) / 10:
        raise ConfigError(
            f"{len(known):,} of {counted(len(samples), 'image')} of {name} are training or validation images "
            f"of {bundle}, as the model's logits show (first: {known[0]}), so this is not external "
            "validation. Test on images that the model has not seen."
        )


def _require_same_images(path: Path, now: Predictions) -> None:
    """Raise ConfigError for a record of other images or of fewer patients; a damaged one may be replaced.

    A record does not name its images, but the network's answers identify them, even after its weights were
    rounded.
    """
    with suppress(BundleError):
        before = Predictions.read(path)
        if not (
            len(before) == len(now)
            and (before.label == now.label).all()
            and np.allclose(before.logits, now.logits, atol=_SAME_LOGITS)
        ):
            raise ConfigError(
                f"{path} has other images or labels: {counted(len(before), 'image')}, now {len(now):,}. "
                "Give the source another name, --source KIND:NAME=PLACE, or delete that file."
            )
        known, found = (len(np.unique(table.patient_id)) for table in (before, now))
        if found > known:  # else intervals would silently become too narrow
            raise ConfigError(
                f"{path} has {counted(known, 'patient')}, but the same images would now have {found:,}. "
                "Name the patients as before, by --patient or patient_id, or delete that file."
            )
