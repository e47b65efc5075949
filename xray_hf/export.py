"""A bundle's network -> model.onnx, from grey pixels to logits, class activation maps and embedding.

Large weights are stored in half precision, which halves the file, and computed in float32. A bundle keeps
float32 if rounding would change its answers. Batch normalisation is folded in before rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.fx.experimental.optimization import fuse

from xray_hf import bundle, manifest
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import ExportError, as_sentence
from xray_hf.files import atomic_file
from xray_hf.images import resize
from xray_hf.models.one_pass import OUTPUTS, OnePass

MAX_LOGIT_DIFFERENCE = 1e-4  # between the graph and torch on the same weights
MAX_PROBABILITY_CHANGE = 5e-4  # that rounding the weights may cause
_PROBES = 8  # synthetic patients of each class, besides noise and plain images


def export(folder: Path) -> dict[str, Any]:
    """Write model.onnx into a bundle, if it answers as the bundle's network does.

    Returns precision ("half" or "float"), bytes, outputs, max_logit_difference from torch with the same
    weights, and max_probability_change, which rounding them causes or, if too large, would have caused.
    Raises BundleError for a bundle that cannot be loaded, ExportError if its network has no graph or the
    graph answers otherwise (nothing is written then), OutputError.
    """
    network = bundle.load(folder)
    original = OnePass(network).eval()
    pixels = probe_images(network.side)
    rounded = fold_batch_norm(original)
    bundle.round_to_half(rounded)
    change = float((_logits(rounded, pixels).softmax(1) - _logits(original, pixels).softmax(1)).abs().max())
    use_half = change <= MAX_PROBABILITY_CHANGE
    module = rounded if use_half else original
    graph = to_onnx(module, original.outputs, network.side)
    if use_half:
        store_in_half(graph)
    difference = logit_difference(graph, module, pixels)
    if not difference <= MAX_LOGIT_DIFFERENCE:  # NaN is no agreement either
        raise ExportError(
            f"the graph of {folder} differs from torch by {difference:g} in a logit; at most "
            f"{MAX_LOGIT_DIFFERENCE:g} is accepted, so {manifest.GRAPH} was not written. Use backend torch."
        )
    with atomic_file(folder / manifest.GRAPH) as temporary:
        onnx.save(graph, temporary)
    return {
        "precision": "half" if use_half else "float",
        "bytes": (folder / manifest.GRAPH).stat().st_size,
        "outputs": list(original.outputs),
        "max_logit_difference": difference,
        "max_probability_change": change,
    }


def probe_images(side: int) -> np.ndarray:
    """Images to compare on, since a bundle holds none: synthetic patients, noise, black and white.

    Returns (N, 1, side, side) uint8.
    """
    patients = [resize(image, side) for _, image in sample_images(_PROBES, seed=0)]
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side), dtype=np.uint8)
    plain = [np.full((side, side), grey, np.uint8) for grey in (0, 255)]
    return np.stack([*patients, *noise, *plain])[:, None]


def fold_batch_norm(module: OnePass) -> OnePass:
    """A copy with batch normalisation folded into the convolutions, where torch.fx can follow the network.

    Otherwise the exporter folds; the folded weights are not exact in half precision then and stay float.
    """
    folded = copy.deepcopy(module)
    with suppress(torch.fx.proxy.TraceError):
        folded.inside = fuse(copy.deepcopy(module.inside))
    return folded


def to_onnx(module: nn.Module, outputs: Sequence[str], side: int) -> onnx.ModelProto:
    """Export a module of (B, 1, side, side) uint8 with any batch size; raises ExportError."""
    example = torch.zeros(2, 1, side, side, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[manifest.GRAPH_INPUT],
            output_names=list(outputs),
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
        )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ExportError(
            f"torch cannot export this network to ONNX: {as_sentence(error)} Use backend torch."
        ) from error
    assert program is not None  # for mypy: it is None only without dynamo
    graph = program.model_proto
    # They name paths and lines of source code on this machine.
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del part.metadata_props[:]
    del graph.graph.value_info[:]
    return graph


def store_in_half(graph: onnx.ModelProto) -> None:
    """Store in half precision every large tensor that loses nothing by it, cast back when it is loaded."""
    tensors = graph.graph.initializer
    for tensor in [
        t for t in tensors if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= bundle.LARGE
    ]:
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            stored = f"{tensor.name}.half"
            cast = helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT)
            graph.graph.node.insert(0, cast)
            tensors.remove(tensor)
            tensors.append(numpy_helper.from_array(half, stored))


def logit_difference(graph: onnx.ModelProto, module: nn.Module, pixels: np.ndarray) -> float:
    """The largest difference of a logit between a graph in ONNX Runtime and a module in torch."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run([OUTPUTS[0]], {manifest.GRAPH_INPUT: pixels})[0]
    return float(np.abs(logits - _logits(module, pixels).numpy()).max())


@torch.inference_mode()
def _logits(module: nn.Module, pixels: np.ndarray) -> torch.Tensor:
    return module(torch.from_numpy(pixels))[0]
