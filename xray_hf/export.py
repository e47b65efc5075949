"""A bundle's network -> model.onnx, from grey pixels to logits, class activation maps and embedding.

The graph holds no weights of its own: its initialisers point into the bundle's safetensors files, so the two
cannot disagree. Runtimes cast half precision to float32 and fold batch normalisation when they load it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from onnxscript import optimizer
from safetensors.torch import load_file
from torch import nn

from xray_hf import bundle, manifest
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import ExportError, as_sentence
from xray_hf.files import atomic_file
from xray_hf.models.one_pass import OUTPUTS, OnePass
from xray_hf.reading import resize

MAX_LOGIT_DIFFERENCE = 1e-4  # between the graph and torch
_PROBES = 8  # synthetic patients of each class, in addition to noise and plain images
# {file: the module of OnePass that holds its tensors}
_PREFIXES = {manifest.WEIGHTS: "inside.network.", manifest.LUNGS: "lungs.segment."}


def export(folder: Path) -> dict[str, Any]:
    """Write model.onnx into a bundle, provided that its logits match those of the bundle's network.

    Returns bytes, outputs, and max_logit_difference from torch.
    Raises BundleError for a bundle that cannot be loaded, ExportError if its network cannot be exported or
    the graph's logits differ (then nothing is written), OutputError.
    """
    network = bundle.load(folder)
    module = OnePass(network).eval()
    graph = to_onnx(module, module.outputs, network.side)
    files = manifest.weight_files(network.lungs is not None)
    for name in files:
        point_into(graph, folder / name, _PREFIXES[name])
    helper.set_model_props(graph, {name: manifest.digest(folder / name) for name in files})
    with atomic_file(folder / manifest.GRAPH) as temporary:
        onnx.save(graph, temporary)
        difference = logit_difference(temporary, module, probe_images(network.side))
        if not difference <= MAX_LOGIT_DIFFERENCE:  # NaN is not agreement either
            raise ExportError(
                f"the graph of {folder} differs from torch by {difference:g} in a logit; at most "
                f"{MAX_LOGIT_DIFFERENCE:g} is accepted, so {manifest.GRAPH} was not written. "
                "Use backend torch."
            )
    return {
        "bytes": (folder / manifest.GRAPH).stat().st_size,
        "outputs": list(module.outputs),
        "max_logit_difference": difference,
    }


def probe_images(side: int) -> np.ndarray:
    """Images to compare on, since a bundle holds none: synthetic patients, noise, black and white.

    Returns (N, 1, side, side) uint8.
    """
    patients = [resize(image, side) for _, image in sample_images(_PROBES, seed=0)]
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side), dtype=np.uint8)
    plain = [np.full((side, side), grey, np.uint8) for grey in (0, 255)]
    return np.stack([*patients, *noise, *plain])[:, None]


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
            opset_version=20,
            dynamo=True,
            optimize=False,  # it would fold the weights
            verbose=False,
        )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ExportError(
            f"torch cannot export this network to ONNX: {as_sentence(error)} Use backend torch."
        ) from error
    assert program is not None  # for mypy: it is None only without dynamo
    _fold_all_but_weights(program.model)
    graph = program.model_proto
    # This metadata names source files and lines on this machine.
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del part.metadata_props[:]
    del graph.graph.value_info[:]
    return graph


def _fold_all_but_weights(model: Any) -> None:
    """Fold constants of an onnx_ir.Model, in place; its initialisers stay as they are in the files."""
    weights = set(model.graph.initializers)

    def should_fold(node: Any) -> bool | None:
        reads_weights = any(value is not None and value.name in weights for value in node.inputs)
        return False if reads_weights else None  # None: as usual

    optimizer.fold_constants_ir(model, should_fold=should_fold)
    optimizer.remove_unused_nodes(model)


def point_into(graph: onnx.ModelProto, weights: Path, prefix: str) -> None:
    """Let a graph read its initialisers from a safetensors file beside it, wherever that has the same values.

    prefix: what precedes the file's names in the graph. Tensors in half precision are cast to float32.
    """
    stored = load_file(weights)
    # The format: 8 bytes with the header's length, the header in JSON, then the tensors.
    with weights.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    named = {f"{prefix}{name}": (value, header[name]) for name, value in stored.items()}
    for tensor in graph.graph.initializer:
        value, entry = named.get(tensor.name, (None, None))
        if value is None or entry is None or entry["dtype"] not in ("F16", "F32"):
            continue
        if not np.array_equal(value.float().numpy(), numpy_helper.to_array(tensor)):
            continue
        if entry["dtype"] == "F16":
            half = f"{tensor.name}.half"
            cast = helper.make_node("Cast", [half], [tensor.name], to=TensorProto.FLOAT)
            graph.graph.node.insert(0, cast)
            tensor.name, tensor.data_type = half, TensorProto.FLOAT16
        begin, end = entry["data_offsets"]
        set_external_data(tensor, weights.name, start + begin, end - begin)
        tensor.ClearField("raw_data")


def logit_difference(graph: Path, module: nn.Module, pixels: np.ndarray) -> float:
    """The largest difference of a logit between a graph in ONNX Runtime and a module in torch."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    logits = session.run([OUTPUTS[0]], {manifest.GRAPH_INPUT: pixels})[0]
    with torch.inference_mode():
        expected = module(torch.from_numpy(pixels))[0].numpy()
    return float(np.abs(logits - expected).max())
