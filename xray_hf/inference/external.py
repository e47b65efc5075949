"""A bundle's engine on another collection's images -> a record in the bundle; nothing is fitted or chosen."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from xray_hf import manifest
from xray_hf.data.sample import Report, Sample, labels_of
from xray_hf.data.sources import folder as image_folder
from xray_hf.errors import BundleError, ConfigError, DataError, ImageError
from xray_hf.evaluation import predictions
from xray_hf.evaluation.external import External
from xray_hf.evaluation.predictions import Predictions
from xray_hf.inference.engine import Engine, Prediction
from xray_hf.text import counted

_NAME = re.compile(r"\w[\w.-]*")
_SAME_LOGITS = 0.01  # how far those of one image may be apart: weights rounded since move them by less


def evaluate(
    bundle: Path, data_dir: Path, name: str, *, patient: str | None = None, drop_bad: bool = False
) -> Report:
    """Let the engine see every image of a folder and write external/NAME.parquet; return what was read.

    The record names neither files nor patients; its rows are in the order of the CSV.

    data_dir, patient: as data.folder reads them. name: of the record, which may renew one of the same images,
    but replaces none of others. drop_bad: go on without rows that have no file, no known label or an
    undecodable file; otherwise they are an error.
    Raises ConfigError for a name that no file can have or a record of other images has and for a wrong
    `patient`, BundleError, DataError, OutputError; then nothing is written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name is {name!r}; expected letters, digits, '_', '-' and '.', as in nih-adults."
        )
    Predictions.read(bundle / manifest.PREDICTIONS)  # which the views need too: found missing now, not then
    engine = Engine.from_pretrained(bundle)
    records, report = image_folder.read(data_dir, patient)
    if not drop_bad:
        report.require_clean(drop_bad=False)  # before minutes are spent on decoding
    why: dict[str, str] = {}
    seen: list[tuple[Sample, Prediction]] = []
    for record, found in zip(records, engine.stream([record.path for record in records]), strict=True):
        if isinstance(found, ImageError):
            why[record.file_name] = str(found)
        else:
            seen.append((record, found))
    report.add_undecodable(why)
    report.require_clean(drop_bad)
    if not seen:
        raise DataError(f"{data_dir} holds no usable image. {image_folder.HOW_TO_MAKE}")
    path = bundle / manifest.EXTERNAL / f"{name}.parquet"
    made = _record_of(seen, manifest.calibration_mark(bundle))
    _require_same_images(path, made.predictions)
    made.write(path)
    return report


def _require_same_images(path: Path, now: Predictions) -> None:
    """Raise ConfigError if a record of other images, or that knows fewer patients, is there.

    One that is damaged may be replaced.

    The record does not name its images. The network knows them again, even if it was rounded since.
    """
    with suppress(BundleError):
        before = External.read(path).predictions
        if not (
            len(before) == len(now)
            and (before.label == now.label).all()
            and np.allclose(before.logits, now.logits, atol=_SAME_LOGITS)
        ):
            raise ConfigError(
                f"{path} is of other images or labels: {counted(len(before), 'image')}, now {len(now):,}. "
                "Give these another --name, or delete that file."
            )
        known, found = (len(np.unique(table.patient_id)) for table in (before, now))
        if found > known:  # else intervals would become too narrow in silence
            raise ConfigError(
                f"{path} is of {counted(known, 'patient')}, now its images would be of {found:,}. "
                "Say who they are as before, by --patient or patient_id, or delete that file."
            )


def _record_of(seen: list[tuple[Sample, Prediction]], mark: str) -> External:
    records = [record for record, _ in seen]
    _, patients = np.unique([record.patient_id for record in records], return_inverse=True)
    table = Predictions(
        file_name=np.asarray([f"image-{number}" for number in range(1, len(records) + 1)]),
        patient_id=np.asarray([f"patient-{number + 1}" for number in patients]),
        split=np.full(len(records), predictions.EXTERNAL),
        official_split=np.asarray([record.official_split for record in records]),
        label=np.asarray(labels_of(records), np.int64),
        logits=np.stack([found.logits for _, found in seen]),
    )
    return External(table, np.asarray([found.decision for _, found in seen]), mark)
