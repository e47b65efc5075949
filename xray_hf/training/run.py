"""Configuration -> sources -> model -> fit -> predictions -> bundle."""

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

from xray_hf import __version__, bundle
from xray_hf.data import confounding, splits
from xray_hf.data.cache import seen_in
from xray_hf.data.dataset import XrayData, open_pixels, read_samples, split_data
from xray_hf.data.sample import Sample, SourceReport, is_synthetic
from xray_hf.data.splits import Split
from xray_hf.errors import DataError, OutputError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import write_json
from xray_hf.models import Network, create_model
from xray_hf.models.lungs import LungCrop
from xray_hf.report import terminal
from xray_hf.report.report import Report
from xray_hf.training import checkpoints
from xray_hf.training.config import Config
from xray_hf.training.loop import Trainer
from xray_hf.training.lung_crops import crop_lungs
from xray_hf.training.processes import is_same_everywhere, keep_freed_memory, make_accelerator

LIBRARIES = ("accelerate", "datasets", "kornia", "numpy", "pillow", "timm", "torch", "transformers")


def train(config: Config) -> None:
    """Train one model and write its bundle to `config.out`.

    Raises OutputError if the folder already holds a run, and any error of reading, splitting and training.
    """
    keep_freed_memory()
    logging.disable_progress_bar()  # transformers' bar for saving; training has its own
    accelerator = make_accelerator(config)
    require_free_folder(config)
    read = read_samples(
        config.data.specs,
        classes=config.data.classes,
        label_map=config.data.map,
        options=config.data.read_options,
    )
    network = create_model(
        config.model.model,
        pretrained=config.model.pretrained,
        side=config.model.side,
        classes=read[1],
        initial_weights=optional_path(config.model.initial_weights),
    )
    if config.model.crop == "lungs":
        network = replace(network, lungs=LungCrop.load())
        network.require_side()
    if network.loaded and accelerator.is_main_process:
        print(f"initial weights: {network.loaded}", file=sys.stderr)
    data = open_sources(config, network, accelerator, read)
    config, split = split_sources(config, data)
    if accelerator.is_main_process:
        print(
            splits.as_table(splits.describe(split, data.samples, data.classes, data.groups)), file=sys.stderr
        )
        if not (config.out / checkpoints.CHECKPOINT_NAME).exists():  # a resumed run keeps its own
            write_json(config.out / "config.json", config.as_dict())
    accelerator.init_trackers("xray_hf", flat(public(config)))

    started = time.time()
    identity = {
        **config.identity(),
        "precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "files": fingerprint(data, split),
        "initial_weights": network.loaded.sha256 if network.loaded else network.initial_weights,
    }
    if not is_same_everywhere(identity):
        raise DataError(
            "the processes see different images or initial weights; are the files whole on every machine?"
        )
    sources = np.asarray([sample.source for sample in data.samples])
    pixels = seen_in(data.pixels, config.data.view)
    lungs_found = None
    if network.lungs:
        pixels = crop_lungs(
            network.lungs,
            pixels,
            len(data.samples),
            network.preprocessing.side,
            accelerator,
            optional_path(config.data.cache_dir),
        )
        lungs_found = pixels.found
        if accelerator.is_main_process:
            print(f"lungs found in {lungs_found:,} of {len(data.samples):,} images", file=sys.stderr)
    trainer = Trainer(network, pixels, data.labels, sources, split, config, accelerator, identity)
    history = trainer.fit()
    predictions = predict_splits(trainer, data, split)
    accelerator.end_training()

    if accelerator.is_main_process:
        training = {
            **describe_run(config, network, accelerator),
            "is_synthetic": is_synthetic(data.samples),
            "files": identity["files"],
            "sources": [describe_source(report, data, split) for report in data.reports],
            "lungs_found": lungs_found,
            "seconds": sum(row["seconds"] for row in history),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "wall_seconds_of_last_part": time.time() - started,
            "history": history,
        }
        bundle.write(
            config.out / "bundle",
            network,
            training=training,
            splits=splits.as_dict(split, data.samples, data.classes, data.groups),
            predictions=predictions,
        )
        report = Report.read(config.out / "bundle")
        for part in ("splits", "external") if report.external else ("splits",):
            print(terminal.part(report, part), end="\n\n")
        print(f"bundle: {config.out / 'bundle'}")


def require_free_folder(config: Config) -> None:
    """Raise OutputError instead of overwriting an earlier run, unless it is resumed."""
    has_bundle = (config.out / "bundle").exists()
    has_checkpoint = (config.out / checkpoints.CHECKPOINT_NAME).exists()
    if not config.run.resume and (has_bundle or has_checkpoint):
        raise OutputError(
            f"{config.out} already holds a run; pass --resume to go on, or choose another --out."
        )
    if has_bundle and not has_checkpoint:
        raise OutputError(f"the run in {config.out} is finished and has no checkpoint; choose another --out.")


