"""A device beside the CPU, made of the CPU's memory: code that mixes the two fails, as it would on a GPU.

What passes between the two is counted. For a process of its own, which imports this before it trains: torch
looks for devices once, and cannot forget one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

_COPIES = {"_to_copy", "to", "copy_"}
_INDEXED = {"index", "index_put", "index_put_"}
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}  # whose result depends on values
_IN_BF16 = ("conv2d", "linear")  # what autocast computes in bf16; the others keep their number format


@dataclass
class Traffic:
    """uploads: bytes of each copy to the device. waits: how often a CPU would have had to wait for a GPU."""

    uploads: list[int] = field(default_factory=list)
    waits: int = 0

    def clear(self) -> None:
        """Count from here."""
        self.uploads.clear()
        self.waits = 0


class OnDevice(torch.Tensor):
    """A tensor on the device. on_cpu: its memory."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor) -> OnDevice:
        tensor: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, on_cpu.shape, on_cpu.stride(), on_cpu.storage_offset(), dtype=on_cpu.dtype, device=DEVICE
        )
        tensor.on_cpu = on_cpu
        return tensor

    def tolist(self) -> Any:
        """torch refuses it for every subclass."""
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as any tensor: checkpoints are loaded on the CPU."""
        return self.on_cpu.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"{self.on_cpu!r} on {DEVICE}"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{operator} outside of fake_device()")


class _Device(TorchDispatchMode):
    def __init__(self, traffic: Traffic, draws_alone: bool) -> None:
        super().__init__()
        self.traffic, self.draws_alone = traffic, draws_alone

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator.overloadpacket.__name__
        leaves = tree_leaves((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        is_on_device = any(isinstance(tensor, OnDevice) for tensor in tensors)
        if is_on_device and name not in _COPIES:
            _require_one_device(operator, args, tensors)
        wanted = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        if name == "copy_":
            stays = isinstance(tensors[0], OnDevice)
        else:
            stays = is_on_device if wanted is None else wanted.type == DEVICE.type
        is_random = torch.Tag.nondeterministic_seeded in operator.tags
        with _GENERATOR.used() if is_random and stays and self.draws_alone else nullcontext():
            result = operator(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs or {}))
        waits = (is_on_device and (not stays or name in _READS)) or (name in _INDEXED and _by_mask(args))
        if stays and name in _COPIES and not isinstance(tensors[-1], OnDevice):
            self.traffic.uploads.append(tensors[-1].nbytes)
            is_blocking = not any(leaf is True for leaf in leaves)
            waits = is_blocking and not _is_asked_by_kornia()
        self.traffic.waits += waits
        written = tensors if operator._schema.is_mutable else []
        return tree_map(lambda leaf: _placed(leaf, written, stays), result)


def _require_one_device(operator: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    # A CPU's scalar may meet the device's tensors, and so may an index.
    if operator.overloadpacket.__name__ in _INDEXED and isinstance(args[0], OnDevice):
        tensors = [leaf for leaf in tree_leaves((args[0], args[2:])) if isinstance(leaf, torch.Tensor)]
    if any(tensor.dim() and not isinstance(tensor, OnDevice) for tensor in tensors):
        raise RuntimeError(f"{operator} of tensors on two devices: {[(t.device, t.shape) for t in tensors]}")


def _by_mask(args: Any) -> bool:
    """Whether an index is a mask on the device: its length depends on values."""
    return any(isinstance(leaf, OnDevice) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1]))


def _is_asked_by_kornia() -> bool:
    """kornia uploads without waiting, but only to devices of type cuda."""
    frame: Any = sys._getframe()
    while frame and "kornia" not in frame.f_code.co_filename:
        frame = frame.f_back
    return bool(frame)


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.on_cpu if isinstance(leaf, OnDevice) else leaf


def _placed(leaf: Any, written: list[torch.Tensor], stays: bool) -> Any:
    """A result where it belongs: what was written in place is the tensor that it was before."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    for tensor in written:
        if leaf is _on_cpu(tensor):
            return tensor
    return OnDevice(leaf) if stays else leaf


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls)

    @contextmanager
    def used(self) -> Iterator[None]:
        """In the block, it draws in place of the CPU's."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.get_state())
        yield
        self.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


_GENERATOR = _Generator()


class _Module(_DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed_all(self, seed: int) -> None:
        _GENERATOR.manual_seed(seed)

    def get_rng_state(self) -> torch.Tensor:
        return _GENERATOR.get_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        _GENERATOR.set_state(state)


def _in_bf16(operator: Any) -> Any:
    def call(*args: Any) -> Any:
        lowered = [
            leaf.to(torch.bfloat16) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
            for leaf in args
        ]
        with _ExcludeDispatchKeyGuard(DispatchKeySet(DispatchKey.AutocastPrivateUse1)):
            return operator(*lowered)

    return call


def _register() -> None:
    _setup_privateuseone_for_python_backend("fake", backend_module=_Module())
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in _IN_BF16:
        some.impl(name, _in_bf16(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    _LIBRARIES.extend((every, some))
    torch.Generator = _Generator  # type: ignore[misc]
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=DEVICE) is a copy, too


@contextmanager
def fake_device(*, draws_alone: bool = False) -> Iterator[Traffic]:
    """In the block DEVICE can be used; yields what has passed between it and the CPU.

    draws_alone: by a generator of its own, as a GPU does; else by the CPU's, so that both draw the same.
    """
    traffic = Traffic()
    with _Device(traffic, draws_alone):
        yield traffic


_LIBRARIES: list[torch.library.Library] = []  # they undo what they did when they are freed
_register()
DEVICE = torch.device("fake", 0)
