"""The configuration of a training run: dataclasses, presets, YAML and command line, in this order.

A value on the command line wins over the YAML file (`--config`), which wins over the preset, which wins
over the defaults below. The resolved configuration is saved with the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
import yaml
from click import Choice, IntRange

from xray_hf import options
from xray_hf.data.source_options import SourceOptions
from xray_hf.errors import ConfigError
from xray_hf.manifest import WHOLE
from xray_hf.options import Number, option
from xray_hf.task import FOLDS, PROTOCOLS
from xray_hf.views import VIEWS

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "robust"
TRACKERS = (  # what accelerate can write to, by the name of the package
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip
_OWN_VALUES = "xray-cnn"  # the model for which a preset may have other values than for the rest


@dataclass(frozen=True)
class DataConfig(SourceOptions):
    """Data."""

    hold_out: tuple[str, ...] = option(
        (), "hold a source out for external validation; repeatable", metavar="NAME"
    )
    protocol: str = option("grouped", "how to split; `paper` leaks", Choice(PROTOCOLS))
    split_seed: int = option(0, "seed of the split", IntRange(0))
    fold: int = option(0, "which part of `grouped` is validation", IntRange(0, FOLDS - 1))
    splits: str | None = option(None, "a splits.json to use instead of protocol, seed and fold")
    view: str = option(
        WHOLE, "train and evaluate on ablated inputs, not on whole X-rays", Choice((WHOLE, *VIEWS))
    )


@dataclass(frozen=True)
class ModelConfig:
    """Model."""

    model: str = option("xray-resnet18", "xray-resnet18, xray-cnn or timm:NAME")
    pretrained: bool = option(True, "start from ImageNet weights (xray-cnn has none)")
    initial_weights: str | None = option(
        None, "a safetensors file with some or all of the network's tensors, in place of --pretrained"
    )
    crop: str = option(
        WHOLE, "part of the X-ray to classify; lungs: with standardised grey values", Choice((WHOLE, "lungs"))
    )
    side: int = option(0, "height and width of the input, 0: the model's own", IntRange(0, 2048))


@dataclass(frozen=True)
class OptimizationConfig:
    """Optimisation."""

    epochs: int = option(15, "passes over the training rows", IntRange(1))
    batch_size: int = option(32, "images per optimiser step, over all processes", IntRange(1))
    accumulate: int = option(1, "parts to split each batch into, to save memory", IntRange(1))
    optimizer: str = option("adamw", "optimiser", Choice(("adam", "adamw", "sgd")))
    learning_rate: float = option(5e-4, "peak learning rate", Number(0))
    weight_decay: float = option(0.05, "weight decay; for adam and sgd an L2 penalty", Number(0))
    decay_all: bool = option(False, "also decay biases and normalisation")
    schedule: str = option("cosine", "learning rate after warm-up", Choice(("constant", "linear", "cosine")))
    warmup: float = option(0.3, "share of all steps in which the rate rises linearly", Number(0, 1))
    balance: str = option(
        "sampling",
        "against class imbalance, in training only",
        Choice(("none", "sampling", "loss", "logits")),
    )
    label_smoothing: float = option(0.0, "share of the label spread evenly over all classes", Number(0, 1))
    ema: float = option(
        0.0, "decay of the moving average of the weights, reduced for short runs; 0: off", Number(0, 0.9999)
    )
    patience: int = option(0, "epochs without gain on validation before stopping, 0: never", IntRange(0))
    keep: str = option("best", "weights to keep: best on validation, or last", Choice(("best", "last")))


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation, of training images only."""

    flip: bool = option(False, "mirror at random; this swaps the heart's side")
    rotate: float = option(0.0, "degrees, either way", Number(0, 180))
    shift: float = option(0.0, "share of the side, either way", Number(0, 0.5))
    scale_low: float = option(1.0, "smallest scale, 1: unchanged", Number(0.1, 1))
    scale_high: float = option(1.0, "largest scale", Number(1, 10))
    gamma: float = option(1.0, "largest exponent of grey values; 1/gamma is the smallest", Number(1))
    contrast: float = option(0.0, "relative change of contrast, either way", Number(0, 1))
    brightness: float = option(0.0, "change of brightness, share of the grey range, either way", Number(0, 1))
    blur: float = option(0.0, "share of the images to blur", Number(0, 1))
    noise: float = option(0.0, "share of the images to add noise to", Number(0, 1))
    erase: float = option(0.0, "share of the images that lose a rectangle", Number(0, 1))
    mixup: float = option(
        0.0, "alpha of the Beta distribution, 0: none; within a part of --accumulate", Number(0)
    )
    cutmix: float = option(
        0.0, "alpha of the Beta distribution, 0: none; within a part of --accumulate", Number(0)
    )


@dataclass(frozen=True)
class RunConfig:
    """Run."""

    out: str = option("", "folder of the run (default runs/MODEL)")
    seed: int = option(0, "seed of weights, order and augmentation", IntRange(0, 2**32 - 1))
    resume: bool = option(False, "continue from the last checkpoint in --out")
    device: str = option("auto", "where to train", Choice(("auto", "cpu")))
    precision: str = option(
        "auto",
        "number format; auto is bf16 where the hardware has it, else fp32",
        Choice(("auto", "bf16", "fp16", "fp32")),
    )
    compile: bool = option(False, "torch.compile the network")
    track: str = option("none", "tracker", Choice(("none", *TRACKERS)))
    watch_test: bool = option(False, "log test accuracy after every epoch; never used for selection")


