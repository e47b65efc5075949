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
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from running import DRAW_NOTHING, training_python, two_processes
from safetensors.numpy import load_file
from warm_python import Program, WarmPython

from xray_hf.evaluation.predictions import Predictions
from xray_hf.models import create_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("XRAY_HF_KILLS", "2"))  # more of them take 10 s each
TRAIN = 'import runpy; runpy.run_path("train.py", run_name="__main__")'
QUICKLY = DRAW_NOTHING + TRAIN
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
PLAIN = ["--model", WITHOUT_BATCH_NORM, "--no-pretrained", "--side", "64", "--precision", "fp32"]
PLAIN += ["--balance", "none", "--no-flip", "--keep", "last", "--epochs", "1"]
PLAIN += ["--optimizer", "sgd", "--learning-rate", "1e-2"]


@pytest.fixture(scope="module")
def python() -> WarmPython:
    return training_python()


def command(data_dir: Path, out: Path, *more: str) -> list[str]:
    return ["--data-dir", str(data_dir), "--out", str(out), *OPTIONS, *more]


def start(python: WarmPython, arguments: list[str], code: str = QUICKLY) -> AbstractContextManager[Program]:
    return python.start(code, *arguments, environment={}, cwd=ROOT)


def run(python: WarmPython, arguments: list[str], code: str = QUICKLY) -> None:
    done = python.run(code, *arguments, environment={}, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


def updates(start: dict[str, torch.Tensor], out: Path) -> np.ndarray:
    """How far training moved every convolution weight, as one vector."""
    end = load_file(out / "bundle" / "model.safetensors")
    return np.concatenate([(end[n] - w.numpy()).ravel() for n, w in start.items() if w.ndim == 4])


def weights_hash(out: Path) -> str:
    return hashlib.sha256((out / "bundle" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(
    python: WarmPython, synthetic: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """An uninterrupted run, and how long it took in seconds."""
    out = tmp_path_factory.mktemp("whole") / "run"
    started = time.monotonic()
    run(python, command(synthetic, out))
    return out, time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *(pytest.param(number, QUICKLY, id=f"{number}") for number in range(KILLS)),
        *(
            pytest.param(number, TRAIN, id=f"{number}, with figures", marks=pytest.mark.exhaustive)
            for number in range(KILLS)
        ),
    ],
)
def test_a_killed_run_resumes_to_the_same_weights(
    python: WarmPython, whole: tuple[Path, float], synthetic: Path, tmp_path: Path, number: int, code: str
) -> None:
    out, (reference, seconds) = tmp_path / "run", whole
    moment = random.Random(number).random() * seconds * (2 if code == TRAIN else 1)  # half of it draws
    with start(python, command(synthetic, out), code) as program:
        time.sleep(moment)
        program.kill()
        assert program.wait() in (-signal.SIGKILL, 0)  # 0: it was faster than the first
    run(python, command(synthetic, out, "--resume"), code)
    assert weights_hash(out) == weights_hash(reference), f"killed after {moment:.1f} s"
    half_written = [path.name for path in out.iterdir() if path.name.startswith(".") and path.is_dir()]
    assert len(half_written) <= 1  # what the kill itself left; it is never taken for a result


def test_sigterm_saves_and_tells_how_to_go_on(
    python: WarmPython, whole: tuple[Path, float], synthetic: Path, tmp_path: Path
) -> None:
    out, (reference, _) = tmp_path / "run", whole
    with start(python, command(synthetic, out, "--resume")) as program:
        while "\nepoch 1" not in (said := program.err.read_text() if program.err.exists() else ""):
            assert "error" not in said, said
            time.sleep(0.05)
        os.kill(program.pid, signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM
        assert "--resume continues from here" in program.err.read_text()
    run(python, command(synthetic, out, "--resume"))
    assert weights_hash(out) == weights_hash(reference)


@pytest.fixture(
    scope="module", params=["forked", pytest.param("accelerate launch", marks=pytest.mark.exhaustive)]
)
def two(
    request: pytest.FixtureRequest,
    python: WarmPython,
    synthetic: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of two processes on one machine."""
    out = tmp_path_factory.mktemp("two") / "run"
    if request.param == "forked":
        for done in two_processes(python, QUICKLY, *command(synthetic, out, *PLAIN)):
            assert done.returncode == 0, done.stderr[-3000:]
        return out
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", TWO_PROCESSES]
    done = subprocess.run(
        [*launcher, "train.py", *command(synthetic, out, *PLAIN)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_two_processes_see_every_row_once_and_agree_with_one(
    python: WarmPython, two: Path, synthetic: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    run(python, command(synthetic, one, *PLAIN))

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


@pytest.fixture(scope="module")
def two_machines(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two machines, one process each."""
    out = tmp_path_factory.mktemp("machines") / "run"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", TWO_MACHINES]
    launcher += ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    machines = [
        subprocess.Popen(
            [*launcher, "--machine_rank", str(rank), "train.py", *command(synthetic, out, *PLAIN)],
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
    return out


@pytest.mark.exhaustive
def test_two_machines_train_as_two_processes_of_one(two: Path, two_machines: Path) -> None:
    assert json.loads((two_machines / "bundle" / "training.json").read_text())["processes"] == 2
    assert weights_hash(two_machines) == weights_hash(two)
