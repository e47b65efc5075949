"""What a training run can be told: frozen dataclasses, presets, YAML and command line, in this order.

A value on the command line wins over the YAML file (`--config`), which wins over the preset, which wins
over the defaults below. The resolved configuration is saved with the run.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from xray_hf.data.sources.coronahack import HELP_ON_COVID_METADATA
from xray_hf.data.splits import FOLDS, PROTOCOLS
from xray_hf.errors import ConfigError, OptionParser
from xray_hf.manifest import WHOLE
from xray_hf.views import VIEWS

# {name: what it is}; the values are those of `preset_values`.
PRESETS = {
    "robust": "chosen on validation rows alone, see docs/ablations.md",
    "paper": "İbişoğlu and Akçay 2021, leak and all",
    "smoke": "a few minutes on synthetic patients; shows that everything works",
}
DEFAULT_PRESET = "robust"
_OWN_VALUES = "xray-cnn"  # the model for which a preset may have other values than for the rest
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def option(
    default: Any,
    help: str,
    *,
    kind: type = str,
    choices: Sequence[str] = (),
    low: float = -math.inf,
    high: float = math.inf,
) -> Any:
    """One option: its default, its help, its type and its range (low <= value <= high)."""
    about = {"help": help, "kind": kind, "choices": tuple(choices), "low": low, "high": high}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class DataConfig:
    """Data."""

    data_dir: str = option("", "folder of the data set in Kaggle's layout (required)")
    protocol: str = option("grouped", "how to split; `paper` leaks", choices=PROTOCOLS)
    split_seed: int = option(0, "seed of the split", kind=int, low=0)
    fold: int = option(0, "which part of `grouped` is validation", kind=int, low=0, high=FOLDS - 1)
    splits: str | None = option(None, "a splits.json to use instead of protocol, seed and fold")
    covid_metadata: str | None = option(None, HELP_ON_COVID_METADATA)
    drop_bad: bool = option(
        False, "go on without rows that have no file, label or decodable image", kind=bool
    )
    view: str = option(WHOLE, "train and evaluate on a control view, not on X-rays", choices=(WHOLE, *VIEWS))
    cache_dir: str | None = option(None, "where decoded pixels are kept (default $XRAY_HF_CACHE)")


@dataclass(frozen=True)
class ModelConfig:
    """Model."""

    model: str = option("xray-resnet18", "xray-resnet18, xray-cnn or timm:NAME")
    pretrained: bool = option(True, "start from ImageNet weights (xray-cnn has none)", kind=bool)
    side: int = option(0, "height and width of the input, 0: its own", kind=int, low=0, high=2048)


@dataclass(frozen=True)
class OptimizationConfig:
    """Optimisation."""

    epochs: int = option(15, "passes over the training rows", kind=int, low=1)
    batch_size: int = option(32, "images per optimiser step, over all processes", kind=int, low=1)
    accumulate: int = option(1, "split each batch in so many to save memory", kind=int, low=1)
    optimizer: str = option("adamw", "optimiser", choices=("adam", "adamw", "sgd"))
    learning_rate: float = option(5e-4, "peak learning rate", kind=float, low=0)
    weight_decay: float = option(0.05, "weight decay; for adam and sgd an L2 penalty", kind=float, low=0)
    decay_all: bool = option(False, "decay biases and normalisation too", kind=bool)
    schedule: str = option("cosine", "learning rate after warm-up", choices=("constant", "linear", "cosine"))
    warmup: float = option(
        0.3, "share of all steps in which the rate rises linearly", kind=float, low=0, high=1
    )
    balance: str = option(
        "sampling",
        "against class imbalance, in training only",
        choices=("none", "sampling", "loss", "logits"),
    )
    label_smoothing: float = option(0.0, "share of a label given to all classes", kind=float, low=0, high=1)
    ema: float = option(0.0, "decay of an average of the weights, 0 for none", kind=float, low=0, high=0.9999)
    patience: int = option(
        0, "stop after so many epochs without gain in validation, 0 never", kind=int, low=0
    )
    keep: str = option("best", "weights to keep: best on validation, or last", choices=("best", "last"))


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation, of training images only."""

    flip: bool = option(False, "mirror at random; it swaps the heart's side", kind=bool)
    rotate: float = option(0.0, "degrees, either way", kind=float, low=0, high=180)
    shift: float = option(0.0, "share of the side, either way", kind=float, low=0, high=0.5)
    scale_low: float = option(1.0, "smallest size, 1 as it is", kind=float, low=0.1, high=1)
    scale_high: float = option(1.0, "largest size", kind=float, low=1, high=10)
    gamma: float = option(1.0, "largest exponent of grey values; 1/gamma is the smallest", kind=float, low=1)
    contrast: float = option(0.0, "share by which grey values grow or shrink", kind=float, low=0, high=1)
    brightness: float = option(0.0, "share of the range added or taken away", kind=float, low=0, high=1)
    blur: float = option(0.0, "share of the images", kind=float, low=0, high=1)
    noise: float = option(0.0, "share of the images", kind=float, low=0, high=1)
    erase: float = option(0.0, "share of the images that lose a rectangle", kind=float, low=0, high=1)
    mixup: float = option(
        0.0, "alpha of the Beta distribution, 0: none; within a part of --accumulate", kind=float, low=0
    )
    cutmix: float = option(
        0.0, "alpha of the Beta distribution, 0: none; within a part of --accumulate", kind=float, low=0
    )


