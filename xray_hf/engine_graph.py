"""A bundle -> engine.onnx: the whole engine as one graph, from an image of any size to the decision.

The graph does what xray_hf.inference.engine does once a file is read: grey, resizing, rules, network,
temperature, OOD detector, quality check, abstention. It runs on ONNX Runtime's CPU provider, also as
WebAssembly. Like model.onnx it reads the network's weights from the bundle's safetensors files. The limits of
xray_hf.reading on an image's size are left to the caller.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
from onnx import compose, helper
from onnxscript import BOOL, DOUBLE, FLOAT, INT64, UINT8, optimizer, script

from xray_hf import __version__, manifest
from xray_hf.calibration import ood
from xray_hf.calibration.calibration import Calibration
from xray_hf.data.synthetic import sample_images
from xray_hf.errors import ExportError
from xray_hf.files import atomic_file
from xray_hf.inference import quality
from xray_hf.inference.engine import CORRECTIONS, Engine
from xray_hf.task import REJECTED, UNSURE

op: Any = onnxscript.opset20  # Any: in a script its calls are nodes of the graph

MAX_DIFFERENCE = 0.02  # of a probability from the engine's
INPUT = "image"  # (H, W, C) uint8; C is 1 for grey and 3 for RGB
# Values of `reason`, why the decision is not a class: the first that holds, and "not finite" before them.
REASONS = (
    *("", "too small", "aspect ratio", "coloured", "uniform", "out of distribution", "quality", "unsure"),
    "not finite",  # logits, of damaged weights
)
_SMALL, _ASPECT, _COLOURED, _UNIFORM, _OUTSIDE, _QUALITY, _UNSURE, _NOT_FINITE = range(1, len(REASONS))
# Of grey, then of red, green and blue for luma, which are Pillow's integers: exact in float32.
_WEIGHTS = np.array([[65536], [19595], [38470], [7471]], np.float32) / 65536
_COLOUR_SIDE = 64  # of the grid of pixels on which colour is measured
_DECISIVE = {  # {output: type, shape}
    "probabilities": (FLOAT.dtype, ["classes"]),
    "decision": (INT64.dtype, []),
    "reason": (INT64.dtype, []),
    "ood_score": (FLOAT.dtype, []),
    "findings": (BOOL.dtype, [len(quality.FINDINGS)]),
}
_PASSED_ON = ("heatmaps", "embedding", "lungs")  # from the network, without the batch dimension


def export(folder: Path) -> Path:
    """Write engine.onnx into a bundle, if it answers as the engine does.

    Raises BundleError for a bundle that the engine cannot load, ExportError if the graph cannot be made or
    answers otherwise (nothing is written then), OutputError.
    """
    engine = Engine.from_pretrained(folder)
    if any((folder / name).is_symlink() for name in manifest.weight_files(engine.manifest.sees_lungs)):
        raise ExportError(
            f"the weights in {folder} are links, as in the Hub's cache, which ONNX does not follow; copy the "
            f"bundle first: cp -rL {folder} COPY."
        )
    graph = build(engine)
    with atomic_file(folder / manifest.ENGINE) as temporary:
        onnx.save(graph, temporary)
        onnx.checker.check_model(str(temporary), full_check=True)
        difference = largest_difference(temporary, engine)
        if not difference <= MAX_DIFFERENCE:  # NaN is not agreement either
            raise ExportError(
                f"the graph differs from the engine by {difference:g} in a probability; at most "
                f"{MAX_DIFFERENCE:g} is accepted, so {manifest.ENGINE} was not written."
            )
    return folder / manifest.ENGINE


def largest_difference(graph: Path, engine: Engine) -> float:
    """Compare graph and engine on synthetic patients: the largest difference of a probability."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = 0.0
    for _, image in sample_images(1, seed=0):
        pixels = np.asarray(image)
        (probabilities,) = session.run(["probabilities"], {INPUT: pixels[..., None]})
        expected = [*engine.predict(pixels).probabilities.values()]
        found = np.maximum(found, np.abs(probabilities - expected).max())
    return float(found)


