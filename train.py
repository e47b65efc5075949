"""Train a chest X-ray classifier: configuration -> data -> model -> fit -> predictions -> bundle.

python train.py --preset paper --data-dir DATA --out runs/xray-resnet18
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train.py --data-dir DATA
python train.py --help
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers.utils import logging

from xray_hf import __version__, bundle, manifest
from xray_hf.data import splits
from xray_hf.data.cache import seen_in
from xray_hf.data.dataset import XrayData, open_coronahack, split_data
from xray_hf.data.sample import is_synthetic, labels_of
from xray_hf.data.splits import Split
from xray_hf.errors import DataError, OutputError, exit_on_error
from xray_hf.evaluation import metrics
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.models import Network, create_model
from xray_hf.task import SPLITS
from xray_hf.training import checkpoints
from xray_hf.training.config import Config, parse
from xray_hf.training.loop import Trainer
from xray_hf.training.processes import is_same_everywhere, keep_freed_memory, make_accelerator

LIBRARIES = ("accelerate", "datasets", "kornia", "numpy", "pillow", "timm", "torch", "transformers")


def main() -> None:
    """Run one training from the command line."""
    config = parse()
    keep_freed_memory()
    logging.disable_progress_bar()  # of saving, which takes a moment; training has its own
    accelerator = make_accelerator(config)
    require_free_folder(config)
    network = create_model(config.model.model, pretrained=config.model.pretrained, side=config.model.side)
    data = open_data(config, network, accelerator)
    asked, file = config.data, optional_path(config.data.splits)
    split = split_data(data, asked.protocol, asked.split_seed, file, fold=asked.fold)
    used = replace(asked, protocol=split.protocol, split_seed=split.seed, fold=split.fold)  # of the file's
    config = replace(config, data=used)
    if accelerator.is_main_process:
        print(splits.as_table(splits.describe(split, data.samples, data.groups)), file=sys.stderr)
        if not (config.out / checkpoints.CHECKPOINT_NAME).exists():  # a resumed run keeps its own
            write_json(config.out / "config.json", config.as_dict())
    accelerator.init_trackers("xray_hf", flat(config))

    started = time.time()
    identity = {
        **config.identity(),
        "precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "files": fingerprint(data, split),
    }
    if not is_same_everywhere(identity):
        raise DataError("the processes do not see the same data set; is it whole on every machine?")
    labels = np.asarray(labels_of(data.samples))
    pixels = seen_in(data.pixels, config.data.view)
    trainer = Trainer(network, pixels, labels, split, config, accelerator, identity)
    history = trainer.fit()
    predictions = predict_splits(trainer, data, split)
    accelerator.end_training()

    if accelerator.is_main_process:
        training = {
            **describe_run(config, network, accelerator),
            "is_synthetic": is_synthetic(data.samples),
            "files": identity["files"],
            "report": public_report(data),
            "seconds": sum(row["seconds"] for row in history),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "wall_seconds_of_last_part": time.time() - started,
            "history": history,
        }
        summary = bundle.write(
            config.out / "bundle",
            network,
            training=training,
            splits=splits.as_dict(split, data.samples, data.groups),
            predictions=predictions,
        )
        print(metrics.as_table(metrics.of_splits(summary), manifest.mark_of(training)))
        print(f"bundle: {config.out / 'bundle'}")


def require_free_folder(config: Config) -> None:
    """Refuse to write over an earlier run, unless it is to be resumed."""
    has_bundle = (config.out / "bundle").exists()
    has_checkpoint = (config.out / checkpoints.CHECKPOINT_NAME).exists()
    if not config.run.resume and (has_bundle or has_checkpoint):
        raise OutputError(
            f"{config.out} already holds a run; pass --resume to go on, or choose another --out."
        )
    if has_bundle and not has_checkpoint:
        raise OutputError(f"the run in {config.out} is finished and has no checkpoint; choose another --out.")


def open_data(config: Config, network: Network, accelerator: Accelerator) -> XrayData:
    """Open the data set; the first process of each machine decodes, the others then find the cache."""
    with accelerator.local_main_process_first():
        data = open_coronahack(
            Path(config.data.data_dir),
            network.preprocessing.side,
            covid_metadata=optional_path(config.data.covid_metadata),
            drop_bad=config.data.drop_bad,
            cache_dir=optional_path(config.data.cache_dir),
        )
    if accelerator.is_main_process:
        print(data.report.as_table(), file=sys.stderr)
    return data


def predict_splits(trainer: Trainer, data: XrayData, split: Split) -> Predictions:
    """Predict every row of every split with the final weights."""
    rows = np.concatenate([split.rows(name) for name in SPLITS])
    records = [data.samples[row] for row in rows]
    return Predictions(
        classes=data.classes,
        file_name=np.asarray([record.file_name for record in records]),
        source=np.asarray([record.source for record in records]),
        site=np.asarray([record.site for record in records]),
        patient_id=np.asarray([record.patient_id for record in records]),
        split=np.repeat(SPLITS, [len(split.rows(name)) for name in SPLITS]),
        official_split=np.asarray([record.official_split for record in records]),
        label=data.labels[rows],
        logits=trainer.predict(rows),
    )


def describe_run(config: Config, network: Network, accelerator: Accelerator) -> dict[str, Any]:
    """What is needed to repeat the run."""
    is_gpu = accelerator.device.type == "cuda"
    return {
        "model": network.name,
        "initial_weights": network.initial_weights,
        "config": public(config),
        "versions": {"xray_hf": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        "device": torch.cuda.get_device_name() if is_gpu else f"CPU, {torch.get_num_threads()} threads",
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
    }


def public(config: Config) -> dict[str, Any]:
    """The configuration without what only this machine's owner should know: where folders lie."""
    names = ("data_dir", "splits", "covid_metadata", "cache_dir")
    given = {name: getattr(config.data, name) for name in names}
    nameless: dict[str, Any] = {name: Path(value).name for name, value in given.items() if value}
    data = replace(config.data, **nameless)
    return replace(config, data=data, run=replace(config.run, out=config.out.name)).as_dict()


def public_report(data: XrayData) -> dict[str, Any]:
    """The report of the reading, without folders."""
    origin = data.report.covid_patients_from
    names = {"root": Path(data.report.root).name, "covid_patients_from": origin and Path(origin).name}
    return {**data.report.as_dict(), **names}


def fingerprint(data: XrayData, split: Split) -> str:
    """A hash of the names and labels in each split: equal for runs on the same rows."""
    rows = {name: [data.samples[row] for row in split.rows(name)] for name in SPLITS}
    names = {name: [(record.file_name, record.label) for record in found] for name, found in rows.items()}
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def optional_path(text: str | None) -> Path | None:
    """A path, if one was given."""
    return Path(text) if text else None


def flat(config: Config) -> dict[str, Any]:
    """The configuration as `group.option: value` with values that every tracker takes."""
    nested = {key: value for key, value in config.as_dict().items() if isinstance(value, dict)}
    return {f"{group}.{name}": str(value) for group, part in nested.items() for name, value in part.items()}


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
