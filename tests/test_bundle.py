"""A bundle loads where this package does not exist, with the very logits of training."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from xray_hf import bundle, evidence, manifest
from xray_hf.errors import BundleError
from xray_hf.evaluation.predictions import Predictions
from xray_hf.models import Network, create_model
from xray_hf.models.create import logits_of
from xray_hf.reading import read_grey, resize
from xray_hf.task import PAPER_CLASSES

# What a stranger runs: this package is blocked, even if it is installed.
STRANGER = """
import json, sys, warnings
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "xray_hf":
            raise ImportError("xray_hf is not installed")
sys.meta_path.insert(0, Block())
sys.path = [p for p in sys.path if p]
import numpy as np, torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
image, *folders = sys.argv[1:]
grey = Image.open(image).convert("RGB")
answers = {}
for folder in folders:
    remote = "xray-cnn" in folder
    model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=remote).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    x = processor(grey, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        answer = {"auto": model(x).logits[0].tolist(), "pixels": x[0].tolist()}
        if not remote:
            import timm
            from timm.data import create_transform, resolve_model_data_config
            timm_model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            y = create_transform(**resolve_model_data_config(timm_model))(grey)[None]
            answer["timm"] = timm_model(y)[0].tolist()
    found = pipeline("image-classification", model=folder, trust_remote_code=remote, top_k=3)(image)
    answer["pipeline"] = {row["label"]: row["score"] for row in found}
    answer["labels"] = [model.config.id2label[k] for k in range(3)]
    answers[folder] = answer
assert not any(name.split(".")[0] == "xray_hf" for name in sys.modules)
print(json.dumps(answers))
"""


def example_predictions(n: int = 12) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        classes=PAPER_CLASSES,
        file_name=np.asarray([f"{k}.png" for k in range(n)]),
        source=np.asarray("coronahack"),
        patient_id=np.asarray([f"p{k}" for k in range(n)]),
        split=np.repeat(["train", "validation", "test"], n // 3),
        official_split=np.repeat(["TRAIN", "TRAIN", "TEST"], n // 3),
        label=np.arange(n) % 3,
        logits=rng.normal(size=(n, 3)).astype(np.float32),
    )


BUNDLES = ("xray-resnet18", "xray-cnn", "xray-resnet18 in half", "xray-cnn in half")


def write(folder: Path, name: str, *, half: bool) -> Network:
    """A network and its bundle; half: with the large weights rounded and stored so."""
    torch.manual_seed(1)
    network = create_model(name, pretrained=False)
    network.module.train()
    with torch.no_grad():  # batch-norm statistics that differ from the initial ones
        network.module(torch.randn(4, 3, 224, 224))
    network.module.eval().to(memory_format=torch.channels_last)  # as training leaves it
    training = {"history": [], "is_synthetic": True}
    bundle.write(folder, network, training=training, splits={}, predictions=example_predictions())
    if half:
        whole = (folder / manifest.WEIGHTS).stat().st_size
        bundle.round_to_half(network.module)
        bundle.store_in_half(folder)
        assert (folder / manifest.WEIGHTS).stat().st_size < 0.55 * whole
    return network


@pytest.fixture(scope="module")
def all_written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Network, Path]]:
    """Every network and its bundle."""
    folders = {name: tmp_path_factory.mktemp(name.partition(" ")[0]) / "bundle" for name in BUNDLES}
    return {
        name: (write(folder, name.partition(" ")[0], half=name.endswith("half")), folder)
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module", params=BUNDLES)
def written(
    request: pytest.FixtureRequest, all_written: dict[str, tuple[Network, Path]]
) -> tuple[Network, Path]:
    return all_written[request.param]


@pytest.fixture(scope="module")
def xray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth grey image of an odd size."""
    coarse = np.random.default_rng(3).integers(0, 256, (12, 10), dtype=np.uint8)
    path = tmp_path_factory.mktemp("xray") / "x.png"
    Image.fromarray(coarse).resize((613, 507), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def answers(all_written: dict[str, tuple[Network, Path]], xray: Path) -> dict[str, Any]:
    """{folder: what a stranger gets of it}, in one process: its imports take longer than the rest."""
    folders = [str(folder) for _, folder in all_written.values()]
    run = subprocess.run(
        [sys.executable, "-c", STRANGER, str(xray), *folders],
        capture_output=True, text=True, cwd=xray.parent, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_stranger_gets_trainings_logits(
    written: tuple[Network, Path], answers: dict[str, Any], xray: Path
) -> None:
    network, folder = written
    answer = answers[str(folder)]
    grey = torch.from_numpy(resize(read_grey(xray), network.preprocessing.side).copy())[None]
    ours = network.preprocessing.normalise(grey)
    theirs = torch.tensor(answer["pixels"])[None]
    # The timm processor resizes with Pillow as we do; the stock one with torchvision: within one grey level.
    grey_level = 1 / 255 / min(network.preprocessing.std)
    assert (ours - theirs).abs().max() <= (1e-5 if network.is_timm else grey_level * 1.001)

    with torch.inference_mode():
        expected = logits_of(network.module(theirs))[0]
        on_ours = logits_of(network.module(ours))[0]
    assert torch.equal(torch.tensor(answer["auto"]), expected)
    if network.is_timm:
        assert torch.equal(torch.tensor(answer["timm"]), expected)
    assert answer["labels"] == list(PAPER_CLASSES)
    scores = torch.tensor([answer["pipeline"][label] for label in PAPER_CLASSES])
    torch.testing.assert_close(scores, expected.softmax(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(on_ours.softmax(0), expected.softmax(0), atol=1e-2, rtol=0)


def test_loading_here_gives_the_same_network(written: tuple[Network, Path]) -> None:
    network, folder = written
    loaded = bundle.load(folder)
    assert loaded.name == network.name
    assert loaded.preprocessing == network.preprocessing
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(logits_of(loaded.module(x)), logits_of(network.module(x)))
    assert manifest.read(folder).labels == PAPER_CLASSES


def test_a_bundle_holds_everything_and_no_pickle(written: tuple[Network, Path]) -> None:
    _, folder = written
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "training.json", "splits.json", "metrics.json"} <= names
    assert {"predictions.parquet", "confusion_test.png", "roc_test.png"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert all(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_views_are_redrawn_without_the_model(written: tuple[Network, Path]) -> None:
    _, folder = written
    before = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").unlink()
    weights = (folder / "model.safetensors").rename(folder / "away")
    try:
        evidence.draw(folder)
    finally:
        weights.rename(folder / "model.safetensors")
    assert json.loads((folder / "metrics.json").read_text()) == before


def test_every_subset_has_its_intervals(written: tuple[Network, Path]) -> None:
    _, folder = written
    found = json.loads((folder / "metrics.json").read_text())
    assert found.pop("classes") == ["Normal", "Pneumonia", "COVID-19"]
    assert list(found) == ["train", "validation", "test", "test_official"]
    for numbers in found.values():
        overall = {name for name in numbers["intervals"] if name in numbers}
        assert overall >= {"accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "cross_entropy"}
        assert numbers["patients_per_class"] == numbers["class_counts"]  # one image a patient


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    network = create_model("xray-cnn", pretrained=False)
    broken = example_predictions()
    broken.logits[0, 0] = np.nan
    with pytest.raises(BundleError):
        bundle.write(tmp_path / "b", network, training={}, splits={}, predictions=broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["no weights", "no config", "bad config", "truncated weights", "a missing weight", "other"]
)
def test_a_damaged_bundle_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    bundle.save_network(create_model("xray-cnn", pretrained=False), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "bad config":
        config.write_text("[1")
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "a missing weight":
        tensors = load_file(weights)
        del tensors["classifier.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    else:
        config.write_text('{"model_type": "bert"}')
    with pytest.raises(BundleError):
        bundle.load(tmp_path)
