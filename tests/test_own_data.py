"""The script of docs/own_data.md takes 200 images of two classes from a folder to the Hub and a demo."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from hub_server import running_hub
from running import run_training, running_app

from xray_hf import cli, manifest
from xray_hf.data.synthetic import sample_images

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
LABELS = {"Normal": "Normal", "Pneumonia": "Tuberculosis"}  # what the atlas draws, and what it stands for
QUICK = ["--model", "xray-cnn", "--side", "64", "--epochs", "4", "--learning-rate", "2e-3", "--device", "cpu"]


def script() -> list[list[str]]:
    """The lines of the page's script, split into words."""
    [block] = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clinic/, 200 labelled images of 100 patients, and scans/, 3 without a label."""
    work = tmp_path_factory.mktemp("own")
    (work / "clinic").mkdir()
    (work / "scans").mkdir()
    rows = ["file_name,label,patient_id"]
    drawn = [(LABELS[label], image) for label, image in sample_images(100, seed=5) if label in LABELS]
    for number, (label, image) in enumerate(drawn):
        image.save(work / "clinic" / f"scan-{number:03}.png")
        rows.append(f"scan-{number:03}.png,{label},p{number // 2:02}")
    (work / "clinic" / "labels.csv").write_text("\n".join(rows))
    for number, (_, image) in enumerate(sample_images(1, seed=6)):
        image.save(work / "scans" / f"{number}.png")
    return work


def test_the_script_has_ten_lines() -> None:
    assert len(script()) == 10


def test_the_script_runs_from_a_folder_to_the_hub_and_the_demo(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    with running_hub() as hub:
        environment = {
            **os.environ,
            **hub.environment(tmp_path / "home", "hf_owner"),
            "PYTHONPATH": str(ROOT),
        }
        *commands, demo = script()
        for tool, *words in commands:
            if tool == "python":
                assert words.pop(0) == "train.py"
                run_training(*words, *QUICK)
            elif words[0] != "push":
                cli.main(words)
            else:  # where the Hub is, huggingface_hub reads when it is imported
                command = [sys.executable, "-m", "xray_hf.cli", *words]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{words}: {done.stderr[-3000:]}"
        pushed = hub.repo("model", "owner/clinic")
        assert manifest.METRICS in pushed.head.files
    bundle = work / "runs" / "clinic" / "bundle"
    assert manifest.read(bundle).labels == ("Normal", "Tuberculosis")
    predictions = (work / "predictions.csv").read_text()
    assert "probability_Tuberculosis" in predictions
    assert "COVID" not in predictions
    card = (bundle / manifest.CARD).read_text(encoding="utf-8")
    assert "Tuberculosis" in card
    assert not re.search("COVID|CoronaHack|Kermany|children", card)

    assert demo == ["python", "app.py", "--bundle", "runs/clinic"]
    with running_app([Path("runs/clinic")], tmp_path, cwd=work) as app:
        [answer] = (
            Client(app.url, verbose=False)
            .predict(handle_file(str(work / "scans" / "0.png")), api_name="/read")["models"]
            .values()
        )
        assert set(answer["probabilities"]) == {"Normal", "Tuberculosis"}
