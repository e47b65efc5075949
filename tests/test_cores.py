"""How many cores are counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xray_hf import cores

VERSION_2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
IN_DOCKER = VERSION_1.replace("0:29 / ", "0:29 /docker/0a1b ")


def tree(root: Path, cgroup: str, mounts: str, limits: dict[str, str]) -> Path:
    """A made-up machine. limits: {file below /sys/fs/cgroup: content}."""
    files = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": f"22 1 8:1 / / rw - ext4 /dev/a rw\n{mounts}"}
    for name, content in (files | {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def quota(microseconds: int, period: int = 100000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": f"{microseconds}\n", "cpu.cfs_period_us": f"{period}\n"}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("250000 100000", 3),
        ("800000 100000", 8),
        ("1300000 100000", 8),
        ("", 8),
        ("no limit", 8),
        ("100000 0", 8),
    ],
)
def test_a_containers_limit_counts_where_it_is_lower(text: str, expected: int, tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/\n", VERSION_2, {"cpu.max": f"{text}\n"})
    assert cores.usable(root) == expected


@pytest.mark.parametrize(
    ("own", "middle", "top", "expected"),
    [
        ("max", "max", "max", 8),
        ("max", "200000", "max", 2),
        ("300000", "max", "700000", 3),
        ("5", "5", "5", 1),
    ],
)
def test_the_smallest_limit_of_all_groups_around_counts(
    own: str, middle: str, top: str, expected: int, tmp_path: Path
) -> None:
    limits = {"jobs/mine/cpu.max": own, "jobs/cpu.max": middle, "cpu.max": top, "jobs/other/cpu.max": "1"}
    limits = {name: f"{text} 100000\n" for name, text in limits.items()}
    assert cores.usable(tree(tmp_path, "0::/jobs/mine\n", VERSION_2, limits)) == expected


@pytest.mark.parametrize(
    ("own", "top", "expected"), [(-1, -1, 8), (250000, -1, 3), (-1, 200000, 2), (400000, 200000, 2)]
)
def test_version_1_has_its_limits_in_two_files(own: int, top: int, expected: int, tmp_path: Path) -> None:
    limits = below("cpu,cpuacct/jobs/mine", quota(own)) | below("cpu,cpuacct", quota(top))
    cgroup = "9:memory:/other\n4:cpu,cpuacct:/jobs/mine\n1:name=systemd:/\n"
    assert cores.usable(tree(tmp_path, cgroup, VERSION_1, limits)) == expected


def test_cpuset_and_cpuacct_are_not_the_controller_of_limits(tmp_path: Path) -> None:
    mounts = "".join(
        f"3{number} 31 0:3{number} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
        for number, name in enumerate(("cpuset", "cpuacct", "cpu"))
    )
    limits = (
        below("cpuacct", quota(100000)) | below("cpuset", quota(100000)) | below("cpu/jobs", quota(300000))
    )
    assert cores.usable(tree(tmp_path, "3:cpuset:/\n2:cpuacct:/\n1:cpu:/jobs\n0::/\n", mounts, limits)) == 3


@pytest.mark.parametrize("group", ["/docker/0a1b", "/docker/0a1b/inner"])
def test_a_container_of_version_1_sees_its_own_group_as_the_top(group: str, tmp_path: Path) -> None:
    root = tree(tmp_path, f"4:cpu,cpuacct:{group}\n", IN_DOCKER, below("cpu,cpuacct", quota(200000)))
    assert cores.usable(root) == 2


def test_a_group_outside_of_what_is_mounted_has_no_limit_here(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/../other\n", VERSION_2, {"cpu.max": "100000 100000\n"})
    assert cores.usable(root) == 8


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    limits = below("cpu,cpuacct", quota(300000)) | {"unified/cpu.max": "max 100000\n"}
    mounts = VERSION_1 + VERSION_2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    assert cores.usable(tree(tmp_path, "4:cpu,cpuacct:/\n0::/\n", mounts, limits)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to cores")
def test_a_process_that_is_tied_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from xray_hf import cores; print(cores.usable())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