@dataclass(frozen=True)
class RunConfig:
    """Run."""

    out: str = option("", "folder of the run (default runs/MODEL)")
    seed: int = option(0, "seed of weights, order and augmentation", kind=int, low=0, high=2**32 - 1)
    resume: bool = option(False, "go on from the last checkpoint in --out", kind=bool)
    device: str = option("auto", "where to train", choices=("auto", "cpu"))
    precision: str = option(
        "auto", "number format; auto is bf16 where the hardware has it", choices=("auto", "bf16", "fp32")
    )
    compile: bool = option(False, "torch.compile the network", kind=bool)
    track: str = option("none", "tracker", choices=("none", "tensorboard", "trackio"))
    watch_test: bool = option(False, "log test accuracy of every epoch; nothing is chosen by it", kind=bool)


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
        """What must not change between the parts of an interrupted run."""
        elsewhere = {"out", "resume", "track", "cache_dir", "data_dir", "covid_metadata", "splits"}
        nested = {key: value for key, value in self.as_dict().items() if key != "preset"}
        return {k: v for part in nested.values() for k, v in part.items() if k not in elsewhere}


GROUPS = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimization": OptimizationConfig,
    "augmentation": AugmentationConfig,
    "run": RunConfig,
}
_FLOATS = {f.name for group in GROUPS.values() for f in fields(group) if f.metadata["kind"] is float}


def preset_values(name: str, model: str) -> dict[str, Any]:
    """The values of a preset; they can depend on the model, as the paper's weight decay does."""
    if name == "robust":
        # Chosen on validation alone: docs/ablations.md, and docs/log.md for the reasons.
        return {
            "epochs": 20 if model == "xray-cnn" else 12,
            "optimizer": "adamw",
            "learning_rate": 2e-3 if model == "xray-cnn" else 1e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup": 0.3,
            "balance": "sampling",
            "label_smoothing": 0.1,
            "ema": 0.995,
            "keep": "last",
            "rotate": 15.0,
            "shift": 0.12,
            "scale_low": 0.7,
            "scale_high": 1.2,
            "gamma": 2.0,
            "contrast": 0.5,
            "brightness": 0.25,
            "blur": 0.5,
            "noise": 0.5,
        }
    if name == "paper":
        # İbişoğlu and Akçay 2021, section II.A.3. The batch size is not given there: 32, a common choice.
        # The paper does not say which epoch it tests; the last one is taken.
        return {
            "protocol": "paper",
            "epochs": 8,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 1e-4 if model == "xray-cnn" else 1e-3,
            "decay_all": True,
            "schedule": "constant",
            "warmup": 0.0,
            "balance": "none",
            "flip": True,
            "keep": "last",
        }
    if name == "smoke":
        # A few minutes on two cores with synthetic patients: shows that everything works.
        return {"epochs": 3 if model != "xray-cnn" else 6, "learning_rate": 1e-3, "pretrained": False}
    raise ConfigError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}.")