def build(engine: Engine) -> onnx.ModelProto:
    """The graph; it belongs beside the weights, which it reads. Raises ExportError.

    image (H, W, 1 or 3) uint8, grey or RGB -> probabilities (C,) float32; decision () int64, an index of the
    metadata's `decisions`; reason () int64, an index of REASONS; ood_score () float32, 0..1, or 0 if the
    metadata says that there is no `detector`; findings (F,) bool, one for each of quality.FINDINGS; and, if
    the network has them, heatmaps (C, h, w), embedding (D,) and lungs (g, g), float32.
    """
    description = engine.manifest
    folder = description.folder
    network = onnx.load(folder / manifest.GRAPH, load_external_data=False)
    if [(each.domain, each.version) for each in network.opset_import] != [("", op.version)]:
        raise ExportError(
            f"{folder / manifest.GRAPH} uses other operators than ONNX's set {op.version}; run "
            f"`xray-hf export {folder}` again."
        )
    graph = helper.make_graph(
        [], "engine", [helper.make_tensor_value_info(INPUT, UINT8.dtype, ["H", "W", "C"])], []
    )
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
    _append(graph, "decide", _decide(engine.calibration, sizes["logits"], sizes["embedding"]), inputs)
    for name, (dtype, shape) in _DECISIVE.items():
        graph.node.append(helper.make_node("Identity", [f"decide.{name}"], [name]))
        graph.output.append(helper.make_tensor_value_info(name, dtype, shape))
    graph.initializer.append(helper.make_tensor("batch", INT64.dtype, [1], [0]))
    for output in network.graph.output:
        if (name := output.name) in _PASSED_ON:
            shape = [size.dim_value for size in output.type.tensor_type.shape.dim[1:]]
            graph.node.append(helper.make_node("Squeeze", [f"network.{name}", "batch"], [name]))
            graph.output.append(helper.make_tensor_value_info(name, FLOAT.dtype, shape))
    whole = helper.make_model(
        graph,
        ir_version=network.ir_version,
        opset_imports=[helper.make_opsetid("", op.version)],
        producer_name="xray_hf",
        producer_version=__version__,
    )
    helper.set_model_props(whole, _metadata(network, engine))
    return whole


def _append(graph: onnx.GraphProto, name: str, part: onnx.ModelProto, inputs: Mapping[str, str]) -> None:
    """Add a model to a graph; its values get its name as a prefix. inputs: {its input: a value so far}."""
    prefixed = compose.add_prefix(part, f"{name}.").graph
    for own, value in inputs.items():
        graph.node.append(helper.make_node("Identity", [value], [f"{name}.{own}"]))
    graph.node.extend(prefixed.node)
    graph.initializer.extend(prefixed.initializer)


def _metadata(network: onnx.ModelProto, engine: Engine) -> dict[str, str]:
    """Names for the numbers in the outputs, in JSON; the bundle's version, the digests of its weights."""
    meanings = {
        "labels": engine.labels,
        "decisions": [*engine.labels, UNSURE, REJECTED],
        "reasons": REASONS,
        "findings": quality.FINDINGS,
        "detector": engine.calibration.detector is not None,
    }
    own = {name: json.dumps(values, ensure_ascii=False) for name, values in meanings.items()}
    digests = {entry.key: entry.value for entry in network.metadata_props}
    return {**digests, **own, "name": engine.name, "version": manifest.version(engine.manifest.folder)}


