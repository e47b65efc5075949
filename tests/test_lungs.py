"""Lungs are found and cropped alike in training and in every backend; an image without any stays whole."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from running import run_training
from safetensors.torch import load_file, save_file

from xray_hf import bundle, manifest, snippets
from xray_hf.data.synthetic import sample_images
from xray_hf.demo import answers, rendering
from xray_hf.demo.models import Model
from xray_hf.demo.uploads import Upload
from xray_hf.errors import BundleError, ConfigError, DataError, ModelError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.export import export
from xray_hf.files import write_json
from xray_hf.hub import publish
from xray_hf.inference import Engine
from xray_hf.inference.engine import NO_LUNGS
from xray_hf.models import create_model
from xray_hf.models.lungs import GRID, MARGIN, LungCrop, LungUNet, boxes, crop, standardise, uncrop
from xray_hf.models.one_pass import OnePass
from xray_hf.reading import resize
from xray_hf.training import lung_crops
from xray_hf.training.config import parse
from xray_hf.training.lung_crops import crop_lungs

pytestmark = pytest.mark.slow

SIDE = 160


@pytest.fixture(scope="module")
def patients() -> np.ndarray:
    """Synthetic patients: (N, SIDE, SIDE) uint8."""
    return np.stack([resize(image, SIDE) for _, image in sample_images(4, seed=1)])


@pytest.fixture(scope="module")
def trained(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a network that sees the lungs only, after one epoch, with its graph."""
    out = tmp_path_factory.mktemp("runs") / "lungs"
    options = ["--model", "xray-cnn", "--crop", "lungs", "--side", "96", "--epochs", "1", "--device", "cpu"]
    run_training("--data-dir", synthetic, "--out", out, *options, "--precision", "fp32", draws=False)
    export(out / "bundle")
    return out / "bundle"


def test_training_says_in_how_many_images_lungs_were_found(trained: Path) -> None:
    assert manifest.read_json(trained / manifest.TRAINING)["lungs_found"] == len(
        Predictions.read(trained / manifest.PREDICTIONS)
    )


def test_the_graph_reads_the_lungs_from_their_own_file(trained: Path) -> None:
    assert (trained / manifest.GRAPH).stat().st_size < 150_000
    graph = onnx.load(trained / manifest.GRAPH, load_external_data=False).graph
    read = {
        tensor.name.removeprefix("lungs.segment.").removesuffix(".half")
        for tensor in graph.initializer
        if tensor.external_data and tensor.external_data[0].value == manifest.LUNGS
    }
    assert read == {
        name for name in load_file(trained / manifest.LUNGS) if not name.endswith("num_batches_tracked")
    }


