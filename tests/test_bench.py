"""The training benchmark runs and reports what it promises; how fast anything is, no test can say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from xray_hf.data.atlas import write_synthetic

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench_train.py"
WAYS = {"ours", "pure", "plain", "hf"}


def run_small(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """The benchmark's table and its JSON, on 60 synthetic patients."""
    data, out = write_synthetic(folder / "data", 60, seed=0).folder, folder / "results.json"
    folders = ["--data-dir", data, "--cache-dir", folder / "cache", "--out", out]
    small = ["--device", "cpu", "--batch-size", "4", "--steps", "2"]
    command = [sys.executable, SCRIPT, *folders, *small, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text(encoding="utf-8"))


def test_benchmark_compares_four_ways_in_one_run(tmp_path: Path) -> None:
    table, results = run_small(tmp_path, "--model", "xray-cnn", "--rounds", "1")

    assert {"date", "device", "cpu", "cores", "batch_size", "steps", "ways", "versions"} <= results.keys()
    assert results["models"].keys() == {"xray-cnn"}
    measured = results["models"]["xray-cnn"]
    assert measured["images_per_second"].keys() == WAYS
    assert measured["ratios"].keys() == {"ours/pure", "ours/plain", "ours/hf"}
    for value in [*measured["images_per_second"].values(), *measured["ratios"].values()]:
        assert len(value["rounds"]) == 1
        assert value["min"] <= value["median"] <= value["max"]
    assert "| xray-cnn |" in table


def test_memory_is_measured_on_ten_times_the_rows(tmp_path: Path) -> None:
    _, results = run_small(tmp_path, "--rounds", "0", "--memory")

    one, ten = results["memory"]["one"], results["memory"]["ten"]
    assert ten["train"]["rows"] == ten["decode"]["rows"] == 10 * one["train"]["rows"]
    for phase in (one["decode"], one["train"], ten["decode"], ten["train"]):
        assert 0 < phase["imports_mb"] < phase["peak_mb"]
