"""Training on a device that is not the CPU: with the CPU's results, little to copy, and no waiting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, training_python
from test_training import ROWS, SIDE

from xray_hf.training.config import preset_values

pytestmark = pytest.mark.slow

ON_DEVICE = """
import json, sys
from pathlib import Path

sys.path.insert(0, "tests")
from fake_device import DEVICE, fake_device  # before all that trains
import test_training
import torch
from accelerate.state import AcceleratorState, PartialState

torch.set_num_threads(1)
out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
make_accelerator = test_training.make_accelerator


def on_device(config):
    accelerator = make_accelerator(config)
    for state in (PartialState, AcceleratorState):
        state._shared_state["device"] = DEVICE
    return accelerator
"""
COMPARED = """
class Watched(test_training.Trainer):
    def _train_epoch(self, signals):
        traffic.clear()
        super()._train_epoch(signals)
        found.update(uploads=list(traffic.uploads), waits=traffic.waits)


found = {}
on_cpu = test_training.make_trainer(out / "cpu", **options)
history = on_cpu.fit()
test_training.make_accelerator, test_training.Trainer = on_device, Watched
with fake_device() as traffic:
    trainer = test_training.make_trainer(out / "device", **options)
    keys = ("train_loss", "train_accuracy", "validation_loss")
    found["same history"] = all(
        one[key] == other[key] for one, other in zip(history, trainer.fit(), strict=True) for key in keys
    )
    found["devices"] = sorted({str(value.device) for value in trainer.network.module.state_dict().values()})
    weights = {name: value.cpu() for name, value in test_training.weights(trainer).items()}
    found["same weights"] = test_training.equal(test_training.weights(on_cpu), weights)
print(json.dumps(found))
"""
RESUMED = """
from xray_hf.training import loop

loop._LOOK_EVERY = 2  # steps: else only the end of an epoch is one to stop at
test_training.make_accelerator = on_device
with fake_device(draws_alone=True):
    whole = test_training.make_trainer(out / "whole", **options)
    whole.fit()
    pixels = test_training.ToyPixels(test_training.LABELS, signal_at=int(sys.argv[3]))
    found = {"was stopped": False}
    try:
        test_training.make_trainer(out / "parts", pixels, **options).fit()
    except SystemExit:
        found["was stopped"] = True
    parts = test_training.make_trainer(out / "parts", resume=True, **options)
    parts.fit()
    found["same weights"] = test_training.equal(test_training.weights(whole), test_training.weights(parts))
print(json.dumps(found))
"""
EPOCHS, BATCH = 2, 4
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "paper": ("paper", "xray-cnn", {}),
    "robust": ("robust", "xray-resnet18", {}),
    # ResNet18 has no dropout, which a GPU rounds in another way.
    "bf16": ("paper", "xray-resnet18", {"precision": "bf16"}),
    "all else": ("multisource", "xray-cnn", {
        "accumulate": 2, "balance": "loss", "flip": True, "erase": 0.5, "mixup": 0.4, "cutmix": 1.0,
    }),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run on the device had in common with one on the CPU, and what passed between the two."""
    preset, model, options = CASES[request.param]
    options = {
        **preset_values(preset, model),
        **options,
        "model": model,
        "epochs": EPOCHS,
        "batch_size": BATCH,
    }
    out = tmp_path_factory.mktemp("device")
    return run(COMPARED, str(out), json.dumps(options))


def run(program: str, *arguments: str) -> dict[str, Any]:
    """What a program found that can train on the device."""
    done = training_python().run(ON_DEVICE + program, *arguments, environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_it_trains_as_the_cpu_does(found: dict[str, Any]) -> None:
    assert found["devices"] == ["fake:0"]
    assert found["same history"]
    assert found["same weights"]


def test_the_cpu_waits_for_it_only_to_look_at_the_losses(found: dict[str, Any]) -> None:
    looks = 1  # of an epoch's nine steps: the last
    assert found["waits"] == 3 * looks + 1  # the sums; which losses are not finite, and how many; an upload


def test_only_pixels_labels_and_small_numbers_are_handed_over(found: dict[str, Any]) -> None:
    pixels = [size for size in found["uploads"] if size >= SIDE**2]
    assert sum(pixels) == ROWS * SIDE**2  # uint8, each image once
    assert sum(found["uploads"]) - sum(pixels) < 1000 * (ROWS / BATCH)


@pytest.mark.parametrize("stop_at", [3, 14])
def test_a_stopped_run_continues_to_the_same_weights(tmp_path: Path, stop_at: int) -> None:
    fixed = {"model": "xray-cnn", "epochs": EPOCHS, "batch_size": BATCH}
    options = json.dumps({**preset_values("robust", "xray-cnn"), **fixed})
    assert run(RESUMED, str(tmp_path), options, str(stop_at)) == {"was stopped": True, "same weights": True}
