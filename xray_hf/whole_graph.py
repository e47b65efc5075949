"""A bundle -> engine.onnx: the whole engine as one graph, from a picture of any size to the decision.

The graph does what xray_hf.inference.engine does once a file is read: grey, resizing, rules, network,
temperature, OOD detector, quality check, abstention. It runs wherever ONNX Runtime does, in a web page too.
Like model.onnx it reads the network's weights from the bundle's safetensors files.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript
from onnx import compose, helper
from onnxscript import BOOL, DOUBLE, FLOAT, INT64, UINT8, optimizer, script

from xray_hf import manifest
from xray_hf.calibration import calibration, ood
from xray_hf.calibration.calibration import Calibration
from xray_hf.errors import ExportError
from xray_hf.files import atomic_file
from xray_hf.inference import quality
from xray_hf.inference.engine import CORRECTIONS
from xray_hf.manifest import Manifest
from xray_hf.task import REJECTED, UNSURE

op: Any = onnxscript.opset20  # what a script calls is a node of the graph, not a function of these types

INPUT = "image"  # (H, W, C) uint8; C is 1 for grey and 3 for RGB
# What the output `reason` counts: why the decision is not a class, in the order in which they are looked at.
REASONS = ("", "too small", "aspect", "coloured", "uniform", "out of distribution", "finding", "unsure")
_TOO_SMALL, _ASPECT, _COLOURED, _UNIFORM, _OUTSIDE, _FINDING, _UNSURE = range(1, len(REASONS))
_LUMA = np.array([[19595], [38470], [7471]], np.float32) / 65536  # Pillow's integers: exact in float32
_COLOUR_SIDE = 64  # pixels on a side that tell the colour
_DECIDED = {
    "probabilities": (FLOAT.dtype, ["classes"]),
    "decision": (INT64.dtype, []),
    "reason": (INT64.dtype, []),
    "ood_score": (FLOAT.dtype, []),
    "findings": (BOOL.dtype, [len(quality.FINDINGS)]),
}
_OF_NETWORK = ("heatmaps", "embedding", "lungs")  # passed on without their batch of one


def export(folder: Path) -> Path:
    """Write engine.onnx into a bundle.

    Raises BundleError for a bundle that cannot be read, ExportError for one without model.onnx, OutputError.
    """
    graph = build(folder)
    with atomic_file(folder / manifest.ENGINE) as temporary:
        onnx.save(graph, temporary)
        onnx.checker.check_model(str(temporary), full_check=True)
    return folder / manifest.ENGINE


def build(folder: Path) -> onnx.ModelProto:
    """The graph; it belongs beside the weights, which it reads. Raises BundleError, ExportError.

    image (H, W, 1 or 3) uint8 -> probabilities (C,) float32; decision () int64, an index of the metadata's
    `decisions`; reason () int64, an index of REASONS; ood_score () float32, 0..1, 0 for a bundle without
    detector; findings (F,) bool, one for each of quality.FINDINGS; and what the network gives of heatmaps
    (C, h, w), embedding (D,) and lungs (g, g), float32.
    """
    description, settings = manifest.read(folder), calibration.read(folder)
    if not (folder / manifest.GRAPH).is_file():
        raise ExportError(f"{folder} holds no {manifest.GRAPH}; run `xray-hf export {folder}` first.")
    network = onnx.load(folder / manifest.GRAPH, load_external_data=False)
    graph = helper.make_graph([], "engine", [helper.make_tensor_value_info(INPUT, UINT8.dtype, "HWC")], [])
    _append(graph, "prepare", _prepare(description.side), {INPUT: INPUT})
    _append(graph, "network", network, {manifest.GRAPH_INPUT: "prepare.pixels"})
    _append(graph, "quality", onnx.load(quality.GRAPH), {"pixels": "prepare.small"})
    inputs = {name: f"prepare.{name}" for name in ("thumbnail", "width", "height", "colour")}
    inputs |= {
        "logits": "network.logits",
        "embedding": "network.embedding",
        "quality_logits": "quality.logits",
    }
    sizes = {output.name: output.type.tensor_type.shape.dim[-1].dim_value for output in network.graph.output}
    _append(graph, "decide", _decide(settings, sizes["logits"], sizes["embedding"]), inputs)
    for name, (dtype, shape) in _DECIDED.items():
        graph.node.append(helper.make_node("Identity", [f"decide.{name}"], [name]))
        graph.output.append(helper.make_tensor_value_info(name, dtype, shape))
    graph.initializer.append(helper.make_tensor("batch", INT64.dtype, [1], [0]))
    for output in network.graph.output:
        if (name := output.name) in _OF_NETWORK:
            shape = [size.dim_value for size in output.type.tensor_type.shape.dim[1:]]
            graph.node.append(helper.make_node("Squeeze", [f"network.{name}", "batch"], [name]))
            graph.output.append(helper.make_tensor_value_info(name, FLOAT.dtype, shape))
    whole = helper.make_model(
        graph,
        ir_version=network.ir_version,
        opset_imports=[helper.make_opsetid("", op.version)],
        producer_name="xray_hf",
    )
    helper.set_model_props(whole, _metadata(network, description))
    return whole


def _append(graph: onnx.GraphProto, name: str, part: onnx.ModelProto, inputs: Mapping[str, str]) -> None:
    """Add a model to a graph; its values get its name as a prefix. inputs: {its input: a value so far}."""
    own = compose.add_prefix(part, f"{name}.").graph
    graph.node.extend(
        helper.make_node("Identity", [value], [f"{name}.{own}"]) for own, value in inputs.items()
    )
    graph.node.extend(own.node)
    graph.initializer.extend(own.initializer)


def _metadata(network: onnx.ModelProto, description: Manifest) -> dict[str, str]:
    """The words behind the numbers, as lists in JSON; the bundle's version, the digests of its weights."""
    lists = {
        "labels": list(description.labels),
        "decisions": [*description.labels, UNSURE, REJECTED],
        "reasons": list(REASONS),
        "findings": list(quality.FINDINGS),
    }
    own = {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()}
    digests = {entry.key: entry.value for entry in network.metadata_props}
    return {**digests, **own, "name": description.name, "version": manifest.version(description.folder)}


