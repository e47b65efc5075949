"""Runs of two devices, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import compare_records
import pytest

from xray_hf.errors import DataError
from xray_hf.files import write_json


def run(seed: int, accuracy: float, device: str, external: dict[str, Any] | None = None) -> dict[str, Any]:
    metrics = {"test": {"accuracy": accuracy, "balanced_accuracy": accuracy / 2}}
    same = {"recipe": "robust", "model": "xray-cnn", "initial_weights": "random"}
    of_device = {"device": device, "precision": "bf16"}
    return {**same, "seed": seed, **of_device, "metrics": metrics, "external_sets": external or {}}


def written(path: Path, *runs: dict[str, Any]) -> str:
    write_json(path, {"runs": list(runs), "compared": []})
    return str(path)


def test_runs_in_both_records_are_shown_with_their_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    external = {"balanced_accuracy": {"value": 0.5}}
    cpu = written(tmp_path / "cpu.json", *(run(seed, 0.8 + seed / 10, "CPU") for seed in range(3)))
    gpu = written(tmp_path / "gpu.json", run(1, 0.7, "H200", external), run(0, 0.9, "H200"))
    compare_records.main([cpu, gpu])
    head, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()
    )
    assert head[:3] == ["run", "test, accuracy, CPU, bf16", "test, accuracy, H200, bf16"]
    assert rows == [
        ["robust, xray-cnn from random, seed 0", "80.0", "90.0", "40.0", "45.0", "-", "-"],
        ["robust, xray-cnn from random, seed 1", "90.0", "70.0", "45.0", "35.0", "-", "50.0"],
        ["**robust, xray-cnn from random, 2 seeds**", "85.0 ± 7.1", "80.0 ± 14.1", "42.5 ± 3.5", "40.0 ± 7.1",
         "-", "50.0"],
    ]  # fmt: skip


def test_one_device_twice_is_told_apart_by_the_files_and_what_nobody_measured_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [written(tmp_path / f"{name}.json", run(0, 0.8, "CPU")) for name in ("before", "after")]
    compare_records.main(records)
    head = [cell.strip() for cell in capsys.readouterr().out.splitlines()[0].split("|")[1:-1]]
    assert head == [
        "run", "test, accuracy, before", "test, accuracy, after",
        "test, balanced accuracy, before", "test, balanced accuracy, after",
    ]  # fmt: skip


def test_records_with_nothing_in_common_and_other_files_are_one_error(tmp_path: Path) -> None:
    one, other = (written(tmp_path / f"{seed}.json", run(seed, 0.8, "CPU")) for seed in (0, 1))
    with pytest.raises(DataError, match="no recipe, model, start and seed in common"):
        compare_records.main([one, other])
    (tmp_path / "list.json").write_text("[]")
    without_device = run(0, 0.8, "CPU")
    del without_device["device"]
    written(tmp_path / "old.json", without_device)
    for name in ("missing.json", "list.json", "old.json"):
        with pytest.raises(DataError, match=r"is not a record of runs .*collect_results\.py"):
            compare_records.main([one, str(tmp_path / name)])
