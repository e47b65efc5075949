"""A bundle: one folder that is a model repository of the Hub. Write it, check it, load it.

xray-resnet18 and other timm networks load in timm and in transformers from the same files, without remote
code; xray-cnn in transformers with `trust_remote_code=True`, or here without it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn
from transformers import ViTImageProcessor

from xray_hf import evidence, manifest
from xray_hf.errors import BundleError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_file, atomic_folder, write_json
from xray_hf.models import configuration_xray_cnn, modeling_xray_cnn
from xray_hf.models.create import Network, Preprocessing
from xray_hf.models.lungs import LungCrop

# Tensors with at least this many elements are stored in half precision. Smaller ones save nothing, and
# rounding those of the first layer changes the logits most.
LARGE = 10_000

# What timm, transformers and safetensors raise on files that are damaged or do not fit together.
_DAMAGE = (
    *(OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    SafetensorError,
)


def write(
    folder: Path,
    network: Network,
    *,
    training: Mapping[str, Any],
    splits: Mapping[str, Any],
    predictions: Predictions,
) -> dict[str, Any]:
    """Write a whole bundle; `folder` appears, or is replaced, only when everything is in it.

    training: JSON-ready, with the epochs under "history", and "is_synthetic", which marks the
    figures. splits: as returned by splits.as_dict.
    Returns the metrics, as evidence.draw does. Raises OutputError.
    """
    with atomic_folder(folder) as temporary:
        save_network(network, temporary)
        write_json(temporary / manifest.TRAINING, training)
        write_json(temporary / manifest.SPLITS, splits)
        predictions.write(temporary / manifest.PREDICTIONS)
        return evidence.draw(temporary)


def save_network(network: Network, folder: Path) -> None:
    """Write weights, labels and preprocessing only."""
    # Training keeps weights in channels_last order, which timm's writer refuses.
    module = network.module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        if network.is_timm:
            _save_timm(network, folder)
        else:
            _save_cnn(module, network.preprocessing, folder)
        if network.lungs:
            network.lungs.save(folder / manifest.LUNGS)
            config = manifest.read_json(folder / manifest.CONFIG)
            write_json(folder / manifest.CONFIG, {**config, **manifest.CROPPED})
    except SafetensorError as error:
        # safetensors reports a full disk with its own error type.
        raise OSError(errno.EIO, str(error)) from error


def round_to_half(module: nn.Module) -> None:
    """Round, in place, the weights that `store_in_half` stores in half precision; they stay float32."""
    for value in module.state_dict().values():
        if _is_large(value):
            value.copy_(value.half())


def store_in_half(folder: Path) -> None:
    """Store a bundle's large weights in half precision; loading them gives float32, rounded.

    Raises BundleError for weights that cannot be read, OutputError.
    """
    with _loading_errors(folder):
        weights = load_file(folder / manifest.WEIGHTS)
    halved = {name: value.half() if _is_large(value) else value for name, value in weights.items()}
    with atomic_file(folder / manifest.WEIGHTS) as temporary:
        save_file(halved, temporary, metadata={"format": "pt"})  # which transformers asks for


def _is_large(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.numel() >= LARGE


def load(folder: Path | str) -> Network:
    """Load a bundle's network, in evaluation mode, on the CPU; no code of the bundle is run.

    Raises BundleError if files are missing or do not fit together.
    """
    folder = Path(folder)
    config = manifest.read_json(folder / manifest.CONFIG)
    if not (folder / manifest.WEIGHTS).is_file():
        raise BundleError(
            f"{folder} holds no {manifest.WEIGHTS}; expected a bundle that `xray-hf train` wrote."
        )
    with _loading_errors(folder):
        lungs = LungCrop.load(folder / manifest.LUNGS) if manifest.crops_to_lungs(config) else None
        if "architecture" in config:
            return replace(_load_timm(folder, config), lungs=lungs)
        if config.get("model_type") == manifest.XRAY_CNN:
            return replace(_load_cnn(folder), lungs=lungs)
    raise BundleError(
        f"{folder / manifest.CONFIG} names neither a timm architecture nor model_type xray-cnn; "
        "expected a bundle that `xray-hf train` wrote."
    )


def _save_timm(network: Network, folder: Path) -> None:
    preprocessing = network.preprocessing
    pretrained_cfg = {
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "input_size": [3, preprocessing.side, preprocessing.side],
        "interpolation": "bilinear",
        # The whole image is squashed to the input's size, as in training; a crop would cut lungs off.
        "crop_mode": "squash",
        "crop_pct": 1.0,
    }
    model_config = {"label_names": list(network.classes), "pretrained_cfg": pretrained_cfg}
    save_for_hf(network.module, str(folder), model_config, safe_serialization=True)
    config = manifest.read_json(folder / manifest.CONFIG)
    # transformers passes on the top-level num_classes, so a second one here would clash with it.
    config.get("model_args", {}).pop("num_classes", None)
    # Settings of timm's evaluation, and the origin of the weights that it would have fetched.
    for stale in ("test_input_size", "test_crop_pct", "tag", "license", "origin_url"):
        config["pretrained_cfg"].pop(stale, None)
    write_json(folder / manifest.CONFIG, {**config, "xray_hf_name": network.name})


def _load_timm(folder: Path, config: dict[str, Any]) -> Network:
    module = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True).eval()
    saved = config["pretrained_cfg"]
    preprocessing = Preprocessing(saved["input_size"][-1], tuple(saved["mean"]), tuple(saved["std"]))
    labels = manifest.labels_of(config)
    return Network(manifest.name_of(config), module, preprocessing, str(folder), labels)


def _save_cnn(module: Any, preprocessing: Preprocessing, folder: Path) -> None:
    module.config.auto_map = {
        "AutoConfig": "configuration_xray_cnn.XrayCnnConfig",
        "AutoModelForImageClassification": "modeling_xray_cnn.XrayCnnForImageClassification",
    }
    module.save_pretrained(folder)
    for source in (configuration_xray_cnn, modeling_xray_cnn):
        shutil.copy(str(source.__file__), folder)
    size = {"height": preprocessing.side, "width": preprocessing.side}
    processor = ViTImageProcessor(
        size=size, image_mean=list(preprocessing.mean), image_std=list(preprocessing.std), do_convert_rgb=True
    )
    processor.save_pretrained(folder)


def _load_cnn(folder: Path) -> Network:
    module, found = modeling_xray_cnn.XrayCnnForImageClassification.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    # transformers would silently leave missing weights at random values.
    if wrong := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise BundleError(
            f"{folder / manifest.WEIGHTS} does not fit {manifest.CONFIG}: {', '.join(wrong[:3])}. "
            "Fetch or train it again."
        )
    saved = manifest.read_json(folder / manifest.PREPROCESSOR)
    preprocessing = Preprocessing(
        saved["size"]["height"], tuple(saved["image_mean"]), tuple(saved["image_std"])
    )
    labels = manifest.labels_of(manifest.read_json(folder / manifest.CONFIG))
    return Network("xray-cnn", module.eval(), preprocessing, str(folder), labels)


@contextmanager
def _loading_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise BundleError(f"{folder} cannot be loaded: {error}. Fetch or train the bundle again.") from error
