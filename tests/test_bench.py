"""The training benchmark runs and reports what it promises; how fast anything is, no test can say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from xray_hf.data.atlas import write_synthetic

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench_train.py"
WAYS = {"ours", "pure", "plain", "hf"}


def test_benchmark_compares_four_ways_in_one_run(tmp_path: Path) -> None:
    data, out = write_synthetic(tmp_path / "data", 60, seed=0).folder, tmp_path / "results.json"
    small = ["--model", "xray-cnn", "--device", "cpu", "--batch-size", "4", "--steps", "2", "--rounds", "1"]
    folders = ["--data-dir", data, "--cache-dir", tmp_path / "cache", "--out", out]
    done = subprocess.run(
        [sys.executable, SCRIPT, *folders, *small], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    results = json.loads(out.read_text(encoding="utf-8"))
    assert {"date", "device", "cpu", "cores", "batch_size", "steps", "ways", "versions"} <= results.keys()
    assert results["models"].keys() == {"xray-cnn"}
    measured = results["models"]["xray-cnn"]
    assert measured["images_per_second"].keys() == WAYS
    assert measured["ratios"].keys() == {"ours/pure", "ours/plain", "ours/hf"}
    for value in [*measured["images_per_second"].values(), *measured["ratios"].values()]:
        assert len(value["rounds"]) == 1
        assert value["min"] <= value["median"] <= value["max"]
    assert "| xray-cnn |" in done.stdout
