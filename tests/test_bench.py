"""The benchmarks run and report what they promise; how fast anything is, no test can say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warm_python import WarmPython, warm_python

from xray_hf.data.synthetic import sample_images, write_synthetic

pytestmark = pytest.mark.exhaustive

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WAYS = {"ours", "pure", "plain", "hf"}


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    """A Python that has imported the benchmarks' libraries, which takes longer than anything they do here."""
    modules = (
        "xray_hf.training.run",
        "datasets",
        "onnxruntime",
        "openvino",
        "timm",
        "torchvision",
        "transformers.trainer",
    )
    with warm_python(*modules, environment={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}) as warm:
        yield warm


def run(python: WarmPython, name: str, *arguments: object) -> str:
    """What a benchmark prints. The processes that it starts for its ways are forks, too."""
    code = f"""
import multiprocessing, runpy
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda _: fork
runpy.run_path({str(BENCHMARKS / name)!r}, run_name="__main__")"""
    done = python.run(
        code, *map(str, arguments), environment={"PYTHONPATH": str(BENCHMARKS)}, cwd=BENCHMARKS.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_small(python: WarmPython, data: Path, folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """The training benchmark's table and its JSON."""
    out = folder / "results.json"
    folders = ["--data-dir", data, "--cache-dir", folder / "cache", "--out", out]
    small = ["--device", "cpu", "--batch-size", "4", "--steps", "2"]
    table = run(python, "bench_train.py", *folders, *small, *arguments)
    return table, json.loads(out.read_text(encoding="utf-8"))


def test_benchmark_compares_four_ways_in_one_run(python: WarmPython, synthetic: Path, tmp_path: Path) -> None:
    table, results = run_small(python, synthetic, tmp_path, "--model", "xray-cnn", "--rounds", "1")

    assert {"date", "device", "cpu", "cores", "batch_size", "steps", "ways", "versions"} <= results.keys()
    assert results["models"].keys() == {"xray-cnn"}
    measured = results["models"]["xray-cnn"]
    assert measured["images_per_second"].keys() == WAYS
    assert measured["ratios"].keys() == {"ours/pure", "ours/plain", "ours/hf"}
    for value in [*measured["images_per_second"].values(), *measured["ratios"].values()]:
        assert len(value["rounds"]) == 1
        assert value["min"] <= value["median"] <= value["max"]
    assert "| xray-cnn |" in table


def test_memory_is_measured_on_ten_times_the_rows(
    python: WarmPython, synthetic: Path, tmp_path: Path
) -> None:
    _, results = run_small(python, synthetic, tmp_path, "--rounds", "0", "--memory")

    one, ten = results["memory"]["one"], results["memory"]["ten"]
    assert ten["train"]["rows"] == ten["decode"]["rows"] == 10 * one["train"]["rows"]
    for phase in (one["decode"], one["train"], ten["decode"], ten["train"]):
        assert 0 < phase["imports_mb"] < phase["peak_mb"]


def test_the_gpu_benchmark_is_rehearsed_on_the_cpu_and_goes_on_where_it_stopped(
    python: WarmPython, synthetic: Path, tmp_path: Path, cnn_bundle: Path
) -> None:
    out = tmp_path / "gpu.json"
    folders = ["--data-dir", synthetic, "--cache-dir", tmp_path / "cache", "--out", out]
    small = ["--model", "xray-cnn", "--batch-size", "4", "--images", "8", "--epochs", "1", "--device", "cpu"]
    write_synthetic(tmp_path / "other", 40, seed=1)
    small += ["--bundle", cnn_bundle, "--source", f"coronahack:other={tmp_path / 'other'}"]
    command = [sys.executable, BENCHMARKS / "bench_gpu.py", *folders, *small]
    late = subprocess.run([*command, "--seconds", "0"], capture_output=True, text=True, check=True)
    assert "0 seconds are over: 17 of 17 parts are left; run it again." in late.stderr
    known = {
        f"xray-cnn, {way}, compiled, 4": {"images_per_second": 7, "seconds": 1} for way in ("ours", "pure")
    }
    broken = {"xray-cnn, plain, 4": {"error": "OutOfMemoryError: no", "seconds": 1}}
    head = json.loads(out.read_text(encoding="utf-8"))
    out.write_text(json.dumps({**head, "parts": {**known, **broken}}))
    other = subprocess.run([*command, "--epochs", "2"], capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert f"{out} was measured with epochs 1, now it is 2; choose another --out." in other.stderr

    printed = run(python, "bench_gpu.py", *folders, *small)

    results = json.loads(out.read_text(encoding="utf-8"))
    assert len(results["parts"]) == 17
    assert {name: results["parts"].pop(name) for name in known} == known
    more = ("ours, pixels on the device", "ours, default preset")
    rates = {name: part.get("images_per_second", 0) for name, part in results["parts"].items()}
    assert {name for name, rate in rates.items() if rate > 0} == {
        *(f"xray-cnn, {way}, 4" for way in ("ours", "pure", *more, "plain", "timm", "hf")),
        *(f"{cnn_bundle.name}, {way}" for way in ("engine", "pipeline")),
    }
    checks = {name: part["holds"] for name, part in results["parts"].items() if "holds" in part}
    assert checks == dict.fromkeys(
        ("xray-cnn, losses as on the CPU", "xray-cnn, bf16 resumed", "xray-cnn, bf16 trains"), True
    )
    for training in ("paper", "grouped", "multisource"):
        found = results["parts"][f"xray-cnn, to quality, {training}"]
        whole, *of_it = found["to quality"].values()
        assert sum(of_it) == pytest.approx(whole)
        assert min(of_it) > 0
        assert found["epochs"] == 1
        assert 0 <= found["test accuracy"] <= 1
    assert "| xray-cnn, bf16 resumed | holds |" in printed


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight synthetic X-rays."""
    folder = tmp_path_factory.mktemp("scans")
    for number, (_, image) in enumerate(sample_images(3, seed=1)[:8]):
        image.save(folder / f"{number}.png")
    return folder


def run_script(
    python: WarmPython, name: str, scans: Path, bundle: Path, out: Path, *more: str
) -> dict[str, Any]:
    printed = run(python, name, "--images", scans, "--bundle", bundle, "--out", out, *more)
    assert out.with_suffix(".md").read_text(encoding="utf-8").strip() == printed.strip()
    return json.loads(out.read_text(encoding="utf-8"))


def test_inference_is_compared_with_floor_ceiling_and_peers(
    python: WarmPython, scans: Path, cnn_bundle: Path, tmp_path: Path
) -> None:
    results = run_script(
        python, "bench_inference.py", scans, cnn_bundle, tmp_path / "results.json", "--rounds", "1"
    )
    assert results["images"] == 8
    measured = results["models"]["xray-cnn"]
    ours, floor = measured["one_file"]["ours, onnxruntime"], measured["one_file"]["floor, onnxruntime"]
    assert 0 < ours["median_ms"]["median"] <= ours["p99_ms"]["median"]
    assert floor["median_ms"]["median"] > 0
    assert {"ours, onnxruntime", "ceiling, onnxruntime", "pipeline", "loader"} <= measured["bulk"].keys()
    assert (
        measured["start_up"]["ours"]["seconds"]["median"]
        < measured["start_up"]["pipeline"]["seconds"]["median"]
    )
    assert (
        measured["start_up"]["ours"]["peak_mb"]["median"]
        < measured["start_up"]["pipeline"]["peak_mb"]["median"]
    )


def test_python_command_and_pipeline_agree(
    python: WarmPython, scans: Path, cnn_bundle: Path, tmp_path: Path
) -> None:
    results = run_script(python, "agreement.py", scans, cnn_bundle, tmp_path / "results.json")
    assert (results["images"], results["tinted_left_out"]) == (8, 0)
    found = results["models"]["xray-cnn"]
    assert found.keys() == {"cli", "pipeline"}
    assert all(row["max_difference"] < 1e-3 and row["equal_labels"] == 1 for row in found.values())
