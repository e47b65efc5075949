"""Training on a device that is not the CPU: with the CPU's results, little to copy, and no waiting."""

from __future__ import annotations

import json
from typing import Any

import pytest
from running import ROOT, training_python
from test_training import ROWS, SIDE

from xray_hf.training.config import preset_values

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
from pathlib import Path

sys.path.insert(0, "tests")
from fake_device import DEVICE, fake_device  # before all that trains
import test_training
import torch
from accelerate.state import AcceleratorState, PartialState

torch.set_num_threads(1)
out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
on_cpu = test_training.make_trainer(out / "cpu", **options)
history = on_cpu.fit()
make_accelerator = test_training.make_accelerator


def on_device(config):
    accelerator = make_accelerator(config)
    for state in (PartialState, AcceleratorState):
        state._shared_state["device"] = DEVICE
    return accelerator


class Watched(test_training.Trainer):
    def _train_epoch(self, signals):
        traffic.clear()
        super()._train_epoch(signals)
        found.update(uploads=list(traffic.uploads), waits=traffic.waits)


found = {}
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
EPOCHS, BATCH = 2, 4
MORE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "paper": ("paper", "xray-cnn", {}),
    "robust": ("robust", "xray-resnet18", {}),
    "bf16": ("paper", "xray-resnet18", {"precision": "bf16"}),  # a GPU rounds dropout in another way
    "all else": ("multisource", "xray-cnn", {
        "accumulate": 2, "balance": "loss", "flip": True, "erase": 0.5, "mixup": 0.4, "cutmix": 1.0,
    }),
}  # fmt: skip


@pytest.fixture(scope="module", params=MORE)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run on the device had in common with one on the CPU, and what passed between the two."""
    preset, model, options = MORE[request.param]
    options = {
        **preset_values(preset, model),
        **options,
        "model": model,
        "epochs": EPOCHS,
        "batch_size": BATCH,
    }
    out = tmp_path_factory.mktemp("device")
    done = training_python().run(PROGRAM, str(out), json.dumps(options), environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_it_trains_as_the_cpu_does(found: dict[str, Any]) -> None:
    assert found["devices"] == ["fake:0"]
    assert found["same history"]
    assert found["same weights"]


def test_the_cpu_waits_for_it_only_to_look_at_the_losses(found: dict[str, Any]) -> None:
    looks = 1  # of an epoch's nine steps: the last
    assert found["waits"] == 3 * looks  # the sums; which losses are not finite, and how many


def test_only_pixels_labels_and_small_numbers_are_handed_over(found: dict[str, Any]) -> None:
    pixels = [size for size in found["uploads"] if size >= SIDE**2]
    assert sum(pixels) == ROWS * SIDE**2  # uint8, each image once
    assert sum(found["uploads"]) - sum(pixels) < 1000 * (ROWS / BATCH)