def _prepare(side: int) -> onnx.ModelProto:
    """image (H, W, C) uint8 -> what the networks see, and what the rules look at.

    pixels, small, thumbnail: (1, 1, n, n) uint8. width, height: (1,) int64. colour: () float32, as
    Reading.colour.
    """
    large, small_, tiny = ([1, 1, each, each] for each in (side, quality.SIDE, ood.THUMBNAIL_SIDE))

    @script(default_opset=op)
    def prepare(image):
        height, width, _ = op.Split(op.Shape(image), num_outputs=3)
        rgb = op.Expand(image, op.Constant(value_ints=[1, 1, 3]))
        luma = op.Floor(op.MatMul(op.Cast(rgb, to=FLOAT.dtype), op.Constant(value=_LUMA)) + 0.5)
        batch = op.Concat(op.Constant(value_ints=[1, 1]), height, width, axis=0)
        grey = op.Reshape(op.Cast(luma, to=UINT8.dtype), batch)
        # Pillow's bilinear filter; it leaves out what lies beyond the edges.
        pixels = op.Resize(
            grey, None, None, op.Constant(value_ints=large), mode="linear", antialias=1, exclude_outside=1
        )
        small = op.Resize(
            pixels, None, None, op.Constant(value_ints=small_), mode="linear", antialias=1, exclude_outside=1
        )
        thumbnail = op.Resize(
            pixels, None, None, op.Constant(value_ints=tiny), mode="linear", antialias=1, exclude_outside=1
        )
        # Pillow's nearest neighbours on a grid of at most _COLOUR_SIDE pixels a side.
        n_rows = op.Min(height, op.Constant(value_ints=[_COLOUR_SIDE]))
        n_columns = op.Min(width, op.Constant(value_ints=[_COLOUR_SIDE]))
        row_step = op.Cast(height, to=DOUBLE.dtype) / op.Cast(n_rows, to=DOUBLE.dtype)
        column_step = op.Cast(width, to=DOUBLE.dtype) / op.Cast(n_columns, to=DOUBLE.dtype)
        rows = op.Cast(op.Range(0, op.Squeeze(n_rows), 1), to=DOUBLE.dtype)
        columns = op.Cast(op.Range(0, op.Squeeze(n_columns), 1), to=DOUBLE.dtype)
        some_rows = op.Gather(rgb, op.Cast((rows + 0.5) * row_step, to=INT64.dtype), axis=0)
        some = op.Gather(some_rows, op.Cast((columns + 0.5) * column_step, to=INT64.dtype), axis=1)
        few = op.Cast(some, to=FLOAT.dtype)
        last = op.Constant(value_ints=[2])
        colour = op.ReduceMean(op.ReduceMax(few, last) - op.ReduceMin(few, last), keepdims=0) / 255.0
        return pixels, small, thumbnail, width, height, colour

    return optimizer.optimize(prepare.to_model_proto())


