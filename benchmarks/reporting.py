"""What every benchmark writes: medians with their spread, and the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xray_hf import __version__


def machine(libraries: Sequence[str]) -> dict[str, Any]:
    """What the numbers depend on: date, processor, load, versions of the libraries that are installed."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],  # well above 0: something else disturbed the measurement
        "versions": {"python": platform.python_version(), "xray_hf": __version__} | _versions(libraries),
    }


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, spread and all rounds of one number."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": list(values),
    }


def cell(value: dict[str, Any], digits: int) -> str:
    """Of a summary: median (lowest to highest)."""
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f} to {value['max']:.{digits}f})"


def cpu_name() -> str:
    """The processor's model, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
