"""Inference backends: grey pixels -> logits, class activation maps, embedding; ONNX Runtime, OpenVINO, torch.

Each backend is loaded for a number of simultaneous calls and of threads for each: one call on all cores
is fastest for a single image, one call per core is fastest for many. Calls from more threads wait.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from xray_hf import cores
from xray_hf.errors import BundleError, ConfigError
from xray_hf.extras import installation
from xray_hf.manifest import GRAPH, GRAPH_INPUT, Manifest, read, require_weights, weight_files


@dataclass(frozen=True)
class Outputs:
    """logits (B, C), class activation maps (B, C, h, w) or None, embedding (B, D); all float32.

    lungs: (B, g, g) float32, the share of each part of the image that is lung, all 0 where none were found;
    None for a network that does not look for them.
    """

    logits: np.ndarray
    heatmaps: np.ndarray | None
    embedding: np.ndarray
    lungs: np.ndarray | None


class Backend(Protocol):
    """A bundle's network, loaded."""

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run it on (B, 1, side, side) uint8."""
        ...


class OnnxRuntime:
    """The bundle's graph on ONNX Runtime's CPU provider, in float32."""

    def __init__(self, manifest: Manifest, threads: int, calls: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            str(manifest.folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, pixels: np.ndarray) -> Outputs:
        return _outputs(self._names, self._session.run(self._names, {GRAPH_INPUT: pixels}))


class OpenVino:
    """The bundle's graph on OpenVINO, in bfloat16 where the CPU computes it, else in float32."""

    def __init__(self, manifest: Manifest, threads: int, calls: int) -> None:
        # openvino reports its import to Google Analytics, unless this package is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        core = openvino.Core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        # bfloat16 is too coarse for the position of a crop.
        use_bf16 = has_bf16 and not manifest.sees_lungs
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if use_bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads * calls,
            "NUM_STREAMS": calls,
        }
        with _without_links(manifest) as folder:
            self._model = core.compile_model(str(folder / GRAPH), "CPU", options)
        self._names = [output.get_any_name() for output in self._model.outputs]
        self._local = threading.local()  # since a request serves one call at a time

    def run(self, pixels: np.ndarray) -> Outputs:
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        results = self._local.request.infer([pixels])
        return _outputs(self._names, [np.array(results[name]) for name in self._names])


@contextmanager
def _without_links(manifest: Manifest) -> Iterator[Path]:
    """Yield the bundle's folder, or a temporary copy if its files are links, as in the Hub's cache.

    OpenVINO refuses weights behind a link that leads out of the graph's folder.
    """
    files = [manifest.folder / name for name in (GRAPH, *weight_files(manifest.sees_lungs))]
    if not any(file.is_symlink() for file in files):
        yield manifest.folder
        return
    with TemporaryDirectory(prefix="xray-hf-") as copy:
        for file in files:
            shutil.copy(file, copy)
        yield Path(copy)


class Torch:
    """The bundle's network in torch, on a GPU if there is one; needs no graph. torch has its own threads."""

    def __init__(self, manifest: Manifest, threads: int, calls: int) -> None:
        import torch

        from xray_hf import bundle
        from xray_hf.models.full_float32 import full_float32
        from xray_hf.models.one_pass import OnePass

        self._torch, self._full_float32 = torch, full_float32
        # Several processes on one machine use one GPU each.
        gpus, rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
        self._device = f"cuda:{rank % gpus}" if gpus else "cpu"
        self._module = OnePass(bundle.load(manifest.folder)).eval().to(self._device)

    def run(self, pixels: np.ndarray) -> Outputs:
        inputs = self._torch.from_numpy(pixels).to(self._device)
        with self._full_float32():
            with self._torch.no_grad():
                named = dict(zip(self._module.outputs, self._module(inputs), strict=True))
            if not self._module.is_linear:
                named["heatmaps"] = self._module.grad_cam(inputs)
        return _outputs(list(named), [value.cpu().numpy() for value in named.values()])


BACKENDS: dict[str, Callable[[Manifest, int, int], Backend]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "torch": Torch,
}
DEFAULT = "onnxruntime"


def load(name: str, manifest: Manifest, *, threads: int, calls: int = 1) -> Backend:
    """Load a bundle's network. threads: how many one call may use. calls: how many may run at a time.

    Raises ConfigError for a backend that does not exist or is not installed, BundleError if a file that the
    backend needs is missing or damaged, or if graph and weights do not belong together.
    """
    if name not in BACKENDS:
        raise ConfigError(f"there is no backend {name!r}; expected one of {', '.join(BACKENDS)}.")
    if find_spec(name) is None:
        raise ConfigError(f"backend {name} is not installed; run `{installation(name)}`, or choose another.")
    if name != "torch" and not (manifest.folder / GRAPH).is_file():
        raise BundleError(
            f"{manifest.folder} holds no {GRAPH}; run `xray-hf export {manifest.folder}`, or choose "
            "backend torch."
        )
    if name != "torch":
        require_weights(manifest)
    try:
        return BACKENDS[name](manifest, threads, calls)
    except Exception as error:  # the runtimes' exceptions have no common base
        if name == "torch":
            raise
        raise BundleError(
            f"{manifest.folder / GRAPH} cannot be loaded ({error}). Run `xray-hf export {manifest.folder}` "
            "again."
        ) from error


def load_embedder(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A bundle's network on all cores, for its embedding: (B, 1, side, side) uint8 -> (B, D) float32.

    Raises BundleError as `load`.
    """
    network = load(DEFAULT, read(folder), threads=cores.usable())
    return lambda pixels: network.run(pixels).embedding


def _outputs(names: Sequence[str], values: Sequence[Any]) -> Outputs:
    """Sort values into Outputs by name; raises LookupError if a required one is missing."""
    named = dict(zip(names, values, strict=True))
    return Outputs(named["logits"], named.get("heatmaps"), named["embedding"], named.get("lungs"))
