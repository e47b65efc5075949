"""A model's name -> the network, with the preprocessing of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from torch import nn

from xray_hf.errors import ModelError, as_sentence, hub_errors
from xray_hf.manifest import MAX_SIDE, ZOOM
from xray_hf.models.configuration_xray_cnn import XrayCnnConfig
from xray_hf.models.initial_weights import LoadedWeights, load_initial_weights
from xray_hf.models.lungs import LungCrop
from xray_hf.models.modeling_xray_cnn import XrayCnnForImageClassification
from xray_hf.task import PAPER_CLASSES

RESNET18 = "resnet18.tv_in1k"  # torchvision's ImageNet weights, which the paper starts from
MODELS = ("xray-resnet18", "xray-cnn", "timm:NAME")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Grey image -> input: squash to side×side, scale to 0..1, repeat to 3 channels, (x - mean) / std."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Raise ValueError for a side, mean or deviation that no network can have."""
        if not 32 <= self.side <= MAX_SIDE or not len(self.mean) == len(self.std) == 3 or min(self.std) <= 0:
            raise ValueError(f"preprocessing {self}; expected a side of 32 to 2048, 3 means, 3 deviations")

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, side, side), 0 to 255 -> (B, 3, side, side) float32, channels_last, on the same device."""
        # One multiplication and addition per channel, written straight into channels_last memory.
        shift, scale = _shift_and_scale(self, pixels.device)
        grey = pixels.to(torch.float32).unsqueeze(-1)
        return torch.addcmul(shift, grey, scale).permute(0, 3, 1, 2)


@cache  # a copy to a GPU at every batch would make the host wait for it
def _shift_and_scale(wanted: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode(False):  # the first caller's mode must not decide for all later ones
        mean, std = torch.tensor(wanted.mean), torch.tensor(wanted.std)
        return (-mean / std).to(device), (1 / (255 * std)).to(device)


@dataclass(frozen=True)
class Network:
    """A module with its name, its input, and where its weights come from.

    name: "xray-resnet18", "xray-cnn" or "timm:…". classes: in the order of the logits.
    initial_weights: "random", the Hub's id or the file of the weights that it was initialised with.
    loaded: which tensors came from that file, None without a file. lungs: the module that crops its input to
    the lungs; None for a network that sees whole images.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    initial_weights: str
    classes: tuple[str, ...]
    loaded: LoadedWeights | None = None
    lungs: LungCrop | None = None

    @property
    def side(self) -> int:
        """Height and width of its input, the whole image, in pixels."""
        side = self.preprocessing.side
        return round(ZOOM * side) if self.lungs else side

    def require_side(self) -> None:
        """Raise ModelError if the whole image would be larger than a bundle may ask for."""
        if self.side > MAX_SIDE:
            raise ModelError(
                f"--crop lungs reads images of {ZOOM:g} times the network's side, here {self.side} pixels; "
                f"expected at most {MAX_SIDE}. Choose a smaller --side."
            )

    @property
    def is_timm(self) -> bool:
        """Whether timm defines the architecture."""
        return not isinstance(self.module, XrayCnnForImageClassification)


def create_model(
    name: str,
    *,
    pretrained: bool,
    side: int = 0,
    classes: Sequence[str] = PAPER_CLASSES,
    initial_weights: Path | None = None,
) -> Network:
    """Build a network with a new head, one output a class.

    name: "xray-resnet18", "xray-cnn" or "timm:NAME" with any name of timm.
    pretrained: start from ImageNet weights, fetched from the Hub; xray-cnn has none and starts at random.
    side: height and width of the input in pixels, 0 for the network's own.
    initial_weights: a safetensors file with some or all of the network's tensors, in place of `pretrained`.
    Raises ModelError for an unknown name, for a side that the network cannot take and for weights that
    cannot be obtained; never falls back to random weights.
    """
    network = _create(name, pretrained and initial_weights is None, tuple(classes))
    if initial_weights:
        loaded = load_initial_weights(network.module, initial_weights)
        network = replace(network, initial_weights=loaded.file, loaded=loaded)
    if not side:
        return network
    try:
        preprocessing = replace(network.preprocessing, side=side)
        with torch.inference_mode():
            network.module.eval()(torch.zeros(1, 3, side, side))
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"{name} cannot take {side}×{side} pixels: {as_sentence(error)}") from error
    return replace(network, preprocessing=preprocessing)


def _create(name: str, pretrained: bool, classes: tuple[str, ...]) -> Network:
    if name == "xray-cnn":
        preprocessing = Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD)
        return Network(name, _create_cnn(classes), preprocessing, "random", classes)
    if name == "xray-resnet18":
        return _create_timm(name, RESNET18, pretrained, classes)
    if name.startswith("timm:"):
        return _create_timm(name, name.removeprefix("timm:"), pretrained, classes)
    raise ModelError(f"unknown model {name!r}; expected one of {', '.join(MODELS)}.")


def logits_of(output: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits (B, C) of what a timm or a transformers model returns."""
    return output if isinstance(output, torch.Tensor) else output["logits"]


def _create_cnn(classes: tuple[str, ...]) -> XrayCnnForImageClassification:
    config = XrayCnnConfig(
        id2label=dict(enumerate(classes)), label2id={name: k for k, name in enumerate(classes)}
    )
    return XrayCnnForImageClassification(config)


def _create_timm(name: str, timm_name: str, pretrained: bool, classes: tuple[str, ...]) -> Network:
    architecture, _, tag = timm_name.partition(".")
    if not timm.is_model(architecture) or (
        tag and timm_name not in timm.list_pretrained(f"{architecture}.*")
    ):
        raise ModelError(f"timm has no model {timm_name!r}; timm.list_models() gives all names.")
    initial_weights = _hub_id(timm_name) if pretrained else "random"
    weights = {"file": _download_weights(initial_weights)} if pretrained else None
    module = timm.create_model(
        timm_name, pretrained=pretrained, num_classes=len(classes), pretrained_cfg_overlay=weights
    )
    side = module.pretrained_cfg["input_size"][-1]
    preprocessing = Preprocessing(side, module.pretrained_cfg["mean"], module.pretrained_cfg["std"])
    return Network(name, module, preprocessing, initial_weights, classes)


def _hub_id(timm_name: str) -> str:
    config = timm.get_pretrained_cfg(timm_name)
    if config is None or not config.hf_hub_id:
        raise ModelError(f"{timm_name} has no weights on the Hub; use --no-pretrained.")
    return str(config.hf_hub_id)


def _download_weights(hub_id: str) -> str:
    """The path of the safetensors file; timm by itself would also take a pickle."""
    try:
        return hf_hub_download(hub_id, "model.safetensors")
    except hub_errors() as error:
        raise ModelError(
            f"cannot fetch the ImageNet weights {hub_id}: {as_sentence(error)} "
            "To train offline, start from random weights with --no-pretrained."
        ) from error