@dataclass(frozen=True)
class Config:
    """The resolved configuration of a run."""

    preset: str | None
    data: DataConfig
    model: ModelConfig
    optimization: OptimizationConfig
    augmentation: AugmentationConfig
    run: RunConfig

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON or YAML."""
        return asdict(self)

    @property
    def out(self) -> Path:
        """The run's folder."""
        return Path(self.run.out or f"runs/{self.model.model.replace(':', '-')}")

    def identity(self) -> dict[str, Any]:
        """The options that must not change when a run is resumed; of sources, their kinds and names."""
        excluded = {"out", "resume", "track", "cache_dir", "covid_metadata", "splits", "initial_weights"}
        nested = {key: value for key, value in self.as_dict().items() if key != "preset"}
        flat = {k: v for part in nested.values() for k, v in part.items() if k not in excluded}
        return {**flat, "source": [f"{spec.kind}:{spec.name}" for spec in self.data.specs]}


GROUPS = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimization": OptimizationConfig,
    "augmentation": AugmentationConfig,
    "run": RunConfig,
}


def presets() -> dict[str, str]:
    """The presets: {name: description}."""
    return {path.stem: _read_yaml(path)["about"] for path in sorted(PRESETS.glob("*.yaml"))}


def preset_values(name: str, model: str) -> dict[str, Any]:
    """The values of a preset; they can depend on the model, as the paper's weight decay does."""
    if name not in presets():
        raise ConfigError(f"unknown preset {name!r}; expected one of {', '.join(presets())}.")
    values = _read_yaml(PRESETS / f"{name}.yaml")
    del values["about"]
    own = values.pop("for", {})
    return {**values, **own.get(model, {})}


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Resolve command line, YAML file, preset and defaults. Raises ConfigError for a bad value."""
    usual = preset_values(DEFAULT_PRESET, ModelConfig.model)  # for --help
    given = options.run(_command(options.typed), arguments, usual)
    preset, path = given.pop("preset", None), given.pop("config", None)
    from_yaml = _read_yaml(Path(path)) if path else {}
    of_yaml = from_yaml.pop("preset", None)
    preset = preset or of_yaml or DEFAULT_PRESET
    model = given.get("model", from_yaml.get("model", ModelConfig.model))
    return resolve({**preset_values(preset, model), **from_yaml, **given}, preset)


def resolve(values: dict[str, Any], preset: str | None = None) -> Config:
    """Build a Config of flat values; raises ConfigError for unknown names and values outside the range.

    data_dir is short for a source; None and omitted names get their default.
    """
    values = {name: value for name, value in values.items() if value is not None}
    if place := values.pop("data_dir", None):
        values.setdefault("source", [f"coronahack={place}"])
    known = {spec.name for group in GROUPS.values() for spec in fields(group)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown option {name!r}; `xray-hf train --help` lists them all.")
        if isinstance(value, dict):
            raise ConfigError(f"{name} holds {value}; expected one value or a list.")
    found = options.run(_command(dict), [], values)
    parts = {key: group(**{f.name: found[f.name] for f in fields(group)}) for key, group in GROUPS.items()}
    config = Config(preset, **parts)
    config.data.check(config.data.hold_out)
    if config.model.crop != WHOLE and config.data.view != WHOLE:
        raise ConfigError("--crop needs to see the lungs, which --view hides; pass one of the two.")
    return config


def _command(callback: Any) -> options.Command:
    """The options of training; `callback` gets their values."""
    usual, own = (preset_values(DEFAULT_PRESET, model) for model in (ModelConfig.model, _OWN_VALUES))

    def shown(spec: Field[Any]) -> str | None:
        """The default, where it depends on the model."""
        one, other = usual.get(spec.name), own.get(spec.name)
        return None if one == other else f"{one}, for {_OWN_VALUES} {other}"

    words = presets()
    first = [
        click.Option(["--preset"], type=Choice(list(words)), help="a named set of values to start from"),
        click.Option(
            ["--config"], metavar="YAML", help="a file of `option: value` lines, or a saved config.json"
        ),
    ]
    return options.Command(
        "xray-hf train",
        {
            "Start": first,
            **{
                (group.__doc__ or "").rstrip("."): list(options.of(group, shown).values())
                for group in GROUPS.values()
            },
        },
        callback=callback,
        context_settings=options.LOOK,
        help="Train a chest X-ray classifier. Several processes: `accelerate launch -m xray_hf.cli train`.",
        epilog=(
            f"Presets: {'; '.join(f'{name}: {about}' for name, about in words.items())}. Their values are "
            f"in xray_hf/training/presets/; the defaults above are those of {DEFAULT_PRESET}. Every run "
            "saves its configuration in config.json."
        ),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    """The values of a file as one flat mapping; a saved configuration, with its groups, is accepted too."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; expected a file of `option: value` lines.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; expected lines of `option: value`.")
    flat: dict[Any, Any] = {}
    for name, value in values.items():
        flat.update(value if isinstance(value, dict) and name in GROUPS else {name: value})
    return {str(name).replace("-", "_"): value for name, value in flat.items()}