def parse(arguments: Sequence[str] | None = None) -> Config:
    """Resolve command line, YAML file, preset and defaults. Raises ConfigError for a bad value."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    preset, yaml_path = given.pop("preset", None), given.pop("config", None)
    from_yaml = _read_yaml(Path(yaml_path)) if yaml_path else {}
    preset_of_yaml = from_yaml.pop("preset", None)
    preset = preset or preset_of_yaml or DEFAULT_PRESET
    model = given.get("model", from_yaml.get("model", ModelConfig.model))
    return resolve({**preset_values(preset, model), **from_yaml, **given}, preset)


def resolve(values: dict[str, Any], preset: str | None = None) -> Config:
    """Build a Config of flat values; raises ConfigError for unknown names and values outside the range."""
    known = {f.name: f for group in GROUPS.values() for f in fields(group)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown option {name!r}; `python train.py --help` lists them all.")
        _check(known[name], value)
    parts = {
        key: group(**{f.name: values[f.name] for f in fields(group) if f.name in values})
        for key, group in GROUPS.items()
    }
    config = Config(preset, **parts)
    if not config.data.data_dir:
        raise ConfigError(
            "--data-dir is missing: the folder of the data set in Kaggle's layout. "
            "Synthetic patients to try with: `xray-hf atlas --out data/synthetic`."
        )
    return config


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="train.py",
        description="Train a chest X-ray classifier; start it plainly or with `accelerate launch train.py`.",
        epilog=(
            f"Presets: {'; '.join(f'{name}: {words}' for name, words in PRESETS.items())}. "
            "Their values stand in xray_hf/training/config.py, preset_values; "
            f"the defaults above are those of {DEFAULT_PRESET}. A run leaves what it took in config.json."
        ),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help=f"a named set of values; others can be given besides (default {DEFAULT_PRESET})",
    )
    parser.add_argument("--config", metavar="YAML", help="a file of `option: value` lines")
    for group_class in GROUPS.values():
        group = parser.add_argument_group((group_class.__doc__ or "").rstrip("."))
        for spec in fields(group_class):
            _add_option(group, spec)
    return parser


def _add_option(group: argparse._ArgumentGroup, spec: Field[Any]) -> None:
    flag, about = _flag(spec), spec.metadata
    text = about["help"].replace("%", "%%") + _default_in_words(spec)
    if about["kind"] is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
    elif about["choices"]:
        group.add_argument(flag, choices=about["choices"], help=text)
    else:
        metavar = {int: "N", float: "X", str: "TEXT"}[about["kind"]]
        group.add_argument(flag, type=about["kind"], metavar=metavar, help=text)


def _flag(spec: Field[Any]) -> str:
    """An option as it is typed."""
    return f"--{spec.name.replace('_', '-')}"


def _default_in_words(spec: Field[Any]) -> str:
    """What a run takes that is told nothing of this option: the default preset's value comes first."""
    usual, own = (
        preset_values(DEFAULT_PRESET, model).get(spec.name, spec.default)
        for model in (ModelConfig.model, _OWN_VALUES)
    )
    if usual in (None, ""):
        return ""
    return f" (default {usual})" if usual == own else f" (default {usual}, for {_OWN_VALUES} {own})"


def _check(spec: Field[Any], value: Any) -> None:
    about, name = spec.metadata, _flag(spec)
    kind = about["kind"]
    if value is None and spec.default is None:
        return
    fits = isinstance(value, (int, float) if kind is float else kind) and not (
        kind in (int, float) and isinstance(value, bool)
    )
    if not fits:
        raise ConfigError(f"{name} is {value!r}; expected {_KINDS[kind]}.")
    if about["choices"] and value not in about["choices"]:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(about['choices'])}.")
    if kind is float and math.isinf(value):
        raise ConfigError(f"{name} is {value}; expected a finite number.")
    if kind in (int, float) and not about["low"] <= value <= about["high"]:
        end = "or more" if math.isinf(about["high"]) else f"to {about['high']:.10g}"
        raise ConfigError(f"{name} is {value}; expected {about['low']:g} {end}.")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; expected a file of `option: value` lines.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; expected lines of `option: value`.")
    flat = {str(name).replace("-", "_"): value for name, value in _flatten(values).items()}
    return {name: _as_number(name, value) for name, value in flat.items()}


def _as_number(name: str, value: Any) -> Any:
    """YAML takes 1e-4, which JSON writes too, for text: read it where a float is expected."""
    if isinstance(value, str) and name in _FLOATS:
        with suppress(ValueError):
            return float(value)
    return value


def _flatten(values: dict[Any, Any]) -> dict[Any, Any]:
    """Take groups apart, so that a saved configuration can be given back with --config."""
    flat: dict[Any, Any] = {}
    for name, value in values.items():
        flat.update(value if isinstance(value, dict) and name in GROUPS else {name: value})
    return flat
