"""How many CPU cores this process may use: in a container or batch job, often fewer than there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable(root: Path = Path("/")) -> int:
    """Count the cores that this process may use, at least 1; a fraction of a core counts as one.

    The minimum of its CPU affinity and the limits of its control group and of all enclosing groups:
    `cpu.max` of version 2, `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1 (Linux kernel's documents,
    admin-guide/cgroup-v2 and scheduler/sched-bwc). Without such files there is no limit.
    root: the folder that holds /proc and /sys.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = (limit for group in _groups(root) if (limit := _limit(group)) is not None)
    return max(1, min([own, *limits]))


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups that may limit its CPU time, and of the groups around each."""
    own = {  # {controller: group}; version 2 has one group, under ""
        name: PurePosixPath(path)
        for _, names, path in (line.split(":", 2) for line in _lines(root / "proc/self/cgroup"))
        for name in names.split(",")
    }
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, options = after.split(" ")[0], after.split(" ")[-1].split(",")
        if kind == "cgroup2":
            group = own.get("")
        else:
            group = own.get("cpu") if kind == "cgroup" and "cpu" in options else None
        if group is None or ".." in group.parts:  # "..": the group lies outside what is mounted here
            continue
        # Containers often see only their own group, mounted as the root.
        top, place = before.split(" ")[3:5]
        inner = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        folder = root / place.lstrip("/") / inner
        yield from (folder, *folder.parents[: len(inner.parts)])


def _limit(group: Path) -> int | None:
    """The cores that one group allows; None for no limit."""
    quota, period = (_lines(group / "cpu.max") or [""])[0].partition(" ")[::2]
    if not period:
        quota, period = (
            "".join(_lines(group / name)[:1]) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
    try:
        return -(-int(quota) // int(period)) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