def _decide(settings: Calibration, classes: int, features: int) -> onnx.ModelProto:
    """What the networks give -> probabilities, decision, reason, ood_score, findings.

    classes, features: how many logits and embedding have.
    """
    temperature, lowest = (np.float32(each) for each in (settings.temperature, settings.abstain_below))
    detector = settings.detector or ood.Detector(
        np.zeros(features, np.float32), np.zeros(ood.THUMBNAIL_SIDE**2, np.float32), bias=-80.0
    )
    of_embedding, of_thumbnail = (part[:, None] for part in (detector.embedding, detector.thumbnail))
    bias = np.float32(detector.bias)
    is_correction = np.array([name in CORRECTIONS for name in quality.FINDINGS])
    narrow, wide = ood.ASPECTS
    min_side, max_colour, min_contrast = ood.MIN_SIDE, ood.MAX_COLOUR, ood.MIN_CONTRAST
    reject_above, softening = ood.REJECT_ABOVE, ood.SOFTENING

    @script(default_opset=op)
    def decide(logits, embedding, thumbnail, width, height, colour, quality_logits):
        first = op.Constant(value_ints=[0])
        probabilities = op.Squeeze(op.Softmax(logits / op.Constant(value=temperature), axis=1), first)
        values = op.Reshape(op.Cast(thumbnail, to=FLOAT.dtype), op.Constant(value_ints=[1, -1]))
        centred = values - op.ReduceMean(values)
        contrast = op.Sqrt(op.ReduceMean(centred * centred, keepdims=0))
        of_looks = op.MatMul(centred / (contrast + softening), op.Constant(value=of_thumbnail))
        of_features = op.MatMul(embedding, op.Constant(value=of_embedding))
        ood_score = op.Squeeze(op.Sigmoid(of_features + of_looks + op.Constant(value=bias)))
        findings = op.Squeeze(quality_logits, first) > 0.0
        to_correct = op.Cast(op.And(findings, op.Constant(value=is_correction)), to=INT64.dtype)

        aspect = op.Cast(op.Squeeze(width), to=DOUBLE.dtype) / op.Cast(op.Squeeze(height), to=DOUBLE.dtype)
        unsure = op.ReduceMax(probabilities, keepdims=0) < op.Constant(value=lowest)
        why = op.Where(unsure, op.Constant(value_int=_UNSURE), op.Constant(value_int=0))
        why = op.Where(op.ReduceMax(to_correct, keepdims=0) > 0, _FINDING, why)
        why = op.Where(ood_score > reject_above, _OUTSIDE, why)
        why = op.Where(contrast < min_contrast, _UNIFORM, why)
        why = op.Where(colour > max_colour, _COLOURED, why)
        why = op.Where(op.Or(aspect < narrow, aspect > wide), _ASPECT, why)
        reason = op.Where(op.Squeeze(op.Min(width, height)) < min_side, _TOO_SMALL, why)
        best = op.ArgMax(probabilities, axis=0, keepdims=0)
        decision = op.Where(
            reason == 0,
            best,
            op.Where(reason == _UNSURE, op.Constant(value_int=classes), op.Constant(value_int=classes + 1)),
        )
        return probabilities, decision, reason, ood_score, findings

    return optimizer.optimize(decide.to_model_proto())
