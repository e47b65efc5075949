"""How many cores are counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xray_hf import cores

ALL = cores.usable(Path("no such file"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", ALL),
        ("100000 100000", 1),
        ("50000 100000", 1),
        (f"{ALL}00000 100000", ALL),
        (f"{ALL + 5}00000 100000", ALL),
        ("", ALL),
    ],
)
def test_a_containers_limit_counts_where_it_is_lower(text: str, expected: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert cores.usable(tmp_path / "cpu.max") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to cores")
def test_a_process_that_is_tied_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from xray_hf import cores; print(cores.usable())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