def open_sources(
    config: Config,
    network: Network,
    accelerator: Accelerator,
    read: tuple[list[Sample], tuple[str, ...], list[SourceReport]],
) -> XrayData:
    """Open the sources; the first process of each machine decodes, the others then find the cache."""
    with accelerator.local_main_process_first():
        data = open_pixels(
            *read,
            network.side,
            drop_bad=config.data.drop_bad,
            cache_dir=optional_path(config.data.cache_dir),
        )
    if accelerator.is_main_process:
        table = confounding.as_table(data.samples, data.classes, config.data.hold_out)
        print(f"{data.reading}\n\n{table}\n", file=sys.stderr)
    return data


def split_sources(config: Config, data: XrayData) -> tuple[Config, Split]:
    """Split the rows; the returned configuration has the options used, even if a splits file set them."""
    asked = config.data
    split = split_data(
        data,
        asked.protocol,
        asked.split_seed,
        optional_path(asked.splits),
        fold=asked.fold,
        hold_out=asked.hold_out,
    )
    used = replace(
        asked, protocol=split.protocol, split_seed=split.seed, fold=split.fold, hold_out=split.hold_out
    )
    return replace(config, data=used), split


def predict_splits(trainer: Trainer, data: XrayData, split: Split) -> Predictions:
    """Predict every row of every split with the final weights."""
    rows = np.concatenate([split.rows(name) for name in split.names])
    samples = [data.samples[row] for row in rows]

    def column(name: str) -> np.ndarray:
        return np.asarray([getattr(sample, name) for sample in samples])

    return Predictions(
        classes=data.classes,
        file_name=column("file_name"),
        source=column("source"),
        site=column("site"),
        patient_id=column("patient_id"),
        split=np.repeat(split.names, [len(split.rows(name)) for name in split.names]),
        official_split=column("official_split"),
        label=data.labels[rows],
        logits=trainer.predict(rows),
    )


def describe_run(config: Config, network: Network, accelerator: Accelerator) -> dict[str, Any]:
    """Everything needed to repeat the run."""
    return {
        "model": network.name,
        "initial_weights": network.initial_weights,
        "loaded_weights": network.loaded and network.loaded.as_dict(),
        "config": public(config),
        "versions": {"xray_hf": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        "device": _name_of(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
    }


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type.upper()


def describe_source(report: SourceReport, data: XrayData, split: Split) -> dict[str, Any]:
    """A source's entry in training.json: its name, how many images are in a split, and what was left out."""
    rows = np.unique(np.concatenate([split.rows(name) for name in split.names]))
    own = [data.samples[row] for row in rows if data.samples[row].source == report.source]
    names = {
        "root": nameless(report.kind, report.root),
        "patients_from": report.patients_from and Path(report.patients_from).name,
    }
    found = {**report.as_dict(), **names}
    return {
        "name": report.source,
        "kind": report.kind,
        "images": len(own),
        "is_synthetic": is_synthetic(own),
        "report": found,
    }


def nameless(kind: str, place: str) -> str:
    """A source's place without the folders above it, which are private; for the Hub, its id."""
    return place if kind == "hub" else Path(place).name


def public(config: Config) -> dict[str, Any]:
    """The configuration without the paths of this machine, which are private."""
    names = ("splits", "covid_metadata", "cache_dir")
    given = {name: getattr(config.data, name) for name in names}
    shown: dict[str, Any] = {name: Path(value).name for name, value in given.items() if value}
    start = config.model.initial_weights
    model = replace(config.model, initial_weights=start and Path(start).name)
    specs = tuple(str(replace(spec, place=nameless(spec.kind, spec.place))) for spec in config.data.specs)
    data = replace(config.data, **shown, source=specs)
    return replace(config, data=data, model=model, run=replace(config.run, out=config.out.name)).as_dict()


def fingerprint(data: XrayData, split: Split) -> str:
    """A hash of the names and labels in each split: equal for runs on the same rows."""
    rows = {name: [data.samples[row] for row in split.rows(name)] for name in split.names}
    names = {name: [(each.source, each.file_name, each.label) for each in own] for name, own in rows.items()}
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def optional_path(text: str | None) -> Path | None:
    """A path, if one was given."""
    return Path(text) if text else None


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as `group.option: value` with values that every tracker takes."""
    nested = {key: value for key, value in config.items() if isinstance(value, dict)}
    return {f"{group}.{name}": str(value) for group, part in nested.items() for name, value in part.items()}
