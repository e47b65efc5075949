"""The programs of docs/clusters.md, as they stand, on local clusters: the rows of `xray-hf predict`.

`make test-cluster` installs what they need.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from conftest import ROOT
from PIL import Image
from pyarrow import parquet

from xray_hf.data.synthetic import sample_images

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
IMAGES, FEW = 2_000, 40
BUNDLE = ROOT / "pretrained" / "xray-cnn"
PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)  # paths: Ray, Spark; bytes: Ray, Spark
OUTPUTS = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
SECONDS = 600  # for one program on a busy machine


@dataclass(frozen=True)
class Cluster:
    """A system with a local cluster. written: what the first rows leave. lost: what it says of a killed task.

    program, of_bytes, output: of the docs. checks: a program of these tests.
    """

    launcher: tuple[str, ...]
    program: str
    of_bytes: str
    output: str
    written: str
    lost: str
    is_worker: Callable[[psutil.Process], bool]
    checks: str


def is_ray_worker(process: psutil.Process) -> bool:
    return "MapWorker" in " ".join(process.cmdline())


def is_spark_worker(process: psutil.Process) -> bool:
    parent = process.parent()
    daemon = "pyspark.daemon"
    return daemon in process.cmdline() and parent is not None and daemon in parent.cmdline()


NO_BUNDLE = """
from xray_hf.errors import BundleError
try:
    predict(None, "no-bundle")
    raise SystemExit("took no-bundle")
except BundleError:
    pass
"""
RAY_CHECKS = f"""
import ray
from xray_hf.integrations.ray_data import Worker, predict
{NO_BUNDLE}
ray.init(num_cpus=3)
workers = [ray.remote(Worker).options(num_cpus=n).remote("{BUNDLE}", None, "onnxruntime") for n in (1, 2)]
assert ray.get([each.__ray_call__.remote(lambda self: self._engine._cores) for each in workers]) == [1, 2]
"""
SPARK_CHECKS = f"""
from pyspark.sql import SparkSession
from xray_hf.integrations.spark import _engine, predict
{NO_BUNDLE}
def engine(job):
    return _engine(job, "{BUNDLE}", "onnxruntime")
def seen(_):
    return engine("a")._cores, engine("a") is engine("a"), engine("a") is engine("b")
spark = SparkSession.builder.config("spark.task.cpus", 2).getOrCreate()
assert spark.sparkContext.parallelize([0], 1).map(seen).collect() == [(2, True, False)]
"""
PYTHON = (sys.executable,)
SUBMIT = (str(Path(sys.executable).parent / "spark-submit"), "--master", "local[2, 3]")
CLUSTERS = {
    "ray": Cluster(
        PYTHON,
        *PROGRAMS[0::2],
        OUTPUTS[0],
        "results/*.parquet",
        "A worker died or was killed while executing a task",
        is_ray_worker,
        RAY_CHECKS,
    ),
    "pyspark": Cluster(
        SUBMIT,
        *PROGRAMS[1::2],
        OUTPUTS[1],
        "results/_temporary/0/task_*",
        "Python worker exited unexpectedly",
        is_spark_worker,
        SPARK_CHECKS,
    ),
}


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed; run `make test-cluster`")
    if request.param == "pyspark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java 17 or later, and there is no `java` on the PATH")
    return CLUSTERS[request.param]


@pytest.fixture(autouse=True)
def none_left_running() -> Iterator[None]:
    """End what a failed test has started."""
    yield
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs run, with their inputs and the tables of `xray-hf predict`."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "pretrained").symlink_to(BUNDLE.parent)
    write_scans(folder / "scans")
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("scans/*"))
    contents = [(folder / name).read_bytes() for name in names[:FEW]]
    parquet.write_table(pa.table({"path": names[:FEW], "content": contents}), folder / "rows.parquet")
    images = [{"path": name, "bytes": bytes_} for name, bytes_ in zip(names, contents, strict=False)]
    parquet.write_table(pa.table({"image": images}), folder / "images.parquet")
    for given in ("scans", "images.parquet"):
        words = ["predict", BUNDLE, given, "--out", f"expected-{Path(given).stem}.parquet"]
        run([sys.executable, "-m", "xray_hf.cli", *map(str, words)], folder)
    return folder


def write_scans(scans: Path) -> None:
    """Synthetic X-rays, each with its own noise; a few files that are not X-rays, or not images at all."""
    scans.mkdir()
    patients = [np.asarray(image, np.int16) for _, image in sample_images(8, seed=1)]
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = patients[number % len(patients)]
        noisy = pixels + rng.integers(-9, 10, pixels.shape, np.int16)
        stream = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        content = {7: b"", 8: b"not an image", 1234: stream.getvalue()[:2000]}.get(number, stream.getvalue())
        (scans / f"{number:04d}.jpg").write_bytes(content)
    Image.new("L", (300, 300), 128).save(scans / "0009.jpg")


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(SECONDS) == 0, (folder / "log.txt").read_text()[-5000:]


def run(command: list[str], folder: Path) -> None:
    finish(start(command, folder), folder)


def start_program(launcher: tuple[str, ...], text: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a program, without the results of the one before."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    (folder / "program.py").write_text(text)
    return start([*launcher, "program.py"], folder)


def lines_said(folder: Path) -> set[str]:
    """What the program and its libraries printed."""
    return set((folder / "log.txt").read_text(encoding="utf-8").splitlines())


def require_rows(folder: Path, expected: str) -> list[dict[str, Any]]:
    """The results, which must be exactly the rows of `xray-hf predict`, in any order."""
    tables = [parquet.read_table(folder / name).sort_by("source") for name in ("results", expected)]
    found, wanted = (table.replace_schema_metadata(None) for table in tables)
    assert found.schema == wanted.schema
    assert found.to_pylist() == wanted.to_pylist()
    return found.to_pylist()


def workers(process: subprocess.Popen[bytes], cluster: Cluster) -> set[psutil.Process]:
    found = set()
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            found |= {child} if cluster.is_worker(child) else set()
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        said = (folder / "log.txt").read_text(encoding="utf-8")[-5000:]
        assert process.poll() is None, said
        assert time.monotonic() < end, said
        time.sleep(0.1)


def test_paths_give_the_rows_of_predict(cluster: Cluster, folder: Path) -> None:
    finish(start_program(cluster.launcher, cluster.program, folder), folder)
    rows = require_rows(folder, "expected-scans.parquet")
    assert len(rows) == IMAGES
    assert sum(row["error"] is not None for row in rows) == 3
    assert set(cluster.output.splitlines()) <= lines_said(folder)


def test_bytes_give_the_rows_of_predict(cluster: Cluster, folder: Path) -> None:
    finish(start_program(cluster.launcher, cluster.of_bytes, folder), folder)
    require_rows(folder, "expected-images.parquet")


def test_killed_workers_lose_and_repeat_no_row(cluster: Cluster, folder: Path) -> None:
    process = start_program(cluster.launcher, cluster.program, folder)
    wait_until(lambda: list(folder.glob(cluster.written)), process, folder)

    def lost_a_task() -> bool:
        for worker in workers(process, cluster):  # they may have been between two tasks
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        time.sleep(5)
        return cluster.lost in (folder / "log.txt").read_text(encoding="utf-8")

    wait_until(lost_a_task, process, folder)
    finish(process, folder)
    require_rows(folder, "expected-scans.parquet")


def test_a_worker_uses_the_cores_that_are_reserved_for_it(cluster: Cluster, folder: Path) -> None:
    finish(start_program(cluster.launcher, cluster.checks, folder), folder)