def mask(top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    drawn = torch.zeros(1, 100, 100)
    drawn[0, top:bottom, left:right] = 1
    return drawn


def test_the_network_is_small() -> None:
    assert sum(value.numel() for value in LungUNet().parameters()) <= 500_000


def test_the_box_is_that_of_the_mask_and_a_margin() -> None:
    box, found = boxes(mask(20, 80, 10, 90))
    assert found.item()
    expected = torch.tensor([0.2 - MARGIN, 0.8 + MARGIN, 0.1 - MARGIN, 0.9 + MARGIN])
    torch.testing.assert_close(box[0], expected, atol=0.011, rtol=0)


def test_a_speck_far_from_the_lungs_does_not_stretch_the_box() -> None:
    lungs = mask(20, 80, 10, 90)
    with_speck = lungs.clone()
    with_speck[0, 97:99, 97:99] = 1
    torch.testing.assert_close(boxes(with_speck)[0], boxes(lungs)[0], atol=0.011, rtol=0)


@pytest.mark.parametrize("area", [mask(0, 0, 0, 0), mask(10, 20, 10, 20)])
def test_without_lungs_the_box_is_the_whole_image(area: torch.Tensor) -> None:
    box, found = boxes(area)
    assert not found.item()
    assert box.tolist() == [[0, 1, 0, 1]]
    image = torch.rand(1, 1, SIDE, SIDE)
    torch.testing.assert_close(crop(image, box, SIDE), image, atol=1e-4, rtol=0)


def test_the_crop_is_what_is_inside_the_box_and_is_put_back_there() -> None:
    image = torch.zeros(1, 1, 160, 160)
    image[:, :, 40:80, 60:140] = 200
    box = torch.tensor([[40 / 160, 80 / 160, 60 / 160, 140 / 160]])
    inside = crop(image, box, 160)
    assert inside[0, 0, 5:-5, 5:-5].sub(200).abs().max() < 0.01
    back = uncrop(inside, box)[0, 0]
    assert back.shape == (GRID, GRID)
    assert back[5:7, 7:13].sub(200).abs().max() < 0.01
    assert back[:3].eq(0).all()
    assert back[:, :5].eq(0).all()


def test_brightness_and_contrast_do_not_reach_the_network(patients: np.ndarray) -> None:
    images = torch.from_numpy(patients).float().unsqueeze(1)
    found = standardise(images)
    torch.testing.assert_close(standardise(images * 0.4 + 70), found, atol=2.0, rtol=0)
    assert found.mean(dim=(1, 2, 3)).sub(127.5).abs().max() < 5
    assert standardise(torch.full((1, 1, 8, 8), 90.0)).sub(127.5).abs().max() < 1e-3


def test_lungs_are_found_in_every_synthetic_patient(patients: np.ndarray) -> None:
    box, lungs = LungCrop.load()(torch.from_numpy(patients).float().unsqueeze(1))
    assert (box[:, 1] - box[:, 0]).gt(0.4).all()
    assert (box[:, 3] - box[:, 2]).gt(0.5).all()
    assert lungs.mean(dim=(1, 2)).gt(0.15).all()
    assert lungs[:, GRID // 2, [3, -4]].gt(0.5).all()  # one to the left, one to the right


def test_grey_values_do_not_move_the_box(patients: np.ndarray) -> None:
    lungs, images = LungCrop.load(), torch.from_numpy(patients).float().unsqueeze(1)
    torch.testing.assert_close(lungs(images)[0], lungs(images * 0.5 + 40)[0], atol=0.03, rtol=0)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def test_training_sees_the_crops_of_the_rows_that_it_asks_for(
    patients: np.ndarray, accelerator: Accelerator
) -> None:
    class Memory:
        def gather(self, rows: np.ndarray) -> np.ndarray:
            return patients[rows]

    lungs = LungCrop.load()
    cropped = crop_lungs(lungs, Memory(), len(patients), 80, accelerator)
    assert cropped.found == len(patients)
    rows = np.asarray([3, 0, 3])
    images = torch.from_numpy(patients[rows]).float().unsqueeze(1)
    expected = standardise(crop(images, lungs(images)[0], 80)).squeeze(1).detach().numpy()
    assert np.abs(cropped.gather(rows) - expected).max() <= 1e-3


def test_boxes_are_found_once(
    patients: np.ndarray, accelerator: Accelerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        def gather(self, rows: np.ndarray) -> np.ndarray:
            return patients[rows]

    def again(count: int = len(patients)) -> lung_crops.Cropped:
        return crop_lungs(LungCrop.load(), Memory(), count, 80, accelerator, tmp_path)

    first = again()
    monkeypatch.setattr(lung_crops, "_find", None)
    second = again()
    assert torch.equal(second.boxes, first.boxes)
    assert second.found == first.found
    with pytest.raises(TypeError, match="not callable"):
        again(3)  # other images
    (kept,) = tmp_path.glob("lungs-*.npy")
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(DataError, match="delete this file"):
        again()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_the_engine_sees_what_training_saw(trained: Path, synthetic: Path, backend: str) -> None:
    engine = Engine.from_pretrained(trained, backend=backend)
    table = Predictions.read(trained / manifest.PREDICTIONS)
    files = {path.name: path for path in synthetic.rglob("*.jpeg")}
    for row in (0, len(table) // 2, len(table) - 1):
        found = engine.predict(files[str(table.file_name[row])])
        np.testing.assert_allclose(found.logits, table.logits[row], atol=1e-3)
        assert found.lungs is not None
        assert found.lungs.any()
        assert found.heatmap is not None
        assert found.heatmap.shape == (GRID, GRID)
        assert found.heat_in_lungs is None or 0 <= found.heat_in_lungs <= 1
        assert NO_LUNGS not in found.warnings


def test_an_image_without_lungs_is_seen_whole_and_says_so(trained: Path, tmp_path: Path) -> None:
    engine = Engine.from_pretrained(trained)
    file = tmp_path / "ramp.png"
    Image.linear_gradient("L").save(file)
    found = engine.predict(file)
    assert found.lungs is not None
    assert not found.lungs.any()
    assert NO_LUNGS in found.warnings
    served = {"model": Model.of(engine, "model")}
    (answer,) = answers.answer(served, [Upload("ramp.png", lambda: file)])
    assert NO_LUNGS in rendering.as_json(answer)["warnings"]
    assert NO_LUNGS in rendering.as_html(served, [answer])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:convnext_atto"])
def test_any_network_of_timm_can_be_cropped_and_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = replace(create_model(name, pretrained=False), lungs=LungCrop.load())
    bundle.save_network(network, tmp_path)
    assert export(tmp_path)["outputs"] == ["logits", "embedding", "lungs"]
    pixels = torch.zeros(1, 1, network.side, network.side, dtype=torch.uint8)
    assert OnePass(network).eval().grad_cam(pixels).shape == (1, 3, GRID, GRID)


def test_other_libraries_are_said_to_see_the_whole_image(trained: Path) -> None:
    notes = {each.title: each.note for each in snippets.of_model(manifest.read(trained))}
    assert list(notes) == ["xray_hf", "transformers"]
    assert [title for title, note in notes.items() if snippets.WHOLE_IMAGE in note] == ["transformers"]


def test_the_card_says_what_the_network_sees_and_the_lungs_go_to_the_hub_with_it(trained: Path) -> None:
    plan = publish.of_bundle(trained, "owner/name")
    assert manifest.LUNGS in plan.files
    card = plan.files[manifest.CARD]
    assert isinstance(card, bytes)
    assert "- **Sees:** the lungs only." in card.decode()
    assert "96×96 pixels" in card.decode()
    assert "144×144 pixels" in card.decode()


def test_a_bundle_with_damaged_lungs_is_refused(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    weights = load_file(copy / manifest.LUNGS)
    weights["head.bias"].fill_(torch.nan)
    save_file(weights, copy / manifest.LUNGS)
    with pytest.raises(BundleError, match="not finite"):
        bundle.load(copy)
    (copy / manifest.LUNGS).unlink()
    with pytest.raises(BundleError, match="cannot be loaded"):
        bundle.load(copy)


@pytest.mark.parametrize(("key", "value"), [("xray_hf_crop", "heart"), ("size", {"height": 64.5})])
def test_a_crop_that_nobody_knows_is_refused(trained: Path, tmp_path: Path, key: str, value: object) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    path = copy / (manifest.PREPROCESSOR if key == "size" else manifest.CONFIG)
    write_json(path, {**manifest.read_json(path), key: value})
    with pytest.raises(BundleError, match=r"heart|64\.5"):
        manifest.read(copy)


def test_lungs_are_not_sought_where_a_view_hides_them() -> None:
    with pytest.raises(ConfigError, match="--crop needs to see the lungs"):
        parse(["--data-dir", "d", "--crop", "lungs", "--view", "border"])


def test_an_input_that_no_bundle_may_have_is_refused_before_training() -> None:
    network = replace(create_model("xray-cnn", pretrained=False, side=1400), lungs=LungCrop())
    with pytest.raises(ModelError, match="here 2100 pixels"):
        network.require_side()
