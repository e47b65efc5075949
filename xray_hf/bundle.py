"""A bundle: one folder that is a model repository of the Hub. Write it, check it, load it.

xray-resnet18 and other timm networks load in timm and in transformers from the same files, without remote
code; xray-cnn in transformers with `trust_remote_code=True`, or here without it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import save_for_hf
from transformers import ViTImageProcessor

from xray_hf import manifest
from xray_hf.data.atlas import sample_images
from xray_hf.errors import BundleError
from xray_hf.evaluation import controls, external, figures, metrics
from xray_hf.evaluation.predictions import Predictions
from xray_hf.files import atomic_folder, write_json
from xray_hf.images import resize
from xray_hf.labels import LABELS, PNEUMONIA, SYNTHETIC_MARK
from xray_hf.models import configuration_xray_cnn, modeling_xray_cnn
from xray_hf.models.create import Network, Preprocessing
from xray_hf.views import VIEWS

VIEW_SIDE = 224  # pixels of the synthetic patient that shows the control views

# What timm, transformers and safetensors raise on files that are damaged or do not fit together.
_DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    SafetensorError,
)


def write(
    folder: Path,
    network: Network,
    *,
    training: Mapping[str, Any],
    splits: Mapping[str, Any],
    predictions: Predictions,
) -> None:
    """Write a whole bundle; `folder` appears, or is replaced, only when everything is in it.

    training: JSON-ready, with the epochs under "history", and "is_synthetic", which marks the
    figures. splits: as splits.as_dict gives.
    Raises OutputError.
    """
    with atomic_folder(folder) as temporary:
        save_network(network, temporary)
        write_json(temporary / manifest.TRAINING, training)
        write_json(temporary / manifest.SPLITS, splits)
        predictions.write(temporary / manifest.PREDICTIONS)
        draw_views(temporary)


def save_network(network: Network, folder: Path) -> None:
    """Write weights, labels and preprocessing only."""
    # Training keeps weights in channels_last order, which timm's writer refuses.
    module = network.module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        if network.is_timm:
            _save_timm(network, folder)
        else:
            _save_cnn(module, network.preprocessing, folder)
    except SafetensorError as error:
        # safetensors reports a full disk as an error of its own.
        raise OSError(errno.EIO, str(error)) from error


def draw_views(folder: Path) -> dict[str, Any]:
    """Make metrics.json and figures/ anew from the bundle's records, without the model.

    They are predictions.parquet, training.json and, where there are such, calibration.json, external/ and
    controls/. Returns the metrics. Raises BundleError if one of them is missing or damaged.
    """
    predictions = Predictions.read(folder / manifest.PREDICTIONS)
    training = manifest.read_json(folder / manifest.TRAINING)
    elsewhere = external.read_all(folder)
    summary: dict[str, Any] = metrics.summarise(predictions)
    if elsewhere:
        summary["external"] = {name: record.describe() for name, record in elsewhere.items()}
    summary |= controls.summarise(folder, predictions)
    write_json(folder / manifest.METRICS, summary)
    with atomic_folder(folder / manifest.FIGURES) as temporary:
        mark = manifest.mark_of(training)
        figures.draw_all(predictions, training.get("history", []), temporary, mark, _foreign_scores(folder))
        for name, record in elsewhere.items():
            figure = figures.confusion_of(record.predictions, f"{mark}{name}")
            figures.save(figure, temporary / f"confusion_external_{name}.png")
        if "controls" in summary:
            _draw_controls(summary, temporary, mark)
    return summary


def _draw_controls(summary: Mapping[str, Any], folder: Path, mark: str) -> None:
    """control_sensitivity.png, and control_views.png of a synthetic patient: a bundle shows no real one."""
    shares = {}
    for name, numbers in {"whole": summary["test"], **summary["controls"]}.items():
        # All of one class found can mean that all is called so, which balanced accuracy shows.
        group = f"{name.replace('_', ' ')}\nbalanced {numbers['balanced_accuracy']:.0%}"
        found = {label: own["sensitivity"] for label, own in numbers["per_class"].items()}
        shares[group] = {label: share for label, share in found.items() if share is not None}
    title = f"{mark}test rows in control views"
    figures.save(figures.rates(shares, title, "Sensitivity"), folder / "control_sensitivity.png")
    patient = resize(dict(sample_images(1, seed=0))[LABELS[PNEUMONIA]], VIEW_SIDE)
    seen = {"whole": patient, **{name: view(patient[None])[0] for name, view in VIEWS.items()}}
    images = [(name.replace("_", " "), image) for name, image in seen.items()]
    sheet = figures.sheet(images, len(images), f"{SYNTHETIC_MARK}control views")
    figures.save(sheet, folder / "control_views.png")


def _foreign_scores(folder: Path) -> dict[str, list[float]] | None:
    path = folder / manifest.CALIBRATION
    return manifest.read_json(path).get("foreign_report", {}).get("scores") if path.exists() else None


def load(folder: Path | str) -> Network:
    """Load a bundle's network, in evaluation mode, on the CPU; no code of the bundle is run.

    Raises BundleError if files are missing or do not fit together.
    """
    folder = Path(folder)
    config = manifest.read_json(folder / manifest.CONFIG)
    if not (folder / manifest.WEIGHTS).is_file():
        raise BundleError(f"{folder} holds no {manifest.WEIGHTS}; expected a bundle that train.py wrote.")
    with _loading_errors(folder):
        if "architecture" in config:
            return _load_timm(folder, config)
        if config.get("model_type") == manifest.XRAY_CNN:
            return _load_cnn(folder)
    raise BundleError(
        f"{folder / manifest.CONFIG} names neither a timm architecture nor model_type xray-cnn; "
        "expected a bundle that train.py wrote."
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
    model_config = {"label_names": list(LABELS), "pretrained_cfg": pretrained_cfg}
    save_for_hf(network.module, str(folder), model_config, safe_serialization=True)
    config = manifest.read_json(folder / manifest.CONFIG)
    # transformers passes the root's num_classes on and would meet it twice.
    config.get("model_args", {}).pop("num_classes", None)
    for stale in ("test_input_size", "test_crop_pct"):  # timm's evaluation would prefer them
        config["pretrained_cfg"].pop(stale, None)
    write_json(folder / manifest.CONFIG, {**config, "xray_hf_name": network.name})


def _load_timm(folder: Path, config: dict[str, Any]) -> Network:
    module = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True).eval()
    saved = config["pretrained_cfg"]
    preprocessing = Preprocessing(saved["input_size"][-1], tuple(saved["mean"]), tuple(saved["std"]))
    return Network(
        config.get("xray_hf_name", f"timm:{config['architecture']}"), module, preprocessing, str(folder)
    )


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
    # transformers would go on with random weights in their place.
    if wrong := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise BundleError(
            f"{folder / manifest.WEIGHTS} does not fit {manifest.CONFIG}: {', '.join(wrong[:3])}. "
            "Fetch or train it again."
        )
    saved = manifest.read_json(folder / manifest.PREPROCESSOR)
    preprocessing = Preprocessing(
        saved["size"]["height"], tuple(saved["image_mean"]), tuple(saved["image_std"])
    )
    return Network("xray-cnn", module.eval(), preprocessing, str(folder))


@contextmanager
def _loading_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise BundleError(f"{folder} cannot be loaded: {error}. Fetch or train the bundle again.") from error
