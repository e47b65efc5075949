"""train.py as a process: killed at random moments, stopped by signals, started several times over."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from safetensors.numpy import load_file

from xray_hf.evaluation.predictions import Predictions
from xray_hf.models import create_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("XRAY_HF_KILLS", "2"))  # more of them take 20 s each
TWO_PROCESSES = "configs/accelerate/two_cpu_processes.yaml"
WITHOUT_BATCH_NORM = "timm:convnext_atto"
TWO_MACHINES = "configs/accelerate/multi_node.yaml"
OPTIONS = [
    "--preset",
    "smoke",
    "--model",
    "xray-cnn",
    "--epochs",
    "3",
    "--batch-size",
    "8",
    "--flip",
    "--device",
    "cpu",
]

# Without batch norm and dropout, what half a batch gives does not depend on the other half.
PLAIN = ["--model", WITHOUT_BATCH_NORM, "--no-pretrained", "--precision", "fp32", "--balance", "none"]
PLAIN += ["--no-flip", "--keep", "last", "--epochs", "1", "--optimizer", "sgd", "--learning-rate", "1e-2"]


def command(data_dir: Path, out: Path, *more: str) -> list[str]:
    return ["train.py", "--data-dir", str(data_dir), "--out", str(out), *OPTIONS, *more]


def run(arguments: list[str], launcher: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [sys.executable, *launcher, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def updates(start: dict[str, torch.Tensor], out: Path) -> np.ndarray:
    """How far training moved every convolution weight, as one vector."""
    end = load_file(out / "bundle" / "model.safetensors")
    return np.concatenate([(end[n] - w.numpy()).ravel() for n, w in start.items() if w.ndim == 4])


def weights_hash(out: Path) -> str:
    return hashlib.sha256((out / "bundle" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted run, and how long it took in seconds."""
    out = tmp_path_factory.mktemp("whole") / "run"
    started = time.monotonic()
    run(command(synthetic, out))
    return out, time.monotonic() - started


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_resumes_to_the_same_weights(
    whole: tuple[Path, float], synthetic: Path, tmp_path: Path, number: int
) -> None:
    out, (reference, seconds) = tmp_path / "run", whole
    moment = random.Random(number).uniform(0.4, 1.0) * seconds  # the first part is imports
    process = subprocess.Popen(
        [sys.executable, *command(synthetic, out)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(command(synthetic, out, "--resume"))
    assert weights_hash(out) == weights_hash(reference), f"killed after {moment:.1f} s"
    half_written = [path.name for path in out.iterdir() if path.name.startswith(".") and path.is_dir()]
    assert len(half_written) <= 1  # what the kill itself left; it is never taken for a result


def test_sigterm_saves_and_tells_how_to_go_on(
    whole: tuple[Path, float], synthetic: Path, tmp_path: Path
) -> None:
    out, (reference, _) = tmp_path / "run", whole
    arguments = [sys.executable, *command(synthetic, out, "--resume")]
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 1"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "--resume goes on from here" in rest
    run(command(synthetic, out, "--resume"))
    assert weights_hash(out) == weights_hash(reference)


@pytest.fixture(scope="module")
def two(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes on one machine."""
    out = tmp_path_factory.mktemp("two") / "run"
    run(command(synthetic, out, *PLAIN), ("-m", "accelerate.commands.launch", "--config_file", TWO_PROCESSES))
    return out


def test_two_processes_see_every_row_once_and_agree_with_one(
    two: Path, synthetic: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    run(command(synthetic, one, *PLAIN))

    records = [json.loads((out / "bundle" / "training.json").read_text()) for out in (one, two)]
    assert [record["processes"] for record in records] == [1, 2]
    losses = [record["history"][0]["train_loss"] for record in records]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    splits = json.loads((two / "bundle" / "splits.json").read_text())["splits"]
    table = Predictions.read(two / "bundle" / "predictions.parquet")
    for name, counts in splits.items():
        assert len(table.select(name)) == counts["rows"]
        assert len(set(table.select(name).file_name)) == counts["images"]

    set_seed(0)
    start = create_model(WITHOUT_BATCH_NORM, pretrained=False).module.state_dict()
    moves = [updates(start, out) for out in (one, two)]
    assert np.linalg.norm(moves[0] - moves[1]) < 1e-2 * np.linalg.norm(moves[0])


def test_two_machines_train_as_two_processes_of_one(two: Path, synthetic: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", TWO_MACHINES]
    launcher += ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    machines = [
        subprocess.Popen(
            [*launcher, "--machine_rank", str(rank), *command(synthetic, out, *PLAIN)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [machine.communicate(timeout=280)[1][-3000:] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert json.loads((out / "bundle" / "training.json").read_text())["processes"] == 2
    assert weights_hash(out) == weights_hash(two)
