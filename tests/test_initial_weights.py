"""--initial-weights takes what fits from a file, says what it took, and refuses a file that fits nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xray_hf.errors import ModelError
from xray_hf.models import Network, create_model
from xray_hf.models.initial_weights import LoadedWeights, load_initial_weights


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return create_model("xray-cnn", pretrained=False).module.state_dict()


def start(tmp_path: Path, tensors: dict[str, torch.Tensor], model: str = "xray-cnn") -> Network:
    save_file(tensors, tmp_path / "some.safetensors", {"source": "a paper"})
    torch.manual_seed(2)
    return create_model(model, pretrained=True, initial_weights=tmp_path / "some.safetensors")


def loaded(network: Network) -> LoadedWeights:
    assert network.loaded
    return network.loaded


def test_a_whole_file_gives_every_tensor(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    network = start(tmp_path, tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in network.module.state_dict().items())
    assert network.initial_weights == "some.safetensors"
    assert str(network.loaded) == (
        f"{len(tensors)} of the network's {len(tensors)} tensors come from some.safetensors"
    )
    assert loaded(network).metadata == {"source": "a paper"}
    assert json.loads(json.dumps(loaded(network).as_dict()))["sha256"] == loaded(network).sha256


def test_what_is_missing_is_random_and_what_is_unknown_unused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    some = {name: value for name, value in tensors.items() if not name.startswith("features.1")}
    some["extra.bias"] = torch.zeros(3)
    network = start(tmp_path, some)
    own = network.module.state_dict()
    assert loaded(network).random == ("features.1",)
    assert loaded(network).unused == ("extra",)
    assert torch.equal(own["features.0.0.weight"], tensors["features.0.0.weight"])
    assert not torch.equal(own["features.1.0.weight"], tensors["features.1.0.weight"])


def test_a_head_of_other_classes_is_left_random(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "three.safetensors")
    network = create_model(
        "xray-cnn", pretrained=False, classes=("a", "b"), initial_weights=tmp_path / "three.safetensors"
    )
    (head, shapes), *_ = loaded(network).misfits.items()
    assert head.endswith("weight")
    assert shapes.startswith("3×")
    assert ", expected 2×" in shapes
    assert f"random (shape differs): {head} ({shapes})" in str(network.loaded)


def test_half_precision_becomes_the_networks_own(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    network = start(tmp_path, {"features.0.0.weight": tensors["features.0.0.weight"].half()})
    own = network.module.state_dict()["features.0.0.weight"]
    assert own.dtype == torch.float32
    torch.testing.assert_close(own, tensors["features.0.0.weight"], atol=1e-3, rtol=1e-3)


def test_no_hub_is_asked_for_weights_that_a_file_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    network = start(tmp_path, {"conv1.weight": torch.ones(64, 3, 7, 7)}, "xray-resnet18")
    assert network.module.conv1.weight.eq(1).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"conv1.weight": torch.ones(64, 3, 7, 7)}, "fits no tensor of the network: it holds conv1.weight"),
        ({"features.0.0.weight": torch.ones(1)}, "fits no tensor of the network"),
        ({}, "it holds no tensor"),
        ({"features.0.0.weight": torch.full((16, 3, 3, 3), torch.nan)}, "features.0.0.weight .* not numbers"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(
    tmp_path: Path, wrong: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        start(tmp_path, wrong)


def test_what_is_no_safetensors_file_is_an_error(tmp_path: Path) -> None:
    module = create_model("xray-cnn", pretrained=False).module
    (tmp_path / "text").write_text("no weights")
    (tmp_path / "short").write_bytes((2000).to_bytes(8, "little") + b"{")
    for name, said in {
        "text": "not a valid",
        "short": "not a valid",
        "missing": "No such",
        "": "directory",
    }.items():
        with pytest.raises(ModelError, match=said):
            load_initial_weights(module, tmp_path / name)
