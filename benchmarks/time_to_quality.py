"""From JPEG files to a bundle with its metrics: how many seconds, and where they go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ways import TRAIN, Job


def time_to_quality(job: Job, options: list[str], folder: Path) -> dict[str, Any]:
    """Train by train.py in a process of its own, with nothing decoded before.

    The preset fixes the number of epochs, so the test images are looked at once, at the end. options: more of
    train.py's, such as preset and sources. Raises RuntimeError with train.py's last lines if it fails.
    """
    run = folder / "run"
    places = ["--source", f"coronahack={job.data.reports[0].root}"]
    places += ["--cache-dir", str(folder / "cache"), "--out", str(run)]
    own = ["--model", job.model, "--no-pretrained", "--device", job.device]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, TRAIN, *places, *own, *options], capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    training, metrics = (
        json.loads((run / "bundle" / name).read_text(encoding="utf-8"))
        for name in ("training.json", "metrics.json")
    )
    in_epochs = sum(row["seconds"] for row in training["history"])
    after_reading = training["wall_seconds_of_last_part"]
    return {
        "to quality": {
            "whole run": seconds,
            "training steps": in_epochs,
            "set-up, validation, predictions": after_reading - in_epochs,
            "imports, reading, writing": seconds - after_reading,
        },
        "test accuracy": metrics["test"]["accuracy"],
        "test balanced accuracy": metrics["test"]["balanced_accuracy"],
        "epochs": len(training["history"]),
    }
