"""How many CPU cores this process may use: in a container or batch job often fewer than there are."""

from __future__ import annotations

import os
from pathlib import Path

# Of the container: microseconds it may run per period, and the period.
_LIMIT = Path("/sys/fs/cgroup/cpu.max")


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
