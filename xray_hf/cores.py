"""How many CPU cores are ours: of a container or a batch job often fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # a container's own: microseconds it may run in a period, and that


def usable(limit: Path = _LIMIT) -> int:
    """The cores that this process may use, at least 1.

    limit: a file like cpu.max of Linux' control groups, version 2; a part of a core counts as one.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
        return max(1, min(own, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # none, or "max": no limit
        return own