def _prepare(side: int) -> onnx.ModelProto:
    """image (H, W, C) uint8 -> inputs of the networks and of the rules.

    pixels, small, thumbnail: (1, 1, n, n) uint8. width, height: (1,) int64. colour: () float32, as
    Reading.colour.
    """
    sides = (side, quality.SIDE, ood.THUMBNAIL_SIDE)
    of_pixels, of_small, of_thumbnail = ([1, 1, each, each] for each in sides)

    @script(default_opset=op)
    def resized(image, shape):
        """Pillow's bilinear filter, which leaves out what lies beyond the edges."""
        return op.Resize(image, None, None, shape, mode="linear", antialias=1, exclude_outside=1)

    @script(default_opset=op)
    def grid(size):
        """Pillow's nearest neighbours: indexes of at most _COLOUR_SIDE of so many rows or columns."""
        n = op.Min(size, op.Constant(value_ints=[_COLOUR_SIDE]))
        step = op.Cast(size, to=DOUBLE.dtype) / op.Cast(n, to=DOUBLE.dtype)
        places = op.Cast(op.Range(0, op.Squeeze(n), 1), to=DOUBLE.dtype)
        return op.Cast((places + 0.5) * step, to=INT64.dtype)

    @script(default_opset=op)
    def prepare(image):
        height, width, depth = op.Split(op.Shape(image), num_outputs=3)
        batch = op.Concat(op.Constant(value_ints=[1, 1]), height, width, axis=0)
        first = depth / 2  # of _WEIGHTS: grey has one weight, RGB three
        weights = op.Slice(op.Constant(value=_WEIGHTS), first, first + depth)
        rows = op.Reshape(image, op.Concat(op.Constant(value_ints=[-1]), depth, axis=0))
        luma = op.Gemm(op.Cast(rows, to=FLOAT.dtype), weights, op.Constant(value_floats=[0.5]))
        grey = op.Reshape(op.Cast(luma, to=UINT8.dtype), batch)  # the cast cuts: with the 0.5 it rounds
        pixels = resized(grey, op.Constant(value_ints=of_pixels))
        small = resized(pixels, op.Constant(value_ints=of_small))
        thumbnail = resized(pixels, op.Constant(value_ints=of_thumbnail))
        sampled_rows = op.Gather(image, grid(height), axis=0)
        sampled = op.Gather(sampled_rows, grid(width), axis=1)
        values = op.Cast(sampled, to=FLOAT.dtype)  # one channel has no spread
        channels = op.Constant(value_ints=[2])
        spread = op.ReduceMax(values, channels) - op.ReduceMin(values, channels)
        colour = op.ReduceMean(spread, keepdims=0) / 255.0
        return pixels, small, thumbnail, width, height, colour

    return optimizer.optimize(prepare.to_model_proto())


def _decide(settings: Calibration, classes: int, features: int) -> onnx.ModelProto:
    """Outputs of the networks -> probabilities, decision, reason, ood_score, findings.

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
        thumbnail_logit = op.MatMul(centred / (contrast + softening), op.Constant(value=of_thumbnail))
        embedding_logit = op.MatMul(embedding, op.Constant(value=of_embedding))
        ood_logit = embedding_logit + thumbnail_logit + op.Constant(value=bias)
        ood_score = op.Squeeze(op.Sigmoid(ood_logit))
        findings = op.Squeeze(quality_logits, first) > 0.0
        to_correct = op.Cast(op.And(findings, op.Constant(value=is_correction)), to=INT64.dtype)

        aspect = op.Cast(op.Squeeze(width), to=DOUBLE.dtype) / op.Cast(op.Squeeze(height), to=DOUBLE.dtype)
        unsure = op.ReduceMax(probabilities, keepdims=0) < op.Constant(value=lowest)
        first_reason = op.Where(unsure, op.Constant(value_int=_UNSURE), op.Constant(value_int=0))
        first_reason = op.Where(op.ReduceMax(to_correct, keepdims=0) > 0, _QUALITY, first_reason)
        first_reason = op.Where(ood_score > reject_above, _OUTSIDE, first_reason)
        first_reason = op.Where(contrast < min_contrast, _UNIFORM, first_reason)
        first_reason = op.Where(colour > max_colour, _COLOURED, first_reason)
        first_reason = op.Where(op.Or(aspect < narrow, aspect > wide), _ASPECT, first_reason)
        first_reason = op.Where(op.Squeeze(op.Min(width, height)) < min_side, _SMALL, first_reason)
        total = op.ReduceSum(logits, keepdims=0)
        reason = op.Where(op.Or(op.IsNaN(total), op.IsInf(total)), _NOT_FINITE, first_reason)
        best = op.ArgMax(probabilities, axis=0, keepdims=0)
        decision = op.Where(
            reason == 0,
            best,
            op.Where(reason == _UNSURE, op.Constant(value_int=classes), op.Constant(value_int=classes + 1)),
        )
        return probabilities, decision, reason, ood_score, findings

    return optimizer.optimize(decide.to_model_proto())
