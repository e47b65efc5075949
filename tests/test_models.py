"""The networks are what the paper says, and unknown or unreachable ones end in a clear error."""

import math

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from xray_hf.errors import ModelError
from xray_hf.models import create, create_model
from xray_hf.models.create import logits_of


def layers(module: nn.Module, kind: type) -> list:
    return [m for m in module.modules() if isinstance(m, kind)]


def test_xray_cnn_has_the_papers_five_convolution_layers() -> None:
    module = create_model("xray-cnn", pretrained=False).module
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d):
        assert len(layers(module, kind)) == 5, kind
    assert [drop.p for drop in layers(module, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("xray-resnet18", "timm/resnet18.tv_in1k"),
        ("timm:resnet18", "timm/resnet18.a1_in1k"),
        ("timm:cspnext_l.rsb_a1_in1k", "munehiro-k/cspnext_l.rsb_a1_in1k"),
    ],
)
def test_initial_weights_are_named_as_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, name: str, hub_id: str
) -> None:
    def stop(asked: str) -> str:
        raise ModelError(asked)

    monkeypatch.setattr(create, "_download_weights", stop)
    with pytest.raises(ModelError, match=f"^{hub_id}$"):
        create_model(name, pretrained=True)


def test_xray_cnn_starts_from_xavier() -> None:
    torch.manual_seed(0)
    module = create_model("xray-cnn", pretrained=False).module
    for layer in layers(module, nn.Conv2d):
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_xray_cnn_gives_a_loss_with_labels_and_none_without() -> None:
    module = create_model("xray-cnn", pretrained=False).module.eval()
    x, labels = torch.randn(2, 3, 224, 224), torch.tensor([0, 2])
    assert module(x).loss is None
    output = module(x, labels=labels)
    assert output.loss.item() == pytest.approx(nn.functional.cross_entropy(output.logits, labels).item())


@pytest.mark.parametrize("name", ["xray-resnet18", "xray-cnn", "timm:convnext_atto"])
def test_every_model_gives_three_logits(name: str) -> None:
    network = create_model(name, pretrained=False)
    side = network.preprocessing.side
    grey = torch.randint(0, 256, (2, side, side), dtype=torch.uint8)
    assert logits_of(network.module.eval()(network.preprocessing.normalise(grey))).shape == (2, 3)


def test_normalising_equals_torchvision() -> None:
    preprocessing = create_model("xray-cnn", pretrained=False).preprocessing
    grey = torch.randint(0, 256, (4, 224, 224), dtype=torch.uint8)
    reference = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocessing.mean, preprocessing.std)]
    )(grey[:, None].expand(-1, 3, -1, -1))
    ours = preprocessing.normalise(grey)
    torch.testing.assert_close(ours, reference, atol=1e-6, rtol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet18", "timm:no_such_network", ""])
def test_an_unknown_model_is_an_error(name: str) -> None:
    with pytest.raises(ModelError, match=r"unknown model|timm has no model"):
        create_model(name, pretrained=False)


def test_without_network_pretrained_weights_are_an_error_that_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="--no-pretrained"):
        create_model("xray-resnet18", pretrained=True)
