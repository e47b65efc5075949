"""Start a network from a safetensors file that holds some or all of its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from xray_hf.errors import ModelError


@dataclass(frozen=True)
class LoadedWeights:
    """Which tensors of a network came from a file.

    file: its name. metadata: what it says of itself. loaded: how many tensors came from it. of: how many the
    network has. random: modules and tensors that the file lacks, which keep their random values. unused:
    those that only the file has. misfits: {tensor: the file's shape, and the network's}; also random.
    """

    file: str
    sha256: str
    metadata: dict[str, str]
    loaded: int
    of: int
    random: tuple[str, ...]
    unused: tuple[str, ...]
    misfits: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, and the sentence that sums them up."""
        return {**asdict(self), "summary": str(self)}

    def __str__(self) -> str:
        wrong = [f"{name} ({shapes})" for name, shapes in self.misfits.items()]
        lists = {"random": self.random, "random (shape differs)": wrong, "unused": self.unused}
        said = [f"{name}: {', '.join(names)}" for name, names in lists.items() if names]
        return "; ".join([f"{self.loaded} of the network's {self.of} tensors come from {self.file}", *said])


def load_initial_weights(module: nn.Module, path: Path) -> LoadedWeights:
    """Copy every tensor of a safetensors file whose name and shape fit, in the network's number format.

    Raises ModelError for a file that cannot be read, that fits nothing, or with values that are not finite.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); expected a safetensors file.") from error
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a valid safetensors file ({error}); expected weights saved by safetensors."
        ) from error
    own = module.state_dict()
    both = [name for name in own if name in found]
    fits = [name for name in both if found[name].shape == own[name].shape and not found[name].is_complex()]
    if not any(own[name].is_floating_point() for name in fits):
        raise ModelError(
            f"{path} fits no tensor of the network: it holds {_first(found)}, the network {_first(own)}; "
            "pass the --model that the file belongs to."
        )
    for name in fits:
        values = found[name].to(own[name].dtype)
        if not torch.isfinite(values).all():
            raise ModelError(
                f"{name} in {path} has values that {own[name].dtype} cannot hold, or that are not numbers."
            )
        own[name].copy_(values)  # shares its memory with the network
    return LoadedWeights(
        path.name,
        sha256,
        metadata,
        loaded=len(fits),
        of=len(own),
        random=_modules(own.keys() - found, own),
        unused=_modules(found.keys() - own, found),
        misfits={
            name: f"{_shape(found[name])}, expected {_shape(own[name])}" for name in both if name not in fits
        },
    )


def _modules(names: Collection[str], every: Iterable[str]) -> tuple[str, ...]:
    """Names of tensors; a module stands for all of its tensors if all are among them."""
    others = [name for name in every if name not in names]

    def shortest(name: str) -> str:
        ends = [k for k, character in enumerate(name) if character == "."]
        whole = (name[:end] for end in ends if not any(o.startswith(name[: end + 1]) for o in others))
        return next(whole, name)

    return tuple(dict.fromkeys(shortest(name) for name in every if name in names))


def _first(names: Iterable[str]) -> str:
    first, *more = list(names)[:4] or ["no tensor"]
    return ", ".join([first, *more[:2], *(["…"] if len(more) > 2 else [])])


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
