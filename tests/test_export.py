"""The graph answers as torch does, its heatmaps are class activation maps, a wrong graph is never written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import load_file
from torch import nn

from xray_hf import bundle, export, manifest
from xray_hf.errors import BundleError, ExportError
from xray_hf.files import write_json
from xray_hf.models import Network, create_model
from xray_hf.models.one_pass import OnePass
from xray_hf.reading import read_grey, resize

pytestmark = pytest.mark.slow

SIDE = 224


def make_bundle(folder: Path, name: str) -> Path:
    """A bundle of random weights, with batch statistics that differ from the initial ones."""
    torch.manual_seed(5)
    network = create_model(name, pretrained=False)
    network.module.train()
    with torch.no_grad():
        for _ in range(3):
            network.module(torch.randn(4, 3, SIDE, SIDE))
    bundle.save_network(network, folder)
    write_json(folder / manifest.TRAINING, {"is_synthetic": True})
    return folder


@pytest.fixture(scope="module", params=["xray-resnet18", "xray-cnn"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp(request.param), request.param)
    bundle.store_in_half(folder)
    export.export(folder)
    return folder


@pytest.fixture(scope="module")
def network(folder: Path) -> Network:
    return bundle.load(folder)


def run(folder: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(folder / manifest.GRAPH)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


@pytest.mark.parametrize("batch", [1, 3])
def test_graph_and_torch_agree_on_every_output(folder: Path, network: Network, batch: int) -> None:
    pixels = export.probe_images(SIDE)[:batch]
    with torch.inference_mode():
        expected = OnePass(network).eval()(torch.from_numpy(pixels))
    found = run(folder, pixels)
    assert list(found) == ["logits", "heatmaps", "embedding"]
    for value, other in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, other.numpy(), atol=1e-4)


def test_the_graph_reads_its_weights_from_the_weights_of_the_bundle(folder: Path) -> None:
    graph = onnx.load(folder / manifest.GRAPH, load_external_data=False)
    content, weights = (folder / manifest.WEIGHTS).read_bytes(), load_file(folder / manifest.WEIGHTS)
    read = set()
    for tensor in graph.graph.initializer:
        if not tensor.external_data:
            assert np.prod(tensor.dims) <= 512  # scale, shift, axes, biases of 0
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == manifest.WEIGHTS
        name = tensor.name.removeprefix("inside.network.").removesuffix(".half")
        begin = int(place["offset"])
        assert content[begin : begin + int(place["length"])] == weights[name].numpy().tobytes()
        read.add(name)
    assert read == {name for name in weights if not name.endswith("num_batches_tracked")}
    assert (folder / manifest.GRAPH).stat().st_size < 100_000


def test_weights_in_half_precision_are_computed_in_float(folder: Path) -> None:
    graph = onnx.load(folder / manifest.GRAPH, load_external_data=False)
    kinds = {tensor.data_type for tensor in graph.graph.initializer if np.prod(tensor.dims) >= 10_000}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert {output.type.tensor_type.elem_type for output in graph.graph.output} == {onnx.TensorProto.FLOAT}
    assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_graph_names_no_file_of_this_machine(folder: Path) -> None:
    assert b"site-packages" not in (folder / manifest.GRAPH).read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in (folder / manifest.GRAPH).read_bytes()


def test_the_mean_of_a_heatmap_is_the_logit(folder: Path) -> None:
    found = run(folder, export.probe_images(SIDE)[:4])
    np.testing.assert_allclose(found["heatmaps"].mean(axis=(2, 3)), found["logits"], atol=1e-5)


def test_heatmaps_agree_with_the_grad_cam_package(folder: Path, network: Network) -> None:
    pixels = export.probe_images(SIDE)[:3]
    heatmaps = run(folder, pixels)["heatmaps"]
    inputs = network.preprocessing.normalise(torch.from_numpy(pixels[:, 0]))
    is_cnn = not network.is_timm
    last: nn.Module = network.module.features[-1] if is_cnn else network.module.layer4[-1]
    module = Logits(network.module) if is_cnn else network.module
    bias = network.module.get_classifier().bias.detach().numpy()
    for k in range(3):
        with GradCAM(model=module, target_layers=[last]) as cam:
            theirs = cam(inputs, targets=[ClassifierOutputTarget(k)] * len(pixels))
        ours = np.maximum(heatmaps[:, k] - bias[k], 0)  # theirs knows no bias and cuts off below 0
        for mine, other in zip(ours, theirs, strict=True):
            small = np.asarray([row[16::32] for row in other[16::32]])  # 224 to 7, at the cells' middles
            if mine.max() > 0:
                assert np.corrcoef(mine.ravel(), small.ravel())[0, 1] > 0.99


class Logits(nn.Module):
    """A transformers model as grad-cam wants it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.module(inputs).logits


def test_a_head_that_is_not_linear_has_a_graph_without_heatmaps(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path, "timm:convnext_atto")
    report = export.export(folder)
    assert report["outputs"] == ["logits", "embedding"]
    module = OnePass(bundle.load(folder)).eval()
    pixels = torch.from_numpy(export.probe_images(SIDE)[:2])
    assert module.grad_cam(pixels).shape == (2, 3, 7, 7)


def test_grad_cam_equals_the_exact_map_where_both_exist() -> None:
    module = OnePass(create_model("xray-resnet18", pretrained=False)).eval()
    pixels = torch.from_numpy(export.probe_images(SIDE)[:2])
    with torch.no_grad():
        exact = module(pixels)[1]
    bias = module.inside.network.get_classifier().bias.detach()[None, :, None, None]
    torch.testing.assert_close(49 * module.grad_cam(pixels), exact - bias, atol=1e-5, rtol=1e-3)


def test_tokens_have_a_map_of_their_grid() -> None:
    module = OnePass(create_model("timm:vit_tiny_patch16_224", pretrained=False)).eval()
    assert module.outputs == ("logits", "embedding")
    assert module.grad_cam(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)).shape == (1, 3, 14, 14)


def test_a_graph_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bundle(tmp_path, "xray-cnn")
    (folder / manifest.GRAPH).write_bytes(b"of an earlier export")

    def break_weights(graph: onnx.ModelProto, *_: object) -> None:
        tensor = max(graph.graph.initializer, key=lambda each: np.prod(each.dims))
        tensor.raw_data = np.zeros(int(np.prod(tensor.dims)), np.float32).tobytes()

    monkeypatch.setattr(export, "point_into", break_weights)
    with pytest.raises(ExportError, match=r"differs from torch by .* was not written"):
        export.export(folder)
    assert (folder / manifest.GRAPH).read_bytes() == b"of an earlier export"


def test_weights_in_full_precision_are_read_as_they_are(cnn_bundle: Path) -> None:
    assert (cnn_bundle / manifest.GRAPH).stat().st_size < 100_000
    graph = onnx.load(cnn_bundle / manifest.GRAPH, load_external_data=False).graph
    assert {tensor.data_type for tensor in graph.initializer if tensor.external_data} == {
        onnx.TensorProto.FLOAT
    }


def test_a_folder_that_is_no_bundle_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json is missing"):
        export.export(tmp_path)


@pytest.mark.real
def test_graph_and_torch_agree_on_real_images(folder: Path, network: Network, real_data: Path) -> None:
    files = sorted(real_data.rglob("*.jpeg"))[::200]
    pixels = np.stack([resize(read_grey(file), SIDE) for file in files])[:, None]
    with torch.inference_mode():
        expected = OnePass(network).eval()(torch.from_numpy(pixels))[0].numpy()
    assert len(files) > 20
    assert np.abs(run(folder, pixels)["logits"] - expected).max() < 1e-4
